//! Cells that are being counted, and how they are handed over at a barrier: whole, by ownership. The
//! receiver makes the cells of a [`super::Partial`] of them, and their memory comes back.

use super::explicit::{ExplicitCell, Explicits};
use super::series::{NONE, Series};
use super::slots::More;
use super::{Cell, Exemplar, Requests, Weight};
use crate::model::{SeriesId, SpanId, Timestamp, TraceId, WindowId};
use crate::otlp::ExplicitRow;
use crate::sketch::{Recording, Recordings};
use crossbeam::queue::ArrayQueue;
use std::cmp::Reverse;
use std::sync::Arc;

/// Sets of memory that wait to be used again. With one there are two in turn: the receiver of a set has
/// made cells of it long before the next barrier.
const KEPT: usize = 1;

/// Spans of one series and window. What every span touches lies together.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct SpanCell {
    pub latency: Recording,
    seen: u64,
    sum_ns: u64,
    first: Timestamp,
    last: Timestamp,
    /// Duration of the slowest span.
    slowest_ns: u64,
    /// Weight above one a span, since sampling is rare.
    extra_weight: Weight,
    errors: u64,
    errors_weight: Weight,
    series: SeriesId,
    window: WindowId,
    slowest: Option<Exemplar>,
    failed: Option<Exemplar>,
}

/// A span as its cell sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub time: Timestamp,
    pub duration_ns: u64,
    pub error: bool,
    pub weight: Weight,
    pub trace: TraceId,
    pub span: SpanId,
    pub at: crate::journal::Position,
}

impl SpanCell {
    fn new(series: SeriesId, window: WindowId) -> Self {
        Self {
            latency: Recording::default(),
            seen: 0,
            sum_ns: 0,
            first: Timestamp::MAX,
            last: Timestamp::ZERO,
            slowest_ns: 0,
            extra_weight: Weight(0),
            errors: 0,
            errors_weight: Weight(0),
            series,
            window,
            slowest: None,
            failed: None,
        }
    }

    #[inline]
    fn add(&mut self, sample: &Sample, recordings: &mut Recordings) {
        self.seen += 1;
        self.sum_ns = self.sum_ns.saturating_add(sample.duration_ns);
        self.first = self.first.min(sample.time);
        self.last = self.last.max(sample.time);
        self.latency.record(sample.duration_ns, recordings);
        if sample.weight != Weight::ONE {
            self.extra_weight.add(Weight(sample.weight.0.saturating_sub(Weight::ONE.0)));
        }
        if sample.duration_ns >= self.slowest_ns {
            self.note_slow(sample);
        }
        if sample.error {
            self.note_error(sample);
        }
    }

    // Of equals the one at the earlier position, then the one with the larger id, stays: as merging does.

    #[inline(never)]
    fn note_slow(&mut self, sample: &Sample) {
        let is_slower = self.slowest.is_none_or(|known| {
            (sample.duration_ns, Reverse(sample.at), sample.span)
                > (known.value_ns, Reverse(known.at), known.span)
        });
        if is_slower {
            self.slowest_ns = sample.duration_ns;
            self.slowest = Some(sample.exemplar());
        }
    }

    #[inline(never)]
    fn note_error(&mut self, sample: &Sample) {
        self.errors += 1;
        self.errors_weight.add(sample.weight);
        let is_later = self.failed.is_none_or(|known| {
            (sample.time, Reverse(sample.at), sample.span) > (known.time, Reverse(known.at), known.span)
        });
        if is_later {
            self.failed = Some(sample.exemplar());
        }
    }

    fn requests(&self, recordings: &Recordings) -> Requests {
        let seen = Weight(self.seen.saturating_mul(Weight::ONE.0));
        Requests {
            seen: self.seen,
            weight: Weight(seen.0.saturating_add(self.extra_weight.0)),
            errors: self.errors,
            errors_weight: self.errors_weight,
            sum_ns: self.sum_ns,
            latency: self.latency.histogram(recordings),
            slowest: self.slowest,
            failed: self.failed,
            first: self.first,
            last: self.last,
        }
    }
}

impl Sample {
    fn exemplar(&self) -> Exemplar {
        Exemplar {
            trace: self.trace,
            span: self.span,
            value_ns: self.duration_ns,
            time: self.time,
            at: self.at,
        }
    }
}

/// A cell of anything but spans.
#[derive(Debug)]
enum Other {
    Whole(Cell),
    Explicit(ExplicitCell),
}

impl Other {
    fn merge(&mut self, other: &Cell) {
        match (self, other) {
            (Self::Whole(cell), other) => cell.merge(other),
            (Self::Explicit(cell), Cell::Distribution(other)) => cell.merge(other),
            // As cells of different types do.
            (Self::Explicit(_), _) => {}
        }
    }

    /// Memory it takes beside itself.
    fn size_bytes(&self) -> usize {
        match self {
            Self::Whole(Cell::Distribution(cell)) => size_of_val(&**cell) + cell.histogram.size_bytes(),
            Self::Whole(_) => 0,
            Self::Explicit(cell) => cell.size_bytes(),
        }
    }

    fn whole(self, shared: &Explicits) -> Cell {
        match self {
            Self::Whole(cell) => cell,
            Self::Explicit(cell) => Cell::Distribution(Box::new(cell.distribution(shared))),
        }
    }
}

/// Memory for cells.
#[derive(Debug, Default)]
struct Memory {
    spans: Vec<SpanCell>,
    others: Vec<(SeriesId, WindowId, Other)>,
    recordings: Recordings,
    explicits: Explicits,
    more: More,
}

