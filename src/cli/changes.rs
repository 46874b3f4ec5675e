//! `barograph changes`.

use super::connection::{ANSWER_LIMIT_BYTES, Channel, Daemon};
use super::failure::{Failure, finish};
use super::graph::service_path;
use super::moment::{History, read_time};
use super::output::{Answer, Output};
use super::table::Table;
use crate::api::v1;
use crate::api::v1::change_service_client::ChangeServiceClient;
use crate::model::Timestamp;
use crate::serve::text::time;
use crate::serve::{change_json, change_kind_name, to_proto};
use clap::{Args, Subcommand, ValueEnum};
use std::process::ExitCode;

/// Deploys, flags and configuration changes, told or seen: lists them, tells of one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph changes --since 6h
  barograph changes tell --service cart --kind deploy --version 1.5.0 'cart 1.4.2 → 1.5.0'")]
pub(super) struct Arguments {
    #[command(subcommand)]
    act: Option<Act>,
    /// Only what concerns this service.
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
    daemon: Daemon,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Tells the daemon of a change, so that what follows it can be blamed on it.
    Tell(Tell),
}

#[derive(Debug, Args)]
struct Tell {
    /// One line, such as 'cart 1.4.2 → 1.5.0'.
    title: String,
    /// The service it concerns; any, if not given.
    #[arg(
        long,
        value_name = "[ENVIRONMENT/][NAMESPACE/]NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
    /// What kind of change.
    #[arg(long, value_enum, value_name = "KIND", default_value = "deploy")]
    kind: Kind,
    /// The new version.
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    version: String,
    /// When it happened [default: now].
    #[arg(long, value_name = "TIME", value_parser = read_time)]
    at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Deploy,
    Flag,
    Configuration,
    Other,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { act, service, history, output, daemon } = arguments;
    finish(match act {
        None => list(service, history, &output, &daemon),
        Some(Act::Tell(change)) => tell(change, &output, &daemon),
    })
}

fn client(channel: Channel) -> ChangeServiceClient<Channel> {
    ChangeServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES)
}

fn list(service: String, history: History, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let changes = daemon.ask(async |channel| {
        let request = v1::ListChangesRequest { range: history.range(), service, limit: 0 };
        let answer = client(channel).list_changes(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().changes)
    })?;
    output.print(Answer {
        table: Box::new(|| table(&changes)),
        json: Box::new(|| changes.iter().map(change_json).collect()),
    })
}

fn tell(tell: Tell, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let Tell { title, service, kind, version, at } = tell;
    let kind = match kind {
        Kind::Deploy => v1::ChangeKind::Deploy,
        Kind::Flag => v1::ChangeKind::Flag,
        Kind::Configuration => v1::ChangeKind::Configuration,
        Kind::Other => v1::ChangeKind::Other,
    };
    let change = daemon.ask(async |channel| {
        let request =
            v1::TellChangeRequest { at: at.map(to_proto), service, kind: kind as i32, title, version };
        let answer = client(channel).tell_change(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner())
    })?;
    output.print(Answer {
        table: Box::new(|| table(std::slice::from_ref(&change))),
        json: Box::new(|| change_json(&change)),
    })
}

fn table(changes: &[v1::Change]) -> String {
    let mut table = Table::new(&["AT", "KIND", "SERVICE", "VERSION", "WHAT", "KNOWN FROM"]);
    for change in changes {
        table.row([
            time(change.at.as_ref()),
            change_kind_name(change.kind()).to_owned(),
            change.service.as_ref().map(service_path).unwrap_or_else(|| "(any)".to_owned()),
            change.version.clone().unwrap_or_default(),
            change.title.clone(),
            if change.inferred { "telemetry" } else { "told" }.to_owned(),
        ]);
    }
    table.show("No changes known in this range.")
}
