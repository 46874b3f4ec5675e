//! The orders in which threads can meet at what they share without a lock, with up to three preemptions
//! (<https://docs.rs/loom>). The files are those of the daemon; only the primitives below them are the model's.

mod primitives {
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    pub use loom::thread::{Thread, current};

    /// Without an end: a waking that is lost stands still for ever, which the model tells.
    pub fn park_timeout(_: std::time::Duration) {
        loom::thread::park();
    }
}

mod parallel {
    pub use crate::primitives::{AtomicU64, Ordering};
}

#[path = "../src/parallel/gate.rs"]
mod gate;
#[path = "../src/parallel/sleeper.rs"]
mod sleeper;

#[path = "../src/limits/budget.rs"]
#[allow(dead_code)]
mod budget;

use budget::Budget;
use gate::Gate;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use sleeper::Sleeper;
use std::time::Duration;

const FOR_EVER: Duration = Duration::MAX;

/// All orders in which threads are interrupted at most three times against their will; with all there are, three
/// threads take minutes.
fn model(of: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(of);
}

#[test]
fn a_sleeper_misses_no_waking() {
    model(|| {
        let (items, sleeper) = (Arc::new(AtomicU64::new(0)), Arc::new(Sleeper::default()));
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let (items, sleeper) = (items.clone(), sleeper.clone());
                thread::spawn(move || {
                    items.fetch_add(1, Ordering::AcqRel);
                    sleeper.wake();
                })
            })
            .collect();
        while items.load(Ordering::Acquire) < 2 {
            let seen = items.load(Ordering::Acquire);
            sleeper.sleep(FOR_EVER, || items.load(Ordering::Acquire) > seen || seen == 2);
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
    });
}

/// As between sequencer and shard: a queue of one place, each side asleep while it cannot go on.
#[test]
fn two_sides_of_a_full_queue_wake_each_other() {
    const EMPTY: u64 = 0;
    model(|| {
        let place = Arc::new(AtomicU64::new(EMPTY));
        let (consumer, producer) = (Arc::new(Sleeper::default()), Arc::new(Sleeper::default()));
        let sending = {
            let (place, consumer, producer) = (place.clone(), consumer.clone(), producer.clone());
            thread::spawn(move || {
                for item in 1..=2 {
                    while place.compare_exchange(EMPTY, item, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                        producer.sleep(FOR_EVER, || place.load(Ordering::Acquire) == EMPTY);
                    }
                    consumer.wake();
                }
            })
        };
        for expected in 1..=2 {
            let received = loop {
                match place.swap(EMPTY, Ordering::AcqRel) {
                    EMPTY => consumer.sleep(FOR_EVER, || place.load(Ordering::Acquire) != EMPTY),
                    item => break item,
                }
            };
            assert_eq!(received, expected);
            producer.wake();
        }
        sending.join().unwrap();
    });
}

#[test]
fn what_is_pushed_while_the_gate_closes_is_found_by_exactly_one() {
    model(|| {
        let (gate, place, found) =
            (Arc::new(Gate::default()), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let empty = {
            let (place, found) = (place.clone(), found.clone());
            move || {
                if place.swap(0, Ordering::AcqRel) != 0 {
                    found.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        let closing = {
            let (gate, empty) = (gate.clone(), empty.clone());
            thread::spawn(move || {
                gate.close();
                empty();
            })
        };
        if gate.is_closed() {
            found.fetch_add(1, Ordering::SeqCst);
        } else {
            place.swap(1, Ordering::AcqRel);
            if gate.was_closed_meanwhile() {
                empty();
            }
        }
        closing.join().unwrap();
        assert_eq!(found.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn permits_never_exceed_the_limit_and_all_return() {
    model(|| {
        let budget = Budget::new(10);
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let budget = budget.clone();
                thread::spawn(move || {
                    let permit = budget.try_take(4).filter(|_| budget.used_bytes() <= budget.limit_bytes());
                    permit.map(|mut permit| (permit.try_grow(3), permit.bytes()))
                })
            })
            .collect();
        let had: Vec<_> = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
        assert!(had.iter().all(|had| matches!(had, Some((true, 7)) | Some((false, 4)) | None)), "{had:?}");
        assert_eq!(budget.used_bytes(), 0);
    });
}

#[test]
fn a_permit_grows_up_to_the_limit() {
    model(|| {
        let budget = Budget::new(10);
        let mut first = budget.try_take(6).unwrap();
        assert!(budget.try_take(5).is_none());
        assert!(first.try_grow(4));
        assert!(!first.try_grow(1));
        assert_eq!(budget.used_bytes(), 10);
        drop(first);
        assert_eq!(budget.used_bytes(), 0);
    });
}
