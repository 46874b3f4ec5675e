//! `barograph demo`: a shop, a fault, and what the daemon makes of it.

use super::drill::{random_seed, read_ratio};
use super::failure::{Failure, finish};
use super::moment::read_duration_ns;
use crate::drill::{DemoError, DemoOptions, Fault, demo};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Show a fault from injection to recovery: a daemon, a simulated shop, one alert with its cause.
///
/// Starts a daemon on free ports, a shop of ten services that send real OTLP/gRPC traffic, and a real
/// Alertmanager if one is installed; breaks something, and exits with 0 only if the daemon found it,
/// told it once, named the cause, kept the evidence and noticed the recovery.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  barograph demo
  barograph demo --fault bad-deploy --seed 7
  barograph demo --fault none --duration 5m
  barograph demo --keep")]
pub(super) struct Arguments {
    /// slow-database, failing-dependency, bad-deploy, traffic-drop, saturated-pool, missed-job or none.
    #[arg(long, value_name = "NAME", default_value = "slow-database")]
    fault: Fault,
    /// Draws rates, latencies, the faulty service and the moment [default: random, printed].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Factor on the rate of visits.
    #[arg(long, value_name = "RATIO", default_value = "1", value_parser = read_ratio)]
    traffic: f64,
    /// How long to learn what is normal before something breaks.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = read_duration_ns)]
    learn: i64,
    /// With --fault none: how long to watch after learning.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = read_duration_ns)]
    duration: i64,
    /// Leave everything running at the end and print the addresses.
    #[arg(long)]
    keep: bool,
    /// Write what was found, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    finish(hold(&arguments))
}

fn hold(arguments: &Arguments) -> Result<(), Failure> {
    let duration = |ns: i64| Duration::from_nanos(u64::try_from(ns).unwrap_or_default());
    let options = DemoOptions {
        fault: arguments.fault,
        seed: arguments.seed.unwrap_or_else(random_seed),
        traffic: arguments.traffic,
        learn: duration(arguments.learn),
        duration: duration(arguments.duration),
        keep: arguments.keep,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let report = runtime.block_on(demo(&options, |report| match &arguments.report {
        Some(path) => {
            let text = serde_json::to_string_pretty(report).unwrap_or_default();
            std::fs::write(path, text + "\n")
                .map_err(|source| DemoError::Io { what: path.display().to_string(), source })
        }
        None => Ok(()),
    }));
    match report {
        Ok(report) if report.passed => Ok(()),
        Ok(report) => Err(Failure::failed(format!("the demo failed: {}", report.failures.join("; ")))),
        Err(DemoError::Interrupted) => Err(Failure { code: 130, message: "interrupted".to_owned() }),
        Err(error) => Err(Failure::failed(error.to_string())),
    }
}
