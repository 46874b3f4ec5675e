//! What lay before the edges of windows, as it was last asked for. From one second to the next an edge stays in its
//! slot or moves on by one: what lies before it then is that and a slot more, instead of half a block.

use std::cell::Cell;

/// Edges that are remembered: a grain rarely has more windows.
const EDGES: usize = 6;
/// An edge that moved on by more slots is another one.
const REACH_SLOTS: u64 = 8;

/// The number of a slot, and what all before it is worth.
#[derive(Clone, Copy, Debug)]
struct Edge {
    number: u64,
    before: (u64, u64),
}

/// Nobody asks for what lies before this one.
const NONE: Edge = Edge { number: u64::MAX, before: (0, 0) };

#[derive(Clone, Debug)]
pub(super) struct Edges {
    known: [Cell<Edge>; EDGES],
    /// Which is forgotten next.
    next: Cell<usize>,
}

impl Default for Edges {
    fn default() -> Self {
        Self { known: [const { Cell::new(NONE) }; EDGES], next: Cell::new(0) }
    }
}

/// What is remembered makes no difference to what is counted.
impl PartialEq for Edges {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Edges {
    /// What lies before a slot. `all_before` finds it out from nothing, `of` adds up the slots from one on and before
    /// another.
    pub fn before(
        &self,
        number: u64,
        all_before: impl FnOnce() -> (u64, u64),
        of: impl FnOnce(u64, u64) -> (u64, u64),
    ) -> (u64, u64) {
        let is_near = |edge: &Edge| number.checked_sub(edge.number).is_some_and(|ahead| ahead <= REACH_SLOTS);
        let near = self.known.iter().filter(|edge| is_near(&edge.get())).max_by_key(|edge| edge.get().number);
        let Some(place) = near else {
            let edge = Edge { number, before: all_before() };
            let next = self.next.replace((self.next.get() + 1) % EDGES);
            if let Some(place) = self.known.get(next) {
                place.set(edge);
            }
            return edge.before;
        };
        let mut edge = place.get();
        if edge.number < number {
            edge = Edge { number, before: plus(edge.before, of(edge.number, number)) };
            place.set(edge);
        }
        edge.before
    }

    /// A slot is worth so much more.
    pub fn add(&mut self, number: u64, more: (u64, u64)) {
        for edge in self.known.iter_mut().map(Cell::get_mut).filter(|edge| edge.number > number) {
            edge.before = plus(edge.before, more);
        }
    }
}

// Sums wrap, as differences of two of them do: those are right while what a window holds is below 2⁶⁴.
pub(super) const fn plus(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0.wrapping_add(b.0), a.1.wrapping_add(b.1))
}
