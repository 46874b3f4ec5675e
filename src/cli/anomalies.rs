//! `barograph anomalies`.

use super::connection::{ANSWER_LIMIT_BYTES, Channel, Daemon};
use super::failure::{Failure, finish};
use super::graph::service_path;
use super::moment::History;
use super::output::{Answer, Format, Output, Watch, write_out};
use super::table::Table;
use crate::api::v1;
use crate::api::v1::anomaly_service_client::AnomalyServiceClient;
use crate::serve::text::{percent, plain, time};
use crate::serve::{anomaly_json, anomaly_state_name, severity_name};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;
use tonic::Code;

/// What broke, when, and why; one for each fault.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph anomalies
  barograph anomalies 3f1c9a0d5e7b2468 -o json
  barograph anomalies --state firing --service cart
  barograph anomalies --follow -o json
  barograph anomalies --follow --resume 4711 -o json")]
pub(super) struct Arguments {
    /// Only the anomaly of this id, in full.
    #[arg(value_name = "ANOMALY", conflicts_with_all = ["follow", "service", "states", "since", "until"])]
    id: Option<String>,
    /// Print each change as it happens: first the state of those that are not over, then what changes.
    #[arg(long, conflicts_with = "watch")]
    follow: bool,
    /// With --follow: go on after this token, the `resume` of the last line seen; 0 begins with the
    /// oldest that is kept.
    #[arg(long, value_name = "TOKEN", requires = "follow")]
    resume: Option<u64>,
    /// Only those in which this service takes part.
    #[arg(
        long,
        value_name = "[ENVIRONMENT/][NAMESPACE/]NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
    /// Only those in this state; may be repeated.
    #[arg(long = "state", value_enum, value_name = "STATE")]
    states: Vec<State>,
    #[command(flatten)]
    history: History,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Pending,
    Firing,
    Resolved,
    Merged,
    Suppressed,
}

impl State {
    fn message(self) -> v1::AnomalyState {
        match self {
            Self::Pending => v1::AnomalyState::Pending,
            Self::Firing => v1::AnomalyState::Firing,
            Self::Resolved => v1::AnomalyState::Resolved,
            Self::Merged => v1::AnomalyState::Merged,
            Self::Suppressed => v1::AnomalyState::Suppressed,
        }
    }
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    finish(if arguments.follow { follow(&arguments) } else { list(&arguments) })
}

fn client(channel: Channel) -> AnomalyServiceClient<Channel> {
    AnomalyServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES)
}

/// An anomaly, and how its signals went.
pub(super) async fn get(
    channel: Channel,
    id: &str,
    daemon: &Daemon,
) -> Result<(v1::Anomaly, Vec<v1::Curve>), Failure> {
    let mut client = client(channel);
    let anomaly = client.get_anomaly(v1::GetAnomalyRequest { id: id.to_owned() }).await;
    let anomaly = anomaly.map_err(|status| daemon.failure(&status))?.into_inner();
    let curves = client.get_curves(v1::GetCurvesRequest { id: id.to_owned() }).await;
    // Without curves rather than not at all.
    let curves = curves.map(|answer| answer.into_inner().curves).unwrap_or_default();
    Ok((anomaly, curves))
}

fn list(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { id, service, states, history, output, watch, daemon, .. } = arguments;
    output.ask(daemon, watch, async |channel| {
        if let Some(id) = id {
            let (anomaly, curves) = get(channel, id, daemon).await?;
            let again = anomaly.clone();
            return Ok(Answer {
                table: Box::new(move || whole(&anomaly, &curves)),
                json: Box::new(move || anomaly_json(&again)),
            });
        }
        let request = v1::ListAnomaliesRequest {
            range: history.range(),
            service: service.clone(),
            states: states.iter().map(|state| state.message() as i32).collect(),
            limit: 0,
        };
        let answer = client(channel).list_anomalies(request).await;
        let anomalies = answer.map_err(|status| daemon.failure(&status))?.into_inner().anomalies;
        let again = anomalies.clone();
        Ok(Answer {
            table: Box::new(move || table(&anomalies)),
            json: Box::new(move || again.iter().map(anomaly_json).collect()),
        })
    })
}

