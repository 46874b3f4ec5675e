//! Watches every thread and task of the daemon: whether it is still there, and whether it gets on with the
//! work that waits for it.

use super::Error;
use crate::observe::{Beat, Collect, Exposition, Kind, Pace, Watch, Work};
use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How long one that is watched may go without getting on while work waits: with the time between two looks,
/// `/readyz` fails within 5 s.
pub const DEADLINE: Duration = Duration::from_secs(4);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Runtimes show so often that they still run tasks.
const PULSE_EVERY: Duration = Duration::from_millis(500);

/// What threads and tasks share with whoever waits for them to fall.
#[derive(Clone)]
struct Fates {
    /// Names those that ended although nobody asked them to; first those that panicked, for others may have
    /// fallen only for want of them.
    fallen: watch::Sender<Vec<String>>,
    /// From here on everybody is asked to end.
    stopping: Arc<AtomicBool>,
}

/// Tells of the end of a thread or task, also by a panic.
struct Fate {
    name: String,
    fates: Fates,
    /// It ended with an error: that is told even while everything stops.
    failed: bool,
}

impl Drop for Fate {
    fn drop(&mut self) {
        let panicked = std::thread::panicking();
        if !self.failed && !panicked && self.fates.stopping.load(Ordering::Acquire) {
            return;
        }
        tracing::error!(name = self.name, panicked, "a thread or task has ended that should not");
        let name = std::mem::take(&mut self.name);
        self.fates.fallen.send_modify(|fallen| fallen.insert(if panicked { 0 } else { fallen.len() }, name));
    }
}

/// Starts threads and tasks, and notices when one of them ends or hangs.
pub struct Supervisor {
    fates: Fates,
    threads: Vec<(&'static str, JoinHandle<()>)>,
    /// Each thread holds one of the first until it ends: then nobody is there that could send to the second.
    alive: (Sender<Infallible>, Receiver<Infallible>),
    watch: Watch,
    paces: Arc<Paces>,
}

impl Supervisor {
    pub fn new() -> Self {
        let fates = Fates { fallen: watch::Sender::new(Vec::new()), stopping: Arc::default() };
        let (threads, alive) = (Vec::new(), bounded(0));
        Self { fates, threads, alive, watch: Watch::default(), paces: Arc::new(Paces::new()) }
    }

