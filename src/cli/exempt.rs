//! `barograph exempt`.

use super::connection::{ANSWER_LIMIT_BYTES, Channel, Daemon};
use super::failure::{Failure, finish};
use super::output::{Answer, Output};
use super::table::Table;
use crate::api::v1;
use crate::api::v1::exemption_service_client::ExemptionServiceClient;
use crate::serve::exemption_json;
use crate::serve::text::time;
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// What need not be told although it is broken: known issues, silences, recurring maintenance.
#[derive(Debug, Args)]
#[command(after_help = "\
It is still counted and shown with the reason, and told if it is still wrong when the exemption is over.

Examples:
  barograph exempt
  barograph exempt add 'service=billing daily=02:00-04:00 days=sat,sun because=nightly backup'
  barograph exempt add 'service=search symptom=latency until=recovery because=index is being rebuilt'
  barograph exempt known 9f86d081884c7d65 --because 'TICKET-17'
  barograph exempt end 1b4f0e9851971998")]
pub(super) struct Arguments {
    /// Who says so.
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
    /// Lists what holds now.
    List(List),
    /// Adds a silence or a maintenance window.
    Add(Add),
    /// Makes an anomaly a known issue: the same, no worse by half and in the same version, is not told.
    Known(Known),
    /// Ends an exemption now: what it covers and is still wrong is told.
    End(End),
}

#[derive(Debug, Args)]
struct List {
    /// Also those that are over.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct Add {
    /// Such as 'service=cart symptom=errors until=2026-12-01T00:00:00Z because=migration'.
    line: String,
}

#[derive(Debug, Args)]
struct Known {
    /// Id of the anomaly.
    anomaly: String,
    /// Why it need not be told, such as the number of its ticket.
    #[arg(long, value_name = "TEXT")]
    because: String,
}

#[derive(Debug, Args)]
struct End {
    /// Id of the exemption.
    id: String,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { author, act, output, daemon } = arguments;
    let author = Some(v1::Author { name: author });
    finish(match act {
        None => list(false, &output, &daemon),
        Some(Act::List(List { all })) => list(all, &output, &daemon),
        Some(Act::Add(Add { line })) => {
            add(v1::AddExemptionRequest { line, anomaly: String::new(), author }, &output, &daemon)
        }
        Some(Act::Known(Known { anomaly, because })) => {
            let line = format!("because={because}");
            add(v1::AddExemptionRequest { line, anomaly, author }, &output, &daemon)
        }
        Some(Act::End(End { id })) => end(v1::EndExemptionRequest { id, author }, &output, &daemon),
    })
}

fn client(channel: Channel) -> ExemptionServiceClient<Channel> {
    ExemptionServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES)
}

fn list(all: bool, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let exemptions = daemon.ask(async |channel| {
        let answer = client(channel).list_exemptions(v1::ListExemptionsRequest { all }).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().exemptions)
    })?;
    output.print(Answer {
        table: Box::new(|| table(&exemptions)),
        json: Box::new(|| exemptions.iter().map(exemption_json).collect()),
    })
}

fn add(request: v1::AddExemptionRequest, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let told = daemon.ask(async |channel| {
        let answer = client(channel).add_exemption(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner())
    })?;
    one(&told, output)
}

fn end(request: v1::EndExemptionRequest, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let told = daemon.ask(async |channel| {
        let answer = client(channel).end_exemption(request).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner())
    })?;
    one(&told, output)
}

fn one(told: &v1::Exemption, output: &Output) -> Result<(), Failure> {
    output.print(Answer {
        table: Box::new(|| table(std::slice::from_ref(told))),
        json: Box::new(|| exemption_json(told)),
    })
}

fn table(exemptions: &[v1::Exemption]) -> String {
    let mut table = Table::new(&["ID", "SINCE", "BY", "WHAT", "ENDED", "COVERED"]);
    for told in exemptions {
        let ended = told.ended_at.as_ref().map(|at| format!("{} by {}", time(Some(at)), told.ended_by));
        table.row([
            told.id.clone(),
            time(told.told_at.as_ref()),
            told.author.clone(),
            told.line.clone(),
            ended.unwrap_or_default(),
            told.anomalies.len().to_string(),
        ]);
    }
    table.show("Nothing is exempt, beside what the configuration says.")
}
