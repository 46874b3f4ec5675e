//! The healthy twin of a bad trace: the good trace most like it, aligned span by span, and the span
//! at which the two first part.

use super::capture::Chosen;
use super::evidence::{Cause, CauseKind};
use super::forest::{DEPTH, Forest, OperationId};
use super::keepsakes::Route;
use super::span_clues::{Pair, duration};
use crate::model::TraceId;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Candidates whose shape is compared.
const CANDIDATES: usize = 200;
/// Bad traces whose twin is looked for.
const SEARCHED: usize = 40;
/// Rows of an alignment.
const ROWS: usize = 400;

/// How a span differs from its twin's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    Failed,
    Slower,
    /// Only the healthy trace has it.
    Missing,
    /// Only the bad trace has it.
    New,
}

/// One line of two aligned traces; places are positions in the forests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aligned {
    pub depth: usize,
    pub bad: Option<usize>,
    pub good: Option<usize>,
    pub difference: Option<Difference>,
}

/// Two traces, aligned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    pub bad_top: usize,
    pub good_top: usize,
    pub rows: Vec<Aligned>,
    /// Which of `rows` is where they part: the deepest span to which the difference can be traced.
    pub first_divergence: Option<usize>,
}

/// Where bad requests first part from healthy ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Divergence {
    pub service: String,
    pub operation: String,
    pub difference: Difference,
}

/// The most telling twin: of the chosen bad traces, the first that parts where most do, in the first
/// cause's service if any part there.
#[must_use]
pub fn telling(pair: &Pair<'_>, chosen: &Chosen, causes: &[Cause]) -> Option<Twin> {
    let (bad, good) = (&pair.bad, &pair.good);
    let tops = longest_tops(bad);
    // A trace may also have failed by chance: what counts is where most of them part.
    let candidates = chosen.traces.iter().filter(|(_, role)| !role.is_from_before()).take(SEARCHED);
    let mut found: Vec<(Divergence, Twin)> = candidates
        .filter_map(|(id, _)| twin(bad, *tops.get(id)?, good))
        .filter_map(|twin| Some((divergence(pair, &twin)?, twin)))
        .collect();
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (at, _) in &found {
        *counts.entry((at.service.clone(), at.operation.clone())).or_default() += 1;
    }
    let wanted = causes.first().map(|cause| cause.service.as_str());
    let common = |at: &Divergence| {
        let count = counts.get(&(at.service.clone(), at.operation.clone())).copied().unwrap_or(0);
        (wanted == Some(at.service.as_str()), count)
    };
    let most = found.iter().map(|(at, _)| common(at)).max()?;
    let at = found.iter().position(|(at, _)| common(at) == most)?;
    Some(found.swap_remove(at).1)
}

fn divergence(pair: &Pair<'_>, twin: &Twin) -> Option<Divergence> {
    let row = twin.rows.get(twin.first_divergence?)?;
    let of_bad = row.bad.and_then(|at| pair.bad.span(at));
    let span = of_bad.or(row.good.and_then(|at| pair.good.span(at)))?;
    Some(Divergence {
        service: span.service().name.to_string(),
        operation: span.operation.to_string(),
        difference: row.difference?,
    })
}

/// The first divergence: that of the most telling twin. Where requests or runs stay away, it is the
/// request that is missing.
#[must_use]
pub fn first(pair: &Pair<'_>, chosen: &Chosen, causes: &[Cause]) -> Option<Divergence> {
    let cause = causes.first();
    if let Some(cause) = cause.filter(|cause| matches!(cause.kind, CauseKind::Traffic | CauseKind::Job)) {
        return Some(Divergence {
            service: cause.service.clone(),
            operation: cause.operation.clone().unwrap_or_default(),
            difference: Difference::Missing,
        });
    }
    divergence(pair, &telling(pair, chosen, causes)?)
}

/// The longest span at the top of each trace.
fn longest_tops(forest: &Forest<'_>) -> BTreeMap<TraceId, usize> {
    let mut tops: BTreeMap<TraceId, usize> = BTreeMap::new();
    for at in forest.tops() {
        if let Some(span) = forest.span(at) {
            let longer = tops
                .get(&span.trace)
                .and_then(|&known| forest.span(known))
                .is_none_or(|known| known.duration_ns() < span.duration_ns());
            if longer {
                tops.insert(span.trace, at);
            }
        }
    }
    tops
}

