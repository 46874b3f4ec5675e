//! Budgets against an exact oracle: plain sums over everything that ever happened.

use super::{
    Adjustment, Budgets, Calendar, Config, Counting, Definition, Method, Origin, Period, Undone, Unit,
    WINDOWS,
};
use crate::aggregate::{Cell, GoodSpans, SecondCount};
use crate::journal::Cut;
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanKind, Timestamp, WindowId};
use crate::window::{Registry, Tick};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn definition(name: &str, target: f64, method: Method, period: Period) -> Definition {
    Definition {
        name: name.into(),
        service: "shop".into(),
        parts: vec![Counting::requests(None, GoodSpans { errors_are_bad: true, ..GoodSpans::default() })],
        some_is_bad: false,
        target,
        method,
        period,
        rules: None,
        composed_of: Vec::new(),
        floor: None,
        users: None,
        origin: Origin::default(),
    }
}

pub(crate) const MONTH: Period = Period::Rolling(Duration::from_secs(30 * 86_400));

/// A service with requests, and a registry that knows it.
pub(super) fn shop() -> (SeriesId, Registry) {
    let key = SeriesKey {
        service: ServiceKey::named("shop"),
        signal: Signal::Traces,
        operation: "GET /".into(),
        kind: SpanKind::Server,
        entry: true,
        unit: "".into(),
        attributes: Vec::new(),
    };
    let (series, registry) = (key.id(), Registry::default());
    registry.add(series, Arc::new(key), 0);
    (series, registry)
}

pub(super) fn tick(second: u64) -> Tick {
    let arrived = Timestamp::from_secs(second);
    Tick { cut: Cut { number: second, arrived, ..Cut::default() }, ..Tick::default() }
}

/// Budgets of the shop after its first request, which no objective counts yet.
pub(super) fn begun(config: &Config, definitions: &[Definition], second: u64) -> (Budgets, Registry) {
    let (series, registry) = shop();
    let mut budgets = Budgets::new(config.clone(), definitions.to_vec());
    let seen = (series, WindowId(second / 10), Cell::Requests(Box::default()));
    budgets.step(&Tick { changed: vec![seen], ..tick(second) }, &registry);
    (budgets, registry)
}

/// The same events for every indicator.
pub(super) fn counted(budgets: &Budgets, second: u64, event: u64, good: u64, total: u64) -> Tick {
    let count = SecondCount { second: event, good, total };
    let indicators = budgets.indicators().iter().map(|indicator| (indicator.id, count)).collect();
    let changed = vec![(shop().0, WindowId(event / 10), Cell::Requests(Box::default()))];
    Tick { changed, indicators, ..tick(second) }
}

struct Oracle {
    /// (second, good, total)
    events: Vec<(u64, u64, u64)>,
    excluded: BTreeMap<String, (u64, u64)>,
}

impl Oracle {
    /// Good and total since a second.
    fn events(&self, now: u64, from: u64) -> (u64, u64) {
        let age = now - from;
        let grain = if age <= 7_200 {
            1
        } else if age <= 345_600 {
            10
        } else {
            60
        };
        let inside = |second: u64| {
            let slot = second / grain;
            // Excluded from within the window on: what lies before its edge is not in it anyway.
            slot >= from / grain
                && !self
                    .excluded
                    .values()
                    // Widened to whole minutes.
                    .map(|&(begin, end)| (begin / 60 * 60, end.div_ceil(60) * 60))
                    .any(|(begin, end)| end > from && slot >= begin.max(from) / grain && slot < end / grain)
        };
        let counted = self.events.iter().filter(|(second, ..)| inside(*second));
        counted.fold((0, 0), |(g, t), (_, good, total)| (g + good, t + total))
    }

    /// Good and total slices since a second, in millionths.
    fn slices(&self, now: u64, from: u64, method: Method) -> (u64, u64) {
        let (slice_s, share) = match method {
            Method::Timeslices { slice_s, share } => (slice_s, Some(share)),
            Method::RatioTimeslices { slice_s } => (slice_s, None),
            Method::Occurrences => panic!("no slices"),
        };
        let mut slices: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (second, good, total) in &self.events {
            let slice = slices.entry(second / slice_s).or_default();
            *slice = (slice.0 + good, slice.1 + total);
        }
        let (mut good, mut all) = (0, 0);
        for (number, (of_good, of_all)) in slices {
            let is_excluded = self.excluded.values().any(|&(begin, end)| {
                let end = end.div_ceil(slice_s) * slice_s;
                end > from && number >= begin.max(from) / slice_s && number < end.min(now) / slice_s
            });
            if number < from / slice_s || number >= now / slice_s || is_excluded || of_all == 0 {
                continue;
            }
            all += 1_000_000;
            good += match share {
                Some(share) if of_good as f64 >= share * of_all as f64 => 1_000_000,
                Some(_) => 0,
                None => of_good * 1_000_000 / of_all,
            };
        }
        (good, all)
    }
}

