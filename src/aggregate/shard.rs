//! A shard: everything of its partitions, counted.

use super::config::Config;
use super::facets::Facets;
use super::halves::Halves;
use super::hot::HotCells;
use super::peers::Peers;
use super::place::{Place, place};
use super::resource::Resources;
use super::series::SeriesTable;
use super::streams::Streams;
use super::{Accepted, Facet, Indicator, Partial, SecondCount, Users};
use crate::journal::{BlockPart, BlockWriter, Cut, Index, Position};
use crate::limits::{LateReason, RejectedReason};
use crate::model::{Signal, Timestamp, TraceId, WindowId};
use crate::otlp::{Checked, Malformed, ResourceView, Rows, count_items};
use crate::receive::Admitted;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a series or stream is kept without an item.
const KEPT_UNUSED_S: u64 = 3_600;
/// Seconds between looks for what is unused.
const FORGET_EVERY_S: u64 = 300;

/// What holds for all items of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub at: Position,
    pub arrived: Timestamp,
    /// The barrier that follows.
    pub second: u64,
    pub resource: u32,
    pub service: u32,
    pub partition: u8,
}

/// Cells that late items may open in all shards between two barriers, beyond two windows of each series and each peer.
const LATE_CELLS: usize = 65_536;
/// Memory of these, and of what they are for facets: of histograms with many buckets fewer find room.
const LATE_BYTES: usize = LATE_CELLS << 10;
/// Items that are not older than this open cells of few windows: those that are not sealed yet.
const ON_TIME: Duration = Duration::from_secs(25);

/// What a slice did, by window: goes to the facets at its end.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub windows: SmallVec<[(WindowId, Facet); 2]>,
    pub counted: u64,
    pub too_old: u64,
    pub ahead: u64,
    /// Items of before this count at arrival: too many cells were opened for late ones, or too large ones.
    pub late_before: Timestamp,
    pub crowded: u64,
}

impl Tally {
    #[inline]
    pub fn facet(&mut self, window: WindowId) -> &mut Facet {
        let place = self.windows.iter().position(|(known, _)| *known == window).unwrap_or_else(|| {
            self.windows.push((window, Facet::default()));
            self.windows.len() - 1
        });
        &mut self.windows[place].1
    }

    /// Where an item counts, if it does.
    #[inline]
    pub fn place(&mut self, event: Timestamp, arrived: Timestamp) -> Option<Timestamp> {
        match place(event, arrived) {
            Place::At(at) if at < self.late_before => {
                self.crowded += 1;
                Some(arrived)
            }
            Place::At(at) => Some(at),
            Place::Ahead(at) => {
                self.ahead += 1;
                Some(at)
            }
            Place::TooOld => {
                self.too_old += 1;
                None
            }
        }
    }
}

/// Counts the slices of its partitions. Owned by one thread; asks no clock; equal input gives equal
/// output.
#[derive(Debug)]
pub struct Shard {
    pub(super) number: u16,
    pub(super) of: u16,
    pub(super) series: SeriesTable,
    pub(super) template_names: bool,
    pub(super) resources: Resources,
    pub(super) facets: Facets,
    pub(super) halves: Halves,
    pub(super) peers: Peers,
    pub(super) hot: HotCells,
    pub(super) streams: Streams,
    pub(super) indicators: Arc<Vec<Indicator>>,
    /// Counts of each indicator by second.
    pub(super) seconds: Vec<Vec<SecondCount>>,
    /// Users that each indicator saw since the last cut.
    pub(super) users: Vec<Users>,
    rows: Rows,
    pub(super) scratch: Vec<u8>,
    /// The scope of the last cumulative point, and what it is called in the name of its stream.
    pub(super) last_scope: Option<(Box<[u8]>, [u8; 32])>,
    /// The block that is being filled, and its number, if one is.
    pub(super) block: Option<(u64, BlockWriter)>,
    /// Memory for the next one.
    spare_block: Option<BlockWriter>,
    blocks: Vec<(u64, BlockPart)>,
    index: Option<Arc<Index>>,
    accepted: Accepted,
    rejected: BTreeMap<RejectedReason, u64>,
    ahead: u64,
    crowded: u64,
    /// How many cells late items may open between two barriers, and how much memory these may take.
    pub(super) late_cells: usize,
    pub(super) late_bytes: usize,
    /// Which of the spans of [`FORGET_EVERY_S`] was looked in last for what is unused.
    pub(super) looked: u64,
}

