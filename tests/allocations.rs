//! How often a request allocates on its way from the socket through the journal to the counts.
//!
//! An allocator that counts by thread: what the generator, the windows and the judge do is told apart from
//! what I/O threads, the sequencer and the shards do for each request.

use barograph::access::Access;
use barograph::app::{App, Config};
use barograph::drill::load::{Compression, Load, Shape, send};
use barograph::model::{Signal, SystemClock};
use barograph::receive::{self, Admitted, Intake};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::runtime::Builder;

const THREADS: usize = 256;

/// Allocations of one thread.
struct Count {
    thread: AtomicI32,
    allocations: AtomicU64,
}

static COUNTS: [Count; THREADS] =
    [const { Count { thread: AtomicI32::new(0), allocations: AtomicU64::new(0) } }; THREADS];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // A thread that is being taken down has no place any more, and is not counted.
    let _ = PLACE.try_with(|place| {
        if place.get() == usize::MAX {
            place.set(NEXT.fetch_add(1, Ordering::Relaxed));
            if let Some(count) = COUNTS.get(place.get()) {
                count.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
            }
        }
        if let Some(count) = COUNTS.get(place.get()) {
            count.allocations.fetch_add(1, Ordering::Relaxed);
        }
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: `place` came from `alloc` or `realloc` here, so from the system's allocator.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`, and the caller keeps to the contract of `realloc`.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Allocations so far of the threads that requests pass through.
fn allocations() -> u64 {
    let on_the_way = |count: &&Count| {
        let thread = count.thread.load(Ordering::Relaxed);
        let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap_or_default();
        ["barograph-io", "sequencer", "shard"].iter().any(|way| name.starts_with(way))
    };
    let places = COUNTS.get(..NEXT.load(Ordering::Relaxed).min(THREADS)).unwrap();
    places.iter().filter(on_the_way).map(|count| count.allocations.load(Ordering::Relaxed)).sum()
}

fn load(address: SocketAddr, items: usize, requests_per_second: u32) -> Load {
    Load {
        endpoint: format!("http://{address}"),
        signals: vec![Signal::Traces],
        shape: Shape { items, attributes: 10, resources: 4, services: 20, series: 200, errors: 0.02 },
        rate: Some(f64::from(requests_per_second) * items as f64),
        connections: 2,
        in_flight: 2,
        compression: Compression::None,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(4),
        pid: None,
    }
}

/// Every five minutes by the wall clock a shard lets go of what it has not seen for long, and learns resources and
/// peers anew. That is done with a cut, soon after.
const FORGOTTEN_EVERY_S: u64 = 300;
const CUT_WITHIN: Duration = Duration::from_secs(3);

fn forgotten(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / FORGOTTEN_EVERY_S
}

/// Allocations a request in steady state. Each second's barrier makes some too, however many requests there
/// were; so these are those that more requests make in the same time. One barrier more or less in it is
/// a quarter of an allocation a request.
fn per_request(address: SocketAddr, items: usize) -> f64 {
    let clients =
        Builder::new_multi_thread().worker_threads(1).thread_name("client").enable_all().build().unwrap();
    let run = |requests_per_second| {
        let before = allocations();
        let figures = clients
            .block_on(send(&load(address, items, requests_per_second), std::future::pending()))
            .unwrap();
        assert_eq!((figures.refused, figures.failed), (0, 0), "{:?}", figures.first_failure);
        ((allocations() - before) as f64, figures.accepted_whole_run as f64 / items as f64)
    };
    // The first time learns: series, buffers, windows.
    run(50);
    loop {
        let begun = SystemTime::now();
        let (few, many) = (run(50), run(250));
        if forgotten(begun - CUT_WITHIN) == forgotten(SystemTime::now()) {
            return (many.0 - few.0) / (many.1 - few.1);
        }
    }
}

struct Nothing;

impl Intake for Nothing {
    fn try_push(&self, admitted: Admitted) -> Result<(), Admitted> {
        admitted.reply.done(admitted.slices.len() as u32 + 1);
        Ok(())
    }
}

#[test]
fn a_request_allocates_as_often_whatever_its_size_and_only_in_the_transport() {
    let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let access = Access::open(&Default::default(), &Default::default(), Arc::new(SystemClock)).unwrap();
    let io = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("barograph-io")
        .enable_all()
        .build()
        .unwrap();
    let config = receive::Config::default();
    let server = {
        let _in_it = io.enter();
        let nothing = Arc::new(Nothing);
        receive::Server::bind(anywhere, anywhere, nothing, access, &config, receive::CallerKey::random())
            .unwrap()
    };
    let address = server.grpc_address();
    io.spawn(server.run(std::future::pending()));
    let transport = per_request(address, 256);
    let transport_of_512 = per_request(address, 512);
    drop(io);

    let data = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.general.data_dir = data.path().to_owned();
    config.listen.otlp_grpc = anywhere;
    config.listen.otlp_http = anywhere;
    config.listen.query = anywhere;
    config.listen.http = anywhere;
    let app = App::start(&config).unwrap();
    let address = app.addresses().otlp_grpc;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = std::thread::spawn(move || {
        app.run_until(async {
            let _ = stopped.await;
        })
    });
    let whole = per_request(address, 256);
    let whole_of_512 = per_request(address, 512);
    stop.send(()).unwrap();
    running.join().unwrap().unwrap();
    println!(
        "allocations a request of 256 and 512 spans: transport {transport:.2} and {transport_of_512:.2}, \
         all {whole:.2} and {whole_of_512:.2}"
    );
    // What is left is the journal's index: two for each MiB, which is a quarter a request of 256 spans.
    assert!(whole - transport < 1.0, "our own: {:.2}", whole - transport);
    assert!(whole_of_512 - whole < 1.0, "{whole_of_512:.2} and {whole:.2}");
}
