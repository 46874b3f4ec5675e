//! The calls of one connection, polled by the connection's own task. A call costs no task of its own, and its memory
//! is taken over by a later one.

use crate::parallel::Wakings;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Up to [`Calls::MOST`] calls under way.
pub(super) struct Calls<F> {
    places: Vec<Place<F>>,
    /// Numbers of the places without a call.
    free: Vec<usize>,
    wakings: Arc<Wakings>,
}

struct Place<F> {
    call: Pin<Box<Option<F>>>,
    waker: Waker,
}

impl<F> Default for Calls<F> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), wakings: Arc::default() }
    }
}

impl<F: Future<Output = ()>> Calls<F> {
    /// How many there may be at a time.
    pub const MOST: usize = Wakings::MOST;

    /// Whether one more must not begin now.
    pub fn is_full(&self) -> bool {
        self.free.is_empty() && self.places.len() >= Self::MOST
    }

    /// Begins a call. Of one more than there may be nothing becomes; ask [`Self::is_full`] before.
    pub fn begin(&mut self, call: F) {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() < Self::MOST => {
                let place = self.places.len();
                self.places.push(Place { call: Box::pin(None), waker: self.wakings.waker(place) });
                place
            }
            None => return,
        };
        if let Some(at) = self.places.get_mut(place) {
            at.call.set(Some(call));
            self.wakings.want(place);
        }
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
            let Some(call) = at.call.as_mut().as_pin_mut() else { continue };
            if call.poll(&mut Context::from_waker(&at.waker)).is_ready() {
                at.call.set(None);
                self.free.push(place);
            }
        }
        wanted != 0
    }
}
