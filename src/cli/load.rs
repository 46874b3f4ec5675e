//! `barograph load`: a load generator.

use super::drill::read_number;
use super::failure::{Failure, finish};
use super::moment::read_duration_ns;
use super::output::{Answer, Output};
use crate::drill::interrupted;
use crate::drill::load::{Compression, Error, Figures, Load, Shape, send};
use crate::model::Signal;
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;

/// Send OTLP/gRPC load to a receiver and measure what becomes of it.
///
/// Without --rate each answer triggers the next request: that measures throughput. With --rate requests
/// leave on schedule and latency counts from the scheduled time, so that a stalled receiver shows. Ctrl-C ends it
/// early, with what was measured until then.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  barograph load --endpoint http://127.0.0.1:4317 --duration 30s
  barograph load --endpoint http://127.0.0.1:4317 --rate 50000 --signals traces,logs,metrics
  barograph load --endpoint http://127.0.0.1:4317 --compression gzip --pid $(pidof barograph) -o json")]
pub(super) struct Arguments {
    /// OTLP/gRPC receiver.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4317")]
    endpoint: String,
    /// Signals, which take turns.
    #[arg(long, value_name = "SIGNAL", value_enum, value_delimiter = ',', default_value = "traces")]
    signals: Vec<Kind>,
    /// Items a second [default: as fast as answers come].
    #[arg(long, value_name = "ITEMS", value_parser = read_rate)]
    rate: Option<f64>,
    /// Spans, log records or metric points a request.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    items: u32,
    /// Attributes of each item.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=128))]
    attributes: u32,
    /// Resources a request: one resembles an SDK, several a Collector.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    resources: u32,
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000), help = "Services that seem to send")]
    services: u32,
    /// Operations, or metric series, over all services.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    series: u32,
    /// How many of a hundred spans have status ERROR.
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = read_percent)]
    errors: f64,
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000), help = "Connections")]
    connections: u32,
    /// Requests under way on each connection.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    in_flight: u32,
    #[arg(long, value_enum, default_value = "none", help = "How requests are compressed")]
    compression: Packing,
    /// Time before measuring.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = read_duration_ns)]
    warm_up: i64,
    /// Time of measuring.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = read_length)]
    duration: i64,
    /// The receiver's process, whose CPU time and memory are measured.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Traces,
    Logs,
    Metrics,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

fn read_rate(text: &str) -> Result<f64, String> {
    read_number(text, 0.001..=1e9, "0.001 to a billion; without --rate, as fast as answers come")
}

fn read_percent(text: &str) -> Result<f64, String> {
    read_number(text, 0.0..=100.0, "0 to 100")
}

fn read_length(text: &str) -> Result<i64, String> {
    let time = read_duration_ns(text)?;
    if time > 0 { Ok(time) } else { Err("must be longer than nothing".to_owned()) }
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    finish(measure(&arguments))
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let duration = |ns: i64| Duration::from_nanos(u64::try_from(ns).unwrap_or_default());
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    let load = Load {
        endpoint: if arguments.endpoint.contains("://") {
            arguments.endpoint.clone()
        } else {
            format!("http://{}", arguments.endpoint)
        },
        signals: arguments
            .signals
            .iter()
            .map(|kind| match kind {
                Kind::Traces => Signal::Traces,
                Kind::Logs => Signal::Logs,
                Kind::Metrics => Signal::Metrics,
            })
            .collect(),
        shape: Shape {
            resources: arguments.resources as usize,
            items: count(arguments.items),
            attributes: count(arguments.attributes),
            services: count(arguments.services),
            series: count(arguments.series),
            errors: 0.01 * arguments.errors,
        },
        rate: arguments.rate,
        connections: count(arguments.connections),
        in_flight: count(arguments.in_flight),
        compression: match arguments.compression {
            Packing::None => Compression::None,
            Packing::Gzip => Compression::Gzip,
            Packing::Zstd => Compression::Zstd,
        },
        warm_up: duration(arguments.warm_up),
        duration: duration(arguments.duration),
        pid: arguments.pid,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let figures = runtime.block_on(send(&load, interrupted())).map_err(|error| match error {
        Error::Endpoint(..) => Failure::usage(error.to_string()),
        _ => Failure::failed(error.to_string()),
    })?;
    let (table, json) = (table(&figures), figures.to_json());
    arguments.output.print(Answer { table: Box::new(|| table), json: Box::new(|| json) })
}

fn table(figures: &Figures) -> String {
    let per_second = figures.accepted_items() as f64 / figures.seconds.max(1e-9);
    let latency = |q: f64| figures.latency.quantile(q).map_or(0.0, |ns| ns / 1e6);
    let mut text = format!(
        "accepted  {} items, {per_second:.0}/s, {:.1} MB/s\nrejected  {}\nrefused   {}\nfailed    {}\n\
         latency   p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms\n",
        figures.accepted_items(),
        figures.wire_bytes as f64 / figures.seconds.max(1e-9) / 1e6,
        figures.rejected,
        figures.refused,
        figures.failed,
        latency(0.5),
        latency(0.9),
        latency(0.99),
        latency(0.999),
    );
    if figures.unsent > 0 {
        text += &format!(
            "unsent    {}: the receiver, or this sender, does not keep up with --rate\n",
            figures.unsent
        );
    }
    if let Some(failure) = &figures.first_failure {
        text += &format!("first failure: {}\n", crate::serve::text::plain(failure));
    }
    if let Some(server) = figures.server {
        text += &format!(
            "server    {:.2} s CPU, {:.0} items per CPU-second, {} MiB resident\n",
            server.cpu.as_secs_f64(),
            figures.items_per_cpu_second().unwrap_or_default(),
            server.resident_bytes >> 20
        );
    }
    text + &format!("sender    {:.2} s CPU\n", figures.sender_cpu.as_secs_f64())
}
