//! Where queries read counts from.

use crate::aggregate::{Cell, EdgeCell};
use crate::model::{SeriesId, Timestamp};
use crate::window::{EdgeKey, SealedWindow};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Counts of one stretch of event time: a window, an amendment of it, or a roll-up of several.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub start: Timestamp,
    /// First moment after it.
    pub end: Timestamp,
    pub cells: Cells<'a>,
    pub edges: &'a [(Arc<EdgeKey>, EdgeCell)],
}

/// Cells by series, as sealed and open windows hold them.
#[derive(Clone, Copy, Debug)]
pub enum Cells<'a> {
    Sealed(&'a [(SeriesId, Cell)]),
    Open(&'a [(SeriesId, Arc<Cell>)]),
}

impl<'a> Piece<'a> {
    #[must_use]
    pub fn sealed(window: &'a SealedWindow, end: Timestamp) -> Self {
        Self { start: window.id.start(), end, cells: Cells::Sealed(&window.cells), edges: &window.edges }
    }

    /// Each series and its cell.
    pub fn cells(&self) -> impl Iterator<Item = (SeriesId, &'a Cell)> + use<'a> {
        let (sealed, open): (&[(SeriesId, Cell)], &[(SeriesId, Arc<Cell>)]) = match self.cells {
            Cells::Sealed(cells) => (cells, &[]),
            Cells::Open(cells) => (&[], cells),
        };
        sealed.iter().map(|(id, cell)| (*id, cell)).chain(open.iter().map(|(id, cell)| (*id, &**cell)))
    }
}

/// All windows there are: open, sealed, amended, stored.
pub trait Windows: Send + Sync {
    /// The journal's time: arrival of the newest cut.
    fn now(&self) -> Timestamp;

    /// Calls `visit` with every piece that overlaps `since..until`, in ascending order of start, each
    /// item of telemetry in exactly one of them; stops when it breaks.
    ///
    /// # Errors
    /// What could not be read, in words.
    fn visit(
        &self,
        since: Timestamp,
        until: Timestamp,
        visit: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), String>;
}
