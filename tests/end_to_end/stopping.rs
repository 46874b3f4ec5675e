//! An orderly stop: what is under way is finished, nothing is lost, and it does not take long, whoever clings to us.

use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::otlp::{Client, Export};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// From the signal to the end of the process.
const WITHIN: Duration = Duration::from_secs(10);

/// Sends until it is told not to, or is turned away; how many items were acknowledged.
async fn sends(url: String, stopping: Arc<AtomicBool>) -> u64 {
    let mut client = Client::new(&url);
    let mut acknowledged = 0;
    loop {
        match client.export(&Export::of(0, "sender", 10)).await {
            Ok(()) => acknowledged += 10,
            Err(status) => {
                assert!(stopping.load(Ordering::SeqCst), "before the stop: {status:?}");
                return acknowledged;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_10_s_at_most_and_loses_nothing_whoever_clings_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[]);
    let url = daemon.url("otlp_grpc");
    let stopping = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..4).map(|_| tokio::spawn(sends(url.clone(), stopping.clone()))).collect();
    // Who says nothing, who never finishes a body, and who follows what never comes.
    let mut clinging = Vec::new();
    for name in ["otlp_grpc", "otlp_http", "query", "http"] {
        let address = daemon.url(name).replace("http://", "");
        let silent = TcpStream::connect(&address).await.expect("connected");
        let mut slow = TcpStream::connect(&address).await.expect("connected");
        let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
        slow.write_all(head.as_bytes()).await.expect("sent");
        clinging.extend([silent, slow]);
    }
    let endpoint = daemon.url("query");
    let channel =
        tonic::transport::Endpoint::from_shared(endpoint).expect("a URL").connect().await.expect("connected");
    let mut follower = barograph::api::v1::anomaly_service_client::AnomalyServiceClient::new(channel);
    let followed = follower.follow_anomalies(barograph::api::v1::FollowAnomaliesRequest::default()).await;
    let followed = followed.expect("it may follow");
    eventually("some are counted", WITHIN, async || {
        (daemon.ask(&["status"])["accepted"]["spans"].as_u64() > Some(100)).then_some(())
    })
    .await;
    stopping.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let code = tokio::task::spawn_blocking(move || daemon.stop()).await.expect("it ends");
    let took = begun.elapsed();
    println!("stopped after {took:?}");
    assert_eq!(code, Some(0));
    assert!(took <= WITHIN, "{took:?}");
    drop((clinging, followed));
    let mut acknowledged = 0;
    for sender in senders {
        acknowledged += sender.await.expect("a sender");
    }
    let daemon = Daemon::start(folder.path(), &[]);
    let counted = daemon.ask(&["status"])["accepted"]["spans"].as_u64().expect("a count");
    assert!(acknowledged > 0 && counted >= acknowledged, "{counted} of {acknowledged} are counted");
    // Of each sender one request may have been counted whose answer it did not get.
    assert!(counted <= acknowledged + 4 * 10, "{counted} of {acknowledged} are counted");
    assert_eq!(daemon.stop(), Some(0));
}
