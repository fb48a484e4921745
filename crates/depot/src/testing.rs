//! What tests of depots and of their users need: the contract as test cases, a depot in memory, one that
//! misbehaves by seed, and bodies to create blobs from.

mod body;
mod contract;
mod faulty;
mod memory;
mod refusing;

pub use body::{body, bytes, failing_body, pieces};
pub use contract::{Promises, contract};
pub use faulty::{Fault, Faults, Faulty};
pub use memory::Memory;
pub use refusing::Refusing;
