//! Merges the partials of a cut, and decides when a window is sealed.

use super::addresses::Addresses;
use super::collect::Collecting;
use super::graph::{Graph, GraphState, Sources};
use super::instances::Instances;
use super::joiner::{Joiner, JoinerState};
use super::told::Told;
use crate::aggregate::{Accepted, Cell, EdgeCell, Facet, FacetKey, Partial};
use crate::journal::Cut;
use crate::limits::{LateReason, RejectedReason, UntimelyReason};
use crate::model::{SeriesId, ServiceKey, Timestamp, WindowId};
use crate::receive::CallerTag;
use crate::window::{Config, OpenWindow, Registry, SealedWindow, Snapshot, Tick, Topology};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long after its end a window takes data as on time.
const GRACE: Duration = Duration::from_secs(15);
/// Of windows in which nothing was, at most this many (an hour) are sealed with one cut; only a jump
/// of journal time can leave more, and the ones before it are passed over.
const EMPTY_AT_ONCE: u64 = 360;
/// Seconds between looks for what the registry has forgotten.
const FORGET_EVERY_S: u64 = 3_600;
const RECENT_WINDOWS: usize = 60;
const RECENT_WINDOWS_ALWAYS: usize = 2;

/// What one cut brought.
#[derive(Debug, Default)]
pub struct Merged {
    pub tick: Tick,
    /// Windows that this cut sealed, ascending; over all cuts each id comes once.
    pub sealed: Vec<Arc<SealedWindow>>,
    /// What came for windows sealed earlier; handed over whenever a cut seals windows. Ascending.
    pub amendments: Vec<Arc<SealedWindow>>,
    /// Items since the last cut.
    pub accepted: Accepted,
    pub rejected: BTreeMap<RejectedReason, u64>,
    /// What was `Amended` is counted here, where windows are sealed; a shard's own count of it is not used.
    pub late: BTreeMap<LateReason, u64>,
    /// Items counted in the overflow series of a service for want of room.
    pub overflowed: BTreeMap<Arc<ServiceKey>, u64>,
    /// Items whose time was not followed, by service and reason. `Amended` is counted here.
    pub untimely: BTreeMap<(Arc<ServiceKey>, UntimelyReason), u64>,
    /// Of them, and of items of further services, those of callers that brought more than they may.
    pub turned_away: BTreeMap<CallerTag, u64>,
    /// Series that the shards hold: those with an item of late.
    pub series: u64,
    /// When the cut asks for a checkpoint: this stage's part of it, and the shards' by number.
    pub state: Option<Vec<u8>>,
    pub shard_states: BTreeMap<u16, Vec<u8>>,
}

