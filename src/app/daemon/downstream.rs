//! What follows counting: a cut is stored and judged, and committed if it is a checkpoint.

use crate::aggregate::Indicator;
use crate::app::Error;
use crate::app::judging::Judging;
use crate::app::mailbox::Merge;
use crate::app::totals::Sums;
use crate::app::waiting::Waiting;
use crate::journal::Position;
use crate::limits::give_back_free_memory;
use crate::store::{Checkpoint, Store};
use crate::window::Merged;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one cut brought, on its way to the judge.
pub(super) struct Batch {
    pub merged: Merged,
    pub sums: Sums,
    /// States of shards and windows, when the cut is a checkpoint.
    pub parts: Option<BTreeMap<String, Vec<u8>>>,
}

impl Merge for Batch {
    fn merge(&mut self, later: Self) -> Result<(), Self> {
        // The judge's state must be that of the checkpoint's cut.
        if self.parts.is_some() {
            return Err(later);
        }
        self.absorb(later);
        Ok(())
    }

    /// Of two checkpoints the later one holds all that the earlier one does; where the later cut is none, neither is
    /// this: the journal is kept until the next.
    fn absorb(&mut self, later: Self) {
        self.merged.tick.merge(later.merged.tick);
        self.merged.sealed.extend(later.merged.sealed);
        self.merged.amendments.extend(later.merged.amendments);
        self.sums = later.sums;
        self.parts = later.parts;
    }
}

/// Everything that the stages after counting need, on whichever thread they run.
pub(super) struct Downstream {
    pub store: Store,
    pub judging: Arc<Mutex<Judging>>,
    pub indicators: Arc<ArcSwap<Vec<Indicator>>>,
    pub topology: Arc<ArcSwap<crate::window::Snapshot>>,
    /// False pages accepted in a week, and spent of them.
    pub false_pages: Arc<ArcSwap<(f64, f64)>>,
}

impl Downstream {
    /// Stores and judges a cut; commits the checkpoint if it is one. Gives how far the journal may be recycled.
    pub fn step(&self, batch: Batch) -> Result<Option<Position>, Error> {
        let Batch { merged, sums, parts } = batch;
        let cut = merged.tick.cut;
        self.store.keep(&merged);
        let topology = self.topology.load().topology.clone();
        let mut judging = self.judging.lock();
        judging.step(&merged.tick, &merged.sealed, &topology)?;
        // Whoever met it: what the disk failed to take is never tried again.
        if let Some(why) = self.store.poisoned() {
            return Err(crate::store::Error::Poisoned(why).into());
        }
        let indicators = judging.judge.budgets.indicators();
        if !Arc::ptr_eq(&indicators, &self.indicators.load()) {
            self.indicators.store(indicators);
        }
        self.false_pages.store(Arc::new(judging.judge.confirm.budget(cut.arrived)));
        let Some(mut parts) = parts.filter(|_| !judging.is_unwritten()) else {
            return Ok(None);
        };
        parts.extend(judging.state()?);
        let pieces = judging.judge.budgets.unsaved();
        drop(judging);
        let Sums { accepted, rejected, late, .. } = sums;
        let checkpoint = Checkpoint { cut, parts, pieces, accepted, rejected, late };
        let committed = match self.store.commit(&checkpoint) {
            Ok(()) => {
                self.judging.lock().judge.budgets.saved(&checkpoint.pieces);
                Some(cut.through)
            }
            Err(error @ crate::store::Error::Poisoned(_)) => return Err(error.into()),
            Err(error) => {
                // The disk is full. The journal keeps what the last checkpoint does not hold; the next one tries again.
                tracing::error!(%error, "the checkpoint could not be written");
                None
            }
        };
        drop(checkpoint);
        // All states at once, written out, and a block's worth of windows.
        give_back_free_memory();
        Ok(committed)
    }

    /// Lets the diagnoses wait for a thread that are due, as far as there is room.
    pub fn plan(&self, waiting: &Waiting) {
        let topology = self.topology.load().topology.clone();
        let due = self.judging.lock().take_jobs(&topology, |pass| waiting.room(pass));
        due.into_iter().for_each(|job| waiting.put(job));
    }
}

/// Names of the parts that the counting stages put into a checkpoint.
pub(super) fn counted_parts(merged: &mut Merged) -> Option<BTreeMap<String, Vec<u8>>> {
    let window = merged.state.take()?;
    let shards = std::mem::take(&mut merged.shard_states);
    let mut parts: BTreeMap<String, Vec<u8>> =
        shards.into_iter().map(|(number, state)| (format!("shard/{number}"), state)).collect();
    parts.insert("window".to_owned(), window);
    Some(parts)
}
