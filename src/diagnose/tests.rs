//! Synthetic traces with injected faults, through the whole diagnosis.

use super::*;
use crate::confirm::{Anomaly, AnomalyId, AnomalyState, Examined, Fingerprint, Member, Severity};
use crate::detect::{Band, Interval, Symptom};
use crate::model::{ServiceKey, Signal, SpanKind, Timestamp};
use crate::window::Topology;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status as OtlpStatus};
use prost::Message;
use std::collections::BTreeMap;

pub(super) const START_S: u64 = 1_700_000_000;
pub(super) const MS: u64 = 1_000_000;
pub(super) const ONSET_S: u64 = START_S + 120;
pub(super) const END_S: u64 = ONSET_S + 15;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Fault {
    None,
    SlowDatabase,
    FailingPeer,
    Code,
    BadVersion,
    TrafficDrop,
}

/// A small shop: gateway → orders → (billing → postgresql, stock), orders → a foreign host.
struct Shop {
    random: fastrand::Rng,
    fault: Fault,
    spans: BTreeMap<(String, String), Vec<Span>>,
    logs: BTreeMap<String, Vec<LogRecord>>,
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

impl Shop {
    fn span(
        &mut self,
        service: (&str, &str),
        name: &str,
        kind: i32,
        at: (&[u8], &[u8]),
        times: (u64, u64),
    ) -> Vec<u8> {
        let id = self.random.u64(1..).to_be_bytes().to_vec();
        let span = Span {
            trace_id: at.0.to_vec(),
            span_id: id.clone(),
            parent_span_id: at.1.to_vec(),
            name: name.to_owned(),
            kind,
            start_time_unix_nano: times.0,
            end_time_unix_nano: times.1,
            ..Span::default()
        };
        self.spans.entry((service.0.to_owned(), service.1.to_owned())).or_default().push(span);
        id
    }

    fn last(&mut self, service: &str, version: &str) -> &mut Span {
        self.spans.get_mut(&(service.to_owned(), version.to_owned())).unwrap().last_mut().unwrap()
    }

    fn fail(&mut self, service: &str, version: &str, message: &str) {
        self.last(service, version).status = Some(OtlpStatus { code: 2, message: message.to_owned() });
    }

    fn log(&mut self, service: &str, at: u64, severity: i32, body: String, trace: &[u8], span: &[u8]) {
        let body = Some(AnyValue { value: Some(any_value::Value::StringValue(body)) });
        self.logs.entry(service.to_owned()).or_default().push(LogRecord {
            time_unix_nano: at,
            severity_number: severity,
            body,
            trace_id: trace.to_vec(),
            span_id: span.to_vec(),
            ..LogRecord::default()
        });
    }

