//! Brings every target to the desired state: level-triggered, each target on its own.

use super::alertmanager::Alertmanager;
use super::target::{Outcome, Target};
use super::webhook::Webhook;
use super::{Alert, AlertState, Config, Error, Recorded};
use crate::confirm::AnomalyId;
use crate::model::{Clock, Timestamp};
use crate::observe::{Beat, Collect, Counter, Exposition, Kind};
use crate::store::Ledger;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Alerts in one request.
const BATCH: usize = 64;
/// Records read from the ledger at once.
const RECORDS: usize = 256;
/// The first pause after a failure, and the longest: a peer that returns is told within 5 s.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Deliveries that may wait to be remembered.
const UNKEPT: usize = 10_000;
/// How long the end of an alert is offered to a target that cannot be reached.
const GIVE_UP_AFTER: Duration = Duration::from_secs(86_400);

/// That a target was told of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub target: String,
    pub anomaly: AnomalyId,
    pub revision: u32,
    pub state: AlertState,
    pub at: Timestamp,
}

/// Where it is remembered what targets were told, so that a restart tells nobody twice.
pub trait Deliveries: Send + Sync {
    /// The last delivery of each alert to each target.
    ///
    /// # Errors
    /// Why they cannot be read, in words.
    fn load(&self) -> Result<Vec<Delivered>, String>;

    /// Keeps a delivery.
    ///
    /// # Errors
    /// Why it could not be kept, in words. It has happened nonetheless.
    fn keep(&self, delivered: &Delivered) -> Result<(), String>;
}

/// What became of attempts to tell a target.
#[derive(Debug, Default)]
struct Counts {
    delivered: Counter,
    refused: Counter,
    failed: Counter,
}

struct Shared {
    config: Config,
    targets: Vec<Box<dyn Target>>,
    counts: Vec<Counts>,
    /// How each target's worker gets on with what is its own to do: peers have timeouts.
    beats: Vec<Arc<Beat>>,
    /// Up to which record the ledger was read.
    followed: Arc<Beat>,
    desired: Mutex<BTreeMap<AnomalyId, Alert>>,
    changed: watch::Sender<()>,
    deliveries: Arc<dyn Deliveries>,
    /// The latest delivery of each alert to each target that could not be remembered yet.
    unkept: Mutex<BTreeMap<(String, AnomalyId), Delivered>>,
    clock: Arc<dyn Clock>,
}

/// The desired state of all alerts, and the tasks that bring targets to it.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

impl Outbox {
    /// An outbox for the configured targets.
    ///
    /// # Errors
    /// When the URL of a target cannot be used.
    pub fn new(
        config: Config,
        deliveries: Arc<dyn Deliveries>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let mut targets: Vec<Box<dyn Target>> = Vec::new();
        for url in &config.alertmanagers {
            targets.push(Box::new(Alertmanager::new(url, &config)?));
        }
        for url in &config.webhooks {
            targets.push(Box::new(Webhook::new(url, &config)?));
        }
        Ok(Self(Arc::new(Shared {
            counts: targets.iter().map(|_| Counts::default()).collect(),
            beats: targets.iter().map(|_| Arc::default()).collect(),
            followed: Arc::default(),
            config,
            targets,
            desired: Mutex::default(),
            changed: watch::Sender::new(()),
            deliveries,
            unkept: Mutex::default(),
            clock,
        })))
    }

    /// Those that deliver, by what they tell, and how they get on with what they began.
    #[must_use]
    pub fn beats(&self) -> Vec<(String, Arc<Beat>)> {
        let names = self.0.targets.iter().map(|target| format!("alerts to {}", target.name()));
        names.zip(self.0.beats.iter().cloned()).collect()
    }

    /// Up to which record of the ledger [`Self::follow`] has come.
    #[must_use]
    pub fn follows(&self) -> Arc<Beat> {
        self.0.followed.clone()
    }

    /// Sets what targets should know of an alert. An older revision than the one held is ignored.
    pub fn set(&self, alert: Alert) {
        let mut desired = self.0.desired.lock();
        if desired.get(&alert.anomaly).is_none_or(|held| held.revision < alert.revision) {
            desired.insert(alert.anomaly.clone(), alert);
            let now = self.0.clock.now();
            desired.retain(|_, alert| !is_past(alert, now));
            drop(desired);
            self.0.changed.send_replace(());
        }
    }

