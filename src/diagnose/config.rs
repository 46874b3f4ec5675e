//! Configuration of the stage.

use super::Pass;
use super::collect::Collector;
use super::redact::{PATTERN_CHARACTERS, PATTERNS, Redaction};
use super::upload::ObjectUrl;
use crate::settings::{ByteSize, Seconds};
use std::collections::BTreeSet;
use std::time::Duration;

crate::settings! {
    /// Diagnosis: what is captured for an anomaly, and what never leaves in a bundle.
    pub struct Config in "diagnose" {
        /// Words that mark secrets: values of attributes whose key contains one of them, and what
        /// follows it in a text after `=` or `:`, are replaced while the capture is read.
        redact_attributes: Vec<String> = DEFAULT_REDACTED.map(str::to_owned).to_vec(), "a list of texts";
        /// Words that are secrets by their looks, wherever they stand in a text, a value or the name of a span: `*`
        /// for any characters, `?` for one, `#` for a digit, as in `sk_live_*`, `####-####-####-####` or `*@*.example`.
        redact_patterns: Vec<String> = Vec::new(), "up to 50 texts of up to 100 characters", |patterns| {
            patterns.len() <= PATTERNS
                && patterns.iter().all(|pattern| (1..=PATTERN_CHARACTERS).contains(&pattern.chars().count()))
        };
        /// Healthy period before the onset that the first pass compares with.
        first_healthy: Seconds = Seconds(Duration::from_secs(120)), "10s to 1h", |time| (10..=3_600).contains(&time.0.as_secs());
        /// Most bytes of recorded requests, inflated, that the first pass reads; where the two periods hold more,
        /// it reads what lies next to the onset, and the bundle says which share that is.
        first_read_bytes: ByteSize = ByteSize(256 << 20), "16 MiB to 1 GiB", |n| (16 << 20..=1 << 30).contains(&n.0);
        /// Healthy period before the onset that the complete pass compares with.
        healthy: Seconds = Seconds(Duration::from_secs(600)), "10s to 1h", |time| (10..=3_600).contains(&time.0.as_secs());
        /// The same of the complete pass.
        read_bytes: ByteSize = ByteSize(16 << 30), "1 GiB to 1 TiB", |n| (1 << 30..=1 << 40).contains(&n.0);
        /// How long after the first pass the complete one follows, with the spans that came late.
        complete_after: Seconds = Seconds(Duration::from_secs(30)), "1s to 10min", |time| (1..=600).contains(&time.0.as_secs());
        /// What else is asked when something broke: a table `[[diagnose.collectors]]` each, with `name`, `url`
        /// (an HTTP hook, which is posted what broke) or `command` (a list: program and arguments), and if
        /// wanted `service` and `kind` (class of cause: runs for these alone), `timeout` (10s, 300s at most),
        /// `max_bytes` (1 MiB), `binary` (false; true: output that is no text is kept as it comes, not redacted). What
        /// they say goes into the bundle, also after it was complete.
        collectors: Vec<Collector> = Vec::new(), "up to 50 tables with names of their own", |collectors| {
            let names: BTreeSet<&str> = collectors.iter().map(|collector| collector.name.as_str()).collect();
            names.len() == collectors.len() && collectors.len() <= 50
        };
        /// Where each bundle is put beside the local directory, as `URL/DATE/ANOMALY.tar.zst` with its page
        /// `ANOMALY.html` beside it: a prefix in an object store. Credentials come from the environment alone, as
        /// docs/diagnosis.md says. Nothing is ever deleted there.
        evidence_url: Option<ObjectUrl> = None, "s3://BUCKET/PREFIX, gs://…, az://…, http[s]://… (WebDAV) or file:///…, without secrets";
        /// Disk space of evidence bundles. Beyond it the oldest are removed, but none of an anomaly that is open.
        evidence_bytes: ByteSize = ByteSize(4 << 30), "64 MiB to 16 TiB", |n| (64 << 20..=16 << 40).contains(&n.0);
        /// How long an evidence bundle is kept, unless its anomaly is still open.
        evidence_age: Seconds = Seconds(Duration::from_secs(90 * 86_400)), "1h to 3650d", |time| (3_600..=3_650 * 86_400).contains(&time.0.as_secs());
        /// Disk space of keepsakes: whole traces of each operation, healthy and worst, that outlive the journal. 0
        /// keeps none.
        keepsake_bytes: ByteSize = ByteSize(64 << 20), "0 to 16 GiB", |n| n.0 <= 16 << 30;
        /// How long a keepsake is kept at most.
        keepsake_age: Seconds = Seconds(Duration::from_secs(7 * 86_400)), "1h to 90d", |time| (3_600..=90 * 86_400).contains(&time.0.as_secs());
        /// An operation gets a new healthy keepsake, and a failed one, so often.
        keepsake_every: Seconds = Seconds(Duration::from_secs(3_600)), "1s to 1d", |time| (1..=86_400).contains(&time.0.as_secs());
        /// Most healthy keepsakes of an operation, beside one that failed and the slowest: their ages are spread
        /// from the last hour to more than half of `keepsake_age`.
        keepsakes_per_operation: u64 = 6, "4 to 16", |n| (4..=16).contains(n);
        /// Most complete traces of a bundle, the healthy ones included.
        max_traces: u64 = 200, "20 to 2000", |n| (20..=2_000).contains(n);
        /// Most spans, log records and metric points each that one period of the first pass holds in memory; of
        /// more, whole traces are sampled.
        first_rows: u64 = 100_000, "10000 to 10000000", |n| (10_000..=10_000_000).contains(n);
        /// The same of the complete pass.
        max_rows: u64 = 200_000, "10000 to 10000000", |n| (10_000..=10_000_000).contains(n);
    }
}

