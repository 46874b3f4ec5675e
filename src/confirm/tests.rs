//! The judge against simulated services: faults are found in time, and once; health is left alone.

use super::*;
use crate::aggregate::{Cell, Facet, FacetKey, IndicatorId, Level, Requests, SecondCount};
use crate::detect::{self, Detectors, Symptom};
use crate::journal::Cut;
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanKind, Timestamp, WindowId};
use crate::slo::{self, Budgets};
use crate::window::{CallCount, Edge, EdgeKey, Node, Registry, SealedWindow, Tick, Topology};
use std::collections::BTreeMap;
use std::sync::Arc;

mod burns;
mod callers;
mod first_start;
mod told;

const START: u64 = 1_700_000_000;

#[derive(Clone, Debug)]
struct Sim {
    id: SeriesId,
    key: Arc<SeriesKey>,
    rate: f64,
    errors: f64,
    /// Median in milliseconds, and the spread of its logarithm.
    median_ms: f64,
    sigma: f64,
    /// Whether spans arrive in batches of five seconds, as SDKs send them.
    batched: u64,
    /// Runs every so many seconds instead of at random.
    period_s: Option<f64>,
    next_run: f64,
    waiting: Vec<(u64, Requests)>,
}

struct World {
    judge: Judge,
    registry: Registry,
    topology: Topology,
    series: Vec<Sim>,
    gauges: Vec<(SeriesId, f64)>,
    /// What a series' requests call: its number, the server, the share that fails.
    calls: Vec<(usize, Node, f64)>,
    random: fastrand::Rng,
    second: u64,
    /// What arrives with each cut of where services run.
    facets: Vec<(Arc<FacetKey>, Facet)>,
    windows: BTreeMap<WindowId, BTreeMap<SeriesId, Cell>>,
    anomalies: BTreeMap<AnomalyId, Anomaly>,
    /// (anomaly, second from the start, state)
    log: Vec<(AnomalyId, u64, AnomalyState)>,
}

fn judge() -> Judge {
    Judge::new(
        Budgets::new(slo::Config::default(), Vec::new()),
        Detectors::new(detect::Config::default(), false),
        Confirm::new(Config::default()),
    )
}