    fn request(&mut self, start: u64) {
        let bad = start >= ONSET_S * 1_000_000_000;
        let trace = self.random.u128(1..).to_be_bytes();
        let mut jitter = |base: u64| base * MS + self.random.u64(0..base * MS / 2 + 1);
        let (db, stock, peer, own) = (jitter(4), jitter(6), jitter(10), jitter(2));
        let slow = bad && self.fault == Fault::SlowDatabase;
        let db = if slow { db + 300 * MS } else { db };
        let peer_fails = bad && self.fault == Fault::FailingPeer && self.random.u8(0..10) < 6;
        let code_fails = bad && self.fault == Fault::Code && self.random.u8(0..10) < 4;
        let version =
            if bad && self.fault == Fault::BadVersion && self.random.bool() { "2.0" } else { "1.0" };
        let deploy_fails = version == "2.0" && self.random.u8(0..10) < 7;
        let failed = peer_fails || code_fails || deploy_fails;
        let mut at = start + 2 * own;
        let (billing_start, billing_end) = (at, at + db + 2 * own);
        let (stock_start, stock_end) = (billing_end, billing_end + stock);
        let (peer_start, peer_end) = (stock_end, stock_end + peer);
        at = peer_end + own;
        let gateway = self.span(("gateway", "1.0"), "POST /order", 2, (&trace, &[]), (start, at + own));
        if failed {
            self.fail("gateway", "1.0", "");
        }
        let orders = self.span(("orders", "1.0"), "POST /orders", 2, (&trace, &gateway), (start + own, at));
        if failed {
            self.fail("orders", "1.0", "");
        }
        let client =
            self.span(("orders", "1.0"), "POST /bill", 3, (&trace, &orders), (billing_start, billing_end));
        if code_fails || deploy_fails {
            self.fail("orders", "1.0", "500");
        }
        let billing = self.span(
            ("billing", version),
            "POST /bill",
            2,
            (&trace, &client),
            (billing_start + own / 4, billing_end - own / 4),
        );
        if code_fails || deploy_fails {
            self.fail("billing", version, "NullPointerException: <b>invoice</b>");
        }
        if code_fails {
            self.log(
                "billing",
                billing_end - MS,
                17,
                format!("cannot bill order {}: invoice is null", start % 997),
                &trace,
                &billing,
            );
        } else {
            self.span(
                ("billing", version),
                "SELECT accounts",
                3,
                (&trace, &billing),
                (billing_start + own, billing_start + own + db),
            );
            self.last("billing", version).attributes.push(text("db.system.name", "postgresql"));
        }
        self.log(
            "billing",
            billing_start + MS,
            9,
            format!("billing order {}", start % 997),
            &trace,
            &billing,
        );
        self.span(("stock", "1.0"), "GET /stock", 2, (&trace, &orders), (stock_start, stock_end));
        self.span(("orders", "1.0"), "POST /ship", 3, (&trace, &orders), (peer_start, peer_end));
        self.last("orders", "1.0").attributes.push(text("server.address", "carrier.example"));
        self.last("orders", "1.0")
            .attributes
            .push(text("http.request.header.authorization", "Bearer hunter2"));
        if peer_fails {
            self.fail("orders", "1.0", "connection refused");
        }
    }
}

fn shop(fault: Fault, seed: u64) -> Memory {
    shop_until(fault, seed, END_S)
}

pub(super) fn shop_until(fault: Fault, seed: u64, end_s: u64) -> Memory {
    let mut shop =
        Shop { random: fastrand::Rng::with_seed(seed), fault, spans: BTreeMap::new(), logs: BTreeMap::new() };
    let mut at = START_S * 1_000_000_000;
    while at < end_s * 1_000_000_000 {
        if !(fault == Fault::TrafficDrop && at >= ONSET_S * 1_000_000_000) {
            shop.request(at);
        }
        at += 40 * MS + shop.random.u64(0..60 * MS);
    }
    let resource = |service: &str, version: &str| {
        Some(OtlpResource {
            attributes: vec![text("service.name", service), text("service.version", version)],
            ..OtlpResource::default()
        })
    };
    let spans = shop.spans.into_iter().map(|((service, version), spans)| ResourceSpans {
        resource: resource(&service, &version),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    let logs = shop.logs.into_iter().map(|(service, log_records)| ResourceLogs {
        resource: resource(&service, ""),
        scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    });
    let spans = ExportTraceServiceRequest { resource_spans: spans.collect() }.encode_to_vec();
    let logs = ExportLogsServiceRequest { resource_logs: logs.collect() }.encode_to_vec();
    let at = Timestamp::from_secs(START_S);
    Memory { requests: vec![(Signal::Traces, Bytes::from(spans), at), (Signal::Logs, Bytes::from(logs), at)] }
}

#[test]
fn values_of_secret_keys_are_hidden_whole_at_any_depth() {
    let string = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) };
    let list = |values: Vec<AnyValue>| AnyValue {
        value: Some(any_value::Value::ArrayValue(opentelemetry_proto::tonic::common::v1::ArrayValue {
            values,
        })),
    };
    let map = |pairs: Vec<(&str, AnyValue)>| AnyValue {
        value: Some(any_value::Value::KvlistValue(opentelemetry_proto::tonic::common::v1::KeyValueList {
            values: pairs
                .into_iter()
                .map(|(key, value)| KeyValue {
                    key: key.to_owned(),
                    value: Some(value),
                    ..KeyValue::default()
                })
                .collect(),
        })),
    };
    let told = map(vec![
        (
            "users",
            list(vec![map(vec![("Password", string("one two, three; four")), ("name", string("ada b"))])]),
        ),
        ("secrets", list(vec![string("five six"), map(vec![("a", string("seven eight"))])])),
    ]);
    let long = format!("{}https://ada:nine@h/", "x".repeat(1_024 - "https://ada:ni".len()));
    let record = LogRecord {
        time_unix_nano: START_S * 1_000_000_000,
        body: Some(told.clone()),
        attributes: vec![
            KeyValue { key: "told".to_owned(), value: Some(told), ..KeyValue::default() },
            text("long", &long),
        ],
        ..LogRecord::default()
    };
    let body = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    }
    .encode_to_vec();
    let mut gather = Gather::new(Limits::default());
    decode(Signal::Logs, &body, &Config::default().redaction(), &|_| true, &mut gather).unwrap();
    let rows = gather.finish();
    let shown = "{users=[{Password=[redacted],name=ada b}],secrets=[redacted]}";
    assert_eq!(&*rows.logs[0].body, shown);
    let values: Vec<&str> = rows.logs[0].attributes.iter().map(|(_, value)| &**value).collect();
    assert_eq!(values[1], shown);
    assert!(values[0].ends_with("https://ada:[r"), "no part of what is cut: {}", values[0]);
}

