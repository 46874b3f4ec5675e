//! Is the data sound, is it explained, is it one fault with another, does the false-alarm budget
//! allow it? Findings go in, anomalies come out: one a fault.

mod anomaly;
mod config;
#[allow(clippy::module_inception, reason = "the stage's main struct has the room's name")]
mod confirm;
mod evidence;
mod exempt;
mod graph;
mod group;
mod judge;
mod open;
mod pace;
mod places;
mod settle;
mod silencers;
mod title;
#[cfg(test)]
mod tests;

pub use anomaly::{
    Anomaly, AnomalyId, AnomalyState, BudgetDraw, Examined, Fingerprint, Member, Severity, Uncovering,
};
pub use config::Config;
pub use confirm::{Confirm, RestoreError};
pub use judge::{Judge, JudgeRestoreError, Judged};
pub use silencers::{Silencer, silencers};
