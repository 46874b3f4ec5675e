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
/// The same while the series is only learned: what failed and is well again when it is known does not fail always.
const LEARNING_MEMORY: f32 = 20.0;

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
    /// Share of failed requests lately, while it is only learned or has failed since it was first seen.
    always_failed: Option<f32>,
    /// Whether that was told.
    told_failing: bool,
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
            told_failing: false,
        }
    }

    /// Whether something is wrong with it, as far as is known.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let mut tests = [&self.errors.test, &self.latency.test].into_iter();
        self.told_failing || tests.any(|test| test.evidence.is_active())
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
            let lately = self.lately_failed(cell, LEARNING_MEMORY);
            self.always_failed = self.key.entry.then_some(lately);
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
            finding.observed = self.latency.slow();
            let low = self.latency.quantile(0.05).unwrap_or_default();
            finding.expected = Band { low, high: self.latency.limit() };
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
        if self.always_failed.is_none() {
            return;
        }
        let share = self.lately_failed(cell, (self.requests as f32).clamp(1.0, ALWAYS_MEMORY));
        let began = self.first;
        let was_told = self.told_failing;
        if !was_told && self.errors.share() < ALWAYS {
            self.always_failed = None;
            return;
        }
        let is_over = f64::from(share) < if was_told { ALWAYS / 2.0 } else { ALWAYS };
        self.always_failed = (!is_over).then_some(share);
        self.told_failing = !is_over;
        if is_over {
            // What is usual for it is not known yet.
            (self.errors, self.first, self.requests) = (Errors::default(), now, 0);
            if !was_told {
                return;
            }
        }
        let mut finding = Finding::of(now, &self.key, id, Symptom::Errors);
        finding.phase = if is_over { Phase::Cleared } else { Phase::Active };
        (finding.gravity, finding.decided) = (Gravity::Ticket, true);
        (finding.tail, finding.log_evidence) = (1e-3, 7.0);
        finding.observed = f64::from(share);
        // What would be healthy nobody has seen.
        finding.expected = Band { low: 0.0, high: f64::INFINITY };
        finding.unit = "1".to_owned();
        finding.onset = Interval { earliest: began, latest: began };
        finding.exemplars.extend(cell.failed);
        findings.push(finding);
    }

    /// Share of failed requests over about the last `memory` of them, this cell's included.
    fn lately_failed(&self, cell: &Requests, memory: f32) -> f32 {
        let seen = cell.seen.max(1) as f32;
        let share = cell.errors as f32 / seen;
        let before = self.always_failed.unwrap_or(share);
        before + (share - before) * (seen / memory).min(1.0)
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

    /// Ticks in which failures were told of a request each five seconds, of which these fail.
    fn told(fails: impl Fn(u64) -> bool) -> Vec<u64> {
        let key = SeriesKey {
            service: crate::model::ServiceKey::named("shop"),
            signal: crate::model::Signal::Traces,
            operation: "GET /health".into(),
            kind: SpanKind::Server,
            entry: true,
            unit: "".into(),
            attributes: vec![],
        };
        let (id, mut series) = (key.id(), RequestSeries::new(Arc::new(key), 0));
        let (config, mut told) = (Config::default(), Vec::new());
        for number in 0..60u64 {
            let now = Timestamp::from_secs(1_700_000_000 + 5 * number);
            let cell = Requests {
                seen: 1,
                errors: u64::from(fails(number)),
                first: now,
                last: now,
                ..Requests::default()
            };
            let mut findings = Vec::new();
            series.observe(now, id, &cell, &config, &mut findings);
            let active = findings.iter().any(|finding| finding.phase == Phase::Active);
            told.extend(active.then_some(number));
        }
        told
    }

    #[test]
    fn what_failed_while_it_was_learned_and_is_well_again_does_not_fail_always() {
        assert_eq!(told(|number| (8..18).contains(&number)), [0u64; 0]);
        // What fails since it was first seen is told as soon as it is known, until it has been well for a while.
        let always = told(|number| number < 30);
        assert_eq!(always.first(), Some(&20));
        assert!((31..59).contains(always.last().unwrap()), "{always:?}");
    }

    #[test]
    fn a_healthy_series_is_small() {
        // Beside it 4 bytes for each bucket of its usual durations, of which most have 20 to 40.
        assert!(size_of::<RequestSeries>() <= 216, "{}", size_of::<RequestSeries>());
    }
}
