//! What the judge gets: a tick each second of arrival, a sealed window each 10 s of event time.

use crate::aggregate::{Accepted, Cell, EdgeCell, Facet, FacetKey, IndicatorId, SecondCount, Users};
use crate::journal::Cut;
use crate::model::{SeriesId, SeriesKey, WindowId};
use crate::window::{Cells, EdgeKey};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Calls and those that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCount {
    pub requests: u64,
    pub errors: u64,
}

impl CallCount {
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
    }
}

/// Calls by client and server, sorted by key.
pub type Calls = Vec<(Arc<EdgeKey>, CallCount)>;

/// All that arrived between two barriers, of all shards. Ticks merge: a judge that was late gets one
/// larger tick, with the later cut.
#[derive(Debug, Default)]
pub struct Tick {
    pub cut: Cut,
    /// Sorted by series, then window; one entry each.
    pub changed: Vec<(SeriesId, WindowId, Cell)>,
    /// Series never seen before, in order of id.
    pub new: Vec<(SeriesId, Arc<SeriesKey>)>,
    pub facets: Vec<(Arc<FacetKey>, Facet)>,
    pub edges: Vec<(Arc<EdgeKey>, EdgeCell)>,
    /// What clients say of their calls, by the server that the address stands for. Exact, and also told
    /// of servers that answer nothing; sorted by key.
    pub calls: Calls,
    pub indicators: Vec<(IndicatorId, SecondCount)>,
    /// Users that indicators saw, sorted by id; one entry each.
    pub users: Vec<(IndicatorId, Users)>,
    pub accepted: Accepted,
}

impl Tick {
    /// Adds the tick that follows: what a judge that was late gets is one larger tick, with the later cut.
    pub fn merge(&mut self, later: Self) {
        self.cut = later.cut;
        let keyed = |changed: Vec<(SeriesId, WindowId, Cell)>| -> Vec<((SeriesId, WindowId), Cell)> {
            changed.into_iter().map(|(series, window, cell)| ((series, window), cell)).collect()
        };
        let mut changed = keyed(std::mem::take(&mut self.changed));
        merge_sorted(&mut changed, &keyed(later.changed), |cell, more| cell.merge(more));
        self.changed = changed.into_iter().map(|((series, window), cell)| (series, window, cell)).collect();
        self.new.extend(later.new);
        self.new.sort_by_key(|&(id, _)| id);
        merge_sorted(&mut self.facets, &later.facets, |facet, more| facet.merge(more));
        merge_sorted(&mut self.edges, &later.edges, |edge, more| edge.merge(more));
        merge_sorted(&mut self.calls, &later.calls, CallCount::merge);
        self.indicators.extend(later.indicators);
        merge_sorted(&mut self.users, &later.users, Users::merge);
        self.accepted.add(later.accepted);
    }
}

/// A window of event time that takes no more on-time data. Immutable: what comes later is an
/// amendment, a further window of the same id that queries and budgets add and the judge ignores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SealedWindow {
    pub id: WindowId,
    /// The cut with which it was sealed.
    pub sealed: Cut,
    /// Whether this is an amendment of the window: what came after it had been sealed.
    pub amendment: bool,
    pub cells: Cells,
    /// Sorted by key.
    pub facets: Vec<(Arc<FacetKey>, Facet)>,
    pub edges: Vec<(Arc<EdgeKey>, EdgeCell)>,
    pub quality: Quality,
}

impl SealedWindow {
    #[must_use]
    pub fn cell(&self, series: SeriesId) -> Option<Cell> {
        self.cells.get(series)
    }

    /// Adds what another window, or an amendment of this one, holds. Id and kind stay; the later cut
    /// wins.
    pub fn merge(&mut self, other: &Self) {
        if other.sealed.number > self.sealed.number {
            self.sealed = other.sealed;
        }
        self.cells.merge(&other.cells);
        merge_sorted(&mut self.facets, &other.facets, |facet, more| facet.merge(more));
        merge_sorted(&mut self.edges, &other.edges, |edge, more| edge.merge(more));
        self.quality.merge(&other.quality);
    }
}

/// Merges two runs that are sorted by key and hold each key once.
fn merge_sorted<K: Ord + Clone, V: Clone>(
    into: &mut Vec<(K, V)>,
    other: &[(K, V)],
    add: impl Fn(&mut V, &V),
) {
    if other.is_empty() {
        return;
    }
    let ours = std::mem::take(into);
    into.reserve(ours.len().max(other.len()));
    let mut theirs = other.iter().peekable();
    for (key, mut value) in ours {
        while let Some(entry) = theirs.next_if(|(other, _)| *other < key) {
            into.push(entry.clone());
        }
        if let Some((_, more)) = theirs.next_if(|(other, _)| *other == key) {
            add(&mut value, more);
        }
        into.push((key, value));
    }
    into.extend(theirs.cloned());
}

/// How far a window can be trusted when it shows little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// Items that came after their window had been sealed, while this window was open.
    pub late: u64,
    /// Requests turned away whole, items refused for good.
    pub refused: u64,
    pub rejected: u64,
    /// The daemon itself was not receiving for part of the window.
    pub gap: bool,
    /// Distinct instances that sent something in this window, and in the last ten minutes.
    pub instances_seen: u32,
    pub instances_expected: u32,
}

impl Quality {
    /// Adds up what adds up; of instances, the most that any part had.
    pub fn merge(&mut self, other: &Self) {
        self.late += other.late;
        self.refused += other.refused;
        self.rejected += other.rejected;
        self.gap |= other.gap;
        self.instances_seen = self.instances_seen.max(other.instances_seen);
        self.instances_expected = self.instances_expected.max(other.instances_expected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Lines;

    fn tick(number: u64, series: &[u8]) -> Tick {
        let cell = Cell::Lines(Lines { by_severity: [1; 7] });
        Tick {
            cut: Cut { number, ..Cut::default() },
            changed: series.iter().map(|&id| (SeriesId([id; 16]), WindowId(1), cell.clone())).collect(),
            accepted: Accepted { log_records: 7 * series.len() as u64, ..Accepted::default() },
            ..Tick::default()
        }
    }

    #[test]
    fn merged_ticks_hold_what_both_held() {
        let mut merged = tick(5, &[1, 3]);
        merged.merge(tick(6, &[2, 3]));
        assert_eq!((merged.cut.number, merged.accepted.log_records), (6, 28));
        let items: Vec<(u8, u64)> =
            merged.changed.iter().map(|(id, _, cell)| (id.0[0], cell.items())).collect();
        assert_eq!(items, [(1, 7), (2, 7), (3, 14)]);
    }
}
