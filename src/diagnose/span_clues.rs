//! Clues in spans: where errors begin, which calls are missing; [`super::time_clues`] tells where time goes.

use super::clue::{Clue, Mechanism, STRONGEST, weight};
use super::forest::{Forest, OperationId, Operations, handles_errors};
use super::rows::SpanRow;
use super::statistics::{Share, log_likelihood_ratio, standardised};
use super::time_clues;
use crate::model::TraceId;
use std::collections::{BTreeMap, BTreeSet};

/// Fewest spans of an operation in either period before their times or calls are compared.
pub(super) const FEWEST: u64 = 8;
/// Errors or missing calls of a smaller share of spans are no clue.
const SMALLEST_SHARE: f64 = 0.02;

/// Where errors begin without a call that fails: what is passed on from elsewhere is not counted.
const OF_ITSELF: &str = " without a call that fails";

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

    /// [`independence`] of each place that `key` tells.
    fn independence<K: Ord>(&self, key: impl Fn(&Forest<'_>, usize) -> Option<K>) -> BTreeMap<K, f64> {
        let mut requests: BTreeMap<K, Vec<TraceId>> = BTreeMap::new();
        for forest in [&self.good, &self.bad] {
            for (at, span) in forest.spans.iter().enumerate() {
                if let Some(key) = key(forest, at) {
                    requests.entry(key).or_default().push(span.trace);
                }
            }
        }
        requests.into_iter().map(|(key, requests)| (key, independence(requests))).collect()
    }
}

/// How much a span counts as evidence, by the requests that each span of a place belongs to: spans of
/// one request share its fate, so where each request passes five times, five spans are one observation.
#[expect(clippy::cast_precision_loss, reason = "counts of spans")]
pub(super) fn independence(mut requests: Vec<TraceId>) -> f64 {
    let spans = requests.len().max(1) as f64;
    requests.sort_unstable();
    requests.dedup();
    requests.len() as f64 / spans
}

/// An operation called by an operation: what is compared with its like, so that another mix of
/// requests does not look like a change.
pub(super) type Place = (Option<OperationId>, OperationId);

pub(super) fn place(forest: &Forest<'_>, at: usize) -> Option<Place> {
    let node = forest.nodes.get(at)?;
    let parent = node.parent.and_then(|parent| forest.nodes.get(parent)).map(|parent| parent.operation);
    Some((parent, node.operation))
}

/// All clues in spans.
#[must_use]
pub fn clues(pair: &Pair<'_>) -> Vec<Clue> {
    let mut clues = errors(pair);
    clues.extend(time_clues::clues(pair));
    clues.extend(calls(pair));
    clues
}

/// What a failing or slow span is a call of.
pub(super) fn callee(span: &SpanRow, has_child: bool) -> Callee {
    if let Some(system) = span.database() {
        Callee::Database(system.to_owned())
    } else if span.kind == crate::model::SpanKind::Client && !has_child {
        Callee::Peer(span.peer().unwrap_or("an unnamed peer").to_owned())
    } else {
        Callee::Itself
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Callee {
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
    let independent = pair.independence(|forest, at| forest.nodes.get(at).map(|node| node.operation));
    let mut clues = Vec::new();
    for (id, (share, told)) in &bad {
        let Some(operation) = pair.operations.get(*id) else { continue };
        let before = good.get(id).map(|(share, _)| *share).unwrap_or_default();
        let compared = if before.of == 0 { Share { hits: 0, of: share.of.max(20) } } else { before };
        let risen = share.ratio() - before.ratio();
        if risen < SMALLEST_SHARE.min(before.ratio().max(0.002)) || share.hits < 3 {
            continue;
        }
        let ratio = log_likelihood_ratio(*share, compared) * independent.get(id).copied().unwrap_or(1.0);
        let evidence = weight(ratio, bad.len(), 0.5 + risen.sqrt() / 2.0);
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
                (Mechanism::Pool, OF_ITSELF.to_owned())
            }
            _ => (Mechanism::Errors, OF_ITSELF.to_owned()),
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
    let independent = pair.independence(place);
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
            let effect = match change < 0.0 {
                true if handles_errors(&called.name) => -change * 0.2,
                true => -change,
                false => change * 0.5,
            };
            let ratio = log_likelihood_ratio(now, before) * independent.get(place).copied().unwrap_or(1.0);
            let evidence = weight(ratio, tests, effect);
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
pub(super) fn is_of_a_pool(text: &str) -> bool {
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
