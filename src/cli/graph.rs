//! `barograph graph`.

use super::connection::Daemon;
use super::failure::finish;
use super::moment::History;
use super::output::{Answer, Output, Watch};
use super::services::query;
use super::table::Table;
use crate::api::v1;
use crate::serve::text::{count, duration_or_none, percent};
use crate::serve::{edge_json, kind_name};
use clap::Args;
use std::process::ExitCode;

/// Who calls whom, and how that goes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph graph
  barograph graph --service cart --since 15m -o json")]
pub(super) struct Arguments {
    /// Only edges from or to this service.
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
        let request = v1::GetGraphRequest { range: history.range(), service: service.clone() };
        let answer = query(channel).get_graph(request).await;
        let edges = answer.map_err(|status| daemon.failure(&status))?.into_inner().edges;
        let again = edges.clone();
        Ok(Answer {
            table: Box::new(move || table(&edges)),
            json: Box::new(move || again.iter().map(edge_json).collect()),
        })
    }))
}

/// `ENVIRONMENT/NAMESPACE/NAME` without the parts that are unset.
pub(super) fn service_path(service: &v1::Service) -> String {
    [&service.environment, &service.namespace, &service.name]
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("/")
}

fn table(edges: &[v1::Edge]) -> String {
    let mut table =
        Table::new(&["CLIENT", "SERVER", "SYSTEM", "KIND", ">REQUESTS", ">ERRORS", ">P50", ">P99"]);
    for edge in edges {
        let (server, system) = match &edge.server {
            Some(v1::edge::Server::Service(service)) => (service_path(service), String::new()),
            Some(v1::edge::Server::Peer(peer)) => (peer.address.clone(), peer.system.clone()),
            None => Default::default(),
        };
        let ratio = if edge.requests == 0 { 0.0 } else { edge.errors as f64 / edge.requests as f64 };
        table.row([
            edge.client.as_ref().map(service_path).unwrap_or_default(),
            server,
            system,
            kind_name(edge.kind()).to_owned(),
            count(edge.requests),
            percent(ratio),
            duration_or_none(edge.p50_ns),
            duration_or_none(edge.p99_ns),
        ]);
    }
    table.show("No calls seen in this range.")
}
