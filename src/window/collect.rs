//! One window while it takes data.

use super::addresses::Addresses;
use super::graph::Sources;
use crate::aggregate::{Cell, EdgeCell, Facet, FacetKey};
use crate::journal::Cut;
use crate::model::{SeriesId, WindowId};
use crate::window::{EdgeKey, OpenWindow, Quality, SealedWindow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What has been learned so far of one window, or of an amendment to one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Collecting {
    /// Sorted by series. Shared with the snapshots of earlier cuts, hence never changed in place.
    cells: Arc<Vec<(SeriesId, Arc<Cell>)>>,
    facets: BTreeMap<Arc<FacetKey>, Facet>,
    flows: Sources<EdgeCell>,
    pub quality: Quality,
    /// The edges as last shown, while they still hold.
    #[serde(skip)]
    shown_edges: Option<Arc<Vec<(Arc<EdgeKey>, EdgeCell)>>>,
}

impl Collecting {
    /// Adds cells, sorted by series, each series once.
    pub fn add_cells<'a>(&mut self, more: impl ExactSizeIterator<Item = (SeriesId, &'a Cell)>) {
        let mut merged = Vec::with_capacity(self.cells.len().max(more.len()));
        let mut more = more.peekable();
        for (series, cell) in self.cells.iter() {
            while let Some((series, cell)) = more.next_if(|(other, _)| other < series) {
                merged.push((series, Arc::new(cell.clone())));
            }
            match more.next_if(|(other, _)| other == series) {
                Some((_, new)) => {
                    merged.push((*series, Arc::new(sum(cell, new))));
                }
                None => merged.push((*series, cell.clone())),
            }
        }
        merged.extend(more.map(|(series, cell)| (series, Arc::new(cell.clone()))));
        self.cells = Arc::new(merged);
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
            cells: Arc::unwrap_or_clone(self.cells)
                .into_iter()
                .map(|(series, cell)| (series, Arc::unwrap_or_clone(cell)))
                .collect(),
            facets: self.facets.into_iter().collect(),
            edges,
            quality: self.quality,
        }
    }
}

/// The sum of two cells. What is new is the smaller one, so that is what gets copied first; sums of two
/// do not depend on the order. Only of two types the one that was there has to stay.
fn sum(known: &Cell, new: &Cell) -> Cell {
    let same_type = std::mem::discriminant(known) == std::mem::discriminant(new);
    let (mut sum, other) = if same_type { (new.clone(), known) } else { (known.clone(), new) };
    sum.merge(other);
    sum
}
