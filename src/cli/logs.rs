//! `barograph logs`.

use super::connection::Daemon;
use super::failure::finish;
use super::graph::service_path;
use super::output::{Answer, Output, Watch};
use super::traces::{Search, client, searched};
use crate::api::v1;
use crate::serve::text::{plain, time};
use crate::serve::{log_json, searched_json, severity_text};
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Log records that the journal still holds, the newest last.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph logs --service cart --where error
  barograph logs --since 15m --where 'service=cart,severity>=WARN,body~timeout'
  barograph logs --where trace=4bf92f3577b34da6a3ce929d0e0e4736 -o json

Conditions: `error`, or KEY and VALUE with =, !=, ~ (contains), >=, <=, > or < between them; all must hold. KEY is
service, severity, body, trace, instance, version, host or an attribute.")]
pub(super) struct Arguments {
    #[command(flatten)]
    search: Search,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { search, output, watch, daemon } = &arguments;
    finish(output.ask(daemon, watch, async |channel| {
        let request = v1::SearchLogsRequest {
            range: search.history.range(),
            service: search.service.clone(),
            r#where: search.conditions.join(","),
            limit: search.limit.unwrap_or_default(),
        };
        let answer = client(channel).search_logs(request).await;
        let answer = answer.map_err(|status| daemon.failure(&status))?.into_inner();
        let again = answer.clone();
        Ok(Answer {
            table: Box::new(move || {
                let lines: String = answer.log_records.iter().rev().map(|log| line(log) + "\n").collect();
                let lines = if lines.is_empty() { "No such log record.\n".to_owned() } else { lines };
                format!("{lines}\n{}", searched(answer.searched.as_ref()))
            }),
            json: Box::new(move || {
                let logs: Vec<Value> = again.log_records.iter().map(log_json).collect();
                json!({ "log_records": logs, "searched": searched_json(again.searched.as_ref()) })
            }),
        })
    }))
}

/// `2024-05-01 12:00:05Z  ERROR  cart  no such item`.
pub(super) fn line(log: &v1::LogRecord) -> String {
    format!(
        "{}  {:<5}  {}  {}",
        time(log.time.as_ref()),
        severity_text(log.severity),
        plain(&log.service.as_ref().map(service_path).unwrap_or_default()),
        plain(&log.body)
    )
}
