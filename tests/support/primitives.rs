//! The model's primitives, in place of those of `src/parallel/primitives.rs`.

pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
pub use loom::thread::{Thread, current};
pub use loom::thread_local;
use std::cell::Cell;
use std::task::Waker;

/// Without an end: a waking that is lost stands still for ever, which the model tells.
pub fn park_timeout(_: std::time::Duration) {
    loom::thread::park();
}

thread_local! {
    static NUMBER: Cell<u64> = Cell::new(0);
}

/// Says in which lane this thread stands; without, in the first.
pub fn stand_in_lane(number: u64) {
    NUMBER.with(|own| own.set(number));
}

pub fn next_thread_number() -> u64 {
    NUMBER.with(Cell::get)
}

#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

#[derive(Debug, Default)]
pub struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub fn wake(&self) {
        self.0.wake();
    }
}

/// A queue that shows to others what crossbeam's does, in the same order: a place belongs to whoever moves head
/// or tail over it, and says by its turn what it is ready for.
#[derive(Debug)]
pub struct ArrayQueue<T> {
    places: Box<[Place<T>]>,
    head: AtomicU64,
    tail: AtomicU64,
}

#[derive(Debug)]
struct Place<T> {
    /// Twice the number of the item that may be put here; one more when it lies here.
    turn: AtomicU64,
    /// Taken by the one whose turn it is, so nobody waits for it.
    item: std::sync::Mutex<Option<T>>,
}

impl<T> ArrayQueue<T> {
    pub fn new(places: usize) -> Self {
        let place = |number| Place { turn: AtomicU64::new(2 * number), item: std::sync::Mutex::new(None) };
        Self {
            places: (0..places as u64).map(place).collect(),
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
        }
    }

    fn length(&self) -> u64 {
        self.places.len() as u64
    }

    fn place(&self, number: u64) -> &Place<T> {
        &self.places[(number % self.length()) as usize]
    }

    pub fn push(&self, item: T) -> Result<(), T> {
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            let place = self.place(tail);
            let turn = place.turn.load(Ordering::Acquire);
            if turn == 2 * tail {
                match self.tail.compare_exchange(tail, tail + 1, Ordering::SeqCst, Ordering::Relaxed) {
                    Ok(_) => {
                        *place.item.lock().unwrap() = Some(item);
                        place.turn.store(2 * tail + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(now) => {
                        tail = now;
                        continue;
                    }
                }
            }
            if turn + 2 * self.length() == 2 * tail + 1 {
                fence(Ordering::SeqCst);
                if self.head.load(Ordering::Relaxed) + self.length() == tail {
                    return Err(item);
                }
            }
            loom::thread::yield_now();
            tail = self.tail.load(Ordering::Relaxed);
        }
    }

    pub fn pop(&self) -> Option<T> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let place = self.place(head);
            let turn = place.turn.load(Ordering::Acquire);
            if turn == 2 * head + 1 {
                match self.head.compare_exchange(head, head + 1, Ordering::SeqCst, Ordering::Relaxed) {
                    Ok(_) => {
                        let item = place.item.lock().unwrap().take();
                        place.turn.store(2 * (head + self.length()), Ordering::Release);
                        return item;
                    }
                    Err(now) => {
                        head = now;
                        continue;
                    }
                }
            }
            if turn == 2 * head {
                fence(Ordering::SeqCst);
                if self.tail.load(Ordering::Relaxed) == head {
                    return None;
                }
            }
            loom::thread::yield_now();
            head = self.head.load(Ordering::Relaxed);
        }
    }

    pub fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::SeqCst);
        self.tail.load(Ordering::SeqCst) == head
    }

    pub fn is_full(&self) -> bool {
        let tail = self.tail.load(Ordering::SeqCst);
        self.head.load(Ordering::SeqCst) + self.length() == tail
    }
}
