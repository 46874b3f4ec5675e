//! What threads hand each other, and how they wake each other and end, without a lock. Everything here is
//! modelled in `tests/loom.rs`, and so are the answers to requests (`receive/reply.rs`). Budgets and rates
//! (`limits/`) are single atomics beside it, of which the model has the budget's permits.

mod gate;
mod lanes;
mod pipe;
mod primitives;
mod sleeper;
mod wakings;

pub use gate::Gate;
pub use lanes::{Consumer, Lanes, announce, announce_at_rest};
pub use pipe::{Receiver, Sender, pipe};
pub use primitives::{AtomicU32, AtomicU64, AtomicWaker, Mutex, Ordering};
pub use sleeper::Sleeper;
pub use wakings::Wakings;
