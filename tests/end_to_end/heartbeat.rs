//! Our own death is noticed: a dead-man receiver that hears nothing for 90 s tells.

use crate::access::Authority;
use crate::support::Receiver;
use crate::support::daemon::Daemon;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// After this long without a heartbeat the dead man's switch tells.
const SILENCE: Duration = Duration::from_secs(90);
/// Two may be late by this much on a busy machine, and still be in time.
const BETWEEN: Duration = Duration::from_secs(45);

/// A receiver over TLS that passes on the head of each request.
async fn receiver(authority: &Authority) -> (String, mpsc::UnboundedReceiver<String>) {
    let (cert, key) = authority.sign();
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://127.0.0.1:{}/ping", listener.local_addr().expect("an address").port());
    let (sender, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut bytes = [0u8; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    let head = String::from_utf8_lossy(&bytes[..count]).into_owned();
                    if head.starts_with("POST") {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                        let _ = sender.send(head);
                    }
                }
            });
        }
    });
    (url, heads)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_of_heartbeats_hears_them_until_we_are_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let (url, mut heads) = receiver(&authority).await;
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (ca, token) = (write("ca.pem", &authority.pem()), write("token", "heartbeat-secret\n"));
    let targets = format!("[[target]]\nurl = {url:?}\nca_file = {ca:?}\ntoken_file = {token:?}\n");
    let targets = format!("alert.targets_file={:?}", write("targets.toml", &targets));
    let data = folder.path().join("data");
    let daemon = Daemon::start(&data, &[&format!("alert.heartbeat_urls=[{url:?}]"), &targets]);
    let mut next = async || tokio::time::timeout(BETWEEN, heads.recv()).await.ok().flatten();
    let first = next().await.expect("a first heartbeat");
    assert!(first.contains("authorization: Bearer heartbeat-secret"), "{first}");
    let heard = Instant::now();
    next().await.expect("a second one");
    println!("{:?} between two heartbeats", heard.elapsed());
    daemon.kill();
    assert_eq!(next().await, None, "a dead daemon is not heard, so {SILENCE:?} of silence tell");
    let log = std::fs::read_to_string(data.join("log")).expect("a log");
    assert!(!log.contains("heartbeat-secret"));
}

/// When the heartbeats that an Alertmanager was posted end, in seconds since the epoch.
fn ends(requests: &[crate::support::receiver::Request]) -> Vec<i64> {
    let alerts = requests.iter().flat_map(|request| request.body.as_array().expect("alerts"));
    let beats = alerts.filter(|alert| alert["labels"]["alertname"] == "BarographHeartbeat");
    let end = |alert: &serde_json::Value| {
        let text = alert["endsAt"].as_str().expect("an end");
        let end = barograph::model::Timestamp::parse_rfc3339(text).expect("a time");
        i64::try_from(end.secs()).expect("in range")
    };
    beats.map(end).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_always_fires_ends_in_time_once_we_are_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut alertmanager = Receiver::start().await;
    let setting = format!("alert.alertmanagers=[{:?}]", alertmanager.url());
    let daemon = Daemon::start(folder.path(), &[&setting, "alert.heartbeat_alert=true"]);
    let posted = alertmanager.wait("two heartbeats", 2 * BETWEEN, |requests| ends(requests).len() >= 2).await;
    let found = ends(&posted);
    let second = found[1] - found[0];
    assert!((20..=BETWEEN.as_secs() as i64).contains(&second), "{second} s between two heartbeats");
    daemon.kill();
    let killed = i64::try_from(crate::support::otlp::now_ns() / 1_000_000_000).expect("in range");
    let last = ends(&alertmanager.requests()).into_iter().max().expect("a heartbeat");
    println!("an Alertmanager takes it for ended {} s after the kill", last - killed);
    // While we live it is always firing: each is there before the one before it ends.
    assert!(found[0] > found[1] - 75 + 5, "{found:?}");
    assert!(last - killed <= SILENCE.as_secs() as i64, "it goes on for {} s", last - killed);
}
