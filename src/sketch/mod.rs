//! Summaries of many values in little space, which merge exactly.

mod accumulator;
mod buckets;
mod distinct;
mod histogram;
mod recording;

pub use accumulator::Accumulator;
pub use distinct::Distinct;
pub use histogram::{Histogram, SCALE};
pub use recording::{Recording, Recordings};
