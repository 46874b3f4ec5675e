//! The daemon: builds the stages in order, runs each on its thread, drains them in order.

mod catching_up;
mod downstream;
#[cfg(test)]
mod forgetting_tests;
#[cfg(test)]
mod schedule_tests;
mod threads;

use super::counting::Counting;
use super::diagnosing::Diagnosing;
use super::judging::Judging;
use super::keeping::Keeping;
use super::objectives::Reloading;
use super::reading::{AllWindows, Daemon, LedgerRecords, Published};
use super::removing::Removing;
use super::supervision::{DEADLINE, Supervisor};
use super::totals::Totals;
use super::{Config, Error};
use crate::access::Access;
use crate::alert::{Heartbeat, Lifecycle, Outbox};
use crate::confirm::{Confirm, Judge};
use crate::detect::Detectors;
use crate::diagnose::{Diagnosis, Keeper, Keepsakes, Retry, Uploading};
use crate::journal::{self, Journal, Lanes};
use crate::limits::{raise_open_files, share_memory_among_threads};
use crate::model::{Clock, SystemClock, Timestamp};
use crate::observe::{Collect, Work};
use crate::probe::Prober;
use crate::receive::{self, Intake as _};
use crate::serve::{self, Api, Sources};
use crate::slo::{Budgets, Files, of_checks};
use crate::store::Store;
use arc_swap::ArcSwap;
use catching_up::catch_up;
use downstream::Downstream;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use threads::start_threads;
use tokio::sync::watch;

/// From the beginning of a stop all threads are waited for so long: with what follows it takes 10 s at most, whatever
/// hangs.
const THREADS_END_WITHIN: Duration = Duration::from_secs(8);
/// Threads for what would keep those that serve connections: long JSON, and names that are looked up. Unless bounded
/// here, each request in hand could have one.
const INGEST_BLOCKING_THREADS: usize = 16;

/// Where the daemon listens, with the real ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub otlp_grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub query: SocketAddr,
    pub http: SocketAddr,
}

/// The running daemon.
pub struct App {
    addresses: Addresses,
    ready: Arc<AtomicBool>,
    journal: journal::Handle,
    supervisor: Supervisor,
    /// Turns true when the ingest ports are to close, then when everything is.
    stop_ingest: watch::Sender<bool>,
    stop_rest: watch::Sender<bool>,
    ingest: tokio::runtime::Runtime,
    ingesting: tokio::task::JoinHandle<()>,
    rest: tokio::runtime::Runtime,
    _lock: journal::Lock,
}

impl App {
    /// Starts everything: restores the last checkpoint, replays the journal from there, opens the ports.
    ///
    /// # Errors
    /// Why the daemon cannot start.
    pub fn start(config: &Config) -> Result<Self, Error> {
        let started = Instant::now();
        share_memory_among_threads();
        let data_dir = &config.general.data_dir;
        // Each port's connections, as many that wait for a seat, and the files of our own.
        let connections =
            config.receive.connections.saturating_add(config.serve.connections.saturating_mul(2));
        let files = connections.saturating_mul(2).saturating_add(512);
        let may = raise_open_files(files);
        if may.is_some_and(|may| may < files) {
            tracing::warn!(wanted = files, may, "fewer files may be open than connections are let in");
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let access = Access::open(&config.access, &config.tls, clock.clone())?;
        for (key, address) in [
            ("listen.otlp_grpc", config.listen.otlp_grpc),
            ("listen.otlp_http", config.listen.otlp_http),
            ("listen.query", config.listen.query),
            ("listen.http", config.listen.http),
        ] {
            access.check_address(key, address)?;
        }
        crate::disk::make_folders(data_dir)
            .map_err(Error::io(format!("cannot make the data directory {}", data_dir.display())))?;
        let lock = journal::lock(data_dir)?;
        let caller_key = receive::CallerKey::of(data_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "callers.key can be neither read nor written: after a restart callers are others");
            receive::CallerKey::random()
        });
        let evidence = data_dir.join("evidence");
        std::fs::create_dir_all(&evidence)
            .map_err(Error::io(format!("cannot make {}", evidence.display())))?;

