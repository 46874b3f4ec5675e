//! What the operating system and the processor give. A model puts others in their place.

pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
pub use std::thread::{Thread, current, park_timeout};
