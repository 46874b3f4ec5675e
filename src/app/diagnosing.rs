//! Diagnoses, on threads of their own that give way to ingest.

use super::Error;
use super::judging::{Job, Judging};
use crate::confirm::{Anomaly, AnomalyId};
use crate::diagnose::{Case, Cause, Collector, Diagnosis, Output, Pass, Redaction, Uploading, run_collector};
use crate::journal::Recorder;
use crate::limits::give_back_free_memory;
use crate::model::Clock;
use crate::observe::{Beat, Collect, Counter, Exposition, Kind};
use crossbeam::channel::Receiver;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Collectors that run at the same time, and anomalies whose output is kept until it is in their evidence.
const COLLECTORS_AT_ONCE: usize = 4;
const ANOMALIES_COLLECTED: usize = 16;

/// What all threads that diagnose share.
pub(super) struct Diagnosing {
    diagnosis: Diagnosis,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    first: Took,
    complete: Took,
    failed: Counter,
    /// Where collectors run, and which.
    side: tokio::runtime::Handle,
    collectors: Vec<Collector>,
    at_once: Arc<Semaphore>,
    /// What collectors said of anomalies whose complete evidence is still to come.
    collected: Arc<Mutex<BTreeMap<AnomalyId, Vec<Output>>>>,
    /// Where bundles go from here, if anywhere.
    uploading: Option<Arc<Uploading>>,
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
        clock: Arc<dyn Clock>,
        side: tokio::runtime::Handle,
        uploading: Option<Arc<Uploading>>,
    ) -> Self {
        let collectors = diagnosis.config().collectors.clone();
        Self {
            diagnosis,
            recorder,
            clock,
            first: Took::default(),
            complete: Took::default(),
            failed: Counter::default(),
            side,
            collectors,
            at_once: Arc::new(Semaphore::new(COLLECTORS_AT_ONCE)),
            collected: Arc::default(),
            uploading,
        }
    }

    /// Makes one diagnosis after the other until no more can come.
    pub fn run(&self, jobs: &Receiver<Job>, judging: &Mutex<Judging>, beat: &Beat) {
        // Evidence may come later, spans must not.
        super::give_way();
        while let Ok(job) = jobs.recv() {
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
                    took.note(self.clock.now().since(job.at));
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

    fn diagnose(&self, job: &Job, judging: &Mutex<Judging>) -> Result<(), Error> {
        let collected = match job.pass {
            Pass::First => Vec::new(),
            Pass::Complete => self.collected.lock().remove(&job.anomaly.id).unwrap_or_default(),
        };
        let case = Case {
            anomaly: &job.anomaly,
            changes: &job.suspects,
            topology: &job.topology,
            pass: job.pass,
            now: job.at,
            collected: &collected,
        };
        let evidence = self.diagnosis.run(&case, &self.recorder)?;
        judging.lock().attach(job, &evidence)?;
        if let Some(uploading) = &self.uploading {
            uploading.offer(&job.anomaly, &evidence);
        }
        if job.pass == Pass::First
            && let Some(cause) = evidence.causes.first()
        {
            self.collect(&job.anomaly, cause);
        }
        Ok(())
    }

    /// Starts the collectors that are for this cause; what they say goes into the complete evidence.
    fn collect(&self, anomaly: &Anomaly, cause: &Cause) {
        let redaction = Arc::new(Redaction::new(&self.diagnosis.config().redact_attributes));
        for collector in &self.collectors {
            if !collector.is_for(cause, &anomaly.service.name) {
                continue;
            }
            let (collector, cause, anomaly) = (collector.clone(), cause.clone(), anomaly.id.clone());
            let (redaction, clock, at_once) = (redaction.clone(), self.clock.clone(), self.at_once.clone());
            let collected = self.collected.clone();
            self.side.spawn(async move {
                let Ok(_permit) = at_once.acquire().await else { return };
                let output = run_collector(&collector, &anomaly.0, &cause, &redaction, &*clock).await;
                let (name, ended) = (&output.told.name, &output.told.ended);
                tracing::info!(anomaly = %anomaly, collector = name, ended, "a collector ran");
                let mut collected = collected.lock();
                collected.entry(anomaly).or_default().push(output);
                while collected.len() > ANOMALIES_COLLECTED {
                    collected.pop_first();
                }
            });
        }
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
        out.single(
            "barograph_diagnosis_failures_total",
            Kind::Counter,
            "Diagnoses that failed; their alerts carry no evidence of that pass.",
            self.failed.get() as f64,
        );
    }
}