        let store = Store::open(data_dir, config.store.clone())?;
        let checkpoint = store.checkpoint()?;
        let registry = store.registry(config.aggregate.series)?;
        let resume = checkpoint.as_ref().map(|checkpoint| checkpoint.cut.through);
        let (mut sequencer, lanes, recorder) =
            Journal::open(&data_dir.join("journal"), &config.journal, clock.clone(), resume)?;

        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = u16::try_from((cores / 2).max(1)).unwrap_or(1);
        let mut counting = Counting::new(
            shards,
            &config.aggregate,
            config.window.clone(),
            registry.clone(),
            &recorder.index(),
        );
        let ledger = store.ledger();
        let mut objective_files = Files::new(config.slo.files.clone()).with(of_checks(&config.probe.checks));
        let reloading = Arc::new(Reloading::default());
        let definitions = reloading.take(objective_files.changed()?.unwrap_or_default());
        let mut judging = Judging::new(
            Judge::new(
                Budgets::new(config.slo.clone(), definitions),
                Detectors::new(config.detect.clone(), false),
                Confirm::new(config.confirm.clone()),
            ),
            Lifecycle::new(config.alert.clone()),
            ledger.clone(),
            registry.clone(),
        );
        judging.complete_after(config.diagnose.complete_after.0);
        let totals = Arc::new(checkpoint.as_ref().map_or_else(Totals::default, Totals::from_checkpoint));
        if let Some(checkpoint) = &checkpoint {
            counting.restore(&checkpoint.parts)?;
            judging.restore(&checkpoint.parts, &store.pieces()?)?;
            counting.windows.seed_recent(store.recent(checkpoint.cut.arrived, 60));
        }
        counting.set_indicators(&judging.judge.budgets.indicators());
        let budgets = judging.judge.budgets.published();
        let adjustments = judging.judge.budgets.published_adjustments();
        let downstream = Downstream {
            store: store.clone(),
            indicators: Arc::new(ArcSwap::new(judging.judge.budgets.indicators())),
            false_pages: Arc::new(ArcSwap::from_pointee(judging.judge.confirm.budget(Timestamp::ZERO))),
            judging: Arc::new(Mutex::new(judging)),
            topology: counting.windows.published(),
        };
        let judging = downstream.judging.clone();
        judging.lock().begin_replay();
        let unanswered =
            catch_up(&mut sequencer, &mut counting, &downstream, &totals, checkpoint.as_ref(), &*clock)?;

        let mut supervisor = Supervisor::new();
        let rest = side_runtime(2)?;
        let ingest = ingest_runtime((cores / 2).max(1), &lanes)?;
        let (stop_ingest, ingest_stopping) = watch::channel(false);
        let (stop_rest, rest_stopping) = watch::channel(false);

        // Ports first, so that a taken one is told before anything runs.
        let (query, http, server) = {
            let _in_it = ingest.enter();
            let query = listen("listen.query", config.listen.query)?;
            let http = listen("listen.http", config.listen.http)?;
            let server = receive::Server::bind(
                config.listen.otlp_grpc,
                config.listen.otlp_http,
                Arc::new(lanes),
                access.clone(),
                &config.receive,
                caller_key,
            )
            .map_err(|error| Error::Listen {
                key: if error.protocol == "OTLP/gRPC" { "listen.otlp_grpc" } else { "listen.otlp_http" },
                address: error.address,
                source: error.source,
            })?;
            (query, http, server)
        };
        server.expect_again(unanswered);
        let addresses = Addresses {
            otlp_grpc: server.grpc_address(),
            otlp_http: server.http_address(),
            query: query.local_addr().map_err(Error::io("the query port"))?,
            http: http.local_addr().map_err(Error::io("the HTTP port"))?,
        };

        let external = match config.alert.external_url.as_str() {
            "" => format!("{}://{}", if access.has_tls() { "https" } else { "http" }, addresses.http),
            url => url.trim_end_matches('/').to_owned(),
        };
        let heartbeat = Heartbeat::new(&config.alert, clock.clone())?;
        let outbox = Outbox::new(config.alert.clone(), Arc::new(ledger.clone()), clock.clone())?;
        let keepsakes = open_keepsakes(&data_dir.join("keepsakes"), &config.diagnose, clock.now());
        let uploading = Uploading::open(
            &config.diagnose,
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
            Retry::default(),
            ledger.clone(),
            clock.clone(),
        )
        .map_err(Error::EvidenceStore)?;
        let (prober, probed) = Prober::new(&config.probe, clock.clone());
        {
            let mut judging = judging.lock();
            judging.link(format!("{external}/evidence/"));
            judging.tell_without_ledger(outbox.clone());
            judging.watch(prober.standings());
            judging.go_live()?;
        }

