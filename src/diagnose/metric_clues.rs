//! Clues in metrics: levels and rates that left the range of their own past.

use super::blame::is_symptom;
use super::clue::{Clue, Mechanism, STRONGEST};
use super::rows::{Attribute, PointKind, PointRow};
use super::span_clues::percent;
use super::statistics::{quantile, sort};
use crate::model::{ServiceKey, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fewest points of the healthy period that make a baseline.
const FEWEST: usize = 3;
/// How far beyond the edge of its range a level must lie, in how far that edge is from the median.
const OUTSIDE: f64 = 0.5;
/// How many healthy points the same metric's wandering at other services counts for.
const PRIOR_POINTS: f64 = 8.0;
/// No series is taken to wander less than this, on the scale: a tenth.
const SMALLEST_REACH: f64 = 0.1;
/// What is left of a clue that was there when the faulty period began, while others began within it.
const OLDER: f64 = 0.4;

/// The past is of another state of the system when so large a share of the series left its range as soon as it
/// ended, so large a share of them upwards and as large a one downwards: a fault moves what depends on it, and
/// mostly in one direction. Fewer series say nothing of that.
const MISFITS: f64 = 0.4;
const EACH_WAY: f64 = 0.1;
const SERIES_TO_TELL: usize = 24;
/// Points of the nearest past that is taken then.
const NEAREST: usize = 2;

/// Points from which on a past tells how rare a level is, the rarity (−ln of its share) that happens
/// all the time somewhere, and the most that rarity alone weighs.
const LONG_PAST: usize = 100;
const COMMON: f64 = 3.0;
const RARE: f64 = 2.0;

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
    /// How far `level` lies outside the range of the past on the scale; negative below it.
    change: f64,
    /// How much of the time the series is there, compared with the same metric at other services, 0..=1.
    coverage: f64,
    /// Healthy points that were as high as this or higher.
    above: usize,
    /// How far the past reached from its median to the edge of its range, upwards and downwards.
    reach: (f64, f64),
    /// Healthy points.
    points: usize,
    /// `change` at the faulty period's first points.
    early: f64,
    /// The faulty period's first points were still in the range of the past: it began in between.
    began_inside: bool,
}

/// A metric, its unit and attributes: what is the same series at another service.
type Metric = (Arc<str>, Arc<str>, Vec<Attribute>);

fn metric_of(key: &Key) -> Metric {
    (key.2.clone(), key.4.clone(), key.3.clone())
}

/// Clues of all services: the strongest of each mechanism, the points of `bad` judged against those
/// of `good`. If `may_misfit`, for somebody chose the past, and it is of another state of the system, the first points of
/// `bad` are the past, if there are enough of them.
#[must_use]
pub fn clues(good: &[PointRow], bad: &[PointRow], since: Timestamp, may_misfit: bool) -> Vec<Clue> {
    let (clues, fits) = against(good, bad, since, FEWEST);
    if may_misfit
        && !fits
        && let Some((past, now, split)) = nearest(bad, since)
    {
        let (nearer, _) = against(&past, &now, split, NEAREST);
        if !nearer.is_empty() {
            return nearer;
        }
    }
    clues
}

/// The first half of what came after `since`, what comes after it, and the moment between them.
fn nearest(bad: &[PointRow], since: Timestamp) -> Option<(Vec<PointRow>, Vec<PointRow>, Timestamp)> {
    let mut times: Vec<Timestamp> = bad.iter().map(|point| point.time).filter(|time| *time > since).collect();
    times.sort_unstable();
    times.dedup();
    let half = (times.len() / 2).max(NEAREST);
    let (last, next) = (*times.get(half.checked_sub(1)?)?, *times.get(half)?);
    let later = bad.iter().filter(|point| point.time > since).cloned();
    let (past, now) = later.partition(|point| point.time <= last);
    // What began, began before it was first told of.
    Some((past, now, Timestamp(last.0.saturating_add(1)).min(next)))
}

/// Whether the past is of the same state of the system as what followed it.
#[expect(clippy::cast_precision_loss, reason = "a count of series")]
fn fits(judged: &[Judged]) -> bool {
    let left = |one: &&Judged| {
        let reach = if one.change > 0.0 { one.reach.0 } else { one.reach.1 };
        one.began_inside && one.change.abs() > reach.max(SMALLEST_REACH)
    };
    let all = judged.len();
    let (up, down): (Vec<&Judged>, Vec<&Judged>) =
        judged.iter().filter(left).partition(|one| one.change > 0.0);
    let share = |count: usize| count as f64 / all.max(1) as f64;
    all < SERIES_TO_TELL
        || share(up.len() + down.len()) < MISFITS
        || share(up.len().min(down.len())) < EACH_WAY
}

