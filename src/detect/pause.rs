//! Most services of an environment stop sending at once: the pipeline paused, not they.

use super::detectors::Detectors;
use super::finding::{Finding, Phase};
use super::service::Service;
use crate::model::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A pause that is shorter is none.
const AT_LEAST: Duration = Duration::from_secs(10);
/// Services that pause longer than this by themselves say nothing of it.
const STEADY: Duration = Duration::from_secs(5);
/// One that has sent nothing for so long is gone.
const GONE: Duration = Duration::from_secs(600);
/// Services that have to pause together, and the share of all of them.
const SERVICES_AT_LEAST: usize = 3;
const SHARE: f64 = 0.8;

impl Detectors {
    /// After what arrived with a cut is counted.
    pub(super) fn judge_pauses(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        if self.ended || self.state.services.len() < SERVICES_AT_LEAST {
            return;
        }
        let counts = |service: &&Service| {
            let silence = &service.silence;
            silence.is_learned() && silence.pause() <= STEADY && now.since(silence.last) < GONE
        };
        let pauses = |service: &Service| service.silence.is_pausing(now, AT_LEAST);
        let steady = || self.state.services.iter().filter(counts);
        if steady().filter(|service| pauses(service)).count() < SERVICES_AT_LEAST {
            return;
        }
        let mut environments: BTreeMap<Arc<str>, (usize, usize)> = BTreeMap::new();
        for service in steady() {
            let (all, pausing) = environments.entry(service.key.environment.clone()).or_default();
            *all += 1;
            *pausing += usize::from(pauses(service));
        }
        for service in &mut self.state.services {
            let Some(&(all, pausing)) = environments.get(&service.key.environment) else { continue };
            let together = pausing >= SERVICES_AT_LEAST && pausing as f64 >= SHARE * all as f64;
            if !together || !counts(&&*service) || !pauses(service) {
                continue;
            }
            service.mark_unsound(service.silence.last, now);
            service.silence.excused = true;
            if !std::mem::replace(&mut service.paused, true) {
                let mut finding = Finding::of_data(now, &service.key, "pipeline");
                finding.observed = now.since(service.silence.last).as_secs_f64();
                finding.expected.high = service.silence.pause().as_secs_f64();
                finding.unit = "s".to_owned();
                finding.onset.earliest = service.silence.last;
                findings.push(finding);
            }
        }
    }

    /// Something arrived from a service that had paused.
    pub(super) fn resumed(now: Timestamp, service: &mut Service, findings: &mut Vec<Finding>) {
        if std::mem::replace(&mut service.paused, false) {
            service.mark_unsound(now, now);
            let mut finding = Finding::of_data(now, &service.key, "pipeline");
            finding.phase = Phase::Cleared;
            findings.push(finding);
        }
    }
}
