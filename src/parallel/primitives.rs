//! What the operating system, the processor and the libraries below give. A model puts others in their place.

pub use atomic_waker::AtomicWaker;
pub use crossbeam::queue::ArrayQueue;
pub use parking_lot::Mutex;
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
pub use std::thread::{Thread, current, park_timeout};
pub use std::thread_local;

/// The next number, for a thread that has none yet.
pub fn next_thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
