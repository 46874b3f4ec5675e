//! What is known of one metric series.

use super::Config;
use super::evidence::{Observed, Stand};
use super::exhaustion::{Exhaustion, Outlook};
use super::finding::{Band, Finding, Gravity, Interval, Phase, Symptom};
use super::forget::{IDLE, IDLE_WAITING};
use super::latency::Latency;
use super::level::Level;
use super::saturation::{Role, Saturated, Saturation, is_pool, role};
use super::score::Score;
use super::service::Service;
use super::together::MANY;
use crate::aggregate::Cell;
use crate::model::{SeriesId, SeriesKey, Timestamp};
use crate::sketch::Histogram;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is left of a surprise with the next point: members of an episode need not jump with one tick.
const FADES: f32 = 0.7;
/// Evidence that a distribution has another shape, a natural logarithm: chance alone gives as much of a series once in
/// ten million of its points.
const RESHAPED: f64 = 16.0;
/// What is left of that percentile with the next point.
const P99_FADES: f32 = 0.95;
/// An attribute of findings about the shape of a distribution, and its value.
const STATISTIC: &str = "statistic";
const SHAPE: &str = "distribution";

/// Whether a finding with these attributes is about the shape of a distribution: its observed value is the 99th
/// percentile.
#[must_use]
pub fn is_of_shape(attributes: &[(String, String)]) -> bool {
    attributes.iter().any(|(key, value)| key == STATISTIC && value == SHAPE)
}

/// A metric above this joins an episode of its service that is open.
const JOINS: f32 = 6.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSeries {
    pub key: Arc<SeriesKey>,
    pub service: u32,
    role: Role,
    resource: String,
    pub level: Level,
    pub saturation: Option<Box<Saturation>>,
    /// Of a histogram: how much of what it holds lies above what nearly all did.
    shape: Option<Box<Latency>>,
    /// Its 99th percentile while that is so, the largest of late.
    shape_p99: f32,
    exhaustion: Option<Box<Exhaustion>>,
    /// How surprising the last points were: negative natural logarithm of their probability, fading.
    pub surprise: f32,
    /// Second in which it was heard last.
    pub heard_s: u32,
    /// The last value, and where a healthy one would lie.
    value: f64,
    band: Band,
    before_last_at: Timestamp,
    last_at: Timestamp,
}

impl MetricSeries {
    #[must_use]
    pub fn new(key: Arc<SeriesKey>, service: u32) -> Self {
        let (role, resource) = role(&key.operation, &key.unit, &key.attributes);
        // A busy processor is not used up.
        let may_fill = role != Role::None && role != Role::Limit && !key.operation.contains("cpu");
        let saturation = matches!(role, Role::Utilization { .. } | Role::Used).then(Box::default);
        Self {
            key,
            service,
            role,
            resource,
            level: Level::default(),
            saturation,
            shape: None,
            shape_p99: 0.0,
            exhaustion: may_fill.then(Box::default),
            surprise: 0.0,
            heard_s: 0,
            value: 0.0,
            band: Band { low: 0.0, high: 0.0 },
            before_last_at: Timestamp::ZERO,
            last_at: Timestamp::ZERO,
        }
    }

    /// Whether it sends no more, as far as is known.
    #[must_use]
    pub fn is_idle(&self, now: Timestamp) -> bool {
        let active = self.saturation.as_ref().is_some_and(|saturation| saturation.active);
        let heard = Timestamp::from_secs(self.heard_s.into());
        now.since(heard) >= if active { IDLE_WAITING } else { IDLE }
    }

