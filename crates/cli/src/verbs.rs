//! One file a verb.

pub(crate) mod cache;
pub(crate) mod eval;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod work;
