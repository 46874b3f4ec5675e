//! The daemon: builds the stages in order, runs each on its thread, drains them in order.

use super::counting::Counting;
use super::diagnosing::Diagnosing;
use super::judging::{Job, Judging};
use super::keeping::{Keeping, Settled};
use super::mailbox::{Mailbox, Merge};
use super::objectives::Reloading;
use super::reading::{AllWindows, Daemon, LedgerRecords, Published};
use super::removing::Removing;
use super::supervision::{DEADLINE, Supervisor};
use super::totals::{Sums, Totals};
use super::{Config, Error};
use crate::access::Access;
use crate::aggregate::{Indicator, Partial, Shard};
use crate::alert::{Heartbeat, Lifecycle, Outbox};
use crate::confirm::{Confirm, Judge};
use crate::detect::Detectors;
use crate::diagnose::{Diagnosis, Keeper, Keepsakes, Retry, Uploading};
use crate::journal::{self, Cut, Journal, Lanes, Position, Sequencer, Step, StepReceiver};
use crate::limits::{give_back_free_memory, raise_open_files, share_memory_among_threads};
use crate::model::{Clock, SystemClock, Timestamp};
use crate::observe::{Beat, Collect, Work};
use crate::probe::Prober;
use crate::receive::{self, Intake as _, Print};
use crate::serve::{self, Api, Sources};
use crate::slo::{Budgets, Files, of_checks};
use crate::store::{Checkpoint, Store};
use crate::window::{Merged, Windows};
use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Steps that wait for one shard.
const SHARD_STEPS: usize = 4_096;
/// Cuts that the window stage may lag behind; then the shards wait for it, and senders are told to.
const PARTIALS_OF_A_SHARD: usize = 60;
/// Diagnoses at once, and how many may wait.
const DIAGNOSES: usize = 2;
const DIAGNOSES_WAITING: usize = 64;
/// How long a diagnosis may take: it gives way to everything else, and alerts do not wait for it.
const DIAGNOSED_WITHIN: Duration = Duration::from_secs(120);
/// A shard shows that it gets on with each cut, and each time it has counted so many requests.
const SHARD_REQUESTS_A_BEAT: u32 = 64;

/// Parts of the journal that wait to be looked at for keepsakes; those beyond are part of the next.
const KEEPSAKE_PARTS: usize = 16;

/// How long before a crash a request may have been recorded and not yet answered, and how many of those are
/// looked out for when they come again.
const UNANSWERED_FOR: Duration = Duration::from_secs(5);
const UNANSWERED: usize = 65_536;

/// Where the daemon listens, with the real ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub otlp_grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub query: SocketAddr,
    pub http: SocketAddr,
}

/// What one cut brought, on its way to the judge.
struct Batch {
    merged: Merged,
    sums: Sums,
    /// States of shards and windows, when the cut is a checkpoint.
    parts: Option<BTreeMap<String, Vec<u8>>>,
}

impl Merge for Batch {
    fn merge(&mut self, later: Self) -> Result<(), Self> {
        // The judge's state must be that of the checkpoint's cut.
        if self.parts.is_some() {
            return Err(later);
        }
        self.merged.tick.merge(later.merged.tick);
        self.merged.sealed.extend(later.merged.sealed);
        self.merged.amendments.extend(later.merged.amendments);
        self.sums = later.sums;
        self.parts = later.parts;
        Ok(())
    }
}

/// Everything that the stages after counting need, on whichever thread they run.
struct Downstream {
    store: Store,
    judging: Arc<Mutex<Judging>>,
    indicators: Arc<ArcSwap<Vec<Indicator>>>,
    topology: Arc<ArcSwap<crate::window::Snapshot>>,
    /// False pages accepted in a week, and spent of them.
    false_pages: Arc<ArcSwap<(f64, f64)>>,
}

