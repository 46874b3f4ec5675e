//! What broke at a moment, compared with a baseline, using nothing after that moment.

use super::blame::{self, Edges, Suspect};
use super::clue::Clue;
use super::evidence::Cause;
use super::log_clues::{self, ChangedLine};
use super::metric_clues;
use super::other_clues;
use super::rows::Rows;
use super::span_clues::{self, Pair};
use crate::model::{ServiceKey, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Without a baseline: how long the faulty period is taken to be, and the healthy one before it.
pub const FAULTY: Duration = Duration::from_secs(120);
const HEALTHY: Duration = Duration::from_secs(600);
/// A faulty period is never longer than this: a fault that is older is the new normal.
const LONGEST: Duration = Duration::from_secs(1_200);

/// From so many spans in both periods on, metrics of what requests see count for this much only.
const ENOUGH_SPANS: usize = 200;
const BESIDE_SPANS: f64 = 0.3;

/// How much of a past shows what a system does when nothing is wrong: with less, what changes from
/// one minute to the next has not been seen, and a difference says less.
pub(super) const ENOUGH_PAST_S: f64 = 120.0;

/// What was compared and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    pub causes: Vec<Cause>,
    pub suspects: Vec<Suspect>,
    /// Strongest change first.
    pub lines: Vec<ChangedLine>,
    /// Who calls whom, by the rows and by what was known beside them.
    pub calls: Edges,
    /// What metrics say; `None` where there were none.
    pub metrics: Option<Vec<Clue>>,
}

impl Explanation {
    /// As in `causes.json`.
    #[must_use]
    pub fn json(&self, at: Timestamp) -> serde_json::Value {
        serde_json::json!({ "at": at, "causes": self.causes, "lines": log_clues::shown(&self.lines) })
    }
}

/// What broke at `at`: the causes, most likely first; none when nothing is wrong. `baseline` is the
/// healthy period, from its start up to but not including its end; without one, the ten minutes
/// before the last two.
#[must_use]
pub fn explain(rows: &Rows, at: Timestamp, baseline: Option<(Timestamp, Timestamp)>) -> Explanation {
    let (good, bad) = periods(at, baseline);
    let (good, since, bad) = (rows.between(good.0, good.1), bad.0, rows.between(bad.0, bad.1));
    let past_is_chosen = baseline.is_some();
    compare_with(&good, &bad, since, Known { past_s: covered_s(&good), past_is_chosen, ..Known::default() })
}

/// Healthy and faulty period.
#[must_use]
pub fn periods(
    at: Timestamp,
    baseline: Option<(Timestamp, Timestamp)>,
) -> ((Timestamp, Timestamp), (Timestamp, Timestamp)) {
    let (from, to) = baseline.unwrap_or_else(|| {
        let split = at.saturating_sub(FAULTY);
        (split.saturating_sub(HEALTHY), split)
    });
    // Times are whole nanoseconds: what is timed exactly `at` still counts.
    let end = Timestamp(at.0.saturating_add(1));
    ((from, to.min(end)), (to.max(at.saturating_sub(LONGEST)).min(end), end))
}

/// Contrasts two periods, of which the faulty one begins at `since`.
#[must_use]
pub fn compare(good: &Rows, bad: &Rows, since: Timestamp) -> Explanation {
    compare_with(good, bad, since, Known { past_s: covered_s(good), ..Known::default() })
}

/// What is known of the two periods beside their rows.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Clues that come from elsewhere, such as the alarm itself.
    pub told: Vec<Clue>,
    /// Who calls whom, such as the topology tells.
    pub calls: Edges,
    /// What metrics say, where it is known and their points are not among the rows.
    pub metrics: Option<Vec<Clue>>,
    /// How much of a past the healthy rows were taken from, in seconds.
    pub past_s: f64,
    /// Somebody chose that past: it need not be of the same state of the system.
    pub past_is_chosen: bool,
}

