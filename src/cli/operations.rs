//! `barograph operations`.

use super::connection::Daemon;
use super::failure::finish;
use super::moment::History;
use super::output::{Answer, Output, Watch};
use super::services::query;
use super::table::Table;
use crate::api::v1;
use crate::serve::text::{count, duration_or_none, percent};
use crate::serve::{kind_name, operation_json};
use clap::Args;
use std::process::ExitCode;

/// Requests, errors and latency of each operation.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph operations --service cart
  barograph operations --since 15m --until 5m -o json")]
pub(super) struct Arguments {
    /// Only this service.
    #[arg(
        long,
        value_name = "[ENVIRONMENT/][NAMESPACE/]NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
    #[command(flatten)]
    history: History,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { service, history, output, watch, daemon } = arguments;
    finish(output.ask(&daemon, &watch, async |channel| {
        let request = v1::ListOperationsRequest { range: history.range(), service: service.clone() };
        let answer = query(channel).list_operations(request).await;
        let operations = answer.map_err(|status| daemon.failure(&status))?.into_inner().operations;
        let rows = operations.clone();
        Ok(Answer {
            table: Box::new(move || table(&operations)),
            json: Box::new(move || rows.iter().map(operation_json).collect()),
        })
    }))
}

fn table(operations: &[v1::OperationSummary]) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "ENVIRONMENT",
        "NAMESPACE",
        "OPERATION",
        "KIND",
        ">REQUESTS",
        ">ERRORS",
        ">P50",
        ">P90",
        ">P99",
        ">P99.9",
    ]);
    for row in operations {
        let service = row.service.clone().unwrap_or_default();
        table.row([
            service.name,
            service.environment,
            service.namespace,
            row.operation.clone(),
            kind_name(row.kind()).to_owned(),
            count(row.requests),
            percent(row.error_ratio),
            duration_or_none(row.p50_ns),
            duration_or_none(row.p90_ns),
            duration_or_none(row.p99_ns),
            duration_or_none(row.p999_ns),
        ]);
    }
    table.show("No operations in this range.")
}