pub(super) fn rows(source: &Memory) -> Rows {
    let mut gather = Gather::new(Limits::default());
    for (signal, body, _) in &source.requests {
        decode(*signal, body, &Redaction::default(), &|_| true, &mut gather).unwrap();
    }
    gather.finish()
}

fn causes(fault: Fault, seed: u64) -> Vec<Cause> {
    let baseline = (Timestamp::from_secs(START_S), Timestamp::from_secs(ONSET_S));
    explain(&rows(&shop(fault, seed)), Timestamp::from_secs(END_S), Some(baseline)).causes
}

pub(super) fn anomaly(symptom: Symptom) -> Anomaly {
    let onset =
        Interval { earliest: Timestamp::from_secs(ONSET_S), latest: Timestamp::from_secs(ONSET_S + 1) };
    let service = ServiceKey::named("orders");
    Anomaly {
        id: AnomalyId("00112233445566aa".into()),
        fingerprint: Fingerprint("ff".into()),
        service: service.clone(),
        symptom,
        severity: Severity::Page,
        state: AnomalyState::Confirmed,
        opened_at: onset.latest,
        fired_at: Some(onset.latest),
        ended_at: None,
        onset,
        members: vec![Member {
            service,
            signal: "POST /orders".into(),
            attributes: vec![],
            symptom,
            series: None,
            observed: 0.4,
            expected: Band { low: 0.0, high: 0.01 },
            unit: "1".into(),
            tail: 1e-9,
            log_evidence: 20.0,
            onset,
            last_seen: Timestamp::from_secs(END_S),
            recovered: false,
        }],
        p_value: 1e-9,
        suspects: vec![],
        merged_into: None,
        suppressed_by: None,
        budget_draw: None,
        examined: Examined::default(),
        title: "orders: 40 % of <script>POST /orders</script> fail".into(),
        revision: 1,
    }
}

/// The evidence of an alarm, without changes and topology, as of a second.
pub(super) fn diagnosed(
    config: Config,
    directory: &std::path::Path,
    anomaly: &Anomaly,
    (pass, now_s): (Pass, u64),
    source: &dyn Source,
) -> Evidence {
    let case = Case {
        anomaly,
        changes: &[],
        topology: &Topology::default(),
        pass,
        now: Timestamp::from_secs(now_s),
        collected: &[],
        counted: &[],
    };
    Diagnosis::new(config, directory).run(&case, source).unwrap()
}

fn run(fault: Fault, symptom: Symptom, directory: &std::path::Path) -> Evidence {
    diagnosed(Config::default(), directory, &anomaly(symptom), (Pass::Complete, END_S), &shop(fault, 7))
}

/// What a shop in which nothing is wrong sent.
pub(super) fn healthy_shop() -> Memory {
    shop(Fault::None, 7)
}

#[test]
fn evidence_of_a_moment_is_as_that_of_an_alarm_and_says_that_there_was_none() {
    let directory = tempfile::tempdir().unwrap();
    let diagnosis = Diagnosis::new(Config::default(), directory.path());
    let at = Timestamp::from_secs(END_S);
    let orders = ServiceKey::named("orders");
    for (fault, service) in [(Fault::SlowDatabase, Some(&orders)), (Fault::Code, None)] {
        let inquiry = Inquiry { at, service, healthy: None, faults: &[] };
        let made = diagnosis.of_moment(&inquiry, &[], &shop(fault, 7)).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is written");
        let names: Vec<&str> = made.files.iter().map(|(name, _)| name.as_str()).collect();
        let alarmed = run(fault, Symptom::Latency, &directory.path().join("alarmed"));
        assert_eq!(names, alarmed.bundle.files.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>());
        std::fs::remove_dir_all(directory.path().join("alarmed")).unwrap();
        let written = tempfile::tempdir().unwrap();
        for (name, bytes) in &made.files {
            std::fs::write(written.path().join(name), bytes).unwrap();
        }
        let bundle = Bundle::open(written.path()).unwrap();
        let asked = at_moment(&shop(fault, 7), &inquiry, &[], &Config::default()).unwrap();
        assert_eq!(bundle.told, asked.causes, "{fault:?}: with evidence and without");
        let page = std::fs::read_to_string(written.path().join("index.html")).unwrap();
        assert!(page.contains("looked at without an alarm") && !page.contains("Why you were told"));
        assert!(made.manifest.traces > 10, "{:?}", made.manifest);
    }
    let inquiry = Inquiry { at, service: None, healthy: None, faults: &[] };
    let made = diagnosis.of_moment(&inquiry, &[], &healthy_shop()).unwrap();
    let causes = made.files.iter().find(|(name, _)| name == "causes.json").unwrap();
    let causes: serde_json::Value = serde_json::from_slice(&causes.1).unwrap();
    assert_eq!(causes["causes"], serde_json::json!([]));
}

