//! Alerts of other people's rules enter the same incidents.

use crate::support::daemon::Daemon;
use crate::support::{eventually, http};
use ::http::Method;
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

async fn post(daemon: &Daemon, body: &Value) -> u16 {
    let url = format!("{}/api/v2/alerts", daemon.url("http"));
    let sent = http::Sent::Whole(body.to_string().into());
    let headers = [("content-type", "application/json")];
    http::send(&url, (Method::POST, false), &headers, sent).await.expect("an answer").status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_prometheus_is_an_anomaly_until_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(&folder.path().join("data"), &[]);
    let rule = |status: &str| {
        json!({ "version": "4", "alerts": [{
            "status": status,
            "labels": { "alertname": "DiskFull", "service": "cart", "severity": "critical" },
            "annotations": { "summary": "92 % of /data" },
        }] })
    };
    assert_eq!(post(&daemon, &rule("firing")).await, 200);
    let state = async |wanted: &str| {
        let rows = daemon.ask(&["anomalies"]);
        let row = rows.as_array()?.iter().find(|row| row["symptom"] == "rule")?.clone();
        (row["state"] == wanted).then_some(row)
    };
    let row = eventually("it fires", PATIENCE, async || state("firing").await).await;
    assert_eq!((&row["service"], &row["severity"]), (&"cart".into(), &"page".into()), "{row}");
    assert_eq!(row["signals"][0]["metric"], "DiskFull");
    assert_eq!(post(&daemon, &rule("resolved")).await, 200);
    eventually("it ends", PATIENCE, async || state("resolved").await).await;
    // One that cannot be taken does not lose the others, and is named.
    let mixed =
        json!([{ "labels": { "severity": "page" } }, { "labels": { "alertname": "B", "job": "shop/pay" } }]);
    assert_eq!(post(&daemon, &mixed).await, 400);
    eventually("the good one is taken", PATIENCE, async || {
        let rows = daemon.ask(&["anomalies"]);
        rows.as_array()?.iter().any(|row| row["service"] == "pay").then_some(())
    })
    .await;
    assert_eq!(daemon.stop(), Some(0));
}
