//! The evidence bundle: a directory written whole or not at all, also when the power fails.

use super::capture::{Capture, Chosen, Period};
use super::collect::Output;
use super::context::Context;
use super::evidence::{Cause, Evidence, Manifest, Pass};
use super::log_clues::{self, ChangedLine};
use super::twin::Divergence;
use super::{Error, archive, page, parquet_files, series};
use crate::confirm::Anomaly;
use crate::disk;
use crate::model::{Timestamp, TraceId};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Everything a bundle is made of, but the page.
pub struct Contents<'a> {
    pub anomaly: &'a Anomaly,
    pub pass: Pass,
    pub at: Timestamp,
    pub causes: &'a [Cause],
    /// Where bad requests first part from healthy ones.
    pub divergence: Option<Divergence>,
    /// Lines that changed, strongest first.
    pub lines: &'a [ChangedLine],
    /// Changes, calls and what metrics say.
    pub context: &'a Context,
    pub capture: &'a Capture,
    pub chosen: &'a Chosen,
    /// BLAKE3 of the stage's configuration.
    pub config: &'a str,
    /// The page, rendered.
    pub page: &'a str,
    /// What collectors said.
    pub collected: &'a [Output],
}

fn pretty(value: &serde_json::Value, name: &'static str) -> Result<Vec<u8>, Error> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| Error::Json(name, error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The files of a bundle and what they hold.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// By name; `manifest.json` is the last.
    pub files: Vec<(String, Vec<u8>)>,
    /// Where they are written is not in it yet.
    pub manifest: Manifest,
}

/// Makes all files of a bundle.
///
/// # Errors
/// What making them can fail with.
pub fn make(contents: &Contents<'_>) -> Result<Made, Error> {
    let Contents { anomaly, capture, chosen, .. } = contents;
    let whole = capture.healthy_times.start..capture.faulty_times.end;
    let step = series::step_of(&whole);
    let mut points = Vec::new();
    for (period, rows) in [(Period::Healthy, &capture.healthy), (Period::Faulty, &capture.faulty)] {
        // Those that were captured: the manifest says of one in how many.
        let of_period = series::series(rows.spans.iter(), step, 1);
        points.extend(of_period.into_iter().map(|point| (period, point)));
    }
    let causes = json!({
        "at": contents.at,
        "causes": contents.causes,
        "divergence": contents.divergence,
        "lines": log_clues::shown(contents.lines),
    });
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("causes.json".to_owned(), pretty(&causes, "causes.json")?),
        ("context.json".to_owned(), pretty(&json!(contents.context), "context.json")?),
        ("exemplars.parquet".to_owned(), parquet_files::exemplars(chosen)?),
        ("index.html".to_owned(), contents.page.as_bytes().to_vec()),
        ("logs.parquet".to_owned(), parquet_files::logs(chosen)?),
        ("spans.parquet".to_owned(), parquet_files::spans(chosen)?),
        ("windows.parquet".to_owned(), parquet_files::windows(&points)?),
    ];
    let collected = contents.collected.iter().flat_map(Output::files);
    files.extend(collected.map(|(file, bytes)| (file.to_owned(), bytes.to_vec())));
    let mut listed: Vec<Listed> = files.iter().map(|(name, bytes)| listed(name, bytes)).collect();
    let rows = |rows: &super::rows::Rows| {
        json!({
            "spans": rows.spans.len(),
            "log_records": rows.logs.len(),
            "metric_points": rows.points.len(),
            "one_trace_in": rows.one_in,
            "log_records_of_one_trace_in": rows.logs_one_in,
        })
    };
    let range = |range: &std::ops::Range<Timestamp>| json!({ "from": range.start, "to": range.end });
    let traces = chosen.traces.len() as u64;
    let manifest = json!({
        "format": 1,
        "barograph": env!("CARGO_PKG_VERSION"),
        "pass": contents.pass,
        "at": contents.at,
        "anomaly": anomaly,
        "faulty": range(&capture.faulty_times),
        "healthy": range(&capture.healthy_times),
        "seen": { "faulty": rows(&capture.faulty), "healthy": rows(&capture.healthy) },
        "read": { "bytes": capture.read_bytes, "of_bytes": capture.held_bytes, "share_of_rows": capture.share() },
        "traces": traces,
        "keepsakes": keepsakes(chosen),
        "failed_traces": chosen.failed_traces,
        "log_records": chosen.logs.len(),
        "of_services": of_services(chosen),
        "collected": contents.collected.iter().map(|output| &output.told).collect::<Vec<_>>(),
        "config": contents.config,
        // In the bundle's directory; it moves.
        "replay": "barograph explain --bundle .",
        "files": files_json(&listed),
    });
    let manifest = pretty(&manifest, "manifest.json")?;
    // What fetches the bundle fetches what describes it, too.
    listed.push(self::listed("manifest.json", &manifest));
    files.push(("manifest.json".to_owned(), manifest));
    let manifest = Manifest {
        path: PathBuf::new(),
        traces,
        failed_traces: chosen.failed_traces,
        log_records: chosen.logs.len() as u64,
        files: listed,
        collected: contents.collected.iter().map(|output| output.told.clone()).collect(),
    };
    Ok(Made { files, manifest })
}

