//! `kill -9` in the middle of traffic: what was acknowledged is counted once, and a firing alert lives on.

use crate::support::daemon::Daemon;
use crate::support::http::{self, Sent};
use crate::support::load;
use crate::support::otlp::{Client, Export, now_ns, span, spans};
use crate::support::receiver::Request;
use crate::support::{Alertmanager, Receiver, eventually};
use fastrand::Rng;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(30);
pub const SIGNALS: [(&str, &str); 3] =
    [("spans", "traces"), ("log_records", "logs"), ("metric_points", "metrics")];
/// Kills: `scripts/release-check` asks for 2,000.
fn rounds() -> usize {
    std::env::var("BAROGRAPH_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(50)
}
/// What the kills and the traffic are drawn from: another seed, other moments.
fn seed() -> u64 {
    std::env::var("BAROGRAPH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
}
/// How long traffic may take to come as far as the next kill: machines stand still at times.
const STANDSTILL: Duration = Duration::from_secs(300);
pub const SENDERS: usize = 6;

/// What became of one sender's items, by signal.
#[derive(Clone, Debug, Default)]
pub struct Account {
    pub acknowledged: [u64; 3],
    /// Sizes of the requests that were under way when the daemon was killed: at most one a kill.
    pub in_flight: [Vec<u64>; 3],
}

impl Account {
    /// Whether this count is possible when every request is counted whole or not at all, every
    /// acknowledged one is, and none is counted twice.
    fn allows(&self, signal: usize, counted: u64) -> bool {
        let mut sums = BTreeSet::from([self.acknowledged[signal]]);
        // Sizes are below 150, so there are few sums however many kills there were.
        for size in &self.in_flight[signal] {
            let more: Vec<u64> = sums.iter().map(|sum| sum + size).collect();
            sums.extend(more);
        }
        sums.contains(&counted)
    }
}

/// Sends one request after another over one connection until the daemon is killed.
async fn send_until_killed(
    number: usize,
    urls: (String, String),
    mut random: Rng,
    acknowledged: Arc<watch::Sender<u64>>,
    killed: Arc<AtomicBool>,
) -> (usize, Account) {
    let mut account = Account::default();
    let mut grpc = Client::new(&urls.0);
    let service = format!("sender-{number}");
    loop {
        let signal = random.usize(0..SIGNALS.len());
        let count = random.u64(1..150);
        let export = Export::of(signal, &service, count);
        // Every third over OTLP/HTTP.
        let answer = if number % 3 == 2 {
            let url = format!("{}/v1/{}", urls.1, SIGNALS[signal].1);
            let headers = [("content-type", "application/x-protobuf")];
            match http::send(
                &url,
                (::http::Method::POST, false),
                &headers,
                Sent::Whole(export.to_bytes().into()),
            )
            .await
            {
                Ok(answer) if answer.status == 200 && answer.body.is_empty() => Ok(()),
                Ok(answer)
                    if answer.status == 503
                        && String::from_utf8_lossy(&answer.body).contains("limits.body_time") =>
                {
                    Err(None)
                }
                other => Err(Some(format!("{other:?}"))),
            }
        } else {
            grpc.export(&export).await.map_err(|status| {
                (status.code() != tonic::Code::DeadlineExceeded).then(|| format!("{status:?}"))
            })
        };
        match answer {
            Ok(()) => {
                account.acknowledged[signal] += count;
                acknowledged.send_modify(|requests| *requests += 1);
            }
            // The machine stood still for so long that the body came too late.
            Err(None) => account.in_flight[signal].push(count),
            Err(Some(error)) => {
                assert!(
                    killed.load(Ordering::SeqCst),
                    "{service} failed before the daemon was killed: {error}"
                );
                account.in_flight[signal].push(count);
                return (number, account);
            }
        }
    }
}

/// What is counted of each sender, and that the totals are the sums of it.
fn counted(daemon: &Daemon) -> Option<Vec<[u64; 3]>> {
    let rows = daemon.ask(&["services"]);
    let accepted = daemon.ask(&["status"])["accepted"].clone();
    let mut counted = vec![[0; 3]; SENDERS];
    for row in rows.as_array().expect("rows") {
        let name = row["service"].as_str().expect("a name");
        let number: usize =
            name.strip_prefix("sender-").and_then(|number| number.parse().ok()).expect("a sender of ours");
        for (signal, (field, _)) in SIGNALS.iter().enumerate() {
            counted[number][signal] = row[field].as_u64().expect("a count");
        }
    }
    let sum = |signal: usize| counted.iter().map(|of: &[u64; 3]| of[signal]).sum::<u64>();
    // They are read one after the other, so they differ until the last cut.
    let agree = SIGNALS.iter().enumerate().all(|(signal, (field, _))| accepted[field] == sum(signal));
    agree.then_some(counted)
}

pub async fn balance(daemon: &Daemon, accounts: &[Account], when: &str) -> Vec<[u64; 3]> {
    let what = format!("{when}, all that was acknowledged is counted: {accounts:#?}");
    let found = eventually(&what, PATIENCE, async || {
        let found = counted(daemon)?;
        let enough = accounts.iter().zip(&found).all(|(account, found)| {
            (0..SIGNALS.len()).all(|signal| found[signal] >= account.acknowledged[signal])
        });
        enough.then_some(found)
    })
    .await;
    for (number, (account, found)) in accounts.iter().zip(&found).enumerate() {
        for (signal, (field, _)) in SIGNALS.iter().enumerate() {
            assert!(
                account.allows(signal, found[signal]),
                "{when}, sender {number}: {} {field} are counted; {} were acknowledged, and requests of {:?} \
                 were under way at the kills",
                found[signal],
                account.acknowledged[signal],
                account.in_flight[signal],
            );
        }
    }
    found
}

/// A journal as small as can be: checkpoints, one each quarter of it, fall into the traffic.
fn start(folder: &Path) -> Daemon {
    Daemon::start(folder, &["journal.max_bytes=\"16 MiB\""])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_kill_amid_traffic_is_counted_once() {
    let seed = seed();
    let mut random = Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let mut accounts = vec![Account::default(); SENDERS];
    let mut daemon = start(folder.path());
    let rounds = rounds();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let (acknowledged, mut progress) = watch::channel(0);
        let (acknowledged, killed) = (Arc::new(acknowledged), Arc::new(AtomicBool::new(false)));
        let mut senders = JoinSet::new();
        for number in 0..SENDERS {
            senders.spawn(send_until_killed(
                number,
                (daemon.url("otlp_grpc"), daemon.url("otlp_http")),
                random.fork(),
                acknowledged.clone(),
                killed.clone(),
            ));
        }
        let moment = random.u64(20..300);
        tokio::time::timeout(STANDSTILL, progress.wait_for(|requests| *requests >= moment))
            .await
            .unwrap_or_else(|_| {
                let sent = *acknowledged.borrow();
                panic!("round {round}: {sent} of {moment} requests within {STANDSTILL:?}")
            })
            .expect("the senders send");
        killed.store(true, Ordering::SeqCst);
        daemon.kill();
        for (number, of) in senders.join_all().await {
            for signal in 0..SIGNALS.len() {
                accounts[number].acknowledged[signal] += of.acknowledged[signal];
                accounts[number].in_flight[signal].extend(&of.in_flight[signal]);
            }
        }
        let begun = std::time::Instant::now();
        daemon = start(folder.path());
        slowest = slowest.max(begun.elapsed());
        // What is lost stays lost, so every tenth look finds it.
        if round % 10 == 9 {
            balance(&daemon, &accounts, &format!("seed {seed}, kill {round} after {moment} requests")).await;
        }
        if round % 100 == 99 {
            println!("after {} kills: nothing missing, nothing counted twice", round + 1);
        }
    }
    let before = balance(&daemon, &accounts, "at the end").await;
    assert_eq!(daemon.stop(), Some(0));
    let daemon = start(folder.path());
    assert_eq!(balance(&daemon, &accounts, "after an orderly stop").await, before);
    let items: u64 = accounts.iter().flat_map(|account| account.acknowledged).sum();
    let under_way: u64 = accounts.iter().flat_map(|account| account.in_flight.iter().flatten()).sum();
    println!(
        "{rounds} kills of seed {seed}, ready again after {slowest:?} at most: {items} items acknowledged, {under_way} under way at the kills, {} counted",
        before.iter().flatten().sum::<u64>()
    );
}

/// How long a replay may take for each GiB, and what is allowed for starting at all.
const REPLAYED_GIB_WITHIN: Duration = Duration::from_secs(5);
const STARTED_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_after_a_kill_takes_no_longer_than_5_s_for_each_gib_that_it_replays() {
    // A development build does not keep the figure.
    let is_figure = std::env::var_os("BAROGRAPH_KILLS").is_some();
    let folder = tempfile::tempdir().expect("a folder");
    let settings = ["journal.max_bytes=\"4 GiB\""];
    let daemon = Daemon::start(folder.path(), &settings);
    let lasts = Duration::from_secs(if is_figure { 15 } else { 2 });
    let figures = load::send(&daemon.url("otlp_grpc"), lasts, &[]).await;
    daemon.kill();
    let begun = std::time::Instant::now();
    let daemon = Daemon::start(folder.path(), &settings);
    let took = begun.elapsed();
    let accepted = &daemon.ask(&["status"])["accepted"];
    let counted: u64 = SIGNALS.iter().map(|(field, _)| accepted[field].as_u64().expect("a count")).sum();
    assert!(counted >= figures.accepted(), "{counted} of {} are counted", figures.accepted());
    let log = std::fs::read_to_string(folder.path().join("log")).expect("a log");
    let line = log.lines().rfind(|line| line.contains("replayed the journal")).expect("a replay");
    let bytes = line.split("bytes=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let bytes: u64 = bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    let gib = bytes as f64 / f64::from(1 << 30);
    println!("ready {took:?} after a start that replayed {:.0} MiB, {counted} items", gib * 1024.0);
    assert!(
        !is_figure || took <= STARTED_WITHIN + REPLAYED_GIB_WITHIN.mul_f64(gib),
        "{took:?} for {gib} GiB"
    );
}

/// 50 requests a second to one service, of which so many percent fail.
pub struct Traffic {
    url: watch::Sender<String>,
    pub failing_percent: Arc<AtomicU32>,
    acknowledged: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    pub fn start(url: String) -> Self {
        let (url, mut urls) = watch::channel(url);
        let failing_percent = Arc::new(AtomicU32::new(0));
        let (done, acknowledged) = watch::channel(0);
        let failing = failing_percent.clone();
        let task = tokio::spawn(async move {
            let mut random = Rng::with_seed(11);
            let mut client = Client::new(&urls.borrow_and_update());
            let mut beat = tokio::time::interval(Duration::from_millis(100));
            loop {
                beat.tick().await;
                if urls.has_changed().unwrap_or(false) {
                    client = Client::new(&urls.borrow_and_update());
                }
                let percent = failing.load(Ordering::SeqCst);
                let batch = (0..5)
                    .map(|_| {
                        let took = random.u64(8_000_000..14_000_000);
                        span("POST /pay", now_ns(), took, random.u32(0..100) < percent)
                    })
                    .collect();
                if client.export(&Export::Traces(spans("payment", batch))).await.is_ok() {
                    done.send_modify(|requests| *requests += 5);
                }
            }
        });
        Self { url, failing_percent, acknowledged, task }
    }

    /// Goes on to another daemon.
    pub fn go_on_to(&self, url: String) {
        self.url.send_replace(url);
    }

    /// Waits until so many more requests were acknowledged.
    pub async fn more(&mut self, requests: u64) {
        let enough = *self.acknowledged.borrow() + requests;
        let within = Duration::from_millis(requests * 20) + PATIENCE;
        tokio::time::timeout(within, self.acknowledged.wait_for(|sent| *sent >= enough))
            .await
            .unwrap_or_else(|_| panic!("fewer than {requests} requests were acknowledged within {within:?}"))
            .expect("traffic flows");
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The anomalies that notifications of this status are about, one each notification.
pub fn told(requests: &[Request], status: &str) -> Vec<String> {
    let of = requests.iter().filter(|request| request.body["status"] == status);
    of.map(|request| request.body["groupLabels"]["anomaly_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firing_alert_keeps_its_id_over_kills_and_is_told_once() {
    let mut receiver = Receiver::start().await;
    let alertmanager = Alertmanager::start(&receiver.url()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let setting = format!("alert.alertmanagers=[\"{}\"]", alertmanager.url());
    let mut daemon = Daemon::start(folder.path(), &[&setting]);
    let mut traffic = Traffic::start(daemon.url("otlp_grpc"));
    traffic.more(50 * 45).await;
    assert!(receiver.requests().is_empty(), "healthy: {:#?}", receiver.requests());
    traffic.failing_percent.store(50, Ordering::SeqCst);
    let requests = receiver.wait("the fault is told", PATIENCE, |requests| !requests.is_empty()).await;
    let first = told(&requests, "firing");
    let [id] = first.as_slice() else { panic!("one alert: {requests:#?}") };
    // First at the very moment at which it was told, then long after: when whole windows are judged again.
    for requests in [50 * 35, 50 * 3] {
        daemon.kill();
        let killed = barograph::model::Timestamp(now_ns()).to_string();
        daemon = Daemon::start(folder.path(), &[&setting]);
        traffic.url.send_replace(daemon.url("otlp_grpc"));
        eventually("the alert is told again after the restart", PATIENCE, async || {
            let held = alertmanager.alerts().await;
            let again = held.iter().filter(|alert| {
                alert["labels"]["anomaly_id"] == *id && alert["updatedAt"].as_str() > Some(killed.as_str())
            });
            (again.count() == 1).then_some(())
        })
        .await;
        traffic.more(requests).await;
        let anomalies = daemon.ask(&["anomalies"]);
        assert_eq!(anomalies.as_array().map(Vec::len), Some(1), "{anomalies:#}");
        assert_eq!((&anomalies[0]["id"], &anomalies[0]["state"]), (&(*id).clone().into(), &"firing".into()));
        assert_eq!(alertmanager.alerts().await.len(), 1, "the same alert, and no other");
        assert_eq!(told(&receiver.requests(), "firing"), first, "told once");
        assert_eq!(told(&receiver.requests(), "resolved"), [""; 0], "a restart resolves nothing");
    }
    // What was taken up after the restarts is the alert that ends.
    traffic.failing_percent.store(0, Ordering::SeqCst);
    let requests = receiver
        .wait("the recovery is told", Duration::from_secs(90), |requests| {
            !told(requests, "resolved").is_empty()
        })
        .await;
    assert_eq!(told(&requests, "resolved"), first);
    assert_eq!(told(&requests, "firing"), first);
    assert_eq!(daemon.stop(), Some(0));
}

/// Sends one body over a connection of its own and reads no answer. Closed before one is read, the other side
/// learns that it did not arrive.
async fn send_unread(address: &str, body: &[u8]) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt as _;
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body).await.expect("sent");
    stream.flush().await.expect("sent");
    stream
}

/// Spans counted of one service.
fn spans_of(daemon: &Daemon, service: &str) -> u64 {
    let rows = daemon.ask(&["services"]);
    let row = rows.as_array().expect("rows").iter().find(|row| row["service"] == service).cloned();
    row.map_or(0, |row| row["spans"].as_u64().expect("a count"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_lost_answer_is_acknowledged_and_not_counted_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = start(folder.path());
    let address = |daemon: &Daemon| daemon.url("otlp_http").replace("http://", "");
    let again = async |daemon: &Daemon, body: &[u8]| {
        let headers = [("content-type", "application/x-protobuf")];
        let url = format!("{}/v1/traces", daemon.url("otlp_http"));
        let sent = Sent::Whole(body.to_vec().into());
        http::send(&url, (::http::Method::POST, false), &headers, sent).await.expect("an answer").status
    };
    let body = |service: &str| Export::of(0, service, 7).to_bytes();

    // The answer was written, and its connection reset.
    let reset = body("reset");
    let stream = send_unread(&address(&daemon), &reset).await;
    tokio::time::timeout(PATIENCE, stream.readable()).await.expect("an answer").expect("readable");
    drop(stream);
    eventually("the first copy is counted", PATIENCE, async || {
        (spans_of(&daemon, "reset") == 7).then_some(())
    })
    .await;
    assert_eq!(again(&daemon, &reset).await, 200);

    // The daemon dies with the answer unsent or unread.
    let killed = body("killed");
    let unread = send_unread(&address(&daemon), &killed).await;
    eventually("the copy is recorded", PATIENCE, async || {
        let found = std::fs::read_dir(folder.path().join("journal")).expect("a journal").any(|entry| {
            let bytes = std::fs::read(entry.expect("an entry").path()).unwrap_or_default();
            bytes.windows(killed.len()).any(|part| part == killed)
        });
        found.then_some(())
    })
    .await;
    daemon.kill();
    drop(unread);
    let daemon = start(folder.path());
    assert_eq!(again(&daemon, &killed).await, 200);

    // Who was answered and sends the same again means it: that is counted.
    let meant = body("meant");
    for _ in 0..3 {
        assert_eq!(again(&daemon, &meant).await, 200);
    }
    eventually("what was meant is counted", PATIENCE, async || {
        (spans_of(&daemon, "meant") == 21).then_some(())
    })
    .await;
    for service in ["reset", "killed"] {
        assert_eq!(spans_of(&daemon, service), 7, "{service} is counted once");
    }
    assert_eq!(daemon.stop(), Some(0));
}
