//! What the daemon says of itself: counters with closed label sets, written as Prometheus text.

mod exposition;

pub use exposition::{Collect, Counter, Exposition, Kind};
