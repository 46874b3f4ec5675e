//! Settings of the store.

use crate::settings::{ByteSize, Seconds};
use std::time::Duration;

crate::settings! {
    /// What is kept on disk beside the journal: windows, ledger, checkpoints.
    pub struct Config in "store" {
        /// How much disk blocks and database may take. When it is reached, the oldest 10 s blocks are
        /// deleted first, then those of 1 m, 5 m and 1 h; the ledger never.
        max_bytes: ByteSize = ByteSize(10 << 30), "at least 16 MiB", |size| size.0 >= 16 << 20;
        /// How long windows are kept at most, of whatever width; the ledger is kept for ever.
        max_age: Seconds = Seconds(Duration::from_secs(400 * 86_400)), "1d to 3650d", |age| (86_400..=3_650 * 86_400).contains(&age.0.as_secs());
        /// How many cells (series times windows) of blocks that were read stay in memory.
        cache_cells: u64 = 50_000, "0 to 10000000", |n| *n <= 10_000_000;
        /// How many cells may wait in memory for a checkpoint while none can be written. Beyond that
        /// the oldest windows are let go, and counted.
        pending_cells: u64 = 2_000_000, "10000 to 100000000", |n| (10_000..=100_000_000).contains(n);
    }
}
