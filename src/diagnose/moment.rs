//! What broke at any moment that is still recorded, without an alarm.

use super::blame::Edges;
use super::capture::{Scope, capture};
use super::config::Effort;
use super::evidence::Cause;
use super::explain::{FAULTY, compare, edges_of};
use super::source::Source;
use super::{Config, Error, Pass};
use crate::detect::Symptom;
use crate::model::{ServiceKey, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// What is to be said of a moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Most likely first; none when nothing is wrong.
    pub causes: Vec<Cause>,
    /// The share of what is recorded of both periods that was looked at, 0..=1.
    pub share: f64,
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
    let scope = Scope {
        service: service.cloned().unwrap_or_else(|| ServiceKey::named("")),
        services: service.cloned().into_iter().collect(),
        operations: BTreeSet::new(),
        symptom: Symptom::Latency,
    };
    let effort = Effort { healthy: config.healthy.0, ..config.effort(Pass::First) };
    let capture = capture(source, &scope, at.saturating_sub(FAULTY), at, &effort, config)?;
    let since = capture.faulty_times.start;
    let found = compare(&capture.healthy, &capture.faulty, since);
    let mut causes = found.causes;
    if let Some(service) = service {
        let below = below(service, &edges_of(&capture.healthy, &capture.faulty));
        causes.retain(|cause| {
            below.contains(&ServiceKey::new(&cause.environment, &cause.namespace, &cause.service))
        });
        for (cause, rank) in causes.iter_mut().zip(1..) {
            cause.rank = rank;
        }
    }
    Ok(Moment { causes, share: capture.share() })
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
