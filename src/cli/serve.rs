//! `barograph serve`: the daemon.

use super::failure::{Failure, finish};
use crate::app::{App, Config, Error};
use clap::Args;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Run the daemon in the foreground.
///
/// Needs no configuration: it keeps its data in ./barograph-data and listens on loopback. When it is
/// ready it prints a line with its addresses. SIGTERM and Ctrl-C stop it without loss.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  barograph serve
  barograph serve --config /etc/barograph.toml
  barograph serve --set data_dir=/var/lib/barograph --set listen.http=127.0.0.1:0
  barograph serve --set 'alert.alertmanagers=[\"http://127.0.0.1:9093\"]'

`barograph config reference` prints every key. $BAROGRAPH_LOG sets what is logged to standard error
(error, warn, info, debug; default info).")]
pub struct Arguments {
    /// TOML file with the configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override one key by its dotted path; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Runs the daemon until it is told to stop.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    finish(serve(&arguments))
}

fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.as_deref(), &arguments.set)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let filter = tracing_subscriber::EnvFilter::try_from_env("BAROGRAPH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Where standard error is a file on a full disk, what cannot be logged is left out; told about on
    // standard error, it would end the thread that logs.
    let _ = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    let app = App::start(&config).map_err(|error| match error {
        Error::Access(error) => Failure::usage(error.to_string()),
        error => Failure::failed(error.to_string()),
    })?;
    // Before anybody is told that it runs: who stops it right after is to see it end in order.
    let signals = app.within_runtime(|| (signal(SignalKind::terminate()), signal(SignalKind::interrupt())));
    let at = app.addresses();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "ready otlp_grpc={} otlp_http={} query={} http={}",
        at.otlp_grpc, at.otlp_http, at.query, at.http
    )?;
    out.flush()?;
    let stop = async {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::error!("signals cannot be waited for: stop this process with SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    app.run_until(stop).map_err(|error| Failure::failed(error.to_string()))
}
