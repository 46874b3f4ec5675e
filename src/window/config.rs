//! Settings of the window stage.

use crate::settings::ByteSize;

crate::settings! {
    /// Windows of event time and the call graph.
    pub struct Config in "window" {
        /// How much memory sealed windows may take that are kept for queries, beyond the two newest, which
        /// are always kept; older ones are read from disk.
        recent_bytes: ByteSize = ByteSize(8 << 20), "at most 16 GiB", |size| size.0 <= 16 << 30;
        /// How many spans are held for at most a minute until the other end of their call arrives.
        /// The oldest are let go first.
        span_halves: u64 = 200_000, "1000 to 10000000", |n| (1_000..=10_000_000).contains(n);
        /// How many edges the call graph has at most.
        edges: u64 = 20_000, "100 to 1000000", |n| (100..=1_000_000).contains(n);
    }
}
