//! Realistic telemetry in which nothing is wrong: daily and weekly rhythm, bursts, heavy tails, errors that
//! come in clusters, deploys that shift things a little. Made of ticks and sealed windows, as the judge gets
//! them; equal seeds give equal telemetry.

use barograph::aggregate::{Cell, Level, Requests, Total};
use barograph::journal::Cut;
use barograph::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanKind, Timestamp, WindowId};
use barograph::sketch::{Histogram, SCALE};
use barograph::window::{Registry, SealedWindow, Tick};
use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::sync::Arc;

/// A Monday.
pub const START: u64 = 1_704_067_200;
const DAY_S: f64 = 86_400.0;
/// SDKs send spans in batches of so many seconds.
pub const BATCH_S: u64 = 5;
/// A window is sealed so many seconds after its end.
const SEALED_AFTER_S: u64 = 15;

/// Normal variates are drawn from a table: the telemetry must cost less than the judge.
struct Random {
    uniform: fastrand::Rng,
    normals: Vec<f64>,
}

impl Random {
    fn new(seed: u64) -> Self {
        let mut uniform = fastrand::Rng::with_seed(seed);
        let normals = (0..8_192)
            .map(|_| {
                let (a, b) = (uniform.f64().max(1e-12), uniform.f64());
                (-2.0 * a.ln()).sqrt() * (TAU * b).cos()
            })
            .collect();
        Self { uniform, normals }
    }

    fn normal(&mut self) -> f64 {
        self.normals[self.uniform.usize(..self.normals.len())]
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform.f64()
    }

    /// Evenly on a logarithmic scale.
    fn magnitude(&mut self, low: f64, high: f64) -> f64 {
        self.between(low.ln(), high.ln()).exp()
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.uniform.f64() < probability
    }

    fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let (limit, mut product, mut n) = ((-mean).exp(), self.uniform.f64(), 0);
        while product > limit {
            product *= self.uniform.f64();
            n += 1;
        }
        n
    }
}

/// Noise that forgets itself over minutes.
#[derive(Clone, Copy, Default)]
struct Drift {
    now: f64,
    spread: f64,
    memory_s: f64,
}

impl Drift {
    fn step(&mut self, elapsed_s: f64, random: &mut Random) -> f64 {
        let keep = (-elapsed_s / self.memory_s).exp();
        self.now = self.now * keep + self.spread * (1.0 - keep * keep).sqrt() * random.normal();
        self.now
    }
}

struct Operation {
    name: String,
    id: SeriesId,
    entry: bool,
    rate: f64,
    errors: f64,
    /// Failed requests that come together, on average.
    cluster: f64,
    errors_drift: Drift,
    /// Binary logarithm of the median duration in nanoseconds, and its spread.
    median: f64,
    spread: f64,
    slowness: Drift,
    /// Share of requests in a Pareto tail, and the tail's index.
    tail: f64,
    index: f64,
}

enum Shape {
    /// Follows the load: a share, or a size.
    Load { base: f64, share: f64 },
    /// Fills and is emptied, as a heap is.
    Saw { period_s: f64 },
    /// Mostly low, with a heavy tail.
    Queue,
    /// A counter's growth.
    Counter { rate: f64 },
}

struct Metric {
    id: SeriesId,
    shape: Shape,
    scale: f64,
    drift: Drift,
    every_s: u64,
    offset_s: u64,
}

struct Service {
    name: String,
    offset_s: u64,
    /// Height of the daily rhythm, its hour, and what is left at weekends.
    height: f64,
    hour: f64,
    weekend: f64,
    load: Drift,
    burst: f64,
    burst_until_s: u64,
    operations: Vec<Operation>,
    metrics: Vec<Metric>,
}

