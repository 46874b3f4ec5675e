//! An Alertmanager that is away, hangs, trickles or floods: what it does not take costs no detection, and is
//! delivered when it is back, as one group.

use super::crashes::{Traffic, told};
use crate::support::daemon::Daemon;
use crate::support::proxy::{Mode, Proxy};
use crate::support::{Alertmanager, Receiver, eventually};
use barograph::api::v1::anomaly_service_client::AnomalyServiceClient;
use barograph::api::v1::{AnomalyState, FollowAnomaliesRequest};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const MODES: [Mode; 6] =
    [Mode::Pass, Mode::Refuse, Mode::Hang, Mode::HangForEver, Mode::Trickle, Mode::Flood];
/// A window is how far detection may differ from one with a target that works.
const WINDOW: Duration = Duration::from_secs(10);
const DELIVERED_WITHIN: Duration = Duration::from_secs(5);

/// How long the target is away after the fault is found: `scripts/release-check` asks for ten minutes.
fn away_for() -> Duration {
    let seconds = std::env::var("BAROGRAPH_OUTAGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(8))
}

/// A daemon, its traffic, and its target.
struct Case {
    mode: Mode,
    receiver: Receiver,
    alertmanager: Alertmanager,
    proxy: Proxy,
    daemon: Daemon,
    traffic: Traffic,
    folder: tempfile::TempDir,
}

impl Case {
    async fn start(mode: Mode) -> Self {
        let receiver = Receiver::start().await;
        let alertmanager = Alertmanager::start(&receiver.url()).await;
        let proxy = Proxy::start(alertmanager.url().replace("http://", ""), mode).await;
        let folder = tempfile::tempdir().expect("a folder");
        let daemon = Daemon::start(folder.path(), &[&format!("alert.alertmanagers=[\"{}\"]", proxy.url())]);
        let traffic = Traffic::start(daemon.url("otlp_grpc"));
        Self { mode, receiver, alertmanager, proxy, daemon, traffic, folder }
    }

    /// Waits until the fault is found; how long that took.
    async fn detect(&self, since: Instant) -> Duration {
        let mut client = AnomalyServiceClient::connect(self.daemon.url("query")).await.expect("connected");
        let of = client.follow_anomalies(FollowAnomaliesRequest::default()).await.expect("a stream");
        let mut told = of.into_inner();
        let firing = async {
            while let Some(next) = told.message().await.expect("the stream goes on") {
                if next.anomaly.is_some_and(|anomaly| anomaly.state() == AnomalyState::Firing) {
                    return since.elapsed();
                }
            }
            panic!("{:?}: the stream ended", self.mode)
        };
        let found = tokio::time::timeout(PATIENCE, firing).await;
        found.unwrap_or_else(|_| panic!("{:?}: the fault is not found within {PATIENCE:?}", self.mode))
    }

    /// Its target returns; how long after that the fault was told, in one group.
    async fn deliver(&mut self) -> Duration {
        assert!(self.mode == Mode::Pass || told(&self.receiver.requests(), "firing").is_empty());
        self.proxy.behave(Mode::Pass);
        let returned = Instant::now();
        let what = format!("{:?}: the fault is told", self.mode);
        self.receiver.wait(&what, PATIENCE, |requests| !told(requests, "firing").is_empty()).await;
        let took = returned.elapsed();
        // What it holds is what the daemon says.
        eventually("it holds the alert", PATIENCE, async || {
            (self.alertmanager.alerts().await.len() == 1).then_some(())
        })
        .await;
        let groups = told(&self.receiver.requests(), "firing");
        assert_eq!(groups.len(), 1, "{:?}: {groups:?}", self.mode);
        took
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_target_that_fails_costs_no_detection_and_gets_everything_when_it_is_back() {
    let mut cases = Vec::new();
    for mode in MODES {
        cases.push(Case::start(mode).await);
    }
    for case in &mut cases {
        case.traffic.more(50 * 45).await;
    }
    for case in &cases {
        case.traffic.failing_percent.store(50, Ordering::SeqCst);
    }
    let began = Instant::now();
    let found = futures_util::future::join_all(cases.iter().map(|case| case.detect(began))).await;
    // 50 requests a second.
    cases[0].traffic.more(50 * away_for().as_secs()).await;
    for (case, found_after) in cases.iter_mut().zip(&found) {
        let told_after = case.deliver().await;
        println!(
            "target that is to {:?} for {:?}: fault found after {found_after:?}, told {told_after:?} after its return",
            case.mode,
            began.elapsed()
        );
        assert!(
            found_after.abs_diff(found[0]) <= WINDOW,
            "{:?}: {found_after:?} and {:?}",
            case.mode,
            found[0]
        );
        assert!(told_after <= DELIVERED_WITHIN, "{:?}: {told_after:?}", case.mode);
    }
    for case in cases {
        assert_eq!(case.daemon.stop(), Some(0), "{}", case.folder.path().display());
    }
}

/// How long it may take until an anomaly is found, or over.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// The state of a service's only anomaly, and its id.
fn anomaly_of(daemon: &Daemon, service: &str) -> Option<(String, String)> {
    let rows = daemon.ask(&["anomalies"]);
    let mut of = rows.as_array()?.iter().filter(|row| row["service"] == service);
    let row = of.next()?;
    assert!(of.next().is_none(), "{service} has one anomaly: {rows:#}");
    Some((row["state"].as_str()?.to_owned(), row["id"].as_str()?.to_owned()))
}

async fn settled(daemon: &Daemon, service: &str, state: &str) -> String {
    eventually(&format!("the anomaly of {service} is {state}"), SETTLED_WITHIN, async || {
        anomaly_of(daemon, service).filter(|(now, _)| now == state).map(|(_, id)| id)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_and_what_begins_while_a_target_hangs_is_told_when_it_is_back() {
    const SERVICES: [&str; 3] = ["ends", "goes-on", "begins"];
    let mut receiver = Receiver::start().await;
    let alertmanager = Alertmanager::start(&receiver.url()).await;
    let proxy = Proxy::start(alertmanager.url().replace("http://", ""), Mode::Pass).await;
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[&format!("alert.alertmanagers=[\"{}\"]", proxy.url())]);
    let mut traffic = SERVICES.map(|service| Traffic::of(service, daemon.url("otlp_grpc")));
    traffic[0].more(50 * 45).await;
    let mut ids = Vec::new();
    for number in [0, 1] {
        traffic[number].failing_percent.store(50, Ordering::SeqCst);
        ids.push(settled(&daemon, SERVICES[number], "firing").await);
    }
    let both = |told: Vec<String>| ids.iter().all(|id| told.contains(id));
    receiver.wait("two faults are told", PATIENCE, |requests| both(told(requests, "firing"))).await;
    proxy.behave(Mode::HangForEver);
    traffic[0].failing_percent.store(0, Ordering::SeqCst);
    traffic[2].failing_percent.store(50, Ordering::SeqCst);
    let third = settled(&daemon, SERVICES[2], "firing").await;
    assert_eq!(settled(&daemon, SERVICES[0], "resolved").await, ids[0]);
    traffic[1].more(50 * away_for().as_secs()).await;
    let before = receiver.requests();
    assert!(!told(&before, "firing").contains(&third), "it is told through a target that hangs");
    assert!(told(&before, "resolved").is_empty(), "an end is told through a target that hangs");
    proxy.behave(Mode::Pass);
    let returned = Instant::now();
    eventually("it holds the two that go on", PATIENCE, async || {
        let held = alertmanager.alerts().await;
        let of: Vec<&str> = held.iter().filter_map(|alert| alert["labels"]["anomaly_id"].as_str()).collect();
        (of.len() == 2 && of.contains(&&*ids[1]) && of.contains(&&*third)).then_some(())
    })
    .await;
    let took = returned.elapsed();
    // Alertmanager passes on what it was told when its groups are due, each second.
    let requests = receiver
        .wait("what began is told, and what ended", PATIENCE, |requests| {
            told(requests, "firing").contains(&third) && told(requests, "resolved").contains(&ids[0])
        })
        .await;
    assert_eq!(told(&requests, "resolved"), [ids[0].clone()], "nothing else has ended: {requests:#?}");
    let mut groups = told(&requests, "firing");
    groups.sort();
    let mut expected = vec![ids[0].clone(), ids[1].clone(), third.clone()];
    expected.sort();
    assert_eq!(groups, expected, "one group each, told once");
    println!(
        "target that is to {:?}: of three alerts, one that began and one that ended told {took:?} after its return",
        Mode::HangForEver
    );
    assert!(took <= DELIVERED_WITHIN, "{took:?}");
    assert_eq!(daemon.stop(), Some(0));
}
