//! Cells that are being counted. Their memory is kept from barrier to barrier.

use super::series::{NONE, Series, SeriesTable};
use super::slots::{More, Slots};
use super::{Cell, Exemplar, Requests, Weight};
use crate::model::{SeriesId, Timestamp, WindowId};
use crate::sketch::{Recording, Recordings};

/// Spans of one series and window.
#[derive(Debug)]
pub(super) struct SpanCell {
    series: u32,
    window: WindowId,
    pub seen: u64,
    pub weight: Weight,
    pub errors: u64,
    pub errors_weight: Weight,
    pub sum_ns: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    pub slowest: Option<Exemplar>,
    pub failed: Option<Exemplar>,
    pub latency: Recording,
}

#[derive(Debug, Default)]
pub(super) struct HotCells {
    spans: Vec<SpanCell>,
    others: Vec<(u32, WindowId, Cell)>,
    pub pages: Recordings,
    more: More,
}

impl HotCells {
    /// The cell of spans of a series in a window, and the pages of its latency.
    #[inline]
    pub fn spans(
        &mut self,
        number: u32,
        series: &mut Series,
        window: WindowId,
    ) -> Option<(&mut SpanCell, &mut Recordings)> {
        let made = u32::try_from(self.spans.len()).unwrap_or(NONE);
        let cell = series.slots.cell(number, window, made, &mut self.more);
        if cell == made {
            self.spans.push(SpanCell {
                series: number,
                window,
                seen: 0,
                weight: Weight(0),
                errors: 0,
                errors_weight: Weight(0),
                sum_ns: 0,
                first: Timestamp::MAX,
                last: Timestamp::ZERO,
                slowest: None,
                failed: None,
                latency: Recording::default(),
            });
        }
        self.spans.get_mut(cell as usize).map(|cell| (cell, &mut self.pages))
    }

    /// The cell of anything but spans: `first` becomes it, or is merged into it.
    pub fn add(&mut self, number: u32, series: &mut Series, window: WindowId, first: Cell) {
        let made = u32::try_from(self.others.len()).unwrap_or(NONE);
        let cell = series.slots.cell(number, window, made, &mut self.more);
        if cell == made {
            self.others.push((number, window, first));
        } else if let Some((_, _, cell)) = self.others.get_mut(cell as usize) {
            cell.merge(&first);
        }
    }

    /// All cells, each once, in the order in which they came to be; spans first. They are gone then,
    /// and their series were used in `second`.
    pub fn take(&mut self, series: &mut SeriesTable, second: u64) -> Vec<(SeriesId, WindowId, Cell)> {
        let mut taken = Vec::with_capacity(self.spans.len() + self.others.len());
        for cell in self.spans.drain(..) {
            let Some(owner) = release(series, cell.series, second) else { continue };
            let requests = Requests {
                seen: cell.seen,
                weight: cell.weight,
                errors: cell.errors,
                errors_weight: cell.errors_weight,
                sum_ns: cell.sum_ns,
                latency: cell.latency.histogram(&self.pages),
                slowest: cell.slowest,
                failed: cell.failed,
                first: cell.first,
                last: cell.last,
            };
            taken.push((owner, cell.window, Cell::Requests(Box::new(requests))));
        }
        for (number, window, cell) in self.others.drain(..) {
            if let Some(owner) = release(series, number, second) {
                taken.push((owner, window, cell));
            }
        }
        self.pages.clear();
        self.more.clear();
        taken
    }
}

fn release(series: &mut SeriesTable, number: u32, second: u64) -> Option<SeriesId> {
    let series = series.get_mut(number)?;
    series.slots = Slots::default();
    series.used = second;
    Some(series.id)
}
