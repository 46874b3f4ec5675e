//! `barograph evidence`.

use super::connection::{ANSWER_LIMIT_BYTES, Channel, Daemon};
use super::failure::{Failure, finish};
use super::fetch::{into, receive};
use super::graph::service_path;
use super::output::{Answer, Output};
use super::table::Table;
use crate::api::v1;
use crate::api::v1::evidence_service_client::EvidenceServiceClient;
use crate::serve::evidence_json;
use crate::serve::text::{bytes, count, percent, plain, so_many, time};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The traces, logs and charts that show what broke: lists and fetches bundles.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph evidence
  barograph evidence 3f1c9a0d5e7b2468
  barograph evidence 3f1c9a0d5e7b2468 --out ./evidence
  barograph evidence 3f1c9a0d5e7b2468 --out ./evidence.tar.zst")]
pub(super) struct Arguments {
    /// Id of the anomaly; all bundles are listed if it is not given.
    #[arg(value_name = "ANOMALY")]
    anomaly: Option<String>,
    /// Writes the bundle into this directory, which is made if need be, or into this file if its name
    /// ends with .tar.zst, and prints its path.
    #[arg(long, value_name = "PATH", requires = "anomaly")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    daemon: Daemon,
}

fn client(channel: Channel) -> EvidenceServiceClient<Channel> {
    EvidenceServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES)
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { anomaly, out, output, daemon } = &arguments;
    finish(match (anomaly, out) {
        (Some(anomaly), Some(out)) => fetch(anomaly, out, output, daemon),
        (Some(anomaly), None) => show(anomaly, output, daemon),
        (None, _) => list(output, daemon),
    })
}

fn list(output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let found = daemon.ask(async |channel| {
        let answer = client(channel).list_evidence(v1::ListEvidenceRequest::default()).await;
        Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().evidence)
    })?;
    output.print(Answer {
        table: Box::new(|| {
            let mut table = Table::new(&["ANOMALY", "AT", "COMPLETE", ">TRACES", ">LOG RECORDS", "CAUSE"]);
            for evidence in &found {
                let cause = evidence.causes.first().map(|cause| cause.reason.clone()).unwrap_or_default();
                table.row([
                    evidence.anomaly.clone(),
                    time(evidence.at.as_ref()),
                    if evidence.complete { "yes" } else { "not yet" }.to_owned(),
                    count(evidence.traces),
                    count(evidence.log_records),
                    cause,
                ]);
            }
            table.show("No evidence: nothing broke, as far as can be seen.")
        }),
        json: Box::new(|| found.iter().map(evidence_json).collect()),
    })
}

fn show(anomaly: &str, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let evidence = daemon.ask(async |channel| get(channel, anomaly, daemon).await)?;
    output.print(Answer {
        table: Box::new(|| {
            use std::fmt::Write as _;
            let mut out = format!(
                "{}, {} of them with an error, and {}{}.\n",
                so_many(evidence.traces, "trace"),
                count(evidence.failed_traces),
                so_many(evidence.log_records, "log record"),
                if evidence.complete { "" } else { "; late spans are still being added" }
            );
            for cause in &evidence.causes {
                let service = cause.service.as_ref().map(service_path).unwrap_or_default();
                let _ = writeln!(
                    out,
                    "  {}. {} ({}, {}): {}",
                    cause.rank,
                    plain(&service),
                    plain(&cause.kind),
                    percent(cause.score),
                    plain(&cause.reason)
                );
            }
            let mut table = Table::new(&["FILE", ">SIZE"]);
            for file in &evidence.files {
                table.row([file.path.clone(), bytes(file.size_bytes)]);
            }
            let _ = write!(out, "\n{}", table.show("The bundle has no files."));
            out
        }),
        json: Box::new(|| evidence_json(&evidence)),
    })
}

async fn get(channel: Channel, anomaly: &str, daemon: &Daemon) -> Result<v1::Evidence, Failure> {
    let request = v1::GetEvidenceRequest { anomaly: anomaly.to_owned() };
    Ok(client(channel).get_evidence(request).await.map_err(|status| daemon.failure(&status))?.into_inner())
}

fn fetch(anomaly: &str, out: &Path, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
    let evidence = into(out, |directory| {
        daemon.ask(async |channel| {
            let evidence = get(channel.clone(), anomaly, daemon).await?;
            download(channel, anomaly, directory, daemon).await?;
            Ok(evidence)
        })
    })?;
    let path = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    output.print(Answer {
        table: Box::new(|| format!("{}\n", plain(&path.display().to_string()))),
        json: Box::new(|| {
            let mut object = evidence_json(&evidence);
            if let Some(object) = object.as_object_mut() {
                object.insert("path".to_owned(), json!(path));
            }
            object
        }),
    })
}

async fn download(channel: Channel, anomaly: &str, out: &Path, daemon: &Daemon) -> Result<(), Failure> {
    let request = v1::DownloadEvidenceRequest { anomaly: anomaly.to_owned() };
    let answer = client(channel).download_evidence(request).await;
    receive(answer.map_err(|status| daemon.failure(&status))?.into_inner(), out, daemon).await
}
