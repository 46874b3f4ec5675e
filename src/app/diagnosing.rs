//! Diagnoses, on threads of their own that give way to ingest.

use super::Error;
use super::counted::counted;
use super::judging::{Job, Judging};
use super::reading::AllWindows;
use super::waiting::{Serves, Waiting};
use crate::confirm::{Anomaly, AnomalyId};
use crate::diagnose::{Case, Cause, Collector, Diagnosis, Output, Pass, Uploading, run_collector};
use crate::journal::Recorder;
use crate::limits::give_back_free_memory;
use crate::model::Clock;
use crate::observe::{Beat, Collect, Counter, Exposition, Kind};
use crate::window::Registry;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Collectors that run at the same time, and anomalies whose output is kept until it is in their evidence.
const COLLECTORS_AT_ONCE: usize = 4;
const ANOMALIES_COLLECTED: usize = 64;

/// What all threads that diagnose share.
pub(super) struct Diagnosing {
    diagnosis: Diagnosis,
    recorder: Recorder,
    windows: Arc<AllWindows>,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    waiting: Arc<Waiting>,
    first: Took,
    complete: Took,
    failed: Counter,
    /// Where collectors run, and which.
    side: tokio::runtime::Handle,
    collectors: Vec<Collector>,
    at_once: Semaphore,
    /// What collectors said and is not in evidence yet, oldest anomaly first.
    collected: Mutex<VecDeque<(AnomalyId, Collecting)>>,
    late: Counter,
    /// Where bundles go from here, if anywhere.
    uploading: Option<Arc<Uploading>>,
}

/// The collectors of an anomaly.
#[derive(Debug, Default)]
struct Collecting {
    /// What they said and is not in the evidence yet.
    outputs: Vec<Output>,
    /// How many have not ended.
    running: usize,
    /// Whether the complete pass is over: what is said from then on is added to its bundle.
    is_complete: bool,
    /// Whether somebody adds to the bundle at this moment.
    is_added_to: bool,
}

/// How long diagnoses took from when they were due, or an alarm fired, until their evidence was told.
#[derive(Debug, Default)]
struct Took {
    times: Counter,
    ns: Counter,
    longest_ns: AtomicU64,
}

impl Took {
    fn note(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.times.add(1);
        self.ns.add(ns);
        self.longest_ns.fetch_max(ns, Ordering::Relaxed);
    }
}

impl Diagnosing {
    pub fn new(
        diagnosis: Diagnosis,
        recorder: Recorder,
        (windows, registry): (Arc<AllWindows>, Arc<Registry>),
        clock: Arc<dyn Clock>,
        side: tokio::runtime::Handle,
        uploading: Option<Arc<Uploading>>,
    ) -> Self {
        let collectors = diagnosis.config().collectors.clone();
        Self {
            diagnosis,
            recorder,
            windows,
            registry,
            clock,
            waiting: Arc::default(),
            first: Took::default(),
            complete: Took::default(),
            failed: Counter::default(),
            side,
            collectors,
            at_once: Semaphore::new(COLLECTORS_AT_ONCE),
            collected: Mutex::default(),
            late: Counter::default(),
            uploading,
        }
    }

    /// Where diagnoses wait for a thread.
    pub fn waiting(&self) -> Arc<Waiting> {
        self.waiting.clone()
    }

