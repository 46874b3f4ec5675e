//! `barograph latency`.

use super::connection::Daemon;
use super::failure::finish;
use super::moment::{History, read_duration_ns};
use super::output::{Answer, Output, Watch};
use super::services::query;
use super::table::Table;
use crate::api::v1;
use crate::serve::latency_json;
use crate::serve::text::{count, duration, time};
use clap::Args;
use std::process::ExitCode;

/// Latency quantiles of a service's requests or of one operation, over any range.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph latency --service cart
  barograph latency --service cart --operation 'GET /cart' --quantile 0.5 --quantile 0.999
  barograph latency --service cart --since 1h --step 1m -o json")]
pub(super) struct Arguments {
    /// The service.
    #[arg(long, value_name = "[ENVIRONMENT/][NAMESPACE/]NAME")]
    service: String,
    /// Spans of this name, of any kind, rather than the service's requests.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    operation: String,
    /// A quantile between 0 and 1; may be repeated [default: 0.5 0.9 0.95 0.99 0.999].
    #[arg(long = "quantile", value_name = "Q", value_parser = read_quantile)]
    quantiles: Vec<f64>,
    /// A row for each step of this length, in whole windows of 10 s; one row for the whole range if
    /// not given.
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

fn read_quantile(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(quantile) if (0.0..=1.0).contains(&quantile) => Ok(quantile),
        _ => Err(format!("{text:?} is not a number between 0 and 1, such as 0.99")),
    }
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { service, operation, quantiles, step, history, output, watch, daemon } = arguments;
    finish(output.ask(&daemon, &watch, async |channel| {
        let request = v1::GetLatencyRequest {
            range: history.range(),
            service: service.clone(),
            operation: operation.clone(),
            quantiles: quantiles.clone(),
            step_ns: step.unwrap_or_default(),
        };
        let answer = query(channel).get_latency(request).await;
        let answer = answer.map_err(|status| daemon.failure(&status))?.into_inner();
        let again = answer.clone();
        Ok(Answer {
            table: Box::new(move || table(&answer)),
            json: Box::new(move || {
                again.rows.iter().map(|row| latency_json(again.service.as_ref(), row)).collect()
            }),
        })
    }))
}

fn table(answer: &v1::GetLatencyResponse) -> String {
    let mut table = Table::new(&["START", "END", ">COUNT", "QUANTILE", ">VALUE"]);
    for row in &answer.rows {
        let mut start = [time(row.start.as_ref()), time(row.end.as_ref()), count(row.count)];
        if row.quantiles.is_empty() {
            table.row(start.iter().map(String::as_str).chain(["-", "-"]));
        }
        for at in &row.quantiles {
            let value = [at.quantile.to_string(), duration(at.value_ns)];
            table.row(start.iter().chain(&value));
            start = Default::default();
        }
    }
    table.show("No spans in this range.")
}
