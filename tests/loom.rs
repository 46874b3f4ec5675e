//! The orders in which threads can meet at what they share without a lock, with up to three preemptions
//! (<https://docs.rs/loom>). The files are those of the daemon; only the primitives below them are the model's.

#[path = "support/primitives.rs"]
mod primitives;

mod parallel {
    pub use crate::primitives::{AtomicU32, AtomicU64, AtomicWaker, Mutex, Ordering};
}

mod limits {
    pub use barograph::limits::{RefusedReason, RejectedReason};
}

#[path = "../src/parallel/gate.rs"]
mod gate;
#[path = "../src/parallel/lanes.rs"]
#[allow(dead_code)]
mod lanes;
#[path = "../src/parallel/pipe.rs"]
#[allow(dead_code)]
mod pipe;
#[path = "../src/parallel/sleeper.rs"]
mod sleeper;
#[path = "../src/parallel/wakings.rs"]
#[allow(dead_code)]
mod wakings;

#[path = "../src/limits/budget.rs"]
#[allow(dead_code)]
mod budget;

#[path = "../src/receive/reply.rs"]
#[allow(dead_code)]
mod reply;

use budget::Budget;
use gate::Gate;
use lanes::{Consumer, Lanes};
use limits::{RefusedReason, RejectedReason};
use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use pipe::pipe;
use primitives::stand_in_lane;
use reply::{Outcome, Reply};
use sleeper::Sleeper;
use std::task::Poll;
use std::time::Duration;
use wakings::Wakings;

const FOR_EVER: Duration = Duration::MAX;

/// All orders in which threads are interrupted at most three times against their will; with all there are, three
/// threads take minutes.
fn model(of: impl Fn() + Send + Sync + 'static) {
    interrupted(3, of);
}

/// With two, for what has many steps: any one waking is lost between two.
fn large_model(of: impl Fn() + Send + Sync + 'static) {
    interrupted(2, of);
}