/// The cells of a shard since the last barrier.
#[derive(Debug)]
pub(super) struct HotCells {
    memory: Memory,
    /// Grows with each barrier: tells slots of this one from those of earlier ones.
    epoch: u32,
    home: Arc<ArrayQueue<Memory>>,
}

impl Default for HotCells {
    fn default() -> Self {
        Self { memory: Memory::default(), epoch: 1, home: Arc::new(ArrayQueue::new(KEPT)) }
    }
}

impl HotCells {
    /// Counts a span of a series in a window; the journal is at `second`.
    #[inline]
    pub fn add_span(
        &mut self,
        number: u32,
        series: &mut Series,
        window: WindowId,
        second: u64,
        sample: &Sample,
    ) {
        let Memory { spans, recordings, more, .. } = &mut self.memory;
        let made = u32::try_from(spans.len()).unwrap_or(NONE);
        let (cell, is_beyond) = series.slots.cell(number, window, made, self.epoch, more);
        let before = if is_beyond { recordings.size_bytes() } else { 0 };
        let is_new = cell == made;
        if is_new {
            series.used = second;
            if spans.len() == spans.capacity() {
                // Doubling would leave a third of the largest piece of memory there is unused.
                spans.reserve_exact(spans.len() / 8 + 64);
            }
            spans.push(SpanCell::new(series.id, window));
        }
        if let Some(cell) = spans.get_mut(cell as usize) {
            cell.add(sample, recordings);
        }
        if is_beyond {
            let own = if is_new { size_of::<SpanCell>() } else { 0 };
            more.grow(own + recordings.size_bytes().saturating_sub(before));
        }
    }

    /// Counts anything but spans: `first` becomes the cell, or is merged into it.
    pub fn add(&mut self, number: u32, series: &mut Series, window: WindowId, second: u64, first: Cell) {
        let Memory { others, more, .. } = &mut self.memory;
        let made = u32::try_from(others.len()).unwrap_or(NONE);
        let (cell, is_beyond) = series.slots.cell(number, window, made, self.epoch, more);
        if cell == made {
            series.used = second;
            let cell = Other::Whole(first);
            if is_beyond {
                more.grow(size_of::<(SeriesId, WindowId, Other)>() + cell.size_bytes());
            }
            others.push((series.id, window, cell));
        } else if let Some((_, _, cell)) = others.get_mut(cell as usize) {
            let before = if is_beyond { cell.size_bytes() } else { 0 };
            cell.merge(&first);
            if is_beyond {
                more.grow(cell.size_bytes().saturating_sub(before));
            }
        }
    }

    /// Counts a point of a histogram with explicit bounds.
    pub fn add_explicit(
        &mut self,
        number: u32,
        series: &mut Series,
        window: WindowId,
        second: u64,
        point: &ExplicitRow<'_>,
    ) {
        let Memory { others, more, explicits, .. } = &mut self.memory;
        let made = u32::try_from(others.len()).unwrap_or(NONE);
        let (cell, is_beyond) = series.slots.cell(number, window, made, self.epoch, more);
        if cell == made {
            series.used = second;
            others.push((series.id, window, Other::Explicit(ExplicitCell::default())));
            if is_beyond {
                more.grow(size_of::<(SeriesId, WindowId, Other)>());
            }
        }
        let size_bytes = |others: &[(SeriesId, WindowId, Other)], explicits: &Explicits| {
            others.get(cell as usize).map_or(0, |(_, _, cell)| cell.size_bytes()) + explicits.size_bytes()
        };
        let before = if is_beyond { size_bytes(others, explicits) } else { 0 };
        match others.get_mut(cell as usize) {
            Some((_, _, Other::Explicit(cell))) => cell.add(point, explicits),
            Some((_, _, Other::Whole(cell @ Cell::Distribution(_)))) => {
                let mut alone = ExplicitCell::default();
                alone.add(point, explicits);
                cell.merge(&Cell::Distribution(Box::new(alone.distribution(explicits))));
            }
            _ => {}
        }
        if is_beyond {
            more.grow(size_bytes(others, explicits).saturating_sub(before));
        }
    }

    /// Cells beyond two windows of each series: what comes on time opens next to none.
    #[inline]
    pub fn beyond(&self) -> usize {
        self.memory.more.len()
    }

    /// Memory that those take.
    #[inline]
    pub fn beyond_bytes(&self) -> usize {
        self.memory.more.size_bytes()
    }

    /// All cells, as they are. None are left.
    pub fn take(&mut self) -> Counted {
        self.epoch = self.epoch.wrapping_add(1);
        if self.memory.spans.is_empty() && self.memory.others.is_empty() {
            return Counted::default();
        }
        let next = self.home.pop().unwrap_or_default();
        Counted(Some((std::mem::replace(&mut self.memory, next), self.home.clone())))
    }
}

/// Cells as a shard counted them.
#[derive(Debug, Default)]
pub struct Counted(Option<(Memory, Arc<ArrayQueue<Memory>>)>);

impl Counted {
    /// Each cell once, in the order in which they came to be; spans first. Gives the memory back.
    pub fn append_to(&mut self, cells: &mut Vec<(SeriesId, WindowId, Cell)>) {
        let Some((mut memory, home)) = self.0.take() else { return };
        cells.reserve(memory.spans.len().saturating_add(memory.others.len()));
        for cell in memory.spans.drain(..) {
            let requests = cell.requests(&memory.recordings);
            cells.push((cell.series, cell.window, Cell::Requests(Box::new(requests))));
        }
        for (series, window, cell) in memory.others.drain(..) {
            cells.push((series, window, cell.whole(&memory.explicits)));
        }
        memory.explicits.clear();
        memory.recordings.clear();
        memory.more.clear();
        // A full queue has enough; then this set goes.
        drop(home.push(memory));
    }
}
