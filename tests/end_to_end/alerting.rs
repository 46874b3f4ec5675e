//! Alerts at a real Alertmanager: counted by the notifications that it sends on.

use crate::support::alerts::anomaly;
use crate::support::receiver::Request;
use crate::support::{Alertmanager, Receiver, eventually};
use barograph::alert::{Alert, Attachment, Config, Lifecycle, Outbox};
use barograph::confirm::Anomaly;
use barograph::model::{Clock, SystemClock, Timestamp};
use barograph::settings::Seconds;
use barograph::store::{Ledger, Stage};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const FIRST: &str = "00000000000000aa";
const SECOND: &str = "00000000000000bb";
const PATIENCE: Duration = Duration::from_secs(20);

/// One life of the daemon's alerting.
struct Life {
    lifecycle: Lifecycle,
    ledger: Ledger,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<((), ())>,
}

impl Life {
    fn begin(url: &str, ledger: Ledger) -> Self {
        let config = Config {
            alertmanagers: vec![url.to_owned()],
            resend: Seconds(Duration::from_millis(500)),
            ..Config::default()
        };
        let outbox =
            Outbox::new(config.clone(), Arc::new(ledger.clone()), Arc::new(SystemClock)).expect("an outbox");
        let (stop, stopped) = watch::channel(false);
        let follow = outbox.clone().follow(ledger.clone(), stopped.clone());
        let task = tokio::spawn(async { tokio::join!(follow, outbox.run(stopped)) });
        Self { lifecycle: Lifecycle::new(config), ledger, stop, task }
    }

    fn step(&mut self, at: Timestamp, changed: &[Anomaly]) -> Vec<Alert> {
        let alerts = self.lifecycle.step(at, changed);
        for alert in &alerts {
            let held = self.ledger.append(at, Stage::Alert, &alert.anomaly.0, &alert.key(), alert);
            held.expect("appended");
        }
        alerts
    }

    async fn end(self) -> Vec<u8> {
        self.stop.send_replace(true);
        self.task.await.expect("the outbox ends");
        self.lifecycle.state().expect("a state")
    }
}

