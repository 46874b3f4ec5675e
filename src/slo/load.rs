//! What thousands of objectives cost: time of evaluation, memory, and bytes of a checkpoint.
//!
//! Reduced here to a tenth; `scripts/objectives` runs it whole, optimised.

use super::counts::Counts;
use super::oracle::{MONTH, definition, tick};
use super::{Budgets, Config, Definition, Method};
use crate::aggregate::{Cell, SecondCount};
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanKind, WindowId};
use crate::window::Registry;
use std::sync::Arc;
use std::time::Duration;

const START: u64 = 1_700_000_000;
const OBJECTIVES_OF_A_SERVICE: usize = 10;
const SERIES_OF_AN_OBJECTIVE: usize = 4;

/// Processor time that this thread has had.
fn processor_time() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanoseconds = told.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("its first number"))
}

fn wanted(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// Objectives, and series that change every second.
struct Load {
    budgets: Budgets,
    registry: Registry,
    series: Vec<SeriesId>,
    /// Requests a second of each indicator, and the share that fails.
    traffic: Vec<(f64, f64)>,
    random: fastrand::Rng,
}

impl Load {
    fn new(objectives: usize) -> Self {
        let service = |number: usize| format!("service-{}", number / OBJECTIVES_OF_A_SERVICE);
        let definitions: Vec<Definition> = (0..objectives)
            .map(|number| Definition {
                service: service(number),
                ..definition(&format!("objective-{number}"), 0.999, Method::Occurrences, MONTH)
            })
            .collect();
        let registry = Registry::default();
        let series = (0..objectives * SERIES_OF_AN_OBJECTIVE)
            .map(|number| {
                let key = SeriesKey {
                    service: ServiceKey::named(&service(number / SERIES_OF_AN_OBJECTIVE)),
                    signal: Signal::Traces,
                    operation: format!("GET /{number}").into(),
                    kind: SpanKind::Server,
                    entry: true,
                    unit: "".into(),
                    attributes: Vec::new(),
                };
                let id = key.id();
                registry.add(id, Arc::new(key), 0);
                id
            })
            .collect();
        let mut random = fastrand::Rng::with_seed(8);
        let traffic = (0..objectives)
            // From one in five seconds to two hundred a second; one in fifty has trouble.
            .map(|number| (0.2 * 1_000f64.powf(random.f64()), if number % 50 == 0 { 0.05 } else { 0.000_5 }))
            .collect();
        let budgets = Budgets::new(Config { default: false, ..Config::default() }, definitions);
        Self { budgets, registry, series, traffic, random }
    }

    /// Steps the budgets to a second that brought events of itself and of the two before; how long that took.
    fn step(&mut self, now: u64, seconds: u64) -> Duration {
        let mut tick = tick(now);
        let window = WindowId(now / 10);
        tick.changed = self.series.iter().map(|id| (*id, window, Cell::Requests(Box::default()))).collect();
        for (indicator, &(rate, bad)) in self.budgets.indicators().iter().zip(&self.traffic) {
            for back in 0..3 {
                let mean = rate * seconds as f64 / 3.0;
                let total = (mean * self.random.f64() * 2.0 + self.random.f64()) as u64;
                let failed = (total as f64 * bad + self.random.f64()) as u64;
                if total > 0 {
                    let good = total - failed.min(total);
                    tick.indicators.push((indicator.id, SecondCount { second: now - back, good, total }));
                }
            }
        }
        let begin = processor_time();
        self.budgets.step(&tick, &self.registry);
        processor_time() - begin
    }
}

#[test]
fn thousands_of_objectives_take_less_than_a_fiftieth_of_a_core() {
    let objectives = wanted("BAROGRAPH_OBJECTIVES", 500) as usize;
    let (history, measured) = (wanted("BAROGRAPH_HISTORY_HOURS", 8), wanted("BAROGRAPH_SECONDS", 30));
    let mut load = Load::new(objectives);
    let mut now = START;
    while now < START + history * 3_600 {
        now += 300;
        load.step(now, 300);
    }
    for _ in 0..30 {
        now += 1;
        load.step(now, 1);
    }
    let unsaved = load.budgets.unsaved();
    load.budgets.saved(&unsaved);
    let (mut spent, mut longest, mut checkpoints) = (Duration::ZERO, Duration::ZERO, Vec::new());
    for second in 1..=measured {
        now += 1;
        let took = load.step(now, 1);
        (spent, longest) = (spent + took, longest.max(took));
        if second % 30 == 0 {
            let begin = processor_time();
            let (head, pieces) = (load.budgets.head().len(), load.budgets.unsaved());
            let written = head + pieces.put.iter().map(|(_, bytes)| bytes.len() + 13).sum::<usize>();
            load.budgets.saved(&pieces);
            checkpoints.push((written, processor_time() - begin));
        }
    }
    assert_eq!(load.budgets.published().load().len(), objectives);
    let share = spent.as_secs_f64() / measured as f64;
    let written = checkpoints.iter().map(|(bytes, _)| bytes).sum::<usize>() / checkpoints.len().max(1);
    let encoding = checkpoints.iter().map(|(_, took)| *took).max().unwrap_or_default();
    let series = objectives * SERIES_OF_AN_OBJECTIVE;
    let memory = load.budgets.counts_bytes() / objectives;
    println!(
        "objectives: {objectives} on {series} series with {history} h of history: evaluation {:.2} % of a core, \
         longest step {longest:.1?}; {memory} bytes of counts each; a checkpoint writes {written} bytes in {encoding:.1?}",
        share * 100.0,
    );
    assert!(share <= 0.02, "{share}");
    assert!(written / objectives < 1_500, "a checkpoint writes {} bytes an objective", written / objectives);
}

#[test]
fn a_whole_history_takes_a_byte_or_two_a_slot() {
    let days = wanted("BAROGRAPH_HISTORY_DAYS", 2);
    for rate in [1.0, 10.0, 100.0] {
        let mut random = fastrand::Rng::with_seed(1);
        let mut counts = Counts::new(30 * 86_400);
        let seconds = days * 86_400;
        for second in START..START + seconds {
            // As many as chance and the hour of the day bring; one in a thousand fails.
            let day = 1.0 + 0.5 * (second as f64 / 86_400.0 * std::f64::consts::TAU).sin();
            let noise: f64 = (0..6).map(|_| random.f64() - 0.5).sum::<f64>() * 1.414;
            let total = (rate * day + noise * (rate * day).sqrt()).round().max(0.0) as u64;
            let bad = (0..total.div_ceil(10)).filter(|_| random.u32(0..100) == 0).count() as u64;
            counts.add(second, second, total - bad.min(total), total);
        }
        let slots = seconds.min(7_200) + seconds.min(345_600) / 10 + seconds / 60;
        let bytes: usize = counts.grains.iter().map(super::grain::Grain::heap_bytes).sum();
        let each = bytes as f64 / slots as f64;
        println!("objectives: {rate} requests a second for {days} days: {bytes} bytes, {each:.2} a slot");
        assert!(each < 3.0, "{rate}: {each} bytes a slot");
    }
}