/// Something is wrong with the state that a checkpoint kept.
#[derive(Debug, thiserror::Error)]
#[error("the window stage cannot read its part of the checkpoint: {0}")]
pub struct RestoreError(#[from] postcard::Error);

/// All windows of event time that take data, and the call graph. Deterministic: what comes out
/// depends on the partials alone, neither on their order nor, but for the rounding of sums of
/// floating-point values, on the number of shards.
#[derive(Debug)]
pub struct Windows {
    config: Config,
    registry: Arc<Registry>,
    /// The first window not yet sealed; `None` before the first cut.
    next: Option<WindowId>,
    open: BTreeMap<WindowId, Collecting>,
    amending: BTreeMap<WindowId, Collecting>,
    gaps: Vec<(Timestamp, Timestamp)>,
    instances: Instances,
    joiner: Joiner,
    graph: Graph,
    addresses: Addresses,
    told: Told,
    recent: VecDeque<Arc<SealedWindow>>,
    recent_bytes: usize,
    shown_open: Arc<[OpenWindow]>,
    shown_recent: Arc<[Arc<SealedWindow>]>,
    published: Arc<ArcSwap<Snapshot>>,
}

impl Windows {
    /// `registry` holds the series that the last checkpoint knew.
    #[must_use]
    pub fn new(config: Config, registry: Arc<Registry>) -> Self {
        let mut windows = Self {
            joiner: Joiner::new(usize::try_from(config.span_halves).unwrap_or(usize::MAX)),
            graph: Graph::new(usize::try_from(config.edges).unwrap_or(usize::MAX)),
            config,
            registry: registry.clone(),
            next: None,
            open: BTreeMap::new(),
            amending: BTreeMap::new(),
            gaps: Vec::new(),
            instances: Instances::default(),
            addresses: Addresses::default(),
            told: Told::default(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            shown_open: Arc::new([]),
            shown_recent: Arc::new([]),
            published: Arc::default(),
        };
        for (id, key) in registry.all() {
            windows.addresses.note_service(&key.service);
            windows.told.note(id, &key);
        }
        windows
    }

    /// Merges all partials of one cut, in whatever order. Cuts must come in theirs.
    ///
    /// A cell belongs to its window if the cut that brings it stands less than 15 s after the
    /// window's end, or at exactly 15 s (everything in a cut arrived before it); later it amends.
    pub fn merge(&mut self, cut: Cut, mut partials: Vec<Partial>) -> Merged {
        let second = cut.arrived.secs();
        let second_ago = cut.arrived.saturating_sub(Duration::from_secs(1));
        let next = *self.next.get_or_insert(WindowId::of(second_ago.saturating_sub(GRACE)));
        partials.sort_by_key(|partial| partial.shard);

        let mut merged = Merged { tick: Tick { cut, ..Tick::default() }, ..Merged::default() };
        let mut facets: Vec<(Arc<FacetKey>, WindowId, Facet)> = Vec::new();
        let mut flows: BTreeMap<WindowId, Sources<EdgeCell>> = BTreeMap::new();
        let mut joined = Vec::new();
        self.joiner.expire(second);
        for mut partial in partials {
            partial.settle();
            self.note_new(partial.new, second, &mut merged.tick);
            append(&mut merged.tick.changed, partial.cells);
            append(&mut merged.tick.indicators, partial.indicators);
            append(&mut merged.tick.users, partial.users);
            append(&mut facets, partial.facets);
            merged.accepted.add(partial.accepted);
            merged.series += partial.series as u64;
            add_up(&mut merged.rejected, partial.rejected);
            add_up(&mut merged.late, partial.late);
            add_up(&mut merged.overflowed, partial.overflowed);
            add_up(&mut merged.untimely, partial.untimely);
            add_up(&mut merged.turned_away, partial.turned_away);
            for half in partial.halves {
                self.joiner.add(second, half, &mut joined);
            }
            for (peer, window, cell) in partial.peers {
                flows.entry(window).or_default().peers.entry(peer).or_default().merge(&cell);
            }
            if let Some(state) = partial.state {
                merged.shard_states.insert(partial.shard, state);
            }
        }
        merged.late.remove(&LateReason::Amended);
        merged.tick.accepted = merged.accepted;
        merged.tick.new.sort_by_key(|&(id, _)| id);
        for joined in joined {
            if let Some((peer, service)) = joined.answered
                && self.addresses.learn(&peer, &service)
            {
                self.graph.learned();
            }
            let of_window = flows.entry(joined.window).or_default();
            of_window.joined.entry(joined.key).or_default().merge(&joined.cell);
        }
        if !merged.tick.changed.is_empty() {
            sort_and_merge(&mut merged.tick.changed);
        }
        sort_seconds(&mut merged.tick.indicators);
        sort_users(&mut merged.tick.users);
        if !self.told.is_empty() {
            for (series, window, cell) in &merged.tick.changed {
                if let Some((key, cell)) = self.told.edge(*series, cell, &self.addresses) {
                    flows.entry(*window).or_default().told.entry(key).or_default().merge(&cell);
                }
            }
        }

        let mut changed = self.place_cells(next, &mut merged);
        changed |= self.place_facets(next, facets, &mut merged.tick);
        changed |= self.place_flows(second, next, flows, &mut merged.tick);
        self.note_quality(cut, &merged);
        changed |= self.seal(cut, &mut merged);
        for window in merged.sealed.iter().chain(&merged.amendments) {
            self.registry.note_heard(window.cells.packed().map(|(id, _)| id), second);
        }
        if cut.number.is_multiple_of(FORGET_EVERY_S) {
            self.told.forget(&self.registry);
        }
        self.publish(cut, changed);
        if cut.checkpoint {
            merged.state = Some(self.state());
        }
        merged
    }

    /// The daemon itself received nothing from `from` to `to`: windows that lie in it show a gap.
    pub fn note_gap(&mut self, from: Timestamp, to: Timestamp) {
        if from < to {
            self.gaps.push((from, to));
        }
    }

    /// Requests were turned away whole around `at`.
    pub fn note_refused(&mut self, at: Timestamp, requests: u64) {
        let window = WindowId::of(at);
        if requests > 0 && self.next.is_none_or(|next| window >= next) {
            self.open.entry(window).or_default().quality.refused += requests;
        }
    }

    /// What queries read, as of the last cut.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// Where snapshots are published, for readers on other threads.
    #[must_use]
    pub fn published(&self) -> Arc<ArcSwap<Snapshot>> {
        self.published.clone()
    }

    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.published.load().topology.clone()
    }

    /// Span halves and edges let go because of the bounds, since the start.
    #[must_use]
    pub fn dropped(&self) -> (u64, u64) {
        (self.joiner.dropped, self.graph.dropped)
    }

    /// Shows windows that were sealed in an earlier life in snapshots again. Ascending.
    pub fn seed_recent(&mut self, windows: impl IntoIterator<Item = Arc<SealedWindow>>) {
        for window in windows {
            if self.recent.back().is_none_or(|last| last.id < window.id) {
                self.remember(window);
            }
        }
        self.shown_recent = self.recent.iter().cloned().collect();
    }

    fn note_new(&mut self, new: Vec<(SeriesId, Arc<crate::model::SeriesKey>)>, second: u64, tick: &mut Tick) {
        for (id, key) in new {
            if self.registry.add(id, key.clone(), second) {
                if self.addresses.note_service(&key.service) {
                    self.graph.learned();
                }
                self.told.note(id, &key);
                tick.new.push((id, key));
            }
        }
    }

    /// The window that takes data now, or else its amendment.
    fn place(&mut self, next: WindowId, window: WindowId) -> &mut Collecting {
        let into = if window < next { &mut self.amending } else { &mut self.open };
        into.entry(window).or_default()
    }

    fn place_cells(&mut self, next: WindowId, merged: &mut Merged) -> bool {
        let mut by_window: BTreeMap<WindowId, Vec<(SeriesId, &Cell)>> = BTreeMap::new();
        for (series, window, cell) in &merged.tick.changed {
            by_window.entry(*window).or_default().push((*series, cell));
        }
        let changed = !by_window.is_empty();
        for (window, cells) in by_window {
            if window < next {
                let items = cells.iter().map(|(_, cell)| cell.items()).sum::<u64>();
                *merged.late.entry(LateReason::Amended).or_default() += items;
                note_amended(&mut merged.untimely, &self.registry, &cells);
            }
            self.place(next, window).add_cells(cells.into_iter());
        }
        changed
    }

    fn place_facets(
        &mut self,
        next: WindowId,
        facets: Vec<(Arc<FacetKey>, WindowId, Facet)>,
        tick: &mut Tick,
    ) -> bool {
        let changed = !facets.is_empty();
        let mut of_tick: BTreeMap<Arc<FacetKey>, Facet> = BTreeMap::new();
        for (key, window, facet) in facets {
            of_tick.entry(key.clone()).or_default().merge(&facet);
            self.place(next, window).add_facet(key, &facet);
        }
        tick.facets = of_tick.into_iter().collect();
        changed
    }

    fn place_flows(
        &mut self,
        second: u64,
        next: WindowId,
        flows: BTreeMap<WindowId, Sources<EdgeCell>>,
        tick: &mut Tick,
    ) -> bool {
        if flows.is_empty() {
            return false;
        }
        let mut of_tick = Sources::default();
        for (window, flows) in flows {
            of_tick.merge(&flows);
            self.place(next, window).add_flows(&flows);
        }
        self.graph.count(second, &of_tick);
        tick.calls = of_tick.calls(&self.addresses);
        // The ends of a call may come in different ticks, so what is joined otherwise is left out here.
        tick.edges = of_tick.resolve(&self.addresses, |key| self.graph.is_joined(key));
        true
    }

    /// What came late or was rejected tells of the time in which it arrived.
    fn note_quality(&mut self, cut: Cut, merged: &Merged) {
        let late = merged.late.get(&LateReason::Amended).copied().unwrap_or(0);
        let rejected = merged.rejected.values().sum::<u64>();
        if late > 0 || rejected > 0 {
            let now = WindowId::of(Timestamp(cut.arrived.ns().saturating_sub(1)));
            let quality = &mut self.open.entry(now).or_default().quality;
            quality.late += late;
            quality.rejected += rejected;
        }
    }

    fn seal(&mut self, cut: Cut, merged: &mut Merged) -> bool {
        let target = WindowId::of(cut.arrived.saturating_sub(GRACE));
        let Some(mut next) = self.next.filter(|next| *next < target) else { return false };
        while next < target {
            let earliest = WindowId(target.0.saturating_sub(EMPTY_AT_ONCE));
            if next < earliest && !self.open.contains_key(&next) {
                next = self.open.keys().next().map_or(earliest, |&open| open.min(earliest)).max(next.next());
                continue;
            }
            let mut window =
                self.open.remove(&next).unwrap_or_default().seal(next, cut, false, &self.addresses);
            let quality = &mut window.quality;
            quality.gap = self.gaps.iter().any(|&(from, to)| from < next.end() && to > next.start());
            (quality.instances_seen, quality.instances_expected) = self.instances.step(next, &window.facets);
            let window = Arc::new(window);
            self.remember(window.clone());
            merged.sealed.push(window);
            next = next.next();
        }
        self.next = Some(next);
        self.gaps.retain(|&(_, to)| to > next.start());
        for (id, amendment) in std::mem::take(&mut self.amending) {
            merged.amendments.push(Arc::new(amendment.seal(id, cut, true, &self.addresses)));
        }
        self.shown_recent = self.recent.iter().cloned().collect();
        true
    }

    fn remember(&mut self, window: Arc<SealedWindow>) {
        self.recent_bytes += window.cells.size_bytes();
        self.recent.push_back(window);
        while self.recent.len() > RECENT_WINDOWS
            || (self.recent.len() > RECENT_WINDOWS_ALWAYS
                && self.recent_bytes as u64 > self.config.recent_bytes.0)
        {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.cells.size_bytes();
        }
    }

    fn show_open(&mut self) {
        let addresses = &self.addresses;
        self.shown_open = self.open.iter_mut().map(|(id, window)| window.show(*id, addresses)).collect();
    }

    fn publish(&mut self, cut: Cut, changed: bool) {
        if changed {
            self.show_open();
        }
        self.published.store(Arc::new(Snapshot {
            cut,
            open: self.shown_open.clone(),
            sealed: self.shown_recent.clone(),
            topology: self.graph.topology(cut.arrived.secs(), &self.addresses),
        }));
    }

    fn state(&self) -> Vec<u8> {
        let state = State {
            next: self.next,
            open: &self.open,
            amending: &self.amending,
            gaps: &self.gaps,
            instances: &self.instances,
            joiner: self.joiner.state(),
            graph: self.graph.state(),
            addresses: &self.addresses,
        };
        // Writing these types into memory has no way to fail.
        postcard::to_stdvec(&state).unwrap_or_default()
    }

    /// Takes over what a checkpoint kept; the next cut must be the one after it.
    ///
    /// # Errors
    /// If these are not the bytes of a `state` of this version. Nothing is changed then.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), RestoreError> {
        let state: Restored = postcard::from_bytes(state)?;
        self.next = state.next;
        self.open = state.open;
        self.amending = state.amending;
        self.gaps = state.gaps;
        self.instances = state.instances;
        self.joiner.restore(state.joiner);
        self.graph.restore(state.graph);
        self.addresses.restore(state.addresses);
        // They are to be seen also while nothing comes that changes them.
        self.show_open();
        Ok(())
    }
}

