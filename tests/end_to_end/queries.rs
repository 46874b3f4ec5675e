//! 64 clients that ask for as much as they can, all the time: what is counted must not notice.

use crate::support::daemon::Daemon;
use crate::support::load::{self, Comparison};
use barograph::api::v1::query_service_client::QueryServiceClient;
use barograph::api::v1::{GetGraphRequest, GetTimeSeriesRequest, ListOperationsRequest, TimeRange};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

const CLIENTS: usize = 64;
const ROUNDS: usize = 3;

/// How long a load lasts: `scripts/release-check` asks for more, and has the machine for itself, so that the
/// latency is a figure.
fn lasts() -> (Duration, bool) {
    let seconds = std::env::var("BAROGRAPH_QUERY_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    (Duration::from_secs(seconds.unwrap_or(2)), seconds.is_some())
}

/// Asks one heavy question after another for as long as it is to.
async fn ask(
    mut client: QueryServiceClient<Channel>,
    mut is_on: watch::Receiver<bool>,
    answered: Arc<AtomicU64>,
) {
    let range = || Some(TimeRange::default());
    for number in 0u64.. {
        if is_on.wait_for(|is_on| *is_on).await.is_err() {
            return;
        }
        let done = match number % 3 {
            0 => client
                .list_operations(ListOperationsRequest { range: range(), ..Default::default() })
                .await
                .is_ok(),
            1 => client
                .get_time_series(GetTimeSeriesRequest { range: range(), ..Default::default() })
                .await
                .is_ok(),
            _ => client.get_graph(GetGraphRequest { range: range(), ..Default::default() }).await.is_ok(),
        };
        if done {
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_queries_cost_ingest_nothing() {
    if !load::can_pin("a load beside queries") {
        return;
    }
    let (lasts, is_alone) = lasts();
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start_after(load::SERVER, folder.path(), &["journal.max_bytes=\"512 MiB\""]);
    let url = daemon.url("otlp_grpc");
    let rate = format!("{:.0}", load::capacity(&url).await / 4.0);
    let (turn, is_on) = watch::channel(false);
    let answered = Arc::new(AtomicU64::new(0));
    let lesser = load::lesser_runtime();
    for _ in 0..CLIENTS {
        let endpoint = Endpoint::from_shared(daemon.url("query")).expect("a URL");
        let (is_on, answered) = (is_on.clone(), answered.clone());
        lesser.spawn(async move {
            let channel = endpoint.connect().await.expect("connected");
            ask(QueryServiceClient::new(channel), is_on, answered).await;
        });
    }
    let mut found = Vec::new();
    for _ in 0..ROUNDS {
        let alone = load::send(&url, lasts, &["--rate", &rate]).await;
        turn.send_replace(true);
        let beside = load::send(&url, lasts, &["--rate", &rate]).await;
        turn.send_replace(false);
        for figures in [&alone, &beside] {
            assert_eq!(figures.refused() + figures.failed(), 0, "{figures:?}");
        }
        found.push(Comparison { alone, beside });
    }
    lesser.shutdown_background();
    let middle = load::middle(found);
    println!(
        "queries of {CLIENTS} clients ({} answered) beside {rate} items a second: {:.1} % of the rate, p99 {:?} \
         against {:?}, {:.2} times",
        answered.load(Ordering::SeqCst),
        100.0 * middle.rate(),
        middle.beside.p99(),
        middle.alone.p99(),
        middle.slower()
    );
    assert!(answered.load(Ordering::SeqCst) > 0, "no query was answered");
    assert!(middle.rate() >= 0.95, "{middle:?}");
    assert!(!is_alone || middle.slower() <= 1.5, "{middle:?}");
    assert_eq!(daemon.stop(), Some(0));
}
