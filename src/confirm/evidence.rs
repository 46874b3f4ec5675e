//! Evidence against the false-alarm budget.

use super::anomaly::Severity;
use super::confirm::Confirm;
use crate::detect::{Census, Finding, Gravity};
use crate::model::{ServiceKey, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Ticks in a week: one a second.
const TICKS_PER_WEEK: f64 = 604_800.0;

impl Confirm {
    /// How many false pages are accepted in a week, and how many of this week's are expected to have
    /// been false.
    #[must_use]
    pub fn budget(&self, at: Timestamp) -> (f64, f64) {
        let since = at.saturating_sub(Duration::from_secs(604_800));
        let spent = self.state.spent.iter().filter(|(when, _)| *when > since).map(|(_, share)| share).sum();
        (self.config.false_pages_per_week, spent)
    }

    /// The run length that the budget buys over all services together.
    pub(super) fn threshold(&self, census: &Census) -> f64 {
        census.services.max(1) as f64 * TICKS_PER_WEEK / self.config.false_pages_per_week
    }

    /// Whether one finding is enough for what it says, on its own.
    pub(super) fn fires_alone(&self, finding: &Finding, census: &Census) -> bool {
        let tests = census.tests.get(&finding.service).copied().unwrap_or(1).max(1) as f64;
        finding.decided || f64::from(finding.log_evidence) - tests.ln() >= self.threshold(census).ln()
    }

    pub(super) fn severity_of(&self, finding: &Finding, census: &Census) -> Severity {
        match finding.gravity {
            Gravity::Page if self.fires_alone(finding, census) => Severity::Page,
            Gravity::Page | Gravity::Ticket => Severity::Ticket,
            Gravity::Support | Gravity::Info => Severity::Info,
        }
    }

    /// The strongest finding of a service that may open an anomaly now.
    pub(super) fn opener(&self, at: Timestamp, census: &Census) -> Option<Finding> {
        let threshold = self.threshold(census).ln();
        let mut sums: BTreeMap<&ServiceKey, f64> = BTreeMap::new();
        for finding in self.state.watched.values().filter(|f| f.gravity == Gravity::Page && !f.decided) {
            *sums.entry(&finding.service).or_default() += f64::from(finding.log_evidence).exp();
        }
        let cool_down = self.config.cool_down.0;
        let cooling: BTreeSet<&ServiceKey> = self
            .state
            .ended
            .iter()
            .filter(|ended| at.since(ended.at) < cool_down)
            .flat_map(|ended| &ended.services)
            .collect();
        let fires = |finding: &&Finding| {
            if cooling.contains(&finding.service) || finding.gravity == Gravity::Support {
                return false;
            }
            if finding.decided {
                return true;
            }
            let tests = census.tests.get(&finding.service).copied().unwrap_or(1).max(1) as f64;
            let mean = sums.get(&finding.service).copied().unwrap_or_default() / tests;
            finding.gravity == Gravity::Page && mean.ln() >= threshold
        };
        let strongest = |a: &&Finding, b: &&Finding| {
            (a.gravity, a.log_evidence)
                .partial_cmp(&(b.gravity, b.log_evidence))
                .unwrap_or(std::cmp::Ordering::Equal)
        };
        self.state.watched.values().filter(fires).max_by(strongest).cloned()
    }
}
