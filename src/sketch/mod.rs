//! Summaries of many values in little space, which merge exactly.

mod histogram;

pub use histogram::{Histogram, SCALE};
