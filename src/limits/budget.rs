//! A budget of bytes from which permits are taken and to which they return.

use crate::parallel::{AtomicU64, Ordering};
use std::sync::Arc;

/// A bounded amount of bytes. Taking and returning are one atomic operation each, without a lock.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl Budget {
    #[must_use]
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, used_bytes: AtomicU64::new(0) })
    }

    /// A permit for `bytes`, or `None` when they would go over the limit.
    #[must_use]
    pub fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Permit> {
        self.used_bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.limit_bytes)
            })
            .ok()
            .map(|_| Permit { budget: Some(self.clone()), bytes })
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
    bytes: u64,
}

impl Permit {
    /// A permit that was taken from no budget, for replays.
    #[must_use]
    pub fn free() -> Self {
        Self { budget: None, bytes: 0 }
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes `more` bytes into this permit; `false`, and nothing taken, when they would go over the limit.
    #[must_use]
    pub fn try_grow(&mut self, more: u64) -> bool {
        let Some(budget) = &self.budget else { return true };
        let Some(mut extra) = budget.try_take(more) else { return false };
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut extra.bytes));
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        }
    }
}