#[test]
fn a_moment_is_told_with_the_deploy_before_it_with_evidence_and_without() {
    let deploy = crate::context::Change {
        id: crate::context::ChangeId("1".into()),
        at: Timestamp::from_secs(ONSET_S - 5),
        service: Some(ServiceKey::named("billing")),
        kind: crate::context::ChangeKind::Deploy,
        title: "billing 1.0 → 1.1".into(),
        inferred: false,
        version: None,
    };
    let source = shop_until(Fault::Code, 7, ONSET_S + 120);
    let inquiry =
        Inquiry { at: Timestamp::from_secs(ONSET_S + 120), service: None, healthy: None, faults: &[] };
    let told = |changes: &[crate::context::Change]| {
        at_moment(&source, &inquiry, changes, &Config::default()).unwrap().causes
    };
    assert_eq!((told(&[])[0].service.as_str(), told(&[])[0].kind), ("billing", CauseKind::Code));
    let causes = told(std::slice::from_ref(&deploy));
    assert_eq!((causes[0].service.as_str(), causes[0].kind), ("billing", CauseKind::Deploy));
    let directory = tempfile::tempdir().unwrap();
    let diagnosis = Diagnosis::new(Config::default(), directory.path());
    let made = diagnosis.of_moment(&inquiry, &[deploy], &source).unwrap();
    let told = made.files.iter().find(|(name, _)| name == "causes.json").unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.1).unwrap();
    assert_eq!(told["causes"][0]["kind"], "deploy");
    // Again from its files.
    let files = made.files.into_iter().collect();
    let again = Bundle::of(&files).unwrap().explain();
    assert_eq!((again.causes[0].service.as_str(), again.causes[0].kind), ("billing", CauseKind::Deploy));
}

