//! Bounds of the API.

use crate::receive::available_bytes;
use crate::settings::{ByteSize, Seconds};
use std::time::Duration;

crate::settings! {
    /// Bounds of queries and pages, so that asking can never hurt counting.
    pub struct Config in "serve" {
        /// Queries that are worked on at the same time; others wait for their turn.
        queries: u64 = 2, "1 to 64", |n| (1..=64).contains(n);
        /// Longest time a query may take, waiting included.
        deadline: Seconds = Seconds(Duration::from_secs(10)), "1s to 5m", |s| (1..=300).contains(&s.0.as_secs());
        /// Memory of all queries that are worked on. The default is an eighth of what the cgroup, or else the machine,
        /// has, and no more than 256 MiB.
        memory_bytes: ByteSize = ByteSize((available_bytes() / 8).min(256 << 20)), "1 MiB to 64 GiB", |n| (1 << 20..=64 << 30).contains(&n.0);
        /// Requests on one connection at the same time.
        streams: u64 = 128, "1 to 4096", |n| (1..=4096).contains(n);
        /// Open connections on each of the two ports `listen.query` and `listen.http`.
        connections: u64 = 256, "1 to 65536", |n| (1..=65_536).contains(n);
        /// Largest request body.
        request_bytes: ByteSize = ByteSize(1 << 20), "64 KiB to 64 MiB", |n| (64 << 10..=64 << 20).contains(&n.0);
        /// Followers of the event stream at the same time.
        followers: u64 = 64, "1 to 4096", |n| (1..=4096).contains(n);
        /// How long a follower may leave a message lying before it is cut off; it can go on where it stopped.
        follower_patience: Seconds = Seconds(Duration::from_secs(30)), "100ms to 5m",
            |s| (100..=300_000).contains(&s.0.as_millis());
    }
}
