//! Faults drawn from a seed, one after the other and amid traffic: kills, stops, standstills, connections that break or
//! hang. When they are over, every acknowledged item is counted exactly once, and a fresh one passes.
//!
//! `scripts/chaos SEED FAULTS` runs it at length; the same seed draws the same faults.

use crate::crashes::{Account, SENDERS, SIGNALS, balance};
use crate::support::daemon::Daemon;
use crate::support::free_port;
use crate::support::otlp::{Client, Export};
use crate::support::proxy::{Mode, Proxy};
use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
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
}

/// Sends one request after another, whatever becomes of them, until it is to stop.
async fn send(
    number: usize,
    url: String,
    mut random: Rng,
    acknowledged: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
) -> (usize, Account) {
    let mut account = Account::default();
    let mut client = Client::new(&url);
    while !stopping.load(Ordering::SeqCst) {
        let (signal, count) = (random.usize(..SIGNALS.len()), random.u64(1..150));
        let export = Export::of(signal, &format!("sender-{number}"), count);
        match tokio::time::timeout(PATIENCE, client.export(&export)).await {
            Ok(Ok(())) => {
                account.acknowledged[signal] += count;
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            // It may have been counted all the same.
            Ok(Err(_)) | Err(_) => {
                account.in_flight[signal].push(count);
                tokio::time::sleep(BACK_OFF).await;
                client = Client::new(&url);
            }
        }
    }
    (number, account)
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
    let (acknowledged, stopping) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let (acknowledged, stopping) = (acknowledged.clone(), stopping.clone());
        senders.spawn(send(number, chaos.proxy.url(), random.fork(), acknowledged, stopping));
    }
    for number in 0..faults {
        let (moment, fault) = (random.u64(5..150), Fault::draw(&mut random));
        println!("  {number}: {fault:?} after {moment} more requests");
        let until = acknowledged.load(Ordering::SeqCst) + moment;
        let what = format!("seed {seed}, before fault {number}: requests are acknowledged");
        crate::support::eventually(&what, STANDSTILL, async || {
            (acknowledged.load(Ordering::SeqCst) >= until).then_some(())
        })
        .await;
        chaos.suffer(fault, folder.path()).await;
    }
    stopping.store(true, Ordering::SeqCst);
    let mut accounts = vec![Account::default(); SENDERS];
    for (number, account) in senders.join_all().await {
        accounts[number] = account;
    }
    let daemon = chaos.daemon.take().expect("it runs");
    balance(&daemon, &accounts, &format!("chaos of seed {seed}")).await;
    Client::new(&daemon.url("otlp_grpc"))
        .export(&Export::of(0, "sender-0", 1))
        .await
        .expect("a fresh item passes");
    accounts[0].acknowledged[0] += 1;
    balance(&daemon, &accounts, &format!("chaos of seed {seed}, with a fresh item")).await;
    println!(
        "  {} requests acknowledged, nothing missing, nothing counted twice",
        acknowledged.load(Ordering::SeqCst)
    );
    assert_eq!(daemon.stop(), Some(0));
}
