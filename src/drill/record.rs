//! The shop as a recording: OTLP JSON lines, as the Collector's file exporter writes them.

use super::batch::{Batcher, Outgoing};
use super::fault::Fault;
use super::json;
use super::simulation::Simulation;
use crate::model::{Signal, Timestamp};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is recorded.
#[derive(Clone, Debug)]
pub struct Recording {
    pub fault: Fault,
    pub seed: u64,
    /// Factor on the rate of visits.
    pub traffic: f64,
    pub start: Timestamp,
    pub duration: Duration,
}

/// What was recorded: the labels of the recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The service that the fault hit; "" if there was none.
    pub service: &'static str,
    pub injected_at: Option<Timestamp>,
    pub healed_at: Option<Timestamp>,
    pub spans: u64,
    pub log_records: u64,
    pub metric_points: u64,
    pub lines: u64,
}

/// Why the recording could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot write: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: std::io::Error,
}

const STEP: Duration = Duration::from_secs(1);
/// The fault begins after this share of the recording, and ends after that.
const INJECTED: f64 = 0.5;
const HEALED: f64 = 0.85;

/// Writes the recording; compressed if the name ends in `.gz` or `.zst`. Equal parameters give equal
/// bytes.
///
/// # Errors
/// The file cannot be written.
pub fn record(what: &Recording, path: &Path) -> Result<Recorded, Error> {
    write(what, path).map_err(|source| Error { path: path.to_owned(), source })
}

fn write(what: &Recording, path: &Path) -> std::io::Result<Recorded> {
    let file = BufWriter::new(File::create(path)?);
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("gz") => {
            let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            let recorded = write_lines(what, &mut out)?;
            out.finish()?.flush()?;
            Ok(recorded)
        }
        Some("zst") => {
            let mut out = zstd::Encoder::new(file, 3)?;
            let recorded = write_lines(what, &mut out)?;
            out.finish()?.flush()?;
            Ok(recorded)
        }
        _ => {
            let mut out = file;
            let recorded = write_lines(what, &mut out)?;
            out.flush()?;
            Ok(recorded)
        }
    }
}

/// Runs the shop and writes its exports, a line each.
pub(super) fn write_lines(what: &Recording, out: &mut dyn Write) -> std::io::Result<Recorded> {
    let mut shop = Simulation::new(what.fault, what.seed, what.traffic, what.start);
    let mut batcher = Batcher::default();
    let end = what.start.saturating_add(what.duration);
    let at = |share: f64| what.start.saturating_add(what.duration.mul_f64(share));
    let breaks = what.fault != Fault::None;
    let injected_at = breaks.then(|| at(INJECTED).saturating_add(shop.drawn().delay));
    let healed_at = breaks.then(|| at(HEALED)).filter(|healed| injected_at.is_some_and(|at| at < *healed));
    let mut recorded = Recorded {
        service: shop.drawn().service,
        injected_at,
        healed_at,
        spans: 0,
        log_records: 0,
        metric_points: 0,
        lines: 0,
    };
    let mut now = what.start;
    while now < end {
        let mut next = now.saturating_add(STEP).min(end);
        for moment in [injected_at, healed_at].into_iter().flatten() {
            if now < moment && moment < next {
                next = moment;
            }
        }
        if injected_at == Some(now) {
            shop.inject(now);
        }
        if healed_at == Some(now) {
            shop.heal(now);
        }
        let emissions = shop.advance(next);
        let outgoing = batcher.pass(shop.instances(), emissions, next);
        write_requests(&outgoing, &mut recorded, out)?;
        now = next;
    }
    let outgoing = batcher.finish(shop.instances(), end);
    write_requests(&outgoing, &mut recorded, out)?;
    Ok(recorded)
}

fn write_requests(
    outgoing: &[Outgoing],
    recorded: &mut Recorded,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    for one in outgoing {
        let count = match one.request.signal() {
            Signal::Traces => &mut recorded.spans,
            Signal::Logs => &mut recorded.log_records,
            Signal::Metrics => &mut recorded.metric_points,
        };
        *count = count.saturating_add(one.items);
        recorded.lines = recorded.lines.saturating_add(1);
        serde_json::to_writer(&mut *out, &json::request(&one.request))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::batch::Request;
    use crate::journal::recording::Recordings;
    use prost::Message;

    fn recorded(fault: Fault, seed: u64) -> (Recorded, Vec<u8>) {
        let what = Recording {
            fault,
            seed,
            traffic: 0.5,
            start: Timestamp::from_secs(1_700_000_000),
            duration: Duration::from_secs(40),
        };
        let mut bytes = Vec::new();
        let recorded = write_lines(&what, &mut bytes).unwrap();
        (recorded, bytes)
    }

    #[test]
    fn equal_seeds_give_equal_bytes() {
        let (labels, bytes) = recorded(Fault::BadDeploy, 11);
        assert_eq!((labels.clone(), bytes.clone()), recorded(Fault::BadDeploy, 11));
        assert_ne!(bytes, recorded(Fault::BadDeploy, 12).1);
        assert!(labels.injected_at < labels.healed_at, "{labels:?}");
    }

    #[test]
    fn what_is_counted_is_what_is_written() {
        let (labels, bytes) = recorded(Fault::None, 1);
        assert_eq!((labels.injected_at, labels.service), (None, ""));
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count() as u64, labels.lines);
        assert_eq!(text.matches("\"endTimeUnixNano\"").count() as u64, labels.spans);
        assert_eq!(text.matches("\"observedTimeUnixNano\"").count() as u64, labels.log_records);
        assert!(
            labels.spans > 3_000 && labels.log_records > 1_000 && labels.metric_points > 500,
            "{labels:?}"
        );
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value.as_object().unwrap().len(), 1);
        }
    }

    /// Every export that was written is read back as the same message, and nothing else.
    #[test]
    fn reading_it_back_gives_the_same_exports() {
        let what = Recording {
            fault: Fault::SlowDatabase,
            seed: 3,
            traffic: 0.3,
            start: Timestamp::from_secs(1_700_000_000),
            duration: Duration::from_secs(20),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.jsonl.gz");
        let recorded = record(&what, &path).unwrap();
        let read: Vec<_> = Recordings::open(&[&path]).unwrap().map(Result::unwrap).collect();
        assert_eq!(read.len() as u64, recorded.lines);

        let mut shop = Simulation::new(what.fault, what.seed, what.traffic, what.start);
        let injected_at = recorded.injected_at.unwrap();
        let mut batcher = Batcher::default();
        let emissions = shop.advance(injected_at);
        let before = batcher.pass(shop.instances(), emissions, injected_at);
        assert!(before.len() > 100);
        for (one, read) in before.iter().zip(&read) {
            assert_eq!(one.request.signal(), read.signal);
            let same = match &one.request {
                Request::Traces(request) => Message::decode(read.body.clone()).as_ref() == Ok(request),
                Request::Logs(request) => Message::decode(read.body.clone()).as_ref() == Ok(request),
                Request::Metrics(request) => Message::decode(read.body.clone()).as_ref() == Ok(request),
            };
            assert!(same, "{:?}", one.request);
        }
    }
}
