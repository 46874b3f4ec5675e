//! `barograph checks`.

use super::connection::Daemon;
use super::failure::finish;
use super::output::{Answer, Output, Watch};
use super::services::query;
use super::table::Table;
use crate::api::v1;
use crate::serve::check_json;
use crate::serve::text::{count, duration_or_none, time};
use clap::Args;
use std::process::ExitCode;

/// Synthetic checks and how they stand.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph checks
  barograph checks --watch
  barograph checks -o json")]
pub(super) struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { output, watch, daemon } = arguments;
    finish(output.ask(&daemon, &watch, async |channel| {
        let answer = query(channel).list_checks(v1::ListChecksRequest {}).await;
        let checks = answer.map_err(|status| daemon.failure(&status))?.into_inner().checks;
        let again = checks.clone();
        Ok(Answer {
            table: Box::new(move || table(&checks)),
            json: Box::new(move || again.iter().map(check_json).collect()),
        })
    }))
}

fn table(checks: &[v1::Check]) -> String {
    let mut table = Table::new(&["CHECK", "URL", "STATE", "SINCE", ">RUNS", ">FAILED", ">TOOK", "ERROR"]);
    for check in checks {
        let state = match (&check.last_at, check.error.is_empty()) {
            (None, _) => "unknown",
            (Some(_), true) => "ok",
            (Some(_), false) => "failing",
        };
        table.row([
            check.name.clone(),
            check.url.clone(),
            state.to_owned(),
            time(check.since.as_ref()),
            count(check.runs),
            count(check.failed_runs),
            duration_or_none(check.last_at.is_some().then_some(check.last_took_ns)),
            check.error.clone(),
        ]);
    }
    table.show("No checks are configured: see probe.checks.")
}
