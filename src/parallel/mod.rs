//! How threads end a queue and wake each other without a lock. Everything here is modelled in `tests/loom.rs`.
//! Budgets and rates (`limits/`) are single atomics beside it, of which the model has the budget's permits.

mod gate;
mod primitives;
mod sleeper;

pub use gate::Gate;
pub use primitives::{AtomicU64, Ordering};
pub use sleeper::Sleeper;