/// Follows until interrupted. When the daemon cuts us off or goes away, goes on where it was.
fn follow(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { resume, output, daemon, .. } = arguments;
    let mut resume = *resume;
    super::connection::runtime()?.block_on(async {
        let mut connected = false;
        loop {
            let ended = follow_once(daemon, output.output, &mut resume, &mut connected).await;
            match ended {
                // Lost after it had worked: the daemon restarts, or we were too slow.
                Err(Lost::Stream(code))
                    if connected
                        && matches!(
                            code,
                            Code::Unavailable | Code::ResourceExhausted | Code::Cancelled | Code::Unknown
                        ) => {}
                Err(Lost::Connection(_)) if connected => {}
                Ok(()) => {}
                Err(Lost::Connection(failure)) => return Err(failure),
                Err(Lost::Stream(code)) => {
                    return Err(Failure::failed(format!("{} ended the stream: {code:?}", daemon.url())));
                }
                Err(Lost::Answer(failure)) => return Err(failure),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
}

/// Why following ended.
enum Lost {
    Connection(Failure),
    Stream(Code),
    Answer(Failure),
}

async fn follow_once(
    daemon: &Daemon,
    format: Format,
    resume: &mut Option<u64>,
    connected: &mut bool,
) -> Result<(), Lost> {
    let channel = daemon.connect().await.map_err(Lost::Connection)?;
    let answer = client(channel).follow_anomalies(v1::FollowAnomaliesRequest { resume: *resume }).await;
    let mut changes = answer.map_err(|status| Lost::Answer(daemon.failure(&status)))?.into_inner();
    *connected = true;
    while let Some(change) = changes.message().await.map_err(|status| Lost::Stream(status.code()))? {
        *resume = Some(change.resume);
        let anomaly = change.anomaly.unwrap_or_default();
        let text = match format {
            Format::Table => format!("{}\n", line(&anomaly)),
            Format::Json => {
                let mut object = anomaly_json(&anomaly);
                if let Some(object) = object.as_object_mut() {
                    object.insert("resume".to_owned(), json!(change.resume));
                }
                format!("{object}\n")
            }
        };
        write_out(&text).map_err(Lost::Answer)?;
    }
    Ok(())
}

/// A change as one line.
fn line(anomaly: &v1::Anomaly) -> String {
    let at = anomaly.resolved_at.as_ref().or(anomaly.fired_at.as_ref()).or(anomaly.onset.as_ref());
    let cause =
        anomaly.causes.first().map(|cause| format!("; cause: {}", plain(&cause.reason))).unwrap_or_default();
    format!(
        "{}  {}  {:<9} {:<6} {}{cause}",
        time(at),
        plain(&anomaly.id),
        anomaly_state_name(anomaly.state()),
        severity_name(anomaly.severity()),
        plain(&anomaly.title),
    )
}

fn table(anomalies: &[v1::Anomaly]) -> String {
    let mut table = Table::new(&[
        "ANOMALY",
        "STATE",
        "SEVERITY",
        "ONSET",
        "FIRED",
        "RESOLVED",
        "SERVICE",
        "WHAT BROKE",
        "CAUSE",
    ]);
    for anomaly in anomalies {
        table.row([
            anomaly.id.clone(),
            anomaly_state_name(anomaly.state()).to_owned(),
            severity_name(anomaly.severity()).to_owned(),
            time(anomaly.onset.as_ref()),
            time(anomaly.fired_at.as_ref()),
            time(anomaly.resolved_at.as_ref()),
            anomaly.service.as_ref().map(service_path).unwrap_or_default(),
            anomaly.title.clone(),
            anomaly.causes.first().map(suspect).unwrap_or_default(),
        ]);
    }
    table.show("No anomalies in this range. All is well, as far as can be seen.")
}

/// `payment (database, 87.0 %)`.
fn suspect(cause: &v1::Cause) -> String {
    let service = cause.service.as_ref().map(service_path).unwrap_or_default();
    format!("{service} ({}, {})", cause.kind, percent(cause.score))
}

/// The objectives whose budgets burn with it, and how to look at each; those that ceased are said to.
fn burning(signals: &[v1::AnomalySignal]) -> String {
    let mut rows: Vec<(&str, bool)> = Vec::new();
    for signal in signals.iter().filter(|signal| signal.symptom == "budget_burn") {
        // Several rules of an objective may burn, each a signal.
        match rows.iter_mut().find(|(name, _)| *name == signal.metric) {
            Some((_, over)) => *over &= signal.recovered,
            None => rows.push((&signal.metric, signal.recovered)),
        }
    }
    let told = |(name, over): &(&str, bool)| {
        format!("{name}{} (barograph slo {name})", if *over { ", no more" } else { "" })
    };
    rows.iter().map(told).collect::<Vec<_>>().join("; ")
}

/// Everything of one anomaly.
fn whole(anomaly: &v1::Anomaly, curves: &[v1::Curve]) -> String {
    use std::fmt::Write as _;
    let mut out = format!("{}\n\n", plain(&anomaly.title));
    let mut facts = Table::new(&["", ""]);
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() && value != "-" {
            facts.row([name.to_owned(), value]);
        }
    };
    fact("id", anomaly.id.clone());
    fact("state", anomaly_state_name(anomaly.state()).to_owned());
    fact("severity", severity_name(anomaly.severity()).to_owned());
    fact("service", anomaly.service.as_ref().map(service_path).unwrap_or_default());
    fact("objectives that burn", burning(&anomaly.signals));
    fact("onset", time(anomaly.onset.as_ref()));
    fact("detected", time(anomaly.detected_at.as_ref()));
    fact("fired", time(anomaly.fired_at.as_ref()));
    fact("resolved", time(anomaly.resolved_at.as_ref()));
    fact("merged into", anomaly.merged_into.clone().unwrap_or_default());
    fact("suppressed by", anomaly.suppressed_by.clone().unwrap_or_default());
    fact("p-value", format!("{:.1e}", anomaly.p_value));
    fact(
        "evidence",
        anomaly
            .evidence
            .as_ref()
            .map(|_| format!("barograph evidence {} --out DIR", anomaly.id))
            .unwrap_or_default(),
    );
    out.push_str(facts.show("").trim_start_matches('\n'));
    if !anomaly.causes.is_empty() {
        let _ = writeln!(out, "\nCauses, most probable first:");
        for cause in &anomaly.causes {
            let _ = writeln!(out, "  {}. {}: {}", cause.rank, plain(&suspect(cause)), plain(&cause.reason));
            for reason in &cause.reasons {
                let _ = writeln!(out, "     - {}", plain(reason));
            }
        }
    }
    out.push_str(&super::told::told(anomaly, curves));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_that_burn_with_an_anomaly_are_named_once() {
        let signal = |symptom: &str, metric: &str, recovered| v1::AnomalySignal {
            symptom: symptom.into(),
            metric: metric.into(),
            recovered,
            ..v1::AnomalySignal::default()
        };
        assert_eq!(burning(&[signal("errors", "GET /", false)]), "");
        let signals = [
            signal("budget_burn", "shop-ok", true),
            signal("errors", "GET /", false),
            signal("budget_burn", "shop-ok", false),
            signal("budget_burn", "shop-fast", true),
        ];
        assert_eq!(
            burning(&signals),
            "shop-ok (barograph slo shop-ok); shop-fast, no more (barograph slo shop-fast)"
        );
    }
}
