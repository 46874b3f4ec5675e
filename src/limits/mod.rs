//! Bounds: budgets of bytes, rates, ports and seats of connections, open files; what was shed, and why.

mod allocator;
mod budget;
mod listen;
mod open_files;
mod rate;
mod reason;
mod seats;

pub use allocator::{give_back_free_memory, share_memory_among_threads};
pub use budget::{Budget, Permit};
pub use listen::listen;
pub use open_files::raise_open_files;
pub use rate::Rate;
pub use reason::{LateReason, RefusedReason, RejectedReason, ShedReason, UntimelyReason};
pub use seats::{Arriving, Busy, Seat, Seats, Sitting};
