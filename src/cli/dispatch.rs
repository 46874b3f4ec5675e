//! Which command runs.

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use std::process::ExitCode;

/// Exit code of wrong usage, as in BSD's `sysexits.h`.
pub(super) const USAGE: u8 = 64;

/// One daemon that counts everything OpenTelemetry sends, notices what breaks within seconds, and
/// sends one alert that already knows why.
#[derive(Debug, Parser)]
#[command(
    name = "barograph",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 not found, 64 wrong usage."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// A line a command: `Name => module`, where the module has `Arguments` and `run`.
macro_rules! commands {
    ($($name:ident => $module:ident,)*) => {
        #[derive(Debug, Subcommand)]
        enum Command { $($name(super::$module::Arguments),)* }

        impl Command {
            fn run(self) -> ExitCode {
                match self { $(Self::$name(arguments) => super::$module::run(arguments),)* }
            }
        }
    };
}

commands! {
    Serve => serve,
    Backtest => backtest,
    Explain => explain,
    Services => services,
    Operations => operations,
    Latency => latency,
    Series => series,
    Traces => traces,
    Logs => logs,
    Slo => slo,
    Checks => checks,
    Graph => graph,
    Anomalies => anomalies,
    Evidence => evidence,
    Incidents => incidents,
    Incident => incident,
    Changes => changes,
    Exempt => exempt,
    Demo => demo,
    Drill => drill,
    Load => load,
    Status => status,
    Journal => journal,
    Config => config,
    Completions => completions,
}

/// The command line's definition, for completions.
pub(super) fn definition() -> clap::Command {
    CommandLine::command()
}

/// Runs the command named by the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    match CommandLine::try_parse() {
        Ok(line) => line.command.run(),
        Err(error) => {
            // Help and version are answers, not mistakes. A closed pipe is nobody's mistake either.
            let _ = error.print();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(USAGE),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_an_example() {
        for command in definition().get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no description");
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains(&format!("barograph {name}")), "{name} shows no example: {examples:?}");
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in [
            &["barograph", "nonsense"][..],
            &["barograph", "latency"],
            &["barograph", "services", "--since", "yesterday"],
            &["barograph", "services", "-o", "yaml"],
        ] {
            let error = CommandLine::try_parse_from(line).unwrap_err();
            assert!(
                !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion),
                "{line:?}: {error}"
            );
        }
    }
}
