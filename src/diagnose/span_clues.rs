//! Clues in spans: where errors begin, where time goes, which calls are missing.

use super::clue::{Clue, Mechanism, STRONGEST, weight};
use super::forest::{Forest, OperationId, Operations};
use super::rows::SpanRow;
use super::statistics::{Share, log_likelihood_ratio, median_and_scale, quantile, sort, standardised};
use crate::model::ServiceKey;
use std::collections::{BTreeMap, BTreeSet};

/// Fewest spans of an operation in either period before their times or calls are compared.
const FEWEST: u64 = 8;
/// Errors or missing calls of a smaller share of spans are no clue.
const SMALLEST_SHARE: f64 = 0.02;

/// A slowdown of a smaller share of a request's time is none that anybody would notice.
const NOTICED_FROM: f64 = 0.1;

/// Both periods as trees.
pub struct Pair<'a> {
    pub operations: Operations,
    pub good: Forest<'a>,
    pub bad: Forest<'a>,
}

impl<'a> Pair<'a> {
    #[must_use]
    pub fn new(good: &'a [SpanRow], bad: &'a [SpanRow]) -> Self {
        let mut operations = Operations::default();
        let good = Forest::new(good, &mut operations);
        let bad = Forest::new(bad, &mut operations);
        Self { operations, good, bad }
    }
}

/// An operation called by an operation: what is compared with its like, so that another mix of
/// requests does not look like a change.
type Place = (Option<OperationId>, OperationId);

fn place(forest: &Forest<'_>, at: usize) -> Option<Place> {
    let node = forest.nodes.get(at)?;
    let parent = node.parent.and_then(|parent| forest.nodes.get(parent)).map(|parent| parent.operation);
    Some((parent, node.operation))
}

/// All clues in spans.
#[must_use]
pub fn clues(pair: &Pair<'_>) -> Vec<Clue> {
    let mut clues = errors(pair);
    clues.extend(times(pair));
    clues.extend(calls(pair));
    clues
}

/// What a failing or slow span is a call of.
fn callee(span: &SpanRow, has_child: bool) -> Callee {
    if let Some(system) = span.database() {
        Callee::Database(system.to_owned())
    } else if span.kind == crate::model::SpanKind::Client && !has_child {
        Callee::Peer(span.peer().unwrap_or("an unnamed peer").to_owned())
    } else {
        Callee::Itself
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Callee {
    Itself,
    Database(String),
    Peer(String),
}

fn errors(pair: &Pair<'_>) -> Vec<Clue> {
    type Counts = BTreeMap<OperationId, (Share, BTreeMap<(Callee, String), u64>)>;
    let count = |forest: &Forest<'_>| {
        let mut counts = Counts::new();
        for (span, node) in forest.spans.iter().zip(&forest.nodes) {
            let (share, told) = counts.entry(node.operation).or_default();
            share.of += 1;
            if node.error_origin {
                share.hits += 1;
                let what = (callee(span, !node.children.is_empty()), span.message.to_string());
                if told.len() < 64 || told.contains_key(&what) {
                    *told.entry(what).or_default() += 1;
                }
            }
        }
        counts
    };
    let (good, bad) = (count(&pair.good), count(&pair.bad));
    let mut clues = Vec::new();
    for (id, (share, told)) in &bad {
        let Some(operation) = pair.operations.get(*id) else { continue };
        let before = good.get(id).map(|(share, _)| *share).unwrap_or_default();
        let compared = if before.of == 0 { Share { hits: 0, of: share.of.max(20) } } else { before };
        let risen = share.ratio() - before.ratio();
        if risen < SMALLEST_SHARE.min(before.ratio().max(0.002)) || share.hits < 3 {
            continue;
        }
        let evidence = weight(log_likelihood_ratio(*share, compared), bad.len(), 0.5 + risen.sqrt() / 2.0);
        if evidence <= 0.0 {
            continue;
        }
        let most = told.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
        let (mechanism, whom) = match most.map(|((callee, _), _)| callee) {
            Some(Callee::Database(system)) => {
                (Mechanism::DatabaseErrors, format!(" calling its {system} database"))
            }
            Some(Callee::Peer(peer)) => (Mechanism::PeerErrors, format!(" calling {peer}")),
            _ if most
                .is_some_and(|((_, message), _)| is_of_a_pool(message) || is_of_a_pool(&operation.name)) =>
            {
                (Mechanism::Pool, String::new())
            }
            _ => (Mechanism::Errors, String::new()),
        };
        let message = most.map(|((_, message), _)| message.as_str()).filter(|message| !message.is_empty());
        clues.push(Clue {
            service: operation.service.clone(),
            operation: Some(operation.name.to_string()),
            mechanism,
            weight: (evidence * 1.5).min(1.5 * STRONGEST),
            text: format!(
                "errors begin here: {} of “{}” fail{whom} ({} before){}",
                percent(share.ratio()),
                operation.name,
                percent(before.ratio()),
                message.map(|message| format!(", “{}”", short(message))).unwrap_or_default(),
            ),
        });
    }
    clues
}

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
    /// What the slower spans lost together, per span at the top, in nanoseconds.
    excess_ns: f64,
    evidence: f64,
    median_good: f64,
    median_bad: f64,
}

