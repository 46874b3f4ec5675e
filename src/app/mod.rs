//! Builds the rooms in order, runs them, drains them in order; replays recordings.

mod config;

pub use config::{Config, ConfigError, reference};
