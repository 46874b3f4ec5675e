//! Judgement on sealed windows, which are complete: traffic that does not come, and whether what is
//! missing is missing from the service or from the data.

use super::detectors::Detectors;
use super::evidence::{Observed, Stand};
use super::finding::{Finding, Gravity, Interval, Phase, Symptom};
use super::sampling::{NEW, REQUESTS_AT_LEAST, counts_requests};
use super::service::Service;
use crate::aggregate::Cell;
use crate::model::{SpanKind, Timestamp, WINDOW, WindowId};
use crate::window::SealedWindow;

/// One in so many services whose metrics differ from their spans at once is more than chance.
const DIFFER_TOGETHER: usize = 4;
/// Requests of the usual that come while none is missing, at least.
const NONE_MISSING: f64 = 0.75;

impl Detectors {
    /// A window that takes no more on-time data.
    pub(super) fn window(&mut self, now: Timestamp, window: &SealedWindow, findings: &mut Vec<Finding>) {
        if window.id <= self.state.judged && self.state.judged != WindowId(0) {
            return;
        }
        self.state.judged = window.id;
        self.count_window(window);
        // Nothing from anybody is our own blindness or the pipeline's, not a drop.
        let ours = window.cells.is_empty()
            || window.quality.gap
            || window.quality.refused > 0
            || window.id.start() < self.state.absence_from;
        // How many have metrics that count requests, and of how many those differ from the spans for the first time.
        let (mut metered, mut differ) = (0usize, 0usize);
        for service in self.state.services.iter_mut().filter(|service| service.entries > 0) {
            missing_instances(now, service, findings);
            service.judge_sampling(now, window.id, findings);
            let counts = service.in_window.metered >= REQUESTS_AT_LEAST;
            metered += usize::from(counts);
            differ += usize::from(counts && service.in_window.in_doubt);
        }
        // Where metrics differ from spans, one more window says whether that is how telemetry is made. Who falls with
        // the others waits for them: judged alone, a service that is called would be named instead of its caller.
        let waits = differ > 0 && DIFFER_TOGETHER * differ >= metered;
        for service in &mut self.state.services {
            if service.entries > 0 {
                judge_traffic(now, window.id, service, !ours && !waits, findings);
            }
            service.in_window = super::service::InWindow::default();
        }
    }

    /// What each service had in a window.
    fn count_window(&mut self, window: &SealedWindow) {
        for (id, packed) in window.cells.packed() {
            if let Some(series) = self.state.requests.get(id) {
                let Some(service) = self.state.services.get_mut(series.service as usize) else { continue };
                let counts = &mut service.in_window;
                counts.heard = true;
                let serves = series.key.kind == SpanKind::Server;
                if !series.key.entry && !serves {
                    continue;
                }
                let Some(Cell::Requests(requests)) = packed.cell() else { continue };
                counts.served += if serves { requests.seen } else { 0 };
                if series.key.entry {
                    counts.requests += requests.seen;
                    counts.weight += requests.weight.items().max(requests.seen as f64);
                    let is_new = series.first.saturating_add(NEW) > window.id.end();
                    counts.new += if is_new { requests.seen } else { 0 };
                }
            } else if let Some(series) = self.state.metrics.get(id) {
                let Some(service) = self.state.services.get_mut(series.service as usize) else { continue };
                service.in_window.heard = true;
                if counts_requests(&series.key.operation)
                    && let Some(Cell::Distribution(of)) = packed.cell()
                {
                    service.in_window.metered =
                        service.in_window.metered.saturating_add(of.histogram.count());
                }
            }
        }
        for (key, facet) in &window.facets {
            let Some(number) = self.state.numbers.get(&key.service).filter(|_| facet.items > 0) else {
                continue;
            };
            let Some(service) = self.state.services.get_mut(*number as usize) else { continue };
            service.in_window.heard = true;
            if matches!(&*key.name, "service.instance.id" | "k8s.pod.name") {
                service.instances.reported(&key.value);
            }
        }
    }
}

fn missing_instances(now: Timestamp, service: &mut Service, findings: &mut Vec<Finding>) {
    service.in_window.reporting = service.instances.share_reporting();
    let usual = service.traffic.usual();
    let lost = (usual > 0.0).then_some((service.in_window.requests as f64) < NONE_MISSING * usual);
    let Some((silent, expected)) = service.instances.judge(now, lost) else { return };
    let mut finding = Finding::of_data(now, &service.key, "instances");
    finding.phase = if service.instances.half_blind { Phase::Active } else { Phase::Cleared };
    finding.observed = expected.saturating_sub(silent) as f64;
    (finding.expected.low, finding.expected.high) = (expected as f64, expected as f64);
    finding.unit = "{instance}".to_owned();
    findings.push(finding);
}

fn judge_traffic(
    now: Timestamp,
    window: WindowId,
    service: &mut Service,
    sound: bool,
    findings: &mut Vec<Finding>,
) {
    let counts = service.in_window;
    // What is not heard at all is silent: the gap is in the data until a caller says otherwise.
    let sound = sound
        && counts.heard
        && counts.reporting > 0.5
        && !service.instances.half_blind
        && !service.lateness.active
        && !service.metered.is_active()
        && !counts.in_doubt
        && service.is_sound(window.start(), window.end());
    let began = service.first_request != Timestamp::ZERO && service.first_request < window.end();
    let seen = Observed { now, interval: window.0, last: window.end() };
    let scale = counts.reporting * service.sampled();
    let Some(drop) = service.traffic.window(seen, counts.requests, sound && began, scale) else { return };
    if drop.stand == Stand::Quiet {
        return;
    }
    let evidence = &service.traffic.evidence;
    let mut finding = Finding::about(now, &service.key, "requests", Symptom::TrafficDrop);
    let (earliest, latest) = evidence.onset();
    // The last healthy window may have held the beginning.
    let earliest = earliest.saturating_sub(WINDOW);
    finding.onset = Interval { earliest, latest };
    finding.log_evidence = if evidence.is_bad() { evidence.log() as f32 } else { 0.0 };
    finding.tail = (-evidence.log()).exp().clamp(0.0, 1.0);
    finding.phase = if drop.stand == Stand::Cleared { Phase::Cleared } else { Phase::Active };
    finding.gravity = Gravity::Page;
    finding.observed = counts.requests as f64 / WINDOW.as_secs_f64();
    (finding.expected.low, finding.expected.high) = (drop.expected / WINDOW.as_secs_f64(), f64::INFINITY);
    finding.unit = "{request}/s".to_owned();
    findings.push(finding);
}
