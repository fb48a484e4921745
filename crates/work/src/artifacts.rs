//! Where the jobs of a run keep small artifacts, as far as a ledger needs it.

use std::fmt::Debug;

use bytes::Bytes;

/// An artifact that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its name, unique in the run.
    pub name: String,
    /// Its number, unique and growing.
    pub number: i64,
    /// How many bytes it has.
    pub size: u64,
    /// The job that made it, in the store's own words.
    pub maker: String,
}

/// Why an artifact could not be made, seen or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// It is not there, or not any more.
    #[error("it is not there any more")]
    Gone,
    /// A reservation cannot be filled any more.
    #[error("its reservation has lapsed")]
    Lapsed,
    /// No more can be made by this job: which limit it is, and what would help.
    #[error("{0}")]
    Full(String),
    /// Anything else: the cause, and what would help where that is known. It holds no secret.
    #[error("{0}")]
    Other(String),
}

/// How many artifacts a job may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In all.
    pub most: usize,
    /// After what it has made.
    pub left: usize,
}

/// A forge's store of artifacts: named texts that a run's jobs make once, and that all jobs of the run see as
/// soon as they are whole.
#[async_trait::async_trait]
pub trait ArtifactStore: Debug + Send + Sync + 'static {
    /// A name that is taken and has no content yet.
    type Reservation: Debug + Send + Sync;

    /// How many artifacts a job may make, and how many this one may still.
    fn room(&self) -> Room;

    /// Takes a name that nobody has taken; none when somebody has. Nobody sees it before it is filled.
    ///
    /// # Errors
    ///
    /// When there was no answer. The name may be taken all the same.
    async fn reserve(&self, name: &str) -> Result<Option<Self::Reservation>, ArtifactError>;

    /// Whether a reservation can still be filled.
    fn holds(&self, reservation: &Self::Reservation) -> bool;

    /// Gives a reserved name its content, and makes it seen.
    ///
    /// # Errors
    ///
    /// When the reservation has lapsed; or when there was no answer, and it can be done again.
    async fn fill(&self, reservation: &Self::Reservation, content: Bytes) -> Result<Artifact, ArtifactError>;

    /// All artifacts of the run that are whole, in any order.
    ///
    /// # Errors
    ///
    /// When there was no answer.
    async fn list(&self) -> Result<Vec<Artifact>, ArtifactError>;

    /// The content of an artifact.
    ///
    /// # Errors
    ///
    /// When it is gone, or there was no answer.
    async fn read(&self, artifact: &Artifact) -> Result<Bytes, ArtifactError>;

    /// Removes an artifact; that it is gone already is as good.
    ///
    /// # Errors
    ///
    /// When there was no answer.
    async fn remove(&self, artifact: &Artifact) -> Result<(), ArtifactError>;
}