impl Downstream {
    /// Stores and judges a cut; commits the checkpoint if it is one. Gives the diagnoses that are due,
    /// and how far the journal may be recycled.
    fn step(&self, batch: Batch) -> Result<(Vec<Job>, Option<Position>), Error> {
        let Batch { merged, sums, parts } = batch;
        let cut = merged.tick.cut;
        self.store.add_series(cut, &merged.tick.new);
        for window in &merged.sealed {
            self.store.seal(window.clone());
        }
        for amendment in &merged.amendments {
            self.store.amend(amendment.clone());
        }
        let topology = self.topology.load().topology.clone();
        let mut judging = self.judging.lock();
        let judged = judging.step(&merged.tick, &merged.sealed, &topology)?;
        // Whoever met it: what the disk failed to take is never tried again.
        if let Some(why) = self.store.poisoned() {
            return Err(crate::store::Error::Poisoned(why).into());
        }
        let indicators = judging.judge.budgets.indicators();
        if !Arc::ptr_eq(&indicators, &self.indicators.load()) {
            self.indicators.store(indicators);
        }
        self.false_pages.store(Arc::new(judging.judge.confirm.budget(cut.arrived)));
        let Some(mut parts) = parts.filter(|_| !judging.is_unwritten()) else {
            return Ok((judged.jobs, None));
        };
        parts.extend(judging.state()?);
        let pieces = judging.judge.budgets.unsaved();
        drop(judging);
        let Sums { accepted, rejected, late, .. } = sums;
        let checkpoint = Checkpoint { cut, parts, pieces, accepted, rejected, late };
        let committed = match self.store.commit(&checkpoint) {
            Ok(()) => {
                self.judging.lock().judge.budgets.saved(&checkpoint.pieces);
                Some(cut.through)
            }
            Err(error @ crate::store::Error::Poisoned(_)) => return Err(error.into()),
            Err(error) => {
                // The disk is full. The journal keeps what the last checkpoint does not hold; the next one tries again.
                tracing::error!(%error, "the checkpoint could not be written");
                None
            }
        };
        drop(checkpoint);
        // All states at once, written out, and a block's worth of windows.
        give_back_free_memory();
        Ok((judged.jobs, committed))
    }
}