/// The telemetry of many services.
pub struct Calm {
    random: Random,
    services: Vec<Service>,
    pub registry: Registry,
    pub keys: Vec<(SeriesId, Arc<SeriesKey>)>,
    windows: BTreeMap<WindowId, BTreeMap<SeriesId, u64>>,
    second: u64,
    /// Seconds between two batches of a service's spans.
    batch_s: u64,
}

impl Calm {
    pub fn new(seed: u64, series: usize) -> Self {
        let mut calm = Self {
            random: Random::new(seed),
            services: Vec::new(),
            registry: Registry::default(),
            keys: Vec::new(),
            windows: BTreeMap::new(),
            second: 0,
            batch_s: BATCH_S,
        };
        while calm.keys.len() < series {
            calm.add_service(series);
        }
        calm
    }

    fn name(&mut self, service: &str, operation: &str, kind: SpanKind, signal: Signal) -> SeriesId {
        let key = SeriesKey {
            service: ServiceKey::named(service),
            signal,
            operation: operation.into(),
            kind,
            entry: kind == SpanKind::Server,
            unit: "".into(),
            attributes: Vec::new(),
        };
        let (id, key) = (key.id(), Arc::new(key));
        self.registry.add(id, key.clone(), 0);
        self.keys.push((id, key));
        id
    }

    fn add_service(&mut self, series: usize) {
        let name = format!("service-{}", self.services.len());
        let (entries, calls) = (1 + self.random.uniform.usize(..3), self.random.uniform.usize(..2));
        let metrics = 2 + self.random.uniform.usize(..5);
        let rate = self.random.magnitude(0.02, 8.0);
        let mut operations = Vec::new();
        for at in 0..(entries + calls).min(series - self.keys.len()) {
            let kind = if at < entries { SpanKind::Server } else { SpanKind::Client };
            let operation = format!("GET /{at}");
            let id = self.name(&name, &operation, kind, Signal::Traces);
            let random = &mut self.random;
            operations.push(Operation {
                name: operation,
                id,
                entry: kind == SpanKind::Server,
                rate: rate * random.magnitude(0.1, 1.0),
                errors: random.magnitude(1e-4, 1e-2),
                cluster: if random.chance(0.3) { random.between(1.5, 3.0) } else { 1.0 },
                errors_drift: Drift { now: 0.0, spread: random.between(0.1, 0.4), memory_s: 600.0 },
                median: random.magnitude(1e6, 3e8).log2(),
                spread: random.between(0.4, 1.0),
                slowness: Drift { now: 0.0, spread: random.between(0.02, 0.12), memory_s: 900.0 },
                tail: random.between(0.0, 0.01),
                index: random.between(1.5, 3.0),
            });
        }
        let mut gauges = Vec::new();
        for at in 0..metrics.min(series - self.keys.len()) {
            let id = self.name(&name, &format!("metric.{at}"), SpanKind::Unspecified, Signal::Metrics);
            let random = &mut self.random;
            let shape = match at % 4 {
                0 => Shape::Load { base: random.between(0.05, 0.4), share: random.between(0.05, 0.5) },
                1 => Shape::Saw { period_s: random.magnitude(120.0, 7_200.0) },
                2 => Shape::Queue,
                _ => Shape::Counter { rate: random.magnitude(0.1, 1_000.0) },
            };
            let every_s = [10, 15, 30, 60][random.uniform.usize(..4)];
            gauges.push(Metric {
                id,
                shape,
                scale: random.magnitude(1.0, 1e9),
                drift: Drift { now: 0.0, spread: random.between(0.02, 0.2), memory_s: 900.0 },
                every_s,
                offset_s: random.uniform.u64(..every_s),
            });
        }
        let random = &mut self.random;
        self.services.push(Service {
            name,
            offset_s: random.uniform.u64(..BATCH_S),
            height: random.between(0.0, 0.8),
            hour: random.between(0.0, 24.0),
            weekend: random.between(0.4, 1.1),
            load: Drift { now: 0.0, spread: random.between(0.05, 0.2), memory_s: 600.0 },
            burst: 1.0,
            burst_until_s: 0,
            operations,
            metrics: gauges,
        });
    }

