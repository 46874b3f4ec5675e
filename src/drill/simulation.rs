//! The shop in motion: visitors come, requests run through services, telemetry comes out in the
//! order in which it happens. Time is virtual, so the same code feeds a live demo and a recording.

use super::fault::Fault;
use super::instance::Instance;
use super::meters::{Meters, Pool};
use super::random::Random;
use super::request::Walk;
use super::shop::{self, SERVICES, VISITS};
use crate::model::Timestamp;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

/// How often instances export their metrics.
pub const METRICS_PERIOD: Duration = Duration::from_secs(2);
/// Time between the starts of the two instances of a rollout.
const ROLLOUT_STEP: Duration = Duration::from_millis(1_500);

/// A piece of telemetry.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Span(Box<Span>),
    Log(Box<LogRecord>),
    Metrics(Vec<Metric>),
}

/// A piece of telemetry when its instance hands it to its exporter: a span when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    pub at: Timestamp,
    /// Place in `Simulation::instances`.
    pub instance: usize,
    pub item: Item,
    sequence: u64,
}

impl Eq for Emission {}

impl Ord for Emission {
    /// The earliest is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Emission {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What the seed drew.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// Visits a second.
    pub rate: f64,
    /// By service: how much faster or slower than usual it works.
    pub pace: Vec<f64>,
    /// Share of requests that fail for no reason, by service.
    pub natural_failures: Vec<f64>,
    /// The service that the fault hits; "" if there is none.
    pub service: &'static str,
    /// Share of requests that the fault makes fail.
    pub failing: f64,
    /// By how much it slows down what it slows down.
    pub slowdown: f64,
    /// Share of visits that remain in a traffic drop.
    pub remaining: f64,
    /// Time between runs of the job.
    pub job_period: Duration,
    /// How long after the end of learning the fault is injected.
    pub delay: Duration,
}

impl Drawn {
    fn new(fault: Fault, traffic: f64, random: &mut Random) -> Self {
        Self {
            rate: random.between(45.0, 75.0) * traffic,
            pace: SERVICES.iter().map(|_| random.between(0.7, 1.4)).collect(),
            natural_failures: SERVICES.iter().map(|_| random.between(0.000_5, 0.003)).collect(),
            service: random.pick(fault.candidates()).copied().unwrap_or_default(),
            failing: random.between(0.3, 0.5),
            slowdown: random.between(100.0, 220.0),
            remaining: random.between(0.02, 0.08),
            job_period: Duration::from_secs_f64(random.between(4.0, 6.5)),
            delay: Duration::from_secs_f64(random.between(0.5, 4.0)),
        }
    }
}

/// The state that requests run through.
pub struct Simulation {
    pub(super) drawn: Drawn,
    pub(super) fault: Fault,
    /// From when to when the fault is there.
    pub(super) faulty: Option<(Timestamp, Option<Timestamp>)>,
    instances: Vec<Instance>,
    pub(super) meters: Vec<Meters>,
    /// By service and slot: from when on which instance is in it, latest last.
    slots: Vec<Vec<Vec<(Timestamp, usize)>>>,
    /// Requests that wait for a connection, by instance, as of their end of waiting.
    pub(super) waiting: Vec<Vec<Timestamp>>,
    pending: BinaryHeap<Emission>,
    sequence: u64,
    visits: Random,
    jobs: Random,
    levels: Random,
    rollouts: Random,
    next_visit: Timestamp,
    next_job: Timestamp,
    /// Next export of metrics, by instance.
    next_metrics: Vec<Timestamp>,
    now: Timestamp,
}

impl Simulation {
    /// A healthy shop that opens at `start`. The rate of visits is multiplied by `traffic`.
    #[must_use]
    pub fn new(fault: Fault, seed: u64, traffic: f64, start: Timestamp) -> Self {
        let mut random = Random::new(seed);
        let mut rollouts = random.fork();
        let drawn = Drawn::new(fault, traffic, &mut random.fork());
        let mut simulation = Self {
            fault,
            faulty: None,
            instances: Vec::new(),
            meters: Vec::new(),
            slots: SERVICES.iter().map(|service| vec![Vec::new(); service.instances]).collect(),
            waiting: Vec::new(),
            pending: BinaryHeap::new(),
            sequence: 0,
            visits: random.fork(),
            jobs: random.fork(),
            levels: random.fork(),
            rollouts: rollouts.fork(),
            next_visit: start,
            next_job: start.saturating_add(drawn.job_period.mul_f64(rollouts.between(0.1, 0.9))),
            next_metrics: Vec::new(),
            now: start,
            drawn,
        };
        for (number, service) in SERVICES.iter().enumerate() {
            for slot in 0..service.instances {
                simulation.start_instance(number, slot, service.version, start);
            }
        }
        simulation
    }