    /// Points that arrived with a cut.
    pub fn observe(
        &mut self,
        now: Timestamp,
        id: SeriesId,
        cell: &Cell,
        service: &mut Service,
        config: &Config,
        findings: &mut Vec<Finding>,
    ) -> Option<Score> {
        let (at, value) = match cell {
            Cell::Level(level) => (level.last_at, level.mean()),
            Cell::Total(total) => (now, total.delta / total.points.max(1) as f64),
            Cell::Distribution(all) => (now, all.sum / all.histogram.count().max(1) as f64),
            Cell::Requests(_) | Cell::Lines(_) => return None,
        };
        self.heard_s = u32::try_from(now.secs()).unwrap_or(u32::MAX);
        self.saturate((now, at), id, value, service, config, findings);
        if let Cell::Distribution(all) = cell {
            self.reshape(now, id, &all.histogram, config, findings);
        }
        let seen = self.level.observe(at, value);
        service.together.add(seen.alone, seen.among, self.level.cadence_s());
        let surprise = if service.metrics < MANY { seen.alone } else { seen.among };
        self.surprise = (surprise as f32).max(FADES * self.surprise);
        if service.together.is_open() && self.surprise >= JOINS {
            service.together.joins(id);
        }
        self.value = value;
        self.band = Band { low: seen.low, high: seen.high };
        (self.before_last_at, self.last_at) = (self.last_at, at);
        let judged = value.is_finite() && self.level.has_learned();
        Some(Score {
            series: id,
            time: at,
            value,
            score: seen.alone,
            alarm: false,
            p_value: judged.then(|| (-seen.alone).exp()),
            round_p_value: None,
        })
    }

    /// What there is to say of the last point.
    #[must_use]
    pub fn finding(&self, now: Timestamp, id: SeriesId, phase: Phase, gravity: Gravity) -> Finding {
        let mut finding = Finding::of(now, &self.key, id, Symptom::Level);
        finding.phase = phase;
        finding.gravity = gravity;
        finding.decided = true;
        finding.tail = (-f64::from(self.surprise)).exp();
        finding.log_evidence = self.surprise;
        finding.observed = self.value;
        finding.expected = self.band;
        finding.unit = self.key.unit.to_string();
        finding.onset = Interval { earliest: self.before_last_at, latest: self.last_at };
        finding
    }

    /// Whether more of what a histogram holds is high than was: a second, slow mode, which neither its mean nor its
    /// median need show. No user is known to be hit, so it is a ticket.
    fn reshape(
        &mut self,
        now: Timestamp,
        id: SeriesId,
        histogram: &Histogram,
        config: &Config,
        findings: &mut Vec<Finding>,
    ) {
        let has_learned = self.level.has_learned();
        let shape = self.shape.get_or_insert_default();
        if !has_learned {
            return shape.learn(histogram, i32::MAX, 1.0);
        }
        let seen = Observed { now, interval: now.secs(), last: now };
        let verdict = shape.observe(seen, histogram, config.healthy.0);
        let evidence = &shape.test.evidence;
        if verdict.stand == Stand::Quiet {
            self.shape_p99 = 0.0;
            return;
        }
        // One point alone may hold nothing that is slow.
        let p99 = histogram.quantile(0.99).unwrap_or_default() as f32;
        self.shape_p99 = p99.max(P99_FADES * self.shape_p99);
        let mut finding = Finding::of(now, &self.key, id, Symptom::Level);
        finding.attributes.push((STATISTIC.to_owned(), SHAPE.to_owned()));
        finding.phase = if verdict.stand == Stand::Cleared { Phase::Cleared } else { Phase::Active };
        finding.gravity = Gravity::Ticket;
        finding.log_evidence = if evidence.is_bad() { evidence.log() as f32 } else { 0.0 };
        finding.decided = evidence.is_bad() && evidence.log() >= RESHAPED;
        finding.tail = (-evidence.log()).exp().clamp(0.0, 1.0);
        finding.observed = self.shape_p99.into();
        let low = shape.quantile(0.05).unwrap_or_default();
        finding.expected = Band { low, high: shape.limit() };
        finding.unit = self.key.unit.to_string();
        let (earliest, latest) = evidence.onset();
        finding.onset = Interval { earliest, latest };
        findings.push(finding);
    }

    fn saturate(
        &mut self,
        (now, at): (Timestamp, Timestamp),
        id: SeriesId,
        value: f64,
        service: &mut Service,
        config: &Config,
        findings: &mut Vec<Finding>,
    ) {
        let share = match self.role {
            Role::None => return,
            Role::Limit => return service.set_limit(&self.resource, value),
            Role::Utilization { percent } => value / if percent { 100.0 } else { 1.0 },
            Role::Used => match service.limit(&self.resource) {
                Some(limit) => value / limit,
                None => return,
            },
        };
        self.exhaust((now, at), id, share, findings);
        let Some(saturation) = self.saturation.as_mut() else { return };
        let seen = saturation.observe(share, config.saturated);
        if seen == Saturated::No {
            return;
        }
        let (_, highest) = saturation.band();
        let mut finding = Finding::of(now, &self.key, id, Symptom::Saturation);
        finding.phase = if seen == Saturated::Active { Phase::Active } else { Phase::Cleared };
        // Whoever waits for a full pool is a user; a full processor may just be busy.
        let full = share >= 0.98 && is_pool(&self.key.operation);
        finding.gravity = if full { Gravity::Page } else { Gravity::Ticket };
        finding.decided = true;
        finding.tail = 1e-6;
        finding.log_evidence = 14.0;
        finding.observed = share;
        finding.expected = Band { low: 0.0, high: highest };
        finding.unit = "1".to_owned();
        finding.onset = Interval { earliest: self.last_at, latest: now };
        findings.push(finding);
    }

