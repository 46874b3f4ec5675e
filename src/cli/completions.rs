//! `barograph completions`.

use super::dispatch::definition;
use super::failure::finish;
use super::output::write_out;
use clap::Args;
use clap_complete::Shell;
use std::process::ExitCode;

/// Prints a script that teaches a shell the commands.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph completions bash > ~/.local/share/bash-completion/completions/barograph
  barograph completions zsh > ~/.zfunc/_barograph
  barograph completions fish > ~/.config/fish/completions/barograph.fish")]
pub(super) struct Arguments {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(Arguments { shell }: Arguments) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "barograph", &mut script);
    finish(write_out(&String::from_utf8_lossy(&script)))
}
