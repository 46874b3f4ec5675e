//! What broke at any moment that is still recorded, without an alarm.

use super::blame::Edges;
use super::capture::{Capture, Scope, capture_of};
use super::changes;
use super::config::Effort;
use super::evidence::Cause;
use super::explain::{ENOUGH_PAST_S, Explanation, FAULTY, Known, compare_with, covered_s, edges_of};
use super::source::Source;
use super::{Config, Error, Pass};
use crate::confirm::{Anomaly, AnomalyId, AnomalyState, Examined, Fingerprint, Severity};
use crate::context::Change;
use crate::detect::{Interval, Symptom};
use crate::model::{ServiceKey, Timestamp, name_of};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

/// What is asked of a moment.
#[derive(Clone, Debug)]
pub struct Inquiry<'a> {
    /// The two minutes before it are looked at, and nothing after it.
    pub at: Timestamp,
    /// With one, only causes in it and in what it calls, directly or through others, are named.
    pub service: Option<&'a ServiceKey>,
    /// What to compare with; chosen if `None`.
    pub healthy: Option<Range<Timestamp>>,
    /// When something is known to have been wrong, from the onset to the end; so far, if it goes on.
    pub faults: &'a [Range<Timestamp>],
}

impl Inquiry<'_> {
    /// When what is looked at may have begun.
    pub(super) fn onset(&self) -> Interval {
        Interval { earliest: self.at.saturating_sub(FAULTY), latest: self.at }
    }

    /// The healthy and the faulty period. Of the past the last ten minutes are taken in which nothing is known to have
    /// been wrong, or what there is of them if that is enough; right before the faulty period if there are none.
    fn periods(&self, oldest: Timestamp, length: Duration) -> (Range<Timestamp>, Range<Timestamp>) {
        let split = self.at.saturating_sub(FAULTY);
        let faulty = split..Timestamp(self.at.0.saturating_add(1));
        let before = |end: Timestamp| end.saturating_sub(length)..end;
        let healthy = self.healthy.clone().or_else(|| {
            // What has been wrong for as long as the journal goes back is what is usual.
            let faults = || self.faults.iter().filter(|fault| fault.start > oldest);
            let enough = Duration::from_secs_f64(ENOUGH_PAST_S);
            let mut end = split;
            while end >= oldest.saturating_add(enough) {
                let wanted = before(end);
                let within = || faults().filter(|fault| fault.start < wanted.end && fault.end > wanted.start);
                let (Some(last), Some(first)) =
                    (within().map(|fault| fault.end).max(), within().map(|fault| fault.start).min())
                else {
                    return Some(wanted);
                };
                if last.saturating_add(enough) <= end {
                    return Some(last..end);
                }
                end = first;
            }
            None
        });
        (healthy.unwrap_or_else(|| before(split)), faulty)
    }
}

/// What is to be said of a moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Most likely first; none when nothing is wrong, or nothing is held to compare with.
    pub causes: Vec<Cause>,
    /// The share of what is recorded of both periods that was looked at, 0..=1.
    pub share: f64,
    /// Rows of the healthy period that were compared with.
    pub healthy_rows: u64,
    /// When they are from.
    pub healthy_times: Range<Timestamp>,
}

/// Contrasts the two minutes before a moment with healthy ones, ten unless others are chosen. Of the changes those
/// shortly before it are suspects.
///
/// # Errors
/// When what is recorded cannot be read.
pub fn at_moment(
    source: &dyn Source,
    inquiry: &Inquiry<'_>,
    changes: &[Change],
    config: &Config,
) -> Result<Moment, Error> {
    let (capture, found) = look(source, inquiry, changes, config)?;
    let healthy = &capture.healthy;
    let healthy_rows = (healthy.spans.len() + healthy.logs.len() + healthy.points.len()) as u64;
    let share = capture.share();
    Ok(Moment { causes: found.causes, share, healthy_rows, healthy_times: capture.healthy_times })
}

