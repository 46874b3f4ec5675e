//! `barograph incidents`.

use super::connection::Daemon;
use super::failure::finish;
use super::incident::client;
use super::moment::History;
use super::output::{Answer, Output, Watch};
use super::table::Table;
use crate::api::v1;
use crate::serve::incident_json;
use crate::serve::text::{span, time};
use clap::Args;
use std::process::ExitCode;

/// What happened, and how long it took to notice and to recover.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph incidents
  barograph incidents --since 30d -o json")]
pub(super) struct Arguments {
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
    let Arguments { history, output, watch, daemon } = arguments;
    finish(output.ask(&daemon, &watch, async |channel| {
        let request = v1::ListIncidentsRequest { range: history.range(), limit: 0 };
        let answer = client(channel).list_incidents(request).await;
        let incidents = answer.map_err(|status| daemon.failure(&status))?.into_inner().incidents;
        let again = incidents.clone();
        Ok(Answer {
            table: Box::new(move || table(&incidents)),
            json: Box::new(move || again.iter().map(incident_json).collect()),
        })
    }))
}

fn table(incidents: &[v1::Incident]) -> String {
    let mut table =
        Table::new(&["INCIDENT", "STATE", "ONSET", ">DETECTED AFTER", ">RECOVERED AFTER", "WHAT BROKE"]);
    for incident in incidents {
        table.row([
            incident.id.clone(),
            incident.state.clone(),
            time(incident.onset.as_ref()),
            incident.time_to_detect_ns.map(span).unwrap_or_default(),
            incident.time_to_recover_ns.map(span).unwrap_or_default(),
            incident.title.clone(),
        ]);
    }
    table.show("No incidents in this range.")
}
