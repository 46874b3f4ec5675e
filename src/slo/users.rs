//! Users of an objective over time, and how many of them something bad happened to.

use crate::aggregate::Users;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Seconds that a slot lasts, and how many are kept: five minutes for four hours, hours for three days.
const GRAINS: [(u64, u64); 2] = [(300, 48), (3_600, 72)];

/// An onset is known to a few seconds: of what began just after a slot did, that before it is looked at, too.
const ONSET_WITHIN_S: u64 = 5;

/// What each slot saw, by its number, on two grains.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct UserHistory {
    /// Kept apart from the rest, each slot on its own.
    #[serde(skip)]
    slots: [BTreeMap<u64, Slot>; 2],
    #[serde(skip)]
    gone: Vec<(u8, u64)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Slot {
    users: Users,
    unsaved: bool,
}

impl UserHistory {
    /// Adds whom a cut brought, by the second in which it came.
    pub fn add(&mut self, now_second: u64, users: &Users) {
        for (grain, ((seconds, kept), slots)) in (0u8..).zip(GRAINS.iter().zip(&mut self.slots)) {
            let number = now_second / seconds;
            let slot = slots.entry(number).or_default();
            slot.users.merge(users);
            slot.unsaved = true;
            while let Some(oldest) = slots.first_entry().filter(|oldest| oldest.key() + kept <= number) {
                self.gone.push((grain, *oldest.key()));
                oldest.remove();
            }
        }
    }

    /// Distinct users that were affected and all there were, of the slots that overlap a time; `None` where
    /// nobody was seen.
    pub fn between(&self, now_second: u64, from: u64, to: u64) -> Option<(u64, u64)> {
        let fits = |(seconds, kept): &(u64, u64)| now_second.saturating_sub(from) <= seconds * (kept - 1);
        let grain = GRAINS.iter().position(fits).unwrap_or(GRAINS.len() - 1);
        let (&(seconds, _), slots) = GRAINS.get(grain).zip(self.slots.get(grain))?;
        let (first, last) = (from.saturating_sub(ONSET_WITHIN_S) / seconds, to / seconds);
        let mut all = Users::default();
        slots.range(first..=last.max(first)).for_each(|(_, slot)| all.merge(&slot.users));
        (!all.is_empty()).then(|| (all.affected.count(), all.all.count()))
    }

    /// Slots that changed since [`Self::saved`]: grain, number, and their bytes.
    pub fn unsaved(&self, all: bool) -> impl Iterator<Item = (u8, u64, Vec<u8>)> {
        (0u8..).zip(&self.slots).flat_map(move |(grain, slots)| {
            let changed = slots.iter().filter(move |(_, slot)| all || slot.unsaved);
            changed.map(move |(number, slot)| {
                (grain, *number, postcard::to_stdvec(&slot.users).unwrap_or_default())
            })
        })
    }

    pub fn gone(&self) -> &[(u8, u64)] {
        &self.gone
    }

    pub fn saved(&mut self) {
        self.gone.clear();
        self.slots.iter_mut().flat_map(BTreeMap::values_mut).for_each(|slot| slot.unsaved = false);
    }

    /// Takes back a slot. False if it cannot be read.
    pub fn put_back(&mut self, grain: u8, number: u64, bytes: &[u8]) -> bool {
        let Some(slots) = self.slots.get_mut(usize::from(grain)) else { return false };
        let Ok(users) = postcard::from_bytes(bytes) else { return false };
        slots.insert(number, Slot { users, unsaved: false });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_came_just_before_a_slot_is_counted_of_what_began_just_after_it_did() {
        let (mut history, mut users) = (UserHistory::default(), Users::default());
        users.all.insert(b"ada");
        users.affected.insert(b"ada");
        history.add(1_199, &users);
        assert_eq!(history.between(1_260, 1_201, 1_260), Some((1, 1)));
        assert_eq!(history.between(1_260, 1_206, 1_260), None);
    }
}
