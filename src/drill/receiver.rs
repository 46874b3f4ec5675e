//! Where the demo's alerts arrive: the webhook of a real Alertmanager, or, where none is installed,
//! a stand-in for its API that takes alerts itself.

use crate::model::{Clock, SystemClock, Timestamp};
use axum::Router;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Alerts remembered; a demo sees one.
const MOST_ALERTS: usize = 1_000;

/// One alert, by its anomaly.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub anomaly: String,
    /// When it was first received firing.
    pub at: Timestamp,
    /// When it was received resolved.
    pub resolved_at: Option<Timestamp>,
    pub labels: BTreeMap<String, String>,
    /// As received last while firing.
    pub annotations: BTreeMap<String, String>,
    /// How many times it was received.
    pub notifications: u64,
}

/// All alerts received, in order of their first arrival.
pub type Inbox = watch::Receiver<Vec<Received>>;

/// The receiver's HTTP server. Stops when dropped.
pub struct Receiver {
    address: SocketAddr,
    inbox: Inbox,
    server: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Receiver {
    /// Listens on a free port of the loopback.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> std::io::Result<Self> {
        let (sender, inbox) = watch::channel(Vec::new());
        let routes = Router::new()
            .route("/webhook", post(webhook))
            .route("/api/v2/alerts", post(api))
            .with_state(Arc::new(sender));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, inbox, server })
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }
}

type Sender = Arc<watch::Sender<Vec<Received>>>;

/// What Alertmanager posts to webhooks.
#[derive(Debug, Deserialize)]
struct Notification {
    alerts: Vec<Notified>,
}

#[derive(Debug, Deserialize)]
struct Notified {
    status: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

async fn webhook(State(sender): State<Sender>, Json(notification): Json<Notification>) -> StatusCode {
    for alert in notification.alerts {
        note(&sender, alert.status == "firing", alert.labels, alert.annotations);
    }
    StatusCode::OK
}

/// What is posted to Alertmanager.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    ends_at: Option<Timestamp>,
}

async fn api(State(sender): State<Sender>, Json(posted): Json<Vec<Posted>>) -> StatusCode {
    let now = SystemClock.now();
    for alert in posted {
        let firing = alert.ends_at.is_none_or(|ends_at| ends_at > now);
        note(&sender, firing, alert.labels, alert.annotations);
    }
    StatusCode::OK
}

fn note(
    sender: &Sender,
    firing: bool,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
) {
    let now = SystemClock.now();
    let anomaly = labels.get("anomaly_id").cloned().unwrap_or_default();
    sender.send_modify(|received| {
        let full = received.len() >= MOST_ALERTS;
        match received.iter_mut().find(|known| known.anomaly == anomaly) {
            Some(known) => {
                known.notifications = known.notifications.saturating_add(1);
                if firing {
                    (known.labels, known.annotations, known.resolved_at) = (labels, annotations, None);
                } else if known.labels == labels {
                    // A label set that another of the same anomaly replaced ends without an end.
                    known.resolved_at.get_or_insert(now);
                }
            }
            None if firing && !full => received.push(Received {
                anomaly,
                at: now,
                resolved_at: None,
                labels,
                annotations,
                notifications: 1,
            }),
            None => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    async fn post_to(url: String, body: serde_json::Value) -> StatusCode {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = http::Request::post(url)
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(body.to_string())))
            .unwrap();
        client.request(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn alerts_arrive_by_webhook_and_by_api() {
        let receiver = Receiver::start().await.unwrap();
        let url = |path| format!("http://{}{path}", receiver.address());
        let labels = serde_json::json!({"anomaly_id": "a1", "service": "payment"});
        let alert = |status| serde_json::json!({"alerts": [{"status": status, "labels": labels}]});
        assert_eq!(post_to(url("/webhook"), alert("firing")).await, 200);
        assert_eq!(post_to(url("/webhook"), alert("firing")).await, 200);
        let inbox = receiver.inbox();
        {
            let received = inbox.borrow();
            assert_eq!((received.len(), received[0].notifications), (1, 2));
            assert_eq!((received[0].labels["service"].as_str(), received[0].resolved_at), ("payment", None));
        }
        assert_eq!(post_to(url("/webhook"), alert("resolved")).await, 200);
        assert!(inbox.borrow()[0].resolved_at.is_some());

        let posted = |ends_at: &str| {
            serde_json::json!([{
                "labels": {"anomaly_id": "a2"}, "startsAt": "2024-01-01T00:00:00Z", "endsAt": ends_at,
            }])
        };
        assert_eq!(post_to(url("/api/v2/alerts"), posted("2200-01-01T00:00:00Z")).await, 200);
        assert_eq!(inbox.borrow()[1].resolved_at, None);
        assert_eq!(post_to(url("/api/v2/alerts"), posted("2024-01-01T00:01:00Z")).await, 200);
        assert!(inbox.borrow()[1].resolved_at.is_some());
        assert_eq!(inbox.borrow().len(), 2);
        assert!(post_to(url("/webhook"), serde_json::json!({"alerts": 1})).await.is_client_error());
    }
}