/// The operations at the top of chosen bad traces that have no twin among the good ones.
#[must_use]
pub fn without_twin(pair: &Pair<'_>, chosen: &Chosen) -> BTreeSet<Route> {
    let (bad, good) = (&pair.bad, &pair.good);
    let healthy = good.tops().filter(|&at| good.span(at).is_some_and(|span| !span.failed()));
    let there: BTreeSet<OperationId> =
        healthy.filter_map(|at| good.nodes.get(at)).map(|node| node.operation).collect();
    let tops = longest_tops(bad);
    let searched = chosen.traces.iter().filter(|(_, role)| !role.is_from_before()).take(SEARCHED);
    searched
        .filter_map(|(id, _)| tops.get(id).copied())
        .filter(|&at| bad.nodes.get(at).is_some_and(|node| !there.contains(&node.operation)))
        .filter_map(|at| bad.span(at))
        .map(|span| (span.service().clone(), span.operation.to_string()))
        .collect()
}

/// Operations below a span, with how often each occurs.
fn shape(forest: &Forest<'_>, top: usize) -> BTreeMap<OperationId, u32> {
    let mut shape = BTreeMap::new();
    for (at, _) in forest.below(top) {
        if let Some(node) = forest.nodes.get(at) {
            *shape.entry(node.operation).or_default() += 1;
        }
    }
    shape
}

/// Weighted Jaccard similarity of two multisets.
fn alike(a: &BTreeMap<OperationId, u32>, b: &BTreeMap<OperationId, u32>) -> f64 {
    let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let (mut both, mut either) = (0u32, 0u32);
    for key in keys {
        let (a, b) = (a.get(key).copied().unwrap_or(0), b.get(key).copied().unwrap_or(0));
        both = both.saturating_add(a.min(b));
        either = either.saturating_add(a.max(b));
    }
    if either == 0 { 1.0 } else { f64::from(both) / f64::from(either) }
}

/// The twin of the bad trace that stands at `bad_top`: of the good ones with the same operation at
/// the top and no error, the one whose calls are most alike, and of those the latest.
#[must_use]
pub fn twin(bad: &Forest<'_>, bad_top: usize, good: &Forest<'_>) -> Option<Twin> {
    let operation = bad.nodes.get(bad_top)?.operation;
    let mut candidates: Vec<usize> = good
        .tops()
        .filter(|&at| good.nodes.get(at).is_some_and(|node| node.operation == operation))
        .filter(|&at| good.span(at).is_some_and(|span| !span.failed()))
        .collect();
    candidates.sort_by_key(|&at| std::cmp::Reverse(good.span(at).map(|span| (span.end, span.trace))));
    let wanted = shape(bad, bad_top);
    let good_top = candidates
        .into_iter()
        .take(CANDIDATES)
        .map(|at| (alike(&wanted, &shape(good, at)), at))
        .fold(None, |best: Option<(f64, usize)>, found| match best {
            Some(best) if best.0 >= found.0 => Some(best),
            _ => Some(found),
        })?
        .1;
    let mut rows = Vec::new();
    align(bad, Some(bad_top), good, Some(good_top), 0, &mut rows);
    let first_divergence = first_divergence(bad, good, &rows);
    Some(Twin { bad_top, good_top, rows, first_divergence })
}

fn align(
    bad: &Forest<'_>,
    bad_at: Option<usize>,
    good: &Forest<'_>,
    good_at: Option<usize>,
    depth: usize,
    rows: &mut Vec<Aligned>,
) {
    if rows.len() >= ROWS || depth > DEPTH {
        return;
    }
    rows.push(Aligned {
        depth,
        bad: bad_at,
        good: good_at,
        difference: difference(bad, bad_at, good, good_at),
    });
    let children = |forest: &Forest<'_>, at: Option<usize>| {
        at.and_then(|at| forest.nodes.get(at)).map(|node| node.children.clone()).unwrap_or_default()
    };
    let operation = |forest: &Forest<'_>, at: usize| forest.nodes.get(at).map(|node| node.operation);
    let (bad_children, good_children) = (children(bad, bad_at), children(good, good_at));
    // The n-th call of an operation is the twin of the n-th; what has no twin stands where it began.
    let mut left = good_children.clone();
    let mut pairs: Vec<(Option<usize>, Option<usize>)> = Vec::new();
    for child in bad_children {
        let place = left.iter().position(|&other| operation(good, other) == operation(bad, child));
        if let Some(place) = place {
            let twin = left.remove(place);
            pairs.push((Some(child), Some(twin)));
        } else {
            pairs.push((Some(child), None));
        }
    }
    for lost in left {
        let before = good_children.iter().take_while(|&&child| child != lost).last();
        let place = before.and_then(|before| pairs.iter().position(|(_, twin)| twin == &Some(*before)));
        pairs.insert(place.map_or(0, |place| place + 1), (None, Some(lost)));
    }
    for (bad_child, good_child) in pairs {
        align(bad, bad_child, good, good_child, depth + 1, rows);
    }
}

