//! The `limits` that hold at the door.

use super::memory;
use crate::settings::{ByteSize, Seconds};
use std::time::Duration;

crate::settings! {
    /// Bounds of what is let in. What goes over one is refused with a status that says so.
    pub struct Config in "limits" {
        /// Largest request as it comes over the wire, still compressed.
        request_bytes: ByteSize = ByteSize(16 << 20), "1 KiB to 1 GiB", |size| (1 << 10..=1 << 30).contains(&size.0);
        /// Largest request once it is inflated.
        inflated_bytes: ByteSize = ByteSize(64 << 20), "1 KiB to 1 GiB", |size| (1 << 10..=1 << 30).contains(&size.0);
        /// Memory for requests that are being read, recorded and counted. The default is a quarter of
        /// what the cgroup, or else the machine, has. When it is taken, senders are told to wait.
        memory_bytes: ByteSize = ByteSize(memory::available_bytes() / 4), "at least 16 MiB", |size| size.0 >= 16 << 20;
        /// Memory that the process may have for itself, all in all. Above it nothing is let in until a twentieth of it is
        /// free again. The default is 85 % of what the cgroup, or else the machine, has.
        process_bytes: ByteSize = ByteSize(memory::available_bytes() / 100 * 85), "at least 16 MiB", |size| size.0 >= 16 << 20;
        /// Share of `memory_bytes` that one caller (the holder of a token, else an address) may have: the others are
        /// served while one floods.
        caller_share: f64 = 0.75, "above 0 to 1", |share| *share > 0.0 && *share <= 1.0;
        /// Bytes that one caller may send in a second, as they come over the wire. No bound by default.
        caller_bytes_per_second: Option<ByteSize> = None, "1 KiB to 1 TiB", |size| size.is_none_or(|size| (1 << 10..=1 << 40).contains(&size.0));
        /// How long a request's body may take to arrive, whatever it does meanwhile: what is slow holds memory.
        body_time: Seconds = Seconds(Duration::from_secs(60)), "1s to 10m", |time| (1..=600).contains(&time.0.as_secs());
        /// Open connections on both OTLP ports together.
        connections: u64 = 1_024, "1 to 65536", |count| (1..=65_536).contains(count);
    }
}
