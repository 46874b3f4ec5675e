//! Cells of one window, packed: a cell takes a third of the memory it has as a value, and a window of
//! many series is a few large pieces of memory instead of three small ones for each of them.

use crate::aggregate::Cell;
use crate::model::SeriesId;
use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Bytes of cells after which another piece is begun.
const PIECE_BYTES: usize = 64 << 10;

/// Cells by series, ascending, each series once. Cells do not change: a changed window is another one.
#[derive(Clone, Default)]
pub struct Cells {
    /// Shared by copies: a window is sealed while readers have it open.
    pieces: Vec<Arc<Piece>>,
    len: usize,
}

#[derive(Clone, Default)]
struct Piece {
    series: Vec<SeriesId>,
    /// Where each cell ends in `bytes`.
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

/// A cell as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed<'a>(&'a [u8]);

impl Packed<'_> {
    /// The cell as a value; `None` is not met, since nothing but cells is packed.
    #[must_use]
    pub fn cell(self) -> Option<Cell> {
        postcard::from_bytes(self.0).ok()
    }

    /// The cell in postcard.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0
    }
}

impl Piece {
    fn get(&self, at: usize) -> Option<(SeriesId, Packed<'_>)> {
        let start = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        let bytes = self.bytes.get(start as usize..*self.ends.get(at)? as usize)?;
        Some((*self.series.get(at)?, Packed(bytes)))
    }
}

impl Cells {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What they take of memory.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let of = |piece: &Arc<Piece>| {
            piece.series.capacity() * size_of::<SeriesId>()
                + piece.ends.capacity() * 4
                + piece.bytes.capacity()
        };
        self.pieces.iter().map(of).sum()
    }

    /// Adds the cell of a series that comes after all that are there.
    pub fn push(&mut self, series: SeriesId, cell: &Cell) {
        let piece = self.open_piece();
        let before = piece.bytes.len();
        // Writing into memory has no way to fail.
        piece.bytes = postcard::to_extend(cell, std::mem::take(&mut piece.bytes)).unwrap_or_default();
        if piece.bytes.len() > before {
            piece.ends.push(u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX));
            piece.series.push(series);
            self.len += 1;
        }
    }

    fn push_packed(&mut self, series: SeriesId, Packed(bytes): Packed<'_>) {
        let piece = self.open_piece();
        piece.bytes.extend_from_slice(bytes);
        piece.ends.push(u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX));
        piece.series.push(series);
        self.len += 1;
    }

    /// The piece that takes the next cell.
    fn open_piece(&mut self) -> &mut Piece {
        if self.pieces.last().is_none_or(|last| last.bytes.len() >= PIECE_BYTES) {
            self.close();
            self.pieces.push(Arc::default());
        }
        let last = self.pieces.len() - 1;
        Arc::make_mut(&mut self.pieces[last])
    }

    /// Gives back what the last piece holds beyond its cells.
    fn close(&mut self) {
        if let Some(piece) = self.pieces.last_mut().map(Arc::make_mut) {
            piece.bytes.shrink_to_fit();
            piece.ends.shrink_to_fit();
            piece.series.shrink_to_fit();
        }
    }

    #[must_use]
    pub fn get(&self, series: SeriesId) -> Option<Cell> {
        let after =
            self.pieces.partition_point(|piece| piece.series.first().is_some_and(|first| *first <= series));
        let piece = self.pieces.get(after.checked_sub(1)?)?;
        piece.get(piece.series.binary_search(&series).ok()?)?.1.cell()
    }

    /// Each series and its cell as it is kept, ascending.
    pub fn packed(&self) -> impl Iterator<Item = (SeriesId, Packed<'_>)> {
        self.pieces.iter().flat_map(|piece| (0..piece.ends.len()).filter_map(|at| piece.get(at)))
    }

    /// Each series and its cell, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, Cell)> {
        self.packed().filter_map(|(series, packed)| Some((series, packed.cell()?)))
    }

    /// These and others, which ascend by series, each series once.
    #[must_use]
    pub fn merged<C: Borrow<Cell>>(&self, others: impl Iterator<Item = (SeriesId, C)>) -> Self {
        let mut merged = Self { pieces: Vec::with_capacity(self.pieces.len()), len: 0 };
        let mut others = others.peekable();
        for (series, kept) in self.packed() {
            while let Some((series, cell)) = others.next_if(|(other, _)| *other < series) {
                merged.push(series, cell.borrow());
            }
            match others.next_if(|(other, _)| *other == series) {
                Some((_, cell)) => {
                    // A cell of a type that the series had before stays, so it has to come first.
                    let mut sum = kept.cell().unwrap_or_else(|| cell.borrow().clone());
                    sum.merge(cell.borrow());
                    merged.push(series, &sum);
                }
                None => merged.push_packed(series, kept),
            }
        }
        others.for_each(|(series, cell)| merged.push(series, cell.borrow()));
        merged.close();
        merged
    }

    /// Adds other cells.
    pub fn merge(&mut self, other: &Self) {
        if self.is_empty() {
            self.clone_from(other);
        } else if !other.is_empty() {
            *self = self.merged(other.iter());
        }
    }
}

