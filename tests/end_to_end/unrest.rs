//! A real Alertmanager behind the running daemon while everything around one fault is unsteady: the fault
//! flaps, we are killed twice, Alertmanager restarts, and the network between us is cut.

use crate::support::daemon::Daemon;
use crate::support::http;
use crate::support::otlp::{Client, Export, now_ns, span, spans};
use crate::support::receiver::Request;
use crate::support::{Alertmanager, Receiver, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(150);
const OBJECTIVE: &str = "apiVersion: openslo/v1
kind: SLO
metadata: { name: shop-ok }
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        good: { metricSource: { type: barograph, spec: { good: not_error } } }
  timeWindow: [{ duration: 30d, isRolling: true }]
  budgetingMethod: Occurrences
  objectives: [{ target: 0.99 }]
  alertPolicies:
    - kind: AlertPolicy
      metadata: { name: fast }
      spec:
        conditions:
          - kind: AlertCondition
            metadata: { name: fast }
            spec:
              severity: page
              condition:
                { kind: burnrate, op: gte, threshold: 10, lookbackWindow: 30s, shortLookbackWindow: 10s }
";

/// Passes connections on, unless the line is cut: then those that are open end, and new ones lead nowhere.
async fn line(to: String, cut: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut from_us, _)) = listener.accept().await {
            let (to, mut cut) = (to.clone(), cut.clone());
            tokio::spawn(async move {
                if *cut.borrow() {
                    return;
                }
                let Ok(mut to_them) = TcpStream::connect(&to).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from_us, &mut to_them) => {}
                    _ = cut.wait_for(|cut| *cut) => {}
                }
            });
        }
    });
    format!("http://{address}")
}

fn firing(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.body["status"] == "firing").collect()
}

fn resolved(requests: &[Request]) -> usize {
    requests.iter().filter(|request| request.body["status"] == "resolved").count()
}

fn severities(request: &Request) -> BTreeSet<&str> {
    let alerts = request.body["alerts"].as_array();
    alerts.into_iter().flatten().filter_map(|alert| alert["labels"]["severity"].as_str()).collect()
}

/// Deliveries to targets with this result since the daemon started.
async fn deliveries(daemon: &Daemon, result: &str) -> u64 {
    let (_, text) = http::get(&format!("{}/metrics", daemon.url("http"))).await.expect("an answer");
    let label = format!("result={result:?}");
    let text = String::from_utf8_lossy(&text).into_owned();
    let of = |line: &&str| line.starts_with("barograph_alert_deliveries_total{") && line.contains(&label);
    let counts = text.lines().filter(of).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    counts.sum::<f64>() as u64
}

/// Waits for so many more deliveries with this result: an alert is sent again each second.
async fn more_deliveries(daemon: &Daemon, result: &str, more: u64) {
    let enough = deliveries(daemon, result).await + more;
    eventually(&format!("{more} more deliveries are {result}"), PATIENCE, async || {
        (deliveries(daemon, result).await >= enough).then_some(())
    })
    .await;
}