impl Shard {
    /// Shard `number` of `of`: it owns the partitions whose remainder by `of` is `number`.
    #[must_use]
    pub fn new(number: u16, of: u16, config: &Config) -> Self {
        let bounds = config.bounds(of);
        Self {
            number,
            of: of.max(1),
            series: SeriesTable::new(bounds),
            template_names: config.template_names,
            resources: Resources::new(bounds, &config.resource_attributes),
            facets: Facets::new(bounds),
            halves: Halves::new(bounds.halves),
            peers: Peers::default(),
            hot: HotCells::default(),
            streams: Streams::new(bounds),
            indicators: Arc::default(),
            seconds: Vec::new(),
            users: Vec::new(),
            rows: Rows::default(),
            scratch: Vec::new(),
            last_scope: None,
            block: None,
            spare_block: None,
            blocks: Vec::new(),
            index: None,
            accepted: Accepted::default(),
            rejected: BTreeMap::new(),
            ahead: 0,
            crowded: 0,
            late_cells: LATE_CELLS / usize::from(of).max(1),
            late_bytes: LATE_BYTES / usize::from(of).max(1),
            looked: 0,
        }
    }

    /// From now on tells the journal's index what lies in which block.
    pub fn set_index(&mut self, index: Arc<Index>) {
        self.index = Some(index);
    }

    /// Counts these indicators from now on. What was counted of the ones before since the last barrier
    /// is let go, so this belongs right after a cut.
    pub fn set_indicators(&mut self, indicators: Arc<Vec<Indicator>>) {
        self.seconds = vec![Vec::new(); indicators.len()];
        self.users = vec![Users::default(); indicators.len()];
        self.series.set_indicators(indicators.clone());
        self.indicators = indicators;
    }

    /// Counts the slices of a request that are this shard's, and reports on each to the request's reply.
    pub fn apply(&mut self, at: Position, arrived: Timestamp, request: &Admitted) {
        self.streams.born = self.streams.born.min(arrived);
        self.series.caller = request.caller;
        self.streams.caller = request.caller;
        self.resources.caller = request.caller;
        for slice in &request.slices {
            if u16::from(slice.partition) % self.of != self.number {
                continue;
            }
            let bytes = request.body.get(slice.range.start as usize..slice.range.end as usize);
            let bytes = bytes.unwrap_or_default();
            let second = arrived.secs().saturating_add(1);
            let place = Context { at, arrived, second, partition: slice.partition, resource: 0, service: 0 };
            let counted = match request.signal {
                Signal::Traces => self.traces(place, bytes),
                Signal::Logs => self.logs(place, bytes),
                Signal::Metrics => self.metrics(place, bytes),
            };
            match counted {
                Ok(0) => {}
                Ok(too_old) => request.reply.reject(too_old, RejectedReason::TooOld, || {
                    format!("{too_old} items are more than an hour older than their arrival")
                }),
                Err(damage) => {
                    let items = count_items(request.signal, bytes);
                    let reason = damage.what.reason();
                    *self.rejected.entry(reason).or_default() += items;
                    request.reply.reject(items, reason, || damage.to_string());
                }
            }
            request.reply.done(1);
        }
    }

    /// Counts a resource of spans, if it is good: read and checked in one pass where it is laid out
    /// plainly, checked and then read where it is not. The items that are too old to count.
    fn traces(&mut self, place: Context, bytes: &[u8]) -> Result<u64, Malformed> {
        let mut tally = Tally::default();
        let mut known = None;
        let read = self.rows.spans(bytes, |raw| {
            known = self.resources.find(raw);
            known.is_some()
        });
        let context = if let Some((resource, spans)) = read {
            let context = self.open(place, resource, known);
            self.spans(context, &spans, &mut tally);
            self.rows.keep_spans(spans);
            context
        } else {
            let checked = Checked::new(Signal::Traces, bytes)?;
            let context = self.open(place, checked.spans().resource(), None);
            for span in checked.spans().scopes().flat_map(|scope| scope.items()) {
                self.spans(context, &[span], &mut tally);
            }
            context
        };
        self.accepted.spans += tally.counted;
        Ok(self.close(context, &tally))
    }

