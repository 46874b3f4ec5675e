//! Exact counts in slots of one length, packed as soon as they are no longer the newest.

use super::edges::{Edges, plus};
use super::packed::{Packed, SLOTS};
use crate::aggregate::RATIO_UNIT;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};

/// What a slot counts as.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Worth {
    /// Its events: some, and all.
    Events,
    /// One slice in [`RATIO_UNIT`]s, good where this share of its events is; by its share itself where that is
    /// `None`. One without events is neither good nor bad.
    Slice { share: Option<f64>, some_is_bad: bool },
}

impl Worth {
    #[inline]
    fn of(self, (some, total): (u64, u64)) -> (u64, u64) {
        let Self::Slice { share, some_is_bad } = self else { return (some, total) };
        if total == 0 {
            return (0, 0);
        }
        let some = some.min(total);
        let good = if some_is_bad { total - some } else { some };
        let good = match share {
            Some(share) if good as f64 >= share * total as f64 => RATIO_UNIT,
            Some(_) => 0,
            None => u64::try_from(u128::from(good) * u128::from(RATIO_UNIT) / u128::from(total)).unwrap_or(0),
        };
        (good, RATIO_UNIT)
    }

    fn sum(self, slots: impl Iterator<Item = (u64, u64)>) -> (u64, u64) {
        slots.fold((0, 0), |sum, slot| plus(sum, self.of(slot)))
    }

    /// Of a packed block's slots from one on and before another.
    fn sum_packed(self, slots: &Packed, from: u16, to: u16) -> (u64, u64) {
        match self {
            Self::Events => slots.sum(from, to),
            Self::Slice { .. } => self.sum(slots.slots().take(usize::from(to)).skip(usize::from(from))),
        }
    }
}

const fn minus(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0.wrapping_sub(b.0), a.1.wrapping_sub(b.1))
}

/// A block that time has passed over.
#[derive(Clone, Debug, PartialEq)]
struct Block {
    /// Number of its first slot ÷ [`SLOTS`].
    index: u64,
    /// Worth of everything before it.
    before: (u64, u64),
    slots: Packed,
}

/// The newest block. Its last slot is the newest one in which something happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u64, Packed)", into = "(u64, Packed)")]
struct Open {
    index: u64,
    before: (u64, u64),
    slots: Vec<(u64, u64)>,
}

impl From<Open> for (u64, Packed) {
    fn from(open: Open) -> Self {
        (open.index, Packed::of(&open.slots))
    }
}

impl From<(u64, Packed)> for Open {
    fn from((index, slots): (u64, Packed)) -> Self {
        Self { index, before: (0, 0), slots: slots.slots().take(SLOTS as usize).collect() }
    }
}

/// Slots of one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Grain {
    seconds: u64,
    keep_seconds: u64,
    worth: Worth,
    /// Ascending; only blocks in which something happened. Kept apart from the rest, each on its own.
    #[serde(skip)]
    blocks: VecDeque<Block>,
    open: Option<Open>,
    /// Worth of everything that ever was, so that differences of two sums give any window.
    all: (u64, u64),
    /// Blocks that changed since they were last kept, and those that were let go.
    #[serde(skip)]
    unsaved: BTreeSet<u64>,
    #[serde(skip)]
    gone: Vec<u64>,
    #[serde(skip)]
    edges: Edges,
}

impl Grain {
    pub fn new(seconds: u64, keep_seconds: u64, worth: Worth) -> Self {
        Self {
            seconds: seconds.max(1),
            keep_seconds,
            worth,
            blocks: VecDeque::new(),
            open: None,
            all: (0, 0),
            unsaved: BTreeSet::new(),
            gone: Vec::new(),
            edges: Edges::default(),
        }
    }

    pub const fn keep_seconds(&self) -> u64 {
        self.keep_seconds
    }

    pub fn keep(&mut self, seconds: u64) {
        self.keep_seconds = seconds;
    }

    /// Counts what happened in a second of event time; what is older than it keeps is let go.
    pub fn add(&mut self, now_second: u64, second: u64, some: u64, total: u64) {
        if now_second.saturating_sub(second) >= self.keep_seconds {
            return;
        }
        let number = second / self.seconds;
        let (index, place) = (number / SLOTS, (number % SLOTS) as usize);
        if self.open.as_ref().is_none_or(|open| open.index < index) {
            self.begin(index);
            self.forget(now_second);
        }
        let worth = self.worth;
        match &mut self.open {
            Some(open) if open.index == index => {
                if open.slots.len() <= place {
                    open.slots.resize(place + 1, (0, 0));
                }
                if let Some(slot) = open.slots.get_mut(place) {
                    let was = worth.of(*slot);
                    *slot = (slot.0.saturating_add(some), slot.1.saturating_add(total));
                    let more = minus(worth.of(*slot), was);
                    self.all = plus(self.all, more);
                    self.edges.add(number, more);
                }
            }
            _ => self.add_late(index, place, some, total),
        }
    }