#[test]
fn a_deploy_is_named_again_from_a_bundle_and_one_without_that_file_is_read() {
    let deploy = crate::context::Change {
        id: crate::context::ChangeId("1".into()),
        at: Timestamp::from_secs(ONSET_S - 5),
        service: Some(ServiceKey::named("billing")),
        kind: crate::context::ChangeKind::Deploy,
        title: "billing 1.0 → 1.1".into(),
        inferred: false,
        version: None,
    };
    let directory = tempfile::tempdir().unwrap();
    let case = Case {
        anomaly: &anomaly(Symptom::Errors),
        changes: std::slice::from_ref(&deploy),
        topology: &Topology::default(),
        pass: Pass::Complete,
        now: Timestamp::from_secs(END_S),
        collected: &[],
        counted: &[],
    };
    let evidence =
        Diagnosis::new(Config::default(), directory.path()).run(&case, &shop(Fault::Code, 7)).unwrap();
    let mut files = archive::read(&evidence.bundle.path).unwrap();
    let again = |files: &archive::Files| {
        let found = Bundle::of(files).unwrap().explain();
        (found.causes[0].service.clone(), found.causes[0].kind, found.calls)
    };
    let (service, kind, calls) = again(&files);
    assert_eq!((service.as_str(), kind), ("billing", CauseKind::Deploy));
    assert!(calls.contains(&(ServiceKey::named("orders"), ServiceKey::named("billing"))), "{calls:?}");
    // As those of earlier versions are.
    files.remove("context.json");
    let changed = Bundle::of(&files).unwrap_err().to_string();
    assert!(changed.contains("context.json: it is missing"), "{changed}");
    let mut manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    manifest["files"].as_array_mut().unwrap().retain(|file| file["name"] != "context.json");
    files.insert("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap());
    assert_eq!(again(&files).1, CauseKind::Code);
}

#[test]
fn what_metrics_said_counts_where_their_points_are_not_at_hand() {
    let clue = clue::Clue {
        service: ServiceKey::named("stock"),
        operation: None,
        mechanism: clue::Mechanism::Resource,
        weight: 6.0,
        text: "process.cpu.utilization is at 98 %".into(),
    };
    let known = explain::Known { metrics: Some(vec![clue]), past_s: 600.0, ..explain::Known::default() };
    let nothing = Rows::default();
    let found = explain::compare_with(&nothing, &nothing, Timestamp::from_secs(ONSET_S), known);
    assert_eq!((found.causes[0].service.as_str(), found.causes[0].kind), ("stock", CauseKind::Saturation));
    assert_eq!(explain::compare(&nothing, &nothing, Timestamp::from_secs(ONSET_S)).metrics, None);
}

#[test]
fn a_page_claims_no_more_than_is_known() {
    let page = |fault, symptom, now_s| {
        let directory = tempfile::tempdir().unwrap();
        let when = (Pass::Complete, now_s);
        let evidence =
            diagnosed(Config::default(), directory.path(), &anomaly(symptom), when, &shop(fault, 7));
        std::fs::read_to_string(evidence.bundle.path.join("index.html")).unwrap()
    };
    let unclear = page(Fault::None, Symptom::Errors, END_S + 100);
    assert!(unclear.contains("(best guess)") && !unclear.contains("likely</span>"), "{unclear}");
    // The chart ends where what is drawn does, ten seconds after the last bad request.
    assert!(unclear.contains("<span>22:15:45</span>") && unclear.contains("as of 22:17:15"), "{unclear}");
    assert!(page(Fault::Code, Symptom::Errors, END_S).contains("likely</span>"));
    let missed = page(Fault::TrafficDrop, Symptom::MissedJob, END_S);
    assert!(missed.contains("last run among them") && missed.contains("A run was due"), "{missed}");
}

#[test]
fn charts_go_on_with_what_windows_counted_and_mark_the_faulty_period() {
    let anomaly = anomaly(Symptom::Errors);
    let until = anomaly.seen_until(Timestamp::from_secs(END_S + 100));
    let first = until.secs() - until.secs() % 10;
    // The first is of before that; of the last, no request fails.
    let counted: Vec<Counted> = (0..9)
        .map(|number| Counted {
            start: Timestamp::from_secs(first - 10 + number * 10),
            end: Timestamp::from_secs(first + number * 10),
            requests: if number == 0 { 1_000_000 } else { 100 },
            errors: 0,
            p50_ns: 1e6,
            p99_ns: 2e6,
        })
        .collect();
    let page = |counted: &[Counted]| {
        let directory = tempfile::tempdir().unwrap();
        let case = Case {
            anomaly: &anomaly,
            changes: &[],
            topology: &Topology::default(),
            pass: Pass::Complete,
            now: Timestamp::from_secs(END_S + 100),
            collected: &[],
            counted,
        };
        let diagnosis = Diagnosis::new(Config::default(), directory.path());
        let evidence = diagnosis.run(&case, &shop(Fault::Code, 7)).unwrap();
        std::fs::read_to_string(evidence.bundle.path.join("index.html")).unwrap()
    };
    let end = |seconds: u64| Timestamp::from_secs(seconds).to_string()[11..19].to_owned();
    let (short, long) = (page(&[]), page(&counted));
    assert!(short.contains(&format!("<span>{}</span>", end(until.secs()))), "{short}");
    assert!(long.contains(&format!("<span>{}</span>", end(first + 80))), "{long}");
    // Where the chart ends with it, that is not said again.
    assert!(long.contains(&format!("tinted until {}", end(until.secs()))), "{long}");
    assert!(short.contains("class=\"faulty\"") && !short.contains("tinted until"), "{short}");
    let points = |page: &str| {
        page.split("polyline class=\"bad\"").nth(1).unwrap().split('"').nth(1).unwrap().split(' ').count()
    };
    let later = counted.iter().filter(|counted| counted.start >= until).count();
    assert!(
        later >= 7 && points(&long) == points(&short) + later,
        "{} and {}",
        points(&short),
        points(&long)
    );
    assert!(!long.contains("100000 "), "what was captured is not counted again: {long}");
}

#[test]
fn what_is_told_of_the_alarm_itself_holds_no_secret_and_fits_the_rows() {
    let config = Config { redact_patterns: vec!["bill".into()], ..Config::default() };
    let mut anomaly = anomaly(Symptom::Errors);
    anomaly.title = "orders: 40 % of “POST /bill” fail".into();
    anomaly.members[0].signal = "POST /bill".into();
    let directory = tempfile::tempdir().unwrap();
    let when = (Pass::Complete, END_S);
    let evidence = diagnosed(config.clone(), directory.path(), &anomaly, when, &shop(Fault::Code, 7));
    for name in ["index.html", "manifest.json", "causes.json"] {
        let content = std::fs::read_to_string(evidence.bundle.path.join(name)).unwrap();
        assert!(
            !content.contains("/bill”") && !content.contains("/bill\"") && !content.contains("/bill<"),
            "{name}"
        );
    }
    let shown = config.redaction().anomaly(&anomaly);
    assert_eq!(shown.title, "orders: 40 % of “POST /[redacted]” fail");
    let bundle = Bundle::open(&evidence.bundle.path).unwrap();
    assert_eq!(bundle.anomaly.members[0].signal, "POST /[redacted]");
    let in_scope = bundle.faulty.spans.iter().filter(|span| {
        *span.service() == anomaly.service && *span.operation == *bundle.anomaly.members[0].signal
    });
    assert!(in_scope.count() > 0, "what the alarm is about is found by its name");
}

#[test]
fn minutes_in_which_something_was_known_to_be_wrong_are_not_what_is_healthy() {
    let at = Timestamp::from_secs(ONSET_S + 400);
    let source = shop_until(Fault::SlowDatabase, 7, ONSET_S + 400);
    let onset = Timestamp::from_secs(ONSET_S);
    let named = |healthy, faults: &[std::ops::Range<Timestamp>]| {
        let inquiry = Inquiry { at, service: None, healthy, faults };
        at_moment(&source, &inquiry, &[], &Config::default()).unwrap()
    };
    // The fault goes on for longer than what is looked at, so most of the ten minutes before is of it, too.
    assert_eq!(named(None, &[]).causes, []);
    let known = named(None, &[onset..at]);
    assert_eq!(known.healthy_times.end, onset);
    assert_eq!(known.causes[0].service, "billing", "{:#?}", known.causes);
    // So are minutes that somebody chose.
    let chosen = Timestamp::from_secs(START_S)..onset;
    let chosen_so = named(Some(chosen.clone()), &[]);
    assert_eq!(
        (chosen_so.healthy_times, &chosen_so.causes[0].service),
        (chosen.clone(), &"billing".to_owned())
    );
    // Of both periods each row is there once, and nothing of between.
    let rows = rows(&source);
    let within = |times: &std::ops::Range<Timestamp>| {
        rows.spans.iter().filter(|span| times.contains(&span.end)).count()
            + rows.logs.iter().filter(|log| times.contains(&log.time)).count()
    };
    assert_eq!(chosen_so.healthy_rows, within(&chosen) as u64);
}

#[test]
fn each_fault_is_blamed_on_its_service_with_its_kind() {
    let cases = [
        (Fault::SlowDatabase, "billing", CauseKind::Database),
        (Fault::FailingPeer, "orders", CauseKind::Dependency),
        (Fault::Code, "billing", CauseKind::Code),
        (Fault::BadVersion, "billing", CauseKind::Deploy),
    ];
    for (fault, service, kind) in cases {
        for seed in 0..3 {
            let causes = causes(fault, seed);
            let first = causes.first().unwrap_or_else(|| panic!("{fault:?}: nothing named"));
            assert_eq!(
                (first.service.as_str(), first.kind),
                (service, kind),
                "{fault:?} {seed}: {causes:#?}"
            );
            assert!(first.score > 0.5, "{fault:?} {seed}: {causes:#?}");
        }
    }
}

#[test]
fn nothing_is_named_when_nothing_is_wrong() {
    let named = (0..10).filter(|&seed| !causes(Fault::None, seed).is_empty()).count();
    assert_eq!(named, 0);
}

#[test]
fn nothing_after_the_moment_is_used() {
    let all = rows(&shop(Fault::Code, 3));
    let before = Timestamp::from_secs(ONSET_S - 1);
    let baseline = Some((Timestamp::from_secs(START_S), Timestamp::from_secs(ONSET_S - 30)));
    assert!(explain(&all, before, baseline).causes.is_empty());
}

#[test]
fn a_bundle_holds_the_faulty_traces_with_their_logs_and_is_equal_for_equal_input() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let evidence = run(Fault::Code, Symptom::Errors, a.path());
    let again = run(Fault::Code, Symptom::Errors, b.path());
    assert_eq!(evidence.bundle.files, again.bundle.files);
    assert!(evidence.bundle.failed_traces >= 20, "{:?}", evidence.bundle);
    assert!(evidence.bundle.log_records >= evidence.bundle.traces);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(evidence.bundle.path.join("manifest.json")).unwrap()).unwrap();
    for (name, bytes, hash) in &evidence.bundle.files {
        let content = std::fs::read(evidence.bundle.path.join(name)).unwrap();
        assert_eq!(
            (content.len() as u64, blake3::hash(&content).to_hex().to_string()),
            (*bytes, hash.clone())
        );
        if name.ends_with(".parquet") {
            let reader =
                parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(Bytes::from(content))
                    .unwrap();
            let rows: usize = reader.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum();
            assert!(rows > 0, "{name}");
        }
    }
    assert_eq!(manifest["traces"], evidence.bundle.traces);
    let left: Vec<_> = std::fs::read_dir(a.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the bundle itself is left");
}

