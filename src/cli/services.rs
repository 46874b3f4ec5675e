//! `barograph services`.

use super::connection::{ANSWER_LIMIT_BYTES, Channel, Daemon};
use super::failure::finish;
use super::moment::History;
use super::output::{Answer, Output, Watch};
use super::table::Table;
use crate::api::v1;
use crate::api::v1::query_service_client::QueryServiceClient;
use crate::serve::service_json;
use crate::serve::text::{count, duration_or_none, percent};
use clap::Args;
use std::process::ExitCode;

/// What each service received, how much of it failed, how long it took.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph services
  barograph services --since 15m --watch
  barograph services --service production/shop/cart -o json")]
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
        let request = v1::ListServicesRequest { range: history.range(), service: service.clone() };
        let answer = query(channel).list_services(request).await;
        let services = answer.map_err(|status| daemon.failure(&status))?.into_inner().services;
        let rows = services.clone();
        Ok(Answer {
            table: Box::new(move || table(&services)),
            json: Box::new(move || rows.iter().map(service_json).collect()),
        })
    }))
}

/// The client of all questions about what services did.
pub(super) fn query(channel: Channel) -> QueryServiceClient<Channel> {
    QueryServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES)
}

fn table(services: &[v1::ServiceSummary]) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "ENVIRONMENT",
        "NAMESPACE",
        ">REQUESTS",
        ">ERRORS",
        ">P50",
        ">P90",
        ">P99",
        ">P99.9",
        ">SPANS",
        ">LOGS",
        ">POINTS",
    ]);
    for row in services {
        let service = row.service.clone().unwrap_or_default();
        table.row([
            service.name,
            service.environment,
            service.namespace,
            count(row.requests),
            if row.requests == 0 { "-".to_owned() } else { percent(row.error_ratio) },
            duration_or_none(row.p50_ns),
            duration_or_none(row.p90_ns),
            duration_or_none(row.p99_ns),
            duration_or_none(row.p999_ns),
            count(row.spans),
            count(row.log_records),
            count(row.metric_points),
        ]);
    }
    table.show(
        "No service sent anything in this range. Point an OTLP exporter at an address that the daemon printed for OTLP when \
         it was ready (ports 4317 and 4318, if `listen` says nothing else).",
    )
}
