//! What is known of one series of requests.

use super::Config;
use super::errors::Errors;
use super::evidence::{Observed, Stand};
use super::finding::{Band, Finding, Gravity, Interval, Phase, Symptom};
use super::forget::{IDLE, IDLE_JOB, IDLE_WAITING};
use super::job::Job;
use super::latency::Latency;
use crate::aggregate::Requests;
use crate::model::{SeriesId, SeriesKey, SpanKind, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Share of failed requests from which on a series that was just met has failed since it was first seen, and
/// requests over which that is followed.
const ALWAYS: f64 = 0.5;
const ALWAYS_MEMORY: f32 = 50.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestSeries {
    pub key: Arc<SeriesKey>,
    /// Number of its service.
    pub service: u32,
    /// When it was seen first.
    pub first: Timestamp,
    /// Second in which it was heard last.
    pub heard_s: u32,
    /// Until it is learned.
    requests: u32,
    pub errors: Errors,
    pub latency: Latency,
    pub job: Option<Box<Job>>,
    /// Whether a deadline is set for it.
    pub scheduled: bool,
    /// Share of failed requests lately, while it has failed since it was first seen.
    always_failed: Option<f32>,
}

impl RequestSeries {
    #[must_use]
    pub fn new(key: Arc<SeriesKey>, service: u32) -> Self {
        let may_be_job =
            key.entry && matches!(key.kind, SpanKind::Internal | SpanKind::Unspecified | SpanKind::Consumer);
        Self {
            key,
            service,
            first: Timestamp::ZERO,
            heard_s: 0,
            requests: 0,
            errors: Errors::default(),
            latency: Latency::default(),
            job: may_be_job.then(Box::default),
            scheduled: false,
            always_failed: None,
        }
    }

    /// Whether something is wrong with it, as far as is known.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let mut tests = [&self.errors.test, &self.latency.test].into_iter();
        self.always_failed.is_some() || tests.any(|test| test.evidence.is_active())
    }

    /// Whether the end of a fault, or a scheduled run, is to come yet.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.is_active() || self.job.as_ref().is_some_and(|job| job.schedule().is_some())
    }

    /// Whether it sends no more, as far as is known: the end of a fault is waited for, and so is a job.
    #[must_use]
    pub fn is_idle(&self, now: Timestamp) -> bool {
        let idle = now.since(Timestamp::from_secs(self.heard_s.into()));
        if idle < IDLE {
            return false;
        }
        let least = match &self.job {
            _ if self.is_active() => IDLE_WAITING,
            None => IDLE,
            Some(job) => job.schedule().map_or(IDLE_JOB, |known| known.period.saturating_mul(4).max(IDLE)),
        };
        idle >= least.min(IDLE_WAITING)
    }

    /// Whether enough is known to judge it.
    fn is_learned(&self, now: Timestamp, config: &Config) -> bool {
        u64::from(self.requests) >= config.learn_requests && now.since(self.first) >= config.learn.0
    }

    /// Requests that arrived with a cut.
    pub fn observe(
        &mut self,
        now: Timestamp,
        id: SeriesId,
        cell: &Requests,
        config: &Config,
        findings: &mut Vec<Finding>,
    ) {
        if self.first == Timestamp::ZERO {
            self.first = now;
        }
        self.heard_s = u32::try_from(now.secs()).unwrap_or(u32::MAX);
        if !self.is_learned(now, config) {
            self.requests = self.requests.saturating_add(u32::try_from(cell.seen).unwrap_or(u32::MAX));
            self.errors.learn(cell.seen, cell.errors as f64);
            self.latency.learn(&cell.latency, i32::MAX, 1.0);
            let share = self.errors.share();
            self.always_failed = (share >= ALWAYS).then_some(share as f32);
            return;
        }
        self.judge_always_failed(now, id, cell, findings);
        let seen = Observed { now, interval: now.secs(), last: cell.last };
        let healthy = config.healthy.0;
        let verdict = self.errors.observe(seen, cell.seen, cell.errors, config.errors_floor, healthy);
        if verdict.stand != Stand::Quiet {
            let test = &self.errors.test;
            let mut finding = self.finding(now, id, Symptom::Errors, verdict.stand, config, test);
            finding.observed = test.share();
            finding.expected = Band { low: 0.0, high: verdict.null };
            finding.unit = "1".to_owned();
            finding.exemplars.extend(cell.failed);
            findings.push(finding);
        }
        let verdict = self.latency.observe(seen, &cell.latency, healthy);
        if verdict.stand != Stand::Quiet {
            let mut finding =
                self.finding(now, id, Symptom::Latency, verdict.stand, config, &self.latency.test);
            finding.observed = self.latency.slow_ns();
            let low = self.latency.quantile_ns(0.05).unwrap_or_default();
            finding.expected = Band { low, high: self.latency.limit_ns() };
            finding.unit = "ns".to_owned();
            finding.exemplars.extend(cell.slowest);
            findings.push(finding);
        }
    }

    /// What fails since it was first seen is no news that would have to wake anybody: it is told as a ticket, once,
    /// and when it is over the series is learned anew.
    fn judge_always_failed(
        &mut self,
        now: Timestamp,
        id: SeriesId,
        cell: &Requests,
        findings: &mut Vec<Finding>,
    ) {
        let Some(share) = self.always_failed.filter(|_| self.key.entry) else { return };
        let memory = (self.requests as f32).clamp(1.0, ALWAYS_MEMORY);
        let seen = cell.seen.max(1) as f32;
        let share = share + (cell.errors as f32 / seen - share) * (seen / memory).min(1.0);
        let is_over = f64::from(share) < ALWAYS / 2.0;
        self.always_failed = (!is_over).then_some(share);
        let mut finding = Finding::of(now, &self.key, id, Symptom::Errors);
        finding.phase = if is_over { Phase::Cleared } else { Phase::Active };
        (finding.gravity, finding.decided) = (Gravity::Ticket, true);
        (finding.tail, finding.log_evidence) = (1e-3, 7.0);
        finding.observed = f64::from(share);
        // What would be healthy nobody has seen.
        finding.expected = Band { low: 0.0, high: f64::INFINITY };
        finding.unit = "1".to_owned();
        finding.onset = Interval { earliest: self.first, latest: self.first };
        finding.exemplars.extend(cell.failed);
        findings.push(finding);
        if is_over {
            (self.errors, self.first, self.requests) = (Errors::default(), now, 0);
        }
    }

    fn finding(
        &self,
        now: Timestamp,
        id: SeriesId,
        symptom: Symptom,
        stand: Stand,
        config: &Config,
        test: &super::share::ShareTest,
    ) -> Finding {
        let mut finding = Finding::of(now, &self.key, id, symptom);
        let (earliest, latest) = test.evidence.onset();
        finding.onset = Interval { earliest, latest };
        finding.log_evidence = test.evidence.log() as f32;
        finding.tail = (-test.evidence.log()).exp().clamp(0.0, 1.0);
        finding.phase = if stand == Stand::Cleared { Phase::Cleared } else { Phase::Active };
        // A caller's view supports; a few bad requests are not worth waking anybody.
        let enough = test.bad() >= config.bad_requests;
        finding.gravity = if self.key.entry && enough { Gravity::Page } else { Gravity::Support };
        if !test.evidence.is_bad() && finding.phase == Phase::Active {
            finding.log_evidence = 0.0;
        }
        finding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_series_is_small() {
        // Beside it 4 bytes for each bucket of its usual durations, of which most have 20 to 40.
        assert!(size_of::<RequestSeries>() <= 216, "{}", size_of::<RequestSeries>());
    }
}
