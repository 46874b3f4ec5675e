//! `barograph slo adjust`, `adjustments`, `undo`.

use crate::api::v1;
use crate::api::v1::adjustment_service_client::AdjustmentServiceClient;
use crate::cli::connection::{ANSWER_LIMIT_BYTES, Channel, Daemon};
use crate::cli::failure::Failure;
use crate::cli::moment::{Moment, read_moment};
use crate::cli::output::{Answer, Output};
use crate::cli::table::Table;
use crate::model::{Clock as _, SystemClock};
use crate::serve::text::{plain, time};
use crate::serve::{adjustment_json, to_proto};
use clap::Args;
use std::io::Write as _;
use std::time::Duration;

/// Takes a time out of error budgets: a maintenance, a false period, a known incident.
#[derive(Debug, Args)]
#[command(after_help = "\
Burning that the time explains ends with it. A composite's parts are meant by its name.

Examples:
  barograph slo adjust charge-fast --from 2026-11-25T08:00:00Z --until 2026-11-25T09:30:00Z --because 'moved the database'
  barograph slo adjust --service payment --from 2h --until 30m --because 'the load test'")]
pub(super) struct Adjust {
    /// The objective; all of the service, if not given.
    #[arg(
        value_name = "NAME",
        default_value = "",
        hide_default_value = true,
        required_unless_present = "service"
    )]
    name: String,
    /// Only this service's.
    #[arg(
        long,
        value_name = "[ENVIRONMENT/][NAMESPACE/]NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
    /// From when: an age such as 2h or a time such as 2026-11-25T08:00:00Z.
    #[arg(long, value_name = "DURATION|TIME", value_parser = read_moment)]
    from: Moment,
    /// Until when, likewise; it may lie ahead [default: now].
    #[arg(long, value_name = "DURATION|TIME", value_parser = read_moment)]
    until: Option<Moment>,
    /// Why it does not count.
    #[arg(long, value_name = "TEXT")]
    because: String,
    /// The incident that it belongs to.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    incident: String,
    #[command(flatten)]
    author: Author,
}

/// Lists the times that were taken out of error budgets, also those that count again.
#[derive(Debug, Args)]
pub(super) struct Adjustments {
    /// Only those of this objective.
    #[arg(value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
}

/// Lets a time count again that was taken out. Of one that was undone already, who undid it stays on record.
#[derive(Debug, Args)]
pub(super) struct Undo {
    /// Id of the adjustment.
    id: String,
    /// Why it counts again.
    #[arg(long, value_name = "TEXT")]
    because: String,
    #[command(flatten)]
    author: Author,
}

#[derive(Debug, Args)]
struct Author {
    /// Who says so.
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "operator")]
    author: String,
}

impl Author {
    fn told(self) -> Option<v1::Author> {
        Some(v1::Author { name: self.author })
    }
}

fn client(channel: Channel) -> AdjustmentServiceClient<Channel> {
    AdjustmentServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT_BYTES)
}

fn at(moment: Moment) -> prost_types::Timestamp {
    to_proto(match moment {
        Moment::At(at) => at,
        Moment::AgoNs(ns) => {
            SystemClock.now().saturating_sub(Duration::from_nanos(u64::try_from(ns).unwrap_or_default()))
        }
    })
}

impl Adjust {
    pub fn run(self, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
        let request = v1::AddAdjustmentRequest {
            slo: self.name,
            service: self.service,
            from: Some(at(self.from)),
            until: Some(at(self.until.unwrap_or(Moment::AgoNs(0)))),
            reason: self.because,
            incident: self.incident,
            author: self.author.told(),
        };
        let told = daemon.ask(async |channel| {
            let answer = client(channel).add_adjustment(request).await;
            Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner())
        })?;
        one(&told, output)
    }
}

impl Adjustments {
    pub fn run(self, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
        let all = daemon.ask(async |channel| {
            let answer =
                client(channel).list_adjustments(v1::ListAdjustmentsRequest { slo: self.name }).await;
            Ok(answer.map_err(|status| daemon.failure(&status))?.into_inner().adjustments)
        })?;
        output.print(Answer {
            table: Box::new(|| table(&all)),
            json: Box::new(|| all.iter().map(adjustment_json).collect()),
        })
    }
}

impl Undo {
    pub fn run(self, output: &Output, daemon: &Daemon) -> Result<(), Failure> {
        let request =
            v1::UndoAdjustmentRequest { id: self.id, reason: self.because, author: self.author.told() };
        let (before, undone) = daemon.ask(async |channel| {
            let mut client = client(channel);
            // Whoever undid it first stays on record: that nothing changed shows only beside what was.
            let listed = client.list_adjustments(v1::ListAdjustmentsRequest::default()).await;
            let listed = listed.map_err(|status| daemon.failure(&status))?.into_inner().adjustments;
            let before = listed.into_iter().find(|known| known.id == request.id);
            let answer = client.undo_adjustment(request).await;
            Ok((before, answer.map_err(|status| daemon.failure(&status))?.into_inner()))
        })?;
        if let Some(text) = before.as_ref().and_then(undone_already) {
            let _ = writeln!(std::io::stderr(), "{}", plain(&text));
        }
        one(&undone, output)
    }
}

/// That somebody undid it before; `None` if nobody did.
fn undone_already(of: &v1::Adjustment) -> Option<String> {
    let at = of.undone_at.as_ref()?;
    Some(format!(
        "{} was undone already at {} by {}: {}",
        of.id,
        time(Some(at)),
        of.undone_by,
        of.undone_because
    ))
}

fn one(of: &v1::Adjustment, output: &Output) -> Result<(), Failure> {
    output.print(Answer {
        table: Box::new(|| table(std::slice::from_ref(of))),
        json: Box::new(|| adjustment_json(of)),
    })
}

fn table(all: &[v1::Adjustment]) -> String {
    let mut table =
        Table::new(&["ID", "SLO", "SERVICE", "FROM", "UNTIL", "BY", "BECAUSE", "INCIDENT", "COUNTS AGAIN"]);
    for of in all {
        let or_all = |name: &String| if name.is_empty() { "(all)".to_owned() } else { name.clone() };
        let undone = of
            .undone_at
            .as_ref()
            .map(|at| format!("since {} by {}: {}", time(Some(at)), of.undone_by, of.undone_because));
        table.row([
            of.id.clone(),
            or_all(&of.slo),
            or_all(&of.service),
            time(of.from.as_ref()),
            time(of.until.as_ref()),
            of.author.clone(),
            of.reason.clone(),
            of.incident.clone(),
            undone.unwrap_or_default(),
        ]);
    }
    table.show("No time was taken out of any budget.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_undoes_again_hears_who_did_before() {
        let mut of = v1::Adjustment { id: "9f86".into(), ..v1::Adjustment::default() };
        assert_eq!(undone_already(&of), None);
        of.undone_at = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 });
        (of.undone_by, of.undone_because) = ("bob".into(), "it was us".into());
        assert_eq!(
            undone_already(&of).as_deref(),
            Some("9f86 was undone already at 2023-11-14 22:13:20Z by bob: it was us")
        );
    }
}
