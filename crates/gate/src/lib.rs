//! Asks a target's gate whether there is work, and runs the programs of actions.
//!
//! A gate has three outcomes: work, none for a reason, or an error. An error is never taken for "none": what
//! crashed, ran out of time or could not be asked makes its target red.

mod answer;
mod child;
mod find_work;
mod image;
mod occasion;
mod program;
mod proviso;

pub use answer::{Answer, GateError, Work};
pub use find_work::{FindWork, IsKept, Limits, Said};
pub use image::{Credentials, Login, Registries};
pub use occasion::Occasion;
pub use program::run_program;
pub use proviso::Proviso;
