//! Faults drawn from a seed, one after the other and amid traffic: kills, stops, standstills, connections that break or
//! hang. Who is not answered sends the same again until it is. After each fault every acknowledged item is counted exactly
//! once; only where an answer was lost in a way that docs/operations.md names, its request may be counted twice.
//!
//! `scripts/chaos SEED FAULTS` runs it at length; the same seed draws the same faults.

use crate::crashes::{Account, SENDERS, SIGNALS, accounts, balance};
use crate::support::daemon::Daemon;
use crate::support::free_port;
use crate::support::otlp::{Client, Export};
use crate::support::proxy::{Mode, Proxy};
use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// After this long a sender takes a request for lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it waits then, as SDKs do.
const BACK_OFF: Duration = Duration::from_millis(50);
/// How long traffic may take to get going again.
const STANDSTILL: Duration = Duration::from_secs(60);

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(otherwise)
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// As a crash does.
    Kill,
    /// An orderly stop.
    Stop,
    /// The process stands still for so many milliseconds.
    Pause(u64),
    /// Connections behave like this for so many milliseconds.
    Connections(Mode, u64),
}

impl Fault {
    fn draw(random: &mut Rng) -> Self {
        let lasts = random.u64(20..1_500);
        match random.u8(..6) {
            0 | 1 => Self::Kill,
            2 => Self::Stop,
            3 => Self::Pause(lasts),
            4 => Self::Connections(Mode::Refuse, lasts),
            _ => Self::Connections(Mode::Hang, lasts),
        }
    }

    /// Whether answers can be lost so that the server does not know it: a proxy may end both connections in good order
    /// with an answer in its hands.
    fn may_count_twice(self) -> bool {
        matches!(self, Self::Connections(..))
    }
}

/// What the senders share with the test.
#[derive(Default)]
struct Shared {
    accounts: Mutex<Vec<Account>>,
    acknowledged: AtomicU64,
    /// Senders whose last request is acknowledged and that wait to be let go on.
    idle: AtomicUsize,
    /// What happens now may have a retry counted twice.
    may_count_twice: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Send,
    /// Until what is under way is acknowledged.
    Settle,
    End,
}

/// Sends one request after another, each until it is acknowledged, whatever happens.
async fn send(
    number: usize,
    url: String,
    mut random: Rng,
    shared: Arc<Shared>,
    mut orders: watch::Receiver<Order>,
) {
    let mut client = Client::new(&url);
    loop {
        let order = *orders.borrow_and_update();
        match order {
            Order::Send => {}
            Order::Settle => {
                shared.idle.fetch_add(1, Ordering::SeqCst);
                orders.changed().await.expect("the test goes on");
                continue;
            }
            Order::End => return,
        }
        let (signal, count) = (random.usize(..SIGNALS.len()), random.u64(1..150));
        let export = Export::of(signal, &format!("sender-{number}"), count);
        while !matches!(tokio::time::timeout(PATIENCE, client.export(&export)).await, Ok(Ok(()))) {
            if shared.may_count_twice.load(Ordering::SeqCst) {
                shared.accounts.lock().expect("locked")[number].perhaps_twice[signal].push(count);
            }
            tokio::time::sleep(BACK_OFF).await;
            client = Client::new(&url);
        }
        shared.accounts.lock().expect("locked")[number].acknowledged[signal] += count;
        shared.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

struct Chaos {
    settings: Vec<String>,
    proxy: Proxy,
    daemon: Option<Daemon>,
}

impl Chaos {
    fn start(&mut self, folder: &Path) {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        self.daemon = Some(Daemon::start(folder, &settings));
    }

    async fn suffer(&mut self, fault: Fault, folder: &Path) {
        match fault {
            Fault::Kill => {
                self.daemon.take().expect("it runs").kill();
                self.start(folder);
            }
            Fault::Stop => {
                assert_eq!(self.daemon.take().expect("it runs").stop(), Some(0));
                self.start(folder);
            }
            Fault::Pause(ms) => {
                let id = self.daemon.as_ref().expect("it runs").id();
                let id = Pid::from_raw(i32::try_from(id).expect("an id")).expect("an id");
                kill_process(id, Signal::STOP).expect("stopped");
                tokio::time::sleep(Duration::from_millis(ms)).await;
                kill_process(id, Signal::CONT).expect("going on");
            }
            Fault::Connections(mode, ms) => {
                self.proxy.behave(mode);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.proxy.behave(Mode::Pass);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_what_was_acknowledged_is_counted_once() {
    let (seed, faults) = (number("BAROGRAPH_SEED", 11), number("BAROGRAPH_CHAOS", 8));
    println!("chaos of seed {seed}: {faults} faults");
    let mut random = Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let settings =
        vec!["journal.max_bytes=\"16 MiB\"".to_owned(), format!("listen.otlp_grpc=\"127.0.0.1:{port}\"")];
    let proxy = Proxy::start(format!("127.0.0.1:{port}"), Mode::Pass).await;
    let mut chaos = Chaos { settings, proxy, daemon: None };
    chaos.start(folder.path());
    let shared = Arc::new(Shared { accounts: Mutex::new(accounts()), ..Shared::default() });
    let (orders, _) = watch::channel(Order::Send);
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        senders.spawn(send(number, chaos.proxy.url(), random.fork(), shared.clone(), orders.subscribe()));
    }
    for number in 0..faults {
        let (moment, fault) = (random.u64(5..150), Fault::draw(&mut random));
        println!("  {number}: {fault:?} after {moment} more requests");
        let until = shared.acknowledged.load(Ordering::SeqCst) + moment;
        let what = format!("seed {seed}, before fault {number}: requests are acknowledged");
        crate::support::eventually(&what, STANDSTILL, async || {
            (shared.acknowledged.load(Ordering::SeqCst) >= until).then_some(())
        })
        .await;
        shared.may_count_twice.store(fault.may_count_twice(), Ordering::SeqCst);
        chaos.suffer(fault, folder.path()).await;
        shared.idle.store(0, Ordering::SeqCst);
        orders.send_replace(Order::Settle);
        let what = format!("seed {seed}, after fault {number}: what was under way is acknowledged");
        crate::support::eventually(&what, STANDSTILL, async || {
            (shared.idle.load(Ordering::SeqCst) == SENDERS).then_some(())
        })
        .await;
        let mut accounts = shared.accounts.lock().expect("locked").clone();
        let daemon = chaos.daemon.as_ref().expect("it runs");
        balance(daemon, &mut accounts, &format!("chaos of seed {seed}, after fault {number}, {fault:?}"))
            .await;
        *shared.accounts.lock().expect("locked") = accounts;
        orders.send_replace(Order::Send);
    }
    orders.send_replace(Order::End);
    senders.join_all().await;
    let daemon = chaos.daemon.take().expect("it runs");
    let mut accounts = shared.accounts.lock().expect("locked").clone();
    balance(&daemon, &mut accounts, &format!("chaos of seed {seed}, at the end")).await;
    println!(
        "  {} requests acknowledged, nothing missing, nothing counted twice that need not be",
        shared.acknowledged.load(Ordering::SeqCst)
    );
    assert_eq!(daemon.stop(), Some(0));
}
