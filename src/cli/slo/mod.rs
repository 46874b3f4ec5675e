//! `barograph slo`.

mod adjustments;
mod known;
mod lint;
mod suggest;
mod test;

use super::connection::Daemon;
use super::failure::{Failure, finish};
use super::graph::service_path;
use super::output::{Answer, Output, Watch};
use super::services::query;
use super::table::Table;
use crate::api::v1;
use crate::model::{Clock as _, SystemClock, Timestamp};
use crate::serve::text::{count, plain, time};
use crate::serve::{
    BurnCell, excluded_text, refused_files_text, silent_text, slo_json, slo_state_name, users_text,
    window_text, young_text,
};
use crate::slo::{Taken, read_all, share_in_words};
use adjustments::{Adjust, Adjustments, Undo};
use clap::{Args, Subcommand};
use lint::Lint;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use suggest::Suggest;
use test::Test;

/// Windows whose burn rates are shown.
const BURNS_SHOWN: [&str; 3] = ["5m", "1h", "6h"];

/// What is left of each error budget, and how fast it burns; advice on objectives.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph slo
  barograph slo charge-fast
  barograph slo --service cart --watch
  barograph slo -o json
  barograph slo adjust charge-fast --from 2026-11-25T08:00:00Z --until 2026-11-25T09:30:00Z --because 'moved the database'
  barograph slo adjustments
  barograph slo undo 9f86d081884c7d65 --because 'it was us'
  barograph slo lint objectives/
  barograph slo suggest --service cart --since 14d
  barograph slo test objectives/cart.yaml --backtest recording.jsonl.zst")]
pub(super) struct Arguments {
    #[command(subcommand)]
    act: Option<Act>,
    /// Only this one.
    #[arg(value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Only this service's.
    #[arg(
        long,
        value_name = "[ENVIRONMENT/][NAMESPACE/]NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, Subcommand)]
enum Act {
    Lint(Lint),
    Suggest(Suggest),
    Test(Test),
    Adjust(Adjust),
    Adjustments(Adjustments),
    Undo(Undo),
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { act, name, service, output, watch, daemon } = arguments;
    match act {
        Some(Act::Lint(lint)) => return finish(lint::run(lint, &output)),
        Some(Act::Suggest(suggest)) => return finish(suggest::run(suggest, &output)),
        Some(Act::Test(test)) => return finish(test::run(test, &output)),
        Some(Act::Adjust(adjust)) => return finish(adjust.run(&output, &daemon)),
        Some(Act::Adjustments(list)) => return finish(list.run(&output, &daemon)),
        Some(Act::Undo(undo)) => return finish(undo.run(&output, &daemon)),
        None => {}
    }
    finish(output.ask(&daemon, &watch, async |channel| {
        let request = v1::ListSlosRequest { service: service.clone(), slo: name.clone() };
        let answer = query(channel).list_slos(request).await;
        let v1::ListSlosResponse { slos, refused_files } =
            answer.map_err(|status| daemon.failure(&status))?.into_inner();
        let (again, refused) = (slos.clone(), refused_files_text(&refused_files));
        let warning = refused.clone();
        Ok(Answer {
            table: Box::new(move || {
                let now = SystemClock.now();
                let young = young_text(&slos, now);
                table(&slos, now) + &remarks(&[refused, silent_text(&slos), young])
            }),
            json: Box::new(move || {
                // The rows keep their form; whoever reads them hears of it all the same.
                let _ = std::io::stderr().write_all(remarks(&[warning]).as_bytes());
                again.iter().map(slo_json).collect()
            }),
        })
    }))
}

/// Reads files; each that is refused is told in a line of its own.
fn read(files: &[PathBuf]) -> Result<Taken, Failure> {
    read_all(files).map_err(|refused| Failure::usage(plain_lines(&refused.to_string())))
}

/// Lines in which nothing acts on a terminal.
fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

/// Lines below a table, of those that say something.
fn remarks(texts: &[String]) -> String {
    texts.iter().flat_map(|text| text.lines()).map(|line| format!("{}\n", plain(line))).collect()
}

fn table(slos: &[v1::Slo], now: Timestamp) -> String {
    let mut table = Table::new(&[
        "SLO",
        "SERVICE",
        ">TARGET",
        "PERIOD",
        "STATE",
        ">GOOD",
        ">TOTAL",
        ">TAKEN OUT",
        ">BUDGET LEFT",
        ">BURN 5m",
        ">BURN 1h",
        ">BURN 6h",
        ">USERS HIT 1h",
        "USED UP",
    ]);
    for slo in slos {
        let [short, hour, long] =
            BURNS_SHOWN.map(|window| BurnCell::of(slo, window, now).text.unwrap_or_else(|| "-".to_owned()));
        table.row([
            slo.slo.clone(),
            slo.service.as_ref().map(service_path).unwrap_or_default(),
            // A target's digits matter: 99.95 % is not 100 %.
            format!("{} %", (slo.target * 1e6).round() / 1e4),
            window_text(slo.window_ns),
            slo_state_name(slo).to_owned(),
            count(slo.good),
            count(slo.total),
            excluded_text(slo.excluded_ns),
            share_in_words(slo.budget_remaining_ratio),
            short,
            hour,
            long,
            users_text(slo.users_affected, slo.users),
            slo.exhausted_at.as_ref().map(|at| time(Some(at))).unwrap_or_default(),
        ]);
    }
    table.show("No objectives yet: each service gets a default one once it has traffic.")
}