    /// The same of log records.
    fn logs(&mut self, place: Context, bytes: &[u8]) -> Result<u64, Malformed> {
        let mut tally = Tally::default();
        let mut known = None;
        let read = self.rows.logs(bytes, |raw| {
            known = self.resources.find(raw);
            known.is_some()
        });
        let context = if let Some((resource, logs)) = read {
            let context = self.open(place, resource, known);
            self.log_records(context, logs.iter().copied(), &mut tally);
            self.rows.keep_logs(logs);
            context
        } else {
            let checked = Checked::new(Signal::Logs, bytes)?;
            let context = self.open(place, checked.logs().resource(), None);
            let records = checked.logs().scopes().flat_map(|scope| scope.items());
            self.log_records(context, records, &mut tally);
            context
        };
        self.accepted.log_records += tally.counted;
        Ok(self.close(context, &tally))
    }

    /// The same of metric points.
    fn metrics(&mut self, place: Context, bytes: &[u8]) -> Result<u64, Malformed> {
        let mut tally = Tally::default();
        let mut known = None;
        let read = self.rows.metrics(bytes, |raw| {
            known = self.resources.find(raw);
            known.is_some()
        });
        let context = if let Some((resource, mut rows)) = read
            && self.look_up_points(known.and_then(|known| self.resources.service_of(known)), &mut rows)
        {
            let context = self.open(place, resource, known);
            self.point_rows(context, &rows, &mut tally);
            self.rows.keep_metrics(rows);
            context
        } else {
            let checked = Checked::new(Signal::Metrics, bytes)?;
            let context = self.open(place, checked.metrics().resource(), None);
            self.points(context, checked.metrics(), &mut tally);
            context
        };
        self.accepted.metric_points += tally.counted;
        Ok(self.close(context, &tally))
    }

    /// Finds the resource of a slice, whose number may be known, and turns to its block of the index.
    fn open(&mut self, place: Context, view: ResourceView<'_>, known: Option<u32>) -> Context {
        let resource = known
            .or_else(|| self.resources.find(view.bytes()))
            .unwrap_or_else(|| self.resources.add(view, &mut self.series, &mut self.facets));
        let service = self.resources.get(resource).map_or(0, |resource| resource.service);
        self.open_block(place.at, service);
        Context { resource, service, ..place }
    }

    /// Once late items have opened as many cells as they may, or such as take as much memory as they may, further ones
    /// count at arrival until the next barrier: their sums stay exact, and memory is bounded however many series and
    /// windows they name.
    #[inline]
    pub(super) fn bound_late(&self, arrived: Timestamp, tally: &mut Tally) {
        let bytes = self.hot.beyond_bytes() + self.peers.beyond_bytes() + self.facets.late_bytes();
        if self.hot.beyond() + self.peers.beyond() >= self.late_cells || bytes >= self.late_bytes {
            tally.late_before = arrived.saturating_sub(ON_TIME);
        }
    }

    /// Adds up what a slice did; the items that were too old.
    fn close(&mut self, context: Context, tally: &Tally) -> u64 {
        self.ahead += tally.ahead;
        self.crowded += tally.crowded;
        let refused = self.streams.take_refused();
        if refused + tally.too_old + tally.ahead + tally.crowded > 0
            && let Some(service) = self.series.service_mut(context.service)
        {
            service.overflowed += refused;
            service.untimely.too_old += tally.too_old;
            service.untimely.future += tally.ahead;
            service.untimely.crowded += tally.crowded;
        }
        if self.series.is_others(context.service) {
            self.series.note_turned_away(tally.counted);
        }
        if tally.too_old > 0 {
            *self.rejected.entry(RejectedReason::TooOld).or_default() += tally.too_old;
        }
        if let Some(resource) = self.resources.get(context.resource) {
            let on_time = context.arrived.saturating_sub(ON_TIME);
            for (window, what) in &tally.windows {
                for &facet in &resource.facets {
                    self.facets.add(facet, *window, window.end() <= on_time, what);
                }
            }
        }
        tally.too_old
    }

