//! `barograph drill`: the simulated shop without a daemon.

use super::failure::{Failure, finish};
use super::moment::{read_duration_ns, read_time};
use super::output::{Answer, Output};
use crate::drill::{Fault, Recorded, Recording, record};
use crate::model::Timestamp;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Run the simulated shop without a daemon.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  barograph drill record --fault slow-database --seed 7 --out shop.jsonl.zst
  barograph drill record --fault none --duration 10m --out healthy.jsonl.gz")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Record(RecordArguments),
}

/// Write what the shop sends, at virtual time, as OTLP JSON lines.
///
/// The fault begins half-way and ends after 85 % of the duration. Equal arguments give equal bytes.
#[derive(Debug, Args)]
struct RecordArguments {
    /// slow-database, failing-dependency, bad-deploy, traffic-drop, saturated-pool, missed-job or none.
    #[arg(long, value_name = "NAME", default_value = "slow-database")]
    fault: Fault,
    /// Draws rates, latencies, the faulty service and the moment [default: random, printed].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Length of the recording.
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = read_duration_ns)]
    duration: i64,
    /// Factor on the rate of visits.
    #[arg(long, value_name = "RATIO", default_value = "1", value_parser = read_ratio)]
    traffic: f64,
    /// Time at which the recording begins.
    #[arg(long, value_name = "TIME", default_value = "2026-01-01T00:00:00Z", value_parser = read_time)]
    start: Timestamp,
    /// File to write; compressed if it ends in .gz or .zst.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    match arguments.what {
        What::Record(arguments) => finish(run_record(&arguments)),
    }
}

fn run_record(arguments: &RecordArguments) -> Result<(), Failure> {
    let seed = arguments.seed.unwrap_or_else(random_seed);
    let what = Recording {
        fault: arguments.fault,
        seed,
        traffic: arguments.traffic,
        start: arguments.start,
        duration: Duration::from_nanos(u64::try_from(arguments.duration).unwrap_or_default()),
    };
    let recorded = record(&what, &arguments.out).map_err(|error| Failure::failed(error.to_string()))?;
    let (table, json) = (describe(&what, &recorded), labels(&what, &recorded, arguments));
    arguments.output.print(Answer { table: Box::new(|| table), json: Box::new(|| json) })
}

fn describe(what: &Recording, recorded: &Recorded) -> String {
    let mut text = format!(
        "seed {}: {} spans, {} log records, {} metric points in {} lines\n",
        what.seed, recorded.spans, recorded.log_records, recorded.metric_points, recorded.lines
    );
    if let Some(at) = recorded.injected_at {
        text += &format!("{at}  {}\n", what.fault.describe(recorded.service));
    }
    if let Some(at) = recorded.healed_at {
        text += &format!("{at}  healed\n");
    }
    text
}

fn labels(what: &Recording, recorded: &Recorded, arguments: &RecordArguments) -> Value {
    let expected = what.fault.kinds().first().map(|kind| json!({"service": recorded.service, "kind": kind}));
    json!({
        "recording": arguments.out.display().to_string(),
        "fault": what.fault.as_str(),
        "seed": what.seed,
        "expected": expected,
        "start": what.start,
        "injected_at": recorded.injected_at,
        "healed_at": recorded.healed_at,
        "spans": recorded.spans,
        "log_records": recorded.log_records,
        "metric_points": recorded.metric_points,
        "lines": recorded.lines,
    })
}

/// Reads a factor.
pub(super) fn read_ratio(text: &str) -> Result<f64, String> {
    read_number(text, 0.01..=1000.0, "0.01 to 1000")
}

/// A number within what is allowed, which `words` tell.
pub(super) fn read_number(text: &str, allowed: RangeInclusive<f64>, words: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if allowed.contains(&number) { Ok(number) } else { Err(format!("allowed: {words}")) }
}

/// A seed that nobody chose, short enough to type.
pub(super) fn random_seed() -> u64 {
    fastrand::u64(1..1_000_000)
}
