//! Detectors against each series' own past, one file each: pure functions of a series' state and
//! what was seen, without clock or I/O.

mod finding;

pub use finding::{Band, Finding, Interval, Symptom};