/// How much a pass looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Length of the healthy period.
    pub healthy: Duration,
    /// Bytes of recorded requests, inflated, of both periods.
    pub bytes: u64,
    /// Spans, log records and metric points each, of either period.
    pub rows: usize,
    /// How long before it fails a trace of the first failures may have begun, and how long after it ends.
    pub around_failure: Duration,
}

impl Config {
    /// What a pass looks at.
    #[must_use]
    pub fn effort(&self, pass: Pass) -> Effort {
        let rows = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
        match pass {
            Pass::First => Effort {
                healthy: self.first_healthy.0,
                bytes: self.first_read_bytes.0,
                rows: rows(self.first_rows),
                around_failure: Duration::from_secs(5),
            },
            Pass::Complete => Effort {
                healthy: self.healthy.0,
                bytes: self.read_bytes.0,
                rows: rows(self.max_rows),
                around_failure: Duration::from_secs(30),
            },
        }
    }

    /// What is hidden.
    #[must_use]
    pub fn redaction(&self) -> Redaction {
        Redaction::new(&self.redact_attributes).with_patterns(&self.redact_patterns)
    }

    /// BLAKE3 of every key's value, in hexadecimal digits: bundles with the same one were made alike.
    #[must_use]
    pub fn hash(&self) -> String {
        let Self {
            redact_attributes,
            redact_patterns,
            first_healthy,
            first_read_bytes,
            healthy,
            read_bytes,
            complete_after,
            collectors,
            // Where it is put changes nothing of what is in it.
            evidence_url: _,
            // Nor does how long it stays.
            evidence_bytes: _,
            evidence_age: _,
            keepsake_bytes,
            keepsake_age,
            keepsake_every,
            keepsakes_per_operation,
            max_traces,
            first_rows,
            max_rows,
        } = self;
        let times = [first_healthy, healthy, complete_after, keepsake_age, keepsake_every]
            .map(|time| time.0.as_nanos());
        let sizes = [
            first_read_bytes.0,
            read_bytes.0,
            *max_traces,
            *first_rows,
            *max_rows,
            keepsake_bytes.0,
            *keepsakes_per_operation,
        ];
        let text = format!("{redact_attributes:?} {redact_patterns:?} {times:?} {sizes:?} {collectors:?}");
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }
}

const DEFAULT_REDACTED: [&str; 17] = [
    "authorization",
    "cookie",
    "password",
    "passwd",
    "secret",
    "api_key",
    "api-key",
    "apikey",
    "access_token",
    "access-token",
    "accesstoken",
    "refresh_token",
    "refresh-token",
    "refreshtoken",
    "private_key",
    "private-key",
    "privatekey",
];
