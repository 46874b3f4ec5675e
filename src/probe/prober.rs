//! All checks, each again and again.

use super::run::Runner;
use super::span::{self, Context};
use super::{Check, Config};
use crate::model::{Clock, ServiceKey, Signal, Timestamp};
use crate::observe::{Collect, Exposition, Kind};
use crate::receive::Inlet;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Runs that wait to be let in.
const WAITING: usize = 64;
/// Between the first runs of two checks, so that they do not all ask at once.
const APART: Duration = Duration::from_millis(50);

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub http_status: Option<u16>,
    /// Why it failed; `None` if it did not.
    pub error: Option<String>,
}

impl Outcome {
    pub(super) const fn failed(error: String) -> Self {
        Self { http_status: None, error: Some(error) }
    }
}

/// How a check stands.
#[derive(Clone, Debug)]
pub struct Standing {
    pub check: Check,
    /// Since this process began.
    pub runs: u64,
    pub failed_runs: u64,
    /// When the last run ended, how long it took, and what came of it.
    pub last: Option<(Timestamp, Duration, Outcome)>,
    /// Since when it is as it is now.
    pub since: Option<Timestamp>,
}

/// How all checks stand, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Standings(Mutex<Vec<Standing>>);

impl Standings {
    /// How all checks stand now.
    #[must_use]
    pub fn now(&self) -> Vec<Standing> {
        self.0.lock().clone()
    }

    /// What a check asks and why its last run failed, in words: of the first one, in the order of the configuration,
    /// that runs as one of these services and fails now.
    #[must_use]
    pub fn failure_in_words(&self, services: &BTreeSet<&ServiceKey>) -> Option<String> {
        let all = self.0.lock();
        let mut of_them = all.iter().filter(|standing| services.contains(&standing.check.runs_as()));
        of_them.find_map(|standing| {
            let error = standing.last.as_ref()?.2.error.as_ref()?;
            Some(format!("{}: {error}", standing.check.target))
        })
    }

    fn note(&self, number: usize, at: Timestamp, took: Duration, outcome: Outcome) {
        let mut all = self.0.lock();
        let Some(standing) = all.get_mut(number) else { return };
        standing.runs = standing.runs.saturating_add(1);
        let fails = outcome.error.is_some();
        standing.failed_runs = standing.failed_runs.saturating_add(fails.into());
        let failed = standing.last.as_ref().map(|(.., last)| last.error.is_some());
        if failed != Some(fails) {
            standing.since = Some(at);
        }
        standing.last = Some((at, took, outcome));
    }
}

impl Collect for Standings {
    fn collect(&self, out: &mut Exposition) {
        let all = self.0.lock();
        let (runs, failed) = all.iter().fold((0u64, 0u64), |(runs, failed), standing| {
            (runs.saturating_add(standing.runs), failed.saturating_add(standing.failed_runs))
        });
        let failing = all.iter().filter(|of| of.last.as_ref().is_some_and(|(.., last)| last.error.is_some()));
        out.single("barograph_check_runs_total", Kind::Counter, "Runs of synthetic checks.", runs as f64);
        out.single(
            "barograph_check_failed_runs_total",
            Kind::Counter,
            "Those of them that failed.",
            failed as f64,
        );
        let help = "Synthetic checks whose last run failed.";
        out.single("barograph_checks_failing", Kind::Gauge, help, failing.count() as f64);
    }
}

/// All checks, each again and again.
pub struct Prober {
    checks: Vec<Check>,
    clock: Arc<dyn Clock>,
    standings: Arc<Standings>,
    spans: mpsc::Sender<Vec<u8>>,
}

impl Prober {
    /// The checks of a configuration, and what their spans come out of: [`Self::admit`] takes it.
    #[must_use]
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let checks = config.checks.clone();
        let standing = |check: &Check| Standing {
            check: check.clone(),
            runs: 0,
            failed_runs: 0,
            last: None,
            since: None,
        };
        let standings = Arc::new(Standings(Mutex::new(checks.iter().map(standing).collect())));
        let (spans, receiver) = mpsc::channel(WAITING);
        (Self { checks, clock, standings, spans }, receiver)
    }

    /// How the checks stand, ever anew.
    #[must_use]
    pub fn standings(&self) -> Arc<Standings> {
        self.standings.clone()
    }

    /// Asks until everything stops.
    ///
    /// # Panics
    /// When a check does.
    pub async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        for (number, check) in self.checks.into_iter().enumerate() {
            let (clock, standings, spans) = (self.clock.clone(), self.standings.clone(), self.spans.clone());
            running.spawn(async move {
                let apart = APART * u32::try_from(number).unwrap_or_default();
                let mut due = interval_at(Instant::now() + apart.min(check.every), check.every);
                due.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let runner = Runner::new(check.clone());
                loop {
                    due.tick().await;
                    let (context, from, began) = (Context::new(), clock.now(), Instant::now());
                    let outcome = runner.run(context).await;
                    let took = began.elapsed();
                    // The wall clock may have been set meanwhile.
                    let until = from.saturating_add(took);
                    let span = span::export(&check, context, from, until, &outcome);
                    standings.note(number, until, took, outcome);
                    if spans.send(span).await.is_err() {
                        return;
                    }
                }
            });
        }
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            // None of them ends otherwise, and who watches this one must know. Without checks there is nothing
            // to wait for but the end.
            Some(ended) = running.join_next() => if let Err(fallen) = ended { resume_unwind(fallen.into_panic()) },
        }
    }

    /// Hands over what the checks give, until they end. To be run where requests are served.
    pub async fn admit(mut spans: mpsc::Receiver<Vec<u8>>, inlet: Inlet) {
        while let Some(span) = spans.recv().await {
            if let Err(error) = inlet.admit(Signal::Traces, span.into()).await {
                tracing::warn!(%error, "a run of a synthetic check is not counted");
            }
        }
    }
}
