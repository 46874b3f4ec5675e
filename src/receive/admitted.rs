//! A request that was let in.

use crate::limits::Permit;
use crate::model::Signal;
use crate::otlp::{Encoding, Slice};
use crate::receive::Reply;
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use smallvec::SmallVec;
use std::sync::{Arc, LazyLock};

/// Slices of a request that keep their memory for the next one.
const SPARE_SLICES: usize = 256;

/// Requests whose memory waits for the next one.
static SPARE: LazyLock<ArrayQueue<Arc<Admitted>>> = LazyLock::new(|| ArrayQueue::new(256));

/// Who sent a request, as a number: the same for one caller as long as the data directory lives. Two may have the same
/// one, and all have that are more than are told apart (see `callers.rs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerTag(pub u16);

impl CallerTag {
    /// Of what is read from elsewhere, or was recorded before there were any.
    pub const NOBODY: Self = Self(0);
}

/// A request that was let in: whole, framed, inflated and split, but not yet recorded or counted.
#[derive(Debug)]
pub struct Admitted {
    pub signal: Signal,
    /// How `wire` is compressed.
    pub encoding: Encoding,
    /// The `Export*ServiceRequest` as it came, for the journal. JSON requests are put into protobuf first.
    pub wire: Bytes,
    /// The same, inflated: what shards read. Shares `wire` when that is not compressed.
    pub body: Bytes,
    pub slices: SmallVec<[Slice; 8]>,
    pub caller: CallerTag,
    /// Holds the memory of `wire` and `body` until both are let go.
    pub permit: Permit,
    pub reply: Reply,
}

impl Admitted {
    /// Shares the request, in memory that an earlier one had if there is any: on the way of requests
    /// nothing is allocated that can be used again.
    #[must_use]
    pub fn shared(self) -> Arc<Self> {
        let Some(mut spare) = SPARE.pop() else { return Arc::new(self) };
        match Arc::get_mut(&mut spare) {
            Some(place) => {
                *place = self;
                spare
            }
            None => Arc::new(self),
        }
    }

    /// Lets go of a request. The last one to do so leaves its memory to another.
    pub fn release(mut self: Arc<Self>) {
        if let Some(place) = Arc::get_mut(&mut self) {
            place.wire = Bytes::new();
            place.body = Bytes::new();
            if place.slices.capacity() > SPARE_SLICES {
                place.slices = SmallVec::new();
            } else {
                place.slices.clear();
            }
            place.permit = Permit::free();
            place.reply = Reply::nobody();
            // When there are enough, this one goes.
            drop(SPARE.push(self));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Budget;

    #[test]
    fn memory_and_budget_are_free_once_the_last_has_let_go() {
        let budget = Budget::new(100);
        let body = Bytes::from(vec![1, 2, 3]);
        let request = Admitted {
            signal: Signal::Logs,
            encoding: Encoding::Identity,
            wire: body.clone(),
            body: body.clone(),
            slices: SmallVec::new(),
            caller: CallerTag::NOBODY,
            permit: budget.try_take(60).unwrap(),
            reply: Reply::nobody(),
        };
        let first = request.shared();
        let second = first.clone();
        first.release();
        assert_eq!((budget.used_bytes(), &second.body), (60, &body));
        second.release();
        assert_eq!(budget.used_bytes(), 0);
        assert!(body.is_unique(), "neither the spare memory nor anything else holds the bytes");
    }

    #[test]
    fn the_memory_of_many_slices_is_not_kept() {
        let request = |slices: usize| Admitted {
            signal: Signal::Logs,
            encoding: Encoding::Identity,
            wire: Bytes::new(),
            body: Bytes::new(),
            slices: std::iter::repeat_n(Slice { partition: 0, range: 0..0 }, slices).collect(),
            caller: CallerTag::NOBODY,
            permit: Permit::free(),
            reply: Reply::nobody(),
        };
        for number in 0..600 {
            request(10_000 * (number % 2)).shared().release();
        }
        let spare: Vec<_> = std::iter::from_fn(|| SPARE.pop()).collect();
        assert!(spare.iter().all(|request| request.slices.capacity() <= SPARE_SLICES));
    }
}
