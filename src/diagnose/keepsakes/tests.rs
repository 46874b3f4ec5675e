//! Keepsakes of a real journal: chosen, copied, outliving it, damaged, read again.

use super::*;
use crate::detect::{Interval, Symptom};
use crate::diagnose::tests::{MS, anomaly, text};
use crate::diagnose::{Bundle, Case, Checked, Config, Damaged, Diagnosis, Evidence, Pass, Redaction, check};
use crate::journal::{self, Journal, Position, Recorder, Sequencer};
use crate::limits::{Permit, ShedReason};
use crate::model::{ManualClock, Signal, Timestamp, TraceId};
use crate::otlp::{Encoding, split};
use crate::receive::{Admitted, CallerTag, Reply};
use crate::settings::{ByteSize, Seconds};
use crate::window::Topology;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const START_S: u64 = 1_700_000_000;

/// A journal of 4 MiB, a keeper that looks at it each time a checkpoint would be, and a folder for both.
struct Kept {
    folder: tempfile::TempDir,
    sequencer: Sequencer,
    recorder: Recorder,
    shelf: Arc<Keepsakes>,
    keeper: Keeper,
    config: Config,
    requests: u64,
    is_pressed: bool,
    checkpoint_every_s: u64,
}

/// How a request of the gateway goes.
#[derive(Clone, Copy, PartialEq)]
enum Goes {
    Well,
    Slowly,
    Wrong,
}

fn id(number: u64) -> TraceId {
    // Spread, as ids are.
    TraceId(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

fn resource(service: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![text("service.name", service)], ..Resource::default() })
}

fn span(name: &str, trace: TraceId, own: u8, parent: Option<u8>, times: (u64, u64)) -> Span {
    Span {
        trace_id: trace.0.to_vec(),
        span_id: vec![own; 8],
        parent_span_id: parent.map(|parent| vec![parent; 8]).unwrap_or_default(),
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: times.0,
        end_time_unix_nano: times.1,
        ..Span::default()
    }
}

fn traces(service: &str, spans: Vec<Span>) -> (Signal, Vec<u8>) {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let group = ResourceSpans { resource: resource(service), scope_spans, ..ResourceSpans::default() };
    (Signal::Traces, ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec())
}

fn logs(service: &str, log_records: Vec<LogRecord>) -> (Signal, Vec<u8>) {
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let group = ResourceLogs { resource: resource(service), scope_logs, ..ResourceLogs::default() };
    (Signal::Logs, ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec())
}

impl Kept {
    fn new(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal::Config { max_bytes: Some(ByteSize(4 << 20)), ..journal::Config::default() };
        let clock = Arc::new(ManualClock::default());
        let (sequencer, _, recorder) =
            Journal::open(&folder.path().join("journal"), &journal, clock, None).unwrap();
        let shelf = Arc::new(open(&folder.path().join("keepsakes"), &config));
        let keeper = Keeper::new(shelf.clone(), &config);
        Self {
            folder,
            sequencer,
            recorder,
            shelf,
            keeper,
            config,
            requests: 0,
            is_pressed: false,
            checkpoint_every_s: 30,
        }
    }

    fn append(&mut self, (signal, body): (Signal, Vec<u8>), at: Timestamp) {
        let body = bytes::Bytes::from(body);
        let admitted = Admitted {
            signal,
            encoding: Encoding::Identity,
            wire: body.clone(),
            slices: split(signal, &body).unwrap(),
            body,
            caller: CallerTag::NOBODY,
            permit: Permit::free(),
            reply: Reply::nobody(),
        };
        self.sequencer.append_at(admitted, at).unwrap().for_each(drop);
    }

    /// Two requests of the gateway a second, which calls billing, from one second up to another; each sends its
    /// spans and log records apart, with `padding` bytes.
    fn serve(&mut self, from_s: u64, until_s: u64, goes: Goes, padding: usize) {
        for second in from_s..until_s {
            for half in 0..2 {
                self.requests += 1;
                self.request(Timestamp(second * 1_000_000_000 + half * 500 * MS), goes, padding);
            }
            if second % self.checkpoint_every_s == 0 {
                self.checkpoint(Timestamp::from_secs(second + 1));
            }
        }
    }

