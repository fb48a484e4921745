//! Events in, documents out.
//!
//! [`Summary`] folds the events of a run; everything else is made from it: [`Lines`] for a log that is
//! read later, [`Groups`] where parts of it can be folded, [`frame()`] for a terminal that is watched, [`end()`] for its last page, [`json()`], [`junit()`] and
//! [`markdown()`] for machines and forges, [`html()`] for a browser. Names and logs come from flakes that nobody has vetted: every
//! renderer passes them through [`clean()`].

mod action_state;
mod annotations;
mod clean;
mod derivation_state;
mod end;
mod errors;
mod gantt;
mod groups;
mod json;
mod junit;
mod lines;
mod live;
mod markdown;
mod markup;
mod page;
mod roots;
mod style;
mod summary;
mod table;
mod time;
mod timeline;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod properties;

pub use action_state::ActionState;
pub use annotations::{Annotation, MOST_ANNOTATIONS, annotations};
pub use clean::clean;
pub use derivation_state::{DerivationState, Progress, TAIL_LINES};
pub use end::end;
pub use groups::{Groups, Shown};
pub use json::{JsonDerivation, JsonReport, JsonTarget, json};
pub use junit::junit;
pub use lines::{Detail, Lines};
pub use live::frame;
pub use markdown::{MARKDOWN_LIMIT, markdown};
pub use page::{PAGE_LIMIT, html};
pub use roots::{Root, plural, root_failures};
pub use style::Style;
pub use summary::{Summary, TargetState};
pub use time::human_seconds;