/// Clues by one past of at least `fewest` points a series, and whether it fits. A short past says little about how
/// far a series wanders, so what the same metric does at the other services is mixed in, the more the fewer healthy
/// points there are (shrinkage of scales, as Smyth, 2004, does for many short series).
fn against(good: &[PointRow], bad: &[PointRow], since: Timestamp, fewest: usize) -> (Vec<Clue>, bool) {
    let split = bad.iter().map(|point| point.time).min().unwrap_or(Timestamp::MAX);
    // One series over both, so that the first rate of the faulty period has its predecessor.
    let all: Vec<PointRow> = good.iter().chain(bad).cloned().collect();
    let series = series(&all);
    let typical = typical(&series, split);
    let mut judged: Vec<Judged> = series
        .into_iter()
        .filter_map(|(key, values)| {
            let usual = typical.get(&key.2).copied().unwrap_or(0.0);
            judge(key, &values, (split, since), usual, fewest)
        })
        .collect();
    let mut reaches: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
    for one in &judged {
        reaches.entry(metric_of(&one.key)).or_default().extend([one.reach.0, one.reach.1]);
    }
    reaches.values_mut().for_each(sort);
    let fits = fits(&judged);
    coverage(&mut judged);
    let elsewhere =
        |one: &Judged| reaches.get(&metric_of(&one.key)).and_then(|all| quantile(all, 0.75)).unwrap_or(0.0);
    let first: Vec<(&Judged, Clue)> = judged
        .iter()
        .filter_map(|one| clue(one, one.change, elsewhere(one)).map(|clue| (one, clue)))
        .collect();
    // When something began within the period, what was out of range before is older; only what such a
    // series changed since then is as much news.
    let some_began = first.iter().any(|(one, clue)| one.began_inside && clue.mechanism != Mechanism::Level);
    let found: Vec<(&Judged, Clue)> = first
        .into_iter()
        .map(|(one, mut known)| {
            if some_began && !one.began_inside {
                let since = if one.change > 0.0 {
                    one.change - one.early.max(0.0)
                } else {
                    one.change - one.early.min(0.0)
                };
                known.weight *= OLDER;
                if let Some(newer) = clue(one, since, elsewhere(one))
                    .filter(|newer| since * one.change > 0.0 && newer.weight > known.weight)
                {
                    known = newer;
                }
            }
            (one, known)
        })
        .collect();
    (strongest(found), fits)
}

/// A series that is there now and then, where the same metric of others always is, is there because
/// something else happens.
#[expect(clippy::cast_precision_loss, reason = "a count of points")]
fn coverage(judged: &mut [Judged]) {
    let mut lengths: BTreeMap<Metric, Vec<f64>> = BTreeMap::new();
    for one in judged.iter() {
        lengths.entry(metric_of(&one.key)).or_default().push(one.points as f64);
    }
    lengths.values_mut().for_each(sort);
    for one in judged {
        let usual = lengths.get(&metric_of(&one.key)).and_then(|all| quantile(all, 0.5)).unwrap_or(0.0);
        let share = if usual > 0.0 { one.points as f64 / usual } else { 1.0 };
        one.coverage = share.min(1.0).sqrt();
    }
}

/// The median level of each metric over all services while healthy.
fn typical(series: &Series, split: Timestamp) -> BTreeMap<Arc<str>, f64> {
    let mut typical: BTreeMap<Arc<str>, Vec<f64>> = BTreeMap::new();
    for ((_, _, metric, ..), values) in series {
        let values = values.iter().filter(|(time, _)| *time < split).map(|(_, value)| value.abs());
        typical.entry(metric.clone()).or_default().extend(values);
    }
    typical
        .into_iter()
        .filter_map(|(metric, mut values)| {
            sort(&mut values);
            Some((metric, quantile(&values, 0.5)?))
        })
        .collect()
}

/// Of each service and mechanism the strongest clue. The same metric out of range at many services
/// tells of none of them: a node that they share, another load.
fn strongest(found: Vec<(&Judged, Clue)>) -> Vec<Clue> {
    let found: Vec<(&Judged, Clue, Metric)> =
        found.into_iter().map(|(one, clue)| (one, clue, metric_of(&one.key))).collect();
    let mut changes: BTreeMap<&Metric, f64> = BTreeMap::new();
    let mut increases: BTreeMap<&Metric, f64> = BTreeMap::new();
    for (one, _, metric) in &found {
        *changes.entry(metric).or_default() += (one.level - one.median).abs();
        let most = increases.entry(metric).or_default();
        *most = most.max(one.level - one.median);
    }
    let mut best: BTreeMap<(ServiceKey, Mechanism), Clue> = BTreeMap::new();
    for (one, clue, metric) in &found {
        let mut clue = clue.clone();
        if !is_symptom(clue.mechanism) {
            let all = changes.get(metric).copied().unwrap_or(0.0);
            let share = if all > 0.0 { (one.level - one.median).abs() / all } else { 1.0 };
            clue.weight *= share.min(1.0).sqrt();
        }
        if clue.mechanism == Mechanism::SlowMetric {
            let most = increases.get(metric).copied().unwrap_or(0.0);
            let share = if most > 0.0 { ((one.level - one.median) / most).clamp(0.0, 1.0) } else { 1.0 };
            clue.weight *= 0.6 + 0.4 * share.sqrt();
        }
        let entry = (clue.service.clone(), clue.mechanism);
        if best.get(&entry).is_none_or(|known| known.weight < clue.weight) {
            best.insert(entry, clue);
        }
    }
    best.into_values().collect()
}

