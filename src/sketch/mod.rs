//! Summaries of many values in little space, which merge exactly.

mod buckets;
mod histogram;
mod recording;

pub use histogram::{Histogram, SCALE};
pub use recording::{Recording, Recordings};
