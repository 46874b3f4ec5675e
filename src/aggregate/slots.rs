//! How a cell of an owner (a series, a peer) and a window is found: two windows at a time are found at
//! once, since items of one moment lie in no more; others by a map.

use crate::model::WindowId;
use hashbrown::HashMap;

const NONE: u32 = u32::MAX;

/// Numbers of an owner's cells, of an even and an odd window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    /// The low bits of the windows' numbers: those of one epoch lie within hours of each other.
    windows: [u32; 2],
    cells: [u32; 2],
    /// What was true in an earlier epoch is not any more.
    epoch: u32,
}

impl Default for Slots {
    fn default() -> Self {
        Self { windows: [0; 2], cells: [NONE; 2], epoch: 0 }
    }
}

impl Slots {
    /// The number of the cell of a window, or `made`, which becomes it; and whether it is one of `more`.
    #[inline]
    pub fn cell(
        &mut self,
        owner: u32,
        window: WindowId,
        made: u32,
        epoch: u32,
        more: &mut More,
    ) -> (u32, bool) {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
        let place = (window.0 & 1) as usize;
        let (known, cell) = match (self.windows.get_mut(place), self.cells.get_mut(place)) {
            (Some(known), Some(cell)) => (known, cell),
            _ => return (made, false),
        };
        let low = window.0 as u32;
        if *cell == NONE {
            (*known, *cell) = (low, made);
            return (made, false);
        }
        if *known == low {
            (*cell, false)
        } else {
            (*more.cells.entry((owner, window)).or_insert(made), true)
        }
    }
}

/// Cells of windows whose slot another window has taken.
#[derive(Debug, Default)]
pub(super) struct More {
    cells: HashMap<(u32, WindowId), u32>,
    bytes: usize,
}

impl More {
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Memory that these cells take, as far as it was told.
    pub fn size_bytes(&self) -> usize {
        self.bytes.saturating_add(self.cells.len() * size_of::<((u32, WindowId), u32)>())
    }

    /// One of these cells takes so much more memory.
    pub fn grow(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub fn clear(&mut self) {
        self.cells.clear();
        self.bytes = 0;
    }
}