    /// The same series, each of which ticks every ten seconds, and never without a request.
    pub fn in_step(mut self) -> Self {
        self.batch_s = 10;
        for (at, service) in (0..).zip(&mut self.services) {
            service.offset_s = at % 10;
            for operation in &mut service.operations {
                operation.rate = operation.rate.max(2.0);
            }
            for metric in &mut service.metrics {
                (metric.every_s, metric.offset_s) = (10, at % 10);
            }
        }
        self
    }

    /// What a signal of a service truly is like.
    pub fn truth(&self, service: &str, signal: &str) -> String {
        let Some(of) = self.services.iter().find(|of| of.name == service) else { return String::new() };
        let operation = of.operations.iter().find(|operation| operation.name == signal);
        operation.map_or_else(
            || format!("burst {:.1}, load {:.2}, height {:.2}", of.burst, of.load.now.exp(), of.height),
            |operation| {
                format!(
                    "rate {:.3}, errors {:.5}, clusters of {:.1}, wandering {:.2} now {:.2}, slowness {:.2}",
                    operation.rate,
                    operation.errors,
                    operation.cluster,
                    operation.errors_drift.spread,
                    operation.errors_drift.now.exp(),
                    operation.slowness.spread
                )
            },
        )
    }

    /// What arrives with the next second, and the windows sealed with it.
    pub fn next(&mut self) -> (Tick, Vec<Arc<SealedWindow>>) {
        let second = self.second;
        self.second += 1;
        let number = START + second + 1;
        let cut = Cut { number, arrived: Timestamp::from_secs(number), ..Cut::default() };
        let window = WindowId::of(Timestamp::from_secs(START + second));
        let mut tick = Tick { cut, ..Tick::default() };
        let Self { random, services, windows, batch_s, .. } = self;
        let batch_s = *batch_s;
        for service in services {
            if second % batch_s == service.offset_s {
                let load = service.load(second, batch_s, random);
                service.deploy(batch_s, random);
                for operation in &mut service.operations {
                    let Some(cell) = operation.batch(load, second, batch_s, random) else { continue };
                    if operation.entry {
                        *windows.entry(window).or_default().entry(operation.id).or_default() += cell.seen;
                    }
                    tick.changed.push((operation.id, window, Cell::Requests(Box::new(cell))));
                }
            }
            for metric in &mut service.metrics {
                if second % metric.every_s == metric.offset_s {
                    let load = service.height.mul_add(rhythm(second, service.hour), 1.0);
                    tick.changed.push((metric.id, window, metric.point(load, second, random)));
                }
            }
        }
        tick.changed.sort_by_key(|(id, window, _)| (*id, *window));
        let mut sealed = Vec::new();
        if number % 10 == 5 && second > SEALED_AFTER_S + 10 {
            let id = WindowId::of(Timestamp::from_secs(number - SEALED_AFTER_S - 10));
            let cells = self.windows.remove(&id).unwrap_or_default().into_iter();
            let cells = cells
                .map(|(id, seen)| (id, Cell::Requests(Box::new(Requests { seen, ..Requests::default() }))))
                .collect();
            sealed.push(Arc::new(SealedWindow { id, sealed: cut, cells, ..SealedWindow::default() }));
        }
        (tick, sealed)
    }
}

fn rhythm(second: u64, hour: f64) -> f64 {
    (TAU * (second as f64 / DAY_S - hour / 24.0)).sin()
}

