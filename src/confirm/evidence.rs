//! Evidence against the false-alarm budget.

use super::anomaly::Severity;
use super::confirm::Confirm;
use crate::detect::{Census, Finding, Gravity, Symptom};
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
        let recent = self.state.spent.iter().filter(|(when, _)| *when > since);
        // From zero: the sum of no numbers at all is -0, and is shown as such.
        let spent = recent.fold(0.0, |sum, (_, share)| sum + share);
        (self.config.false_pages_per_week, spent)
    }

    /// Natural logarithm of how far the evidence of a finding is above what the budget asks for.
    pub(super) fn above(&self, finding: &Finding, census: &Census) -> f64 {
        let per_week = self.config.false_pages_per_week;
        // The run length that the budget buys over all services together, and all tests of this one.
        let tests = census.tests.get(&finding.service).copied().unwrap_or(1).max(1) as f64;
        let promised = (tests * census.services.max(1) as f64 * TICKS_PER_WEEK / per_week).ln();
        let asked = self.state.pace.threshold(finding.symptom, promised, census.services, per_week);
        f64::from(finding.log_evidence) - asked
    }

    /// Whether one finding is enough for what it says, on its own.
    pub(super) fn fires_alone(&self, finding: &Finding, census: &Census) -> bool {
        finding.decided || self.above(finding, census) >= 0.0
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
        let mut sums: BTreeMap<&ServiceKey, f64> = BTreeMap::new();
        for finding in self.state.watched.values().filter(|f| f.gravity == Gravity::Page && !f.decided) {
            *sums.entry(&finding.service).or_default() += self.above(finding, census).exp();
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
            // A budget that burns anew is no tail effect: those were let go as echoes.
            let is_tail = cooling.contains(&finding.service) && finding.symptom != Symptom::BudgetBurn;
            if is_tail || finding.gravity == Gravity::Support {
                return false;
            }
            if finding.decided {
                return true;
            }
            finding.gravity == Gravity::Page && sums.get(&finding.service).is_some_and(|sum| *sum >= 1.0)
        };
        let strongest = |a: &&Finding, b: &&Finding| {
            (a.gravity, a.log_evidence)
                .partial_cmp(&(b.gravity, b.log_evidence))
                .unwrap_or(std::cmp::Ordering::Equal)
        };
        self.state.watched.values().filter(fires).max_by(strongest).cloned()
    }
}
