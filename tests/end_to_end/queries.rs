//! 64 clients that ask for as much as they can, all the time: what is counted must not notice.

use crate::support::daemon::Daemon;
use crate::support::load::{self, Comparison};
use barograph::api::v1::journal_service_client::JournalServiceClient;
use barograph::api::v1::query_service_client::QueryServiceClient;
use barograph::api::v1::{
    GetGraphRequest, GetTimeSeriesRequest, ListOperationsRequest, ListServicesRequest, SearchLogsRequest,
    SearchTracesRequest, TimeRange,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

const CLIENTS: usize = 64;
const ROUNDS: usize = 3;
/// Kinds of questions, in the order in which they are asked.
const KINDS: usize = 6;
const NAMES: [&str; KINDS] =
    ["operations", "a time series", "the graph", "services", "traces", "log records"];
/// The part of its rate without them that ingest keeps beside queries.
const LEAST_RATE: f64 = 0.95;

/// How long a load lasts: `scripts/release-check` asks for more, and has the machine for itself, so that the
/// latency is a figure.
fn lasts() -> (Duration, bool) {
    let seconds = std::env::var("BAROGRAPH_QUERY_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    (Duration::from_secs(seconds.unwrap_or(2)), seconds.is_some())
}

/// Asks one heavy question after another, beginning with this one, for as long as it is to.
async fn ask(
    channel: Channel,
    first: usize,
    mut is_on: watch::Receiver<bool>,
    answered: Arc<[AtomicU64; KINDS]>,
) {
    let mut client = QueryServiceClient::new(channel.clone());
    let mut journal = JournalServiceClient::new(channel);
    let range = || Some(TimeRange::default());
    let service = || "load-0".to_owned();
    // Nothing meets it, so that all that is held is looked at.
    let nowhere = || "no.such.attribute=1".to_owned();
    for number in first.. {
        if is_on.wait_for(|is_on| *is_on).await.is_err() {
            return;
        }
        let done = match number % KINDS {
            0 => client
                .list_operations(ListOperationsRequest { range: range(), ..Default::default() })
                .await
                .map(drop),
            1 => client
                .get_time_series(GetTimeSeriesRequest {
                    range: range(),
                    service: service(),
                    ..Default::default()
                })
                .await
                .map(drop),
            2 => client.get_graph(GetGraphRequest { range: range(), ..Default::default() }).await.map(drop),
            3 => client
                .list_services(ListServicesRequest { range: range(), ..Default::default() })
                .await
                .map(drop),
            4 => journal
                .search_traces(SearchTracesRequest {
                    range: range(),
                    r#where: nowhere(),
                    ..Default::default()
                })
                .await
                .map(drop),
            _ => journal
                .search_logs(SearchLogsRequest { range: range(), r#where: nowhere(), ..Default::default() })
                .await
                .map(drop),
        };
        match done {
            Ok(()) => {
                if let Some(answered) = answered.get(number % KINDS) {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            }
            // One that was refused for want of room, or took too long, is asked again.
            Err(status) => assert!(
                !matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::NotFound),
                "{status:?}"
            ),
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
    // It has to hold what arrives between two checkpoints; a short run ends before it would be full.
    let journal = if is_alone { "journal.max_bytes=\"2 GiB\"" } else { "journal.max_bytes=\"512 MiB\"" };
    let daemon = Daemon::start_after(load::SERVER, folder.path(), &[journal]);
    let url = daemon.url("otlp_grpc");
    if is_alone {
        load::recycle(&url, folder.path()).await;
    }
    let rate = format!("{:.0}", load::capacity(&url).await / 4.0);
    let (turn, is_on) = watch::channel(false);
    let answered: Arc<[AtomicU64; KINDS]> = Arc::default();
    let lesser = load::lesser_runtime();
    // Each begins with another kind, so that none is only asked at the end of a short run.
    for first in 0..CLIENTS {
        let endpoint = Endpoint::from_shared(daemon.url("query")).expect("a URL");
        let (is_on, answered) = (is_on.clone(), answered.clone());
        lesser.spawn(async move {
            let channel = endpoint.connect().await.expect("connected");
            ask(channel, first, is_on, answered).await;
        });
    }
    let mut found = Vec::new();
    for round in 0..ROUNDS {
        let alone = load::send(&url, lasts, &["--rate", &rate]).await;
        turn.send_replace(true);
        let beside = load::send(&url, lasts, &["--rate", &rate]).await;
        turn.send_replace(false);
        for figures in [&alone, &beside] {
            assert_eq!(figures.refused() + figures.failed(), 0, "{figures:?}");
        }
        let compared = Comparison { alone, beside };
        // Of each round: the one with the middle latency may be another than the one that took least.
        assert!(compared.rate() >= LEAST_RATE, "round {round}: {compared:?}");
        found.push(compared);
    }
    lesser.shutdown_background();
    let least = found.iter().map(Comparison::rate).fold(f64::INFINITY, f64::min);
    let middle = load::middle(found);
    let answered = answered.each_ref().map(|of| of.load(Ordering::SeqCst));
    println!(
        "queries of {CLIENTS} clients ({answered:?} answered) beside {rate} items a second: {:.1} % of the rate at \
         least, p99 {:?} against {:?}, {:.2} times",
        100.0 * least,
        middle.beside.p99(),
        middle.alone.p99(),
        middle.slower()
    );
    for (name, answered) in NAMES.iter().zip(answered) {
        assert!(answered > 0, "{name}: no such query was answered, so nothing was held against it");
    }
    assert!(!is_alone || middle.slower() <= 1.5, "{middle:?}");
    assert_eq!(daemon.stop(), Some(0));
}
