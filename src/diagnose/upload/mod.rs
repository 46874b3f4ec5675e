//! Bundles in an object store: which wait, where to, over which transport, and how a put is tried again.

mod destination;
mod queue;
mod record;
mod retry;
mod transport;

pub use destination::{Bucket, ObjectUrl};
pub use queue::Uploading;
pub use record::Uploaded;
pub use retry::{Failure, Retry};