    /// A thread that runs `work`; if it ends before everything stops, or with an error or a panic, the daemon
    /// stops.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn thread(
        &mut self,
        kind: &'static str,
        name: String,
        work: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let fate = self.fate(name.clone());
        let alive = self.alive.0.clone();
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let _alive = alive;
                let mut fate = fate;
                if let Err(error) = work() {
                    tracing::error!(thread = %name, %error, "a thread cannot go on");
                    fate.failed = true;
                }
            })
            .map_err(Error::io("cannot start a thread"))?;
        self.threads.push((kind, thread));
        Ok(())
    }

    /// A task that runs `work`; if it ends before everything stops, the daemon stops.
    pub fn task(
        &self,
        runtime: &Handle,
        name: impl Into<String>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        drop(self.awaited_task(runtime, name, work));
    }

    /// The same of a task that is waited for when everything stops.
    pub fn awaited_task(
        &self,
        runtime: &Handle,
        name: impl Into<String>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let fate = self.fate(name.into());
        runtime.spawn(async move {
            let _fate = fate;
            work.await;
        })
    }

    /// The same of a server.
    pub fn server<E: Display + Send>(
        &self,
        runtime: &Handle,
        name: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.task(runtime, name, async move {
            if let Err(error) = work.await {
                tracing::error!(name, %error, "a server cannot go on");
            }
        });
    }

    fn fate(&self, name: String) -> Fate {
        Fate { name, fates: self.fates.clone(), failed: false }
    }

    /// Notices when `beat` does not move while `work` waits.
    pub fn watch(&mut self, name: impl Into<Arc<str>>, beat: Arc<Beat>, within: Duration, work: Work) {
        self.watch.add(name, beat, within, work);
    }

    /// Notices when a runtime does not run its tasks any more.
    pub fn watch_runtime(&mut self, name: &'static str, runtime: &Handle) {
        let beat = Arc::new(Beat::default());
        self.watch(name, beat.clone(), DEADLINE, Work::Always);
        self.task(runtime, name, async move {
            let mut pulse = tokio::time::interval(PULSE_EVERY);
            pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                pulse.tick().await;
                beat.step();
            }
        });
    }

    /// How everything that is watched gets on, ever anew.
    pub fn paces(&self) -> Arc<Paces> {
        self.paces.clone()
    }

    /// Begins to look whether what is watched gets on.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn look(&mut self) -> Result<(), Error> {
        let mut watch = std::mem::take(&mut self.watch);
        let (paces, stopping) = (self.paces.clone(), self.fates.stopping.clone());
        paces.note(watch.look(paces.started.elapsed()));
        self.thread("watch", "watch".to_owned(), move || {
            while !stopping.load(Ordering::Acquire) {
                paces.note(watch.look(paces.started.elapsed()));
                std::thread::park_timeout(LOOK_EVERY);
            }
            Ok(())
        })
    }

    /// Waits until a thread or task has ended that should not.
    pub fn fallen(&self) -> impl Future<Output = ()> + use<> {
        let mut fallen = self.fates.fallen.subscribe();
        async move {
            if fallen.wait_for(|fallen| !fallen.is_empty()).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Who has ended that should not.
    pub fn names(&self) -> Option<String> {
        let fallen = self.fates.fallen.borrow();
        (!fallen.is_empty()).then(|| fallen.join(", "))
    }

    /// From here on everybody may end.
    pub fn stop(&self) {
        self.fates.stopping.store(true, Ordering::Release);
        for (_, thread) in &self.threads {
            thread.thread().unpark();
        }
    }

    /// Waits until all threads have ended, for so long at most. Gives the names of those that have not: they end with
    /// the process.
    pub fn join(&mut self, limit: Duration) -> Vec<&'static str> {
        let (alive, ended) = std::mem::replace(&mut self.alive, bounded(0));
        drop(alive);
        let all_ended = ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected);
        let mut left = Vec::new();
        for (name, thread) in self.threads.drain(..) {
            if !all_ended && !thread.is_finished() {
                left.push(name);
            } else if thread.join().is_err() {
                tracing::error!(thread = name, "the thread had panicked");
            }
        }
        left
    }
}

/// How threads and tasks get on, as of the last look.
pub struct Paces {
    started: Instant,
    last: ArcSwap<Vec<Pace>>,
    /// When somebody looked last, and who was late then.
    looked: Mutex<(Duration, Vec<Arc<str>>)>,
}

impl Paces {
    fn new() -> Self {
        Self { started: Instant::now(), last: ArcSwap::default(), looked: Mutex::default() }
    }

    fn note(&self, paces: Vec<Pace>) {
        let late: Vec<Arc<str>> =
            paces.iter().filter(|pace| pace.late.is_some()).map(|pace| pace.name.clone()).collect();
        self.last.store(Arc::new(paces));
        let mut looked = self.looked.lock();
        looked.0 = self.started.elapsed();
        let before = std::mem::replace(&mut looked.1, late.clone());
        drop(looked);
        for name in late.iter().filter(|name| !before.contains(name)) {
            tracing::error!(stage = &**name, "does not get on although work waits for it");
        }
        for name in before.iter().filter(|name| !late.contains(name)) {
            tracing::info!(stage = &**name, "gets on again");
        }
    }

    /// Who does not get on although work waits, and for how long.
    #[must_use]
    pub fn late(&self) -> Vec<(Arc<str>, Duration)> {
        // Who watches is watched by whoever asks.
        let unseen = self.started.elapsed().saturating_sub(self.looked.lock().0);
        let blind = (unseen >= DEADLINE).then(|| (Arc::from("watch"), unseen));
        let last = self.last.load();
        last.iter().filter_map(|pace| Some((pace.name.clone(), pace.late?))).chain(blind).collect()
    }

    /// The same in words; `None` while everything gets on.
    #[must_use]
    pub fn wrong(&self) -> Option<String> {
        let late: Vec<String> = (self.late().iter())
            .map(|(name, since)| format!("{name} has not got on for {:.0} s", since.as_secs_f64()))
            .collect();
        (!late.is_empty()).then(|| format!("{}, although work waits", late.join(", ")))
    }
}

