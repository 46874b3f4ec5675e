//! Bounds: budgets of bytes, what was shed, and why.

mod budget;
mod rate;
mod reason;

pub use budget::{Budget, Permit};
pub use rate::Rate;
pub use reason::{LateReason, RefusedReason, RejectedReason};