    fn begin(&mut self, index: u64) {
        let next = Open { index, before: self.all, slots: Vec::new() };
        if let Some(Open { index, before, slots }) = self.open.replace(next) {
            self.unsaved.insert(index);
            self.blocks.push_back(Block { index, before, slots: Packed::of(&slots) });
        }
    }

    /// Into a block that is packed already, or was never begun.
    fn add_late(&mut self, index: u64, place: usize, some: u64, total: u64) {
        let at = self.place(index);
        if self.blocks.get(at).is_none_or(|block| block.index != index) {
            let before = self.before_block(at);
            self.blocks.insert(at, Block { index, before, slots: Packed::of(&[]) });
        }
        let worth = self.worth;
        let Some(block) = self.blocks.get_mut(at) else { return };
        let mut slots: Vec<(u64, u64)> = block.slots.slots().collect();
        slots.resize(slots.len().max(place + 1), (0, 0));
        let Some(slot) = slots.get_mut(place) else { return };
        let was = worth.of(*slot);
        *slot = (slot.0.saturating_add(some), slot.1.saturating_add(total));
        let more = minus(worth.of(*slot), was);
        block.slots = Packed::of(&slots);
        for later in self.blocks.iter_mut().skip(at + 1) {
            later.before = plus(later.before, more);
        }
        if let Some(open) = &mut self.open {
            open.before = plus(open.before, more);
        }
        self.all = plus(self.all, more);
        self.edges.add(index.saturating_mul(SLOTS).saturating_add(place as u64), more);
        self.unsaved.insert(index);
    }

    fn forget(&mut self, now_second: u64) {
        let oldest = now_second.saturating_sub(self.keep_seconds) / self.seconds / SLOTS;
        while let Some(block) = self.blocks.front().filter(|block| block.index < oldest) {
            self.unsaved.remove(&block.index);
            self.gone.push(block.index);
            self.blocks.pop_front();
            // An edge that lay in it could not be moved on.
            self.edges = Edges::default();
        }
    }

    /// Place of the first packed block that is not before this one.
    fn place(&self, index: u64) -> usize {
        // Where something happened all the time, it is found by counting back.
        if let Some(last) = self.blocks.back()
            && let Some(back) = last.index.checked_sub(index)
            && let Some(at) =
                usize::try_from(back).ok().and_then(|back| (self.blocks.len() - 1).checked_sub(back))
            && self.blocks.get(at).is_some_and(|block| block.index == index)
        {
            return at;
        }
        self.blocks.partition_point(|block| block.index < index)
    }

    fn before_block(&self, at: usize) -> (u64, u64) {
        let block = self.blocks.get(at).map(|block| block.before);
        block.or(self.open.as_ref().map(|open| open.before)).unwrap_or(self.all)
    }

    /// Worth of everything before a slot, of those that begin at this second or later.
    pub fn before(&self, second: u64) -> (u64, u64) {
        let number = second / self.seconds;
        let few = |from: u64, to: u64| (from..to).fold((0, 0), |sum, number| plus(sum, self.slot(number)));
        self.edges.before(number, || self.all_before(number), few)
    }

    fn slot(&self, number: u64) -> (u64, u64) {
        let (index, place) = (number / SLOTS, (number % SLOTS) as u16);
        if let Some(open) = self.open.as_ref().filter(|open| open.index <= index) {
            let slot = open.slots.get(usize::from(place)).filter(|_| open.index == index);
            return slot.map_or((0, 0), |slot| self.worth.of(*slot));
        }
        match self.blocks.get(self.place(index)) {
            Some(block) if block.index == index => {
                self.worth.sum_packed(&block.slots, place, place.saturating_add(1))
            }
            _ => (0, 0),
        }
    }

