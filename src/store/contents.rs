//! What the store holds, as one value that readers copy and then read without a lock.

use super::files::{Block, Files};
use super::rollup::Rollup;
use crate::model::WindowId;
use crate::store::Level;
use crate::window::SealedWindow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A window of any width.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its width; its start is `window.id.start()`.
    pub level: Level,
    pub window: Arc<SealedWindow>,
}

/// Blocks by number, what waits for a checkpoint, and the incomplete roll-ups.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pub blocks: Arc<BTreeMap<u64, Block>>,
    pub pending: VecDeque<(Level, Arc<SealedWindow>)>,
    pub rollup: Rollup,
    /// Per level, what lies before this was deleted to make room.
    pub floor: [WindowId; 4],
}

impl Contents {
    /// Windows that are in no block yet: those that wait for a checkpoint, and incomplete roll-ups.
    pub fn unwritten(&self) -> impl Iterator<Item = &Arc<SealedWindow>> {
        self.pending.iter().map(|(_, window)| window).chain(self.rollup.carried(Level::Hour1))
    }

    /// Windows of a level with `from` ≤ id < `to`, amendments added, ascending.
    pub fn gather(
        &self,
        files: &Files,
        level: Level,
        from: WindowId,
        to: WindowId,
    ) -> BTreeMap<WindowId, Arc<SealedWindow>> {
        let mut found = BTreeMap::new();
        if from >= to {
            return found;
        }
        for (number, block) in self.blocks.iter().filter(|(_, block)| block.overlaps(level, from, to)) {
            for window in files.read(*number, block).iter() {
                add_within(&mut found, from, to, window);
            }
        }
        for (_, window) in self.pending.iter().filter(|(of, _)| *of == level) {
            add_within(&mut found, from, to, window);
        }
        found
    }

    /// Windows of `step` that overlap the range, ascending; of the part whose windows of that width
    /// were deleted, the coarser ones that are left. The last may be incomplete.
    pub fn windows(&self, files: &Files, from: WindowId, to: WindowId, step: Level, out: &mut Vec<Stored>) {
        let from = step.slot(from);
        let floor = self.floor.get(step as usize).copied().unwrap_or_default();
        let mut start = from.max(floor);
        if let Some(coarser) = step.coarser().filter(|_| from < floor) {
            // The coarser window that lies on the edge stands for all of its time.
            let slot = coarser.slot(floor);
            let edge = if slot == floor { floor } else { coarser.after(slot) };
            self.windows(files, from, edge.min(to), coarser, out);
            start = edge;
        }
        let mut found = self.gather(files, step, start, to);
        for carried in self.rollup.carried(step) {
            let slot = step.slot(carried.id);
            if slot >= start && slot < to {
                add(&mut found, slot, carried);
            }
        }
        out.extend(found.into_values().map(|window| Stored { level: step, window }));
    }
}

fn add_within(
    found: &mut BTreeMap<WindowId, Arc<SealedWindow>>,
    from: WindowId,
    to: WindowId,
    window: &Arc<SealedWindow>,
) {
    if window.id >= from && window.id < to {
        add(found, window.id, window);
    }
}

fn add(found: &mut BTreeMap<WindowId, Arc<SealedWindow>>, id: WindowId, window: &Arc<SealedWindow>) {
    match found.entry(id) {
        Entry::Vacant(free) if window.id == id => {
            free.insert(window.clone());
        }
        Entry::Vacant(free) => {
            free.insert(Arc::new(SealedWindow { id, ..(**window).clone() }));
        }
        Entry::Occupied(mut held) => {
            let held = Arc::make_mut(held.get_mut());
            held.merge(window);
            held.amendment &= window.amendment;
        }
    }
}