#[derive(Serialize)]
struct State<'a, J, G> {
    next: Option<WindowId>,
    open: &'a BTreeMap<WindowId, Collecting>,
    amending: &'a BTreeMap<WindowId, Collecting>,
    gaps: &'a [(Timestamp, Timestamp)],
    instances: &'a Instances,
    joiner: J,
    graph: G,
    addresses: &'a Addresses,
}

#[derive(Deserialize)]
struct Restored {
    next: Option<WindowId>,
    open: BTreeMap<WindowId, Collecting>,
    amending: BTreeMap<WindowId, Collecting>,
    gaps: Vec<(Timestamp, Timestamp)>,
    instances: Instances,
    joiner: JoinerState,
    graph: GraphState,
    addresses: Addresses,
}

/// Appends without copying where there is nothing yet.
fn append<T>(into: &mut Vec<T>, mut more: Vec<T>) {
    if into.is_empty() {
        *into = more;
    } else {
        into.append(&mut more);
    }
}

/// Counts what came for a sealed window by its services.
fn note_amended(
    into: &mut BTreeMap<(Arc<ServiceKey>, UntimelyReason), u64>,
    registry: &Registry,
    cells: &[(SeriesId, &Cell)],
) {
    let mut by_service: BTreeMap<ServiceKey, u64> = BTreeMap::new();
    for (series, cell) in cells.iter().filter(|(_, cell)| cell.items() > 0) {
        let Some(key) = registry.get(*series) else { continue };
        if let Some(items) = by_service.get_mut(&key.service) {
            *items += cell.items();
        } else {
            by_service.insert(key.service.clone(), cell.items());
        }
    }
    let amended = |service| (Arc::new(service), UntimelyReason::Amended);
    add_up(into, by_service.into_iter().map(|(service, items)| (amended(service), items)));
}

