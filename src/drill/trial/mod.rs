//! The shop at virtual time, through all stages of the daemon: what comes of a fault of a service, or of
//! the pipeline between the services and the daemon.

mod pipeline;
mod services;
mod speed;

use super::batch::{Batcher, Request};
use super::fault::Fault;
use super::instance::Instance;
use super::simulation::Simulation;
use crate::app::{Backtest, Bench, Config, admitted};
use crate::confirm::{Anomaly, AnomalyId, AnomalyState, Severity};
use crate::detect::Symptom;
use crate::model::Timestamp;
use crate::store::Stage;
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;

const START: Timestamp = Timestamp::from_secs(1_700_000_000);

fn after(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

/// Whether all cases are tried: it takes minutes. `scripts/release-check` asks for it.
fn is_full() -> bool {
    std::env::var_os("BAROGRAPH_TRIALS").is_some()
}

/// What the pipeline makes of an export that left its instance then: what arrives, and when.
type Pipeline<'a> = &'a mut dyn FnMut(Timestamp, &Instance, Request) -> Vec<(Timestamp, Request)>;

/// Metrics as most exporters send them: each ten seconds, and so late.
fn with_slow_metrics(
    delay: Duration,
    (at, instance, request): (Timestamp, &Instance, Request),
) -> Option<(Timestamp, Request)> {
    if !matches!(request, Request::Metrics(_)) {
        return Some((at, request));
    }
    let phase = instance.description().name.len() as u64 + 2 * instance.slot as u64;
    ((at.secs() / 2) % 5 == phase % 5).then(|| (at.saturating_add(delay), request))
}

struct Trial {
    fault: Fault,
    seed: u64,
    traffic: f64,
    /// Seconds from the start at which the fault begins, at which it ends, and at which the shop closes.
    times: [u64; 3],
}

/// All states of all anomalies, in order.
#[derive(Debug)]
struct Told(Vec<(Timestamp, Anomaly)>);

impl Trial {
    /// Runs the shop and gives its exports to the pipeline. Also tells which service was hit.
    fn run(&self, pipeline: Pipeline<'_>) -> (&'static str, Told) {
        let [from, until, end] = self.times.map(after);
        let mut shop = Simulation::new(self.fault, self.seed, self.traffic, START);
        let service = shop.drawn().service;
        let mut batcher = Batcher::default();
        let mut arrivals = Vec::new();
        let mut now = START;
        while now < end {
            if now == from {
                shop.inject(now);
            }
            if now == until {
                shop.heal(now);
            }
            let next = now.saturating_add(Duration::from_secs(1));
            let emissions = shop.advance(next);
            for outgoing in batcher.pass(shop.instances(), emissions, next) {
                let instance = &shop.instances()[outgoing.instance];
                arrivals.extend(pipeline(outgoing.at, instance, outgoing.request));
            }
            now = next;
        }
        arrivals.sort_by_key(|(at, _)| *at);
        (service, judge(arrivals, end))
    }
}

/// Gives what arrived to the stages of the daemon.
fn judge(arrivals: Vec<(Timestamp, Request)>, end: Timestamp) -> Told {
    let folder = tempfile::tempdir().expect("a folder");
    let what =
        Backtest { inputs: Vec::new(), out: folder.path().to_owned(), scores: false, templates: false };
    let mut bench = Bench::new(&Config::default(), folder.path(), &what).expect("stages");
    for (at, request) in arrivals {
        let body = match &request {
            Request::Traces(request) => request.encode_to_vec(),
            Request::Logs(request) => request.encode_to_vec(),
            Request::Metrics(request) => request.encode_to_vec(),
        };
        bench.take(admitted(request.signal(), body.into()), at).expect("taken");
    }
    bench.run_out(end).expect("stepped");
    let mut told = Vec::new();
    let mut sequence = 0;
    loop {
        let records = bench.ledger().read_from(sequence + 1, 1_000).expect("records");
        let Some(last) = records.last() else { break };
        sequence = last.sequence;
        for record in records.into_iter().filter(|record| record.stage == Stage::Confirm) {
            told.push((record.at, serde_json::from_value(record.payload).expect("an anomaly")));
        }
    }
    Told(told)
}

impl Told {
    /// The last state of each anomaly that fired, by the time at which it did.
    fn fired(&self) -> Vec<&Anomaly> {
        let last: BTreeMap<&AnomalyId, &Anomaly> =
            self.0.iter().map(|(_, anomaly)| (&anomaly.id, anomaly)).collect();
        let mut fired: Vec<&Anomaly> =
            last.into_values().filter(|anomaly| anomaly.fired_at.is_some()).collect();
        fired.sort_by_key(|anomaly| anomaly.fired_at);
        fired
    }

    fn pages(&self) -> Vec<&Anomaly> {
        self.fired().into_iter().filter(|anomaly| anomaly.severity == Severity::Page).collect()
    }

    /// Tickets about data.
    fn data(&self) -> Vec<&Anomaly> {
        let about_data = |anomaly: &&Anomaly| {
            anomaly.severity == Severity::Ticket
                && matches!(anomaly.symptom, Symptom::Data | Symptom::Silence)
        };
        self.fired().into_iter().filter(about_data).collect()
    }

    /// Seconds after `from` at which an anomaly became a page.
    fn paged_after(&self, id: &AnomalyId, from: u64) -> u64 {
        let page = |(_, anomaly): &&(Timestamp, Anomaly)| {
            anomaly.id == *id && anomaly.severity == Severity::Page && anomaly.fired_at.is_some()
        };
        let (at, _) = self.0.iter().find(page).expect("a page");
        at.since(after(from)).as_secs()
    }

    fn in_words(&self) -> String {
        let line = |anomaly: &&Anomaly| {
            let at = anomaly.fired_at.unwrap_or_default().since(START).as_secs();
            let signals: Vec<_> = anomaly
                .members
                .iter()
                .map(|of| format!("{}/{}/{}", of.service.name, of.signal, of.symptom.as_str()))
                .collect();
            format!(
                "{at} s: {:?} {} [{}] {:?}\n",
                anomaly.severity,
                anomaly.title,
                signals.join(", "),
                anomaly.state
            )
        };
        self.fired().iter().map(line).collect()
    }

    fn recovered_between(&self, from: u64, until: u64) -> Vec<&Anomaly> {
        let in_time = |(at, anomaly): &&(Timestamp, Anomaly)| {
            anomaly.state == AnomalyState::Recovered && *at >= after(from) && *at < after(until)
        };
        self.0.iter().filter(in_time).map(|(_, anomaly)| anomaly).collect()
    }
}