    #[must_use]
    pub fn drawn(&self) -> &Drawn {
        &self.drawn
    }

    /// Every instance that ever ran; new ones are appended.
    #[must_use]
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    fn start_instance(&mut self, service: usize, slot: usize, version: &str, at: Timestamp) {
        let number = self.instances.len();
        self.instances.push(Instance::new(service, slot, version, &mut self.rollouts));
        self.meters.push(Meters::new(at.ns()));
        self.waiting.push(Vec::new());
        let phase = self.rollouts.between(0.0, 1.0);
        self.next_metrics.push(at.saturating_add(METRICS_PERIOD.mul_f64(phase)));
        if let Some(history) = self.slots.get_mut(service).and_then(|slots| slots.get_mut(slot)) {
            history.push((at, number));
        }
    }

    /// Breaks what the seed drew, from `at` on, which must not lie before what was advanced to.
    pub fn inject(&mut self, at: Timestamp) {
        self.faulty = Some((at, None));
        if self.fault == Fault::BadDeploy {
            self.roll_out(at, next_version);
        }
    }

    /// Repairs it.
    pub fn heal(&mut self, at: Timestamp) {
        if let Some((_, until)) = &mut self.faulty {
            *until = Some(at);
            if self.fault == Fault::BadDeploy {
                self.roll_out(at, str::to_owned);
            }
        }
        if self.next_job < at {
            self.next_job = at;
        }
    }

    fn roll_out(&mut self, at: Timestamp, version: fn(&str) -> String) {
        let Some(number) = shop::service_number(self.drawn.service) else { return };
        let Some(service) = SERVICES.get(number) else { return };
        let version = version(service.version);
        let mut at = at;
        for slot in 0..service.instances {
            self.start_instance(number, slot, &version, at);
            at = at.saturating_add(ROLLOUT_STEP);
        }
    }

    /// Whether the fault hits a service at a time.
    pub(super) fn is_faulty(&self, fault: Fault, service: &str, at: Timestamp) -> bool {
        self.fault == fault
            && self.drawn.service == service
            && self.faulty.is_some_and(|(from, until)| from <= at && until.is_none_or(|until| at < until))
    }

    /// Whether an instance runs the bad version.
    pub(super) fn is_bad_version(&self, instance: usize) -> bool {
        self.fault == Fault::BadDeploy
            && self.instances.get(instance).is_some_and(|instance| {
                let service = instance.description();
                service.name == self.drawn.service && instance.version != service.version
            })
    }

    /// The instance in a slot at a time.
    pub(super) fn instance_at(&self, service: usize, slot: usize, at: Timestamp) -> usize {
        let history =
            self.slots.get(service).and_then(|slots| slots.get(slot)).map_or(&[][..], Vec::as_slice);
        let found = history.iter().rev().find(|(from, _)| *from <= at).or(history.first());
        found.map_or(0, |(_, instance)| *instance)
    }

    fn is_running(&self, instance: usize, at: Timestamp) -> bool {
        self.instances
            .get(instance)
            .is_some_and(|found| self.instance_at(found.service, found.slot, at) == instance)
    }

    pub(super) fn emit(&mut self, at: Timestamp, instance: usize, item: Item) {
        self.sequence += 1;
        self.pending.push(Emission { at, instance, item, sequence: self.sequence });
    }

    /// Lets the time pass up to `until` and hands out what is emitted before it, in order.
    pub fn advance(&mut self, until: Timestamp) -> Vec<Emission> {
        loop {
            let metrics = self.next_metrics.iter().copied().enumerate().min_by_key(|(_, at)| *at);
            let (instance, metrics) = metrics.unwrap_or((0, Timestamp::MAX));
            let next = self.next_visit.min(self.next_job).min(metrics);
            if next >= until {
                break;
            }
            self.now = next;
            if next == self.next_visit {
                self.visit(next);
            } else if next == self.next_job {
                self.job(next);
            } else {
                self.export_metrics(instance, next);
            }
        }
        self.now = until;
        let mut emitted = Vec::new();
        while self.pending.peek().is_some_and(|emission| emission.at < until) {
            emitted.extend(self.pending.pop());
        }
        emitted
    }

