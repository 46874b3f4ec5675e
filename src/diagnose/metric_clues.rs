//! Clues in metrics: levels and rates that left the range of their own past.

use super::clue::{Clue, Mechanism, STRONGEST};
use super::rows::{Attribute, PointKind, PointRow};
use super::span_clues::percent;
use super::statistics::{quantile, sort};
use crate::model::{ServiceKey, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Fewest points of the healthy period that make a baseline.
const FEWEST: usize = 3;
/// Times the usual wandering beyond which a level is out of its range.
const OUTSIDE: f64 = 1.2;

/// What of all healthy points of a metric, at all services, counts as its usual wandering.
const WANDERING: f64 = 0.99;
/// What is left of a clue that was there when the faulty period began, while others began within it.
const OLDER: f64 = 0.4;

/// Service, instance, metric, attributes, unit.
type Key = (ServiceKey, Arc<str>, Arc<str>, Vec<Attribute>, Arc<str>);
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
            point.unit.clone(),
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
fn mechanism(metric: &str, attributes: &[Attribute], unit: &str) -> Mechanism {
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
    } else if any(&["latency", "duration", "response_time", "elapsed"])
        || matches!(unit, "s" | "ms" | "us" | "ns")
    {
        Mechanism::SlowMetric
    } else {
        Mechanism::Level
    }
}

/// Values on a scale on which changes of one metric compare: logarithms; of a share of successes, of
/// the failures it leaves.
fn scaled(value: f64, metric: &str, typical: f64) -> f64 {
    if is_success(metric) {
        let whole = if typical > 1.5 { 100.0 } else { 1.0 };
        return (((whole - value) / whole).max(0.0) + 0.01).ln();
    }
    // Below a hundredth of what is typical, a difference is no difference.
    (value.abs().max(typical.abs() * 0.01).max(1e-9)).ln()
}

fn is_success(metric: &str) -> bool {
    ["availability", "success"].iter().any(|word| metric.contains(word))
}

/// A series, before and now, on its scale.
struct Judged {
    key: Key,
    median: f64,
    level: f64,
    /// How far `level` lies outside the range of the past, and how far the past spread, on the scale.
    change: f64,
    spread: f64,
    /// The faulty period's first points were still in the range of the past: it began in between.
    began_inside: bool,
}

/// Clues of all services: the strongest of each mechanism, the points of `bad` judged against those
/// of `good`, and against how much the same metric wanders at all services while healthy.
#[must_use]
pub fn clues(good: &[PointRow], bad: &[PointRow]) -> Vec<Clue> {
    let split = bad.iter().map(|point| point.time).min().unwrap_or(Timestamp::MAX);
    // One series over both, so that the first rate of the faulty period has its predecessor.
    let all: Vec<PointRow> = good.iter().chain(bad).cloned().collect();
    let mut judged = Vec::new();
    let mut wander: BTreeMap<(Arc<str>, Vec<Attribute>), Vec<f64>> = BTreeMap::new();
    let series = series(&all);
    let mut typical: BTreeMap<Arc<str>, Vec<f64>> = BTreeMap::new();
    for ((_, _, metric, ..), values) in &series {
        let values = values.iter().filter(|(time, _)| *time < split).map(|(_, value)| value.abs());
        typical.entry(metric.clone()).or_default().extend(values);
    }
    let typical: BTreeMap<Arc<str>, f64> = typical
        .into_iter()
        .filter_map(|(metric, mut values)| {
            sort(&mut values);
            Some((metric, quantile(&values, 0.5)?))
        })
        .collect();
    for (key, values) in series {
        let usual = typical.get(&key.2).copied().unwrap_or(0.0);
        let Some((one, apart)) = judge(key, &values, split, usual) else { continue };
        wander.entry((one.key.2.clone(), one.key.3.clone())).or_default().extend(apart);
        judged.push(one);
    }
    wander.values_mut().for_each(sort);
    let mut found: Vec<(&Judged, Clue)> = Vec::new();
    for one in &judged {
        let pooled = wander
            .get(&(one.key.2.clone(), one.key.3.clone()))
            .and_then(|all| quantile(all, WANDERING))
            .unwrap_or(0.0);
        found.extend(clue(one, pooled).map(|clue| (one, clue)));
    }
    // The same metric out of range at many services tells of none of them: a node that they share,
    // another load. And when something began within the period, what was so at its start is older.
    let mut services: BTreeMap<&(Arc<str>, Arc<str>, Vec<Attribute>), BTreeSet<&ServiceKey>> =
        BTreeMap::new();
    let metrics: Vec<(Arc<str>, Arc<str>, Vec<Attribute>)> =
        found.iter().map(|(one, _)| (one.key.2.clone(), one.key.4.clone(), one.key.3.clone())).collect();
    for ((one, _), metric) in found.iter().zip(&metrics) {
        services.entry(metric).or_default().insert(&one.key.0);
    }
    let mut increases: BTreeMap<&(Arc<str>, Arc<str>, Vec<Attribute>), f64> = BTreeMap::new();
    for ((one, _), metric) in found.iter().zip(&metrics) {
        let most = increases.entry(metric).or_default();
        *most = most.max(one.level - one.median);
    }
    let some_began = found.iter().any(|(one, clue)| one.began_inside && clue.mechanism != Mechanism::Level);
    let mut best: BTreeMap<(ServiceKey, Mechanism), Clue> = BTreeMap::new();
    for ((one, clue), metric) in found.iter().zip(&metrics) {
        let mut clue = clue.clone();
        if !matches!(clue.mechanism, Mechanism::SlowMetric | Mechanism::FailureMetric) {
            #[expect(clippy::cast_precision_loss, reason = "a count of services")]
            let many = services.get(metric).map_or(1.0, |services| services.len().max(1) as f64);
            clue.weight /= many;
        }
        if clue.mechanism == Mechanism::SlowMetric {
            let most = increases.get(metric).copied().unwrap_or(0.0);
            let share = if most > 0.0 { ((one.level - one.median) / most).clamp(0.0, 1.0) } else { 1.0 };
            clue.weight *= 0.3 + 0.7 * share.sqrt();
        }
        if some_began && !one.began_inside {
            clue.weight *= OLDER;
        }
        let entry = (clue.service.clone(), clue.mechanism);
        if best.get(&entry).is_none_or(|known| known.weight < clue.weight) {
            best.insert(entry, clue);
        }
    }
    best.into_values().collect()
}

