//! `barograph config`.

use super::failure::finish;
use super::output::write_out;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Prints every key of the configuration with its meaning and default.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph config reference > barograph.toml")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every key with its default, as a TOML file to start from.
    Reference,
}

pub(super) fn run(Arguments { what: What::Reference }: Arguments) -> ExitCode {
    finish(write_out(&crate::app::reference()))
}