fn add_up<K: Ord>(into: &mut BTreeMap<K, u64>, more: impl IntoIterator<Item = (K, u64)>) {
    for (key, n) in more {
        *into.entry(key).or_default() += n;
    }
}

/// One cell for each series and window. The sort is stable, so equal ones merge in the shards' order.
fn sort_and_merge(cells: &mut Vec<(SeriesId, WindowId, Cell)>) {
    cells.sort_by_key(|&(series, window, _)| (series, window));
    cells.dedup_by(|later, kept| {
        let same = (later.0, later.1) == (kept.0, kept.1);
        if same {
            kept.2.merge(&later.2);
        }
        same
    });
}

fn sort_users(users: &mut Vec<(crate::aggregate::IndicatorId, crate::aggregate::Users)>) {
    users.sort_by_key(|(id, _)| *id);
    users.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1.merge(&later.1);
        }
        same
    });
}

fn sort_seconds(counts: &mut Vec<(crate::aggregate::IndicatorId, crate::aggregate::SecondCount)>) {
    counts.sort_by_key(|(id, count)| (*id, count.second));
    counts.dedup_by(|later, kept| {
        let same = (later.0, later.1.second) == (kept.0, kept.1.second);
        if same {
            kept.1.good += later.1.good;
            kept.1.total += later.1.total;
        }
        same
    });
}
