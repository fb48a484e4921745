//! What was asked of the double.

use std::collections::BTreeMap;

use super::fault::{Fault, Request};

/// What was asked of the double since it began, faults included.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// How many requests of each kind came in.
    pub requests: BTreeMap<Request, u64>,
    /// How many of them were refused because there were too many in a minute.
    pub limited: u64,
    /// How many requests came in that are of no kind known here.
    pub unknown: u64,
    /// How many bytes of blobs came in.
    pub bytes_in: u64,
    /// How many bytes of blobs went out, or were about to when the connection broke.
    pub bytes_out: u64,
    /// How often each fault happened.
    pub faults: BTreeMap<Fault, u64>,
}

impl Counts {
    /// How many requests of one kind came in.
    #[must_use]
    pub fn of(&self, request: Request) -> u64 {
        self.requests.get(&request).copied().unwrap_or_default()
    }
}
