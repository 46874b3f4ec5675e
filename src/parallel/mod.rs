//! What threads hand each other without a lock. Everything here stands in `tests/loom.rs`, which tries every
//! order in which two threads can meet.

mod gate;
mod primitives;
mod sleeper;

pub use gate::Gate;
pub use primitives::{AtomicU64, Ordering};
pub use sleeper::Sleeper;
