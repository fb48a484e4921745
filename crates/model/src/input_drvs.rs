//! The derivations that a derivation needs, as they stand in its file.
//!
//! A graph has some ten edges to each derivation, and nearly all lead to one that is known already. So they
//! are kept as the text they came from: one allocation for all, and none for looking at them.

use crate::{PathKey, StorePathRef};

/// The derivations that a derivation needs, each with the names of the outputs it needs of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputDrvs {
    /// `("/nix/store/….drv",["dev","out"]),…`, with whatever stands between.
    text: Box<str>,
    spans: Vec<Span>,
}

/// Where one input stands in the text; offsets in bytes, ends exclusive, quotes not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) key: PathKey,
    pub(crate) path: u32,
    pub(crate) base: u32,
    pub(crate) path_end: u32,
    /// From the first name's opening quote to the last one's closing quote; empty for no names.
    pub(crate) names: u32,
    pub(crate) names_end: u32,
}

/// One derivation that is needed.
#[derive(Debug, Clone, Copy)]
pub struct InputDrv<'a> {
    /// Its path.
    pub path: StorePathRef<'a>,
    names: &'a str,
}

impl InputDrvs {
    pub(crate) fn from_spans(text: &str, spans: Vec<Span>) -> Self {
        Self { text: text.into(), spans }
    }

    /// All of them, in the order of the file (sorted by path).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = InputDrv<'_>> {
        let part = |start: u32, end: u32| &self.text[start as usize..end as usize];
        self.spans.iter().map(move |span| InputDrv {
            path: StorePathRef::checked(part(span.path, span.path_end), span.base - span.path),
            names: part(span.names, span.names_end),
        })
    }

    /// The keys of their paths, in the same order: what tells whether one is known already, without looking
    /// at the text.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = PathKey> {
        self.spans.iter().map(|span| span.key)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

impl<'a> InputDrv<'a> {
    /// The names of the outputs that are needed of it, in the order of the file.
    pub fn outputs(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        // Every other part between quotes is a name; names hold none themselves.
        self.names.split('"').skip(1).step_by(2)
    }
}