#[test]
fn a_bundle_is_diagnosed_again_without_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    for (fault, symptom, service, kind) in [
        (Fault::SlowDatabase, Symptom::Latency, "billing", CauseKind::Database),
        (Fault::FailingPeer, Symptom::Errors, "orders", CauseKind::Dependency),
        (Fault::Code, Symptom::Errors, "billing", CauseKind::Code),
    ] {
        let evidence = run(fault, symptom, directory.path());
        let causes = std::fs::read(evidence.bundle.path.join("causes.json")).unwrap();
        let causes: serde_json::Value = serde_json::from_slice(&causes).unwrap();
        assert_eq!(causes["divergence"]["service"], service, "{fault:?}: {causes:#}");
        if fault == Fault::Code {
            assert!(causes["lines"][0]["line"].as_str().unwrap().contains("cannot bill order"), "{causes:#}");
        }
        let packed = directory.path().join("bundle.tar.zst");
        pack(&evidence.bundle.path, &packed).unwrap();
        for path in [&evidence.bundle.path, &packed] {
            let bundle = Bundle::open(path).unwrap();
            assert_eq!(summary(&bundle.told), summary(&evidence.causes));
            let again = bundle.explain();
            assert_eq!(
                (again.causes[0].service.as_str(), again.causes[0].kind),
                (service, kind),
                "{:#?}",
                again.causes
            );
        }
        std::fs::write(evidence.bundle.path.join("causes.json"), "{\"causes\": []}").unwrap();
        let changed = Bundle::open(&evidence.bundle.path).unwrap_err().to_string();
        assert!(changed.contains("causes.json: it is not what was written"), "{changed}");
    }
}

