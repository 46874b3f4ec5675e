//! What several end-to-end tests need: real parts started on free ports, and small peers.

pub mod alertmanager;
pub mod alerts;
pub mod cgroup;
pub mod daemon;
pub mod http;
pub mod load;
pub mod otlp;
pub mod proxy;
pub mod receiver;
pub mod tools;

pub use alertmanager::Alertmanager;
pub use receiver::Receiver;

use std::time::Duration;
use tokio::time::Instant;

/// Asks again and again until there is an answer; panics with `what` when there is none in time.
pub async fn eventually<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
