//! Whether a service's spans still stand for what they stood for: sampling that was announced (the
//! threshold in `tracestate`) or not (fewer or more spans a request that its metrics count), spans that
//! are delivered twice or not at all, operations that have new names.

use super::finding::{Finding, Phase};
use super::service::Service;
use super::usual::{Shift, Usual};
use crate::model::{Timestamp, WindowId};
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
    /// Judges the window whose counts are in.
    pub(super) fn judge_sampling(&mut self, now: Timestamp, id: WindowId, findings: &mut Vec<Finding>) {
        let window = self.in_window;
        if window.requests >= REQUESTS_AT_LEAST {
            let weight = window.weight / window.requests as f64;
            let shift = self.weight.observe(weight, ANNOUNCED);
            self.tell(now, "sampling", shift, weight, |of| &of.weight, findings);
            if let Some(Shift::Ends(times)) = shift {
                self.traffic.rescale(1.0 / times);
            }
        }
        // Where requests stay away the metrics of a window, which are about what was before, differ from its spans.
        let low = !self.metered.is_active() && self.requests_metered.is_low_after(id);
        if window.metered >= REQUESTS_AT_LEAST && !low {
            let spans = window.served as f64 / window.metered as f64;
            let shift = self.metered.observe(spans, UNANNOUNCED);
            self.tell(now, "spans a request", shift, spans, |of| &of.metered, findings);
            if let Some(Shift::Ends(times)) = shift {
                self.traffic.rescale(times);
            }
            self.in_window.in_doubt = self.metered.is_in_doubt();
        }
        // Also of what is low: were it to stay so, it would become the usual after some minutes.
        if window.metered >= REQUESTS_AT_LEAST && !self.metered.is_off() {
            self.requests_metered.learn(window.metered);
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