        let alerts = ledger.clone();
        let ready = Arc::new(AtomicBool::new(false));
        let counters = server.counters();
        let snapshot = counting.windows.published();
        let condition = Arc::new(Daemon {
            started,
            ready: ready.clone(),
            totals: totals.clone(),
            counters: counters.clone(),
            series_limit: config.aggregate.series,
            registry: registry.clone(),
            recorder: recorder.clone(),
            keepsakes: keepsakes.clone(),
            false_pages: downstream.false_pages.clone(),
            objective_files: reloading.clone(),
            paces: supervisor.paces(),
        });
        let reload = reloading.clone().run(objective_files, judging.clone(), rest_stopping.clone());
        supervisor.task(rest.handle(), "reading of objectives", reload);
        let removing = Removing::new(
            evidence.clone(),
            config.diagnose.clone(),
            judging.clone(),
            ledger.clone(),
            clock.clone(),
        );
        supervisor.task(rest.handle(), "removal of evidence", removing.clone().run(rest_stopping.clone()));
        let diagnosis = Diagnosis::new(config.diagnose.clone(), evidence.clone());
        let windows = Arc::new(AllWindows { snapshot, store });
        let diagnosing = Arc::new(Diagnosing::new(
            match &keepsakes {
                Some(keepsakes) => diagnosis.with_keepsakes(keepsakes.clone()),
                None => diagnosis,
            },
            recorder.clone(),
            (windows.clone(), registry.clone()),
            clock,
            rest.handle().clone(),
            uploading.clone(),
        ));
        let mut metrics: Vec<Arc<dyn Collect>> = vec![
            totals.clone(),
            counters.clone(),
            Arc::new(outbox.clone()),
            prober.standings(),
            condition.clone(),
            access.clone(),
            reloading.clone(),
            diagnosing.clone(),
            removing,
            supervisor.paces(),
        ];
        if let Some(keepsakes) = &keepsakes {
            metrics.push(keepsakes.clone());
        }
        if let Some(uploading) = uploading {
            metrics.push(uploading.clone());
            let resumed = uploading.clone();
            rest.spawn_blocking(move || resumed.resume());
            supervisor.task(rest.handle(), "upload of evidence", uploading.run(rest_stopping.clone()));
        }
        let api = Api::new(
            Sources {
                windows,
                registry,
                records: Arc::new(LedgerRecords(ledger)),
                objectives: Arc::new(Published {
                    budgets,
                    adjustments,
                    checks: prober.standings(),
                    files: reloading,
                }),
                condition,
                evidence: evidence.clone(),
                recorded: Arc::new(recorder.clone()),
                keepsakes: keepsakes.clone(),
                diagnose: config.diagnose.clone(),
                metrics,
                config: config.serve.clone(),
                access: access.clone(),
            },
            rest_stopping.clone(),
        );

        let journal = sequencer.handle();
        let keeping = keepsakes.filter(|_| config.diagnose.keepsake_bytes.0 > 0).map(|keepsakes| Keeping {
            keeper: Keeper::new(keepsakes, &config.diagnose),
            recorder: recorder.clone(),
            counters,
        });
        start_threads(
            &mut supervisor,
            sequencer,
            counting,
            downstream,
            totals,
            &journal,
            &diagnosing,
            keeping,
        )?;

