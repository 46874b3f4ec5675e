//! `barograph series`.

use super::connection::Daemon;
use super::failure::finish;
use super::moment::{History, read_duration_ns};
use super::output::{Answer, Output, Watch};
use super::services::query;
use super::table::Table;
use crate::api::v1;
use crate::serve::text::{count, duration_or_none, three_digits, time};
use crate::serve::time_series_json;
use clap::{Args, ValueEnum};
use std::process::ExitCode;

/// Requests, log records or metrics of a service over time.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph series --service cart --since 30m --step 1m
  barograph series --service cart --signal logs
  barograph series --service cart --signal metrics --name db.client.connection.count -o json")]
pub(super) struct Arguments {
    /// The service.
    #[arg(long, value_name = "[ENVIRONMENT/][NAMESPACE/]NAME")]
    service: String,
    /// Which signal.
    #[arg(long, value_enum, value_name = "SIGNAL", default_value = "traces")]
    signal: Signal,
    /// The spans' or the metric's name [default: all of the service's requests; all metrics].
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Length of a step, in whole windows of 10 s [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = read_duration_ns)]
    step: Option<i64>,
    #[command(flatten)]
    history: History,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Signal {
    Traces,
    Logs,
    Metrics,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { service, signal, name, step, history, output, watch, daemon } = arguments;
    let signal = match signal {
        Signal::Traces => v1::Signal::Traces,
        Signal::Logs => v1::Signal::Logs,
        Signal::Metrics => v1::Signal::Metrics,
    };
    finish(output.ask(&daemon, &watch, async |channel| {
        let request = v1::GetTimeSeriesRequest {
            range: history.range(),
            service: service.clone(),
            signal: signal as i32,
            name: name.clone(),
            step_ns: step.unwrap_or_default(),
        };
        let answer = query(channel).get_time_series(request).await;
        let series = answer.map_err(|status| daemon.failure(&status))?.into_inner().series;
        let again = series.clone();
        Ok(Answer {
            table: Box::new(move || table(&series)),
            json: Box::new(move || again.iter().map(time_series_json).collect()),
        })
    }))
}

fn table(series: &[v1::TimeSeries]) -> String {
    let mut table =
        Table::new(&["NAME", "ATTRIBUTES", "START", ">COUNT", ">ERRORS", ">P50", ">P99", ">VALUE", "UNIT"]);
    for of in series {
        let attributes: Vec<String> =
            of.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let name = if of.name.is_empty() { "(all)" } else { &of.name };
        for point in &of.points {
            let value = point.last.or(point.delta).or(point.mean);
            table.row([
                name.to_owned(),
                attributes.join(" "),
                time(point.start.as_ref()),
                count(point.count),
                count(point.errors),
                point.p50_ns.map(|_| duration_or_none(point.p50_ns)).unwrap_or_default(),
                point.p99_ns.map(|_| duration_or_none(point.p99_ns)).unwrap_or_default(),
                value.map(three_digits).unwrap_or_default(),
                of.unit.clone(),
            ]);
        }
    }
    table.show("No data in this range.")
}
