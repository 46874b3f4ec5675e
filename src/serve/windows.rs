//! Where queries read counts from.

use crate::aggregate::EdgeCell;
use crate::model::Timestamp;
use crate::window::{Cells, EdgeKey, SealedWindow};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Counts of one stretch of event time: a window, an amendment of it, or a roll-up of several.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub start: Timestamp,
    /// First moment after it.
    pub end: Timestamp,
    pub cells: &'a Cells,
    pub edges: &'a [(Arc<EdgeKey>, EdgeCell)],
}

impl<'a> Piece<'a> {
    #[must_use]
    pub fn sealed(window: &'a SealedWindow, end: Timestamp) -> Self {
        Self { start: window.id.start(), end, cells: &window.cells, edges: &window.edges }
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