fn rate((good, total): (u64, u64), target: f64) -> f64 {
    if total == 0 { 0.0 } else { (total - good) as f64 / total as f64 / (1.0 - target) }
}

/// The beginning of a day by the clocks of Berlin.
fn midnight(now: u64) -> u64 {
    let at = jiff::Timestamp::from_second(now as i64).expect("a second");
    let day = at.in_tz("Europe/Berlin").expect("a zone").start_of_day().expect("a day");
    day.timestamp().as_second() as u64
}

#[test]
fn a_thousand_histories_equal_the_oracle() {
    let daily = Calendar {
        from: "2026-01-01T00:00:00".parse().expect("a date"),
        time_zone: "Europe/Berlin".into(),
        unit: Unit::Day,
        count: 1,
    };
    let slices = Method::Timeslices { slice_s: 60, share: 0.95 };
    let ratios = Method::RatioTimeslices { slice_s: 300 };
    let objectives = [
        definition("a-month", 0.99, Method::Occurrences, MONTH),
        definition("b-day", 0.999, Method::Occurrences, Period::Calendar(daily)),
        definition("c-slices", 0.9, slices, MONTH),
        definition("d-ratios", 0.95, ratios, Period::Rolling(Duration::from_secs(86_400))),
    ];
    let config = Config { default: false, ..Config::default() };
    // Clocks are changed in Berlin at one o'clock UTC on these days.
    let changes = [1_774_746_000, 1_792_890_000];
    let (mut compared, mut restarts, mut midnights) = (0u64, 0u64, 0u64);
    for seed in 0..1_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now: u64 = changes[random.usize(0..2)] - random.u64(0..150_000);
        let (mut budgets, registry) = begun(&config, &objectives, now);
        let mut oracle = Oracle { events: Vec::new(), excluded: BTreeMap::new() };
        for step in 0..40 {
            let before = midnight(now);
            now += match random.u64(0..10) {
                0 => random.u64(3_600..60_000),
                1..4 => random.u64(60..3_600),
                _ => random.u64(1..60),
            };
            midnights += u64::from(midnight(now) != before);
            if random.u64(0..10) == 0 {
                // Nobody loses anything over a restart.
                let state = budgets.state();
                budgets = Budgets::new(config.clone(), objectives.to_vec());
                budgets.restore_state(&state).expect("its own state");
                restarts += 1;
            }
            if random.u64(0..8) == 0 {
                let id = random.u64(0..3).to_string();
                let from = now - random.u64(0..20_000);
                let until = from + random.u64(1..8_000);
                let undone = random.bool().then(|| Undone {
                    author: "b".into(),
                    reason: "wrong".into(),
                    at: Timestamp::from_secs(now),
                });
                oracle.excluded.remove(&id);
                if undone.is_none() {
                    oracle.excluded.insert(id.clone(), (from, until));
                }
                budgets.adjust(Adjustment {
                    adjustment: id,
                    slo: String::new(),
                    service: "shop".into(),
                    from: Timestamp::from_secs(from),
                    until: Timestamp::from_secs(until),
                    author: "a".into(),
                    reason: "maintenance".into(),
                    incident: None,
                    told_at: Timestamp::from_secs(now),
                    undone,
                });
            }
            let late = [0, 0, random.u64(0..60), random.u64(0..3_600)][random.usize(0..4)];
            let total = if random.u64(0..4) == 0 { 0 } else { random.u64(1..200) };
            let bad = if random.bool() { 0 } else { random.u64(0..=total) };
            let step_of = if total == 0 {
                tick(now)
            } else {
                oracle.events.push((now - late, total - bad, total));
                counted(&budgets, now, now - late, total - bad, total)
            };
            budgets.step(&step_of, &registry);
            let published = budgets.published().load_full();
            for (budget, of) in published.iter().zip(&objectives) {
                assert_eq!(budget.slo, of.name);
                if budget.published_at != Timestamp::from_secs(now) {
                    continue;
                }
                let sum = |from: u64| match of.method {
                    Method::Occurrences => oracle.events(now, from),
                    method => oracle.slices(now, from, method),
                };
                let begin = match &of.period {
                    Period::Rolling(length) => now - length.as_secs(),
                    Period::Calendar(_) => midnight(now),
                };
                let (good, total) = sum(begin);
                let unit = if of.method == Method::Occurrences { 1 } else { 1_000_000 };
                let at = format!("seed {seed}, step {step}, {}", of.name);
                assert_eq!((budget.good, budget.total), (good / unit, total / unit), "{at}");
                assert_eq!(budget.budget_remaining_ratio, 1.0 - rate((good, total), of.target), "{at}");
                for (window, seconds) in WINDOWS {
                    let burn = budget.burn.iter().find(|(name, _)| *name == window).expect("a window").1;
                    assert_eq!(burn, rate(sum(now - seconds), of.target), "{at}, {window}");
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 80_000 && restarts > 2_000 && midnights > 1_000, "{compared} {restarts} {midnights}");
}