    /// Whether it fills up. Nobody is woken for what has not happened yet.
    fn exhaust(
        &mut self,
        (now, at): (Timestamp, Timestamp),
        id: SeriesId,
        share: f64,
        findings: &mut Vec<Finding>,
    ) {
        let Some(exhaustion) = self.exhaustion.as_mut() else { return };
        let mut finding = Finding::of(now, &self.key, id, Symptom::Exhaustion);
        match exhaustion.observe(at, share) {
            Outlook::Fine => return,
            Outlook::Over => finding.phase = Phase::Cleared,
            Outlook::Full { after, of } => {
                finding.observed = after.as_secs_f64();
                finding.expected = Band { low: of.as_secs_f64(), high: f64::INFINITY };
            }
        }
        finding.gravity = Gravity::Ticket;
        finding.decided = true;
        finding.tail = 1e-3;
        finding.log_evidence = 7.0;
        finding.unit = "s".to_owned();
        finding.onset = exhaustion.onset();
        findings.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Distribution;
    use crate::model::{ServiceKey, Signal, SpanKind};

    /// What a histogram of durations says each ten seconds, of which `slow` of a hundred are twenty times as long at
    /// these points.
    fn said(points: u64, slow: impl Fn(u64) -> u64) -> Vec<(u64, Finding)> {
        let service = ServiceKey::named("shop");
        let key = SeriesKey {
            service: service.clone(),
            signal: Signal::Metrics,
            operation: "http.server.request.duration".into(),
            kind: SpanKind::Unspecified,
            entry: false,
            unit: "s".into(),
            attributes: Vec::new(),
        };
        let (id, mut service) = (key.id(), Service::new(service));
        let mut series = MetricSeries::new(Arc::new(key), 0);
        let (config, mut random, mut all) = (Config::default(), fastrand::Rng::with_seed(5), Vec::new());
        for point in 0..points {
            let mut of = Distribution { histogram: Histogram::new(), sum: 0.0, points: 1 };
            for number in 0..100 {
                let spread: f64 = (0..4).map(|_| random.f64() - 0.5).sum();
                let duration = 0.1 * (spread / 2.0).exp() * if number < slow(point) { 20.0 } else { 1.0 };
                of.histogram.record(duration);
                of.sum += duration;
            }
            let now = Timestamp::from_secs(1_700_000_000 + 10 * point);
            let mut findings = Vec::new();
            series.observe(now, id, &Cell::Distribution(Box::new(of)), &mut service, &config, &mut findings);
            let shaped = findings.into_iter().filter(|of| is_of_shape(&of.attributes));
            all.extend(shaped.map(|finding| (point, finding)));
        }
        all
    }

    #[test]
    fn a_slow_mode_is_a_ticket_while_the_median_stands_still_and_health_is_none() {
        assert!(said(8_640, |_| 0).iter().all(|(_, of)| !of.decided), "a day of health");
        let said = said(2_000, |point| if (1_000..1_300).contains(&point) { 8 } else { 0 });
        let first = said.iter().find(|(_, of)| of.decided).expect("told");
        assert!((1_000..1_012).contains(&first.0), "after {} points", first.0 - 1_000);
        assert_eq!((first.1.gravity, first.1.symptom), (Gravity::Ticket, Symptom::Level));
        assert!(first.1.observed > 1.0 && first.1.expected.high < 0.5, "{:?}", first.1);
        let last = said.last().expect("it ends");
        assert!((1_300..1_400).contains(&last.0) && last.1.phase == Phase::Cleared, "{last:?}");
    }
}
