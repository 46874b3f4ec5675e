//! What queries read: the open windows and the last sealed ones, published once a tick.

use crate::aggregate::{Cell, EdgeCell};
use crate::journal::Cut;
use crate::model::{SeriesId, WindowId};
use crate::window::{Cells, EdgeKey, SealedWindow, Topology};
use std::sync::Arc;

/// A window that still takes on-time data, as of one cut.
#[derive(Clone, Debug)]
pub struct OpenWindow {
    pub id: WindowId,
    pub cells: Arc<Cells>,
    /// Sorted by key.
    pub edges: Arc<Vec<(Arc<EdgeKey>, EdgeCell)>>,
}

impl OpenWindow {
    #[must_use]
    pub fn cell(&self, series: SeriesId) -> Option<Cell> {
        self.cells.get(series)
    }

    /// The window as it would be if it were sealed now (facets and quality left out).
    #[must_use]
    pub fn as_sealed(&self, cut: Cut) -> SealedWindow {
        SealedWindow {
            id: self.id,
            sealed: cut,
            cells: (*self.cells).clone(),
            edges: self.edges.to_vec(),
            ..SealedWindow::default()
        }
    }
}

/// The present, as of one cut. Older windows are in the store.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub cut: Cut,
    /// Ascending by id.
    pub open: Arc<[OpenWindow]>,
    /// The last sealed windows, ascending by id: as many of the last ten minutes as fit into
    /// `window.recent_bytes`, and no fewer than two. Amendments are not in them.
    pub sealed: Arc<[Arc<SealedWindow>]>,
    pub topology: Arc<Topology>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { cut: Cut::default(), open: Arc::new([]), sealed: Arc::new([]), topology: Arc::default() }
    }
}
