//! Bounds: budgets of bytes, what was shed, and why.

mod budget;
mod reason;

pub use budget::{Budget, Permit};
pub use reason::{LateReason, RefusedReason, RejectedReason};
