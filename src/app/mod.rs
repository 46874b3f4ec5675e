//! Builds the rooms in order, runs them, drains them in order; replays recordings.

mod config;
mod mailbox;

pub use config::{Config, ConfigError, reference};