    /// What targets should know.
    #[cfg(test)]
    pub(crate) fn desired(&self) -> Vec<Alert> {
        self.0.desired.lock().values().cloned().collect()
    }

    /// Sets what the ledger holds, then what is appended to it, until `stop` says so.
    pub async fn follow(self, ledger: Ledger, mut stop: watch::Receiver<bool>) {
        let mut last = ledger.watch();
        // Watched before it is read, so that nothing falls between.
        let mut next = ledger.last().saturating_add(1);
        match Alert::latest(&ledger) {
            Ok(alerts) => alerts.into_iter().for_each(|alert| self.set(alert)),
            Err(error) => tracing::error!(%error, "the ledger's alerts cannot be read"),
        }
        last.mark_changed();
        loop {
            self.0.followed.done(next.saturating_sub(1));
            tokio::select! {
                changed = last.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
            loop {
                let records = match ledger.read_from(next, RECORDS) {
                    Ok(records) => records,
                    Err(error) => {
                        tracing::error!(%error, "the ledger cannot be read");
                        break;
                    }
                };
                let Some(end) = records.last().map(|record| record.sequence) else { break };
                next = end.saturating_add(1);
                for record in &records {
                    if let Some(Recorded::Alert(alert)) = Recorded::read(record) {
                        self.set(*alert);
                    }
                }
            }
            // It has grown, so it can be written.
            self.0.keep_all(&mut self.0.unkept.lock());
        }
    }

    /// Delivers until `stop` changes or its sender is gone. An attempt under way is abandoned then.
    ///
    /// # Panics
    /// When one that delivers to a target does.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut held: BTreeMap<String, BTreeMap<AnomalyId, Progress>> = BTreeMap::new();
        let known = self.0.deliveries.load().unwrap_or_else(|why| {
            tracing::error!(why, "what targets were told cannot be read: they may be told again");
            Vec::new()
        });
        let now = self.0.clock.now();
        // Of what ended long ago nobody is told any more.
        let known =
            known.into_iter().filter(|told| !told.state.is_ended() || now.since(told.at) <= GIVE_UP_AFTER);
        for delivered in known {
            let progress = Progress { revision: delivered.revision, awaited: true, ..Progress::default() };
            held.entry(delivered.target).or_default().insert(delivered.anomaly, progress);
        }
        let mut workers = JoinSet::new();
        for number in 0..self.0.targets.len() {
            let known = self.0.targets.get(number).and_then(|target| held.remove(target.name()));
            let worker = Worker {
                shared: self.0.clone(),
                beat: self.0.beats.get(number).cloned().unwrap_or_default(),
                number,
                progress: known.unwrap_or_default(),
                failures: 0,
                not_before: Instant::now(),
            };
            workers.spawn(worker.run());
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            // None of them ends otherwise, and who watches this one must know.
            Some(Err(fallen)) = workers.join_next() => resume_unwind(fallen.into_panic()),
        }
    }
}

impl Collect for Outbox {
    fn collect(&self, out: &mut Exposition) {
        let rows: Vec<([(&str, &str); 2], f64)> = self
            .0
            .targets
            .iter()
            .zip(&self.0.counts)
            .flat_map(|(target, counts)| {
                [
                    ("delivered", counts.delivered.get()),
                    ("refused", counts.refused.get()),
                    ("failed", counts.failed.get()),
                ]
                .map(|(result, n)| ([("target", target.name()), ("result", result)], n as f64))
            })
            .collect();
        out.family(
            "barograph_alert_deliveries_total",
            Kind::Counter,
            "Alerts told to a target: delivered, refused by it for good, or failed and tried again.",
            rows.iter().map(|(labels, n)| (labels.as_slice(), *n)),
        );
    }
}

/// Whether nobody needs to hear of an alert any more.
fn is_past(alert: &Alert, now: Timestamp) -> bool {
    alert.state.is_ended() && alert.resolved_at.is_none_or(|at| now.since(at) > GIVE_UP_AFTER)
}

