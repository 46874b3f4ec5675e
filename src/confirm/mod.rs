//! Is the data sound, is it explained, is it one fault with another, does the false-alarm budget
//! allow it? Findings go in, anomalies come out: one a fault.

mod anomaly;

pub use anomaly::{Anomaly, AnomalyId, AnomalyState, Fingerprint, Member, Severity};