fn judge(
    key: Key,
    values: &[(Timestamp, f64)],
    (split, since): (Timestamp, Timestamp),
    typical: f64,
    fewest: usize,
) -> Option<Judged> {
    let mut before: Vec<f64> =
        values.iter().filter(|(time, _)| *time < split).map(|(_, value)| *value).collect();
    let mut now: Vec<f64> =
        values.iter().filter(|(time, _)| *time >= split).map(|(_, value)| *value).collect();
    sort(&mut before);
    // A fault lasts until now: its last points tell more than the period's first.
    let recent = (now.len() / 3).max(1);
    let mut now = now.split_off(now.len().saturating_sub(recent));
    // A point tells of the time since the one before: of the period's points, those that mostly tell of
    // the time before it.
    let step_ns = values
        .windows(2)
        .filter_map(|pair| Some(pair.get(1)?.0.0.saturating_sub(pair.first()?.0.0)))
        .min()
        .unwrap_or(0);
    let until = Timestamp(since.0.saturating_add(step_ns / 5));
    let mut first: Vec<f64> =
        values.iter().filter(|(time, _)| *time >= split && *time < until).map(|(_, value)| *value).collect();
    sort(&mut first);
    sort(&mut now);
    if before.len() < fewest {
        return None;
    }
    let (median, level) = (quantile(&before, 0.5)?, quantile(&now, 0.5)?);
    let usual = if is_success(&key.2) { typical } else { typical.min(median.abs().max(typical * 0.1)) };
    let scale = |value: f64| scaled(value, &key.2, usual);
    let mut past: Vec<f64> = before.iter().map(|value| scale(*value)).collect();
    sort(&mut past);
    // Where there are many points, one in a hundred may be an outlier of the past.
    let edge = if past.len() >= LONG_PAST { 0.005 } else { 0.0 };
    let (low, middle, high) = (quantile(&past, edge)?, quantile(&past, 0.5)?, quantile(&past, 1.0 - edge)?);
    let outside = |value: f64| if value > high { value - high } else { (value - low).min(0.0) };
    let early = quantile(&first, 0.5).map(|early| outside(scale(early)));
    // What was out of range when the period began is older than what began within it: of such a series
    // only what it changed since is news.
    let began_inside = early.is_none_or(|early| early.abs() < 0.2);
    let now_scaled = scale(level);
    let change = outside(now_scaled);
    let above = past.iter().filter(|value| **value >= now_scaled).count();
    let (reach, points) = ((high - middle, middle - low), before.len());
    Some(Judged {
        key,
        median,
        level,
        change,
        early: early.unwrap_or(0.0),
        coverage: 1.0,
        above,
        reach,
        points,
        began_inside,
    })
}

/// The clue of one series, when it left its range by more than it ever wandered within it.
/// `elsewhere` is how far the same metric wanders at other services.
#[expect(clippy::cast_precision_loss, reason = "a count of points")]
fn clue(one: &Judged, change: f64, elsewhere: f64) -> Option<Clue> {
    let (service, _, metric, attributes, _) = &one.key;
    let mechanism = mechanism(metric, &one.key.3, &one.key.4);
    let worse = mechanism == Mechanism::Level || change >= 0.0;
    let own = if change > 0.0 { one.reach.0 } else { one.reach.1 };
    let points = one.points as f64;
    let reach = ((own * points + elsewhere * PRIOR_POINTS) / (points + PRIOR_POINTS)).max(SMALLEST_REACH);
    let beyond = (change.abs() / reach - OUTSIDE).max(0.0);
    let far = STRONGEST * beyond / (beyond + 1.0);
    // Within the range, a long past still tells how rare a level is. That alone is no suspicion, but
    // it counts when those who call the service see it, too.
    let rarity = if one.points >= LONG_PAST && change >= 0.0 && is_symptom(mechanism) {
        ((points + 1.0) / (one.above as f64 + 1.0)).ln() - COMMON
    } else {
        0.0
    };
    let weight = far.max(rarity.min(RARE));
    if !worse || weight <= 0.0 {
        return None;
    }
    let factor = match mechanism {
        Mechanism::Pool | Mechanism::FailureMetric => 1.0,
        Mechanism::Resource => 0.9,
        // How long a service's own calls take is first of all told by those whom it calls.
        Mechanism::SlowMetric if metric.to_ascii_lowercase().contains("client") => 0.3,
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
    // The odds of a chance excursion fall slowly: a few hundred series are looked at.
    let known = points / (points + PRIOR_POINTS / 4.0);
    Some(Clue {
        service: service.clone(),
        operation: None,
        mechanism,
        weight: weight * factor * known * one.coverage,
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
