//! The API over a real connection, with sources whose every number is known.

use super::*;
use crate::access::Access;
use crate::aggregate::{Cell, EdgeCell, Lines, Requests, Weight};
use crate::alert::{Alert, AlertState, Impact};
use crate::api::v1;
use crate::confirm::{Anomaly, AnomalyId, AnomalyState, Examined, Fingerprint, Member, Severity};
use crate::detect::{Band, Interval, Symptom};
use crate::diagnose::{Evidence, Manifest, Pass};
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanKind, SystemClock, Timestamp, WindowId};
use crate::store::{Ledger, LedgerRecord, Stage};
use crate::window::{EdgeKey, Node, Registry, SealedWindow};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::Channel;

const NOW: Timestamp = Timestamp::from_secs(1_714_565_520);

/// Sealed windows, each 10 s.
struct Filled(Vec<SealedWindow>);

impl Windows for Filled {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn visit(
        &self,
        since: Timestamp,
        until: Timestamp,
        visit: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        for window in &self.0 {
            if window.id.start() < until
                && window.id.end() > since
                && visit(Piece::sealed(window, window.id.end())).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

struct InMemory(Ledger);

impl Records for InMemory {
    fn read_after(&self, sequence: u64, at_most: usize) -> Result<Vec<LedgerRecord>, String> {
        self.0.read_from(sequence + 1, at_most).map_err(|error| error.to_string())
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.0.watch()
    }

    fn append(
        &self,
        at: Timestamp,
        stage: Stage,
        object: &str,
        key: &str,
        payload: serde_json::Value,
    ) -> Result<Option<u64>, String> {
        self.0.append(at, stage, object, key, &payload).map_err(|error| error.to_string())
    }
}

struct Still;

impl Objectives for Still {
    fn slos(&self) -> Vec<v1::Slo> {
        Vec::new()
    }
}

impl Condition for Still {
    fn unready(&self) -> Option<String> {
        None
    }

    fn status(&self) -> v1::Status {
        v1::Status { version: "0".into(), ready: true, ..v1::Status::default() }
    }
}

fn key(service: &ServiceKey, signal: Signal, operation: &str, kind: SpanKind, entry: bool) -> SeriesKey {
    SeriesKey {
        service: service.clone(),
        signal,
        operation: operation.into(),
        kind,
        entry,
        unit: "".into(),
        attributes: Vec::new(),
    }
}

fn requests(durations_ms: &[u64], errors: u64) -> Cell {
    let mut cell = Requests { errors, errors_weight: Weight(errors << 16), ..Requests::default() };
    for ms in durations_ms {
        cell.seen += 1;
        cell.weight.add(Weight::ONE);
        cell.latency.record((ms * 1_000_000) as f64);
    }
    Cell::Requests(Box::new(cell))
}

fn window(id: WindowId, mut cells: Vec<(SeriesId, Cell)>) -> SealedWindow {
    cells.sort_by_key(|(id, _)| *id);
    SealedWindow { id, cells: cells.into_iter().collect(), ..SealedWindow::default() }
}

/// Two services of one name, with roots, inner spans and log records, in two windows and an amendment.
pub(super) fn sources(ledger: Ledger, evidence: &Path) -> Sources {
    let registry = Registry::default();
    let add = |key: SeriesKey| {
        let id = key.id();
        registry.add(id, Arc::new(key), 0);
        id
    };
    let (live, test) = (ServiceKey::new("prod", "", "cart"), ServiceKey::new("test", "", "cart"));
    let served = add(key(&live, Signal::Traces, "GET /cart", SpanKind::Server, true));
    let inner = add(key(&live, Signal::Traces, "SELECT", SpanKind::Client, false));
    let lines = add(key(&live, Signal::Logs, "", SpanKind::Unspecified, false));
    let other = add(key(&test, Signal::Traces, "GET /cart", SpanKind::Server, true));
    let first = WindowId::of(NOW.saturating_sub(Duration::from_secs(60)));
    let logs = Cell::Lines(Lines { by_severity: [0, 0, 0, 5, 0, 2, 0] });
    let mut one = window(
        first,
        vec![
            (served, requests(&[10, 20, 30, 40], 1)),
            (inner, requests(&[5; 9], 0)),
            (lines, logs),
            (other, requests(&[7], 0)),
        ],
    );
    let edge = EdgeKey {
        client: live.clone(),
        server: Node::Peer { address: "db:5432".into(), system: "postgresql".into() },
        kind: SpanKind::Client,
    };
    one.edges = vec![(Arc::new(edge), EdgeCell { requests: 9, errors: 2, ..EdgeCell::default() })];
    let windows = vec![
        one,
        window(first, vec![(served, requests(&[50], 1))]),
        window(first.next().next(), vec![(served, requests(&[1_000], 0))]),
    ];
    Sources {
        windows: Arc::new(Filled(windows)),
        registry: Arc::new(registry),
        records: Arc::new(InMemory(ledger)),
        objectives: Arc::new(Still),
        condition: Arc::new(Still),
        evidence: evidence.to_owned(),
        recorded: Arc::new(crate::diagnose::Memory::default()),
        keepsakes: None,
        diagnose: Default::default(),
        metrics: Vec::new(),
        config: Config::default(),
        access: Access::open(&Default::default(), &Default::default(), Arc::new(SystemClock)).unwrap(),
    }
}

/// A server, a connection to it, and what makes it stop.
async fn serving(ledger: &Ledger, evidence: &Path) -> (Channel, watch::Sender<bool>) {
    let (stop, stopping) = watch::channel(false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve_grpc(listener, Api::new(sources(ledger.clone(), evidence), stopping)));
    let url = format!("http://{address}");
    (tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap(), stop)
}

pub(super) fn anomaly(id: &str, state: AnomalyState, revision: u32) -> Anomaly {
    let at = NOW.saturating_sub(Duration::from_secs(30));
    Anomaly {
        id: AnomalyId(id.into()),
        fingerprint: Fingerprint("f".into()),
        service: ServiceKey::new("prod", "", "cart"),
        symptom: Symptom::Errors,
        severity: Severity::Page,
        state,
        opened_at: at,
        fired_at: None,
        ended_at: None,
        onset: Interval { earliest: at, latest: at },
        members: Vec::new(),
        p_value: 0.001,
        suspects: Vec::new(),
        merged_into: None,
        suppressed_by: None,
        budget_draw: None,
        examined: Examined::default(),
        title: format!("revision {revision}"),
        revision,
    }
}

pub(super) fn alert(id: &str, state: AlertState, revision: u32) -> Alert {
    let at = NOW.saturating_sub(Duration::from_secs(30));
    Alert {
        anomaly: AnomalyId(id.into()),
        revision,
        state,
        severity: Severity::Page,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        starts_at: at,
        fired_at: (state != AlertState::Pending).then_some(NOW),
        resolved_at: state.is_ended().then_some(NOW),
        risen_from: Vec::new(),
        impact: Impact::default(),
    }
}

pub(super) fn record(
    ledger: &Ledger,
    stage: Stage,
    id: &str,
    number: u32,
    payload: &impl serde::Serialize,
) -> u64 {
    ledger.append(NOW, stage, id, &format!("{id}/{number}"), payload).unwrap().unwrap()
}

#[tokio::test]
async fn counts_are_exact_and_named_as_promised() {
    let folder = tempfile::tempdir().unwrap();
    let (channel, _stop) = serving(&Ledger::in_memory().unwrap(), folder.path()).await;
    let mut client = v1::query_service_client::QueryServiceClient::new(channel);
    let services =
        client.list_services(v1::ListServicesRequest::default()).await.unwrap().into_inner().services;
    assert_eq!(services.len(), 2);
    let json = service_json(&services[0]);
    assert_eq!(
        (&json["service"], &json["environment"], &json["namespace"]),
        (&"cart".into(), &"prod".into(), &"".into())
    );
    for (name, wanted) in
        [("spans", 15), ("log_records", 7), ("metric_points", 0), ("requests", 6), ("errors", 2)]
    {
        assert_eq!(json[name], wanted, "{name}");
    }
    assert!((json["error_ratio"].as_f64().unwrap() - 2.0 / 6.0).abs() < 1e-12);
    for (name, wanted) in [("p50_ns", 30e6), ("p99_ns", 1e9), ("p999_ns", 1e9)] {
        assert!((json[name].as_f64().unwrap() / wanted - 1.0).abs() < 0.0055, "{name}: {}", json[name]);
    }

    let of_one = v1::ListOperationsRequest { service: "prod//cart".into(), range: None };
    let operations = client.list_operations(of_one).await.unwrap().into_inner().operations;
    let names: Vec<_> = operations.iter().map(|of| (of.operation.as_str(), of.requests, of.kind())).collect();
    assert_eq!(names, [("GET /cart", 6, v1::SpanKind::Server), ("SELECT", 9, v1::SpanKind::Client)]);

    let graph = client.get_graph(v1::GetGraphRequest::default()).await.unwrap().into_inner().edges;
    let edge = edge_json(&graph[0]);
    assert_eq!(
        (&edge["client"], &edge["server"], &edge["kind"]),
        (&"cart".into(), &"db:5432".into(), &"client".into())
    );
    assert_eq!((&edge["requests"], &edge["errors"]), (&9.into(), &2.into()));

    let unknown = v1::ListServicesRequest { service: "nobody".into(), range: None };
    assert_eq!(client.list_services(unknown).await.unwrap_err().code(), Code::NotFound);
    let ambiguous = v1::ListServicesRequest { service: "cart".into(), range: None };
    let said = client.list_services(ambiguous).await.unwrap_err();
    assert_eq!(said.code(), Code::InvalidArgument);
    assert!(said.message().contains("prod//cart, test//cart"), "{said}");
}

#[tokio::test]
async fn latency_comes_in_steps_also_where_nothing_was() {
    let folder = tempfile::tempdir().unwrap();
    let (channel, _stop) = serving(&Ledger::in_memory().unwrap(), folder.path()).await;
    let mut client = v1::query_service_client::QueryServiceClient::new(channel);
    let range = v1::TimeRange { from: Some(v1::time_range::From::SinceAgoNs(60_000_000_000)), to: None };
    let asked = v1::GetLatencyRequest {
        range: Some(range),
        service: "prod//cart".into(),
        operation: String::new(),
        quantiles: vec![0.5],
        step_ns: 10_000_000_000,
    };
    let answer = client.get_latency(asked.clone()).await.unwrap().into_inner();
    assert_eq!(answer.rows.iter().map(|row| row.count).collect::<Vec<_>>(), [5, 0, 1]);
    let json = latency_json(answer.service.as_ref(), &answer.rows[2]);
    assert!((json["quantiles"]["0.5"].as_f64().unwrap() / 1e9 - 1.0).abs() < 0.0055);
    assert_eq!(json["start"], "2024-05-01T12:11:20Z");

    let whole = v1::GetLatencyRequest { step_ns: 0, ..asked.clone() };
    assert_eq!(client.get_latency(whole).await.unwrap().into_inner().rows[0].count, 6);
    let wrong = v1::GetLatencyRequest { quantiles: vec![1.5], ..asked };
    assert_eq!(client.get_latency(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn curves_of_an_anomaly_are_what_its_windows_hold() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::in_memory().unwrap();
    let (channel, _stop) = serving(&ledger, folder.path()).await;
    let mut client = v1::anomaly_service_client::AnomalyServiceClient::new(channel);
    let cart = ServiceKey::new("prod", "", "cart");
    let served = key(&cart, Signal::Traces, "GET /cart", SpanKind::Server, true).id();
    let of_now = Interval { earliest: NOW, latest: NOW };
    let member = |symptom, series, low, high| Member {
        service: cart.clone(),
        signal: "GET /cart".into(),
        attributes: Vec::new(),
        symptom,
        series,
        observed: 1.0,
        expected: Band { low, high },
        unit: "{request}/s".into(),
        tail: 1e-9,
        log_evidence: 20.0,
        onset: of_now,
        last_seen: NOW,
        recovered: false,
    };
    let members = vec![
        member(Symptom::Errors, Some(served), f64::NEG_INFINITY, 0.1),
        // Of a budget nothing is drawn.
        member(Symptom::BudgetBurn, None, 0.0, 1.0),
        member(Symptom::Latency, Some(served), 0.0, 1e8),
        member(Symptom::TrafficDrop, None, 0.2, f64::INFINITY),
    ];
    let of = Anomaly { members, onset: of_now, ..anomaly("a1", AnomalyState::Confirmed, 1) };
    record(&ledger, Stage::Confirm, "a1", 1, &of);
    record(&ledger, Stage::Alert, "a1", 1, &alert("a1", AlertState::Firing, 1));
    let asked = v1::GetCurvesRequest { id: "a1".into() };
    let curves = client.get_curves(asked).await.unwrap().into_inner().curves;
    let heads: Vec<_> = curves.iter().map(|of| (of.signal, of.what.as_str(), of.unit.as_str())).collect();
    assert_eq!(
        heads,
        [(0, "share that failed", "1"), (2, "99th percentile", "ns"), (3, "a second", "{request}/s")]
    );
    assert!(curves.iter().all(|of| of.step_ns == 10_000_000_000));
    let bands: Vec<_> = curves.iter().map(|of| (of.expected_low, of.expected_high)).collect();
    assert_eq!(bands, [(None, Some(0.1)), (Some(0.0), Some(1e8)), (Some(0.2), None)]);
    // By seconds before now: a window, what came late for it, and another one 20 s later.
    let points = |of: &v1::Curve| -> Vec<(u64, f64)> {
        let at = |point: &v1::CurvePoint| NOW.secs() - from_proto(point.start.as_ref().unwrap()).secs();
        of.points.iter().map(|point| (at(point), point.value)).collect()
    };
    assert_eq!(points(&curves[0]), [(60, 2.0 / 5.0), (40, 0.0)]);
    let slowest = points(&curves[1]);
    for ((second, value), (wanted_second, wanted)) in slowest.iter().zip([(60, 50e6), (40, 1e9)]) {
        assert_eq!(*second, wanted_second);
        assert!((value / wanted - 1.0).abs() < 0.0055, "{slowest:?}");
    }
    assert_eq!(slowest.len(), 2);
    assert_eq!(
        points(&curves[2]),
        [(60, 0.5), (50, 0.0), (40, 0.1), (30, 0.0), (20, 0.0), (10, 0.0)],
        "of what stopped coming there is no cell"
    );
    let unknown = v1::GetCurvesRequest { id: "zz".into() };
    assert_eq!(client.get_curves(unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_follower_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::in_memory().unwrap();
    let (channel, stop) = serving(&ledger, folder.path()).await;
    let mut client = v1::anomaly_service_client::AnomalyServiceClient::new(channel);
    record(&ledger, Stage::Confirm, "a1", 1, &anomaly("a1", AnomalyState::Gathering, 1));
    record(&ledger, Stage::Alert, "a1", 1, &alert("a1", AlertState::Pending, 1));
    record(&ledger, Stage::Confirm, "a1", 2, &anomaly("a1", AnomalyState::Confirmed, 2));
    let fired = record(&ledger, Stage::Alert, "a1", 2, &alert("a1", AlertState::Firing, 2));

    let all = v1::FollowAnomaliesRequest { resume: Some(0) };
    let mut stream = client.follow_anomalies(all).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|&(_, resume)| resume < fired) {
        let message = stream.message().await.unwrap().unwrap();
        seen.push((anomaly_json(&message.anomaly.unwrap()), message.resume));
    }
    let states: Vec<_> =
        seen.iter().map(|(json, resume)| (json["state"].as_str().unwrap(), *resume)).collect();
    assert_eq!(states, [("pending", 1), ("pending", 3), ("firing", 4)]);
    assert!(seen[0].0["fired_at"].is_null() && seen[2].0["fired_at"].is_string());

    let again = v1::FollowAnomaliesRequest { resume: Some(3) };
    let first = client.follow_anomalies(again).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!((anomaly_json(&first.anomaly.unwrap()), first.resume), seen[2]);

    let live = v1::FollowAnomaliesRequest { resume: None };
    let mut live = client.follow_anomalies(live).await.unwrap().into_inner();
    assert_eq!(live.message().await.unwrap().unwrap().resume, fired, "what is open comes first");
    let ended = record(&ledger, Stage::Alert, "a1", 3, &alert("a1", AlertState::Resolved, 3));
    let message = live.message().await.unwrap().unwrap();
    assert_eq!((message.resume, message.anomaly.unwrap().state()), (ended, v1::AnomalyState::Resolved));

    let future = v1::FollowAnomaliesRequest { resume: Some(999) };
    assert_eq!(client.follow_anomalies(future).await.unwrap_err().code(), Code::InvalidArgument);
    stop.send(true).unwrap();
    assert_eq!(live.message().await.unwrap_err().code(), Code::Unavailable, "a stopping daemon says so");
}

#[tokio::test]
async fn evidence_arrives_byte_by_byte_and_incidents_take_notes() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::in_memory().unwrap();
    let (channel, _stop) = serving(&ledger, folder.path()).await;
    record(&ledger, Stage::Confirm, "a1", 1, &anomaly("a1", AnomalyState::Confirmed, 1));
    record(&ledger, Stage::Alert, "a1", 1, &alert("a1", AlertState::Firing, 1));
    let bundle = folder.path().join("a1");
    std::fs::create_dir(&bundle).unwrap();
    let content: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    std::fs::write(bundle.join("spans.parquet"), &content).unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    let evidence = |names: &[&str]| Evidence {
        anomaly: AnomalyId("a1".into()),
        pass: Pass::First,
        at: NOW,
        causes: Vec::new(),
        bundle: Manifest {
            path: bundle.clone(),
            files: names.iter().map(|name| ((*name).to_owned(), 1, String::new())).collect(),
            ..Manifest::default()
        },
    };
    record(&ledger, Stage::Diagnose, "a1", 1, &evidence(&["spans.parquet"]));
    let mut client = v1::evidence_service_client::EvidenceServiceClient::new(channel.clone());
    let asked = || v1::DownloadEvidenceRequest { anomaly: "a1".into() };
    let mut parts = client.download_evidence(asked()).await.unwrap().into_inner();
    let mut got = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        match part.part.unwrap() {
            v1::download_evidence_response::Part::File(file) => assert_eq!(file.path, "spans.parquet"),
            v1::download_evidence_response::Part::Data(data) => got.extend(data),
        }
    }
    assert!(got == content, "{} bytes arrived", got.len());
    record(&ledger, Stage::Diagnose, "a1", 2, &evidence(&["../secret"]));
    let mut parts = client.download_evidence(asked()).await.unwrap().into_inner();
    assert_eq!(parts.message().await.unwrap_err().code(), Code::Internal, "nothing outside of the bundle");
    assert_eq!(within_bundle(&bundle, "../secret"), None);
    assert_eq!(within_bundle(&bundle, "/etc/passwd"), None);

    let mut client = v1::incident_service_client::IncidentServiceClient::new(channel.clone());
    let author = Some(v1::Author { name: "ada".into() });
    let note = v1::AddNoteRequest { id: "a1".into(), author: author.clone(), text: "rolled back".into() };
    let incident = client.add_note(note).await.unwrap().into_inner();
    assert!(incident.timeline.iter().any(|line| line.who == "ada" && line.what.contains("rolled back")));
    let acknowledge = v1::AcknowledgeIncidentRequest { id: "a1".into(), author };
    let incident = client.acknowledge_incident(acknowledge).await.unwrap().into_inner();
    assert_eq!(incident.state, "acknowledged");
    let none = v1::GetIncidentRequest { id: "zz".into() };
    assert_eq!(client.get_incident(none).await.unwrap_err().code(), Code::NotFound);

    let mut client = v1::change_service_client::ChangeServiceClient::new(channel);
    let told = v1::TellChangeRequest {
        at: Some(to_proto(NOW.saturating_sub(Duration::from_secs(5)))),
        service: "new-service".into(),
        kind: v1::ChangeKind::Deploy as i32,
        title: "new-service 1".into(),
        version: "1".into(),
    };
    let first = client.tell_change(told.clone()).await.unwrap().into_inner();
    let second = client.tell_change(told).await.unwrap().into_inner();
    assert_eq!(first, second);
    let changes = client.list_changes(v1::ListChangesRequest::default()).await.unwrap().into_inner().changes;
    assert_eq!(changes, [first], "told twice, known once");
}

#[test]
fn an_anomaly_has_the_promised_fields() {
    let json = anomaly_object(&anomaly("a1", AnomalyState::Confirmed, 1), None, None);
    let fields = json.as_object().unwrap();
    for name in [
        "id",
        "onset",
        "fired_at",
        "resolved_at",
        "severity",
        "title",
        "signals",
        "causes",
        "p_value",
        "evidence",
        "state",
        "merged_into",
        "suppressed_by",
    ] {
        assert!(fields.contains_key(name), "{name} is missing");
    }
    assert_eq!(json["state"], "firing");
    let alert = alert("a1", AlertState::Resolved, 3);
    let json = anomaly_object(&anomaly("a1", AnomalyState::Recovered, 2), Some(&alert), None);
    assert_eq!((&json["state"], &json["resolved_at"]), (&"resolved".into(), &NOW.to_string().into()));
}

/// Requests that are each as large as all that a search may read.
struct Heavy(crate::diagnose::Memory);

impl crate::diagnose::Source for Heavy {
    fn read(
        &self,
        times: std::ops::Range<Timestamp>,
        filter: &crate::journal::Filter,
        each: &mut dyn FnMut(crate::diagnose::Recorded<'_>) -> ControlFlow<()>,
    ) -> Result<(), crate::diagnose::Error> {
        self.0.read(times, filter, each)
    }

    fn read_backward(
        &self,
        before: Timestamp,
        filter: &crate::journal::Filter,
        each: &mut dyn FnMut(crate::diagnose::Backwards<'_>) -> ControlFlow<()>,
    ) -> Result<(), crate::diagnose::Error> {
        use crate::diagnose::{Backwards, Recorded};
        self.0.read_backward(before, filter, &mut |step| {
            each(match step {
                Backwards::Request(recorded) => {
                    Backwards::Request(Recorded { read_bytes: 1 << 30, ..recorded })
                }
                since @ Backwards::Since(_) => since,
            })
        })
    }

    fn bytes(&self, times: &std::ops::Range<Timestamp>) -> u64 {
        self.0.bytes(times)
    }

    fn oldest(&self) -> Option<Timestamp> {
        self.0.oldest()
    }
}

#[test]
fn a_trace_is_not_said_to_be_gone_where_not_all_was_looked_through() {
    let (folder, ledger) = (tempfile::tempdir().unwrap(), Ledger::in_memory().unwrap());
    let at = |seconds: u64| NOW.saturating_sub(Duration::from_secs(seconds));
    let empty = |seconds| (Signal::Traces, bytes::Bytes::new(), at(seconds));
    let find = |requests: Vec<_>| {
        let recorded = Arc::new(Heavy(crate::diagnose::Memory { requests }));
        let sources = Sources { recorded, ..sources(ledger.clone(), folder.path()) };
        let api = Api::new(sources, watch::channel(false).1);
        api.trace("4bf92f3577b34da6a3ce929d0e0e4736", &mut Meter::unbounded())
    };
    let gone = find(vec![empty(30)]);
    assert!(matches!(&gone, Err(Error::NotFound(why)) if why.contains("no keepsake")), "{gone:?}");
    let found = find(vec![empty(90), empty(60), empty(30)]).unwrap();
    assert!(found.incomplete && found.spans.is_empty());
    assert_eq!(found.searched.as_ref().unwrap().since, Some(to_proto(at(30))));
    let missing = missing_of_trace(&found);
    assert!(missing.len() == 1 && missing[0].contains("looked through back to"), "{missing:?}");
    assert_eq!(whole_trace_json(&found)["incomplete"], true);
}
