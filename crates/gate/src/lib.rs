//! Asks a target's gate whether there is work.
//!
//! A gate has three outcomes: work, none for a reason, or an error. An error is never taken for "none": what
//! crashed, ran out of time or could not be asked makes its target red.

mod answer;
mod child;
mod find_work;
mod image;
mod proviso;

pub use answer::{Answer, GateError, Work};
pub use find_work::{FindWork, Limits, Said};
pub use image::{Credentials, Login, Registries};
pub use proviso::Proviso;
