//! Files that are read back: the journal's, recordings, bundles. A disk, or somebody, may have changed them.

use super::targets::Target;
use barograph::diagnose::{Bundle, Keeper, Keepsakes, Redaction, pack};
use barograph::journal::recording::Recordings;
use barograph::journal::{Config, Journal, Position, check};
use barograph::limits::Permit;
use barograph::model::{ManualClock, Signal, Timestamp, TraceId};
use barograph::otlp::Encoding;
use barograph::receive::{Admitted, CallerTag, Reply};
use barograph::settings::ByteSize;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder in memory where there is one: a target makes files some hundred times a second.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// The one file of a journal whose first segment is not full.
fn segment(dir: &Path) -> PathBuf {
    dir.join(format!("{:020}.segment", 0))
}

/// A journal is told to be small, so that little is made ahead.
fn small() -> Config {
    Config { max_bytes: Some(ByteSize(4 << 20)), ..Config::default() }
}

/// A segment with some records, without the space that was made ahead behind them.
fn written() -> Vec<u8> {
    let dir = folder();
    let opened = Journal::open(dir.path(), &small(), Arc::new(ManualClock::default()), None);
    let (mut sequencer, _, _) = opened.expect("it opens");
    for number in 0..6u8 {
        let wire = bytes::Bytes::from(super::targets::wire(Signal::Traces));
        let (reply, _pending) = Reply::new(1);
        let request = Admitted {
            signal: Signal::Traces,
            encoding: Encoding::Identity,
            body: wire.clone(),
            wire,
            slices: Default::default(),
            caller: CallerTag::NOBODY,
            permit: Permit::free(),
            reply,
        };
        let arrived = Timestamp::from_secs(1_700_000_000 + u64::from(number));
        sequencer.append_at(request, arrived).expect("there is room").for_each(drop);
    }
    let end = sequencer.end().0 as usize;
    drop(sequencer);
    let mut bytes = fs::read(segment(dir.path())).expect("a segment");
    bytes.truncate(end + 64);
    bytes
}

/// Whatever a segment holds: a look at it, opening it, and reading it back agree and go on.
pub fn journal() -> Target {
    Target {
        name: "journal",
        seeds: || vec![written()],
        run: |input| {
            let dir = folder();
            fs::write(segment(dir.path()), input).expect("written");
            let looked = check(dir.path());
            let opened = Journal::open(dir.path(), &small(), Arc::new(ManualClock::default()), None);
            let (mut sequencer, _, recorder) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return;
                }
            };
            let mut before = Position(0);
            for record in recorder.records(Position(0)) {
                assert!(record.at >= before, "records come in order");
                before = record.end();
            }
            let replayed = sequencer.replay(None, |_| Ok::<(), ()>(())).expect("steps are taken");
            if let Ok(report) = looked {
                let whole: u64 = report.segments.iter().map(|of| of.records).sum();
                assert_eq!(whole, replayed.records + replayed.unreadable, "a look and a replay differ");
            }
        },
    }
}

/// A recording, plain or packed: each line is a request or an error with its place.
pub fn recording() -> Target {
    Target {
        name: "recording",
        seeds: || {
            let lines = [Signal::Traces, Signal::Logs, Signal::Metrics].map(super::targets::json).join("\n");
            vec![zstd::encode_all(lines.as_bytes(), 1).expect("into memory"), lines.into_bytes()]
        },
        run: |input| {
            let dir = folder();
            let file = dir.path().join("recording.jsonl");
            fs::write(&file, input).expect("written");
            for line in Recordings::open(&[&file]).expect("it is there") {
                if let Err(error) = line {
                    let text = error.to_string();
                    assert!(text.contains("recording.jsonl:"), "no place in {text}");
                }
            }
        },
    }
}

/// The archive of a bundle, before it is packed: mutations of what is packed would seldom unpack.
pub fn bundle() -> Target {
    Target {
        name: "bundle",
        seeds: || {
            let dir = folder();
            for (name, content) in
                [("manifest.json", r#"{"format":1,"files":[]}"#), ("causes.json", r#"{"causes":[]}"#)]
            {
                fs::write(dir.path().join(name), content).expect("written");
            }
            let place = folder();
            let file = place.path().join("bundle.tar.zst");
            pack(dir.path(), &file).expect("packed");
            vec![zstd::decode_all(&*fs::read(&file).expect("readable")).expect("what was packed")]
        },
        run: |input| {
            let dir = folder();
            let file = dir.path().join("bundle.tar.zst");
            fs::write(&file, zstd::encode_all(input, 1).expect("into memory")).expect("written");
            if let Ok(bundle) = Bundle::open(&file) {
                let _ = bundle.explain();
            }
        },
    }
}

/// A trace that is kept.
const KEPT: TraceId = TraceId([7; 16]);
const KEPT_AT: Timestamp = Timestamp::from_secs(1_700_000_000);
/// Bytes of the file before its checksum, and with it.
const BEFORE_CHECKSUM: usize = 12;
const BEFORE_COVERED: usize = 16;

fn shelf(dir: &Path) -> Keepsakes {
    Keepsakes::open(dir, &Default::default(), KEPT_AT).expect("a folder")
}

/// The file of a keepsake.
fn kept() -> Vec<u8> {
    let span = Span {
        trace_id: KEPT.0.to_vec(),
        span_id: vec![1; 8],
        name: "GET /cart".to_owned(),
        kind: 2,
        start_time_unix_nano: KEPT_AT.0,
        end_time_unix_nano: KEPT_AT.0 + 1_000_000,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let group = ResourceSpans { scope_spans, ..ResourceSpans::default() };
    let wire = bytes::Bytes::from(ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec());
    let (dir, keepsakes) = (folder(), folder());
    let opened = Journal::open(dir.path(), &small(), Arc::new(ManualClock::default()), None);
    let (mut sequencer, _, recorder) = opened.expect("it opens");
    let request = Admitted {
        signal: Signal::Traces,
        encoding: Encoding::Identity,
        body: wire.clone(),
        wire,
        slices: Default::default(),
        caller: CallerTag::NOBODY,
        permit: Permit::free(),
        reply: Reply::nobody(),
    };
    sequencer.append_at(request, KEPT_AT).expect("there is room").for_each(drop);
    let mut keeper = Keeper::new(Arc::new(shelf(keepsakes.path())), &Default::default());
    for second in [1, 60] {
        let at = Timestamp::from_secs(KEPT_AT.secs() + second);
        keeper.step(&recorder, at, sequencer.end(), false).expect("a journal");
    }
    fs::read(keepsakes.path().join(format!("{KEPT}.keepsake"))).expect("it is kept")
}

/// What the checksum of a keepsake's file covers: it is opened and read, or named and passed over.
pub fn keepsake() -> Target {
    Target {
        name: "keepsake",
        seeds: || vec![kept().split_off(BEFORE_COVERED)],
        run: |input| {
            let dir = folder();
            let mut file = b"barokeep\x01\0\0\0".to_vec();
            assert_eq!(file.len(), BEFORE_CHECKSUM);
            file.extend(crc32fast::hash(input).to_le_bytes());
            file.extend(input);
            fs::write(dir.path().join(format!("{KEPT}.keepsake")), file).expect("written");
            let shelf = shelf(dir.path());
            let (count, _) = shelf.totals();
            let rows = shelf.rows(&[KEPT].into(), &Redaction::default());
            assert!(count == 1 || rows.is_empty());
        },
    }
}
