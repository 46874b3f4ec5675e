//! What is known of one metric series.

use super::Config;
use super::finding::{Band, Finding, Gravity, Interval, Phase, Symptom};
use super::level::Level;
use super::saturation::{Role, Saturated, Saturation, is_pool, role};
use super::score::Score;
use super::service::Service;
use crate::aggregate::Cell;
use crate::model::{SeriesId, SeriesKey, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const WEEK_S: f64 = 604_800.0;
/// Healthy points after which a level counts as healthy again.
const FINE_POINTS: u32 = 3;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSeries {
    pub key: Arc<SeriesKey>,
    pub service: u32,
    role: Role,
    resource: String,
    pub level: Level,
    pub saturation: Option<Box<Saturation>>,
    active: bool,
    fine: u32,
    last_at: Timestamp,
}

impl MetricSeries {
    #[must_use]
    pub fn new(key: Arc<SeriesKey>, service: u32) -> Self {
        let (role, resource) = role(&key.operation, &key.unit, &key.attributes);
        let saturation = matches!(role, Role::Utilization { .. } | Role::Used).then(Box::default);
        Self {
            key,
            service,
            role,
            resource,
            level: Level::default(),
            saturation,
            active: false,
            fine: 0,
            last_at: Timestamp::ZERO,
        }
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
        self.saturate(now, id, value, service, config, findings);
        let seen = self.level.observe(at, value);
        let pause = self.level.cadence_s().max(1.0);
        let allowed = config.level_tickets_per_week * pause / WEEK_S / f64::from(service.metrics.max(1));
        let mut alarm = false;
        if self.active {
            self.fine = if seen.tail > 0.01 { self.fine + 1 } else { 0 };
            if self.fine >= FINE_POINTS {
                self.active = false;
            }
        } else if seen.tail < allowed && seen.score > 0.0 {
            (self.active, self.fine, alarm) = (true, 0, true);
        }
        if alarm || self.active || self.fine >= FINE_POINTS {
            let mut finding = Finding::of(now, &self.key, id, Symptom::Level);
            finding.phase = if self.active { Phase::Active } else { Phase::Cleared };
            finding.gravity = if alarm { Gravity::Ticket } else { Gravity::Support };
            finding.decided = true;
            finding.tail = seen.tail;
            finding.log_evidence = -(seen.tail.max(1e-30).ln() as f32);
            finding.observed = value;
            finding.expected = Band { low: seen.low, high: seen.high };
            finding.unit = self.key.unit.to_string();
            finding.onset = Interval { earliest: self.last_at, latest: at };
            findings.push(finding);
            if !self.active {
                self.fine = 0;
            }
        }
        self.last_at = at;
        Some(Score { series: id, time: at, value, score: seen.score, alarm })
    }

    fn saturate(
        &mut self,
        now: Timestamp,
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
}
