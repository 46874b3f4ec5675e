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
const MODES: [Mode; 5] = [Mode::Pass, Mode::Refuse, Mode::Hang, Mode::Trickle, Mode::Flood];
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
