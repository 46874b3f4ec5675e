//! Objectives and how they are judged.

use super::burn::preset;
use super::calendar::is_time_zone;
use crate::settings::Seconds;
use std::path::PathBuf;
use std::time::Duration;

crate::settings! {
    /// Service level objectives.
    pub struct Config in "slo" {
        /// Files with objectives, or directories of them: OpenSLO v1, Sloth's and Pyrra's. They are read again when
        /// they change; while one cannot be taken, what was read before stays.
        files: Vec<PathBuf> = Vec::new(), "a list of paths";
        /// Whether each service gets a default objective.
        default: bool = true, "true or false";
        /// Target of default objectives.
        default_target: f64 = 0.99, "0.5 to 0.99999", |x| (0.5..=0.99999).contains(x);
        /// How long a default objective only supports other findings before it alerts on its own.
        default_silent: Seconds = Seconds(Duration::from_secs(3_600)), "0s to 30d", |t| t.0.as_secs() <= 2_592_000;
        /// How much traffic the default latency objective is learned from.
        learn_latency: Seconds = Seconds(Duration::from_secs(900)), "10s to 7d", |t| (10..=604_800).contains(&t.0.as_secs());
        /// Windows and factors by which objectives alert that say nothing of their own.
        burn_windows: String = "workbook".to_owned(), "workbook, sloth or pyrra",
            |name| preset(name, Duration::from_secs(2_592_000)).is_some();
        /// Bad requests that a long window must hold at least before its burning is told, and requests that a
        /// short one is made longer for.
        bad_requests: u64 = 3, "1 to 1000000", |n| (1..=1_000_000).contains(n);
        /// How improbable the bad requests of a long window must be, were they as rare as the objective allows,
        /// before anybody is paged.
        improbable: f64 = 0.01, "0.000001 to 1", |p| (0.000_001..=1.0).contains(p);
        /// Services that get default objectives at most.
        default_services: u64 = 500, "0 to 100000", |n| *n <= 100_000;
        /// Time zone of moments in texts, such as when a budget will end.
        time_zone: String = "UTC".to_owned(), "a name of the IANA data base, such as Europe/Berlin",
            |name| is_time_zone(name);
    }
}