fn difference(
    bad: &Forest<'_>,
    bad_at: Option<usize>,
    good: &Forest<'_>,
    good_at: Option<usize>,
) -> Option<Difference> {
    let (bad, good) = match (bad_at.and_then(|at| bad.span(at)), good_at.and_then(|at| good.span(at))) {
        (Some(bad), Some(good)) => (bad, good),
        (Some(bad), None) if bad.failed() => return Some(Difference::Failed),
        (Some(_), None) => return Some(Difference::New),
        (None, _) => return Some(Difference::Missing),
    };
    if bad.failed() && !good.failed() {
        return Some(Difference::Failed);
    }
    let (now, before) = (bad.duration_ns(), good.duration_ns());
    (now > before.saturating_mul(2) && now.saturating_sub(before) > 2_000_000).then_some(Difference::Slower)
}

/// From the top, follows the difference downwards: a failure to the child that failed, lost time to
/// the child that lost most of it. Where no child explains it, it began.
fn first_divergence(bad: &Forest<'_>, good: &Forest<'_>, rows: &[Aligned]) -> Option<usize> {
    let excess = |row: &Aligned| -> u64 {
        let of = |forest: &Forest<'_>, at: Option<usize>| {
            at.and_then(|at| forest.span(at)).map_or(0, |span| span.duration_ns())
        };
        of(bad, row.bad).saturating_sub(of(good, row.good))
    };
    let mut at = 0usize;
    let mut parted = rows.first()?.difference.is_some();
    loop {
        let row = rows.get(at)?;
        let inner = rows.iter().enumerate().skip(at + 1).take_while(|(_, inner)| inner.depth > row.depth);
        let children: Vec<(usize, &Aligned)> =
            inner.filter(|(_, inner)| inner.depth == row.depth + 1).collect();
        let next = if row.difference == Some(Difference::Failed) {
            children.iter().find(|(_, child)| child.difference == Some(Difference::Failed)).map(|(at, _)| *at)
        } else if row.difference == Some(Difference::Slower) {
            let most = children.iter().max_by_key(|(at, child)| (excess(child), std::cmp::Reverse(*at)));
            most.filter(|(_, child)| excess(child) * 2 >= excess(row)).map(|(at, _)| *at)
        } else if row.difference.is_none() {
            // Nothing is wrong here itself: look for the first difference below.
            rows.iter()
                .enumerate()
                .skip(at + 1)
                .take_while(|(_, inner)| inner.depth > row.depth)
                .find(|(_, inner)| inner.difference.is_some())
                .map(|(at, _)| at)
        } else {
            None
        };
        match next {
            Some(next) => {
                parted = true;
                at = next;
            }
            None => return parted.then_some(at),
        }
    }
}

/// The difference of a row in words.
#[must_use]
pub fn in_words(bad: &Forest<'_>, good: &Forest<'_>, row: &Aligned) -> String {
    let (now, before) = (row.bad.and_then(|at| bad.span(at)), row.good.and_then(|at| good.span(at)));
    #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
    let took = |span: &super::rows::SpanRow| duration(span.duration_ns() as f64);
    match (row.difference, now, before) {
        (Some(Difference::Failed), Some(now), _) if now.message.is_empty() => "fails".to_owned(),
        (Some(Difference::Failed), Some(now), _) => {
            format!("fails: {}", super::span_clues::short(&now.message))
        }
        (Some(Difference::Slower), Some(now), Some(before)) => {
            format!("takes {} instead of {}", took(now), took(before))
        }
        (Some(Difference::Missing), ..) => "is no longer called".to_owned(),
        (Some(Difference::New), ..) => "is called, and is not in the healthy trace".to_owned(),
        _ => String::new(),
    }
}