/// Names of the parts that the counting stages put into a checkpoint.
fn counted_parts(merged: &mut Merged) -> Option<BTreeMap<String, Vec<u8>>> {
    let window = merged.state.take()?;
    let shards = std::mem::take(&mut merged.shard_states);
    let mut parts: BTreeMap<String, Vec<u8>> =
        shards.into_iter().map(|(number, state)| (format!("shard/{number}"), state)).collect();
    parts.insert("window".to_owned(), window);
    Some(parts)
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
        let query = ingest.block_on(listen("listen.query", config.listen.query))?;
        let http = ingest.block_on(listen("listen.http", config.listen.http))?;
        let server = ingest
            .block_on(receive::Server::bind(
                config.listen.otlp_grpc,
                config.listen.otlp_http,
                Arc::new(lanes),
                access.clone(),
                &config.receive,
            ))
            .map_err(|error| Error::Listen {
                key: if error.protocol == "OTLP/gRPC" { "listen.otlp_grpc" } else { "listen.otlp_http" },
                address: error.address,
                source: error.source,
            })?;
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
        let diagnosing = Arc::new(Diagnosing::new(
            match &keepsakes {
                Some(keepsakes) => diagnosis.with_keepsakes(keepsakes.clone()),
                None => diagnosis,
            },
            recorder.clone(),
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
                windows: Arc::new(AllWindows { snapshot, store }),
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
        self.ready.store(false, Ordering::Release);
        self.supervisor.stop();
        if let Some(names) = self.supervisor.names() {
            tracing::error!(names, "stopping, because what must not end has ended");
        }
        self.stop_ingest.send_replace(true);
        let _ = self.ingest.block_on(&mut self.ingesting);
        self.journal.close();
        self.supervisor.join();
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

/// Replays what was recorded after the checkpoint, then passes over the time in which nobody was there:
/// one cut that is a checkpoint itself, so that the next restart does not live through it again. Gives the
/// requests that may not have been answered before the end: those that arrived last.
fn catch_up(
    sequencer: &mut Sequencer,
    counting: &mut Counting,
    downstream: &Downstream,
    totals: &Totals,
    checkpoint: Option<&Checkpoint>,
    clock: &dyn Clock,
) -> Result<VecDeque<(Print, u64)>, Error> {
    let after = checkpoint.map(|checkpoint| checkpoint.cut);
    let mut last = after.map_or(Timestamp::ZERO, |cut| cut.arrived);
    let begun = Instant::now();
    let mut newest = VecDeque::new();
    let replayed = sequencer.replay(after, |step| {
        if let Step::Work { arrived, at, request } = &step {
            last = last.max(*arrived);
            newest.push_back((*arrived, Print::of(request.signal, request.encoding, &request.wire), at.0));
            while newest.len() > UNANSWERED
                || newest.front().is_some_and(|(arrived, ..)| last.since(*arrived) > UNANSWERED_FOR)
            {
                newest.pop_front();
            }
        }
        counted(counting, downstream, totals, step).map(|_| ())
    })?;
    if replayed != journal::Replayed::default() {
        let took_ms = begun.elapsed().as_millis();
        tracing::info!(
            records = replayed.records,
            bytes = sequencer.end().0.saturating_sub(after.map_or(0, |cut| cut.through.0)),
            unreadable = replayed.unreadable,
            damaged = replayed.damage.len(),
            quarantined = replayed.quarantined,
            took_ms,
            "replayed the journal"
        );
    }
    let unanswered = newest.into_iter().map(|(_, print, at)| (print, at)).collect();
    if last == Timestamp::ZERO {
        return Ok(unanswered);
    }
    // Never before what was recorded, whatever the wall clock says.
    let number = clock.now().secs().max(last.secs().saturating_add(1));
    let arrived = Timestamp::from_secs(number);
    counting.windows.note_gap(last, arrived);
    let cut = Cut { number, arrived, through: sequencer.end(), checkpoint: true };
    if let Some(through) = counted(counting, downstream, totals, Step::Barrier(cut))? {
        sequencer.handle().set_checkpoint(through);
    }
    sequencer.resume_after(cut);
    Ok(unanswered)
}

/// Counts a step and judges what it brings, on this thread. Gives how far a checkpoint holds everything,
/// if one was committed.
fn counted(
    counting: &mut Counting,
    downstream: &Downstream,
    totals: &Totals,
    step: Step,
) -> Result<Option<Position>, Error> {
    let Some(mut merged) = counting.step(step) else { return Ok(None) };
    let sums = totals.add(&merged);
    let parts = counted_parts(&mut merged);
    let before = downstream.indicators.load_full();
    let (_, through) = downstream.step(Batch { merged, sums, parts })?;
    let indicators = downstream.indicators.load_full();
    if !Arc::ptr_eq(&before, &indicators) {
        counting.set_indicators(&indicators);
    }
    Ok(through)
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
        .enable_all()
        .build()
        .map_err(Error::io("cannot start threads"))
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<tokio::net::TcpListener, Error> {
    tokio::net::TcpListener::bind(address).await.map_err(|source| Error::Listen { key, address, source })
}

/// Takes the counting stages apart, one thread each. They end in this order once the journal is closed:
/// each when the one before it has gone and everything it left is done.
#[allow(clippy::too_many_arguments, reason = "the wiring at a glance")]
fn start_threads(
    spawn: &mut Supervisor,
    sequencer: Sequencer,
    counting: Counting,
    downstream: Downstream,
    totals: Arc<Totals>,
    journal: &journal::Handle,
    diagnosing: &Arc<Diagnosing>,
    keeping: Option<Keeping>,
) -> Result<(), Error> {
    let Counting { shards, windows } = counting;
    let mut senders = Vec::new();
    let of = shards.len();
    let up_to = |beat: &Arc<Beat>| -> Box<dyn Fn() -> u64 + Send> {
        let beat = beat.clone();
        Box::new(move || beat.count())
    };
    let stamped = journal.beat();
    spawn.watch("sequencer", stamped.clone(), DEADLINE, Work::Always);
    spawn.watch("journal-helper", journal.helper_beat(), DEADLINE, Work::Always);
    let mut counted = Vec::new();
    let (partials, partials_received) = bounded(PARTIALS_OF_A_SHARD * of);
    for (number, shard) in shards.into_iter().enumerate() {
        let (sender, receiver) = journal::steps(SHARD_STEPS);
        senders.push(sender);
        let (partials, indicators) = (partials.clone(), downstream.indicators.clone());
        let name = format!("shard-{number}");
        let beat = Arc::new(Beat::default());
        spawn.watch(name.clone(), beat.clone(), DEADLINE, Work::Cuts(up_to(&stamped)));
        counted.push(beat.clone());
        spawn.thread("shard", name, move || {
            run_shard(shard, &receiver, &partials, &indicators, &beat);
            Ok(())
        })?;
    }
    drop(partials);
    let mailbox = Arc::new(Mailbox::default());
    let to_judge = mailbox.clone();
    let (merged, judged) = (Arc::new(Beat::default()), Arc::new(Beat::default()));
    let complete = move || counted.iter().map(|beat| beat.count()).min().unwrap_or_default();
    spawn.watch("window", merged.clone(), DEADLINE, Work::Cuts(Box::new(complete)));
    spawn.watch("judge", judged.clone(), DEADLINE, Work::Cuts(up_to(&merged)));
    spawn.thread("window", "window".to_owned(), move || {
        run_windows(windows, of, &partials_received, &to_judge, &totals, &merged);
        to_judge.close();
        Ok(())
    })?;
    let (jobs, jobs_received) = bounded(DIAGNOSES_WAITING);
    let (judging, handle) = (downstream.judging.clone(), journal.clone());
    let left = jobs_received.clone();
    let (settled, settled_received) = bounded(KEEPSAKE_PARTS);
    spawn.thread("judge", "judge".to_owned(), move || {
        let done = run_judge(&downstream, &mailbox, &jobs, &settled, &handle, &judged);
        // A stop waits only for what is under way: the next start plans the rest again.
        while left.try_recv().is_ok() {}
        done
    })?;
    for number in 0..DIAGNOSES {
        let (jobs, judging, diagnosing) = (jobs_received.clone(), judging.clone(), diagnosing.clone());
        let (name, beat) = (format!("diagnose-{number}"), Arc::new(Beat::default()));
        spawn.watch(name.clone(), beat.clone(), DIAGNOSED_WITHIN, Work::Begun);
        spawn.thread("diagnose", name, move || {
            diagnosing.run(&jobs, &judging, &beat);
            Ok(())
        })?;
    }
    if let Some(keeping) = keeping {
        spawn.thread("keepsakes", "keepsakes".to_owned(), move || {
            keeping.run(&settled_received);
            Ok(())
        })?;
    }
    spawn.thread("sequencer", "sequencer".to_owned(), move || Ok(sequencer.run(&senders)?))
}

fn run_shard(
    mut shard: Shard,
    steps: &StepReceiver,
    partials: &Sender<Partial>,
    indicators: &ArcSwap<Vec<Indicator>>,
    beat: &Beat,
) {
    let mut counted = indicators.load_full();
    let mut requests = 0u32;
    while let Some(step) = steps.receive() {
        match step {
            Step::Work { at, arrived, request } => {
                shard.apply(at, arrived, &request);
                request.release();
                // Much may lie between two cuts.
                requests = requests.wrapping_add(1);
                if requests.is_multiple_of(SHARD_REQUESTS_A_BEAT) {
                    beat.step();
                }
            }
            Step::Barrier(cut) => {
                if partials.send(shard.cut(cut)).is_err() {
                    return;
                }
                beat.done(cut.number);
                let wanted = indicators.load_full();
                if !Arc::ptr_eq(&wanted, &counted) {
                    shard.set_indicators(wanted.clone());
                    counted = wanted;
                }
            }
        }
    }
}

fn run_windows(
    mut windows: Windows,
    shards: usize,
    partials: &Receiver<Partial>,
    judge: &Mailbox<Batch>,
    totals: &Totals,
    beat: &Beat,
) {
    let mut gathering = Gathering::new(shards);
    while let Ok(partial) = partials.recv() {
        if let Some((cut, partials)) = gathering.take(partial) {
            judge.post(merge(&mut windows, cut, partials, totals));
            beat.done(cut.number);
        }
    }
}

/// Partials of cuts, until those of all shards are there.
struct Gathering {
    shards: usize,
    waiting: BTreeMap<u64, Vec<Partial>>,
}

impl Gathering {
    fn new(shards: usize) -> Self {
        Self { shards, waiting: BTreeMap::new() }
    }

    /// Takes a partial; gives all of its cut if it is the last one.
    fn take(&mut self, partial: Partial) -> Option<(Cut, Vec<Partial>)> {
        let cut = partial.cut;
        let of_cut = self.waiting.entry(cut.number).or_default();
        of_cut.push(partial);
        if of_cut.len() < self.shards {
            return None;
        }
        self.waiting.remove(&cut.number).map(|partials| (cut, partials))
    }
}

fn merge(windows: &mut Windows, cut: Cut, partials: Vec<Partial>, totals: &Totals) -> Batch {
    let mut merged = windows.merge(cut, partials);
    let sums = totals.add(&merged);
    let parts = counted_parts(&mut merged);
    Batch { merged, sums, parts }
}

fn run_judge(
    downstream: &Downstream,
    mailbox: &Mailbox<Batch>,
    jobs: &Sender<Job>,
    settled: &Sender<Settled>,
    journal: &journal::Handle,
    beat: &Beat,
) -> Result<(), Error> {
    while let Some(batch) = mailbox.take() {
        let Cut { number, arrived, .. } = batch.merged.tick.cut;
        let (due, through) = downstream.step(batch)?;
        beat.done(number);
        if let Some(through) = through {
            journal.set_checkpoint(through);
            // When too many wait, this part is looked at with the next.
            let _ = settled.try_send((arrived, through));
        }
        for job in due {
            if let Err(error) = jobs.try_send(job) {
                tracing::warn!(%error, "a diagnosis is left out: too many are waiting");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod forgetting_tests;
#[cfg(test)]
mod schedule_tests;