/// What a target knows of an alert.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Last delivered; 0: none.
    revision: u32,
    /// Last refused for good.
    refused: u32,
    /// When it was last told by this process, and when that was last tried.
    told: Option<Instant>,
    tried: Option<Instant>,
    /// Known from an earlier life, and not among the desired alerts yet: they are read while targets are
    /// already served, and what is forgotten meanwhile would be told a second time.
    awaited: bool,
}

/// Tells one target.
struct Worker {
    shared: Arc<Shared>,
    beat: Arc<Beat>,
    number: usize,
    progress: BTreeMap<AnomalyId, Progress>,
    /// In a row.
    failures: u32,
    not_before: Instant,
}

impl Worker {
    async fn run(mut self) {
        let mut changed = self.shared.changed.subscribe();
        changed.mark_changed();
        loop {
            self.beat.begin();
            let now = Instant::now();
            let (due, next) = self.plan(now);
            self.beat.end();
            if due.is_empty() {
                let wait = next.unwrap_or(now + Duration::from_secs(3_600));
                tokio::select! {
                    _ = changed.changed() => {}
                    () = tokio::time::sleep_until(wait) => {}
                }
            } else if now < self.not_before {
                tokio::time::sleep_until(self.not_before).await;
            } else {
                self.attempt(due).await;
            }
        }
    }

    /// The alerts to tell now, and when there will be more if nothing changes.
    fn plan(&mut self, now: Instant) -> (Vec<Alert>, Option<Instant>) {
        let forgets = self.shared.targets.get(self.number).is_some_and(|target| target.forgets());
        let config = &self.shared.config;
        let desired = self.shared.desired.lock();
        self.progress.retain(|id, progress| {
            let wanted = desired.contains_key(id);
            progress.awaited &= !wanted;
            wanted || progress.awaited
        });
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        for (id, alert) in &*desired {
            let progress = self.progress.get(id).copied().unwrap_or_default();
            match when(alert, progress, forgets, config, self.shared.clock.now()) {
                When::Now => due.push(alert.clone()),
                When::After(told) if told + config.resend.0 <= now => due.push(alert.clone()),
                When::After(told) => {
                    next =
                        Some(next.map_or(told + config.resend.0, |other| other.min(told + config.resend.0)));
                }
                When::Never => {}
            }
        }
        drop(desired);
        // What was tried longest ago, or never, comes first, so that no alert starves behind another.
        due.sort_by_key(|alert| self.progress.get(&alert.anomaly).and_then(|progress| progress.tried));
        due.truncate(BATCH);
        (due, next)
    }

    async fn attempt(&mut self, due: Vec<Alert>) {
        let shared = self.shared.clone();
        let (Some(target), Some(counts)) = (shared.targets.get(self.number), shared.counts.get(self.number))
        else {
            return;
        };
        let began = Instant::now();
        let outcomes = target.deliver(&due, shared.clock.now()).await;
        self.beat.begin();
        let mut failed = None;
        for (alert, outcome) in due.iter().zip(outcomes) {
            let progress = self.progress.entry(alert.anomaly.clone()).or_default();
            progress.tried = Some(began);
            match outcome {
                Outcome::Delivered => {
                    counts.delivered.add(1);
                    progress.told = Some(Instant::now());
                    if progress.revision != alert.revision {
                        progress.revision = alert.revision;
                        shared.keep(target.name(), alert);
                    }
                }
                Outcome::Refused(why) => {
                    counts.refused.add(1);
                    progress.refused = alert.revision;
                    progress.told = Some(Instant::now());
                    tracing::error!(target = target.name(), alert = alert.key(), why, "alert refused");
                }
                Outcome::Failed(why) => {
                    counts.failed.add(1);
                    failed = Some(why);
                }
            }
        }
        match failed {
            Some(why) => {
                if self.failures == 0 {
                    tracing::warn!(target = target.name(), why, "alerts not delivered, trying again");
                }
                self.not_before = began + pause(self.failures);
                self.failures = self.failures.saturating_add(1);
            }
            None => {
                if self.failures > 0 {
                    tracing::info!(
                        target = target.name(),
                        failures = self.failures,
                        "alerts delivered again"
                    );
                }
                self.failures = 0;
            }
        }
        self.beat.end();
    }
}

