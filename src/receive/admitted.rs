//! A request that was let in.

use crate::limits::Permit;
use crate::model::Signal;
use crate::otlp::{Encoding, Slice};
use crate::receive::Reply;
use bytes::Bytes;
use smallvec::SmallVec;

/// A request that was let in: whole, framed, inflated and split, but not yet recorded or counted.
#[derive(Debug)]
pub struct Admitted {
    pub signal: Signal,
    /// How `wire` is compressed.
    pub encoding: Encoding,
    /// The `Export*ServiceRequest` as it came, for the journal. JSON requests are put into protobuf first.
    pub wire: Bytes,
    /// The same, inflated: what shards read. Shares `wire` when that is not compressed.
    pub body: Bytes,
    pub slices: SmallVec<[Slice; 8]>,
    /// Holds the memory of `wire` and `body` until both are let go.
    pub permit: Permit,
    pub reply: Reply,
}
