//! Clues in what runs and what comes in: new versions, requests that stopped coming.

use super::clue::{Clue, Mechanism, STRONGEST, weight};
use super::forest::Forest;
use super::rows::SpanRow;
use super::span_clues::{Pair, percent};
use super::statistics::{Share, log_likelihood_ratio, median_and_scale, sort};
use crate::model::{ServiceKey, SpanKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// New versions of which the spans are worse than the old ones', or which all of them run. A new
/// version is no clue by itself: it weighs as what `against` its service weighs.
#[must_use]
pub fn versions(pair: &Pair<'_>, against: &BTreeMap<ServiceKey, f64>) -> Vec<Clue> {
    let known = |forest: &Forest<'_>| -> BTreeSet<(ServiceKey, Arc<str>)> {
        forest.spans.iter().map(|span| (span.service().clone(), span.resource.version.clone())).collect()
    };
    let before = known(&pair.good);
    let mut clues = Vec::new();
    for (service, version) in known(&pair.bad).difference(&before) {
        let Some(suspicion) = against.get(service).filter(|suspicion| **suspicion > 0.0) else { continue };
        let versioned = before.iter().any(|(known, version)| known == service && !version.is_empty());
        if version.is_empty() || !versioned {
            continue;
        }
        let spans = || pair.bad.spans.iter().filter(|span| span.service() == service);
        let runs_it = |span: &&SpanRow| span.resource.version == *version;
        let healthy = pair.good.spans;
        let (new, old) = (
            worse(spans().filter(runs_it), healthy.iter()),
            worse(spans().filter(|span| !runs_it(span)), healthy.iter()),
        );
        if old.of() >= ENOUGH_OLD && new.either.ratio() <= old.either.ratio() {
            continue;
        }
        let text = if old.of() == 0 {
            format!("runs the new version {version}, and is worse since")
        } else {
            let further = |share: fn(&Worse) -> Share| share(&new).ratio() - share(&old).ratio();
            let (how, share): (_, fn(&Worse) -> Share) = if further(|of| of.failed) >= further(|of| of.slow) {
                ("fail", |of| of.failed)
            } else {
                ("take more than twice as long as is usual", |of| of.slow)
            };
            let [new, old] = [&new, &old].map(|of| percent(share(of).ratio()));
            format!("{new} of the spans of the new version {version} {how}, {old} of the others'")
        };
        let (service, weight) = (service.clone(), suspicion.min(STRONGEST) * 0.8);
        clues.push(Clue { service, operation: None, mechanism: Mechanism::Version, weight, text });
    }
    clues
}

/// Below so much evidence two versions differ by chance: about 1 in 20 would.
const DIFFERENT: f64 = 2.0;
/// So many spans of other versions are enough to compare with.
const ENOUGH_OLD: u64 = 10;

/// Whether a version of a service is worse than its others beside it, or, where there are too few of these, than those
/// before it; nothing where the version is not seen.
#[must_use]
pub fn is_worse<'a>(
    service: &ServiceKey,
    version: &str,
    healthy: &'a [SpanRow],
    faulty: &'a [SpanRow],
) -> Option<bool> {
    let of_service = |span: &&SpanRow| span.service() == service;
    let usual = || healthy.iter().filter(of_service);
    let runs_it = |span: &&SpanRow| *span.resource.version == *version;
    let spans = || faulty.iter().filter(of_service);
    let new = worse(spans().filter(runs_it), usual());
    if new.of() == 0 {
        return None;
    }
    let beside = worse(spans().filter(|span| !runs_it(span)), usual());
    let old = if beside.of() >= ENOUGH_OLD {
        beside
    } else {
        worse(usual().filter(|span| !runs_it(span)), usual())
    };
    // Nothing else ran in what is held: there is only its time.
    if old.of() == 0 {
        return None;
    }
    let differs = log_likelihood_ratio(new.either, old.either) >= DIFFERENT;
    Some(differs && new.either.ratio() > old.either.ratio())
}

/// How many spans are worse than healthy ones.
#[derive(Clone, Copy, Debug, Default)]
struct Worse {
    failed: Share,
    /// Longer than twice the healthy median of their operation.
    slow: Share,
    either: Share,
}

impl Worse {
    const fn of(&self) -> u64 {
        self.either.of
    }
}

fn worse<'a>(spans: impl Iterator<Item = &'a SpanRow>, healthy: impl Iterator<Item = &'a SpanRow>) -> Worse {
    let mut usual: BTreeMap<(ServiceKey, Arc<str>), Vec<f64>> = BTreeMap::new();
    for span in healthy {
        #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
        usual
            .entry((span.service().clone(), span.operation.clone()))
            .or_default()
            .push(span.duration_ns() as f64);
    }
    usual.values_mut().for_each(sort);
    let medians: BTreeMap<_, f64> =
        usual.iter().filter_map(|(key, values)| Some((key, median_and_scale(values)?.0))).collect();
    let mut worse = Worse::default();
    for span in spans {
        let median = medians.get(&(span.service().clone(), span.operation.clone()));
        #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
        let is_slow = median.is_some_and(|median| span.duration_ns() as f64 > 2.0 * median);
        let counts = [span.failed(), is_slow, span.failed() || is_slow];
        for (share, is_hit) in [&mut worse.failed, &mut worse.slow, &mut worse.either].into_iter().zip(counts)
        {
            share.hits += u64::from(is_hit);
            share.of += 1;
        }
    }
    worse
}

/// Services at which requests enter and of which less than a third still do. A span of each period stands for `one_in`.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "seconds and counts"
)]
pub fn traffic(pair: &Pair<'_>, seconds: (f64, f64), one_in: (u64, u64)) -> Vec<Clue> {
    let count = |forest: &Forest<'_>| {
        let mut counts: BTreeMap<ServiceKey, u64> = BTreeMap::new();
        for span in forest.roots().filter_map(|at| forest.span(at)) {
            if span.kind != SpanKind::Internal && span.kind != SpanKind::Consumer {
                *counts.entry(span.service().clone()).or_default() += 1;
            }
        }
        counts
    };
    let (good, bad) = (count(&pair.good), count(&pair.bad));
    if seconds.0 < 10.0 || seconds.1 < 5.0 {
        return Vec::new();
    }
    let one_in = (one_in.0.max(1) as f64, one_in.1.max(1) as f64);
    // What a sample says of many is no more evidence than the few it has: counted as if both were as few.
    let fewer = one_in.0.max(one_in.1);
    good.iter()
        .filter_map(|(service, before)| {
            let now = bad.get(service).copied().unwrap_or(0);
            let (before_rate, now_rate) =
                (*before as f64 * one_in.0 / seconds.0, now as f64 * one_in.1 / seconds.1);
            let left = now_rate / before_rate.max(1e-9);
            if *before < 30 || left > 1.0 / 3.0 {
                return None;
            }
            // The one period's requests among both, against its share of the time.
            let due = (before_rate * seconds.1 / fewer) as u64;
            let now = (now as f64 * one_in.1 / fewer) as u64;
            let (all, due_all) = (now.saturating_add(due), due.saturating_mul(2));
            let evidence =
                log_likelihood_ratio(Share { hits: now, of: all }, Share { hits: due, of: due_all.max(1) });
            Some(Clue {
                service: service.clone(),
                operation: None,
                mechanism: Mechanism::Traffic,
                weight: weight(evidence, good.len(), 1.0 - left),
                text: format!("{now_rate:.1} requests a second enter here instead of {before_rate:.1}"),
            })
        })
        .collect()
}
