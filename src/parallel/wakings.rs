use crate::parallel::{AtomicU64, AtomicWaker, Ordering};
use std::sync::Arc;
use std::task::{Wake, Waker};

const BITS: usize = u64::BITS as usize;

/// Which of up to [`Wakings::MOST`] futures want to be polled, and the task that polls them. A waking sets a bit and
/// wakes the task, unless the bit was set already: then the task is awake, or about to be woken.
#[derive(Debug, Default)]
pub struct Wakings {
    wanted: [AtomicU64; Self::MOST / BITS],
    task: AtomicWaker,
}

impl Wakings {
    /// How many futures there may be.
    pub const MOST: usize = 128;

    /// What wakes the future at a place below [`Wakings::MOST`].
    #[must_use]
    pub fn waker(self: &Arc<Self>, place: usize) -> Waker {
        Arc::new(Place { all: self.clone(), place }).into()
    }

    /// Has the future at a place polled.
    pub fn want(&self, place: usize) {
        let Some(wanted) = self.wanted.get(place / BITS) else { return };
        let bit = 1 << (place % BITS);
        if wanted.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.task.wake();
        }
    }

    /// The places of the futures that want to be polled, as bits. Those that want it from now on wake `task`.
    pub fn take(&self, task: &Waker) -> u128 {
        // Before the look: a waking between the two finds the new waker.
        self.task.register(task);
        self.wanted.iter().rev().fold(0, |all, wanted| {
            // Most of the time there is nothing: a look is cheaper than a swap.
            let these = match wanted.load(Ordering::Acquire) {
                0 => 0,
                _ => wanted.swap(0, Ordering::AcqRel),
            };
            (all << BITS) | u128::from(these)
        })
    }
}

/// One future's place.
#[derive(Debug)]
struct Place {
    all: Arc<Wakings>,
    place: usize,
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.all.want(self.place);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.all.want(self.place);
    }
}