    fn request(&mut self, start: Timestamp, goes: Goes, padding: usize) {
        let trace = id(self.requests);
        let took = if goes == Goes::Slowly { 400 } else { 20 + self.requests % 7 };
        let at = |ms: u64| start.0 + ms * MS;
        let mut root = span("GET /", trace, 1, None, (at(0), at(took)));
        let mut inner = span("POST /bill", trace, 2, Some(1), (at(2), at(took - 2)));
        inner.attributes = vec![text("authorization", "hunter2"), text("padding", &"x".repeat(padding))];
        if goes == Goes::Wrong {
            root.status = Some(Status { code: 2, message: String::new() });
            inner.status = Some(Status { code: 2, message: "lost".to_owned() });
        }
        let body =
            AnyValue { value: Some(any_value::Value::StringValue("billing password=hunter2".to_owned())) };
        let record = LogRecord {
            time_unix_nano: at(5),
            body: Some(body),
            trace_id: trace.0.to_vec(),
            span_id: vec![2; 8],
            ..LogRecord::default()
        };
        let arrived = Timestamp(at(took));
        self.append(traces("gateway", vec![root]), arrived);
        self.append(traces("billing", vec![inner]), arrived);
        self.append(logs("billing", vec![record]), arrived);
    }

    fn checkpoint(&mut self, at: Timestamp) {
        let through = self.sequencer.end();
        self.sequencer.handle().set_checkpoint(through);
        self.keeper.step(&self.recorder, at, through, self.is_pressed).unwrap();
    }

    fn diagnose(&self, onset: Timestamp, now: Timestamp, with: bool) -> (Evidence, String) {
        let interval = Interval { earliest: onset, latest: onset.saturating_add(Duration::from_secs(1)) };
        let mut anomaly = anomaly(Symptom::Latency);
        anomaly.onset = interval;
        anomaly.service = crate::model::ServiceKey::named("gateway");
        for member in &mut anomaly.members {
            (member.service, member.signal) = (anomaly.service.clone(), "GET /".to_owned());
            (member.onset, member.last_seen) = (interval, now);
        }
        let topology = Topology::default();
        let case = Case {
            anomaly: &anomaly,
            changes: &[],
            topology: &topology,
            pass: Pass::First,
            now,
            collected: &[],
            counted: &[],
        };
        let diagnosis = Diagnosis::new(self.config.clone(), self.folder.path().join("evidence"));
        let diagnosis = if with { diagnosis.with_keepsakes(self.shelf.clone()) } else { diagnosis };
        let evidence = diagnosis.run(&case, &self.recorder).unwrap();
        let page = std::fs::read_to_string(evidence.bundle.path.join("index.html")).unwrap();
        (evidence, page)
    }
}

fn open(folder: &Path, config: &Config) -> Keepsakes {
    Keepsakes::open(folder, config, Timestamp::from_secs(START_S)).unwrap()
}

fn secrets() -> Redaction {
    Redaction::new(&Config::default().redact_attributes)
}

