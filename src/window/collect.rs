//! One window while it takes data.

use super::addresses::Addresses;
use super::graph::Sources;
use crate::aggregate::{Cell, EdgeCell, Facet, FacetKey};
use crate::journal::Cut;
use crate::model::{SeriesId, WindowId};
use crate::window::{Cells, EdgeKey, OpenWindow, Quality, SealedWindow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What has been learned so far of one window, or of an amendment to one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Collecting {
    /// Shared with the snapshots of earlier cuts, hence never changed in place.
    cells: Arc<Cells>,
    facets: BTreeMap<Arc<FacetKey>, Facet>,
    flows: Sources<EdgeCell>,
    pub quality: Quality,
    /// The edges as last shown, while they still hold.
    #[serde(skip)]
    shown_edges: Option<Arc<Vec<(Arc<EdgeKey>, EdgeCell)>>>,
}

impl Collecting {
    /// Adds cells, sorted by series, each series once.
    pub fn add_cells<'a>(&mut self, more: impl Iterator<Item = (SeriesId, &'a Cell)>) {
        self.cells = Arc::new(self.cells.merged(more));
    }

    pub fn add_facet(&mut self, key: Arc<FacetKey>, facet: &Facet) {
        self.facets.entry(key).or_default().merge(facet);
    }

    pub fn add_flows(&mut self, flows: &Sources<EdgeCell>) {
        self.flows.merge(flows);
        self.shown_edges = None;
    }

    /// The window as queries see it meanwhile.
    pub fn show(&mut self, id: WindowId, addresses: &Addresses) -> OpenWindow {
        let edges = self
            .shown_edges
            .get_or_insert_with(|| Arc::new(self.flows.resolve(addresses, |_| false)))
            .clone();
        OpenWindow { id, cells: self.cells.clone(), edges }
    }

    pub fn seal(self, id: WindowId, sealed: Cut, amendment: bool, addresses: &Addresses) -> SealedWindow {
        let edges = if self.flows.is_empty() { Vec::new() } else { self.flows.resolve(addresses, |_| false) };
        SealedWindow {
            id,
            sealed,
            amendment,
            cells: Arc::unwrap_or_clone(self.cells),
            facets: self.facets.into_iter().collect(),
            edges,
            quality: self.quality,
        }
    }
}