#[test]
fn the_page_escapes_what_telemetry_says_and_shows_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let evidence = run(Fault::Code, Symptom::Errors, directory.path());
    let page = std::fs::read_to_string(evidence.bundle.path.join("index.html")).unwrap();
    assert!(!page.contains("<script>") && !page.contains("<b>invoice"));
    assert!(page.contains("billing") && page.contains("cannot bill order"));
    assert!(page.contains("shaded: usual, up to 1 %") && page.contains("<rect class=\"band\""), "{page}");
    assert!(page.contains("Why you were told") && page.contains("barograph exempt known 00112233445566aa"));
    for (name, ..) in &evidence.bundle.files {
        let content = std::fs::read(evidence.bundle.path.join(name)).unwrap();
        assert!(!content.windows(7).any(|window| window == b"hunter2"), "{name}");
    }
}

#[test]
fn what_goes_on_elsewhere_is_not_blamed_for_a_rule_about_what_sends_nothing() {
    let source = shop(Fault::Code, 7);
    let rows = rows(&source);
    let split = Timestamp::from_secs(ONSET_S);
    let (healthy, faulty) = (
        rows.between(Timestamp::from_secs(START_S), split),
        rows.between(split, Timestamp::from_secs(END_S)),
    );
    let named = |service: &str, calls: &[(&str, &str)]| {
        let mut anomaly = anomaly(Symptom::Rule);
        anomaly.service = ServiceKey::named(service);
        anomaly.members[0].service = ServiceKey::named(service);
        let key = |&(client, server): &(&str, &str)| (ServiceKey::named(client), ServiceKey::named(server));
        let calls = calls.iter().map(key).collect();
        let known = explain::Known { calls, past_s: 600.0, ..explain::Known::default() };
        let found = super::diagnosis::judge(&anomaly, &healthy, &faulty, split, known);
        (found.causes[0].service.clone(), found.causes[0].kind)
    };
    assert_eq!(named("printer", &[]), ("printer".to_owned(), CauseKind::Inconclusive));
    assert_eq!(named("printer", &[("printer", "orders")]).0, "billing", "it is called by what is unwell");
    assert_eq!(named("orders", &[]).0, "billing");
}

#[test]
fn a_drop_of_traffic_shows_the_last_good_traces_and_blames_the_entry() {
    let directory = tempfile::tempdir().unwrap();
    let evidence = run(Fault::TrafficDrop, Symptom::TrafficDrop, directory.path());
    assert_eq!(evidence.causes[0].kind, CauseKind::Traffic);
    assert!(evidence.bundle.traces >= 20);
}

#[test]
fn the_second_pass_replaces_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let first = run(Fault::SlowDatabase, Symptom::Latency, directory.path());
    let second = run(Fault::SlowDatabase, Symptom::Latency, directory.path());
    assert_eq!(first.bundle.path, second.bundle.path);
    assert!(summary(&second.causes).starts_with("billing (database, "), "{}", summary(&second.causes));
}

#[test]
fn data_that_do_not_come_are_told_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let evidence = run(Fault::None, Symptom::Data, directory.path());
    assert_eq!((evidence.causes[0].service.as_str(), evidence.causes[0].kind), ("orders", CauseKind::Data));
}

#[test]
fn odd_data_further_down_are_not_why_requests_stay_away() {
    let mut anomaly = anomaly(Symptom::TrafficDrop);
    let mut odd = anomaly.members[0].clone();
    (odd.service, odd.symptom) = (ServiceKey::named("stock"), Symptom::Data);
    anomaly.members.push(odd);
    let clues = diagnosis::alarm(&anomaly);
    let weight = |name: &str| clues.iter().find(|clue| &*clue.service.name == name).unwrap().weight;
    assert!(weight("orders") > 2.0 * weight("stock"), "{clues:?}");
}

