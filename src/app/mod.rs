//! Builds the rooms in order, runs them, drains them in order; replays recordings.

mod backtest;
mod comparison;
mod config;
mod counted;
mod counting;
mod daemon;
mod diagnosing;
mod error;
mod explain;
mod judging;
mod keeping;
mod mailbox;
mod objectives;
mod priority;
mod reading;
mod removing;
mod supervision;
mod totals;
mod unwritten;
mod waiting;

pub use backtest::{Backtest, Outcome};
#[cfg(test)]
pub(crate) use backtest::{Bench, admitted};
pub use comparison::{Comparison, later_ns};
pub use config::{Config, ConfigError, reference};
pub use daemon::{Addresses, App};
pub use error::Error;
pub use explain::{Question, write_causes};
use priority::give_way;
