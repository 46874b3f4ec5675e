//! Clues in how long spans take: the self time on the critical path, place by place, and what the
//! requests that pass a slower place lose there.

use super::clue::{Clue, Mechanism, weight};
use super::forest::{Forest, OperationId};
use super::span_clues::{
    Callee, FEWEST, Pair, Place, callee, duration, independence, is_of_a_pool, percent, place,
};
use super::statistics::{Share, log_likelihood_ratio, median_and_scale, quantile, sort};
use crate::model::{ServiceKey, TraceId};
use std::collections::BTreeMap;

/// Fewest spans of a place in the faulty period before their times are compared: the correction for
/// many tests asks more of few spans anyway.
const FEWEST_SLOW: u64 = 4;
/// A slowdown of a smaller share of a request's time is none that anybody would notice.
const NOTICED_FROM: f64 = 0.1;

/// Where the self time of a span goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Locus {
    Own(OperationId),
    Database(OperationId, String),
    Peer(OperationId, String),
    Edge(ServiceKey, ServiceKey),
}

#[derive(Default)]
struct Slower {
    evidence: f64,
    /// What the place that lost most took before and takes now, in nanoseconds.
    median_good: f64,
    median_bad: f64,
    most_ns: f64,
    /// Of the requests that pass here: what they lose here, what they lose anywhere, and what they would
    /// take without, in nanoseconds.
    here_ns: f64,
    anywhere_ns: f64,
    healthy_ns: f64,
}

impl Slower {
    /// Of the time that the requests passing here now take, the share lost here; a request that
    /// takes a quarter longer counts half.
    fn share(&self, here_ns: f64) -> f64 {
        // A slowdown that no request would notice is none.
        if self.anywhere_ns < self.healthy_ns * NOTICED_FROM {
            return 0.0;
        }
        here_ns / (self.anywhere_ns + self.healthy_ns * 0.25).max(1.0)
    }
}

/// A place of which the self time is worse: what it took, and what chance lost of it before.
struct Worse {
    median_ns: f64,
    lost_before_ns: f64,
}

type Spot = (Locus, Place);

#[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
fn self_times(forest: &Forest<'_>) -> Vec<Option<(Spot, f64)>> {
    let spans = forest.spans.iter().zip(&forest.nodes).zip(forest.critical_ns());
    spans
        .enumerate()
        .map(|(at, ((span, node), own_ns))| {
            let locus = match node.remote.and_then(|child| forest.span(child)) {
                Some(child) => Locus::Edge(span.service().clone(), child.service().clone()),
                None => match callee(span, !node.children.is_empty()) {
                    Callee::Database(system) => Locus::Database(node.operation, system),
                    Callee::Peer(peer) => Locus::Peer(node.operation, peer),
                    Callee::Itself => Locus::Own(node.operation),
                },
            };
            Some(((locus, place(forest, at)?), own_ns as f64))
        })
        .collect()
}