impl Shared {
    /// Remembers a delivery; later, if it cannot be remembered now.
    fn keep(&self, target: &str, alert: &Alert) {
        let delivered = Delivered {
            target: target.to_owned(),
            anomaly: alert.anomaly.clone(),
            revision: alert.revision,
            state: alert.state,
            at: self.clock.now(),
        };
        let mut unkept = self.unkept.lock();
        unkept.insert((target.to_owned(), alert.anomaly.clone()), delivered);
        while unkept.len() > UNKEPT {
            unkept.pop_first();
        }
        self.keep_all(&mut unkept);
    }

    /// Remembers what could not be remembered yet.
    fn keep_all(&self, unkept: &mut BTreeMap<(String, AnomalyId), Delivered>) {
        while let Some(first) = unkept.first_entry() {
            match self.deliveries.keep(first.get()) {
                Ok(()) => drop(first.remove()),
                Err(why) => {
                    let waiting = unkept.len();
                    tracing::error!(why, waiting, "deliveries cannot be recorded, which is tried again");
                    return;
                }
            }
        }
    }
}

enum When {
    Now,
    /// One `resend` after it was last told.
    After(Instant),
    Never,
}

/// When a target should be told of an alert.
fn when(alert: &Alert, progress: Progress, forgets: bool, config: &Config, now: Timestamp) -> When {
    let known = progress.revision > 0;
    let wanted = match alert.state {
        AlertState::Pending => false,
        AlertState::Firing => alert.severity >= config.minimum(),
        // Who never heard of an alert need not hear of its end.
        AlertState::Resolved | AlertState::Merged | AlertState::Suppressed => known && !is_past(alert, now),
    };
    if !wanted {
        return When::Never;
    }
    if progress.revision < alert.revision && progress.refused != alert.revision {
        return When::Now;
    }
    let told_again = forgets
        && (alert.state == AlertState::Firing
            || alert.resolved_at.is_some_and(|at| now.since(at) <= config.resolved_for.0));
    match (told_again, progress.told) {
        (false, _) => When::Never,
        (true, None) => When::Now,
        (true, Some(told)) => When::After(told),
    }
}

