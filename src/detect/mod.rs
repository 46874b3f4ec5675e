//! Detectors against each series' own past, one file each: pure functions of a series' state and
//! what was seen, without clock or I/O.

mod absence;
mod baseline;
mod calls;
mod config;
mod day;
mod detectors;
mod errors;
mod evidence;
mod exhaustion;
mod finding;
mod foreign;
mod forget;
mod half;
mod instances;
mod job;
mod last_week;
mod lateness;
mod latency;
mod level;
mod metered;
mod metrics;
mod pause;
mod requests;
mod rounds;
mod saturation;
mod score;
mod sampling;
mod sealed;
mod service;
mod share;
mod silence;
mod table;
mod tail;
mod together;
mod traffic;
mod usual;
mod wandering;
mod week;
#[cfg(test)]
mod schedule_tests;

pub use config::Config;
pub use detectors::{Census, Detected, Detectors, RestoreError};
pub use evidence::SUSPICION;
pub use finding::{Band, Finding, Gravity, Interval, Phase, Symptom};
pub use foreign::{Foreign, ForeignAlert, is_remark};
pub use metrics::is_of_shape;
pub use score::Score;