impl Collect for Paces {
    fn collect(&self, out: &mut Exposition) {
        let last = self.last.load();
        let rows: Vec<([(&str, &str); 1], f64)> = (last.iter())
            .map(|pace| ([("stage", &*pace.name)], pace.late.unwrap_or_default().as_secs_f64()))
            .collect();
        out.family(
            "barograph_stage_late_seconds",
            Kind::Gauge,
            "For how long a thread or task has not got on although work waits for it; 0 while it does.",
            rows.iter().map(|(labels, value)| (labels.as_slice(), *value)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    /// Whoever falls, in time.
    fn fallen(supervisor: &Supervisor, runtime: &tokio::runtime::Runtime) -> Option<String> {
        let fallen = supervisor.fallen();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), fallen).await.ok() })?;
        supervisor.names()
    }

    #[test]
    fn a_task_that_ends_or_panics_is_named() {
        let runtime = runtime();
        for panics in [true, false] {
            let supervisor = Supervisor::new();
            supervisor.task(runtime.handle(), "heartbeat", std::future::pending());
            supervisor.task(runtime.handle(), "outbox", async move {
                assert!(!panics, "on purpose");
            });
            assert_eq!(fallen(&supervisor, &runtime).as_deref(), Some("outbox"), "panics: {panics}");
        }
    }

    #[test]
    fn a_thread_that_ends_fails_or_panics_is_named() {
        let runtime = runtime();
        for how in 0..3 {
            let mut supervisor = Supervisor::new();
            let end = move || match how {
                0 => Ok(()),
                1 => Err(Error::Fallen("something".to_owned())),
                _ => panic!("on purpose"),
            };
            supervisor.thread("judge", "judge".to_owned(), end).unwrap();
            assert_eq!(fallen(&supervisor, &runtime).as_deref(), Some("judge"), "{how}");
            assert!(supervisor.join(ENOUGH).is_empty());
        }
    }

    #[test]
    fn once_everything_stops_only_failures_are_told() {
        let runtime = runtime();
        let mut supervisor = Supervisor::new();
        supervisor.task(runtime.handle(), "outbox", std::future::pending());
        supervisor.stop();
        supervisor.thread("window", "window".to_owned(), || Ok(())).unwrap();
        drop(runtime);
        assert!(supervisor.join(ENOUGH).is_empty());
        assert_eq!(supervisor.names(), None);
        let failing = || Err(Error::Fallen("something".to_owned()));
        supervisor.thread("judge", "judge".to_owned(), failing).unwrap();
        assert!(supervisor.join(ENOUGH).is_empty());
        assert_eq!(supervisor.names().as_deref(), Some("judge"));
    }

    #[test]
    fn a_thread_that_hangs_keeps_nobody_from_stopping() {
        let mut supervisor = Supervisor::new();
        let (release, released) = bounded::<()>(0);
        let hang = move || {
            let _ = released.recv();
            Ok(())
        };
        supervisor.thread("diagnosis", "diagnosis".to_owned(), hang).unwrap();
        supervisor.thread("judge", "judge".to_owned(), || Ok(())).unwrap();
        supervisor.stop();
        let left = supervisor.join(Duration::from_millis(100));
        assert!(left.contains(&"diagnosis"), "{left:?}");
        drop(release);
    }

    const ENOUGH: Duration = Duration::from_secs(60);

    #[test]
    fn who_hangs_is_told_in_words_and_numbers() {
        let paces = Paces::new();
        let pace = |name: &str, late| Pace { name: name.into(), late };
        paces.note(vec![pace("shard-0", None), pace("judge", Some(Duration::from_millis(4_250)))]);
        assert_eq!(paces.wrong().as_deref(), Some("judge has not got on for 4 s, although work waits"),);
        let mut out = Exposition::default();
        paces.collect(&mut out);
        let text = out.finish();
        for line in [
            "barograph_stage_late_seconds{stage=\"shard-0\"} 0",
            "barograph_stage_late_seconds{stage=\"judge\"} 4.25",
        ] {
            assert!(text.contains(line), "{text}");
        }
        paces.note(vec![pace("judge", None)]);
        assert_eq!(paces.wrong(), None);
    }
}
