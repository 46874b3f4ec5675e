//! `barograph journal`: what a data directory holds, and what of it is damaged.

use super::failure::{Failure, finish};
use super::output::{Answer, Output};
use super::table::Table;
use crate::journal::{Report, SegmentReport, check};
use crate::model::Timestamp;
use crate::serve::text::{bytes, count, so_many};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Reads a data directory, whether or not a daemon runs on it, and changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  barograph journal check /var/lib/barograph
  barograph journal inspect -o json

Exit codes of check: 0 nothing is damaged, 1 something is, and each place is named.")]
pub(super) struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Reads every record, block, keepsake and evidence bundle, and names what is damaged.
    Check(Directory),
    /// Lists the segments of the journal with their records and times.
    Inspect(Directory),
}

#[derive(Debug, Args)]
struct Directory {
    /// The daemon's data directory.
    #[arg(value_name = "DATA_DIR", default_value = "barograph-data", env = "STATE_DIRECTORY")]
    dir: PathBuf,
}

pub(super) fn run(Arguments { output, what }: Arguments) -> ExitCode {
    finish(match what {
        What::Check(Directory { dir }) => check_all(&output, &dir),
        What::Inspect(Directory { dir }) => inspect(&output, &dir),
    })
}

fn read(dir: &Path) -> Result<Report, Failure> {
    let journal = dir.join("journal");
    if !journal.is_dir() {
        return Err(Failure::not_found(format!("{}: no data directory of barograph", dir.display())));
    }
    check(&journal).map_err(|error| Failure::failed(error.to_string()))
}

fn check_all(output: &Output, dir: &Path) -> Result<(), Failure> {
    let report = read(dir)?;
    let mut damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    let (blocks, damaged) = match crate::store::check(dir) {
        Ok((blocks, damaged)) => (Some(blocks), damaged),
        Err(crate::store::Error::InUse(_)) => (None, Vec::new()),
        Err(error) => return Err(Failure::failed(error.to_string())),
    };
    let beside = crate::diagnose::check(&dir.join("keepsakes"), &dir.join("evidence"))
        .map_err(|error| Failure::failed(error.to_string()))?;
    damage.extend(damaged.iter().map(ToString::to_string));
    damage.extend(beside.damage.iter().map(ToString::to_string));
    let is_whole = damage.is_empty();
    let (keepsakes, bundles) = (beside.keepsakes, beside.bundles);
    let records: u64 = report.segments.iter().map(|segment| segment.records).sum();
    let segments = report.segments.len();
    let found = damage.clone();
    output.print(Answer {
        table: Box::new(move || {
            let blocks = blocks
                .map_or("the store not checked, a daemon runs on it".to_owned(), |n| so_many(n, "block"));
            let summary = format!(
                "{} in {}, {blocks}, {}, {}",
                so_many(records, "record"),
                so_many(segments as u64, "segment"),
                so_many(keepsakes, "keepsake"),
                so_many(bundles, "evidence bundle")
            );
            if damage.is_empty() {
                format!("{summary}: nothing is damaged\n")
            } else {
                format!("{summary}; damaged:\n{}\n", damage.join("\n"))
            }
        }),
        json: Box::new(move || {
            json!({
                "records": records,
                "segments": segments,
                "blocks": blocks,
                "keepsakes": keepsakes,
                "bundles": bundles,
                "damage": found,
            })
        }),
    })?;
    if is_whole { Ok(()) } else { Err(Failure { code: 1, message: String::new() }) }
}

fn inspect(output: &Output, dir: &Path) -> Result<(), Failure> {
    let report = read(dir)?;
    let rows = report.segments.clone();
    output.print(Answer {
        table: Box::new(move || table(&report.segments)),
        json: Box::new(move || rows.iter().map(object).collect()),
    })
}

fn arrival(at: Option<(crate::journal::Position, Timestamp)>) -> Option<String> {
    at.map(|(_, arrived)| arrived.to_string())
}

fn table(segments: &[SegmentReport]) -> String {
    let mut table = Table::new(&["SEGMENT", ">SIZE", ">RECORDS", ">USED", "FIRST", "LAST"]);
    for of in segments {
        table.row([
            of.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes(of.size_bytes),
            count(of.records),
            bytes(of.record_bytes),
            arrival(of.first).unwrap_or_default(),
            arrival(of.last).unwrap_or_default(),
        ]);
    }
    table.show("no segments")
}

fn object(of: &SegmentReport) -> Value {
    json!({
        "file": of.file.display().to_string(),
        "size_bytes": of.size_bytes,
        "records": of.records,
        "record_bytes": of.record_bytes,
        "first": arrival(of.first),
        "last": arrival(of.last),
        "first_position": of.first.map(|(position, _)| position.0),
        "last_position": of.last.map(|(position, _)| position.0),
    })
}