fn key(service: &str, operation: &str, kind: SpanKind, entry: bool) -> SeriesKey {
    SeriesKey {
        service: ServiceKey::named(service),
        signal: Signal::Traces,
        operation: operation.into(),
        kind,
        entry,
        unit: "".into(),
        attributes: Vec::new(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            judge: judge(),
            registry: Registry::default(),
            topology: Topology::default(),
            series: Vec::new(),
            gauges: Vec::new(),
            calls: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            second: 0,
            facets: Vec::new(),
            windows: BTreeMap::new(),
            anomalies: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn add(&mut self, key: SeriesKey, rate: f64) -> usize {
        let (id, key) = (key.id(), Arc::new(key));
        self.registry.add(id, key.clone(), 0);
        self.series.push(Sim {
            id,
            key,
            rate,
            errors: 0.002,
            median_ms: 20.0,
            sigma: 0.5,
            batched: 1,
            period_s: None,
            next_run: 3.0,
            waiting: Vec::new(),
        });
        self.series.len() - 1
    }

    fn serve(&mut self, service: &str, rate: f64) -> usize {
        self.add(key(service, "GET /", SpanKind::Server, true), rate)
    }

    fn call(&mut self, client: &str, server: &str) {
        let key = EdgeKey {
            client: ServiceKey::named(client),
            server: Node::Service(ServiceKey::named(server)),
            kind: SpanKind::Client,
        };
        self.topology.edges.push(Edge { key: Arc::new(key), requests: 1, errors: 0 });
    }

    fn poisson(&mut self, mean: f64) -> u64 {
        let (limit, mut product, mut n) = ((-mean).exp(), self.random.f64(), 0);
        while product > limit && n < 10_000 {
            product *= self.random.f64();
            n += 1;
        }
        n
    }

    fn normal(&mut self) -> f64 {
        let (a, b) = (self.random.f64().max(1e-12), self.random.f64());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    fn requests(&mut self, at: usize, n: u64, second: u64) -> Requests {
        let (errors, median_ms, sigma) =
            (self.series[at].errors, self.series[at].median_ms, self.series[at].sigma);
        let mut cell = Requests { seen: n, ..Requests::default() };
        for _ in 0..n {
            cell.errors += u64::from(self.random.f64() < errors);
            let ns = median_ms * 1e6 * (sigma * self.normal()).exp();
            cell.latency.record(ns);
            cell.sum_ns += ns as u64;
        }
        cell.first = Timestamp((START + second) * 1_000_000_000 + 1_000_000);
        cell.last = Timestamp((START + second) * 1_000_000_000 + 900_000_000);
        cell
    }

    /// One second passes: what happened in it arrives with the cut at its end.
    fn pass(&mut self) {
        let second = self.second;
        self.second += 1;
        let cut = Cut {
            number: START + second + 1,
            arrived: Timestamp::from_secs(START + second + 1),
            ..Cut::default()
        };
        let mut tick = Tick { cut, facets: self.facets.clone(), ..Tick::default() };
        let mut arrived: BTreeMap<(SeriesId, WindowId), Cell> = BTreeMap::new();
        for at in 0..self.series.len() {
            let n = match self.series[at].period_s {
                Some(period) => {
                    let runs = self.series[at].next_run < (second + 1) as f64;
                    if runs {
                        let jitter = 0.02 * period * self.random.f64();
                        self.series[at].next_run += period + jitter - 0.01 * period;
                    }
                    u64::from(runs && self.series[at].rate > 0.0)
                }
                None => {
                    let rate = self.series[at].rate;
                    self.poisson(rate)
                }
            };
            for (_, server, failing) in self.calls.clone().iter().filter(|(of, ..)| *of == at && n > 0) {
                let client = self.series[at].key.service.clone();
                let key = EdgeKey { client, server: server.clone(), kind: SpanKind::Client };
                let errors = (0..n).filter(|_| self.random.f64() < *failing).count() as u64;
                tick.calls.push((Arc::new(key), CallCount { requests: n, errors }));
            }
            if n > 0 {
                let cell = self.requests(at, n, second);
                self.series[at].waiting.push((second, cell));
            }
            let sim = &mut self.series[at];
            if (second + at as u64).is_multiple_of(sim.batched) {
                for (when, cell) in sim.waiting.drain(..) {
                    if sim.key.entry {
                        let id = IndicatorId(at as u32 + 1);
                        let count = SecondCount {
                            second: START + when,
                            good: cell.seen - cell.errors,
                            total: cell.seen,
                        };
                        tick.indicators.push((id, count));
                    }
                    let window = WindowId::of(Timestamp::from_secs(START + when));
                    match arrived.get_mut(&(sim.id, window)) {
                        Some(known) => known.merge(&Cell::Requests(Box::new(cell))),
                        None => {
                            arrived.insert((sim.id, window), Cell::Requests(Box::new(cell)));
                        }
                    }
                }
            }
        }
        if second.is_multiple_of(5) {
            for &(id, value) in &self.gauges {
                let at = Timestamp::from_secs(START + second);
                arrived.insert((id, WindowId::of(at)), Cell::Level(Level::of(value, at)));
            }
        }
        for ((id, window), cell) in arrived {
            match self.windows.entry(window).or_default().entry(id) {
                std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().merge(&cell),
                std::collections::btree_map::Entry::Vacant(new) => {
                    new.insert(cell.clone());
                }
            }
            tick.changed.push((id, window, cell));
        }
        let mut sealed = Vec::new();
        if cut.number % 10 == 5 {
            let id = WindowId((cut.number - 15) / 10 - 1);
            let cells = self.windows.remove(&id).unwrap_or_default().into_iter().collect();
            sealed.push(Arc::new(SealedWindow { id, sealed: cut, cells, ..SealedWindow::default() }));
        }
        for anomaly in self.judge.step(&tick, &sealed, &self.registry, &self.topology).anomalies {
            let json = serde_json::to_value(&anomaly).expect("it can be told");
            let read: Anomaly = serde_json::from_value(json).expect("what is told can be read");
            assert_eq!(read.id, anomaly.id);
            self.log.push((anomaly.id.clone(), second + 1, anomaly.state));
            self.anomalies.insert(anomaly.id.clone(), anomaly);
        }
    }

    fn run(&mut self, seconds: u64) {
        (0..seconds).for_each(|_| self.pass());
    }

    /// When the only anomaly was opened, in seconds after `from`.
    fn opened_after(&self, from: u64) -> u64 {
        let told: Vec<_> = self.anomalies.values().map(|a| (&a.title, a.opened_at)).collect();
        assert_eq!(told.len(), 1, "one fault, one anomaly: {told:#?}");
        told[0].1.secs() - START - from
    }

    fn only(&self) -> &Anomaly {
        self.anomalies.values().next().expect("an anomaly")
    }

    fn recovered_after(&self, from: u64) -> u64 {
        let (_, second, _) =
            self.log.iter().find(|(.., state)| *state == AnomalyState::Recovered).expect("it recovers");
        second - from
    }
}

#[test]
fn errors_are_found_in_seconds_and_recover() {
    for seed in 0..5 {
        let mut world = World::new(seed);
        let payment = world.serve("payment", 20.0);
        world.run(40);
        assert!(world.anomalies.is_empty());
        world.series[payment].errors = 0.3;
        world.run(60);
        let delay = world.opened_after(40);
        // That failures come one by one, not in clusters, forty seconds do not tell.
        assert!(delay <= 5, "seed {seed}: after {delay} s");
        let anomaly = world.only();
        assert_eq!((anomaly.symptom, anomaly.severity), (Symptom::Errors, Severity::Page));
        assert_eq!(anomaly.state, AnomalyState::Confirmed);
        let onset = anomaly.onset.latest.secs() - START;
        assert!((38..=43).contains(&onset), "{onset}");
        world.series[payment].errors = 0.002;
        world.run(400);
        let healthy = world.recovered_after(100);
        assert!((20..=40).contains(&healthy), "{healthy}");
        let until = world.only().seen_until(Timestamp::from_secs(START + 500)).secs() - START;
        assert!((100..=120).contains(&until), "it was over after 100 s, not after {until} s");
        assert_eq!(
            world.anomalies.len(),
            1,
            "no echo: {:#?}",
            world.anomalies.values().map(|a| &a.title).collect::<Vec<_>>()
        );
        assert!(world.only().title.contains("% of `GET /` requests fail"), "{}", world.only().title);
    }
}

#[test]
fn what_is_called_by_the_name_of_what_is_served_hides_nothing() {
    for fails_also in [false, true] {
        let mut world = World::new(4);
        let served = world.add(key("load", "GET", SpanKind::Server, true), 20.0);
        let called = world.add(key("load", "GET", SpanKind::Client, false), 20.0);
        let within = world.add(key("load", "GET", SpanKind::Internal, false), 20.0);
        world.run(200);
        assert!(world.anomalies.is_empty());
        world.series[served].errors = 0.6;
        for at in [called, within] {
            world.series[at].errors = if fails_also { 0.6 } else { 0.002 };
        }
        world.run(30);
        let delay = world.opened_after(200);
        assert!(delay <= 5, "after {delay} s");
        let anomaly = world.only();
        assert_eq!((anomaly.symptom, anomaly.severity), (Symptom::Errors, Severity::Page));
    }
}

#[test]
fn slowness_is_found_in_seconds_and_recovers() {
    for (seed, batched) in [(1, 1), (2, 5), (3, 5)] {
        let mut world = World::new(seed);
        let payment = world.serve("payment", 10.0);
        world.series[payment].batched = batched;
        world.run(35);
        world.series[payment].median_ms *= 5.0;
        world.run(60);
        let delay = world.opened_after(35);
        assert!(delay <= 3 + 2 * batched, "seed {seed}: after {delay} s");
        assert_eq!(world.only().symptom, Symptom::Latency);
        assert!(world.only().members[0].observed > 60e6, "{:?}", world.only().members);
        world.series[payment].median_ms /= 5.0;
        world.run(300);
        let healthy = world.recovered_after(95);
        assert!((20..=45).contains(&healthy), "{healthy}");
        assert_eq!(world.anomalies.len(), 1);
    }
}

#[test]
fn lost_traffic_is_found_on_sealed_windows_and_recovers() {
    for (seed, learn) in [(1, 40), (2, 47), (3, 300)] {
        let mut world = World::new(seed);
        let names = ["frontend", "cart", "shipping"];
        let all = names.map(|name| world.serve(name, 20.0));
        world.call("frontend", "cart");
        world.call("cart", "shipping");
        world.run(learn);
        all.iter().for_each(|&at| world.series[at].rate = 3.0);
        world.run(80);
        let delay = world.opened_after(learn);
        assert!(delay <= 38, "seed {seed}: after {delay} s");
        assert_eq!((world.only().symptom, &*world.only().service.name), (Symptom::TrafficDrop, "frontend"));
        let expected = world.only().members[0].expected;
        assert!(expected.low > 0.0 && expected.high.is_infinite(), "no traffic is too much: {expected:?}");
        let told = serde_json::to_value(expected).unwrap();
        assert!(told["high"].is_null(), "an open end is told as none: {told}");
        assert_eq!(world.only().severity, Severity::Page);
        all.iter().for_each(|&at| world.series[at].rate = 20.0);
        world.run(200);
        assert!(world.recovered_after(learn + 80) <= 60);
        assert_eq!(world.anomalies.len(), 1);
    }
}

#[test]
fn a_missed_job_is_found_after_its_grace_and_ends_with_the_next_run() {
    for period in [5.0, 8.0, 10.0] {
        let mut world = World::new(7);
        world.serve("frontend", 5.0);
        let job = world.add(key("report", "nightly export", SpanKind::Internal, true), 1.0);
        world.series[job].period_s = Some(period);
        let learn = if period > 9.0 { 45 } else { 35 };
        world.run(learn);
        assert!(world.anomalies.is_empty());
        world.series[job].rate = 0.0;
        world.run(70);
        let delay = world.opened_after(learn);
        let grace_ends = (1.25 * period).max(period + 3.0) as u64 + 1;
        assert!(delay <= grace_ends + 26, "period {period}: after {delay} s");
        assert_eq!((world.only().symptom, world.only().severity), (Symptom::MissedJob, Severity::Page));
        world.series[job].rate = 1.0;
        world.run(60);
        assert!(world.recovered_after(learn + 70) <= period as u64 + 30);
        assert_eq!(world.anomalies.len(), 1);
    }
}

#[test]
fn one_fault_seen_by_five_services_is_one_anomaly_of_the_deepest() {
    for seed in 0..4 {
        let mut world = World::new(seed);
        let names = ["frontend", "cart", "order", "payment", "ledger"];
        let all = names.map(|name| world.serve(name, 15.0));
        names.windows(2).for_each(|pair| world.call(pair[0], pair[1]));
        all.iter().for_each(|&at| world.series[at].batched = 5);
        world.run(45);
        all.iter().for_each(|&at| {
            world.series[at].errors = 0.25;
            world.series[at].median_ms *= 4.0;
        });
        world.run(50);
        assert!(world.opened_after(45) <= 10);
        let anomaly = world.only();
        let mut services: Vec<_> = anomaly.members.iter().map(|member| &*member.service.name).collect();
        services.sort_unstable();
        services.dedup();
        assert_eq!(services.len(), 5, "{services:?}");
        all.iter().for_each(|&at| {
            world.series[at].errors = 0.002;
            world.series[at].median_ms /= 4.0;
        });
        world.run(300);
        assert_eq!(world.anomalies.len(), 1);
        assert!(world.recovered_after(95) <= 60);
    }
}

#[test]
fn a_full_pool_is_found() {
    let mut world = World::new(3);
    let gauge = |name: &str, state: Option<&str>| {
        let mut attributes: Vec<(Arc<str>, Arc<str>)> =
            vec![("db.client.connection.pool.name".into(), "main".into())];
        attributes.extend(state.map(|state| ("db.client.connection.state".into(), state.into())));
        SeriesKey {
            signal: Signal::Metrics,
            kind: SpanKind::Unspecified,
            entry: false,
            unit: "{connection}".into(),
            attributes,
            ..key("cart", name, SpanKind::Unspecified, false)
        }
    };
    let cart = world.serve("cart", 20.0);
    let used = gauge("db.client.connection.count", Some("used"));
    let max = gauge("db.client.connection.max", None);
    for (key, value) in [(used, 6.0), (max, 20.0)] {
        world.gauges.push((key.id(), value));
        world.registry.add(key.id(), Arc::new(key), 0);
    }
    for n in 0..40 {
        world.gauges[0].1 = 5.0 + f64::from(n % 3);
        world.pass();
    }
    assert!(world.anomalies.is_empty());
    world.gauges[0].1 = 20.0;
    world.series[cart].median_ms *= 6.0;
    world.run(40);
    assert!(world.opened_after(40) <= 5);
    let symptoms: Vec<Symptom> = world.only().members.iter().map(|member| member.symptom).collect();
    assert!(symptoms.contains(&Symptom::Saturation) && symptoms.contains(&Symptom::Latency), "{symptoms:?}");
}

#[test]
fn health_is_left_alone() {
    let mut world = World::new(11);
    let mut random = fastrand::Rng::with_seed(5);
    for service in 0..40 {
        for operation in 0..3 {
            let rate = [0.05, 0.5, 3.0, 20.0][random.usize(0..4)];
            let at = world
                .add(key(&format!("s{service}"), &format!("o{operation}"), SpanKind::Server, true), rate);
            let sim = &mut world.series[at];
            sim.errors = [0.0, 0.001, 0.02][random.usize(0..3)];
            sim.median_ms = 5.0 + 100.0 * random.f64();
            sim.sigma = 0.2 + random.f64();
            sim.batched = [1, 5][random.usize(0..2)];
        }
    }
    // Traffic ramps up at the start.
    let rates: Vec<f64> = world.series.iter().map(|sim| sim.rate).collect();
    for second in 0..3_600u32 {
        let ramp = (f64::from(second) / 30.0).min(1.0);
        let wave = 1.0 + 0.1 * (f64::from(second) / 300.0).sin();
        world.series.iter_mut().zip(&rates).for_each(|(sim, rate)| sim.rate = rate * ramp * wave);
        world.pass();
    }
    let told: Vec<_> = world.anomalies.values().map(|a| (&a.title, a.severity)).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn a_restart_changes_nothing() {
    let mut world = World::new(2);
    let payment = world.serve("payment", 20.0);
    let job = world.add(key("report", "export", SpanKind::Internal, true), 1.0);
    world.series[job].period_s = Some(6.0);
    world.run(60);
    world.series[payment].errors = 0.3;
    world.run(10);
    let (state, pieces) = (world.judge.state(), world.judge.budgets.unsaved());
    let mut again = judge();
    again.restore(&state, &pieces.put).expect("its own state");
    assert_eq!(again.confirm.state(), world.judge.confirm.state());
    assert_eq!(again.changes.state(), world.judge.changes.state());
    assert_eq!(again.budgets.state(), world.judge.budgets.state());
    world.judge = again;
    let open: Vec<_> = world.anomalies.keys().cloned().collect();
    world.run(60);
    assert_eq!(world.anomalies.keys().cloned().collect::<Vec<_>>(), open, "it goes on as the same one");
    assert!(world.judge.restore(b"nonsense", &[]).is_err());
}

#[test]
fn an_empty_tick_costs_next_to_nothing() {
    let mut world = World::new(2);
    (0..20).for_each(|n| {
        world.serve(&format!("s{n}"), 1.0);
    });
    world.run(20);
    world.series.clear();
    world.run(30);
    let started = std::time::Instant::now();
    let ticks = 20_000u64;
    for n in 0..ticks {
        let number = START + 51 + n;
        let cut = Cut { number, arrived: Timestamp::from_secs(number), ..Cut::default() };
        world.judge.step(&Tick { cut, ..Tick::default() }, &[], &world.registry, &world.topology);
    }
    let each = started.elapsed() / u32::try_from(ticks).expect("few");
    assert!(each.as_micros() < 20, "{each:?} in a build without optimisation");
}

#[test]
fn what_is_exempt_is_counted_and_told_if_it_is_still_wrong_at_the_end() {
    let until = |second: u64| {
        let until = Timestamp::from_secs(START + second);
        let line = format!("service=payment symptom=errors until={until} because=known, ticket 17");
        Confirm::new(Config { exemptions: vec![line], ..Config::default() })
    };
    for (end, still_wrong) in [(400, false), (90, true)] {
        let mut world = World::new(3);
        let payment = world.serve("payment", 20.0);
        world.judge.confirm = until(end);
        world.run(40);
        world.series[payment].errors = 0.3;
        world.run(40);
        assert_eq!(world.anomalies.len(), 1, "it is counted and shown");
        assert_eq!(world.only().suppressed_by.as_deref(), Some("known, ticket 17"));
        assert_eq!(world.only().fired_at, None, "nobody is told");
        world.run(20);
        assert_eq!(world.only().fired_at.is_some(), still_wrong);
        world.series[payment].errors = 0.0;
        world.run(120);
        let ended = if still_wrong { AnomalyState::Recovered } else { AnomalyState::Suppressed };
        assert_eq!(world.only().state, ended);
    }
}

#[test]
fn an_exemption_does_not_hide_what_is_elsewhere() {
    let mut world = World::new(4);
    world.serve("payment", 20.0);
    let cart = world.serve("cart", 20.0);
    let line = "service=payment because=known".to_owned();
    world.judge.confirm = Confirm::new(Config { exemptions: vec![line], ..Config::default() });
    world.run(40);
    world.series[cart].errors = 0.3;
    world.run(30);
    assert!(world.only().fired_at.is_some());
}