    /// Turns to the block of the index in which a position lies.
    fn open_block(&mut self, at: Position, service: u32) {
        if self.index.is_none() {
            return;
        }
        let number = BlockPart::block(at);
        if self.block.as_ref().is_none_or(|(open, _)| *open != number) {
            self.close_block();
            let writer = match self.spare_block.take() {
                Some(mut writer) => {
                    writer.begin(at);
                    writer
                }
                None => BlockWriter::new(at),
            };
            self.block = Some((number, writer));
        }
        if let Some((_, part)) = &mut self.block
            && let Some(service) = self.series.service(service)
        {
            part.add_service(&service.key);
        }
    }

    fn close_block(&mut self) {
        if let Some((number, mut writer)) = self.block.take() {
            self.blocks.push((number, writer.finish()));
            self.spare_block = Some(writer);
        }
    }

    /// Notes an item for the index.
    #[inline]
    pub(super) fn note(&mut self, time: Timestamp, trace: TraceId) {
        if let Some((_, part)) = &mut self.block {
            part.add_item(time, trace);
        }
    }

    /// Counts an item as one of an overflow series, if its series is one.
    #[inline]
    pub(super) fn note_overflow(&mut self, series: u32, of_service: u32) {
        if self.series.get(series).is_some_and(|series| series.is_overflow)
            && let Some(service) = self.series.service_mut(of_service)
        {
            service.overflowed += 1;
            // Those of further services are counted by the slice.
            if !self.series.is_others(of_service) {
                self.series.note_turned_away(1);
            }
        }
    }

    /// All that was learned since the last cut.
    pub fn cut(&mut self, cut: Cut) -> Partial {
        self.streams.born = self.streams.born.min(cut.arrived.saturating_sub(Duration::from_secs(1)));
        self.close_block();
        if let Some(index) = &self.index {
            index.publish(self.number, self.of, cut.through, std::mem::take(&mut self.blocks));
        }
        let mut partial = Partial {
            cut,
            shard: self.number,
            cells: Vec::new(),
            counted: self.hot.take(),
            new: self.series.take_new(),
            facets: self.facets.take(),
            indicators: self.take_seconds(),
            users: self.take_users(),
            halves: self.halves.take(),
            peers: self.peers.take(),
            accepted: std::mem::take(&mut self.accepted),
            rejected: std::mem::take(&mut self.rejected),
            late: BTreeMap::new(),
            series: self.series.len(),
            overflowed: self.series.take_overflowed(),
            untimely: self.series.take_untimely(),
            turned_away: self.series.take_turned_away(),
            state: None,
        };
        if self.ahead > 0 {
            partial.late.insert(LateReason::Future, std::mem::take(&mut self.ahead));
        }
        if self.crowded > 0 {
            partial.late.insert(LateReason::Crowded, std::mem::take(&mut self.crowded));
        }
        // By where it lies, for a cut may come long after the one before it.
        let look = cut.number / FORGET_EVERY_S;
        if std::mem::replace(&mut self.looked, look) != look {
            self.forget(cut.number.saturating_sub(KEPT_UNUSED_S));
        }
        if cut.checkpoint {
            partial.state = Some(self.state());
        }
        partial
    }

    /// Lets go of what was not used since `second`.
    fn forget(&mut self, second: u64) {
        self.streams.forget_unused(second);
        self.series.forget_unused(second);
        // Facets and peers of instances that are gone go with the resources; who is alive is found again.
        self.resources.clear();
        self.facets.clear();
        self.peers = Peers::default();
        self.series.forget_peers();
    }

    fn take_users(&mut self) -> Vec<(super::IndicatorId, Users)> {
        let seen = self.indicators.iter().zip(&mut self.users).filter(|(of, _)| of.users.is_some());
        let mut taken = Vec::new();
        for (indicator, users) in seen.filter(|(_, users)| !users.is_empty()) {
            taken.push((indicator.id, std::mem::take(users)));
        }
        taken
    }

    fn take_seconds(&mut self) -> Vec<(super::IndicatorId, SecondCount)> {
        let mut taken = Vec::new();
        for (indicator, seconds) in self.indicators.iter().zip(&mut self.seconds) {
            seconds.sort_unstable_by_key(|count| count.second);
            taken.extend(seconds.drain(..).map(|count| (indicator.id, count)));
        }
        taken
    }
}