/// Writes `directory/<anomaly>`, in place of what an earlier pass wrote there.
///
/// # Errors
/// [`Error::File`] and what making the files can fail with; nothing is left behind then.
pub fn write(directory: &Path, contents: &Contents<'_>) -> Result<Manifest, Error> {
    let Made { files, manifest } = make(contents)?;
    let path = directory.join(&contents.anomaly.id.0);
    let files = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    put(directory, &contents.anomaly.id.0, files)?;
    Ok(Manifest { path, ..manifest })
}

/// Adds what a collector said to a bundle that is there: its file, what the page shows of it, and both with
/// their hashes to the manifest. The bundle is the one or the other at every moment.
///
/// # Errors
/// [`Error::File`] and [`Error::Bundle`]; the bundle is as it was then.
pub fn add(evidence: &Evidence, output: &Output) -> Result<Manifest, Error> {
    let path = &evidence.bundle.path;
    let mut files = archive::read(path)?;
    if let Some(page) = files.get_mut("index.html") {
        let text = String::from_utf8_lossy(page).replacen(
            page::MORE_COLLECTED,
            &format!("{}{}", page::collected(output)?, page::MORE_COLLECTED),
            1,
        );
        *page = text.into_bytes();
    }
    files.extend(output.files().map(|(file, bytes)| (file.to_owned(), bytes.to_vec())));
    let manifest = files.remove("manifest.json").unwrap_or_default();
    let mut manifest: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&manifest)
        .map_err(|error| Error::Bundle(format!("manifest.json: {error}")))?;
    let mut all: Vec<Listed> = files.iter().map(|(name, bytes)| listed(name, bytes)).collect();
    let mut collected = evidence.bundle.collected.clone();
    collected.push(output.told.clone());
    manifest.insert("collected".to_owned(), json!(collected));
    manifest.insert("files".to_owned(), files_json(&all));
    let manifest = pretty(&manifest.into(), "manifest.json")?;
    all.push(listed("manifest.json", &manifest));
    files.insert("manifest.json".to_owned(), manifest);
    let directory = path.parent().unwrap_or(Path::new(""));
    let files = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    put(directory, &evidence.anomaly.0, files)?;
    Ok(Manifest { files: all, collected, ..evidence.bundle.clone() })
}

/// Name, bytes and BLAKE3 of a file.
type Listed = (String, u64, String);

fn listed(name: &str, bytes: &[u8]) -> Listed {
    (name.to_owned(), bytes.len() as u64, blake3::hash(bytes).to_hex().to_string())
}

fn files_json(of: &[Listed]) -> serde_json::Value {
    let files = of.iter();
    files.map(|(name, bytes, hash)| json!({ "name": name, "bytes": bytes, "blake3": hash })).collect()
}

/// Writes files into `directory/<name>`, in place of what is there, so that a power loss leaves either.
fn put<'a>(
    directory: &Path,
    name: &str,
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), Error> {
    let (path, fresh) = (directory.join(name), directory.join(format!(".{name}.new")));
    let written = (|| {
        disk::remove_folder(&fresh).map_err(Error::file(&fresh))?;
        disk::make_folders(&fresh).map_err(Error::file(&fresh))?;
        for (name, bytes) in files {
            let file = fresh.join(name);
            disk::write_file(&file, bytes).map_err(Error::file(&file))?;
        }
        disk::sync_folder(&fresh).map_err(Error::file(&fresh))?;
        let placed = if path.exists() { disk::exchange(&path, &fresh) } else { disk::rename(&fresh, &path) };
        placed.map_err(Error::file(&path))?;
        disk::sync_folder(directory).map_err(Error::file(directory))
    })();
    // Best effort: what is left of it goes with the next pass.
    let _ = disk::remove_folder(&fresh);
    written
}

/// Traces from before what the journal holds, with when they ended.
fn keepsakes(chosen: &Chosen) -> serde_json::Value {
    let mut ends: BTreeMap<TraceId, Timestamp> = BTreeMap::new();
    for (_, span) in chosen.spans.iter().filter(|(period, _)| *period == Period::Keepsake) {
        let end = ends.entry(span.trace).or_default();
        *end = span.end.max(*end);
    }
    ends.into_iter().map(|(trace, at)| json!({ "trace": trace, "at": at })).collect()
}

/// How many spans and log records of each service are of the faulty period.
fn of_services(chosen: &Chosen) -> serde_json::Value {
    let mut of: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (_, span) in chosen.spans.iter().filter(|(period, _)| *period == Period::Faulty) {
        of.entry(span.service().name.to_string()).or_default().0 += 1;
    }
    for (_, log) in chosen.logs.iter().filter(|(period, _)| *period == Period::Faulty) {
        of.entry(log.service().name.to_string()).or_default().1 += 1;
    }
    let counts = |(spans, log_records): (u64, u64)| json!({ "spans": spans, "log_records": log_records });
    of.into_iter().map(|(service, of)| (service, counts(of))).collect::<serde_json::Map<_, _>>().into()
}