fn times(pair: &Pair<'_>) -> Vec<Clue> {
    type Samples = BTreeMap<(Locus, Place), Vec<f64>>;
    #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
    let sample = |forest: &Forest<'_>| {
        let mut samples = Samples::new();
        let critical = forest.critical_ns();
        for (at, ((span, node), own_ns)) in forest.spans.iter().zip(&forest.nodes).zip(critical).enumerate() {
            let Some(place) = place(forest, at) else { continue };
            let locus = match node.remote.and_then(|child| forest.span(child)) {
                Some(child) => Locus::Edge(span.service().clone(), child.service().clone()),
                None => match callee(span, !node.children.is_empty()) {
                    Callee::Database(system) => Locus::Database(node.operation, system),
                    Callee::Peer(peer) => Locus::Peer(node.operation, peer),
                    Callee::Itself => Locus::Own(node.operation),
                },
            };
            samples.entry((locus, place)).or_default().push(own_ns as f64);
        }
        samples.values_mut().for_each(sort);
        samples
    };
    let (good, bad) = (sample(&pair.good), sample(&pair.bad));
    #[expect(clippy::cast_precision_loss, reason = "a count of spans")]
    let (tops, total_ns) = (
        pair.bad.tops().count().max(1) as f64,
        pair.good
            .tops()
            .filter_map(|at| pair.good.span(at))
            .map(|span| span.duration_ns() as f64)
            .sum::<f64>()
            / pair.good.tops().count().max(1) as f64,
    );
    let mut slower: BTreeMap<Locus, Slower> = BTreeMap::new();
    for (key, values) in &bad {
        let Some(before) = good.get(key) else { continue };
        if (values.len() as u64) < FEWEST || (before.len() as u64) < FEWEST {
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
            let lost = values.iter().map(|value| (value - median).max(0.0)).sum::<f64>();
            lost / values.len().max(1) as f64
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of spans")]
        let excess_ns = (lost(values) - lost(before)).max(0.0) * values.len() as f64 / tops;
        let evidence = weight(log_likelihood_ratio(over_bad, over_good), bad.len(), 1.0);
        if evidence <= 0.0 || excess_ns <= 0.0 {
            continue;
        }
        let entry = slower.entry(key.0.clone()).or_default();
        if excess_ns > entry.excess_ns {
            (entry.median_good, entry.median_bad) = (median, now.max(quantile(values, 0.75).unwrap_or(now)));
        }
        entry.excess_ns += excess_ns;
        entry.evidence = entry.evidence.max(evidence);
    }
    let all_excess: f64 = slower.values().map(|slower| slower.excess_ns).sum();
    let mut at_server: BTreeMap<ServiceKey, (f64, usize)> = BTreeMap::new();
    for (locus, slower) in &slower {
        if let Locus::Edge(_, server) = locus {
            let sum = at_server.entry(server.clone()).or_default();
            *sum = (sum.0 + slower.excess_ns, sum.1 + 1);
        }
    }
    // A slowdown that no request would notice is none.
    if all_excess <= 0.0 || all_excess < total_ns * NOTICED_FROM {
        return Vec::new();
    }
    // How much of a request's whole time is lost: a quarter counts half.
    let noticed = all_excess / (all_excess + total_ns * 0.25);
    slower
        .into_iter()
        .flat_map(|(locus, slower)| {
            let share = slower.excess_ns / all_excess * noticed;
            // What several callers lose on the way to one server is the server's.
            let (together, callers) = match &locus {
                Locus::Edge(_, server) => at_server.get(server).copied().unwrap_or_default(),
                _ => (0.0, 0),
            };
            let together = together / all_excess * noticed;
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

fn calls(pair: &Pair<'_>) -> Vec<Clue> {
    // Apart for each operation of another service that called: another mix of callers is no change.
    type Callers = BTreeMap<Option<OperationId>, (u64, BTreeMap<OperationId, u64>)>;
    type Calls = BTreeMap<Place, Callers>;
    let count = |forest: &Forest<'_>| {
        let mut calls = Calls::new();
        for (at, node) in forest.nodes.iter().enumerate() {
            let Some(place) = place(forest, at) else { continue };
            let (spans, children) = calls.entry(place).or_default().entry(forest.caller(at)).or_default();
            *spans += 1;
            let called: BTreeSet<OperationId> = node
                .children
                .iter()
                .filter_map(|&child| forest.nodes.get(child))
                .map(|child| child.operation)
                .collect();
            for child in called {
                *children.entry(child).or_default() += 1;
            }
        }
        calls
    };
    let (good, bad) = (count(&pair.good), count(&pair.bad));
    let called = |callers: &Callers| {
        callers.values().flat_map(|(_, children)| children.keys()).copied().collect::<BTreeSet<_>>()
    };
    let tests = good.values().map(|callers| called(callers).len()).sum::<usize>().max(1);
    let mut clues = Vec::new();
    for (place, now_callers) in &bad {
        let Some(before_callers) = good.get(place) else { continue };
        let Some(operation) = pair.operations.get(place.1) else { continue };
        let mut all = called(now_callers);
        all.extend(called(before_callers));
        for child in all {
            let share = |(spans, children): &(u64, BTreeMap<OperationId, u64>)| Share {
                hits: children.get(&child).copied().unwrap_or(0),
                of: *spans,
            };
            let of = |callers: &Callers, caller| callers.get(caller).map(share).unwrap_or_default();
            let callers: BTreeSet<&Option<OperationId>> =
                before_callers.keys().chain(now_callers.keys()).collect();
            let (before, now, worth) = standardised(
                callers.into_iter().map(|caller| (of(before_callers, caller), of(now_callers, caller))),
            );
            if now.of < FEWEST || before.of < FEWEST {
                continue;
            }
            let change = now.ratio() - before.ratio();
            // Calls that stop are a stronger clue than new ones, which often follow from an error elsewhere.
            let Some(called) = pair.operations.get(child) else { continue };
            // That an error is no longer handled is no fault.
            let handles_errors = called.name.to_ascii_lowercase().contains("error");
            let effect = match change < 0.0 {
                true if handles_errors => -change * 0.2,
                true => -change,
                false => change * 0.5,
            };
            let evidence = weight(log_likelihood_ratio(now, before), tests, effect);
            if change.abs() < SMALLEST_SHARE || evidence <= 0.0 {
                continue;
            }
            let whose = if called.service == operation.service {
                String::new()
            } else {
                format!(" of {}", called.service)
            };
            clues.push(Clue {
                service: operation.service.clone(),
                operation: Some(operation.name.to_string()),
                mechanism: Mechanism::Calls,
                weight: evidence * worth,
                text: format!(
                    "“{}” calls “{}”{whose} in {} of cases instead of {}",
                    operation.name,
                    called.name,
                    percent(now.ratio()),
                    percent(before.ratio()),
                ),
            });
        }
    }
    clues
}

/// Whether a name or message speaks of a limited resource that callers wait for: runtimes and drivers
/// say “pool” when one is used up, databases “too many connections”.
fn is_of_a_pool(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("pool") || text.contains("too many connections")
}

/// A share as people write it.
#[must_use]
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent != 0.0 && percent < 1.0 {
        format!("{percent:.2} %")
    } else if percent < 10.0 {
        format!("{percent:.1} %").replace(".0 %", " %")
    } else {
        format!("{percent:.0} %")
    }
}

/// A duration given in nanoseconds as people write it.
#[must_use]
pub fn duration(ns: f64) -> String {
    match ns {
        ns if ns >= 60e9 => format!("{:.1} min", ns / 60e9),
        ns if ns >= 1e9 => format!("{:.1} s", ns / 1e9),
        ns if ns >= 10e6 => format!("{:.0} ms", ns / 1e6),
        ns if ns >= 1e6 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.0} µs", ns / 1e3),
    }
}

/// The beginning of a text, for a sentence.
#[must_use]
pub fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= 120 {
        line.to_owned()
    } else {
        line.chars().take(119).chain(['…']).collect()
    }
}