/// Notifications about an anomaly with this status.
fn about(requests: &[Request], id: &str, status: &str) -> usize {
    requests
        .iter()
        .filter(|request| request.body["status"] == status && request.body["groupLabels"]["anomaly_id"] == id)
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_is_one_notification_over_restarts_of_both() {
    let mut receiver = Receiver::start().await;
    let mut alertmanager = Alertmanager::start(&receiver.url()).await;
    let ledger = Ledger::in_memory().expect("a ledger");
    let mut life = Life::begin(&alertmanager.url(), ledger.clone());
    let begin = SystemClock.now().saturating_sub(Duration::from_secs(300));
    let at = |secs: u64| begin.saturating_add(Duration::from_secs(secs));

    // What is pending is not told: the other, set after it, arrives alone.
    life.step(at(1), &[anomaly(FIRST, "gathering", at(0))]);
    life.step(at(4), &[anomaly(SECOND, "confirmed", at(0))]);
    receiver.wait("the second is told", PATIENCE, |requests| about(requests, SECOND, "firing") == 1).await;
    let held = alertmanager.alerts().await;
    assert_eq!(held.len(), 1, "{held:#?}");
    assert_eq!(held[0]["labels"]["anomaly_id"], SECOND);

    // It fires: one notification with one alert.
    assert_eq!(life.step(at(8), &[anomaly(FIRST, "confirmed", at(5))]).len(), 1);
    let requests =
        receiver.wait("the first is told", PATIENCE, |requests| about(requests, FIRST, "firing") == 1).await;
    let told = &requests.last().expect("a request").body["alerts"];
    assert_eq!(told.as_array().map(Vec::len), Some(1));
    assert_eq!(told[0]["labels"]["alertname"], "ServiceErrors");
    assert_eq!(told[0]["labels"]["severity"], "page");

    // The cause follows as an annotation of the same alert.
    let cause = Attachment { cause_summary: Some("slow queries".into()), ..Attachment::default() };
    life.lifecycle.attach(&anomaly(FIRST, "confirmed", at(5)).id, cause);
    assert_eq!(life.step(at(9), &[]).len(), 1);
    eventually("the annotation arrives", PATIENCE, async || {
        let held = alertmanager.alerts().await;
        let with_cause = held.iter().filter(|alert| alert["annotations"]["cause"] == "slow queries").count();
        (held.len() == 2 && with_cause == 1).then_some(())
    })
    .await;

    // We restart: told again, so that it does not end, and nobody is notified again.
    let state = life.end().await;
    let mut life = Life::begin(&alertmanager.url(), ledger);
    life.lifecycle.restore(&state).expect("the state is read");
    life.lifecycle.adopt(Alert::latest(&life.ledger).expect("alerts"));
    let restarted = SystemClock.now().to_string();
    eventually("both are told again after the restart", PATIENCE, async || {
        let held = alertmanager.alerts().await;
        let again =
            held.iter().filter(|alert| alert["updatedAt"].as_str() > Some(restarted.as_str())).count();
        (again == 2).then_some(())
    })
    .await;
    assert_eq!(about(&receiver.requests(), FIRST, "firing"), 1);

    // Alertmanager is away while the first resolves and a third fires; within 5 s of its return it knows.
    alertmanager.stop();
    for second in 10..60 {
        life.step(at(second), &[]);
    }
    let ended = life.step(at(60), &[anomaly(FIRST, "recovered", at(60))]);
    assert!(ended.iter().any(|alert| alert.anomaly.0 == FIRST && alert.state.is_ended()), "{ended:#?}");
    const THIRD: &str = "00000000000000cc";
    life.step(at(61), &[anomaly(THIRD, "confirmed", at(55))]);
    alertmanager.run().await;
    let returned = Instant::now();
    receiver.wait("the third is told", PATIENCE, |requests| about(requests, THIRD, "firing") == 1).await;
    assert!(returned.elapsed() <= Duration::from_secs(5), "told {:?} after the return", returned.elapsed());
    receiver
        .wait("the first is told resolved", PATIENCE, |requests| about(requests, FIRST, "resolved") == 1)
        .await;
    let requests = receiver.requests();
    assert_eq!(about(&requests, FIRST, "firing"), 1, "{requests:#?}");
    assert_eq!(about(&requests, SECOND, "firing"), 1, "{requests:#?}");
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rise_of_severity_stays_one_group_that_never_stops_firing() {
    let mut receiver = Receiver::start().await;
    let alertmanager = Alertmanager::start(&receiver.url()).await;
    let mut life = Life::begin(&alertmanager.url(), Ledger::in_memory().expect("a ledger"));
    let begin = SystemClock.now().saturating_sub(Duration::from_secs(60));
    let at = |secs: u64| begin.saturating_add(Duration::from_secs(secs));
    let mut ticket = anomaly(FIRST, "confirmed", at(0));
    ticket.severity = barograph::confirm::Severity::Ticket;
    life.step(at(4), &[ticket]);
    receiver.wait("a ticket", PATIENCE, |requests| about(requests, FIRST, "firing") == 1).await;
    life.step(at(5), &[anomaly(FIRST, "confirmed", at(0))]);
    let requests = receiver
        .wait("a page", PATIENCE, |requests| {
            requests.iter().any(|request| {
                request.body["alerts"].as_array().is_some_and(|alerts| {
                    let holds = |severity: &str, status: &str| {
                        alerts
                            .iter()
                            .any(|alert| alert["labels"]["severity"] == severity && alert["status"] == status)
                    };
                    holds("page", "firing") && (holds("ticket", "resolved") || alerts.len() == 1)
                })
            })
        })
        .await;
    assert!(requests.iter().all(|request| request.body["status"] == "firing"), "{requests:#?}");
    let held = alertmanager.alerts().await;
    let severities: Vec<&str> =
        held.iter().filter_map(|alert| alert["labels"]["severity"].as_str()).collect();
    assert_eq!(severities, ["page"], "{held:#?}");
    life.end().await;
}