#[test]
fn the_first_divergence_is_where_the_fault_is() {
    for (fault, service, operation) in
        [(Fault::SlowDatabase, "billing", "SELECT accounts"), (Fault::FailingPeer, "orders", "POST /ship")]
    {
        let all = rows(&shop(fault, 11));
        let split = Timestamp::from_secs(ONSET_S);
        let (good, bad) = (all.between(Timestamp::ZERO, split), all.between(split, Timestamp::MAX));
        let pair = span_clues::Pair::new(&good.spans, &bad.spans);
        let mut right = 0;
        let tops: Vec<usize> = pair
            .bad
            .roots()
            .filter(|&at| pair.bad.span(at).unwrap().start >= split)
            .filter(|&at| fault != Fault::FailingPeer || pair.bad.span(at).unwrap().failed())
            .collect();
        for &top in &tops {
            let twin = twin::twin(&pair.bad, top, &pair.good).unwrap();
            let row = &twin.rows[twin.first_divergence.unwrap()];
            let span = pair.bad.span(row.bad.unwrap()).unwrap();
            right += usize::from(&*span.service().name == service && &*span.operation == operation);
        }
        assert!(right * 10 >= tops.len() * 9, "{fault:?}: {right} of {}", tops.len());
    }
}

/// Spans of five operations, each with its route, and with 200 attributes of two to twenty values each. With `planted`,
/// those of one operation with one value of one of them fail three times in four, and one in fifty of all others;
/// without, one in ten of all.
fn attributed(seed: u64, planted: Option<(usize, &str)>) -> Vec<SpanRow> {
    let mut random = fastrand::Rng::with_seed(seed);
    let template = rows(&shop(Fault::None, 5)).spans.swap_remove(0);
    let keys: Vec<std::sync::Arc<str>> = (0..200).map(|n| format!("key.{n:03}").into()).collect();
    let values: Vec<std::sync::Arc<str>> = (0..20).map(|n: u32| n.to_string().into()).collect();
    let operations: Vec<std::sync::Arc<str>> = (0..5).map(|n: u32| format!("GET /{n}").into()).collect();
    (0..1_500)
        .map(|number| {
            let mut span = template.clone();
            let operation = number % operations.len();
            span.operation = operations[operation].clone();
            span.attributes = keys
                .iter()
                .enumerate()
                .map(|(n, key)| (key.clone(), values[random.usize(0..2 + n % 19)].clone()))
                .collect();
            let failing = match planted {
                Some((key, value)) if operation == 2 && &*span.attributes[key].1 == value => {
                    random.u8(0..4) != 0
                }
                Some(_) => random.u8(0..50) == 0,
                None => random.u8(0..10) == 0,
            };
            span.attributes.push(("route".into(), span.operation.clone()));
            span.status = if failing { Status::Error } else { Status::Unset };
            span
        })
        .collect()
}

#[test]
fn a_planted_attribute_of_two_hundred_is_ranked_first_and_none_is_named_without() {
    let contrasts = |spans: &[SpanRow]| {
        contrast::contrast(
            spans.iter().filter(|span| span.failed()),
            spans.iter().filter(|span| !span.failed()),
        )
    };
    let seeds = 20usize;
    let (mut first, mut quiet) = (0, 0);
    for seed in 0..seeds {
        let key = seed * 10 % 200;
        let found = contrasts(&attributed(seed as u64, Some((key, "1"))));
        let wanted = format!("key.{key:03}");
        first += usize::from(found.first().is_some_and(|best| *best.key == *wanted && &*best.value == "1"));
        quiet += usize::from(contrasts(&attributed(1_000 + seed as u64, None)).is_empty());
    }
    assert!(first * 100 >= seeds * 95, "ranked first in {first} of {seeds}");
    assert!(quiet * 100 >= seeds * 95, "nothing named in {quiet} of {seeds}");
}

#[test]
fn an_operation_without_good_spans_is_compared_with_those_of_all() {
    let mut spans = attributed(1, None);
    for span in &mut spans {
        let fails = &*span.operation == "GET /2";
        span.status = if fails { Status::Error } else { Status::Unset };
    }
    let (bad, good): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.failed());
    let found = contrast::contrast(bad.into_iter(), good.into_iter());
    let found: Vec<_> = found.iter().map(|found| (&*found.key, &*found.value, found.good.hits)).collect();
    assert_eq!(found, [("route", "GET /2", 0)]);
}

#[test]
fn critical_path_parts_add_up_and_self_time_is_exact() {
    let all = rows(&shop(Fault::None, 1));
    let mut operations = forest::Operations::default();
    let forest = forest::Forest::new(&all.spans, &mut operations);
    for top in forest.roots() {
        let sum: u64 = forest.critical_path(top).iter().map(|(_, ns)| ns).sum();
        assert_eq!(sum, forest.span(top).unwrap().duration_ns());
    }
    assert!(forest.spans.iter().all(|span| span.kind != SpanKind::Unspecified));
}
