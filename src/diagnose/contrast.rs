//! Which attributes bad spans have that good ones do not: instances, versions, hosts, tenants,
//! routes. Every value is tested, so evidence is corrected for as many tests (Bonferroni).

use super::rows::{Attribute, SpanRow};
use super::statistics::{Share, log_likelihood_ratio, log_odds_ratio};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most distinct values that are counted.
const VALUES: usize = 50_000;
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

/// Over-represented values, strongest first. Both sides are spans of the same operations.
#[must_use]
pub fn contrast<'a>(
    bad: impl Iterator<Item = &'a SpanRow>,
    good: impl Iterator<Item = &'a SpanRow>,
) -> Vec<Contrast> {
    let mut counts: BTreeMap<(&'a Arc<str>, &'a Arc<str>), (u64, u64)> = BTreeMap::new();
    let (mut bad_spans, mut good_spans) = (0u64, 0u64);
    for span in bad {
        bad_spans += 1;
        count(span, &mut counts, |pair| pair.0 += 1);
    }
    for span in good {
        good_spans += 1;
        count(span, &mut counts, |pair| pair.1 += 1);
    }
    if bad_spans < 5 || good_spans < 5 {
        return Vec::new();
    }
    // A value seen once can never be told from chance; only the others are tests.
    let tests = counts.values().filter(|(bad, good)| bad + good > 1).count().max(1);
    #[expect(clippy::cast_precision_loss, reason = "a count of tests")]
    let correction = (tests as f64).ln() + 3.3;
    let mut found: Vec<Contrast> = counts
        .into_iter()
        .filter_map(|((key, value), (hits_bad, hits_good))| {
            let (bad, good) =
                (Share { hits: hits_bad, of: bad_spans }, Share { hits: hits_good, of: good_spans });
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

type Counts<'a> = BTreeMap<(&'a Arc<str>, &'a Arc<str>), (u64, u64)>;

fn count<'a>(span: &'a SpanRow, counts: &mut Counts<'a>, add: impl Fn(&mut (u64, u64))) {
    let all: [&'a [Attribute]; 2] = [&span.attributes, &span.resource.attributes];
    for (key, value) in all.into_iter().flatten() {
        let full = counts.len() >= VALUES;
        match counts.get_mut(&(key, value)) {
            Some(pair) => add(pair),
            None if full => {}
            None => add(counts.entry((key, value)).or_default()),
        }
    }
}