    fn visit(&mut self, at: Timestamp) {
        let mut rate = self.drawn.rate;
        if self.is_faulty(Fault::TrafficDrop, shop::FRONTEND, at) {
            rate *= self.drawn.remaining;
        }
        let pause = self.visits.exponential(rate).max(Duration::from_nanos(1));
        self.next_visit = at.saturating_add(pause.min(Duration::from_secs(5)));
        let mut share = self.visits.between(0.0, 1.0);
        let random = self.visits.fork();
        let chosen = VISITS.iter().find(|(_, weight)| {
            share -= weight;
            share < 0.0
        });
        let name = chosen.or(VISITS.last()).map_or("", |(name, _)| name);
        Walk::begin(self, random, name, at);
    }

    fn job(&mut self, at: Timestamp) {
        let jitter = self.jobs.between(0.98, 1.02);
        self.next_job = at.saturating_add(self.drawn.job_period.mul_f64(jitter));
        let random = self.jobs.fork();
        if !self.is_faulty(Fault::MissedJob, shop::JOB, at) {
            Walk::begin(self, random, "nightly report", at);
        }
    }

    fn export_metrics(&mut self, number: usize, at: Timestamp) {
        let running = self.is_running(number, at);
        if let Some(next) = self.next_metrics.get_mut(number) {
            *next = if running { at.saturating_add(METRICS_PERIOD) } else { Timestamp::MAX };
        }
        let (Some(instance), true) = (self.instances.get(number), running) else { return };
        let service = instance.description();
        let down = self.is_faulty(Fault::ServiceDown, service.name, at)
            || self.is_faulty(Fault::DatabaseDown, service.name, at)
            || (self.is_faulty(Fault::HalfDown, service.name, at) && instance.slot == 0);
        if down {
            return;
        }
        let full = self.is_faulty(Fault::SaturatedPool, service.name, at);
        let waiting = self.waiting.get_mut(number).map_or(0, |waiting| {
            waiting.retain(|until| *until > at);
            waiting.len()
        });
        let Some(meters) = self.meters.get(number) else { return };
        let levels = &mut self.levels;
        let mut metrics = meters.counted(at.ns());
        let cpu = levels.between(0.12, 0.22);
        let memory = 180_000_000.0 + levels.between(0.0, 8_000_000.0);
        metrics.push(meters.gauge("process.cpu.utilization", "1", at.ns(), cpu));
        metrics.push(meters.up_down(
            "process.memory.usage",
            "By",
            at.ns(),
            vec![(Vec::new(), memory as i64)],
        ));
        if service.pool > 0 {
            let idle_use = 1.0 + f64::from(service.pool) * levels.between(0.05, 0.3);
            let used = if full { service.pool } else { idle_use as u32 };
            let pending = if full { waiting.max(1) as u32 } else { 0 };
            metrics.extend(meters.pool(at.ns(), Pool { size: service.pool, used, pending }));
        }
        if service.name == shop::DATABASE {
            let backends = levels.between(22.0, 30.0) as i64;
            metrics.push(meters.up_down("postgresql.backends", "1", at.ns(), vec![(Vec::new(), backends)]));
        }
        if service.name == shop::QUEUE {
            let depth = levels.between(0.0, 4.0) as i64;
            metrics.push(meters.up_down(
                "rabbitmq.message.current",
                "{message}",
                at.ns(),
                vec![(Vec::new(), depth)],
            ));
        }
        self.emit(at, number, Item::Metrics(metrics));
    }
}

/// The version after this one: `5.0.7` becomes `5.1.0`.
fn next_version(version: &str) -> String {
    let mut parts = version.split('.');
    let major = parts.next().unwrap_or("1");
    let minor: u64 = parts.next().and_then(|minor| minor.parse().ok()).unwrap_or(0);
    format!("{major}.{}.0", minor.saturating_add(1))
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