/// Traces that are kept, by what they are kept as.
fn kept(shelf: &Keepsakes, quality: Quality) -> Vec<Arc<Keepsake>> {
    let all = shelf.held().into_iter().map(|held| held.keepsake);
    let mut found: Vec<_> = all.filter(|keepsake| keepsake.quality == quality).collect();
    found.sort_by_key(|keepsake| keepsake.at);
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_fault_whose_healthy_past_was_recycled_finds_its_twin_among_the_keepsakes() {
    let mut of = Kept::new(Config::default());
    let onset_s = START_S + 600;
    of.serve(START_S, onset_s, Goes::Well, 100);
    // It goes on for two hours, and fills the journal many times; its own traces are kept, too.
    let now_s = onset_s + 7_200;
    of.serve(onset_s, now_s, Goes::Slowly, 1_500);
    let (onset, now) = (Timestamp::from_secs(onset_s), Timestamp::from_secs(now_s));
    let (_, oldest) = of.recorder.oldest().unwrap();
    assert!(oldest > onset.saturating_add(Duration::from_secs(600)), "nothing healthy is in the journal");
    let (_, page) = of.diagnose(onset, now, false);
    assert!(!page.contains("beside its healthy twin"), "without keepsakes there is none");
    let (evidence, page) = of.diagnose(onset, now, true);
    let manifest = std::fs::read(evidence.bundle.path.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let kept_at = manifest["keepsakes"][0]["at"].as_str().unwrap();
    assert!(Timestamp::parse_rfc3339(kept_at).unwrap() < onset, "{manifest:#}");
    assert!(page.contains("beside its healthy twin"));
    let minute = kept_at.get(..16).unwrap();
    assert!(page.contains(&format!("The healthy trace is a keepsake of {minute}")), "{minute} in {page}");
    assert!(page.contains("400 ms now"), "{page}");
    let causes = std::fs::read(evidence.bundle.path.join("causes.json")).unwrap();
    let causes: serde_json::Value = serde_json::from_slice(&causes).unwrap();
    assert_eq!(causes["divergence"]["service"], "billing", "{causes:#}");
    // Neither its page nor its tables hold a secret, and what is diagnosed again compares no two times.
    let bundle = Bundle::open(&evidence.bundle.path).unwrap();
    let of_onset = |row: &crate::diagnose::SpanRow| row.end >= onset;
    assert!(!bundle.faulty.spans.is_empty() && bundle.faulty.spans.iter().all(of_onset));
    for file in files(&evidence.bundle.path) {
        let content = std::fs::read(&file).unwrap();
        assert!(memchr::memmem::find(&content, b"hunter2").is_none(), "{}", file.display());
    }
}

#[test]
fn where_the_journal_has_a_twin_no_keepsake_is_shown() {
    let mut of = Kept::new(Config::default());
    of.serve(START_S, START_S + 240, Goes::Well, 100);
    of.serve(START_S + 240, START_S + 260, Goes::Slowly, 100);
    assert!(!kept(&of.shelf, Quality::Healthy).is_empty());
    let (_, page) =
        of.diagnose(Timestamp::from_secs(START_S + 240), Timestamp::from_secs(START_S + 260), true);
    assert!(page.contains("beside its healthy twin") && !page.contains("is a keepsake of"));
}

#[test]
fn whole_traces_with_their_log_records_are_kept_and_are_there_after_a_restart() {
    let mut of = Kept::new(Config { keepsake_every: Seconds(Duration::from_secs(60)), ..Config::default() });
    of.serve(START_S, START_S + 120, Goes::Well, 100);
    of.serve(START_S + 120, START_S + 240, Goes::Wrong, 100);
    of.serve(START_S + 240, START_S + 360, Goes::Well, 100);
    let (healthy, failed) = (kept(&of.shelf, Quality::Healthy), kept(&of.shelf, Quality::Failed));
    // One trace stands for both operations in it.
    assert!((2..=5).contains(&healthy.len()), "{healthy:#?}");
    let apart = |pair: &[Arc<Keepsake>]| pair[1].at.since(pair[0].at) >= Duration::from_secs(30);
    assert!(healthy.windows(2).all(apart), "{healthy:#?}");
    assert_eq!(failed.len(), 1, "{failed:#?}");
    let folder = of.folder.path().join("keepsakes");
    let totals = of.shelf.totals();
    let again = open(&folder, &of.config);
    assert_eq!(again.totals(), totals);
    assert_eq!(totals.0, files(&folder).len() as u64);
    for keepsake in healthy.iter().chain(&failed) {
        let rows = again.rows(&[keepsake.trace].into(), &secrets());
        assert_eq!((rows.spans.len(), rows.logs.len()), (2, 1), "{keepsake:?}");
        assert!(rows.spans.iter().all(|span| span.failed() == (keepsake.quality == Quality::Failed)));
        assert_eq!(keepsake.covers.len(), 2, "{keepsake:?}");
        assert_eq!(
            keepsake.tops,
            [("gateway", "GET /")]
                .map(|(service, name)| { (crate::model::ServiceKey::named(service), name.to_owned()) })
        );
        // What was recorded is on disk as it came; what is read is redacted.
        let shown = format!("{rows:?}");
        assert!(shown.contains("[redacted]") && !shown.contains("hunter2"), "{shown}");
        assert!(
            format!("{:?}", again.rows(&[keepsake.trace].into(), &Redaction::default())).contains("hunter2")
        );
    }
    assert!(again.rows(&[id(u64::MAX)].into(), &secrets()).spans.is_empty(), "nobody's trace");
}

#[test]
fn a_damaged_file_costs_itself_whichever_byte_it_is() {
    let mut of = Kept::new(Config::default());
    of.serve(START_S, START_S + 120, Goes::Well, 100);
    of.serve(START_S + 120, START_S + 240, Goes::Wrong, 100);
    let folder = of.folder.path().join("keepsakes");
    let (count, _) = of.shelf.totals();
    assert!(count >= 2);
    let file = files(&folder).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let name = file.file_stem().unwrap().to_str().unwrap();
    let trace = TraceId::from_hex(name).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&file, bytes).unwrap();
        let shelf = open(&folder, &of.config);
        // Two bytes of the header are reserved.
        let expected = if (10..12).contains(&at) { count } else { count - 1 };
        assert_eq!(shelf.totals().0, expected, "byte {at}");
    }
    for length in [0, 1, 15, 19, 20, 40, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert_eq!(open(&folder, &of.config).totals().0, count - 1, "cut at {length}");
    }
    std::fs::write(folder.join(format!("{}.keepsake", id(9_999))), &whole).unwrap();
    assert_eq!(open(&folder, &of.config).totals().0, count - 1, "a file under another's name");
    // Damaged while it is held: the others are read.
    std::fs::write(&file, &whole).unwrap();
    let shelf = open(&folder, &of.config);
    std::fs::write(&file, &whole[..30]).unwrap();
    let all: BTreeSet<TraceId> = shelf.held().iter().map(|held| held.keepsake.trace).collect();
    let rows = shelf.rows(&all, &secrets());
    let traces: BTreeSet<TraceId> = rows.spans.iter().map(|span| span.trace).collect();
    assert_eq!(traces.len() as u64, count - 1);
    assert!(!traces.contains(&trace));
    assert_eq!(shelf.totals().0, count - 1);
}