        let (side, io) = (rest.handle(), ingest.handle());
        supervisor.watch_runtime("side runtime", side);
        supervisor.watch_runtime("io runtime", io);
        supervisor.task(side, "reading of credentials", access.watch());
        supervisor.server(side, "query server", serve::serve_grpc(query, api.clone()));
        let pages = crate::web::serve_http(http, api, rest_stopping.clone());
        supervisor.server(side, "HTTP server", pages);
        for (name, beat) in outbox.beats() {
            supervisor.watch(name, beat, DEADLINE, Work::Begun);
        }
        let last = alerts.watch();
        let reads = Work::UpTo(Box::new(move || *last.borrow()));
        supervisor.watch("outbox", outbox.follows(), DEADLINE, reads);
        supervisor.task(side, "outbox", outbox.clone().follow(alerts, rest_stopping.clone()));
        supervisor.task(side, "delivery of alerts", outbox.run(rest_stopping.clone()));
        let paces = supervisor.paces();
        // What tells that we are alive, or how long others take, must not wait for our queries.
        let beat = heartbeat.run(Arc::new(move || paces.wrong()), rest_stopping);
        supervisor.task(io, "heartbeat", beat);
        // Where requests are served, so that they enter as those do.
        let admit = Prober::admit(probed, server.inlet());
        supervisor.task(io, "admission of checks", admit);
        supervisor.task(io, "prober", prober.run(ingest_stopping.clone()));
        let mut stopping = ingest_stopping;
        let serve = server.run(async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        });
        let ingesting = supervisor.awaited_task(io, "OTLP server", serve);
        supervisor.look()?;
        ready.store(true, Ordering::Release);
        Ok(Self {
            addresses,
            ready,
            journal,
            supervisor,
            stop_ingest,
            stop_rest,
            ingest,
            ingesting,
            rest,
            _lock: lock,
        })
    }

    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Does work that needs a runtime to be about, such as waiting for signals.
    pub fn within_runtime<T>(&self, work: impl FnOnce() -> T) -> T {
        let _within = self.ingest.enter();
        work()
    }

    /// Waits for `stop`, or for a thread or task to fall; then drains: ports, journal, shards, windows, judge,
    /// checkpoint, and at last queries and alerts.
    ///
    /// # Errors
    /// If a thread or task had fallen.
    pub fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let fallen = self.supervisor.fallen();
        self.ingest.block_on(async {
            tokio::select! {
                () = stop => {}
                () = fallen => {}
            }
        });
        let begun = Instant::now();
        self.ready.store(false, Ordering::Release);
        self.supervisor.stop();
        if let Some(names) = self.supervisor.names() {
            tracing::error!(names, "stopping, because what must not end has ended");
        }
        self.stop_ingest.send_replace(true);
        let _ = self.ingest.block_on(&mut self.ingesting);
        self.journal.close();
        let left = self.supervisor.join(THREADS_END_WITHIN.saturating_sub(begun.elapsed()));
        if !left.is_empty() {
            let threads = left.join(", ");
            tracing::error!(threads, "stopping without these: what their checkpoint lacks is in the journal");
        }
        self.stop_rest.send_replace(true);
        self.rest.shutdown_timeout(Duration::from_secs(2));
        match self.supervisor.names() {
            Some(names) => Err(Error::Fallen(names)),
            None => Ok(()),
        }
    }
}

/// The folder of keepsakes; without it everything else goes on.
fn open_keepsakes(
    folder: &std::path::Path,
    config: &crate::diagnose::Config,
    now: Timestamp,
) -> Option<Arc<Keepsakes>> {
    match Keepsakes::open(folder, config, now) {
        Ok(keepsakes) => Some(Arc::new(keepsakes)),
        Err(error) => {
            tracing::error!(%error, "there are no keepsakes");
            None
        }
    }
}

/// Workers for all that nobody's spans wait for: queries, pages, alerts. Where there is too little CPU for
/// everything, answers come later rather than acknowledgements.
fn side_runtime(workers: usize) -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("barograph-side")
        .on_thread_start(super::give_way)
        .enable_all()
        .build()
        .map_err(Error::io("cannot start threads"))
}

/// Workers that tell the sequencer of what they handed over before they wait.
fn ingest_runtime(workers: usize, lanes: &Lanes) -> Result<tokio::runtime::Runtime, Error> {
    let lanes = lanes.clone();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("barograph-io")
        .on_thread_start(Lanes::announces_at_rest)
        .on_thread_park(move || lanes.announce())
        .max_blocking_threads(INGEST_BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(Error::io("cannot start threads"))
}

fn listen(key: &'static str, address: SocketAddr) -> Result<tokio::net::TcpListener, Error> {
    crate::limits::listen(address).map_err(|source| Error::Listen { key, address, source })
}
