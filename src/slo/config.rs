//! Objectives and how they are judged.

use crate::settings::Seconds;
use std::path::PathBuf;
use std::time::Duration;

crate::settings! {
    /// Service level objectives.
    pub struct Config in "slo" {
        /// OpenSLO v1 files.
        files: Vec<PathBuf> = Vec::new(), "a list of paths";
        /// Whether each service gets a default objective.
        default: bool = true, "true or false";
        /// Target of default objectives.
        default_target: f64 = 0.99, "0.5 to 0.99999", |x| (0.5..=0.99999).contains(x);
        /// How long a default objective only supports other findings before it alerts on its own.
        default_silent: Seconds = Seconds(Duration::from_secs(3_600)), "0s to 30d", |t| t.0.as_secs() <= 2_592_000;
        /// How much traffic the default latency objective is learned from.
        learn_latency: Seconds = Seconds(Duration::from_secs(900)), "10s to 7d", |t| (10..=604_800).contains(&t.0.as_secs());
        /// Bad requests that a burning short window must hold at least.
        bad_requests: u64 = 5, "1 to 1000000", |n| (1..=1_000_000).contains(n);
        /// Services that get default objectives at most.
        default_services: u64 = 500, "0 to 100000", |n| *n <= 100_000;
    }
}