/// As [`compare`], with what is known beside the rows.
#[must_use]
pub fn compare_with(good: &Rows, bad: &Rows, since: Timestamp, known: Known) -> Explanation {
    let pair = Pair::new(&good.spans, &bad.spans);
    let seconds = (covered_s(good), covered_s(bad));
    let mut clues = span_clues::clues(&pair);
    let logs_one_in = (good.logs_one_in, bad.logs_one_in);
    let (line_clues, lines) = log_clues::clues(&good.logs, &bad.logs, seconds, logs_one_in);
    clues.extend(line_clues);
    let past = (known.past_s / ENOUGH_PAST_S).min(1.0).powi(2);
    clues.iter_mut().for_each(|clue| clue.weight *= past);
    clues.extend(known.told);
    let metrics = known.metrics.or_else(|| {
        let mut found = metric_clues::clues(&good.points, &bad.points, since, known.past_is_chosen);
        // Spans are the finer witness of what a metric of requests sums up.
        if good.spans.len() >= ENOUGH_SPANS && bad.spans.len() >= ENOUGH_SPANS {
            found
                .iter_mut()
                .filter(|clue| blame::is_symptom(clue.mechanism))
                .for_each(|clue| clue.weight *= BESIDE_SPANS);
        }
        (!bad.points.is_empty()).then_some(found)
    });
    clues.extend(metrics.iter().flatten().cloned());
    clues.extend(other_clues::traffic(&pair, seconds, (good.one_in, bad.one_in)));
    let mut edges = edges(&pair, good, bad);
    edges.extend(known.calls);
    let against: BTreeMap<ServiceKey, f64> = blame::suspects(clues.clone(), &edges)
        .into_iter()
        .map(|suspect| (suspect.service, suspect.evidence))
        .collect();
    clues.extend(other_clues::versions(&pair, &against));
    let suspects = blame::suspects(clues, &edges);
    let absent = match (bad.spans.is_empty(), bad.logs.is_empty(), metrics.is_some()) {
        (_, _, true) => 0,
        (false, false, false) => 1,
        _ => 2,
    };
    Explanation { causes: blame::causes(&suspects, absent), suspects, lines, calls: edges, metrics }
}

/// Who calls whom, by what both periods hold.
pub(super) fn edges_of(good: &Rows, bad: &Rows) -> Edges {
    edges(&Pair::new(&good.spans, &bad.spans), good, bad)
}

/// Who calls whom, by spans and by the call graph's metric; services of the latter are known by
/// name only and stand for the one that sends telemetry under that name.
fn edges(pair: &Pair<'_>, good: &Rows, bad: &Rows) -> Edges {
    let mut names: BTreeMap<String, ServiceKey> = BTreeMap::new();
    for resource in good.points.iter().chain(&bad.points).map(|point| &point.resource) {
        names.entry(resource.service.name.to_string()).or_insert_with(|| resource.service.clone());
    }
    for span in good.spans.iter().chain(&bad.spans) {
        names.entry(span.service().name.to_string()).or_insert_with(|| span.service().clone());
    }
    let known = |named: ServiceKey| names.get(&*named.name).cloned().unwrap_or(named);
    let mut edges: Edges = pair.good.edges().into_keys().chain(pair.bad.edges().into_keys()).collect();
    for points in [&good.points, &bad.points] {
        edges.extend(
            metric_clues::edges(points).into_iter().map(|(client, server)| (known(client), known(server))),
        );
    }
    edges
}

/// How many seconds of a period hold spans or log lines, to the next five.
#[expect(clippy::cast_precision_loss, reason = "a count of seconds")]
pub fn covered_s(rows: &Rows) -> f64 {
    let times = rows.spans.iter().map(|row| row.end).chain(rows.logs.iter().map(|row| row.time));
    let slots: std::collections::BTreeSet<u64> = times.map(|at| at.secs() / 5).collect();
    (slots.len() * 5) as f64
}
