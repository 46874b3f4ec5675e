//! Sleep of a thread that waits for work, and its waking without a lock.

use super::primitives::{AtomicBool, Ordering, Thread, current, fence, park_timeout};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::time::Duration;

/// Where one thread sleeps. The sleeper announces itself and then looks again; the waker makes its
/// work visible and then looks for an announcement. Both with sequential consistency in between, so
/// at least one of the two sees the other, and no waking is lost.
#[derive(Debug, Default)]
pub struct Sleeper {
    asleep: AtomicBool,
    thread: ArcSwapOption<Thread>,
}

impl Sleeper {
    /// Sleeps until woken or until `at_most` has passed, unless `ready` already holds. Only one thread
    /// at a time may call this.
    pub fn sleep(&self, at_most: Duration, ready: impl Fn() -> bool) {
        let current = current();
        if self.thread.load().as_ref().is_none_or(|known| known.id() != current.id()) {
            self.thread.store(Some(Arc::new(current)));
        }
        // Swapped, not stored, here and below: so the swap of a waker finds the latest of them.
        self.asleep.swap(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !ready() {
            park_timeout(at_most);
        }
        self.asleep.swap(false, Ordering::SeqCst);
    }

    /// Wakes the sleeper, if it sleeps. To be called after what it waits for was made visible.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst)
            && self.asleep.swap(false, Ordering::SeqCst)
            && let Some(thread) = &*self.thread.load()
        {
            thread.unpark();
        }
    }
}
