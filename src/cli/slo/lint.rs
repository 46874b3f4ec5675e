//! `barograph slo lint`.

use super::known::{known, range, traffic};
use super::read;
use crate::cli::connection::Daemon;
use crate::cli::failure::Failure;
use crate::cli::moment::{Moment, read_moment};
use crate::cli::output::{Answer, Output};
use crate::serve::text::{plain, so_many};
use crate::slo::{Taken, Warning, lint};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Looks for objectives that can never fail, always fail, are no ratio, have too little traffic, are shaped by
/// long polls, or count nothing. Exit code 1 if any is found.
#[derive(Debug, Args)]
pub(super) struct Lint {
    /// Files or directories with objectives.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Look at the files alone, not at what the services did.
    #[arg(long)]
    offline: bool,
    /// How much of the past is looked at.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = read_moment)]
    since: Moment,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) fn run(arguments: Lint, output: &Output) -> Result<(), Failure> {
    let Lint { files, offline, since, daemon } = arguments;
    let taken = read(&files)?;
    let (range, length) = range(since)?;
    let (traffic, known) = if offline {
        (Vec::new(), Vec::new())
    } else {
        (traffic(&daemon, "", range)?, known(&daemon, range, length, &taken.definitions)?)
    };
    let warnings = lint(&taken.definitions, &traffic, &known);
    output.print(Answer {
        table: Box::new(|| lint_text(&taken, &warnings)),
        json: Box::new(|| lint_json(&taken, &warnings)),
    })?;
    match warnings.len().saturating_add(taken.empty.len()) {
        0 => Ok(()),
        found => Err(Failure::failed(format!("{found} of these are worth a look"))),
    }
}

/// `FILE:LINE: NAME: KIND: what is wrong; what to do`, a line each.
fn lint_text(taken: &Taken, warnings: &[Warning]) -> String {
    let mut text = String::new();
    for error in &taken.empty {
        let _ = writeln!(text, "{}", plain(&error.to_string()));
    }
    for Warning { slo, origin, smell, text: what, advice } in warnings {
        let line =
            format!("{}:{}: {slo}: {}: {what}; {advice}", origin.path.display(), origin.line, smell.as_str());
        let _ = writeln!(text, "{}", plain(&line));
    }
    if text.is_empty() {
        let _ = writeln!(text, "{}, nothing to say", so_many(taken.definitions.len() as u64, "objective"));
    }
    text
}

fn lint_json(taken: &Taken, warnings: &[Warning]) -> Value {
    let note = |of: &Warning| {
        json!({
            "slo": of.slo,
            "file": of.origin.path.display().to_string(),
            "line": of.origin.line,
            "smell": of.smell.as_str(),
            "text": of.text,
            "advice": of.advice,
        })
    };
    let empty = taken.empty.iter().map(|error| error.path().display().to_string());
    json!({
        "objectives": taken.definitions.len(),
        "notes": warnings.iter().map(note).collect::<Vec<_>>(),
        "empty_files": empty.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slo::{Origin, Smell};

    #[test]
    fn a_note_is_a_line_or_an_object_and_nothing_in_it_acts() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("empty.yaml"), "# later\n").expect("written");
        let taken = read(&[folder.path().to_owned()]).expect("no mistake");
        let origin = Origin { path: "a\u{1b}[2J.yaml".into(), line: 7 };
        let (text, advice) = ("it is\nnever met".to_owned(), "lower `target`".to_owned());
        let notes = [Warning { slo: "x".into(), origin, smell: Smell::AlwaysFails, text, advice }];
        let said = lint_text(&taken, &notes);
        let lines: Vec<&str> = said.lines().collect();
        let [empty, note] = lines.as_slice() else { panic!("{said:?}") };
        assert!(empty.ends_with("/empty.yaml:1: document: is empty: it holds no objective"), "{empty}");
        assert_eq!(*note, "a\\u{1b}[2J.yaml:7: x: always-fails: it is\\u{a}never met; lower `target`");
        let json = lint_json(&taken, &notes);
        assert_eq!(
            json["notes"],
            json!([{
                "slo": "x", "file": "a\u{1b}[2J.yaml", "line": 7, "smell": "always-fails",
                "text": "it is\nnever met", "advice": "lower `target`",
            }])
        );
        assert_eq!((&json["objectives"], json["empty_files"].as_array().map(Vec::len)), (&json!(0), Some(1)));
        assert_eq!(lint_text(&Taken::default(), &[]), "0 objectives, nothing to say\n");
    }
}
