//! The answer to a request: it is due when the journal and every slice's shard have had their say.

use crate::limits::{RefusedReason, RejectedReason};
use crate::parallel::{AtomicU32, AtomicU64, AtomicWaker, Mutex, Ordering};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Items that were refused for good, and the first reason in words (which field, which limit).
    pub rejected: u64,
    pub message: String,
    /// Set when the request as a whole was not taken and should be sent again.
    pub refused: Option<RefusedReason>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Parts that have not yet had their say.
    open: AtomicU32,
    /// Where the journal recorded it; 0 while it has not.
    recorded_at: AtomicU64,
    rejected: AtomicU64,
    waker: AtomicWaker,
    /// Touched only when something is wrong, so never on the path of a good span.
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    message: String,
    refused: Option<RefusedReason>,
}

/// The side that journal and shards report to; `None` when nobody waits.
#[derive(Clone, Debug, Default)]
pub struct Reply(Option<Arc<Shared>>);

/// Tells later what became of a request that nobody waits for any more.
#[derive(Clone, Debug)]
pub struct Receipt(Arc<Shared>);

impl Receipt {
    /// Where it was recorded, if it was.
    #[must_use]
    pub fn recorded(&self) -> Option<u64> {
        Some(self.0.recorded_at.load(Ordering::Acquire)).filter(|&position| position != 0)
    }

    /// Whether every part was reported.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.open.load(Ordering::Acquire) == 0
    }
}

impl Pending {
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        Receipt(self.0.clone())
    }
}

/// The side that waits: resolves once every part was reported.
#[derive(Debug)]
pub struct Pending(Arc<Shared>);

impl Reply {
    /// A reply that waits for `parts` reports: one of the journal and one of each slice.
    #[must_use]
    pub fn new(parts: u32) -> (Self, Pending) {
        let shared = Arc::new(Shared { open: AtomicU32::new(parts), ..Shared::default() });
        (Self(Some(shared.clone())), Pending(shared))
    }

    /// A reply that nobody waits for.
    #[must_use]
    pub const fn nobody() -> Self {
        Self(None)
    }

    /// Says at which position of the journal the request stands. Report its part as done after it.
    pub fn recorded(&self, position: u64) {
        if let Some(shared) = &self.0 {
            shared.recorded_at.store(position, Ordering::Release);
        }
    }

    /// Reports `parts` as done.
    pub fn done(&self, parts: u32) {
        if let Some(shared) = &self.0
            && shared.open.fetch_sub(parts, Ordering::AcqRel) == parts
        {
            shared.waker.wake();
        }
    }

    /// Counts items as refused for good; the first message is kept.
    pub fn reject(&self, items: u64, reason: RejectedReason, message: impl FnOnce() -> String) {
        let Some(shared) = &self.0 else { return };
        shared.rejected.fetch_add(items, Ordering::AcqRel);
        let mut trouble = shared.trouble.lock();
        if trouble.message.is_empty() {
            trouble.message = format!("{}: {}", reason.as_str(), message());
        }
    }

    /// Says that the request as a whole was not taken. Report its parts as done all the same.
    pub fn refuse(&self, reason: RefusedReason, message: impl FnOnce() -> String) {
        let Some(shared) = &self.0 else { return };
        let mut trouble = shared.trouble.lock();
        if trouble.refused.is_none() {
            trouble.refused = Some(reason);
            trouble.message = message();
        }
    }
}

impl Future for Pending {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        if self.0.open.load(Ordering::Acquire) != 0 {
            self.0.waker.register(context.waker());
            // A report may have come between the look and the registration.
            if self.0.open.load(Ordering::Acquire) != 0 {
                return Poll::Pending;
            }
        }
        let rejected = self.0.rejected.load(Ordering::Acquire);
        let mut trouble = self.0.trouble.lock();
        Poll::Ready(Outcome {
            rejected,
            message: std::mem::take(&mut trouble.message),
            refused: trouble.refused,
        })
    }
}