    /// Adds up within a block, from the end that is nearer.
    fn all_before(&self, number: u64) -> (u64, u64) {
        let (index, place) = (number / SLOTS, (number % SLOTS) as u16);
        match &self.open {
            Some(open) if open.index < index => self.all,
            Some(open) if open.index == index => {
                let (early, late) = open.slots.split_at(open.slots.len().min(usize::from(place)));
                if early.len() <= late.len() {
                    plus(open.before, self.worth.sum(early.iter().copied()))
                } else {
                    minus(self.all, self.worth.sum(late.iter().copied()))
                }
            }
            _ => {
                let at = self.place(index);
                match self.blocks.get(at) {
                    Some(block) if block.index == index && u64::from(place) <= SLOTS / 2 => {
                        plus(block.before, self.worth.sum_packed(&block.slots, 0, place))
                    }
                    Some(block) if block.index == index => {
                        let late = self.worth.sum_packed(&block.slots, place, SLOTS as u16);
                        minus(self.before_block(at.saturating_add(1)), late)
                    }
                    _ => self.before_block(at),
                }
            }
        }
    }

    /// Worth of what lies from one second on and before another one.
    pub fn between(&self, from: u64, to: u64) -> (u64, u64) {
        minus(self.before(to), self.before(from))
    }

    /// Worth of what lies from a second on.
    pub fn since(&self, from: u64) -> (u64, u64) {
        minus(self.all, self.before(from))
    }

    /// Every packed block.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.blocks.iter().map(|block| (block.index, block.slots.bytes()))
    }

    /// Packed blocks that changed since [`Self::saved`].
    pub fn unsaved(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let block = |index: &u64| self.blocks.get(self.place(*index)).filter(|block| block.index == *index);
        self.unsaved.iter().filter_map(block).map(|block| (block.index, block.slots.bytes()))
    }

    /// Blocks that were let go since [`Self::saved`].
    pub fn gone(&self) -> &[u64] {
        &self.gone
    }

    /// What changed was kept.
    pub fn saved(&mut self) {
        self.unsaved.clear();
        self.gone.clear();
    }

    /// Takes back a block, in the order of their numbers; [`Self::sum_up`] has to follow. False if it has no
    /// place.
    pub fn put_back(&mut self, index: u64, bytes: &[u8]) -> bool {
        let is_next = self.blocks.back().is_none_or(|last| last.index < index)
            && self.open.as_ref().is_some_and(|open| index < open.index);
        if is_next {
            self.blocks.push_back(Block { index, before: (0, 0), slots: Packed::from_bytes(bytes) });
        }
        is_next
    }

    /// Finds what lay before each block, from the last one back.
    pub fn sum_up(&mut self) {
        self.edges = Edges::default();
        let mut after = self.all;
        if let Some(open) = &mut self.open {
            after = minus(after, self.worth.sum(open.slots.iter().copied()));
            open.before = after;
        }
        for block in self.blocks.iter_mut().rev() {
            after = minus(after, self.worth.sum(block.slots.slots()));
            block.before = after;
        }
    }

    /// Bytes on the heap, about: allocators take some more.
    pub fn heap_bytes(&self) -> usize {
        let packed: usize = self.blocks.iter().map(|block| block.slots.bytes().len() + 16).sum();
        let open = self.open.as_ref().map_or(0, |open| open.slots.capacity() * size_of::<(u64, u64)>() + 16);
        packed + open + self.blocks.capacity() * size_of::<Block>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of five lengths are asked for again and again while time goes on, and late counts come.
    #[test]
    fn edges_that_move_on_are_as_if_found_anew() {
        for seed in 0..60 {
            let mut random = fastrand::Rng::with_seed(seed);
            let seconds = [1, 10, 60][random.usize(0..3)];
            let worth = if random.bool() {
                Worth::Events
            } else {
                Worth::Slice { share: Some(0.9), some_is_bad: random.bool() }
            };
            let mut grain = Grain::new(seconds, 3_000, worth);
            let mut now = 1_700_000_000;
            for _ in 0..3_000 {
                now += if random.u8(0..40) == 0 { random.u64(0..400) } else { random.u64(0..4) };
                for _ in 0..random.u8(0..4) {
                    let back = if random.u8(0..6) == 0 { random.u64(0..3_500) } else { random.u64(0..3) };
                    let total = random.u64(0..20);
                    grain.add(now, now - back, random.u64(0..=total), total);
                }
                for length in [30, 300, 600, 1_800, 2_700] {
                    let from = now - length;
                    assert_eq!(
                        grain.before(from),
                        grain.all_before(from / seconds),
                        "seed {seed}, {length} s"
                    );
                }
            }
        }
    }
}
