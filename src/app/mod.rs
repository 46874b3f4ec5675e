//! Builds the rooms in order, runs them, drains them in order; replays recordings.

mod config;
mod counting;
mod daemon;
mod error;
mod judging;
mod mailbox;
mod reading;
mod totals;

pub use config::{Config, ConfigError, reference};
pub use daemon::{Addresses, App};
pub use error::Error;
