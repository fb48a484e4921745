//! What can go wrong with a depot.

use std::fmt;

/// Something a depot was asked for and did not do.
#[derive(Debug, thiserror::Error)]
#[error("{location}: {doing}: {problem}")]
pub struct DepotError {
    /// The depot, as [`Depot::location`](crate::Depot::location) names it.
    pub location: String,
    /// What was being done, with the blob's name: `reading packs/x`.
    pub doing: String,
    /// What is wrong, and what can be done.
    pub problem: Problem,
}

/// What is wrong with a depot, as far as a caller goes on differently.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// The blob is not there any more.
    Gone,
    /// It says that we may not. The text is its own; it holds no secret.
    Denied(String),
    /// It does not know us, or not any more: nothing can be read or written with these credentials.
    Ended(String),
    /// There are fewer bytes than were asked for: the range is not the blob's, or the blob was cut off.
    Short(String),
    /// It asked for patience longer than we have.
    Busy(String),
    /// There is no room, or no budget.
    Full(String),
    /// No answer, or none that makes sense, after the attempts that are worth it.
    Unreachable(String),
    /// This kind of depot cannot do that.
    Unsupported(&'static str),
    /// The bytes to be kept could not be produced.
    Body(std::io::Error),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it is not there any more"),
            Self::Denied(said) | Self::Ended(said) => write!(f, "not permitted: {said}"),
            Self::Short(said) => write!(f, "too few bytes: {said}"),
            Self::Busy(said) => write!(f, "asked to wait too long: {said}"),
            Self::Full(said) => write!(f, "no room: {said}"),
            Self::Unreachable(said) => write!(f, "no answer: {said}"),
            Self::Unsupported(what) => write!(f, "this kind of depot cannot {what}"),
            Self::Body(error) => write!(f, "the bytes to keep could not be made: {error}"),
        }
    }
}
