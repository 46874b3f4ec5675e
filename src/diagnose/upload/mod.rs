//! Bundles in an object store: where, over which transport, and how a put is tried again.

mod destination;
mod record;
mod retry;
mod transport;

pub use destination::{Bucket, ObjectUrl};
pub use record::Uploaded;
pub use retry::{Failure, Retry};