    /// Makes one diagnosis after the other of those that wait, until these are closed.
    pub fn run(self: &Arc<Self>, serves: Serves, judging: &Arc<Mutex<Judging>>, beat: &Beat) {
        // Evidence may come later, spans must not.
        super::give_way();
        while let Some(job) = self.waiting.next(serves) {
            beat.begin();
            // A bundle that cannot be written, or a fault in the diagnosis, costs the evidence, not the alert;
            // a daemon that stopped for it would meet it again after each restart.
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| self.diagnose(&job, judging)));
            // The rows of a diagnosis are much for a while.
            give_back_free_memory();
            beat.end();
            match done {
                Ok(Ok(())) => {
                    let took = if job.pass == Pass::First { &self.first } else { &self.complete };
                    took.note(self.clock.now().since(job.due));
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::error!(anomaly = %job.anomaly.id, %error, "a diagnosis failed");
                }
                Err(_) => tracing::error!(anomaly = %job.anomaly.id, "a diagnosis panicked"),
            }
            self.failed.add(1);
        }
    }

    fn diagnose(self: &Arc<Self>, job: &Job, judging: &Arc<Mutex<Judging>>) -> Result<(), Error> {
        let id = &job.anomaly.id;
        let collected = match job.pass {
            Pass::First => Vec::new(),
            Pass::Complete => self.take_collected(id),
        };
        let counted = match job.pass {
            Pass::First => Vec::new(),
            // A chart that ends with what was captured is better than no evidence.
            Pass::Complete => {
                counted(&*self.windows, &self.registry, &job.anomaly, job.at).unwrap_or_else(|error| {
                    tracing::warn!(anomaly = %id, error, "what windows counted is missing on charts");
                    Vec::new()
                })
            }
        };
        let case = Case {
            anomaly: &job.anomaly,
            changes: &job.suspects,
            topology: &job.topology,
            pass: job.pass,
            now: job.at,
            collected: &collected,
            counted: &counted,
        };
        let made = self.diagnosis.run(&case, &self.recorder);
        if job.pass == Pass::Complete && made.is_err() {
            // They are added to what the first pass left.
            self.give_back(id, collected);
        }
        let done = made.map_err(Error::from).and_then(|evidence| {
            judging.lock().attach(job, &evidence)?;
            Ok(evidence)
        });
        if let Ok(evidence) = &done {
            if let Some(uploading) = &self.uploading {
                uploading.offer(&job.anomaly, evidence);
            }
            if job.pass == Pass::First
                && let Some(cause) = evidence.causes.first()
            {
                self.collect(&job.anomaly, cause, judging);
            }
        }
        if job.pass == Pass::Complete {
            self.complete(id);
            self.add_late(&job.anomaly, judging);
        }
        done.map(drop)
    }

    fn of<T>(&self, id: &AnomalyId, with: impl FnOnce(&mut Collecting) -> T) -> Option<T> {
        let mut all = self.collected.lock();
        let found = all.iter_mut().find(|(of, _)| of == id);
        found.map(|(_, collecting)| with(collecting))
    }

    fn take_collected(&self, id: &AnomalyId) -> Vec<Output> {
        self.of(id, |collecting| std::mem::take(&mut collecting.outputs)).unwrap_or_default()
    }

    fn give_back(&self, id: &AnomalyId, outputs: Vec<Output>) {
        self.of(id, |collecting| collecting.outputs.splice(0..0, outputs).for_each(drop));
    }

    fn complete(&self, id: &AnomalyId) {
        self.of(id, |collecting| collecting.is_complete = true);
    }

    /// Starts the collectors that are for this cause; what they say goes into the complete evidence, or is added
    /// to it.
    fn collect(self: &Arc<Self>, anomaly: &Anomaly, cause: &Cause, judging: &Arc<Mutex<Judging>>) {
        let redaction = Arc::new(self.diagnosis.config().redaction());
        let collectors = self.collectors.iter();
        let wanted: Vec<_> =
            collectors.filter(|collector| collector.is_for(cause, &anomaly.service.name)).collect();
        if wanted.is_empty() {
            return;
        }
        let collecting = Collecting { running: wanted.len(), ..Collecting::default() };
        let mut all = self.collected.lock();
        all.push_back((anomaly.id.clone(), collecting));
        if all.len() > ANOMALIES_COLLECTED {
            all.pop_front();
        }
        drop(all);
        for collector in wanted {
            let (collector, cause, anomaly) = (collector.clone(), cause.clone(), anomaly.clone());
            let (redaction, diagnosing, judging) = (redaction.clone(), self.clone(), judging.clone());
            self.side.spawn(async move {
                let Ok(_permit) = diagnosing.at_once.acquire().await else { return };
                let id = &anomaly.id;
                let output = run_collector(&collector, &id.0, &cause, &redaction, &*diagnosing.clock).await;
                let (name, ended) = (&output.told.name, &output.told.ended);
                tracing::info!(anomaly = %id, collector = name, ended, "a collector ran");
                let known = diagnosing.of(id, |collecting| {
                    collecting.running = collecting.running.saturating_sub(1);
                    collecting.outputs.push(output);
                });
                if known.is_none() {
                    tracing::warn!(anomaly = %id, "what a collector said is left out: too many ran since");
                    return;
                }
                let adding = diagnosing.clone();
                // Files are written.
                let added = tokio::task::spawn_blocking(move || adding.add_late(&anomaly, &judging)).await;
                if let Err(error) = added {
                    tracing::error!(%error, "what a collector said is not in its evidence");
                }
            });
        }
    }

    /// Adds what collectors said since the complete pass to its bundle, and tells it. One at a time: who comes
    /// meanwhile leaves it to who is at it.
    fn add_late(&self, anomaly: &Anomaly, judging: &Mutex<Judging>) {
        let id = &anomaly.id;
        let begin = |collecting: &mut Collecting| {
            let begins = collecting.is_complete && !collecting.is_added_to;
            collecting.is_added_to |= begins;
            begins
        };
        if !self.of(id, begin).unwrap_or(false) {
            return;
        }
        loop {
            let next = self.of(id, |collecting| {
                let next = (!collecting.outputs.is_empty()).then(|| collecting.outputs.remove(0));
                collecting.is_added_to = next.is_some();
                next
            });
            let Some(output) = next.flatten() else { break };
            // Whatever goes wrong with one, those that come later are added.
            let added = catch_unwind(AssertUnwindSafe(|| self.add(anomaly, &output, judging)));
            match added {
                Ok(Ok(())) => self.late.add(1),
                Err(_) => {
                    let collector = &output.told.name;
                    tracing::error!(anomaly = %id, collector, "adding what a collector said panicked");
                }
                Ok(Err(error)) => {
                    let collector = &output.told.name;
                    tracing::error!(anomaly = %id, collector, %error, "what a collector said is not in its evidence");
                }
            }
        }
        let is_over = |of: &Collecting| of.is_complete && of.running == 0 && of.outputs.is_empty();
        self.collected.lock().retain(|(of, collecting)| of != id || !is_over(collecting));
    }

    fn add(&self, anomaly: &Anomaly, output: &Output, judging: &Mutex<Judging>) -> Result<(), Error> {
        let Some(evidence) = judging.lock().evidence(&anomaly.id)? else { return Ok(()) };
        let evidence = self.diagnosis.add_collected(&evidence, output)?;
        judging.lock().amend(&evidence, &output.told.name)?;
        if let Some(uploading) = &self.uploading {
            uploading.offer(anomaly, &evidence);
        }
        Ok(())
    }
}

