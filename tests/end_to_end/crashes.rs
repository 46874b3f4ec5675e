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
    /// Sizes of the requests that were sent again since the last balance although the server need not have
    /// recognised them.
    pub perhaps_twice: [Vec<u64>; 3],
}

impl Account {
    /// Whether this count is possible when every acknowledged request is counted once, or twice if it may be.
    fn allows(&self, signal: usize, counted: u64) -> bool {
        let mut sums = BTreeSet::from([self.acknowledged[signal]]);
        for size in &self.perhaps_twice[signal] {
            let more: Vec<u64> = sums.iter().map(|sum| sum + size).collect();
            sums.extend(more);
        }
        sums.contains(&counted)
    }
}

/// One account a sender, and behind them one of the items by which a balance sees that it is up to date.
pub fn accounts() -> Vec<Account> {
    vec![Account::default(); SENDERS + 1]
}

/// A request that is sent as it is until it is acknowledged.
struct Unanswered {
    signal: usize,
    count: u64,
    export: Export,
}

/// Why a request is not known to be counted.
enum Failure {
    /// The server did not take it: there was no room, or the machine stood still and its body came too late.
    NotTaken,
    /// It may be counted or not.
    Unknown(String),
}

/// One client, over one connection.
struct Sender {
    number: usize,
    grpc: Client,
    http: String,
}

impl Sender {
    fn new(number: usize, daemon: &Daemon) -> Self {
        Self { number, grpc: Client::new(&daemon.url("otlp_grpc")), http: daemon.url("otlp_http") }
    }

    async fn send(&mut self, request: &Unanswered) -> Result<(), Failure> {
        // Every third over OTLP/HTTP.
        if self.number % 3 == 2 {
            let url = format!("{}/v1/{}", self.http, SIGNALS[request.signal].1);
            let headers = [("content-type", "application/x-protobuf")];
            let body = Sent::Whole(request.export.to_bytes().into());
            match http::send(&url, (::http::Method::POST, false), &headers, body).await {
                Ok(answer) if answer.status == 200 && answer.body.is_empty() => Ok(()),
                Ok(answer) if answer.status == 503 => Err(Failure::NotTaken),
                other => Err(Failure::Unknown(format!("{other:?}"))),
            }
        } else {
            self.grpc.export(&request.export).await.map_err(|status| match status.code() {
                tonic::Code::DeadlineExceeded => Failure::NotTaken,
                _ => Failure::Unknown(format!("{status:?}")),
            })
        }
    }

    /// Sends one request after another until the daemon is killed: what was acknowledged, and the request that was
    /// under way.
    async fn send_until_killed(
        mut self,
        mut random: Rng,
        acknowledged: Arc<watch::Sender<u64>>,
        killed: Arc<AtomicBool>,
    ) -> (usize, [u64; 3], Unanswered) {
        let mut items = [0; 3];
        loop {
            let (signal, count) = (random.usize(0..SIGNALS.len()), random.u64(1..150));
            let export = Export::of(signal, &format!("sender-{}", self.number), count);
            let request = Unanswered { signal, count, export };
            let failure = loop {
                match self.send(&request).await {
                    Ok(()) => break None,
                    Err(Failure::NotTaken) => {}
                    Err(Failure::Unknown(error)) => break Some(error),
                }
            };
            let Some(error) = failure else {
                items[signal] += count;
                acknowledged.send_modify(|requests| *requests += 1);
                continue;
            };
            let number = self.number;
            assert!(
                killed.load(Ordering::SeqCst),
                "sender {number} failed before the daemon was killed: {error}"
            );
            return (number, items, request);
        }
    }

    /// Sends what is unanswered once more, as it was, until it is acknowledged.
    async fn send_again(mut self, request: &Unanswered) {
        let until = std::time::Instant::now() + PATIENCE;
        while let Err(failure) = self.send(request).await {
            if let Failure::Unknown(error) = failure {
                panic!("sender {} sends again, and nothing is in its way: {error}", self.number);
            }
            assert!(std::time::Instant::now() < until, "sender {} is not let in again", self.number);
        }
    }
}

