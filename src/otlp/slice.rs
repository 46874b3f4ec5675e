//! What a request consists of once it is split by resource.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How many partitions there are, whatever the number of shards.
pub const PARTITIONS: u8 = 64;

/// One resource's bytes (a `ResourceSpans`, `ResourceLogs` or `ResourceMetrics` message, without its
/// tag and length) within an inflated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// A hash of the resource's attributes that ignores their order, in `0..PARTITIONS`.
    pub partition: u8,
    pub range: Range<u32>,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    Identity = 0,
    Gzip = 1,
    Zstd = 2,
}