/// The series judged, and how far each healthy point lay from the median.
fn judge(
    key: Key,
    values: &[(Timestamp, f64)],
    split: Timestamp,
    typical: f64,
) -> Option<(Judged, Vec<f64>)> {
    let mut before: Vec<f64> =
        values.iter().filter(|(time, _)| *time < split).map(|(_, value)| *value).collect();
    let mut now: Vec<f64> =
        values.iter().filter(|(time, _)| *time >= split).map(|(_, value)| *value).collect();
    sort(&mut before);
    // A fault lasts until now: its last points tell more than the period's first.
    let recent = now.len().div_ceil(2).max(1);
    let mut first: Vec<f64> = now.drain(..now.len().saturating_sub(recent)).collect();
    sort(&mut first);
    sort(&mut now);
    if before.len() < FEWEST {
        return None;
    }
    let (median, level) = (quantile(&before, 0.5)?, quantile(&now, 0.5)?);
    let usual = if is_success(&key.2) { typical } else { typical.min(median.abs().max(typical * 0.1)) };
    let scale = |value: f64| scaled(value, &key.2, usual);
    let mut apart: Vec<f64> = before.iter().map(|value| (scale(*value) - scale(median)).abs()).collect();
    sort(&mut apart);
    let spread = quantile(&apart, 0.9)?;
    let mut scaled_before: Vec<f64> = before.iter().map(|value| scale(*value)).collect();
    sort(&mut scaled_before);
    // Where there are many points, one in a hundred may be an outlier of the past.
    let edge = if before.len() >= 100 { 0.01 } else { 0.0 };
    let (low, high) = (quantile(&scaled_before, edge)?, quantile(&scaled_before, 1.0 - edge)?);
    let outside = |value: f64| if value > high { value - high } else { (value - low).min(0.0) };
    let began_inside = quantile(&first, 0.5).is_some_and(|early| outside(scale(early)).abs() < 0.2);
    let change = outside(scale(level));
    Some((Judged { key, median, level, change, spread, began_inside }, apart))
}

fn clue(one: &Judged, pooled: f64) -> Option<Clue> {
    let (service, _, metric, attributes, _) = &one.key;
    let mechanism = mechanism(metric, &one.key.3, &one.key.4);
    let worse = mechanism == Mechanism::Level || one.change > 0.0;
    // At least a fifth more, and beyond what the metric does by itself here and elsewhere.
    let beyond = one.change.abs() / pooled.max(one.spread).max(0.2);
    if !worse || beyond < OUTSIDE {
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
    let times = if one.median.abs() > 1e-9 {
        format!(" ({} of it)", percent(one.level / one.median))
    } else {
        String::new()
    };
    Some(Clue {
        service: service.clone(),
        operation: None,
        mechanism,
        weight: STRONGEST * (1.0 - 1.0 / beyond).sqrt() * factor,
        text: format!("{shown} is {:.4} instead of {:.4}{times}", one.level, one.median),
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
