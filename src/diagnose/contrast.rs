//! Which attributes bad spans have that good ones do not: instances, versions, hosts, tenants, routes. Operations
//! differ in these by themselves, so each is compared with itself. Every value is tested, so evidence is corrected for
//! as many tests (Bonferroni).

use super::rows::{Attribute, SpanRow};
use super::statistics::{Share, log_likelihood_ratio, log_odds_ratio};
use crate::model::{ServiceKey, SpanKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most distinct values that are counted, each by itself in every operation.
const VALUES: usize = 100_000;
/// Fewest spans that are compared.
const FEWEST: u64 = 5;
/// Most contrasts told.
const TOLD: usize = 12;

/// A value that is over-represented in bad spans.
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    pub key: Arc<str>,
    pub value: Arc<str>,
    /// Of the bad spans, and of the good ones, how many have it.
    pub bad: Share,
    pub good: Share,
    /// Natural logarithm of the odds ratio, shrunk towards 0.
    pub log_odds_ratio: f64,
    /// Log likelihood ratio after the correction for the number of values tested.
    pub evidence: f64,
}

/// Attributes that say what happened rather than to whom: they differ because the span is bad.
fn is_outcome(key: &str) -> bool {
    key.starts_with("error")
        || key.starts_with("exception")
        || key.ends_with("status_code")
        || key.starts_with("otel.status")
}

/// Over-represented values, strongest first. Bad spans are compared with the good ones of their own operation, as if
/// the good ones were spread over operations as the bad ones are (direct standardisation): what only belongs to the
/// operation that fails is no difference. With those of all operations where theirs has hardly any good ones.
#[must_use]
pub fn contrast<'a>(
    bad: impl Iterator<Item = &'a SpanRow>,
    good: impl Iterator<Item = &'a SpanRow>,
) -> Vec<Contrast> {
    let mut counts = Counts::default();
    bad.for_each(|span| counts.add(span, |pair| pair.0 += 1));
    good.for_each(|span| counts.add(span, |pair| pair.1 += 1));
    let sum = |pairs: &[(u64, u64)]| {
        pairs
            .iter()
            .fold((0u64, 0u64), |sum, pair| (sum.0.saturating_add(pair.0), sum.1.saturating_add(pair.1)))
    };
    let of = counts.operations.values().map(|(_, pair)| *pair).collect::<Vec<_>>();
    let (bad_spans, good_spans) = sum(&of);
    let strata = Strata::new(counts.operations.into_values(), bad_spans, good_spans);
    if bad_spans < FEWEST || strata.good_of < FEWEST {
        return Vec::new();
    }
    // A value seen once can never be told from chance; only the others are tests.
    let hits =
        |by_operation: &BTreeMap<u32, (u64, u64)>| sum(&by_operation.values().copied().collect::<Vec<_>>());
    let tests = counts.values.values().map(hits).filter(|(bad, good)| bad + good > 1).count().max(1);
    #[expect(clippy::cast_precision_loss, reason = "a count of tests")]
    let correction = (tests as f64).ln() + 3.3;
    let mut found: Vec<Contrast> = counts
        .values
        .into_iter()
        .filter_map(|((key, value), by_operation)| {
            let (hits_bad, hits_good) = hits(&by_operation);
            let bad = Share { hits: hits_bad, of: bad_spans };
            let good = strata.good(&by_operation, hits_good);
            let evidence = log_likelihood_ratio(bad, good) - correction;
            let log_odds_ratio = log_odds_ratio(bad, good);
            let told = evidence > 0.0 && bad.ratio() > good.ratio() + 0.1 && log_odds_ratio > 0.7;
            (told && !is_outcome(key)).then(|| Contrast {
                key: key.clone(),
                value: value.clone(),
                bad,
                good,
                log_odds_ratio,
                evidence,
            })
        })
        .collect();
    found.sort_by(|a, b| {
        b.evidence.total_cmp(&a.evidence).then_with(|| (&a.key, &a.value).cmp(&(&b.key, &b.value)))
    });
    found.truncate(TOLD);
    found
}

/// Operations that bad spans are of.
struct Strata {
    /// By its number: the share of the bad spans, and how many good ones it has, none if those of all are taken.
    operations: Vec<(u32, f64, Option<f64>)>,
    all_good: f64,
    /// As many good spans as what is known of their shares is worth.
    good_of: u64,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of spans are far below 2^53"
)]
impl Strata {
    fn new(operations: impl Iterator<Item = (u32, (u64, u64))>, bad_spans: u64, good_spans: u64) -> Self {
        let operations: Vec<_> = operations
            .filter(|(_, (bad, _))| *bad > 0)
            .map(|(number, (bad, good))| {
                (number, bad as f64 / bad_spans as f64, (good >= FEWEST).then_some(good as f64))
            })
            .collect();
        let all_good = good_spans as f64;
        // A share that is put together of strata varies as one of this many spans does.
        let mut varies: f64 = 0.0;
        for (_, share, good) in &operations {
            varies += share.powi(2) / good.unwrap_or(all_good).max(1e-9);
        }
        let good_of = if varies > 0.0 { (1.0 / varies).min(all_good) as u64 } else { 0 };
        Self { operations, all_good, good_of }
    }

    /// The share of good spans with a value, of which `hits` are in all operations together.
    fn good(&self, by_operation: &BTreeMap<u32, (u64, u64)>, hits: u64) -> Share {
        let of_all = hits as f64 / self.all_good.max(1.0);
        let mut ratio = 0.0;
        for (number, share, good) in &self.operations {
            let hits = by_operation.get(number).map_or(0.0, |pair| pair.1 as f64);
            ratio += share * good.map_or(of_all, |good| hits / good);
        }
        Share { hits: (ratio.clamp(0.0, 1.0) * self.good_of as f64).round() as u64, of: self.good_of }
    }
}

/// Bad and good spans.
#[derive(Default)]
struct Counts<'a> {
    /// By the service, name and kind of an operation, with its number.
    operations: BTreeMap<(&'a ServiceKey, &'a str, SpanKind), (u32, (u64, u64))>,
    /// By the value of an attribute, and by operation.
    values: BTreeMap<(&'a Arc<str>, &'a Arc<str>), BTreeMap<u32, (u64, u64)>>,
    counted: usize,
}

impl<'a> Counts<'a> {
    fn add(&mut self, span: &'a SpanRow, add: impl Fn(&mut (u64, u64))) {
        let next = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        let operation = (span.service(), &*span.operation, span.kind);
        let (number, spans) = self.operations.entry(operation).or_insert((next, (0, 0)));
        add(spans);
        let all: [&'a [Attribute]; 2] = [&span.attributes, &span.resource.attributes];
        for (key, value) in all.into_iter().flatten() {
            let is_full = self.counted >= VALUES;
            match self.values.get_mut(&(key, value)).and_then(|of| of.get_mut(number)) {
                Some(pair) => add(pair),
                None if is_full => {}
                None => {
                    self.counted += 1;
                    add(self.values.entry((key, value)).or_default().entry(*number).or_default());
                }
            }
        }
    }
}
