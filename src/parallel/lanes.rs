//! The way from many threads to one that never makes them wait.

use super::gate::Gate;
use super::primitives::{
    ArrayQueue, AtomicBool, AtomicU32, Ordering, fence, next_thread_number, thread_local,
};
use super::sleeper::Sleeper;
use std::cell::Cell;
use std::time::Duration;

/// What a thread may hand over before it wakes the consumer, as long as it goes on to more.
const UNANNOUNCED: u32 = 32;

/// How long the consumer sleeps at most while it may not know of what was handed over: a thread that is busy with other
/// things, such as a flood, does not come to rest.
const DOZE: Duration = Duration::from_millis(1);

/// After so many times without anything new it sleeps until it is woken, which is then done for each item.
const DOZES: u32 = 4;

/// Where the thread that takes from lanes sleeps, and whether it is to end.
#[derive(Debug, Default)]
pub struct Consumer {
    closed: Gate,
    sleeper: Sleeper,
    /// It does not look by itself soon.
    sleeps_soundly: AtomicBool,
}

impl Consumer {
    /// Lets nothing more in, for ever. What is in the lanes by then is still to be taken.
    pub fn close(&self) {
        self.closed.close();
        self.sleeper.wake();
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_closed()
    }

    /// Wakes the consumer, if it sleeps. To be called after what it waits for was made visible.
    pub fn wake(&self) {
        self.sleeper.wake();
    }

    /// To be asked after a push: whether it must be woken to find what was pushed.
    fn sleeps_soundly(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeps_soundly.load(Ordering::SeqCst)
    }
}

/// Bounded queues into which many threads push and from which one takes: one for each thread, or shared by some,
/// which is correct but not free of waiting.
///
/// A thread of which it is known that it says when it comes to rest ([`announce_at_rest`]) hands over
/// several items before it wakes the consumer. Where all share one processor, waking it for each
/// meant a switch of threads for each, which was a tenth of what a small request cost. So that none of them waits for
/// long, the consumer looks by itself as long as items come, and is woken for each when it has ceased to.
#[derive(Debug)]
pub struct Lanes<T> {
    queues: Box<[ArrayQueue<T>]>,
    /// How often the consumer slept since it took anything.
    dozes: AtomicU32,
}

impl<T> Lanes<T> {
    /// At least one lane, of at least one place.
    #[must_use]
    pub fn new(lanes: usize, places: usize) -> Self {
        let queues = (0..lanes.max(1)).map(|_| ArrayQueue::new(places.max(1))).collect();
        Self { queues, dozes: AtomicU32::new(0) }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(ArrayQueue::is_empty)
    }

    /// Hands an item over without waiting. Should the consumer end at this moment, what nobody takes any more
    /// goes to `left_behind`.
    ///
    /// # Errors
    /// The item itself, when there is no room for it or the consumer is to end.
    pub fn try_push(&self, item: T, consumer: &Consumer, left_behind: impl FnMut(T)) -> Result<(), T> {
        if consumer.closed.is_closed() {
            return Err(item);
        }
        let lanes = self.queues.len();
        let number = THIS_THREAD.with(|thread| usize::try_from(thread.number).unwrap_or_default());
        let Some(queue) = self.queues.get(number % lanes) else { return Err(item) };
        queue.push(item)?;
        // The consumer may have ended since the look: it closes and then empties the lanes.
        if consumer.closed.was_closed_meanwhile() {
            std::iter::from_fn(|| queue.pop()).for_each(left_behind);
        }
        let waits = THIS_THREAD.with(|thread| {
            let unannounced = thread.unannounced.get().saturating_add(1);
            thread.unannounced.set(unannounced);
            thread.announces_at_rest.get() && unannounced < UNANNOUNCED
        });
        if !waits || consumer.sleeps_soundly() {
            announce(consumer);
        }
        Ok(())
    }

    /// Moves items into `group` until it has `at_most` of them or these are as large as `size`, taking from
    /// each lane in turn and beginning with another one each time.
    pub fn drain(
        &self,
        first: usize,
        at_most: usize,
        size: usize,
        size_of: impl Fn(&T) -> usize,
        group: &mut Vec<T>,
    ) {
        let mut taken = 0usize;
        let mut found = true;
        while found {
            found = false;
            let lanes = self.queues.len();
            for queue in self.queues.iter().cycle().skip(first % lanes).take(lanes) {
                if group.len() >= at_most || taken >= size {
                    return;
                }
                if let Some(item) = queue.pop() {
                    self.dozes.store(0, Ordering::Relaxed);
                    taken = taken.saturating_add(size_of(&item));
                    group.push(item);
                    found = true;
                }
            }
        }
    }

    /// Sleeps until something is in a lane, `ready` holds or `at_most` has passed; what was handed over unannounced is
    /// found within a millisecond. Only the consumer may call this.
    pub fn sleep(&self, consumer: &Consumer, at_most: Duration, ready: impl Fn() -> bool) {
        let dozes = self.dozes.load(Ordering::Relaxed);
        if dozes < DOZES {
            self.dozes.store(dozes.saturating_add(1), Ordering::Relaxed);
            consumer.sleeper.sleep(at_most.min(DOZE), || !self.is_empty() || ready());
        } else {
            self.sleep_soundly(consumer, at_most, ready);
        }
    }

    /// The same, and all that is handed over meanwhile wakes it at once.
    pub fn sleep_soundly(&self, consumer: &Consumer, at_most: Duration, ready: impl Fn() -> bool) {
        // Before the sleeper's fence and look into the lanes, as a push is before its fence and look at this: at least
        // one of the two sees the other.
        consumer.sleeps_soundly.store(true, Ordering::SeqCst);
        consumer.sleeper.sleep(at_most, || !self.is_empty() || ready());
        consumer.sleeps_soundly.store(false, Ordering::SeqCst);
    }

    /// The consumer takes nothing any more: what is in the lanes goes to `left_behind`, here or where it was
    /// pushed.
    pub fn end(&self, consumer: &Consumer, mut left_behind: impl FnMut(T)) {
        consumer.closed.close();
        for queue in &self.queues {
            std::iter::from_fn(|| queue.pop()).for_each(&mut left_behind);
        }
    }
}

/// What a thread that hands over items remembers.
struct ThisThread {
    number: u64,
    announces_at_rest: Cell<bool>,
    unannounced: Cell<u32>,
}

thread_local! {
    static THIS_THREAD: ThisThread = ThisThread {
        number: next_thread_number(),
        announces_at_rest: const { Cell::new(false) },
        unannounced: const { Cell::new(0) },
    };
}

/// To be called once by a thread that will call [`announce`] each time before it waits for anything, or works
/// for long.
pub fn announce_at_rest() {
    THIS_THREAD.with(|thread| thread.announces_at_rest.set(true));
}

/// Wakes the consumer if this thread has handed over anything of which it does not know.
pub fn announce(consumer: &Consumer) {
    if THIS_THREAD.with(|thread| thread.unannounced.replace(0)) > 0 {
        consumer.sleeper.wake();
    }
}
