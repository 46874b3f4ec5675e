//! The way from one thread to one other.

use super::gate::Gate;
use super::primitives::ArrayQueue;
use super::sleeper::Sleeper;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct Pipe<T> {
    queue: ArrayQueue<T>,
    consumer: Sleeper,
    producer: Sleeper,
    /// One side is gone.
    closed: Gate,
}

/// The end that gives.
#[derive(Debug)]
pub struct Sender<T>(Arc<Pipe<T>>);

/// The end that takes.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Pipe<T>>);

/// How long a side sleeps before it looks again by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A queue of at least one place between two threads, each of which waits for the other.
#[must_use]
pub fn pipe<T>(places: usize) -> (Sender<T>, Receiver<T>) {
    let pipe = Arc::new(Pipe {
        queue: ArrayQueue::new(places.max(1)),
        consumer: Sleeper::default(),
        producer: Sleeper::default(),
        closed: Gate::default(),
    });
    (Sender(pipe.clone()), Receiver(pipe))
}

impl<T> Sender<T> {
    /// Hands an item over; waits when the other side is behind by a whole queue. `false` when that is gone.
    /// It need not see the item before [`Sender::announce`].
    pub fn send(&self, mut item: T) -> bool {
        let pipe = &*self.0;
        loop {
            match pipe.queue.push(item) {
                Ok(()) => return true,
                Err(back) => item = back,
            }
            self.announce();
            if pipe.closed.is_closed() {
                return false;
            }
            pipe.producer.sleep(LOOK_AGAIN, || !pipe.queue.is_full() || pipe.closed.is_closed());
        }
    }

    /// Tells the other side that there are items.
    pub fn announce(&self) {
        self.0.consumer.wake();
    }
}

impl<T> Receiver<T> {
    /// The next item; waits for it. `None` when the other side is gone and everything was received.
    pub fn receive(&self) -> Option<T> {
        let pipe = &*self.0;
        loop {
            if let Some(item) = self.try_receive() {
                return Some(item);
            }
            if pipe.closed.is_closed() {
                // It may have sent something just before it went.
                return pipe.queue.pop();
            }
            pipe.consumer.sleep(LOOK_AGAIN, || !pipe.queue.is_empty() || pipe.closed.is_closed());
        }
    }

    /// The next item if there is one.
    #[must_use]
    pub fn try_receive(&self) -> Option<T> {
        let item = self.0.queue.pop();
        if item.is_some() {
            self.0.producer.wake();
        }
        item
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.closed.close();
        self.0.consumer.wake();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.closed.close();
        self.0.producer.wake();
    }
}
