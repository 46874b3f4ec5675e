//! What broke at any moment that is still recorded, without an alarm.

use super::blame::Edges;
use super::capture::{Capture, Scope, capture};
use super::config::Effort;
use super::evidence::Cause;
use super::explain::{Explanation, FAULTY, compare, edges_of};
use super::source::Source;
use super::{Config, Error, Pass};
use crate::confirm::{Anomaly, AnomalyId, AnomalyState, Examined, Fingerprint, Severity};
use crate::detect::{Interval, Symptom};
use crate::model::{ServiceKey, Timestamp, name_of};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What is to be said of a moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Most likely first; none when nothing is wrong, or nothing is held to compare with.
    pub causes: Vec<Cause>,
    /// The share of what is recorded of both periods that was looked at, 0..=1.
    pub share: f64,
    /// Rows of the healthy period that were compared with.
    pub healthy_rows: u64,
    /// When the healthy period began.
    pub healthy_since: Timestamp,
}

/// Contrasts the two minutes before `at` with the ten before those. With a service, only causes in it and in
/// what it calls, directly or through others, are named.
///
/// # Errors
/// When what is recorded cannot be read.
pub fn at_moment(
    source: &dyn Source,
    at: Timestamp,
    service: Option<&ServiceKey>,
    config: &Config,
) -> Result<Moment, Error> {
    let (capture, found) = look(source, at, service, config)?;
    let healthy = &capture.healthy;
    let healthy_rows = (healthy.spans.len() + healthy.logs.len() + healthy.points.len()) as u64;
    let healthy_since = capture.healthy_times.start;
    Ok(Moment { causes: found.causes, share: capture.share(), healthy_rows, healthy_since })
}

/// What was read for a moment, and what came of it.
pub(super) fn look(
    source: &dyn Source,
    at: Timestamp,
    service: Option<&ServiceKey>,
    config: &Config,
) -> Result<(Capture, Explanation), Error> {
    let scope = Scope {
        service: service.cloned().unwrap_or_else(|| ServiceKey::named("")),
        services: service.cloned().into_iter().collect(),
        operations: BTreeSet::new(),
        symptom: Symptom::Latency,
    };
    let effort = Effort { healthy: config.healthy.0, ..config.effort(Pass::First) };
    let capture = capture(source, &scope, at.saturating_sub(FAULTY), at, &effort, config)?;
    let mut found = compare(&capture.healthy, &capture.faulty, capture.faulty_times.start);
    if let Some(service) = service {
        let below = below(service, &edges_of(&capture.healthy, &capture.faulty));
        found.causes.retain(|cause| below.contains(&service_of(cause)));
        for (cause, rank) in found.causes.iter_mut().zip(1..) {
            cause.rank = rank;
        }
    }
    Ok((capture, found))
}

fn service_of(cause: &Cause) -> ServiceKey {
    ServiceKey::new(&cause.environment, &cause.namespace, &cause.service)
}

/// What evidence of a moment is about, in place of an anomaly: the service that was asked for, else the likeliest
/// cause, else the one that had most to do. Nobody was told of it.
pub(super) fn unalarmed(
    at: Timestamp,
    service: Option<&ServiceKey>,
    capture: &Capture,
    found: &Explanation,
) -> Anomaly {
    let busiest = || {
        let mut spans: BTreeMap<&ServiceKey, usize> = BTreeMap::new();
        for span in &capture.faulty.spans {
            *spans.entry(span.service()).or_default() += 1;
        }
        let most = spans.into_iter().max_by_key(|(service, spans)| (*spans, Reverse((*service).clone())));
        most.map(|(service, _)| service.clone())
    };
    let cause = found.causes.first();
    let about = service.cloned().or_else(|| cause.map(service_of)).or_else(busiest);
    let about = about.unwrap_or_else(|| ServiceKey::named(""));
    let title = match cause {
        Some(cause) => format!("{}: {}", cause.service, cause.reason),
        None => format!("nothing is wrong at {at}, as far as was recorded"),
    };
    let onset = at.saturating_sub(FAULTY);
    let path = about.to_string();
    Anomaly {
        id: AnomalyId(name_of(["moment", &path, &at.to_string()])),
        fingerprint: Fingerprint(name_of(["moment", &path])),
        service: about,
        symptom: Symptom::Latency,
        severity: Severity::Info,
        state: AnomalyState::Gathering,
        opened_at: at,
        fired_at: None,
        ended_at: None,
        onset: Interval { earliest: onset, latest: onset },
        members: Vec::new(),
        p_value: 1.0,
        suspects: Vec::new(),
        merged_into: None,
        suppressed_by: None,
        budget_draw: None,
        examined: Examined::default(),
        title,
        revision: 0,
    }
}

/// A service and all that it calls, directly or through others.
fn below(service: &ServiceKey, edges: &Edges) -> BTreeSet<ServiceKey> {
    let mut callees: BTreeMap<&ServiceKey, Vec<&ServiceKey>> = BTreeMap::new();
    for (client, server) in edges {
        callees.entry(client).or_default().push(server);
    }
    let mut reached: BTreeSet<ServiceKey> = [service.clone()].into();
    let mut waiting = vec![service];
    while let Some(next) = waiting.pop() {
        for callee in callees.get(next).into_iter().flatten() {
            if reached.insert((*callee).clone()) {
                waiting.push(callee);
            }
        }
    }
    reached
}
