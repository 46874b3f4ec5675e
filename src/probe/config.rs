//! Which checks there are.

use super::Check;
use std::collections::BTreeSet;

/// Checks at most: each is a connection every few seconds.
const CHECKS: usize = 500;

crate::settings! {
    /// Synthetic checks.
    pub struct Config in "probe" {
        /// What is asked over and over: a table `[[probe.checks]]` each, with `name`, `url` (http, https, grpc,
        /// grpcs, tcp://HOST:PORT, dns:NAME or dns://SERVER/NAME), and if wanted `service` (whose work it is),
        /// `environment`, `every` (30s), `timeout` (10s), `failures` (3: of so many runs and one more, so many that
        /// failed page), `target` (0.99), `statuses` (HTTP, 200 to 399), `contains` (text of the answer), `ca_file`.
        checks: Vec<Check> = Vec::new(), "up to 500 tables with names of their own", |checks| {
            let names: BTreeSet<&str> = checks.iter().map(|check| check.name.as_str()).collect();
            names.len() == checks.len() && checks.len() <= CHECKS
        };
    }
}
