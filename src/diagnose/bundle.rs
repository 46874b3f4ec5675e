//! The evidence bundle: a directory written whole or not at all.

use super::capture::{Capture, Chosen, Period};
use super::collect::Output;
use super::evidence::{Cause, Manifest, Pass};
use super::log_clues::{self, ChangedLine};
use super::twin::Divergence;
use super::{Error, parquet_files, series};
use crate::confirm::Anomaly;
use crate::model::{Timestamp, TraceId};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

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

/// Writes `directory/<anomaly>`, in place of what an earlier pass wrote there.
///
/// # Errors
/// [`Error::File`] and what making the files can fail with; nothing is left behind then.
pub fn write(directory: &Path, contents: &Contents<'_>) -> Result<Manifest, Error> {
    let Contents { anomaly, capture, chosen, .. } = contents;
    let whole = capture.healthy_times.start..capture.faulty_times.end;
    let step = series::step_of(&whole);
    let mut points = Vec::new();
    for (period, rows) in [(Period::Healthy, &capture.healthy), (Period::Faulty, &capture.faulty)] {
        points.extend(series::series(rows.spans.iter(), step).into_iter().map(|point| (period, point)));
    }
    let causes = json!({
        "at": contents.at,
        "causes": contents.causes,
        "divergence": contents.divergence,
        "lines": log_clues::shown(contents.lines),
    });
    let mut files: Vec<(&str, Vec<u8>)> = vec![
        ("causes.json", pretty(&causes, "causes.json")?),
        ("exemplars.parquet", parquet_files::exemplars(chosen)?),
        ("index.html", contents.page.as_bytes().to_vec()),
        ("logs.parquet", parquet_files::logs(chosen)?),
        ("spans.parquet", parquet_files::spans(chosen)?),
        ("windows.parquet", parquet_files::windows(&points)?),
    ];
    files.extend(contents.collected.iter().map(|output| (output.file.as_str(), output.bytes.clone())));
    let mut listed: Vec<(String, u64, String)> = files
        .iter()
        .map(|(name, bytes)| {
            ((*name).to_owned(), bytes.len() as u64, blake3::hash(bytes).to_hex().to_string())
        })
        .collect();
    let rows = |rows: &super::rows::Rows| json!({ "spans": rows.spans.len(), "log_records": rows.logs.len(), "metric_points": rows.points.len(), "one_trace_in": rows.one_in });
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
        "replay": format!("barograph explain --bundle {}", anomaly.id),
        "files": listed.iter().map(|(name, bytes, hash)| json!({ "name": name, "bytes": bytes, "blake3": hash })).collect::<Vec<_>>(),
    });
    let manifest = pretty(&manifest, "manifest.json")?;
    // What fetches the bundle fetches what describes it, too.
    let hash = blake3::hash(&manifest).to_hex().to_string();
    listed.push(("manifest.json".to_owned(), manifest.len() as u64, hash));
    let path = directory.join(&anomaly.id.0);
    let (fresh, old) =
        (directory.join(format!(".{}.new", anomaly.id)), directory.join(format!(".{}.old", anomaly.id)));
    let written = (|| {
        for stale in [&fresh, &old] {
            if stale.exists() {
                fs::remove_dir_all(stale).map_err(Error::file(stale))?;
            }
        }
        fs::create_dir_all(&fresh).map_err(Error::file(&fresh))?;
        for (name, bytes) in &files {
            put(&fresh.join(name), bytes)?;
        }
        put(&fresh.join("manifest.json"), &manifest)?;
        if path.exists() {
            fs::rename(&path, &old).map_err(Error::file(&path))?;
        }
        fs::rename(&fresh, &path).map_err(Error::file(&path))
    })();
    for rest in [&fresh, &old] {
        // Best effort: the next pass removes it, too.
        let _ = fs::remove_dir_all(rest);
    }
    written?;
    Ok(Manifest {
        path,
        traces,
        failed_traces: chosen.failed_traces,
        log_records: chosen.logs.len() as u64,
        files: listed,
        collected: contents.collected.iter().map(|output| output.told.clone()).collect(),
    })
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

fn put(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = fs::File::create(path).map_err(Error::file(path))?;
    file.write_all(bytes).map_err(Error::file(path))
}
