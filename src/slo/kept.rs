//! What of the budgets outlives the process: a small head, written whole with each checkpoint, and the counts
//! in pieces, of which only those are written that changed.

use super::budgets::{Budgets, State};
use super::grain::Grain;
use super::objective::Objective;
use crate::store::{PieceKey, Pieces};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From this number on pieces are of users; below, of counts.
const USERS: u8 = 128;

/// State that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("the state of the budgets cannot be read: {0}")]
pub struct RestoreError(#[from] postcard::Error);

/// A head and all its pieces.
#[derive(Serialize, Deserialize)]
struct Whole {
    head: Vec<u8>,
    pieces: Vec<(PieceKey, Vec<u8>)>,
}

impl Budgets {
    /// All but the counts that are packed already, for a checkpoint.
    #[must_use]
    pub fn head(&self) -> Vec<u8> {
        postcard::to_stdvec(&(&self.state, &self.learned)).unwrap_or_default()
    }

    /// Counts that changed, or went, since [`Self::saved`].
    #[must_use]
    pub fn unsaved(&self) -> Pieces {
        let mut pieces = Pieces { put: Vec::new(), remove: self.removed.clone() };
        for objective in &self.state.objectives {
            for (place, grain) in (0u8..).zip(objective.grains()) {
                let key = |index| (place, index, objective.number());
                pieces.put.extend(grain.unsaved().map(|(index, bytes)| (key(index), bytes.to_vec())));
                pieces.remove.extend(grain.gone().iter().map(|&index| key(index)));
            }
            let key = |grain, slot| (USERS + grain, slot, objective.number());
            pieces
                .put
                .extend(objective.users.unsaved(false).map(|(grain, slot, bytes)| (key(grain, slot), bytes)));
            pieces.remove.extend(objective.users.gone().iter().map(|&(grain, slot)| key(grain, slot)));
        }
        // Neighbours in the table are written one after another.
        pieces.put.sort_unstable_by_key(|(key, _)| *key);
        pieces
    }

    /// What [`Self::unsaved`] gave is on the disk. Nothing was counted in between; objectives may have been let
    /// go.
    pub fn saved(&mut self, pieces: &Pieces) {
        let done =
            self.removed.iter().zip(&pieces.remove).take_while(|(removed, done)| removed == done).count();
        self.removed.drain(..done);
        for objective in &mut self.state.objectives {
            objective.users.saved();
            objective.grains_mut().iter_mut().for_each(Grain::saved);
        }
    }

    /// Takes back what [`Self::head`] and [`Self::unsaved`] gave, the pieces in ascending order. Objectives
    /// that no file defines any more are let go, new ones are added.
    ///
    /// # Errors
    /// The bytes are no such head; nothing is changed then.
    pub fn restore<'a>(
        &mut self,
        head: &[u8],
        pieces: impl IntoIterator<Item = (PieceKey, &'a [u8])>,
    ) -> Result<(), RestoreError> {
        let (state, rest) = postcard::take_from_bytes(head)?;
        // A head of before ends with the state.
        let learned = if rest.is_empty() { BTreeMap::new() } else { postcard::from_bytes(rest)? };
        (self.state, self.learned) = (state, learned);
        self.removed.clear();
        let State { objectives, .. } = &mut self.state;
        let places: hashbrown::HashMap<u32, usize> =
            objectives.iter().enumerate().map(|(at, objective)| (objective.number(), at)).collect();
        for (key, bytes) in pieces {
            let (place, index, number) = key;
            let objective = places.get(&number).and_then(|&at| objectives.get_mut(at));
            let is_back = objective.is_some_and(|objective| match place.checked_sub(USERS) {
                Some(grain) => objective.users.put_back(grain, index, bytes),
                None => {
                    let grain = objective.grains_mut().get_mut(usize::from(place));
                    grain.is_some_and(|grain| grain.put_back(index, bytes))
                }
            });
            if !is_back {
                // Of an objective that is gone.
                self.removed.push(key);
            }
        }
        objectives.iter_mut().flat_map(Objective::grains_mut).for_each(Grain::sum_up);
        self.latest = objectives.iter().map(|objective| objective.last).max().unwrap_or_default();
        self.settle();
        Ok(())
    }

    /// Head and counts as one.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        let mut pieces = Vec::new();
        for objective in &self.state.objectives {
            for (place, grain) in (0u8..).zip(objective.grains()) {
                let key = |index| (place, index, objective.number());
                pieces.extend(grain.blocks().map(|(index, bytes)| (key(index), bytes.to_vec())));
            }
            let users = objective.users.unsaved(true);
            pieces
                .extend(users.map(|(grain, slot, bytes)| ((USERS + grain, slot, objective.number()), bytes)));
        }
        pieces.sort_unstable_by_key(|(key, _)| *key);
        postcard::to_stdvec(&Whole { head: self.head(), pieces }).unwrap_or_default()
    }

    /// Takes back what [`Self::state`] gave.
    ///
    /// # Errors
    /// The bytes are not such a state; nothing is changed then.
    pub fn restore_state(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let whole: Whole = postcard::from_bytes(bytes)?;
        self.restore(&whole.head, whole.pieces.iter().map(|(key, bytes)| (*key, bytes.as_slice())))
    }

    /// Bytes that the counts of all objectives take, about.
    #[must_use]
    pub fn counts_bytes(&self) -> usize {
        self.state.objectives.iter().flat_map(Objective::grains).map(Grain::heap_bytes).sum()
    }

    /// Notes the counts of an objective that is let go, so that a checkpoint forgets them.
    pub(super) fn pieces_of(objective: &Objective, removed: &mut Vec<PieceKey>) {
        for (place, grain) in (0u8..).zip(objective.grains()) {
            let key = |index| (place, index, objective.number());
            removed.extend(grain.blocks().map(|(index, _)| key(index)));
            removed.extend(grain.gone().iter().map(|&index| key(index)));
        }
        let key = |grain, slot| (USERS + grain, slot, objective.number());
        removed.extend(objective.users.unsaved(true).map(|(grain, slot, _)| key(grain, slot)));
        removed.extend(objective.users.gone().iter().map(|&(grain, slot)| key(grain, slot)));
    }
}
