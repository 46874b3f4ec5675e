//! How much is told, and when.

use crate::context::Exemption;
use crate::settings::Seconds;
use std::time::Duration;

crate::settings! {
    /// From findings to anomalies.
    pub struct Config in "confirm" {
        /// False pages that are accepted in a week, over all services together: an upper bound.
        false_pages_per_week: f64 = 1.0, "0.001 to 1000", |x| (0.001..=1000.0).contains(x);
        /// How long an anomaly gathers what belongs to it before it is told.
        gather: Seconds = Seconds(Duration::from_secs(2)), "0s to 60s", |t| t.0.as_secs() <= 60;
        /// How far apart the onsets of one fault's findings may lie.
        together: Seconds = Seconds(Duration::from_secs(300)), "1s to 1h", |t| (1..=3_600).contains(&t.0.as_secs());
        /// How many edges apart the services of one fault may be.
        distance: u64 = 2, "0 to 5", |n| *n <= 5;
        /// After a recovery, tail effects in its services open nothing for so long.
        cool_down: Seconds = Seconds(Duration::from_secs(60)), "0s to 1h", |t| t.0.as_secs() <= 3_600;
        /// Anomalies that are open at once at most; then one storm anomaly takes the rest.
        open: u64 = 1_000, "1 to 100000", |n| (1..=100_000).contains(n);
        /// What need not be told: known issues, silences, recurring maintenance, a line each. It is still
        /// counted and shown with the reason, and told if it is still wrong when the line's time is over.
        exemptions: Vec<String> = Vec::new(), "a list of `service=… symptom=… k8s.cluster.name=… daily=HH:MM-HH:MM days=… until=… because=…`",
            |lines| lines.iter().all(|line| Exemption::parse(line).is_ok());
    }
}
