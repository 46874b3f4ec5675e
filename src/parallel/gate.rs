//! The end of a queue to which many threads push.

use super::primitives::{AtomicBool, Ordering, fence};

/// Closed once, for ever. Who closes it empties the queue afterwards; who pushes looks again afterwards.
/// Both with sequential consistency in between, so at least one of the two finds what was pushed.
#[derive(Debug, Default)]
pub struct Gate(AtomicBool);

impl Gate {
    pub fn close(&self) {
        self.0.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// To be asked after a push: whether it may be that nobody empties the queue any more.
    #[must_use]
    pub fn was_closed_meanwhile(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::SeqCst)
    }
}
