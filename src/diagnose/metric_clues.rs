//! Clues in metrics: levels and rates that left the range of their own past.

use super::clue::{Clue, Mechanism, STRONGEST};
use super::rows::{Attribute, PointKind, PointRow};
use super::span_clues::percent;
use super::statistics::{median_and_scale, quantile, sort};
use crate::model::{ServiceKey, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fewest points of the healthy period that make a baseline.
const FEWEST: usize = 3;
/// Standard deviations beyond which a level is out of its range.
const OUTSIDE: f64 = 6.0;

type Key = (ServiceKey, Arc<str>, Arc<str>, Vec<Attribute>);
/// Times and values of one series.
type Series = BTreeMap<Key, Vec<(Timestamp, f64)>>;

/// The calls between services that the servicegraph connector counts.
pub const GRAPH_METRIC: &str = "traces_service_graph_request_total";

/// Points as levels: running totals become rates a second, histograms their means.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts and times for a level")]
fn series(points: &[PointRow]) -> Series {
    let mut raw: BTreeMap<Key, Vec<&PointRow>> = BTreeMap::new();
    for point in points.iter().filter(|point| *point.metric != *GRAPH_METRIC) {
        let key = (
            point.resource.service.clone(),
            point.resource.instance.clone(),
            point.metric.clone(),
            point.attributes.clone(),
        );
        raw.entry(key).or_default().push(point);
    }
    raw.into_iter()
        .map(|(key, points)| {
            let mut values = Vec::with_capacity(points.len());
            let mut last: Option<&PointRow> = None;
            for point in points {
                let count = point.count.map(|count| count as f64);
                let value = match (point.kind, last) {
                    (PointKind::Gauge, _) => Some(point.value),
                    (PointKind::Delta, _) => {
                        count.map_or(Some(point.value), |count| (count > 0.0).then(|| point.value / count))
                    }
                    (PointKind::Cumulative, Some(last)) => {
                        let seconds = point.time.since(last.time).as_secs_f64();
                        let added = point.value - last.value;
                        match (count, last.count) {
                            (Some(count), Some(before)) => {
                                let more = count - before as f64;
                                (more > 0.0 && added >= 0.0).then(|| added / more)
                            }
                            _ => (seconds > 0.0 && added >= 0.0).then(|| added / seconds),
                        }
                    }
                    (PointKind::Cumulative, None) => None,
                };
                if let Some(value) = value.filter(|value| value.is_finite()) {
                    values.push((point.time, value));
                }
                last = Some(point);
            }
            (key, values)
        })
        .collect()
}

/// What a metric tells, by the words of its name.
fn mechanism(metric: &str, attributes: &[Attribute]) -> Mechanism {
    let name = metric.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let state = |wanted: &[&str]| {
        attributes.iter().any(|(key, value)| key.ends_with("state") && wanted.contains(&&**value))
    };
    if any(&["pool", "connection"])
        && (any(&["pending", "wait", "usage", "used", "utilization", "timeout", "count"]) || state(&["used"]))
    {
        Mechanism::Pool
    } else if any(&["cpu", "memory", "heap", "disk", "utilization", "throttl", "load_", "gc."]) {
        Mechanism::Resource
    } else if any(&["error", "fail", "availability", "success", "exception"]) {
        Mechanism::FailureMetric
    } else if any(&["latency", "duration", "response_time", "elapsed"]) {
        Mechanism::SlowMetric
    } else {
        Mechanism::Level
    }
}

/// Clues of all services: the strongest of each mechanism, with the points in `split..` judged
/// against those before.
#[must_use]
pub fn clues(good: &[PointRow], bad: &[PointRow]) -> Vec<Clue> {
    let split = bad.iter().map(|point| point.time).min().unwrap_or(Timestamp::MAX);
    // One series over both, so that the first rate of the faulty period has its predecessor.
    let all: Vec<PointRow> = good.iter().chain(bad).cloned().collect();
    let mut best: BTreeMap<(ServiceKey, Mechanism), Clue> = BTreeMap::new();
    for (key, values) in series(&all) {
        let (mut before, mut now): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
        for (time, value) in values {
            if time < split { before.push(value) } else { now.push(value) }
        }
        let Some(clue) = judge(&key, before, now) else { continue };
        let entry = (clue.service.clone(), clue.mechanism);
        if best.get(&entry).is_none_or(|known| known.weight < clue.weight) {
            best.insert(entry, clue);
        }
    }
    best.into_values().collect()
}

fn judge(key: &Key, mut before: Vec<f64>, mut now: Vec<f64>) -> Option<Clue> {
    let (service, _, metric, attributes) = key;
    sort(&mut before);
    // A fault lasts until now: its last points tell more than the period's first.
    let recent = now.len().div_ceil(2).max(1);
    now.drain(..now.len().saturating_sub(recent));
    sort(&mut now);
    if before.len() < FEWEST {
        return None;
    }
    let (median, scale) = median_and_scale(&before)?;
    let level = quantile(&now, 0.5)?;
    let (lowest, highest) = (*before.first()?, *before.last()?);
    let change = level - median;
    let mechanism = mechanism(metric, attributes);
    // A few points understate the spread: the range they covered, and a share of the level, bound it.
    let spread = scale.max((highest - lowest) / 6.0).max(median.abs() * 0.03).max(1e-9);
    let deviation = change.abs() / spread;
    let relative = change.abs() / median.abs().max(spread);
    let worse = match mechanism {
        Mechanism::FailureMetric => {
            let good_is_high = ["availability", "success"].iter().any(|word| metric.contains(word));
            (change < 0.0) == good_is_high
        }
        Mechanism::Level => true,
        _ => change > 0.0,
    };
    if deviation < OUTSIDE || relative < 0.1 || !worse || (lowest..=highest).contains(&level) {
        return None;
    }
    let factor = match mechanism {
        Mechanism::Pool | Mechanism::FailureMetric => 1.0,
        Mechanism::Resource => 0.9,
        Mechanism::SlowMetric => 0.8,
        _ => 0.25,
    };
    let shown = if attributes.is_empty() {
        metric.to_string()
    } else {
        let inner: Vec<String> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{metric}{{{}}}", inner.join(","))
    };
    let times =
        if median.abs() > 1e-9 { format!(" ({} of it)", percent(level / median)) } else { String::new() };
    Some(Clue {
        service: service.clone(),
        operation: None,
        mechanism,
        weight: (2.0 * (deviation / OUTSIDE).ln() + 1.5).min(STRONGEST) * factor,
        text: format!("{shown} is {level:.4} instead of {median:.4}{times}"),
    })
}

/// Who calls whom, by the servicegraph connector's metric.
#[must_use]
pub fn edges(points: &[PointRow]) -> Vec<(ServiceKey, ServiceKey)> {
    let mut edges: Vec<(ServiceKey, ServiceKey)> = points
        .iter()
        .filter(|point| *point.metric == *GRAPH_METRIC && point.value > 0.0)
        .filter_map(|point| {
            let end = |key| super::rows::find(&point.attributes, key).map(ServiceKey::named);
            Some((end("client")?, end("server")?))
        })
        .collect();
    edges.sort();
    edges.dedup();
    edges
}
