//! Settings of the window stage.

crate::settings! {
    /// Windows of event time and the call graph.
    pub struct Config in "window" {
        /// How many cells (series times windows) of sealed windows are kept in memory for queries,
        /// beyond the six newest windows, which are always kept.
        recent_cells: u64 = 200_000, "0 to 10000000", |n| *n <= 10_000_000;
        /// How many spans are held for at most a minute until the other end of their call arrives.
        /// The oldest are let go first.
        span_halves: u64 = 200_000, "1000 to 10000000", |n| (1_000..=10_000_000).contains(n);
        /// How many edges the call graph has at most.
        edges: u64 = 20_000, "100 to 1000000", |n| (100..=1_000_000).contains(n);
    }
}
