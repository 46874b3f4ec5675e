//! What the API reads, taken from where the stages publish it.

use super::objectives::Reloading;
use super::supervision::Paces;
use super::totals::Totals;
use crate::api::v1;
use crate::diagnose::Keepsakes;
use crate::journal::Recorder;
use crate::limits::UntimelyReason;
use crate::model::{ServiceKey, Timestamp, WINDOW, WindowId};
use crate::observe::{Collect, Exposition, Kind};
use crate::probe::{Standing, Standings};
use crate::receive::{CallerTag, Counters};
use crate::serve::{Condition, Objectives, Piece, Records, Windows, service, to_proto};
use crate::slo::{Adjustment, Budget, DataState};
use crate::store::{Ledger, LedgerRecord, Level, Stage, Store};
use crate::window::{Registry, Snapshot, crowd, crowd_of_services};
use arc_swap::ArcSwap;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Windows that are open, sealed and stored.
pub struct AllWindows {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub store: Store,
}

/// How long ago a window must have been for every roll-up of it to be complete.
const SETTLED: Duration = Duration::from_secs(600);

impl Windows for AllWindows {
    fn now(&self) -> Timestamp {
        self.snapshot.load().cut.arrived
    }

    fn visit(
        &self,
        since: Timestamp,
        until: Timestamp,
        visit: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        // The snapshot first: what is sealed meanwhile is then found in the store and taken from there.
        let snapshot = self.snapshot.load_full();
        // Sealed windows lie before the open ones, which the snapshot has.
        let end = until.min(snapshot.cut.arrived.saturating_add(WINDOW * 2));
        // A range without an end is as long as what there is of it.
        let step = Level::for_range(end.since(since));
        // What is not long sealed is read window by window: its roll-ups may not be complete.
        let recent = step.slot(WindowId::of(snapshot.cut.arrived.saturating_sub(SETTLED))).start();
        let mut held = BTreeSet::new();
        let mut last = None;
        for (from, to, step) in [(since, end.min(recent), step), (since.max(recent), end, Level::Seconds10)] {
            let mut at = from;
            while at < to {
                // Piece by piece, so that a long range is never in memory as a whole.
                let next = step.slot(WindowId::of(at)).start().saturating_add(step.width() * 60).min(to);
                for stored in self.store.windows(at, next, step) {
                    // Where fine windows were deleted, two ranges may get the same coarse one.
                    if last.replace((stored.level, stored.window.id))
                        == Some((stored.level, stored.window.id))
                    {
                        continue;
                    }
                    if stored.level == Level::Seconds10 {
                        held.insert(stored.window.id);
                    }
                    let stop = stored.window.id.start().saturating_add(stored.level.width());
                    if visit(Piece::sealed(&stored.window, stop)).is_break() {
                        return Ok(());
                    }
                }
                at = next;
            }
        }
        let wanted = |start: Timestamp, stop: Timestamp| start < until && stop > since;
        for window in snapshot.sealed.iter() {
            let (start, stop) = (window.id.start(), window.id.end());
            if wanted(start, stop)
                && !held.contains(&window.id)
                && visit(Piece::sealed(window, stop)).is_break()
            {
                return Ok(());
            }
            held.insert(window.id);
        }
        for open in snapshot.open.iter() {
            let (start, end) = (open.id.start(), open.id.end());
            if wanted(start, end) && !held.contains(&open.id) {
                let piece = Piece { start, end, cells: &open.cells, edges: &open.edges };
                if visit(piece).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The ledger as the API reads and writes it.
pub struct LedgerRecords(pub Ledger);

impl Records for LedgerRecords {
    fn read_after(&self, sequence: u64, at_most: usize) -> Result<Vec<LedgerRecord>, String> {
        self.0.read_from(sequence.saturating_add(1), at_most).map_err(|error| error.to_string())
    }

    fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.watch()
    }

    fn append(
        &self,
        at: Timestamp,
        stage: Stage,
        object: &str,
        key: &str,
        payload: Value,
    ) -> Result<Option<u64>, String> {
        self.0.append(at, stage, object, key, &payload).map_err(|error| error.to_string())
    }
}

/// The published budgets, and the times that do not count in them.
pub struct Published {
    pub budgets: Arc<ArcSwap<Vec<Budget>>>,
    pub adjustments: Arc<ArcSwap<Vec<Adjustment>>>,
    pub checks: Arc<Standings>,
    pub files: Arc<Reloading>,
}

impl Objectives for Published {
    fn slos(&self) -> Vec<v1::Slo> {
        let mut slos: Vec<v1::Slo> = self.budgets.load().iter().map(slo).collect();
        slos.sort_by(|a, b| {
            let key = |slo: &v1::Slo| {
                let service = slo.service.clone().unwrap_or_default();
                (service.environment, service.namespace, service.name, slo.slo.clone())
            };
            key(a).cmp(&key(b))
        });
        slos
    }

    fn adjustments(&self) -> Vec<Adjustment> {
        self.adjustments.load().to_vec()
    }

    fn refused_files(&self) -> Vec<v1::RefusedFile> {
        self.files.refused()
    }

    fn defined(&self) -> Arc<Vec<(String, String)>> {
        self.files.defined()
    }

    fn checks(&self) -> Vec<v1::Check> {
        self.checks.now().into_iter().map(check).collect()
    }
}

fn check(standing: Standing) -> v1::Check {
    let Standing { check, runs, failed_runs, last, since } = standing;
    let (last_at, took, outcome) = match last {
        Some((at, took, outcome)) => (Some(at), took, outcome),
        None => Default::default(),
    };
    v1::Check {
        name: check.name,
        url: check.target.to_string(),
        service: check.service,
        runs,
        failed_runs,
        last_at: last_at.map(to_proto),
        last_took_ns: i64::try_from(took.as_nanos()).unwrap_or(i64::MAX),
        error: outcome.error.unwrap_or_default(),
        since: since.map(to_proto),
    }
}

fn slo(budget: &Budget) -> v1::Slo {
    let state = match budget.state {
        DataState::Ok => v1::DataState::Ok,
        DataState::Quiet => v1::DataState::Quiet,
        DataState::Silent => v1::DataState::Silent,
        DataState::Gone => v1::DataState::Gone,
    };
    v1::Slo {
        slo: budget.slo.clone(),
        service: Some(service(&budget.service)),
        target: budget.target,
        window_ns: i64::try_from(budget.window.as_nanos()).unwrap_or(i64::MAX),
        state: state.into(),
        good: budget.good,
        total: budget.total,
        budget_remaining_ratio: budget.budget_remaining_ratio,
        burn: budget
            .burn
            .iter()
            .map(|&(window, rate)| v1::Burn { window: window.to_owned(), rate })
            .collect(),
        exhausted_at: budget.exhausted_at.map(to_proto),
        is_default: budget.default,
        users_affected: budget.users.map(|(affected, _)| affected),
        users: budget.users.map(|(_, all)| all),
        counted_since: budget.counted_since.map(to_proto),
        silent_until: budget.silent_until.map(to_proto),
        excluded_ns: i64::try_from(budget.excluded.as_nanos()).unwrap_or(i64::MAX),
    }
}

/// Services that the status names for their many series, and callers for their many services.
const CROWDED_TOLD: usize = 5;
/// Services that are told for items whose time was not followed.
const UNTIMELY_TOLD: usize = 10;

/// How the daemon itself is.
pub struct Daemon {
    pub started: Instant,
    pub ready: Arc<AtomicBool>,
    pub totals: Arc<Totals>,
    pub counters: Arc<Counters>,
    pub series_limit: u64,
    pub registry: Arc<Registry>,
    pub recorder: Recorder,
    pub keepsakes: Option<Arc<Keepsakes>>,
    /// False pages accepted in a week, and spent of them, as of the last cut: whoever asks must not wait
    /// for the judge.
    pub false_pages: Arc<ArcSwap<(f64, f64)>>,
    pub objective_files: Arc<Reloading>,
    pub paces: Arc<Paces>,
}

impl Daemon {
    /// The services with most items in overflow series, and what makes their series many.
    fn crowded(&self, overflowed: &BTreeMap<Arc<ServiceKey>, u64>) -> Vec<v1::CrowdedService> {
        let mut most: Vec<_> = overflowed.iter().collect();
        most.sort_by_key(|(_, items)| Reverse(**items));
        most.into_iter()
            .take(CROWDED_TOLD)
            .filter_map(|(key, items)| {
                let crowd = crowd(&self.registry, key)?;
                Some(v1::CrowdedService {
                    service: Some(service(key)),
                    overflowed: *items,
                    series: crowd.series as u64,
                    part: crowd.part.to_string(),
                    values: crowd.values as u64,
                    pattern: crowd.pattern,
                    caller: String::new(),
                })
            })
            .collect()
    }

    /// The services with most items whose time was not followed.
    fn untimely(untimely: &BTreeMap<(Arc<ServiceKey>, UntimelyReason), u64>) -> Vec<v1::UntimelyService> {
        let mut services: BTreeMap<&Arc<ServiceKey>, v1::UntimelyService> = BTreeMap::new();
        for ((key, reason), items) in untimely {
            let of = services.entry(key).or_insert_with(|| v1::UntimelyService {
                service: Some(service(key)),
                ..v1::UntimelyService::default()
            });
            of.items.insert(reason.as_str().to_owned(), *items);
        }
        let mut most: Vec<_> = services.into_values().collect();
        most.sort_by_key(|of| Reverse(of.items.values().sum::<u64>()));
        most.truncate(UNTIMELY_TOLD);
        most
    }

    /// The callers of whose items most were turned away because they bring too many services or series.
    fn crowding(&self, turned_away: &BTreeMap<CallerTag, u64>) -> Vec<v1::CrowdedService> {
        if turned_away.is_empty() {
            return Vec::new();
        }
        let crowd = crowd_of_services(&self.registry);
        let mut most: Vec<_> = turned_away.iter().collect();
        most.sort_by_key(|(_, items)| Reverse(**items));
        let told = most.into_iter().take(CROWDED_TOLD).map(|(caller, items)| v1::CrowdedService {
            service: None,
            overflowed: *items,
            series: crowd.series as u64,
            part: crowd.part.to_string(),
            values: crowd.values as u64,
            pattern: crowd.pattern.clone(),
            // Who has not called for long, or from before a restart, is not known any more.
            caller: self
                .counters
                .caller(*caller)
                .map_or_else(|| "unknown".to_owned(), |name| name.to_string()),
        });
        told.collect()
    }
}

impl Condition for Daemon {
    fn unready(&self) -> Option<String> {
        if self.ready.load(Ordering::Acquire) {
            self.paces.wrong()
        } else {
            Some("starting or stopping".to_owned())
        }
    }

    fn status(&self) -> v1::Status {
        let sums = self.totals.get();
        let (per_week, spent_week) = **self.false_pages.load();
        let (keepsakes, keepsake_bytes) =
            self.keepsakes.as_ref().map_or((0, 0), |keepsakes| keepsakes.totals());
        let mut rejected: BTreeMap<String, u64> =
            self.counters.rejected().map(|(reason, n)| (reason.as_str().to_owned(), n)).collect();
        for (reason, items) in &sums.rejected {
            *rejected.entry(reason.as_str().to_owned()).or_default() += items;
        }
        v1::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: self.unready().is_none(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            accepted: Some(v1::Accepted {
                spans: sums.accepted.spans,
                log_records: sums.accepted.log_records,
                metric_points: sums.accepted.metric_points,
            }),
            refused: self.counters.refused().map(|(reason, n)| (reason.as_str().to_owned(), n)).collect(),
            rejected,
            late: sums.late.iter().map(|(reason, n)| (reason.as_str().to_owned(), *n)).collect(),
            series: Some(v1::SeriesStatus {
                live: sums.series,
                limit: self.series_limit,
                overflowed: sums.overflowed.values().sum(),
                crowded: {
                    let mut crowded = self.crowded(&sums.overflowed);
                    crowded.extend(self.crowding(&sums.turned_away));
                    crowded
                },
            }),
            journal: Some(v1::JournalStatus {
                bytes: self.recorder.bytes(),
                oldest: self.recorder.oldest().map(|(_, arrived)| to_proto(arrived)),
                newest: self.recorder.newest().map(|(_, arrived)| to_proto(arrived)),
                keepsakes,
                keepsake_bytes,
                quarantined: self.recorder.quarantined(),
            }),
            memory_bytes: memory_bytes(),
            false_pages: Some(v1::FalsePages { per_week, spent_week }),
            refused_slo_files: self.objective_files.refused(),
            late_stages: self.paces.late().into_iter().map(late_stage).collect(),
            untimely: Self::untimely(&sums.untimely),
        }
    }
}

fn late_stage((name, late): (Arc<str>, Duration)) -> v1::LateStage {
    v1::LateStage { name: name.to_string(), late_s: late.as_secs_f64() }
}

/// Resident memory of this process.
fn memory_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

impl Collect for Daemon {
    fn collect(&self, out: &mut Exposition) {
        let status = self.status();
        out.single(
            "barograph_ready",
            Kind::Gauge,
            "Whether telemetry is taken, counted and judged, and alerts are told.",
            f64::from(u8::from(status.ready)),
        );
        out.single("barograph_uptime_seconds", Kind::Gauge, "Time since the start.", status.uptime_s);
        if let Some(bytes) = status.memory_bytes {
            out.single("barograph_memory_bytes", Kind::Gauge, "Resident memory.", bytes as f64);
        }
        let series = status.series.unwrap_or_default();
        out.single("barograph_series", Kind::Gauge, "Series that are counted apart.", series.live as f64);
        out.single("barograph_series_limit", Kind::Gauge, "Series that may be.", series.limit as f64);
        out.single(
            "barograph_overflowed_items_total",
            Kind::Counter,
            "Items counted in an overflow series for want of room, since the start.",
            series.overflowed as f64,
        );
        let bytes = self.recorder.bytes();
        out.single("barograph_journal_bytes", Kind::Gauge, "Disk space of the journal.", bytes as f64);
        let kept = match (self.recorder.oldest(), self.recorder.newest()) {
            (Some((_, oldest)), Some((_, newest))) => newest.since(oldest).as_secs_f64(),
            _ => 0.0,
        };
        out.single(
            "barograph_journal_depth_seconds",
            Kind::Gauge,
            "Time between the oldest and the newest record kept.",
            kept,
        );
        out.single(
            "barograph_journal_clock_ahead_seconds",
            Kind::Gauge,
            "How far the time of the journal is ahead of the wall clock; below zero while a step forward is not followed.",
            self.recorder.clock_ahead_s(),
        );
        out.single(
            "barograph_journal_quarantined_records",
            Kind::Gauge,
            "Records left out of replays and kept aside, because three starts in a row had ended at them.",
            self.recorder.quarantined() as f64,
        );
        let budget = status.false_pages.unwrap_or_default();
        out.single(
            "barograph_false_pages_per_week",
            Kind::Gauge,
            "False pages accepted in a week, over all services.",
            budget.per_week,
        );
        out.single(
            "barograph_false_pages_spent",
            Kind::Gauge,
            "Expected number of false pages among those of the last week.",
            budget.spent_week,
        );
    }
}