impl Service {
    /// How much comes now, relative to the mean.
    fn load(&mut self, second: u64, batch_s: u64, random: &mut Random) -> f64 {
        if second >= self.burst_until_s {
            self.burst = 1.0;
            // Four bursts a day.
            if random.chance(4.0 * batch_s as f64 / DAY_S) {
                self.burst = random.between(1.3, 3.0);
                self.burst_until_s = second + random.uniform.u64(30..600);
            }
        }
        // People go into the weekend, and come back from it, within four hours around midnight.
        let day = second as f64 / DAY_S % 7.0;
        let passed = |midnight: f64| ((day - midnight) * 6.0 + 0.5).clamp(0.0, 1.0);
        let weekend = passed(5.0) - passed(7.0) + 1.0 - passed(0.0);
        let daily = self.height.mul_add(rhythm(second, self.hour), 1.0);
        let drift = self.load.step(batch_s as f64, random).exp();
        daily * drift * self.burst * (1.0 + weekend * (self.weekend - 1.0))
    }

    /// Once in two days, a new version: things shift a little, within what nobody would be woken for.
    fn deploy(&mut self, batch_s: u64, random: &mut Random) {
        if !random.chance(0.5 * batch_s as f64 / DAY_S) {
            return;
        }
        for operation in &mut self.operations {
            operation.median += 0.12 * random.normal().clamp(-1.5, 1.5);
            operation.errors = (operation.errors * (0.2 * random.normal()).exp()).clamp(5e-5, 2e-2);
        }
        for metric in &mut self.metrics {
            metric.scale *= (0.1 * random.normal()).exp();
        }
    }
}

impl Operation {
    fn batch(&mut self, load: f64, second: u64, batch_s: u64, random: &mut Random) -> Option<Requests> {
        let slowness = self.slowness.step(batch_s as f64, random);
        let failing = self.errors * self.errors_drift.step(batch_s as f64, random).exp();
        let seen = random.poisson(self.rate * load * batch_s as f64);
        if seen == 0 {
            return None;
        }
        let mut errors = 0;
        for _ in 0..random.poisson(seen as f64 * failing / self.cluster) {
            errors += 1;
            while random.chance(1.0 - 1.0 / self.cluster) {
                errors += 1;
            }
        }
        let scale = f64::from(1u32 << SCALE);
        let (mut sum, mut buckets) = (0.0, Vec::with_capacity(seen.min(64) as usize));
        for _ in 0..seen {
            let mut at = self.median + slowness + self.spread * random.normal();
            if random.chance(self.tail) {
                at -= random.uniform.f64().max(1e-9).log2() / self.index;
            }
            sum += at.exp2();
            buckets.push((at * scale) as i32);
        }
        buckets.sort_unstable();
        let mut counted: Vec<(i32, u64)> = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            match counted.last_mut() {
                Some((last, count)) if *last == bucket => *count += 1,
                _ => counted.push((bucket, 1)),
            }
        }
        Some(Requests {
            seen,
            errors: errors.min(seen),
            sum_ns: sum as u64,
            latency: Histogram::from_sorted(SCALE, 0, &counted, &[]),
            first: Timestamp::from_secs(START + (second + 1).saturating_sub(batch_s)),
            last: Timestamp::from_secs(START + second),
            ..Requests::default()
        })
    }
}

impl Metric {
    fn point(&mut self, load: f64, second: u64, random: &mut Random) -> Cell {
        let drift = self.drift.step(self.every_s as f64, random);
        let value = match self.shape {
            Shape::Load { base, share } => base + share * load * drift.exp() + 0.01 * random.normal(),
            Shape::Saw { period_s } => {
                0.3 + 0.5 * (second as f64 / period_s).fract() + 0.1 * drift + 0.01 * random.normal()
            }
            Shape::Queue => (3.0 * load * random.uniform.f64().max(1e-9).powf(-0.4) - 3.0).floor(),
            Shape::Counter { rate } => {
                let delta = random.poisson(rate * load * drift.exp() * self.every_s as f64) as f64;
                return Cell::Total(Total { delta, points: 1 });
            }
        };
        Cell::Level(Level::of(self.scale * value, Timestamp::from_secs(START + second)))
    }
}