/// What is counted of each sender, and that the totals are the sums of it.
fn counted(daemon: &Daemon) -> Option<Vec<[u64; 3]>> {
    let rows = daemon.ask(&["services"]);
    let accepted = daemon.ask(&["status"])["accepted"].clone();
    let mut counted = vec![[0; 3]; SENDERS + 1];
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

/// Holds what is counted against what was acknowledged, of each sender and each signal, to the item. What may have been
/// counted twice is settled then: from here on it is what is counted that must stay.
pub async fn balance(daemon: &Daemon, accounts: &mut [Account], when: &str) {
    // Never sent again, and counted by the same cut as everything before it, or by a later one.
    Client::new(&daemon.url("otlp_grpc"))
        .export(&Export::of(0, &format!("sender-{SENDERS}"), 1))
        .await
        .expect("a fresh item passes");
    accounts[SENDERS].acknowledged[0] += 1;
    let last = accounts[SENDERS].acknowledged[0];
    let what = format!("{when}, a cut counts all that was acknowledged: {accounts:#?}");
    let found =
        eventually(&what, PATIENCE, async || counted(daemon).filter(|found| found[SENDERS][0] == last)).await;
    for (number, (account, found)) in accounts.iter_mut().zip(&found).enumerate() {
        for (signal, (field, _)) in SIGNALS.iter().enumerate() {
            assert!(
                account.allows(signal, found[signal]),
                "{when}, sender {number}: {} {field} are counted; {} were acknowledged, and requests of {:?} may be \
                 counted twice",
                found[signal],
                account.acknowledged[signal],
                account.perhaps_twice[signal],
            );
        }
        *account = Account { acknowledged: *found, ..Account::default() };
    }
}

/// Of the requests under way at the kill, each is counted whole or not at all when the daemon has started again; nothing
/// else is amiss. How many are counted.
async fn look_before_retries(
    daemon: &Daemon,
    accounts: &[Account],
    unanswered: &[(usize, Unanswered)],
    when: &str,
) -> usize {
    let found = eventually("totals and services agree", PATIENCE, async || counted(daemon)).await;
    let mut recorded = 0;
    for (number, (account, found)) in accounts.iter().zip(&found).enumerate() {
        for (signal, (field, _)) in SIGNALS.iter().enumerate() {
            let more = found[signal].checked_sub(account.acknowledged[signal]);
            let is_under_way = unanswered.iter().any(|(of, request)| {
                (*of, request.signal) == (number, signal) && Some(request.count) == more
            });
            assert!(
                more == Some(0) || is_under_way,
                "{when}, sender {number}: {} {field} are counted before retries, {} were acknowledged",
                found[signal],
                account.acknowledged[signal],
            );
            recorded += usize::from(is_under_way);
        }
    }
    recorded
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
    let mut accounts = accounts();
    let mut daemon = start(folder.path());
    let rounds = rounds();
    let mut slowest = Duration::ZERO;
    let (mut sent_again, mut recognised) = (0, 0);
    for round in 0..rounds {
        let (acknowledged, mut progress) = watch::channel(0);
        let (acknowledged, killed) = (Arc::new(acknowledged), Arc::new(AtomicBool::new(false)));
        let mut senders = JoinSet::new();
        for number in 0..SENDERS {
            let sender = Sender::new(number, &daemon);
            senders.spawn(sender.send_until_killed(random.fork(), acknowledged.clone(), killed.clone()));
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
        let mut unanswered = Vec::new();
        for (number, items, request) in senders.join_all().await {
            for (sum, items) in accounts[number].acknowledged.iter_mut().zip(items) {
                *sum += items;
            }
            unanswered.push((number, request));
        }
        let begun = std::time::Instant::now();
        daemon = start(folder.path());
        slowest = slowest.max(begun.elapsed());
        let when = format!("seed {seed}, kill {round} after {moment} requests");
        recognised += look_before_retries(&daemon, &accounts, &unanswered, &when).await;
        for (number, request) in &unanswered {
            Sender::new(*number, &daemon).send_again(request).await;
            accounts[*number].acknowledged[request.signal] += request.count;
            sent_again += 1;
        }
        balance(&daemon, &mut accounts, &when).await;
        if round % 100 == 99 {
            println!("after {} kills: nothing missing, nothing counted twice", round + 1);
        }
    }
    assert_eq!(daemon.stop(), Some(0));
    let daemon = start(folder.path());
    balance(&daemon, &mut accounts, "after an orderly stop").await;
    let items: u64 = accounts.iter().flat_map(|account| account.acknowledged).sum();
    println!(
        "{rounds} kills of seed {seed}, ready again after {slowest:?} at most: {items} items acknowledged and counted, \
         each once; {sent_again} requests were under way at a kill and sent again, {recognised} of them were counted already"
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
        Self::of("payment", url)
    }

    /// The same of another service.
    pub fn of(service: &'static str, url: String) -> Self {
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
                if client.export(&Export::Traces(spans(service, batch))).await.is_ok() {
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

    // It stops in order, or is killed after the checkpoint that holds the first copy: whether the answer arrived is not
    // known either.
    let (stopped, checkpointed) = (body("stopped"), body("checkpointed"));
    for body in [&stopped, &checkpointed] {
        assert_eq!(again(&daemon, body).await, 200);
    }
    assert_eq!(daemon.stop(), Some(0));
    let daemon = start(folder.path());
    assert_eq!(again(&daemon, &stopped).await, 200);
    daemon.kill();
    let daemon = start(folder.path());
    assert_eq!(again(&daemon, &checkpointed).await, 200);

    // Who was answered and sends the same again means it: that is counted.
    let meant = body("meant");
    for _ in 0..3 {
        assert_eq!(again(&daemon, &meant).await, 200);
    }
    eventually("what was meant is counted", PATIENCE, async || {
        (spans_of(&daemon, "meant") == 21).then_some(())
    })
    .await;
    for service in ["reset", "killed", "stopped", "checkpointed"] {
        assert_eq!(spans_of(&daemon, service), 7, "{service} is counted once");
    }
    assert_eq!(daemon.stop(), Some(0));
}
