//! More requests fail than did: likelihood ratios of counts, each second by arrival.
//!
//! Exact at low counts. The null is the upper confidence bound of the baseline, tempered by learned
//! over-dispersion; alternatives are 2 to 128 times the null.

use super::evidence::Observed;
use super::share::{ShareTest, Verdict};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Memory of the baseline, in seconds with traffic.
const MEMORY_S: f64 = 7_200.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    total: f32,
    bad: f32,
    pub test: ShareTest,
}

impl Errors {
    pub fn learn(&mut self, total: u64, bad: f64) {
        self.pass();
        self.total += total as f32;
        self.bad += bad as f32;
    }

    /// Share of failed requests of the baseline.
    #[must_use]
    pub fn share(&self) -> f64 {
        f64::from(self.bad / self.total.max(1.0))
    }

    /// A second with traffic.
    fn pass(&mut self) {
        let keep = (1.0 - 1.0 / MEMORY_S) as f32;
        self.total *= keep;
        self.bad *= keep;
    }

    pub fn observe(
        &mut self,
        seen: Observed,
        total: u64,
        bad: u64,
        floor: f64,
        healthy: Duration,
    ) -> Verdict {
        let base = (f64::from(self.bad), f64::from(self.total));
        let verdict = self.test.observe(seen, (bad, total), base, floor, healthy);
        if !self.test.evidence.is_active() {
            self.pass();
        }
        if let Some((total, bad)) = verdict.learned {
            self.total += total as f32;
            self.bad += bad as f32;
        }
        verdict
    }
}
