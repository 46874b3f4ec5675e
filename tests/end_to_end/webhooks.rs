//! Webhooks: what they are sent, and that a bad one harms nobody.

use crate::support::Receiver;
use crate::support::alerts::anomaly;
use barograph::alert::{Alert, AlertState, Config, Lifecycle, Outbox};
use barograph::model::{Clock, SystemClock};
use barograph::observe::{Collect, Exposition};
use barograph::settings::Seconds;
use barograph::store::Ledger;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

const ID: &str = "00000000000000aa";
const PATIENCE: Duration = Duration::from_secs(10);

fn firing() -> Alert {
    let at = SystemClock.now();
    let mut lifecycle = Lifecycle::new(Config::default());
    let confirmed = anomaly(ID, "confirmed", at.saturating_sub(Duration::from_secs(10)));
    let alert = lifecycle.step(at, &[confirmed]).pop().expect("an alert");
    assert_eq!(alert.state, AlertState::Firing);
    alert
}

/// An outbox that tells `webhooks`, and what ends it when it is dropped.
fn start(webhooks: Vec<String>, timeout: Duration, ledger: &Ledger) -> (Outbox, watch::Sender<bool>) {
    let config = Config { webhooks, timeout: Seconds(timeout), ..Config::default() };
    let outbox = Outbox::new(config, Arc::new(ledger.clone()), Arc::new(SystemClock)).expect("an outbox");
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(outbox.clone().run(stopped));
    (outbox, stop)
}

fn metrics(outbox: &Outbox) -> String {
    let mut out = Exposition::default();
    outbox.collect(&mut out);
    out.finish()
}

/// How a peer misbehaves.
#[derive(Clone, Copy, Debug)]
enum Peer {
    /// Accepts, reads, says nothing.
    Hangs,
    /// Answers one byte a second.
    Drips,
    /// Sends elsewhere.
    Redirects(std::net::SocketAddr),
    /// Refuses with a body without end.
    Floods,
}

/// Starts a peer; gives its URL and the number of requests it got.
async fn peer(kind: Peer) -> (String, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 16 * 1024];
            let read = stream.read(&mut request).await.unwrap_or_default();
            if read > 0 {
                count.send_modify(|count| *count += 1);
            }
            tokio::spawn(async move {
                let _ = misbehave(kind, stream).await;
            });
        }
    });
    (url, counted)
}

async fn misbehave(kind: Peer, mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
    match kind {
        Peer::Hangs => std::future::pending().await,
        Peer::Drips => {
            for byte in b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 100\r\n\r\n" {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        Peer::Redirects(to) => {
            let answer = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{to}/hook\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await
        }
        Peer::Floods => {
            stream.write_all(b"HTTP/1.1 500 Oh no\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk).await?;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_told_once_with_its_key_and_not_again_after_a_restart() {
    let mut receiver = Receiver::start().await;
    let ledger = Ledger::in_memory().expect("a ledger");
    let (outbox, stop) = start(vec![receiver.url()], PATIENCE, &ledger);
    receiver.answer(503);
    let alert = firing();
    outbox.set(alert.clone());
    receiver.wait("an attempt that fails", PATIENCE, |requests| !requests.is_empty()).await;
    receiver.answer(200);
    let requests = receiver.wait("another attempt", PATIENCE, |requests| requests.len() >= 2).await;
    let event = &requests[0].body;
    assert_eq!(requests[0].content_type, "application/cloudevents+json; charset=UTF-8");
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["id"], format!("{ID}/1"));
    assert_eq!(event["type"], "barograph.alert.firing");
    assert_eq!(event["subject"], ID);
    assert_eq!(event["data"]["labels"]["service"], "payment");
    assert!(requests.iter().all(|request| request.body == *event), "each attempt is the same event");
    crate::support::eventually("it is kept that it was told", PATIENCE, async || {
        use barograph::alert::Deliveries;
        (ledger.load().expect("deliveries").len() == 1).then_some(())
    })
    .await;
    stop.send_replace(true);

    // After a restart the next thing that comes is news.
    let told = receiver.requests().len();
    let (outbox, _stop) = start(vec![receiver.url()], PATIENCE, &ledger);
    outbox.set(alert.clone());
    let ended =
        Alert { revision: 2, state: AlertState::Resolved, resolved_at: Some(SystemClock.now()), ..alert };
    outbox.set(ended);
    let requests = receiver.wait("the end", PATIENCE, |requests| requests.len() > told).await;
    assert_eq!(requests[told].body["id"], format!("{ID}/2"));
    assert_eq!(requests[told].body["type"], "barograph.alert.resolved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_lose_the_others_and_is_not_repeated() {
    let mut receiver = Receiver::start().await;
    receiver.answer(400);
    let (outbox, _stop) = start(vec![receiver.url()], PATIENCE, &Ledger::in_memory().expect("a ledger"));
    let alert = firing();
    outbox.set(alert.clone());
    receiver.wait("the refused one", PATIENCE, |requests| requests.len() == 1).await;
    receiver.answer(200);
    let other = Alert { anomaly: barograph::confirm::AnomalyId("00000000000000bb".into()), ..alert };
    outbox.set(other);
    let requests = receiver.wait("the other", PATIENCE, |requests| requests.len() >= 2).await;
    assert_eq!(requests[1].body["id"], "00000000000000bb/1");
    crate::support::eventually("both are counted", PATIENCE, async || {
        let text = metrics(&outbox);
        let holds = |result: &str| text.lines().any(|line| line.contains(&format!("\"{result}\"}} 1")));
        (holds("refused") && holds("delivered")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_peers_delay_nobody_and_are_tried_again_within_bounds() {
    let mut good = Receiver::start().await;
    let elsewhere = Receiver::start().await;
    let to =
        elsewhere.url().trim_start_matches("http://").trim_end_matches("/hook").parse().expect("an address");
    let timeout = Duration::from_millis(1_500);
    let mut urls = Vec::new();
    let mut counts = Vec::new();
    for kind in [Peer::Hangs, Peer::Drips, Peer::Redirects(to), Peer::Floods] {
        let (url, counted) = peer(kind).await;
        urls.push(url);
        counts.push((kind, counted));
    }
    urls.push(good.url());
    let (outbox, _stop) = start(urls, timeout, &Ledger::in_memory().expect("a ledger"));
    let begin = Instant::now();
    outbox.set(firing());
    good.wait("the good peer is told at once", PATIENCE, |requests| requests.len() == 1).await;
    assert!(begin.elapsed() < timeout, "{:?}", begin.elapsed());
    for (kind, mut counted) in counts {
        let again = tokio::time::timeout(PATIENCE, counted.wait_for(|count| *count >= 2)).await;
        assert!(again.is_ok(), "{kind:?} is tried again");
    }
    assert!(elsewhere.requests().is_empty(), "redirects are not followed");
    let text = metrics(&outbox);
    let delivered = text.lines().filter(|line| line.contains("\"delivered\"} 1")).count();
    assert_eq!(delivered, 1, "{text}");
}
