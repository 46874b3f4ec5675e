//! `barograph incident`.

use super::connection::{ANSWER_LIMIT_BYTES, Channel, Daemon};
use super::failure::{Failure, finish};
use super::graph::service_path;
use super::output::{Answer, Output};
use super::table::Table;
use crate::api::v1;
use crate::api::v1::incident_service_client::IncidentServiceClient;
use crate::serve::text::{plain, span, time};
use crate::serve::{budget_spent_text, incident_json, users_text};
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// One incident with its timeline: shows it, acknowledges it, adds a note, closes it.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  barograph incident 3f1c9a0d5e7b2468
  barograph incident 3f1c9a0d5e7b2468 acknowledge
  barograph incident 3f1c9a0d5e7b2468 note 'rolled back payment to 1.4.2'
  barograph incident 3f1c9a0d5e7b2468 resolve 'index restored'",
    subcommand_negates_reqs = false
)]
pub(super) struct Arguments {
    /// Id of the incident.
    #[arg(value_name = "INCIDENT")]
    id: String,
    /// Who acts, as the timeline shows it.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "operator"
    )]
    author: String,
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Somebody takes care of it.
    #[command(visible_alias = "ack")]
    Acknowledge,
    /// Adds a line to the timeline.
    Note { text: String },
    /// Closes the record.
    Resolve {
        #[arg(default_value = "", hide_default_value = true)]
        text: String,
    },
}

/// The client of everything about incidents.
pub(super) fn client(channel: Channel) -> IncidentServiceClient<Channel> {
    IncidentServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES)
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { id, author, act, output, daemon } = arguments;
    finish(show(&id, author, act, &output, &daemon))
}

fn show(id: &str, author: String, act: Option<Act>, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let (id, author) = (id.to_owned(), Some(v1::Author { name: author }));
    let (incident, first) = daemon.ask(async |channel| {
        let mut client = client(channel.clone());
        let answer = match act {
            None => client.get_incident(v1::GetIncidentRequest { id }).await,
            Some(Act::Acknowledge) => {
                client.acknowledge_incident(v1::AcknowledgeIncidentRequest { id, author }).await
            }
            Some(Act::Note { text }) => client.add_note(v1::AddNoteRequest { id, author, text }).await,
            Some(Act::Resolve { text }) => {
                client.resolve_incident(v1::ResolveIncidentRequest { id, author, text }).await
            }
        };
        let incident = answer.map_err(|status| daemon.failure(&status))?.into_inner();
        // An anomaly that is very old may be held no more.
        let first = match incident.anomalies.first() {
            Some(first) => super::anomalies::get(channel, first, daemon).await.ok(),
            None => None,
        };
        Ok((incident, first))
    })?;
    output.print(Answer {
        table: Box::new(|| whole(&incident, first.as_ref())),
        json: Box::new(|| serde_json::json!([incident_json(&incident)])),
    })
}

fn whole(incident: &v1::Incident, first: Option<&(v1::Anomaly, Vec<v1::Curve>)>) -> String {
    let mut facts = Table::new(&["", ""]);
    for (name, value) in [
        ("id", incident.id.clone()),
        ("state", incident.state.clone()),
        ("service", incident.service.as_ref().map(service_path).unwrap_or_default()),
        ("anomalies", incident.anomalies.join(" ")),
        ("onset", time(incident.onset.as_ref())),
        ("detected after", incident.time_to_detect_ns.map(span).unwrap_or_default()),
        ("recovered after", incident.time_to_recover_ns.map(span).unwrap_or_default()),
        ("budget spent", plain(&budget_spent_text(incident))),
        ("users affected", users_text(incident.users_affected, incident.users)),
    ] {
        if !value.is_empty() {
            facts.row([name.to_owned(), value]);
        }
    }
    let mut timeline = Table::new(&["AT", "WHO", "WHAT"]);
    for entry in &incident.timeline {
        timeline.row([time(entry.at.as_ref()), entry.who.clone(), entry.what.clone()]);
    }
    let told = first.map(|(anomaly, curves)| super::told::told(anomaly, curves)).unwrap_or_default();
    format!(
        "{}\n\n{}\n{}{told}",
        plain(&incident.title),
        facts.show("").trim_start_matches('\n'),
        timeline.show("Nothing in the timeline.")
    )
}
