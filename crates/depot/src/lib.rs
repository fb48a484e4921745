//! Where bytes are kept between runs: immutable blobs under names.
//!
//! [`Depot`] is what every place of that kind can do, and no more: create a blob whole or not at all, find
//! it by name or by the newest of a prefix, read ranges of it. A depot may forget a blob at any time, may
//! show a new one late, and is never trusted: whoever reads verifies what it reads.

mod blob;
mod depot;
mod directory;
mod error;
mod object;
mod open;
mod pointers;
mod redacted;
#[cfg(feature = "testing")]
pub mod testing;

pub use blob::{Blob, BlobName, BlobNameError, LONGEST_NAME, LONGEST_SEGMENT};
pub use depot::{Body, Created, Depot, Scopes};
pub use directory::Directory;
pub use error::{DepotError, Problem};
pub use object::ObjectDepot;
pub use open::{OpenError, Opener, default_url, default_url_of_environment, open};
pub use redacted::redacted;