#[test]
fn damaged_files_make_room_first_and_what_is_too_old_or_too_much_goes() {
    let mut of = Kept::new(Config::default());
    of.serve(START_S, START_S + 120, Goes::Well, 100);
    let folder = of.folder.path().join("keepsakes");
    let (count, bytes) = of.shelf.totals();
    let damaged = folder.join(format!("{}.keepsake", id(7_777)));
    std::fs::write(&damaged, vec![7; 1_000]).unwrap();
    std::fs::write(folder.join("half.new"), "written when the process died").unwrap();
    let bound = |bytes| Config { keepsake_bytes: ByteSize(bytes), ..Config::default() };
    assert_eq!(
        open(&folder, &bound(bytes + 1_000)).totals(),
        (count, bytes + 1_000),
        "it is left where it is"
    );
    assert!(damaged.exists() && !folder.join("half.new").exists());
    assert_eq!(open(&folder, &bound(bytes)).totals(), (count, bytes));
    assert!(!damaged.exists());
    let later = Timestamp::from_secs(START_S + 8 * 86_400);
    let shelf = Keepsakes::open(&folder, &Config::default(), later).unwrap();
    assert_eq!((shelf.totals(), files(&folder).len()), ((0, 0), 0));
    of.serve(START_S + 120, START_S + 240, Goes::Well, 100);
    assert_eq!(open(&folder, &bound(0)).totals(), (0, 0), "0 keeps none");
}

#[test]
fn under_pressure_and_where_the_journal_is_gone_nothing_is_kept_and_that_is_counted() {
    let mut of = Kept::new(Config::default());
    of.is_pressed = true;
    of.serve(START_S, START_S + 120, Goes::Well, 100);
    assert_eq!((of.shelf.totals().0, of.shelf.shed_for(ShedReason::Pressure) > 0), (0, true));
    of.is_pressed = false;
    of.serve(START_S + 120, START_S + 240, Goes::Well, 100);
    assert!(of.shelf.totals().0 > 0, "it goes on");
    // Within half a minute the journal is written over several times.
    of.checkpoint_every_s = 1;
    let before = of.shelf.shed_for(ShedReason::Overtaken);
    of.serve(START_S + 240, START_S + 360, Goes::Well, 200_000);
    assert!(of.shelf.shed_for(ShedReason::Overtaken) > before);
}

