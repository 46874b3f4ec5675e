//! A budget of bytes from which permits are taken and to which they return.

use crate::parallel::{AtomicU64, Ordering};
use std::sync::Arc;

/// A bounded amount of bytes. Taking and returning are one atomic operation each, without a lock.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    /// What was given back, ever.
    freed_bytes: AtomicU64,
}

impl Budget {
    #[must_use]
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, used_bytes: AtomicU64::new(0), freed_bytes: AtomicU64::new(0) })
    }

    /// A permit for `bytes`, or `None` when they would go over the limit.
    #[must_use]
    pub fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        self.add(bytes).then(|| Permit { budget: Some(self.clone()), within: None, bytes })
    }

    /// The same of this budget and of a smaller one; of neither when one lacks them.
    #[must_use]
    pub fn try_take_within(self: &Arc<Self>, smaller: &Arc<Self>, bytes: u64) -> Option<Permit> {
        let mut permit = Permit { budget: Some(self.clone()), within: Some(smaller.clone()), bytes: 0 };
        permit.try_grow(bytes).then_some(permit)
    }

    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.used_bytes().saturating_add(bytes) <= self.limit_bytes
    }

    /// Whether there was room.
    fn add(&self, bytes: u64) -> bool {
        let added = self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|&sum| sum <= self.limit_bytes)
        });
        added.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.freed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were given back, ever: from it follows how fast they are.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        self.freed_bytes.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }
}

/// Bytes taken from a [`Budget`]; they return when it is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Option<Arc<Budget>>,
    /// A smaller budget of which they were taken, too.
    within: Option<Arc<Budget>>,
    bytes: u64,
}

impl Permit {
    /// A permit that was taken from no budget, for replays.
    #[must_use]
    pub fn free() -> Self {
        Self { budget: None, within: None, bytes: 0 }
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there would be room for `more` bytes but for the smaller budget.
    #[must_use]
    pub fn is_held_back(&self, more: u64) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.has_room(more))
    }

    /// Takes `more` bytes into this permit; `false`, and nothing taken, when they would go over the limit.
    #[must_use]
    pub fn try_grow(&mut self, more: u64) -> bool {
        let Some(budget) = &self.budget else { return true };
        if self.within.as_ref().is_some_and(|within| !within.add(more)) {
            return false;
        }
        if !budget.add(more) {
            if let Some(within) = &self.within {
                within.give_back(more);
            }
            return false;
        }
        self.bytes = self.bytes.saturating_add(more);
        true
    }

    /// Gives `less` bytes back, and keeps the rest.
    pub fn shrink(&mut self, less: u64) {
        let less = less.min(self.bytes);
        for budget in self.budget.iter().chain(&self.within) {
            budget.give_back(less);
        }
        self.bytes = self.bytes.saturating_sub(less);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for budget in self.budget.iter().chain(&self.within) {
            budget.give_back(self.bytes);
        }
    }
}
