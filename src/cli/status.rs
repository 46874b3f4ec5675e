//! `barograph status`.

use super::connection::Daemon;
use super::failure::finish;
use super::output::{Answer, Output, Watch};
use super::table::Table;
use crate::api::v1;
use crate::api::v1::status_service_client::StatusServiceClient;
use crate::serve::text::{bytes, count, crowded, plain, so_many, span, three_digits, time, untimely};
use crate::serve::{from_proto, refused_files_text, status_json};
use clap::Args;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// The daemon itself: what it took, what it turned away, how far back it remembers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph status
  barograph status --watch
  barograph status -o json")]
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
        let answer = StatusServiceClient::new(channel).get_status(v1::GetStatusRequest {}).await;
        let status = answer.map_err(|status| daemon.failure(&status))?.into_inner();
        let again = status.clone();
        Ok(Answer { table: Box::new(move || table(&status)), json: Box::new(move || status_json(&again)) })
    }))
}

fn by_reason(counts: &BTreeMap<String, u64>, what: &str) -> String {
    let some: Vec<String> =
        counts.iter().filter(|&(_, &n)| n > 0).map(|(reason, &n)| format!("{} {reason}", count(n))).collect();
    if some.is_empty() { "none".to_owned() } else { format!("{} ({what})", some.join(", ")) }
}

fn ready(status: &v1::Status) -> String {
    let late = |of: &v1::LateStage| {
        format!("{} has not got on for {}", plain(&of.name), span((of.late_s * 1e9) as i64))
    };
    match (status.ready, status.late_stages.iter().map(late).collect::<Vec<_>>().join(", ")) {
        (true, _) => "yes".to_owned(),
        (false, late) if late.is_empty() => "no".to_owned(),
        (false, late) => format!("no: {late}, although work waits"),
    }
}

fn table(status: &v1::Status) -> String {
    let accepted = status.accepted.unwrap_or_default();
    let series = status.series.clone().unwrap_or_default();
    let journal = status.journal.unwrap_or_default();
    let pages = status.false_pages.unwrap_or_default();
    let depth = match (&journal.oldest, &journal.newest) {
        (Some(oldest), Some(newest)) => {
            let depth = from_proto(newest).since(from_proto(oldest));
            format!(
                "{}, the last {} (since {})",
                bytes(journal.bytes),
                span(i64::try_from(depth.as_nanos()).unwrap_or(i64::MAX)),
                time(Some(oldest))
            )
        }
        _ => format!("{}, nothing recorded yet", bytes(journal.bytes)),
    };
    let mut table = Table::new(&["BAROGRAPH", ""]);
    let above = [
        ("version", status.version.clone()),
        ("ready", ready(status)),
        ("up", span((status.uptime_s * 1e9) as i64)),
        (
            "accepted",
            format!(
                "{}, {}, {}",
                so_many(accepted.spans, "span"),
                so_many(accepted.log_records, "log record"),
                so_many(accepted.metric_points, "metric point")
            ),
        ),
        ("refused", by_reason(&status.refused, "requests; their senders try again")),
        ("rejected", by_reason(&status.rejected, "items")),
        ("late", by_reason(&status.late, "items, counted all the same")),
    ];
    let room = [(
        "series",
        format!(
            "{} of {}{}",
            count(series.live),
            count(series.limit),
            if series.overflowed > 0 {
                format!("; {} items went to overflow series", count(series.overflowed))
            } else {
                String::new()
            }
        ),
    )];
    let quarantined = journal.quarantined;
    let quarantine = (quarantined > 0).then(|| {
        format!("{} records at which starts had ended are left out: journal/quarantine/", count(quarantined))
    });
    // Whose doing it is stands right below.
    let untimely = status.untimely.iter().map(|of| ("", untimely(of)));
    let crowded = series.crowded.iter().map(|of| ("", crowded(of)));
    let below = [
        ("journal", depth),
        ("keepsakes", format!("{}, {}", so_many(journal.keepsakes, "trace"), bytes(journal.keepsake_bytes))),
        ("memory", status.memory_bytes.map_or_else(|| "-".to_owned(), bytes)),
        (
            "false pages",
            format!(
                "at most {} a week wanted, {} spent this week",
                three_digits(pages.per_week),
                three_digits(pages.spent_week)
            ),
        ),
    ];
    let quarantine = quarantine.map(|what| ("quarantine", what));
    for (name, value) in
        above.into_iter().chain(untimely).chain(room).chain(crowded).chain(below).chain(quarantine)
    {
        table.row([name.to_owned(), value]);
    }
    let refused = refused_files_text(&status.refused_slo_files);
    let refused: String = refused.lines().map(|line| format!("{}\n", plain(line))).collect();
    table.show("") + &refused
}
