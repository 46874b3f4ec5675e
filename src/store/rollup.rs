//! Rolls windows up, 10 s > 1 m > 5 m > 1 h, as they are sealed.

use crate::model::WindowId;
use crate::store::Level;
use crate::window::SealedWindow;
use std::sync::Arc;

/// The levels that are made of finer ones.
const ROLLED: [Level; 3] = [Level::Minute1, Level::Minutes5, Level::Hour1];

/// The incomplete window of each coarser level. A window leaves when its time is over, once; an
/// amendment to one that has left becomes an amendment of that level.
#[derive(Clone, Debug, Default)]
pub(super) struct Rollup {
    carried: [Option<Arc<SealedWindow>>; 3],
    /// Per level, everything before this has left.
    left: [WindowId; 3],
}

/// Windows that left, in order.
pub(super) type Left = Vec<(Level, Arc<SealedWindow>)>;

impl Rollup {
    /// Goes on from what had left; `finer` reads the windows of a level from an id on.
    pub fn restore<E>(
        left: [WindowId; 3],
        mut finer: impl FnMut(Level, WindowId) -> Result<Vec<Arc<SealedWindow>>, E>,
        out: &mut Left,
    ) -> Result<Self, E> {
        let mut rollup = Self { carried: Default::default(), left };
        // Coarsest first: a window that still leaves here is then added to a level already restored.
        for (index, from) in left.into_iter().enumerate().rev() {
            let source = Level::ALL.get(index).copied().unwrap_or(Level::Seconds10);
            for window in finer(source, from)? {
                rollup.add(index, &window, out);
            }
        }
        Ok(rollup)
    }

    pub fn left(&self) -> [WindowId; 3] {
        self.left
    }

    /// The incomplete windows, together what was sealed since the last complete one of the coarsest.
    pub fn carried(&self, up_to: Level) -> impl Iterator<Item = &Arc<SealedWindow>> {
        self.carried.iter().take(up_to as usize).flatten()
    }

    /// Takes a sealed window of 10 s. Ascending.
    pub fn seal(&mut self, window: &SealedWindow, out: &mut Left) {
        self.add(0, window, out);
    }

    /// Takes an amendment to a window of 10 s.
    pub fn amend(&mut self, amendment: &SealedWindow, out: &mut Left) {
        for (index, level) in ROLLED.into_iter().enumerate() {
            let slot = level.slot(amendment.id);
            if self.left.get(index).is_none_or(|left| slot >= *left) {
                // Still carried here, and goes up with it.
                self.add(index, amendment, out);
                return;
            }
            out.push((level, Arc::new(SealedWindow { id: slot, ..amendment.clone() })));
        }
    }

    fn add(&mut self, index: usize, window: &SealedWindow, out: &mut Left) {
        let (Some(&level), Some(&finer)) = (ROLLED.get(index), Level::ALL.get(index)) else { return };
        let slot = level.slot(window.id);
        if self.carried.get(index).is_some_and(|c| c.as_ref().is_some_and(|carried| carried.id < slot)) {
            self.leave(index, window, out);
        }
        if let (Some(carried), Some(left)) = (self.carried.get_mut(index), self.left.get_mut(index)) {
            *left = slot.max(*left);
            let carried = carried.get_or_insert_with(|| {
                Arc::new(SealedWindow { id: slot, sealed: window.sealed, ..SealedWindow::default() })
            });
            Arc::make_mut(carried).merge(window);
        }
        if !window.amendment && finer.after(window.id) >= level.after(slot) {
            self.leave(index, window, out);
        }
    }

    /// The carried window is complete with the cut that sealed `because`.
    fn leave(&mut self, index: usize, because: &SealedWindow, out: &mut Left) {
        let Some(mut window) = self.carried.get_mut(index).and_then(Option::take) else { return };
        let Some(&level) = ROLLED.get(index) else { return };
        if let Some(left) = self.left.get_mut(index) {
            *left = level.after(window.id).max(*left);
        }
        Arc::make_mut(&mut window).sealed = because.sealed;
        out.push((level, window.clone()));
        self.add(index + 1, &window, out);
    }
}
