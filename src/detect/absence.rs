//! What did not come by its deadline, once everything up to then is in.

use super::detectors::Detectors;
use super::finding::{Band, Finding, Gravity, Interval, Phase, Symptom};
use crate::aggregate::Requests;
use crate::model::{SeriesId, SpanKind, Timestamp, WindowId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A window takes on-time data for so long after its end.
pub(super) const SEALED_AFTER: Duration = Duration::from_secs(15);
/// After a gap of our own, nothing is called absent for so long.
const AFTER_GAP: Duration = Duration::from_secs(60);

/// While a run may have happened unseen, its deadline is put off by so much.
const PUT_OFF: Duration = Duration::from_secs(10);

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
        let Some(series) = self.state.requests.get_mut(id) else { return };
        let Some(job) = series.job.as_mut() else { return };
        if let Some((fails, grave)) = job.ended(cell.seen, cell.errors) {
            let mut finding = Finding::of(now, &series.key, id, Symptom::Errors);
            finding.attributes.push(("job".to_owned(), "failing".to_owned()));
            finding.phase = if fails { Phase::Active } else { Phase::Cleared };
            finding.gravity = if grave { Gravity::Page } else { Gravity::Ticket };
            finding.decided = true;
            finding.tail = if grave { 1e-3 } else { 0.05 };
            finding.log_evidence = 14.0;
            finding.observed = 1.0;
            finding.unit = "1".to_owned();
            finding.onset = Interval { earliest: cell.first, latest: cell.last };
            finding.exemplars.extend(cell.failed);
            findings.push(finding);
        }
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
                    let Some(series) = self.state.requests.get_mut(id) else { continue };
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
                Due::Job(id) if self.may_be_unseen(id, through) => {
                    if let Some(series) = self.state.requests.get_mut(id) {
                        series.scheduled = true;
                    }
                    self.state.due.insert((through.saturating_add(PUT_OFF), due));
                    return;
                }
                Due::Job(id) => self.missed(now, id, findings),
            }
        }
    }

    /// Whether the run of a job that is overdue may have happened unseen. Where spans stand for something
    /// else than they did, its schedule is learned anew.
    fn may_be_unseen(&mut self, id: SeriesId, through: Timestamp) -> bool {
        let Some(series) = self.state.requests.get_mut(id) else { return false };
        let Some(service) = self.state.services.get(series.service as usize) else { return false };
        let environment = &service.key.environment;
        let mut others = self.state.services.iter().filter(|other| other.key.environment == *environment);
        let Some(job) = series.job.as_mut() else { return false };
        if others.any(super::service::Service::is_resampled) {
            job.relearn();
            return true;
        }
        service.is_blind(job.last, through)
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
        let Some(series) = self.state.requests.get_mut(id) else { return };
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
}