impl Collect for Diagnosing {
    fn collect(&self, out: &mut Exposition) {
        let passes = [("first", &self.first), ("complete", &self.complete)];
        out.by_label(
            "barograph_diagnoses_total",
            "Diagnoses whose evidence was told.",
            "pass",
            passes.map(|(pass, took)| (pass, took.times.get())),
        );
        #[expect(clippy::cast_precision_loss, reason = "seconds, to the nanosecond for two months")]
        let mut seconds = |name, kind, help, ns: fn(&Took) -> u64| {
            let rows = passes.map(|(pass, took)| ([("pass", pass)], ns(took) as f64 / 1e9));
            out.family(name, kind, help, rows.iter().map(|(labels, value)| (labels.as_slice(), *value)));
        };
        seconds(
            "barograph_diagnosis_seconds_total",
            Kind::Counter,
            "From when diagnoses were due, which of first ones is when the alarm fired, until their evidence was told.",
            |took| took.ns.get(),
        );
        seconds("barograph_diagnosis_longest_seconds", Kind::Gauge, "The longest of those times.", |took| {
            took.longest_ns.load(Ordering::Relaxed)
        });
        out.family(
            "barograph_diagnoses_waiting",
            Kind::Gauge,
            "Diagnoses that are due and wait for a thread.",
            [("first", Pass::First), ("complete", Pass::Complete)]
                .map(|(name, pass)| ([("pass", name)], self.waiting.len(pass) as f64))
                .iter()
                .map(|(labels, value)| (labels.as_slice(), *value)),
        );
        out.single(
            "barograph_collected_late_total",
            Kind::Counter,
            "Outputs of collectors that ended after the complete diagnosis and were added to its evidence.",
            self.late.get() as f64,
        );
        out.single(
            "barograph_diagnosis_failures_total",
            Kind::Counter,
            "Diagnoses that failed; their alerts carry no evidence of that pass.",
            self.failed.get() as f64,
        );
    }
}