fn interrupted(at_most: usize, of: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(at_most);
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

/// As of the calls of a connection: what a future waits for is there before it is woken.
#[test]
fn a_future_that_was_woken_is_polled() {
    model(|| {
        let wakings = std::sync::Arc::new(Wakings::default());
        let done: Arc<[AtomicU64; 2]> = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        // In two words of bits, and twice in one place.
        let places = [3, Wakings::MOST - 1];
        let threads: Vec<_> = (0..2)
            .map(|number| {
                let (waker, done) = (wakings.waker(places[number]), done.clone());
                thread::spawn(move || {
                    waker.wake_by_ref();
                    done[number].store(1, Ordering::Release);
                    waker.wake();
                })
            })
            .collect();
        let mut seen = [0; 2];
        block_on(std::future::poll_fn(|context| {
            loop {
                let wanted = wakings.take(context.waker());
                if wanted == 0 {
                    return Poll::Pending;
                }
                for (number, place) in places.iter().enumerate() {
                    if wanted >> place & 1 == 1 {
                        seen[number] = done[number].load(Ordering::Acquire);
                    }
                }
                if seen == [1; 2] {
                    return Poll::Ready(());
                }
            }
        }));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// As between sequencer and shard, with a queue of one place: each side asleep while it cannot go on.
#[test]
fn two_ends_of_a_full_pipe_wake_each_other_and_everything_arrives_in_order() {
    model(|| {
        let (sender, receiver) = pipe(1);
        let sending = thread::spawn(move || {
            for item in 1..=3u64 {
                assert!(sender.send(item));
            }
        });
        let received: Vec<u64> = std::iter::from_fn(|| receiver.receive()).collect();
        assert_eq!(received, [1, 2, 3]);
        sending.join().unwrap();
    });
}

#[test]
fn a_sender_learns_that_the_receiver_has_gone_also_while_it_waits_for_room() {
    model(|| {
        let (sender, receiver) = pipe(1);
        let sending = thread::spawn(move || {
            let sent = (0..3u64).take_while(|item| sender.send(*item)).count();
            sender.announce();
            sent
        });
        let received = receiver.receive();
        drop(receiver);
        assert_eq!(received, Some(0));
        // One was taken and one has room; what is sent behind the other's end is the daemon's end, too.
        assert!((1..=2).contains(&sending.join().unwrap()));
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

/// As of the journal and a shard, which refuses an item for good.
#[test]
fn an_answer_is_there_once_every_part_was_reported_and_has_all_they_said() {
    model(|| {
        let (reply, pending) = Reply::new(2);
        let receipt = pending.receipt();
        let journal = {
            let reply = reply.clone();
            thread::spawn(move || {
                reply.recorded(64);
                reply.done(1);
            })
        };
        let shard = thread::spawn(move || {
            reply.reject(2, RejectedReason::TooOld, || "a day".to_owned());
            reply.done(1);
        });
        let outcome = block_on(pending);
        let message = format!("{}: a day", RejectedReason::TooOld.as_str());
        assert_eq!(outcome, Outcome { rejected: 2, message, refused: None });
        assert!(receipt.is_done());
        assert_eq!(receipt.recorded(), Some(64));
        [journal, shard].into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Whoever comes with the same bytes again is told by the receipt whether they were counted.
#[test]
fn a_caller_that_gives_up_leaves_a_receipt_that_is_done_only_with_its_position() {
    model(|| {
        let (reply, mut pending) = Reply::new(2);
        let receipt = pending.receipt();
        let journal = {
            let reply = reply.clone();
            thread::spawn(move || {
                reply.recorded(64);
                reply.done(1);
            })
        };
        let shard = thread::spawn(move || reply.done(1));
        let first_look = block_on(std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut pending).poll(context).is_ready())
        }));
        drop(pending);
        if first_look || receipt.is_done() {
            assert_eq!(receipt.recorded(), Some(64));
        }
        [journal, shard].into_iter().for_each(|thread| thread.join().unwrap());
        assert!(receipt.is_done());
        assert_eq!(receipt.recorded(), Some(64));
    });
}

/// Takes from lanes as the sequencer does, until it is closed and has found nothing more or has `at_most`.
fn take(lanes: &Lanes<(u64, Reply)>, consumer: &Consumer, at_most: usize) -> Vec<u64> {
    let (mut group, mut taken) = (Vec::new(), Vec::new());
    while taken.len() < at_most {
        let closed = consumer.is_closed();
        lanes.drain(taken.len(), usize::MAX, usize::MAX, |_| 1, &mut group);
        if !group.is_empty() {
            for (item, reply) in group.drain(..) {
                reply.done(1);
                taken.push(item);
            }
            continue;
        }
        if closed {
            break;
        }
        lanes.sleep(consumer, FOR_EVER, || consumer.is_closed());
        // What was made visible is seen at some time, which the model takes to be after this.
        thread::yield_now();
    }
    taken
}

fn refuse((_, reply): (u64, Reply)) {
    reply.refuse(RefusedReason::NotReady, || "stopping".to_owned());
    reply.done(1);
}

/// One thread announces when it comes to rest, one with each item.
#[test]
fn what_many_hand_over_is_taken_once_in_the_order_of_each() {
    large_model(|| {
        let (lanes, consumer) = (Arc::new(Lanes::new(2, 2)), Arc::new(Consumer::default()));
        let threads: Vec<_> = (0..2u64)
            .map(|number| {
                let (lanes, consumer) = (lanes.clone(), consumer.clone());
                thread::spawn(move || {
                    stand_in_lane(number);
                    if number == 0 {
                        lanes::announce_at_rest();
                    }
                    for item in 0..2 {
                        let item = (10 * number + item, Reply::nobody());
                        assert!(lanes.try_push(item, &consumer, refuse).is_ok(), "there is room");
                    }
                    lanes::announce(&consumer);
                })
            })
            .collect();
        let taken = take(&lanes, &consumer, 4);
        for own in [[0, 1], [10, 11]] {
            let found: Vec<u64> = taken.iter().copied().filter(|item| item / 10 == own[0] / 10).collect();
            assert_eq!(found, own, "of {taken:?}");
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// A thread that never comes to rest, while the consumer does not look by itself.
#[test]
fn who_sleeps_soundly_is_woken_for_what_nobody_announces() {
    model(|| {
        let (lanes, consumer) = (Arc::new(Lanes::new(1, 2)), Arc::new(Consumer::default()));
        let thread = {
            let (lanes, consumer) = (lanes.clone(), consumer.clone());
            thread::spawn(move || {
                lanes::announce_at_rest();
                for item in 0..2 {
                    assert!(lanes.try_push(item, &consumer, |_| {}).is_ok(), "there is room");
                }
            })
        };
        let mut taken = Vec::new();
        while taken.len() < 2 {
            lanes.drain(0, usize::MAX, usize::MAX, |_| 1, &mut taken);
            if taken.len() < 2 {
                lanes.sleep_soundly(&consumer, FOR_EVER, || false);
                thread::yield_now();
            }
        }
        assert_eq!(taken, [0, 1]);
        thread.join().unwrap();
    });
}

#[test]
fn a_lane_that_two_threads_share_takes_what_has_room_and_gives_back_the_rest() {
    large_model(|| {
        let (lanes, consumer) = (Arc::new(Lanes::new(1, 1)), Arc::new(Consumer::default()));
        let threads: Vec<_> = (0..2u64)
            .map(|number| {
                let (lanes, consumer) = (lanes.clone(), consumer.clone());
                thread::spawn(move || {
                    stand_in_lane(number);
                    let given_back = lanes.try_push((number, Reply::nobody()), &consumer, refuse);
                    given_back.err().map(|(item, _)| item)
                })
            })
            .collect();
        // One of the two always has room.
        let mut seen = take(&lanes, &consumer, 1);
        seen.extend(threads.into_iter().filter_map(|thread| thread.join().unwrap()));
        consumer.close();
        seen.extend(take(&lanes, &consumer, usize::MAX));
        seen.sort_unstable();
        assert_eq!(seen, [0, 1]);
    });
}

/// The caller waits for its answer as a connection does: were its request forgotten, it would wait for ever.
#[test]
fn whoever_hands_over_while_the_consumer_ends_is_answered_once() {
    large_model(|| {
        let (lanes, consumer) = (Arc::new(Lanes::new(1, 2)), Arc::new(Consumer::default()));
        let caller = {
            let (lanes, consumer) = (lanes.clone(), consumer.clone());
            thread::spawn(move || {
                let (reply, pending) = Reply::new(1);
                let receipt = pending.receipt();
                match lanes.try_push((1, reply), &consumer, refuse) {
                    Ok(()) => (block_on(pending).refused.is_none(), Some(receipt)),
                    Err(_) => (false, None),
                }
            })
        };
        let closing = {
            let consumer = consumer.clone();
            thread::spawn(move || consumer.close())
        };
        let taken = take(&lanes, &consumer, usize::MAX);
        lanes.end(&consumer, refuse);
        let (was_taken, receipt) = caller.join().unwrap();
        assert_eq!(taken.len(), usize::from(was_taken));
        assert!(receipt.is_none_or(|receipt| receipt.is_done()), "answered twice");
        assert!(lanes.is_empty());
        closing.join().unwrap();
    });
}

/// As after a failed sync: the consumer ends of its own accord, whatever is in the lanes.
#[test]
fn what_is_left_in_the_lanes_of_a_consumer_that_fails_is_refused_once() {
    large_model(|| {
        let (lanes, consumer) = (Arc::new(Lanes::new(2, 1)), Arc::new(Consumer::default()));
        let callers: Vec<_> = (0..2u64)
            .map(|number| {
                let (lanes, consumer) = (lanes.clone(), consumer.clone());
                thread::spawn(move || {
                    stand_in_lane(number);
                    let (reply, pending) = Reply::new(1);
                    match lanes.try_push((number, reply), &consumer, refuse) {
                        Ok(()) => block_on(pending).refused,
                        Err(_) => Some(RefusedReason::NotReady),
                    }
                })
            })
            .collect();
        lanes.end(&consumer, refuse);
        for caller in callers {
            assert_eq!(caller.join().unwrap(), Some(RefusedReason::NotReady));
        }
        assert!(lanes.is_empty());
    });
}