/// The pause after so many failures in a row, counted from the beginning of the last attempt: doubling
/// up to the longest, between half and all of it at random, so that many daemons do not come at once.
fn pause(failures: u32) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1u32.checked_shl(failures.min(8)).unwrap_or(u32::MAX));
    full.min(LONGEST_PAUSE).mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Lifecycle;
    use crate::alert::fixture::anomaly;
    use crate::confirm::{AnomalyState, Severity};
    use crate::model::SystemClock;

    #[test]
    fn what_was_told_in_an_earlier_life_is_remembered_until_the_alerts_are_read() {
        let config = Config { webhooks: vec!["http://127.0.0.1:9/".to_owned()], ..Config::default() };
        let at = SystemClock.now();
        let mut confirmed = anomaly("00000000000000aa", at.saturating_sub(Duration::from_secs(10)));
        (confirmed.state, confirmed.severity) = (AnomalyState::Confirmed, Severity::Page);
        // Longer ago than a cause is waited for.
        confirmed.fired_at = Some(at.saturating_sub(Duration::from_secs(10)));
        let told = Lifecycle::new(config.clone()).step(at, &[confirmed]).pop().unwrap();
        assert_eq!(told.state, AlertState::Firing);
        let ledger = Ledger::in_memory().unwrap();
        let outbox = Outbox::new(config, Arc::new(ledger), Arc::new(SystemClock)).unwrap();
        let known = Progress { revision: told.revision, awaited: true, ..Progress::default() };
        let mut worker = Worker {
            shared: outbox.0.clone(),
            beat: Arc::default(),
            number: 0,
            progress: BTreeMap::from([(told.anomaly.clone(), known)]),
            failures: 0,
            not_before: Instant::now(),
        };
        let due = |worker: &mut Worker| -> Vec<u32> {
            worker.plan(Instant::now()).0.iter().map(|alert| alert.revision).collect()
        };
        // The target is served before the ledger's alerts are there.
        assert_eq!(due(&mut worker), [0; 0]);
        outbox.set(told.clone());
        assert_eq!(due(&mut worker), [0; 0], "told in an earlier life");
        let ended = Alert {
            revision: told.revision + 1,
            state: AlertState::Resolved,
            resolved_at: Some(SystemClock.now()),
            ..told
        };
        outbox.set(ended.clone());
        assert_eq!(due(&mut worker), [ended.revision], "who was told hears of the end");
        // What is desired no longer is forgotten.
        outbox.0.desired.lock().clear();
        assert_eq!(due(&mut worker), [0; 0]);
        assert!(worker.progress.is_empty());
    }

    /// Remembers deliveries unless it is told not to.
    #[derive(Default)]
    struct Flaky {
        is_full: std::sync::atomic::AtomicBool,
        kept: Mutex<Vec<(String, u32)>>,
    }

    impl Deliveries for Flaky {
        fn load(&self) -> Result<Vec<Delivered>, String> {
            Ok(Vec::new())
        }

        fn keep(&self, delivered: &Delivered) -> Result<(), String> {
            if self.is_full.load(std::sync::atomic::Ordering::SeqCst) {
                return Err("the disk is full".to_owned());
            }
            self.kept.lock().push((delivered.anomaly.0.clone(), delivered.revision));
            Ok(())
        }
    }

    #[test]
    fn what_was_delivered_while_it_could_not_be_recorded_is_recorded_when_it_can() {
        let deliveries = Arc::new(Flaky::default());
        let outbox = Outbox::new(Config::default(), deliveries.clone(), Arc::new(SystemClock)).unwrap();
        let at = SystemClock.now();
        let alert = |id: &str, revision| Alert {
            revision,
            ..Lifecycle::new(Config::default()).step(at, &[anomaly(id, at)]).pop().unwrap()
        };
        let full = |is_full| deliveries.is_full.store(is_full, std::sync::atomic::Ordering::SeqCst);
        full(true);
        outbox.0.keep("webhook", &alert("aa", 1));
        outbox.0.keep("webhook", &alert("bb", 1));
        outbox.0.keep("webhook", &alert("aa", 2));
        assert_eq!(*deliveries.kept.lock(), []);
        full(false);
        outbox.0.keep("webhook", &alert("cc", 1));
        let kept = |id: &str, revision| (id.to_owned(), revision);
        // Of each the latest, once: what is recorded last is what a restart goes by.
        assert_eq!(*deliveries.kept.lock(), [kept("aa", 2), kept("bb", 1), kept("cc", 1)]);
        outbox.0.keep_all(&mut outbox.0.unkept.lock());
        assert_eq!(deliveries.kept.lock().len(), 3);
    }

    /// The clock of the system, until it panics.
    #[derive(Debug, Default)]
    struct Broken(std::sync::atomic::AtomicBool);

    impl Clock for Broken {
        fn now(&self) -> Timestamp {
            assert!(!self.0.load(std::sync::atomic::Ordering::SeqCst), "on purpose");
            SystemClock.now()
        }
    }

    #[tokio::test]
    async fn a_worker_that_panics_takes_the_outbox_with_it_and_without_targets_it_waits_for_the_end() {
        let (stop, stopping) = watch::channel(false);
        let idle = Outbox::new(Config::default(), Arc::new(Flaky::default()), Arc::new(SystemClock)).unwrap();
        let idle = tokio::spawn(idle.run(stopping.clone()));
        let config = Config { webhooks: vec!["http://127.0.0.1:9/".to_owned()], ..Config::default() };
        let clock = Arc::new(Broken::default());
        let outbox = Outbox::new(config, Arc::new(Flaky::default()), clock.clone()).unwrap();
        let at = SystemClock.now();
        outbox.set(Lifecycle::new(Config::default()).step(at, &[anomaly("aa", at)]).pop().unwrap());
        let run = tokio::spawn(outbox.clone().run(stopping));
        // It is to break under the worker, not under the one that starts it.
        while outbox.0.changed.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        clock.0.store(true, std::sync::atomic::Ordering::SeqCst);
        outbox.0.changed.send_replace(());
        assert!(run.await.unwrap_err().is_panic());
        assert!(!idle.is_finished());
        stop.send_replace(true);
        idle.await.unwrap();
    }
}
