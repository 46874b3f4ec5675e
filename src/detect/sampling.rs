//! Whether a service's spans still stand for what they stood for: sampling that was announced (the
//! threshold in `tracestate`) or not (fewer or more spans a request that its metrics count), spans that
//! are delivered twice or not at all, operations that have new names.

use super::finding::{Finding, Phase};
use super::service::Service;
use super::usual::{Shift, Usual};
use crate::model::Timestamp;
use std::time::Duration;

/// Requests of a window that say enough.
pub(super) const REQUESTS_AT_LEAST: u64 = 10;
/// Windows after which announced sampling, and what the metrics show, is the usual.
const ANNOUNCED: u16 = 6;
const UNANNOUNCED: u16 = 60;
/// Operations count as new for so long; a younger service has only such.
pub(super) const NEW: Duration = Duration::from_secs(60);
const KNOWN: Duration = Duration::from_secs(120);

/// Whether a metric counts the requests that SERVER spans stand for.
#[must_use]
pub(super) fn counts_requests(metric: &str) -> bool {
    matches!(
        metric,
        "http.server.request.duration"
            | "http.server.duration"
            | "rpc.server.call.duration"
            | "rpc.server.duration"
    )
}

impl Service {
    /// Judges the window whose counts are in. `metered_next`: requests that the metrics counted in the window after
    /// it, as far as it is in; 0 if nothing is.
    pub(super) fn judge_sampling(&mut self, now: Timestamp, metered_next: u64, findings: &mut Vec<Finding>) {
        let window = self.in_window;
        if window.requests >= REQUESTS_AT_LEAST {
            let weight = window.weight / window.requests as f64;
            let shift = self.weight.observe(weight, ANNOUNCED);
            self.tell(now, "sampling", shift, weight, |of| &of.weight, findings);
            if let Some(Shift::Ends(times)) = shift {
                self.traffic.rescale(1.0 / times);
            }
        }
        if window.metered >= REQUESTS_AT_LEAST {
            // A few requests more or less say nothing.
            let few = if self.metered.mean() > 0.0 { REQUESTS_AT_LEAST as f64 } else { 0.0 };
            let served = window.served as f64;
            let ratio = |metered: u64| (served + few * self.metered.mean()) / (metered as f64 + few);
            // A point tells of the interval before it, so what this window had lies between its points and those of
            // the next. Where requests stay away, spans do so, too; where only spans do, they do not.
            let of_next = if metered_next > 0 { metered_next } else { window.metered };
            let spans = self.metered.nearest(ratio(window.metered), ratio(of_next));
            let shift = self.metered.observe(spans, UNANNOUNCED);
            let told = served / window.metered as f64;
            self.tell(now, "spans a request", shift, told, |of| &of.metered, findings);
            if let Some(Shift::Ends(times)) = shift {
                self.traffic.rescale(times);
            }
        } else {
            self.metered.nothing_seen();
        }
        let known = self.first_request != Timestamp::ZERO && now.since(self.first_request) > KNOWN;
        let replaced = window.new * 2 >= window.requests
            && window.requests >= 2 * REQUESTS_AT_LEAST
            && (window.requests as f64) < 1.5 * self.traffic.usual();
        let renamed = known && replaced;
        if renamed != std::mem::replace(&mut self.renamed, renamed) {
            let mut finding = Finding::of_data(now, &self.key, "operations");
            finding.phase = if renamed { Phase::Active } else { Phase::Cleared };
            finding.observed = window.new as f64 / window.requests.max(1) as f64;
            finding.expected.high = 0.5;
            finding.unit = "1".to_owned();
            findings.push(finding);
        }
    }

    fn tell(
        &self,
        now: Timestamp,
        signal: &str,
        shift: Option<Shift>,
        ratio: f64,
        of: fn(&Self) -> &Usual,
        findings: &mut Vec<Finding>,
    ) {
        let Some(shift) = shift else { return };
        let mut finding = Finding::of_data(now, &self.key, signal);
        finding.phase = if shift == Shift::Begins { Phase::Active } else { Phase::Cleared };
        finding.observed = ratio;
        (finding.expected.low, finding.expected.high) = (0.6 * of(self).mean(), 1.6 * of(self).mean());
        finding.unit = "1".to_owned();
        findings.push(finding);
    }

    /// Whether its spans stand for something else than they did a little while ago.
    #[must_use]
    pub(super) const fn is_resampled(&self) -> bool {
        self.weight.is_off() || self.metered.is_off()
    }

    /// How many of the usual spans come a request, as far as they say so themselves.
    #[must_use]
    pub(super) fn sampled(&self) -> f64 {
        let window = self.in_window;
        if !self.weight.is_off() || window.weight <= 0.0 {
            return 1.0;
        }
        (self.weight.mean() * window.requests as f64 / window.weight).clamp(0.001, 1_000.0)
    }
}
