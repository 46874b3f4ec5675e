//! A webhook receiver that remembers what it was sent.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// One request it got.
#[derive(Clone, Debug)]
pub struct Request {
    pub content_type: String,
    pub body: Value,
}

/// A receiver on a free port of the loopback, until it is dropped.
pub struct Receiver {
    address: SocketAddr,
    requests: watch::Receiver<Vec<Request>>,
    status: Arc<AtomicU16>,
    server: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Starts one that answers 200.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, requests) = watch::channel(Vec::new());
        let status = Arc::new(AtomicU16::new(200));
        let state = (Arc::new(sender), status.clone());
        let app = Router::new().fallback(take).with_state(state);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("a server") });
        Self { address, requests, status, server }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers with this status from now on.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// What came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }

    /// Waits until what came so far satisfies `enough`; panics with what came when it does not in time.
    pub async fn wait(
        &mut self,
        what: &str,
        within: Duration,
        enough: impl FnMut(&Vec<Request>) -> bool,
    ) -> Vec<Request> {
        let came = match tokio::time::timeout(within, self.requests.wait_for(enough)).await {
            Ok(came) => Some(came.expect("the receiver runs").clone()),
            Err(_) => None,
        };
        came.unwrap_or_else(|| panic!("not within {within:?}: {what}; came: {:#?}", self.requests()))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Shared = (Arc<watch::Sender<Vec<Request>>>, Arc<AtomicU16>);

async fn take(State((sender, status)): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let content_type =
        headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = serde_json::from_slice(&body).expect("a JSON body");
    // Read before the request is shown: who waits for it may change the status next.
    let status = status.load(Ordering::SeqCst);
    sender.send_modify(|requests| requests.push(Request { content_type, body }));
    StatusCode::from_u16(status).expect("a status")
}
