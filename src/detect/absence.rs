//! What did not come: judged on sealed windows, which are complete, and on deadlines.

use super::detectors::Detectors;
use super::evidence::{Observed, Stand};
use super::finding::{Band, Finding, Gravity, Interval, Phase, Symptom};
use crate::aggregate::{Cell, Requests};
use crate::model::{SeriesId, SpanKind, Timestamp, WINDOW, WindowId};
use crate::window::SealedWindow;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A window takes on-time data for so long after its end.
const SEALED_AFTER: Duration = Duration::from_secs(15);
/// After a gap of our own, nothing is called absent for so long.
const AFTER_GAP: Duration = Duration::from_secs(60);

/// What a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Due {
    /// A service, by its number.
    Silence(u32),
    Job(SeriesId),
}

impl Detectors {
    /// Everything that ended before this moment has arrived, if it came in time: where the latest
    /// window sealed by now ends.
    pub(super) fn absence_through(&self, now: Timestamp) -> Timestamp {
        WindowId::of(now.saturating_sub(SEALED_AFTER)).start()
    }

    /// A run of what may be a job.
    pub(super) fn job(&mut self, now: Timestamp, id: SeriesId, cell: &Requests, findings: &mut Vec<Finding>) {
        let Some(series) = self.state.requests.get_mut(&id) else { return };
        let Some(job) = series.job.as_mut() else { return };
        if job.ran(cell.first, cell.last, cell.seen) {
            let mut finding = Finding::of(now, &series.key, id, Symptom::MissedJob);
            finding.phase = Phase::Cleared;
            findings.push(finding);
        }
        if !series.scheduled
            && let Some(at) = job.deadline()
        {
            series.scheduled = true;
            self.state.due.insert((at, Due::Job(id)));
        }
    }

    /// Deadlines that passed with everything in.
    pub(super) fn deadlines(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        let through = self.absence_through(now);
        let not_before = self.state.absence_from.saturating_add(AFTER_GAP);
        while let Some(&(at, due)) = self.state.due.first() {
            if at > through {
                break;
            }
            self.state.due.pop_first();
            let (actual, scheduled) = match due {
                Due::Silence(number) => {
                    let Some(service) = self.state.services.get_mut(number as usize) else { continue };
                    (service.silence.deadline(), &mut service.silence_scheduled)
                }
                Due::Job(id) => {
                    let Some(series) = self.state.requests.get_mut(&id) else { continue };
                    (series.job.as_ref().and_then(|job| job.deadline()), &mut series.scheduled)
                }
            };
            *scheduled = false;
            let Some(actual) = actual else { continue };
            // After a gap of our own the clock starts again.
            let actual = actual.max(not_before);
            if actual > through {
                *scheduled = true;
                self.state.due.insert((actual, due));
                continue;
            }
            match due {
                Due::Silence(number) => self.silent(now, number, findings),
                Due::Job(id) => self.missed(now, id, findings),
            }
        }
    }

    fn silent(&mut self, now: Timestamp, number: u32, findings: &mut Vec<Finding>) {
        let Some(service) = self.state.services.get_mut(number as usize) else { return };
        service.silence.silent = true;
        let mut finding = Finding::about(now, &service.key, "telemetry", Symptom::Silence);
        // Metrics alone may come from anything; a service that served requests is missed.
        finding.gravity = if service.entries > 0 { Gravity::Ticket } else { Gravity::Info };
        finding.decided = true;
        finding.tail = 1e-6;
        finding.log_evidence = 14.0;
        finding.observed = now.since(service.silence.last).as_secs_f64();
        finding.expected = Band { low: 0.0, high: 30.0 };
        finding.unit = "s".to_owned();
        finding.onset = Interval { earliest: service.silence.last, latest: now };
        findings.push(finding);
    }

    fn missed(&mut self, now: Timestamp, id: SeriesId, findings: &mut Vec<Finding>) {
        let Some(series) = self.state.requests.get_mut(&id) else { return };
        let Some(job) = series.job.as_mut() else { return };
        let Some(schedule) = job.schedule() else { return };
        // A consumer follows its queue; only a long regular past makes it a job.
        if series.key.kind == SpanKind::Consumer && job.runs() < 8 {
            return;
        }
        job.missed = true;
        let expected = job.last.saturating_add(schedule.period);
        let mut finding = Finding::of(now, &series.key, id, Symptom::MissedJob);
        finding.gravity = Gravity::Page;
        finding.decided = true;
        finding.tail = 1e-6;
        finding.log_evidence = 16.0;
        finding.observed = now.since(job.last).as_secs_f64();
        let period = schedule.period.as_secs_f64();
        finding.expected = Band { low: 0.75 * period, high: period + schedule.grace.as_secs_f64() };
        finding.unit = "s".to_owned();
        finding.onset = Interval { earliest: expected, latest: expected.saturating_add(schedule.grace) };
        findings.push(finding);
    }

    /// A window that takes no more on-time data.
    pub(super) fn window(&mut self, now: Timestamp, window: &SealedWindow, findings: &mut Vec<Finding>) {
        if window.id <= self.state.judged && self.state.judged != WindowId(0) {
            return;
        }
        self.state.judged = window.id;
        for (id, packed) in window.cells.packed() {
            if let Some(series) = self.state.requests.get(&id)
                && series.key.entry
                && let Some(Cell::Requests(requests)) = packed.cell()
                && let Some(service) = self.state.services.get_mut(series.service as usize)
            {
                service.in_window += requests.seen;
            }
        }
        let settled = window.id.start() >= self.state.absence_from;
        for service in self.state.services.iter_mut().filter(|service| service.entries > 0) {
            let count = std::mem::take(&mut service.in_window);
            if let Some((silent, expected)) = service.instances.judge(now) {
                let mut finding = Finding::about(now, &service.key, "instances", Symptom::Data);
                finding.phase = if service.instances.half_blind { Phase::Active } else { Phase::Cleared };
                finding.gravity = Gravity::Ticket;
                finding.decided = true;
                finding.tail = 1e-3;
                finding.log_evidence = 7.0;
                finding.observed = (expected - silent) as f64;
                finding.expected = Band { low: expected as f64, high: expected as f64 };
                finding.unit = "{instance}".to_owned();
                findings.push(finding);
            }
            // Nothing from anybody is our own blindness or the pipeline's, not a drop.
            let sound = !window.cells.is_empty()
                && !window.quality.gap
                && window.quality.refused == 0
                && settled
                && !service.instances.half_blind;
            let began = service.first_request != Timestamp::ZERO && service.first_request < window.id.end();
            let seen = Observed { now, interval: window.id.0, last: window.id.end() };
            let Some(drop) = service.traffic.window(seen, count, sound && began) else { continue };
            if drop.stand == Stand::Quiet {
                continue;
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
            finding.observed = count as f64 / WINDOW.as_secs_f64();
            let expected = drop.expected / WINDOW.as_secs_f64();
            finding.expected = Band { low: expected, high: f64::INFINITY };
            finding.unit = "{request}/s".to_owned();
            findings.push(finding);
        }
    }
}