/// Waits until as many exports were acknowledged as there are in a whole turn of the flapping.
async fn a_turn(acknowledged: &mut watch::Receiver<u64>) {
    let enough = *acknowledged.borrow() + 26;
    let turned = acknowledged.wait_for(|exports| *exports >= enough);
    tokio::time::timeout(PATIENCE, turned).await.expect("in time").expect("traffic flows");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsteady_world_is_one_group_one_notification_a_tier_and_one_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let objectives = folder.path().join("shop.yaml");
    std::fs::write(&objectives, OBJECTIVE).expect("written");
    let mut receiver = Receiver::start().await;
    let mut alertmanager = Alertmanager::start(&receiver.url()).await;
    let (cut, is_cut) = watch::channel(false);
    let proxy = line(alertmanager.url().trim_start_matches("http://").to_owned(), is_cut).await;
    let data = folder.path().join("data");
    let settings = [
        format!("alert.alertmanagers=[{proxy:?}]"),
        format!("slo.files=[{:?}]", objectives.display().to_string()),
        "alert.resend=\"1s\"".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut daemon = Daemon::start(&data, &settings);

    // Ten requests a second; while the fault is there, four in ten fail for eight seconds of twelve.
    let (url, of_daemon) = watch::channel(daemon.url("otlp_grpc"));
    let fault = Arc::new(AtomicU64::new(0));
    let flapping = fault.clone();
    let (done, mut acknowledged) = watch::channel(0u64);
    let traffic = tokio::spawn(async move {
        let mut url = of_daemon.borrow().clone();
        let mut client = Client::new(&url);
        let mut every = tokio::time::interval(Duration::from_millis(500));
        loop {
            every.tick().await;
            if *of_daemon.borrow() != url {
                url.clone_from(&of_daemon.borrow());
                client = Client::new(&url);
            }
            let (now, began) = (now_ns(), flapping.load(Ordering::SeqCst));
            let fails = began > 0 && (now.saturating_sub(began) / 1_000_000_000) % 12 < 8;
            let all = (0..5).map(|n| span("GET /", now, 1_000_000 + n, fails && n < 2)).collect();
            // While nobody is there, it is lost.
            if client.export(&Export::Traces(spans("shop", all))).await.is_ok() {
                done.send_modify(|exports| *exports += 1);
            }
        }
    });
    let requests_counted = |daemon: &Daemon, at_least: u64| {
        let rows = daemon.ask(&["slo"]);
        let row = rows.as_array().expect("rows").iter().find(|row| row["slo"] == "shop-ok").cloned();
        row.and_then(|row| row["total"].as_u64()).is_some_and(|total| total >= at_least)
    };
    eventually("healthy requests are counted", PATIENCE, async || {
        requests_counted(&daemon, 200).then_some(())
    })
    .await;
    fault.store(now_ns(), Ordering::SeqCst);
    let told = receiver.wait("the fault is told", PATIENCE, |requests| !firing(requests).is_empty()).await;
    let id = told.first().map(|request| request.body["groupLabels"]["anomaly_id"].clone()).expect("one");

    // Killed, and back.
    let restart = |daemon: Daemon| {
        daemon.kill();
        let daemon = Daemon::start(&data, &settings);
        url.send_replace(daemon.url("otlp_grpc"));
        daemon
    };
    daemon = restart(daemon);
    a_turn(&mut acknowledged).await;
    // A partition, in which the fault goes on.
    cut.send_replace(true);
    more_deliveries(&daemon, "failed", 5).await;
    cut.send_replace(false);
    // Alertmanager is away for a moment.
    alertmanager.stop();
    more_deliveries(&daemon, "failed", 2).await;
    alertmanager.run().await;
    // Killed once more, and a whole turn of the flapping.
    daemon = restart(daemon);
    a_turn(&mut acknowledged).await;
    assert_eq!(resolved(&receiver.requests()), 0, "nothing ends while the fault goes on");
    let open = daemon.ask(&["anomalies"]);
    let is_open = |row: &&Value| row["id"] == id && row["state"] == "firing";
    assert_eq!(open.as_array().expect("rows").iter().filter(is_open).count(), 1, "{open:#}");

    fault.store(0, Ordering::SeqCst);
    let all = receiver.wait("the end is told", PATIENCE, |requests| resolved(requests) > 0).await;
    // Whatever else were to be told would be by the time that the end was sent again and again.
    more_deliveries(&daemon, "delivered", 12).await;
    let all = if receiver.requests().len() > all.len() { receiver.requests() } else { all };
    let groups: BTreeSet<String> =
        all.iter().map(|request| request.body["groupLabels"]["anomaly_id"].to_string()).collect();
    assert_eq!(groups, BTreeSet::from([id.to_string()]), "one group: {all:#?}");
    let tiers: Vec<BTreeSet<&str>> = firing(&all).into_iter().map(severities).collect();
    let distinct: BTreeSet<&BTreeSet<&str>> = tiers.iter().collect();
    assert_eq!(distinct.len(), tiers.len(), "one notification a tier: {tiers:?}");
    assert!(tiers.len() <= 2 && tiers.last().is_some_and(|last| last.contains("page")), "{tiers:?}");
    assert_eq!(resolved(&all), 1, "resolved once: {all:#?}");
    traffic.abort();
    assert_eq!(daemon.stop(), Some(0));
}