/// What was read for a moment, and what came of it.
pub(super) fn look(
    source: &dyn Source,
    inquiry: &Inquiry<'_>,
    changes: &[Change],
    config: &Config,
) -> Result<(Capture, Explanation), Error> {
    let service = inquiry.service;
    let scope = Scope {
        service: service.cloned().unwrap_or_else(|| ServiceKey::named("")),
        services: service.cloned().into_iter().collect(),
        operations: BTreeSet::new(),
        symptom: Symptom::Latency,
    };
    let effort = Effort { healthy: config.healthy.0, ..config.effort(Pass::First) };
    let oldest = source.oldest().unwrap_or(inquiry.at);
    let (healthy, faulty) = inquiry.periods(oldest, effort.healthy);
    let capture = capture_of(source, &scope, healthy, faulty, &effort, config)?;
    let known = Known {
        past_s: covered_s(&capture.healthy),
        past_is_chosen: inquiry.healthy.is_some(),
        ..Known::default()
    };
    let mut found = compare_with(&capture.healthy, &capture.faulty, capture.faulty_times.start, known);
    let onset = inquiry.onset();
    let changes = changes::recent(changes, &onset, &config.redaction());
    changes::suspect(&mut found, &changes, &onset, [&capture.healthy, &capture.faulty]);
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
pub(super) fn unalarmed(inquiry: &Inquiry<'_>, capture: &Capture, found: &Explanation) -> Anomaly {
    let at = inquiry.at;
    let busiest = || {
        let mut spans: BTreeMap<&ServiceKey, usize> = BTreeMap::new();
        for span in &capture.faulty.spans {
            *spans.entry(span.service()).or_default() += 1;
        }
        let most = spans.into_iter().max_by_key(|(service, spans)| (*spans, Reverse((*service).clone())));
        most.map(|(service, _)| service.clone())
    };
    let cause = found.causes.first();
    let about = inquiry.service.cloned().or_else(|| cause.map(service_of)).or_else(busiest);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_healthy_is_the_last_time_without_a_fault_that_is_long_enough() {
        let at = |minutes: u64| Timestamp::from_secs(600_000 + 60 * minutes);
        let healthy = |faults: &[(u64, u64)]| {
            let faults: Vec<Range<Timestamp>> = faults.iter().map(|&(from, to)| at(from)..at(to)).collect();
            let inquiry = Inquiry { at: at(102), service: None, healthy: None, faults: &faults };
            let (healthy, faulty) = inquiry.periods(at(20), Duration::from_secs(600));
            assert_eq!(faulty, at(100)..Timestamp(at(102).0 + 1));
            let minutes = |of: Timestamp| (of.secs() - 600_000) / 60;
            minutes(healthy.start)..minutes(healthy.end)
        };
        assert_eq!(healthy(&[]), 90..100);
        assert_eq!(healthy(&[(70, 80), (100, 102)]), 90..100, "what is looked at may be at fault");
        assert_eq!(healthy(&[(95, 102)]), 85..95, "it went on before that, too");
        assert_eq!(healthy(&[(80, 99)]), 70..80, "a minute is too short");
        assert_eq!(healthy(&[(80, 96)]), 96..100, "four are enough");
        assert_eq!(
            healthy(&[(95, 102), (70, 94), (60, 69)]),
            50..60,
            "several, with too little between them"
        );
        assert_eq!(healthy(&[(10, 102)]), 90..100, "older than all that is held: it is as usual");
        assert_eq!(healthy(&[(10, 102), (95, 102)]), 85..95);
        assert_eq!(healthy(&[(21, 102)]), 90..100, "nothing healthy is held");
        let inquiry = Inquiry { at: at(102), service: None, healthy: Some(at(30)..at(35)), faults: &[] };
        assert_eq!(inquiry.periods(at(20), Duration::from_secs(600)).0, at(30)..at(35));
    }
}
