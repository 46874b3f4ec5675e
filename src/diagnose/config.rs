//! Configuration of the stage.

use crate::settings::{ByteSize, Seconds};
use std::time::Duration;

crate::settings! {
    /// Diagnosis: what is captured for an anomaly, and what never leaves in a bundle.
    pub struct Config in "diagnose" {
        /// Words that mark secrets: values of attributes whose key contains one of them, and what
        /// follows it in a text after `=` or `:`, are replaced while the capture is read.
        redact_attributes: Vec<String> = DEFAULT_REDACTED.map(str::to_owned).to_vec(), "a list of texts";
        /// Healthy period before the onset that the first pass compares with.
        first_healthy: Seconds = Seconds(Duration::from_secs(120)), "10s to 1h", |time| (10..=3_600).contains(&time.0.as_secs());
        /// Most bytes of the journal that the first pass reads; where the two periods hold more, it reads what
        /// lies next to the onset, and the bundle says which share that is.
        first_read_bytes: ByteSize = ByteSize(384 << 20), "16 MiB to 1 GiB", |n| (16 << 20..=1 << 30).contains(&n.0);
        /// Healthy period before the onset that the complete pass compares with.
        healthy: Seconds = Seconds(Duration::from_secs(600)), "10s to 1h", |time| (10..=3_600).contains(&time.0.as_secs());
        /// How long after the first pass the complete one follows, with the spans that came late.
        complete_after: Seconds = Seconds(Duration::from_secs(30)), "1s to 10min", |time| (1..=600).contains(&time.0.as_secs());
        /// Most complete traces of a bundle, the healthy ones included.
        max_traces: u64 = 200, "20 to 2000", |n| (20..=2_000).contains(n);
        /// Most spans, log records and metric points each that one period holds in memory; of more,
        /// whole traces are sampled.
        max_rows: u64 = 400_000, "10000 to 10000000", |n| (10_000..=10_000_000).contains(n);
    }
}

impl Config {
    /// BLAKE3 of every key's value, in hexadecimal digits: bundles with the same one were made alike.
    #[must_use]
    pub fn hash(&self) -> String {
        let Self {
            redact_attributes,
            first_healthy,
            first_read_bytes,
            healthy,
            complete_after,
            max_traces,
            max_rows,
        } = self;
        let times = [first_healthy, healthy, complete_after].map(|time| time.0.as_nanos());
        let text = format!("{redact_attributes:?} {times:?} {max_traces} {max_rows} {}", first_read_bytes.0);
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

const DEFAULT_REDACTED: [&str; 9] = [
    "authorization",
    "cookie",
    "password",
    "passwd",
    "secret",
    "api_key",
    "api-key",
    "apikey",
    "access_token",
];
