//! Requests, errors and latency of operations over time, for charts and `windows.parquet`.

use super::rows::SpanRow;
use super::statistics::quantile;
use crate::model::{ServiceKey, SpanKind, Timestamp};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// One step of one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub start: Timestamp,
    pub service: ServiceKey,
    pub operation: Arc<str>,
    pub kind: SpanKind,
    /// About how many there were, where what is known of them is a sample.
    pub requests: u64,
    pub errors: u64,
    pub p50_ns: f64,
    pub p99_ns: f64,
}

/// What windows counted of all that a chart is about, in one of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    pub start: Timestamp,
    pub end: Timestamp,
    pub requests: u64,
    pub errors: u64,
    /// The largest of any operation.
    pub p50_ns: f64,
    pub p99_ns: f64,
}

type Key = (Timestamp, ServiceKey, Arc<str>, SpanKind);

/// Every operation in steps of `step`, in the order of time, service and operation. Each span stands for `one_in`.
#[must_use]
pub fn series<'a>(spans: impl Iterator<Item = &'a SpanRow>, step: Duration, one_in: u64) -> Vec<Point> {
    let counted = |spans: u64| spans.saturating_mul(one_in.max(1));
    let step_ns = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX).max(1);
    let mut cells: BTreeMap<Key, (u64, Vec<f64>)> = BTreeMap::new();
    for span in spans {
        let start = Timestamp(span.end.0 - span.end.0 % step_ns);
        let cell =
            cells.entry((start, span.service().clone(), span.operation.clone(), span.kind)).or_default();
        cell.0 += u64::from(span.failed());
        #[expect(clippy::cast_precision_loss, reason = "durations far below 2^53 ns")]
        cell.1.push(span.duration_ns() as f64);
    }
    cells
        .into_iter()
        .map(|((start, service, operation, kind), (errors, mut durations))| {
            durations.sort_by(f64::total_cmp);
            let at = |q| quantile(&durations, q).unwrap_or(0.0);
            let (p50_ns, p99_ns) = (at(0.5), at(0.99));
            let (requests, errors) = (counted(durations.len() as u64), counted(errors));
            Point { start, service, operation, kind, requests, errors, p50_ns, p99_ns }
        })
        .collect()
}

/// A step that suits a chart over a range: about 60 steps, whole seconds.
#[must_use]
pub fn step_of(times: &Range<Timestamp>) -> Duration {
    Duration::from_secs((times.end.since(times.start).as_secs() / 60).max(1))
}