pub fn clues(pair: &Pair<'_>) -> Vec<Clue> {
    let (spots_good, spots_bad) = (self_times(&pair.good), self_times(&pair.bad));
    let sample = |spots: &[Option<(Spot, f64)>]| {
        let mut samples: BTreeMap<Spot, Vec<f64>> = BTreeMap::new();
        for (spot, ns) in spots.iter().flatten() {
            samples.entry(spot.clone()).or_default().push(*ns);
        }
        samples.values_mut().for_each(sort);
        samples
    };
    let (good, bad) = (sample(&spots_good), sample(&spots_bad));
    let mut requests: BTreeMap<&Spot, Vec<TraceId>> = BTreeMap::new();
    for (spots, forest) in [(&spots_good, &pair.good), (&spots_bad, &pair.bad)] {
        for (spot, span) in spots.iter().zip(forest.spans) {
            if let Some((spot, _)) = spot {
                requests.entry(spot).or_default().push(span.trace);
            }
        }
    }
    let independent: BTreeMap<&Spot, f64> =
        requests.into_iter().map(|(spot, requests)| (spot, independence(requests))).collect();
    let mut slower: BTreeMap<Locus, Slower> = BTreeMap::new();
    let mut worse: BTreeMap<Spot, Worse> = BTreeMap::new();
    for (spot, values) in &bad {
        let Some(before) = good.get(spot) else { continue };
        if (values.len() as u64) < FEWEST_SLOW || (before.len() as u64) < FEWEST {
            continue;
        }
        let (Some((median, scale)), Some((now, _)), Some(edge)) =
            (median_and_scale(before), median_and_scale(values), quantile(before, 0.9))
        else {
            continue;
        };
        // Beyond the ninth decile and by more than jitter: half a millisecond or a tenth.
        let limit = edge + scale.max(median * 0.1).max(500_000.0);
        let over = |values: &[f64]| Share {
            hits: values.iter().filter(|value| **value > limit).count() as u64,
            of: values.len() as u64,
        };
        let (over_bad, over_good) = (over(values), over(before));
        if over_bad.ratio() <= over_good.ratio() {
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of spans")]
        let lost = |values: &[f64]| {
            values.iter().map(|value| (value - median).max(0.0)).sum::<f64>() / values.len().max(1) as f64
        };
        let lost_before_ns = lost(before);
        #[expect(clippy::cast_precision_loss, reason = "a count of spans")]
        let excess_ns = (lost(values) - lost_before_ns).max(0.0) * values.len() as f64;
        let ratio = log_likelihood_ratio(over_bad, over_good) * independent.get(spot).copied().unwrap_or(1.0);
        let evidence = weight(ratio, bad.len(), 1.0);
        if evidence <= 0.0 || excess_ns <= 0.0 {
            continue;
        }
        let entry = slower.entry(spot.0.clone()).or_default();
        if excess_ns > entry.most_ns {
            (entry.most_ns, entry.median_good) = (excess_ns, median);
            entry.median_bad = now.max(quantile(values, 0.75).unwrap_or(now));
        }
        entry.evidence = entry.evidence.max(evidence);
        worse.insert(spot.clone(), Worse { median_ns: median, lost_before_ns });
    }
    let at_server = affected(pair, &spots_bad, &worse, &mut slower);
    slower
        .into_iter()
        .flat_map(|(locus, slower)| {
            let share = slower.share(slower.here_ns);
            // What several callers lose on the way to one server is the server's.
            let (together_ns, callers) = match &locus {
                Locus::Edge(_, server) => at_server.get(server).copied().unwrap_or_default(),
                _ => (0.0, 0),
            };
            let together = slower.share(together_ns).min(1.0);
            told(pair, &locus, &slower, share).into_iter().map(
                move |(service, operation, mechanism, part, text)| {
                    let of_server = mechanism == Mechanism::EdgeTime && part > 0.5;
                    let (share, part) = match of_server {
                        true if callers > 1 => (together, 0.9),
                        true => (together, part),
                        false => (share, part),
                    };
                    let weight = slower.evidence * share.sqrt() * part;
                    Clue { service, operation, mechanism, weight, text }
                },
            )
        })
        .filter(|clue| clue.weight > 0.05)
        .collect()
}

/// What the requests that pass each slower place lose there, and what they lose in all: a slowdown is
/// judged by those it concerns, not by all that happens beside it. Gives what is lost on the way to
/// each server from all its callers together, and how many they are.
#[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
fn affected(
    pair: &Pair<'_>,
    spots: &[Option<(Spot, f64)>],
    worse: &BTreeMap<Spot, Worse>,
    slower: &mut BTreeMap<Locus, Slower>,
) -> BTreeMap<ServiceKey, (f64, usize)> {
    let mut requests: BTreeMap<TraceId, (f64, BTreeMap<&Locus, f64>)> = BTreeMap::new();
    for ((span, node), spot) in pair.bad.spans.iter().zip(&pair.bad.nodes).zip(spots) {
        let request = requests.entry(span.trace).or_default();
        if node.parent.is_none() {
            request.0 += span.duration_ns() as f64;
        }
        let Some((spot, own_ns)) = spot else { continue };
        if let Some(worse) = worse.get(spot) {
            let excess_ns = (own_ns - worse.median_ns).max(0.0) - worse.lost_before_ns;
            *request.1.entry(&spot.0).or_default() += excess_ns;
        }
    }
    for (all_ns, lost) in requests.into_values() {
        let lost_ns = lost.values().sum::<f64>().clamp(0.0, all_ns);
        for (locus, here_ns) in lost {
            if let Some(slower) = slower.get_mut(locus) {
                slower.here_ns += here_ns;
                slower.anywhere_ns += lost_ns;
                slower.healthy_ns += all_ns - lost_ns;
            }
        }
    }
    let mut at_server: BTreeMap<ServiceKey, (f64, usize)> = BTreeMap::new();
    for (locus, slower) in slower.iter_mut() {
        slower.here_ns = slower.here_ns.clamp(0.0, slower.anywhere_ns);
        if let Locus::Edge(_, server) = locus {
            let sum = at_server.entry(server.clone()).or_default();
            *sum = (sum.0 + slower.here_ns, sum.1 + 1);
        }
    }
    at_server
}

type Told = (ServiceKey, Option<String>, Mechanism, f64, String);

fn told(pair: &Pair<'_>, locus: &Locus, slower: &Slower, share: f64) -> Vec<Told> {
    let change = format!("{} instead of {}", duration(slower.median_bad), duration(slower.median_good));
    let part = format!("{} of the lost time", percent(share));
    let at = |id: OperationId| pair.operations.get(id);
    match locus {
        Locus::Own(id) => at(*id)
            .map(|operation| {
                let text = format!("“{}” itself takes {change}, {part}", operation.name);
                (
                    operation.service.clone(),
                    Some(operation.name.to_string()),
                    if is_of_a_pool(&operation.name) { Mechanism::Pool } else { Mechanism::SelfTime },
                    1.0,
                    text,
                )
            })
            .into_iter()
            .collect(),
        Locus::Database(id, system) => at(*id)
            .map(|operation| {
                let text = format!("its {system} calls “{}” take {change}, {part}", operation.name);
                (
                    operation.service.clone(),
                    Some(operation.name.to_string()),
                    Mechanism::DatabaseTime,
                    1.0,
                    text,
                )
            })
            .into_iter()
            .collect(),
        Locus::Peer(id, peer) => at(*id)
            .map(|operation| {
                let text = format!("its calls of {peer} (“{}”) take {change}, {part}", operation.name);
                (operation.service.clone(), Some(operation.name.to_string()), Mechanism::PeerTime, 1.0, text)
            })
            .into_iter()
            .collect(),
        // A lost moment between two services may be either's: a service's own edges then all lose.
        Locus::Edge(client, server) => vec![
            (
                server.clone(),
                None,
                Mechanism::EdgeTime,
                0.75,
                format!("calls from {client} wait {change} beyond what {server} itself takes, {part}"),
            ),
            (
                client.clone(),
                None,
                Mechanism::EdgeTime,
                0.5,
                format!("its calls of {server} wait {change} beyond what {server} itself takes, {part}"),
            ),
        ],
    }
}
