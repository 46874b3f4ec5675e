//! The calls of one connection, polled by the connection's own task. A call costs no task of its own, and a few keep
//! their memory for later ones.

use crate::parallel::Wakings;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Places whose memory is kept for a later call. Most connections need no more; those of a burst are given back after
/// it, for there may be many connections.
const KEPT: usize = 8;

/// Up to [`Calls::MOST`] calls under way.
pub(super) struct Calls<F> {
    places: Vec<Place<F>>,
    /// Which places have a call, as bits.
    taken: u128,
    wakings: Arc<Wakings>,
}

struct Place<F> {
    memory: Option<Pin<Box<Option<F>>>>,
    waker: Waker,
}

impl<F> Default for Calls<F> {
    fn default() -> Self {
        Self { places: Vec::new(), taken: 0, wakings: Arc::default() }
    }
}

impl<F: Future<Output = ()>> Calls<F> {
    /// How many there may be at a time: as many as `taken` has bits.
    pub const MOST: usize = Wakings::MOST;

    /// Whether one more must not begin now.
    pub fn is_full(&self) -> bool {
        self.taken == u128::MAX
    }

    /// Begins a call. Of one more than there may be nothing becomes; ask [`Self::is_full`] before.
    pub fn begin(&mut self, call: F) {
        // The lowest that is free: its memory is there, and was used last.
        let place = self.taken.trailing_ones() as usize;
        if place >= Self::MOST {
            return;
        }
        if place == self.places.len() {
            self.places.push(Place { memory: None, waker: self.wakings.waker(place) });
        }
        let Some(at) = self.places.get_mut(place) else { return };
        match &mut at.memory {
            Some(memory) => memory.set(Some(call)),
            None => at.memory = Some(Box::pin(Some(call))),
        }
        self.taken |= 1 << place;
        self.wakings.want(place);
    }

    /// Polls the calls that want it, and says whether there were any. The task is woken when there are more.
    pub fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let wanted = self.wakings.take(context.waker());
        let mut left = wanted;
        while left != 0 {
            let place = left.trailing_zeros() as usize;
            left &= left - 1;
            let Some(at) = self.places.get_mut(place) else { continue };
            // One that has ended may have left a waker behind.
            let call = at.memory.as_mut().and_then(|memory| memory.as_mut().as_pin_mut());
            if call.is_some_and(|call| call.poll(&mut Context::from_waker(&at.waker)).is_ready()) {
                self.taken &= !(1 << place);
                match &mut at.memory {
                    Some(memory) if place < KEPT => memory.set(None),
                    memory => *memory = None,
                }
            }
        }
        wanted != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Ready, ready};
    use std::task::Poll;

    #[test]
    fn every_place_can_be_taken_and_only_a_few_keep_their_memory() {
        let mut calls = Calls::<Ready<()>>::default();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            for begun in 0..Calls::<Ready<()>>::MOST {
                assert!(!calls.is_full(), "after {begun}");
                calls.begin(ready(()));
            }
            assert!(calls.is_full());
            assert!(calls.poll(&mut context) && !calls.poll(&mut context));
            assert!(!calls.is_full());
            assert_eq!(calls.places.iter().filter(|place| place.memory.is_some()).count(), KEPT);
        }
    }

    #[test]
    fn a_waking_that_comes_after_the_end_reaches_nobody_and_a_later_call_in_its_place_goes_on() {
        type Sent = Arc<parking_lot::Mutex<Vec<Waker>>>;
        let wakers = Sent::default();
        let call = |until: usize| {
            let (wakers, mut polled) = (wakers.clone(), 0);
            std::future::poll_fn(move |context| {
                wakers.lock().push(context.waker().clone());
                polled += 1;
                if polled < until { Poll::Pending } else { Poll::Ready(()) }
            })
        };
        let mut calls = Calls::default();
        let mut context = Context::from_waker(Waker::noop());
        calls.begin(call(1));
        assert!(calls.poll(&mut context));
        wakers.lock().pop().unwrap().wake();
        assert!(calls.poll(&mut context), "there is a waking, and nobody whom it concerns");
        calls.begin(call(2));
        assert!(calls.poll(&mut context) && !calls.poll(&mut context));
        assert_eq!(calls.taken, 1);
        wakers.lock().pop().unwrap().wake_by_ref();
        assert!(calls.poll(&mut context));
        assert_eq!(calls.taken, 0);
    }
}