impl FromIterator<(SeriesId, Cell)> for Cells {
    /// Series must ascend.
    fn from_iter<I: IntoIterator<Item = (SeriesId, Cell)>>(cells: I) -> Self {
        let mut packed = Self::default();
        cells.into_iter().for_each(|(series, cell)| packed.push(series, &cell));
        packed.close();
        packed
    }
}

/// How they are cut into pieces does not count.
impl PartialEq for Cells {
    fn eq(&self, other: &Self) -> bool {
        self.packed().eq(other.packed())
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

/// As a list of series and cells.
impl Serialize for Cells {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.len))?;
        for entry in self.iter() {
            list.serialize_element(&entry)?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Cells;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("cells by series")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cells, A::Error> {
                let mut packed = Cells::default();
                let mut last = None;
                while let Some((series, cell)) = list.next_element::<(SeriesId, Cell)>()? {
                    if last.replace(series).is_some_and(|last| last >= series) {
                        return Err(A::Error::custom("cells that do not ascend by series"));
                    }
                    packed.push(series, &cell);
                }
                packed.close();
                Ok(packed)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Lines, Requests, Total};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn id(n: u16) -> SeriesId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        SeriesId(id)
    }

    fn cell() -> impl Strategy<Value = Cell> {
        prop_oneof![
            prop::collection::vec(1u64..1_000_000, 1..20).prop_map(|durations| {
                let mut cell = Requests { seen: durations.len() as u64, ..Requests::default() };
                durations.iter().for_each(|&duration| cell.latency.record(duration as f64));
                Cell::Requests(Box::new(cell))
            }),
            (0u64..1_000).prop_map(|n| Cell::Lines(Lines { by_severity: [n; 7] })),
            (0u32..1_000).prop_map(|n| Cell::Total(Total { delta: f64::from(n), points: 1 })),
        ]
    }

    fn cells(most: usize) -> impl Strategy<Value = BTreeMap<u16, Cell>> {
        prop::collection::btree_map(any::<u16>(), cell(), 0..most)
    }

    fn packed(of: &BTreeMap<u16, Cell>) -> Cells {
        of.iter().map(|(&n, cell)| (id(n), cell.clone())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Of several pieces, too: 2,000 cells of 50 bytes and more.
        #[test]
        fn they_are_what_a_map_is(one in cells(2_000), other in cells(100), asked: u16) {
            let (a, b) = (packed(&one), packed(&other));
            prop_assert_eq!((a.len(), a.is_empty()), (one.len(), one.is_empty()));
            prop_assert!(a.iter().eq(one.iter().map(|(&n, cell)| (id(n), cell.clone()))));
            for n in one.keys().chain([&asked]) {
                prop_assert_eq!(a.get(id(*n)), one.get(n).cloned());
            }
            let mut sum = one;
            for (n, cell) in other {
                sum.entry(n).and_modify(|known| known.merge(&cell)).or_insert(cell);
            }
            let mut merged = a.clone();
            merged.merge(&b);
            prop_assert_eq!(&merged, &packed(&sum));
            let bytes = postcard::to_stdvec(&merged).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Cells>(&bytes).unwrap(), merged);
        }
    }

    #[test]
    fn what_does_not_ascend_is_no_list_of_cells() {
        let line = Cell::Lines(Lines::default());
        for (ids, is_good) in [([1, 2], true), ([2, 2], false), ([2, 1], false)] {
            let list: Vec<(SeriesId, Cell)> = ids.iter().map(|&n| (id(n), line.clone())).collect();
            let bytes = postcard::to_stdvec(&list).unwrap();
            assert_eq!(postcard::from_bytes::<Cells>(&bytes).is_ok(), is_good, "{ids:?}");
        }
    }

    #[test]
    fn a_cell_of_a_hundred_spans_takes_less_than_200_bytes() {
        let mut cell = Requests { seen: 100, ..Requests::default() };
        (0..100u64).for_each(|n| cell.latency.record((1_000_000 + n * n * 1_000) as f64));
        let cells: Cells = (0..1_000).map(|n| (id(n), Cell::Requests(Box::new(cell.clone())))).collect();
        assert!(cells.size_bytes() < 200_000, "{}", cells.size_bytes());
    }
}