#[test]
fn a_trace_that_is_too_large_is_not_kept_and_that_is_counted() {
    let mut of = Kept::new(Config::default());
    let many = |first: u64| -> Vec<Span> {
        let spans = (0..2_100u64).map(|number| {
            let at = Timestamp::from_secs(START_S).0 + number;
            let parent = (first + number > 0).then_some(1);
            let mut one = span("GET /", id(1), 1, parent, (at, at + 1));
            one.span_id = (first + number + 1).to_be_bytes().to_vec();
            one
        });
        spans.collect()
    };
    of.append(traces("gateway", many(0)), Timestamp::from_secs(START_S));
    for second in [START_S + 1, START_S + 40, START_S + 80] {
        of.checkpoint(Timestamp::from_secs(second));
    }
    assert_eq!((of.shelf.totals().0, of.shelf.shed_for(ShedReason::TooLarge)), (0, 1));
}

#[test]
fn after_a_start_what_the_journal_still_holds_is_looked_at() {
    let mut of = Kept::new(Config::default());
    of.serve(START_S, START_S + 20, Goes::Well, 100);
    // The process ends before anything settled; the next life begins with what is recorded.
    of.keeper = Keeper::new(of.shelf.clone(), &of.config);
    assert_eq!(of.shelf.totals().0, 0);
    for second in [START_S + 60, START_S + 120] {
        of.checkpoint(Timestamp::from_secs(second));
    }
    assert!(of.shelf.totals().0 > 0);
    assert_eq!(of.recorder.records_between(Position(0)..Position(u64::MAX)).count(), 120);
    // From the middle of a record on, the next one is found.
    let all: Vec<Position> =
        of.recorder.records_between(Position(0)..Position(u64::MAX)).map(|record| record.at).collect();
    let middle = Position(all[3].0 + 5);
    let found: Vec<Position> = of.recorder.records_between(middle..all[6]).map(|record| record.at).collect();
    assert_eq!(found, all[4..6]);
}

#[test]
fn a_look_names_each_damaged_keepsake_and_each_damaged_file_of_a_bundle() {
    let mut of = Kept::new(Config::default());
    of.serve(START_S, START_S + 120, Goes::Well, 100);
    of.serve(START_S + 120, START_S + 240, Goes::Wrong, 100);
    let at = |second| Timestamp::from_secs(START_S + second);
    let (evidence, _) = of.diagnose(at(120), at(240), true);
    let (keepsakes, bundles) = (of.folder.path().join("keepsakes"), of.folder.path().join("evidence"));
    // Neither of them is told of.
    std::fs::write(keepsakes.join("half.new"), "being written").unwrap();
    std::fs::create_dir_all(bundles.join(".half.new")).unwrap();
    std::fs::create_dir_all(bundles.join("of somebody else")).unwrap();
    let look = || check(&keepsakes, &bundles).unwrap();
    let whole = look();
    assert!(whole.keepsakes >= 2 && whole.damage.is_empty(), "{whole:?}");
    assert_eq!(whole.bundles, 1);
    let told = |damage: &[Damaged]| -> Vec<(PathBuf, String)> {
        damage.iter().map(|of| (of.path.clone(), of.what.clone())).collect()
    };
    let file = files(&keepsakes).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (changed, missing) =
        (evidence.bundle.path.join("index.html"), evidence.bundle.path.join("logs.parquet"));
    std::fs::write(&changed, "<p>").unwrap();
    std::fs::remove_file(&missing).unwrap();
    let found = look();
    assert_eq!((found.keepsakes, found.bundles), (whole.keepsakes, 1));
    assert_eq!(
        told(&found.damage),
        [
            (file, "its checksum does not fit".to_owned()),
            (changed, "it is not what was written".to_owned()),
            (missing, "it is missing".to_owned()),
        ]
    );
    let manifest = evidence.bundle.path.join("manifest.json");
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(told(&look().damage[1..]), [(manifest, "it is missing".to_owned())]);
    assert_eq!(check(Path::new("/nowhere/a"), Path::new("/nowhere/b")).unwrap(), Checked::default());
}
