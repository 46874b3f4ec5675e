//! Bounded hand-offs between threads.

use super::shared::Shared;
use super::{Position, Recorder, Step};
use crate::limits::RefusedReason;
use crate::otlp::Encoding;
use crate::parallel::{Gate, Sleeper};
use crate::receive::{Admitted, Intake, same_body};
use crossbeam::queue::ArrayQueue;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A lane for each processor, within these bounds, so that each I/O thread has one; more threads than lanes share
/// them, which is correct but not lock-free. A lane takes 220 KB.
const LANES: std::ops::RangeInclusive<usize> = 2..=16;
/// Requests that fit into a lane. The budget of ingest memory runs out first.
const LANE_REQUESTS: usize = 1024;

/// Requests that an I/O thread may hand over before it tells the sequencer, as long as it goes on to others.
const UNANNOUNCED: u32 = 32;

/// The way from the I/O threads into the sequencer.
///
/// A thread of which it is known that it says when it comes to rest ([`Lanes::announces_at_rest`]) hands over
/// several requests before it wakes the sequencer. Where all share one processor, waking it for each
/// request meant a switch of threads for each, which was a tenth of what a small request cost.
#[derive(Clone, Debug)]
pub struct Lanes {
    pub(super) queues: Arc<[ArrayQueue<Admitted>]>,
    pub(super) shared: Arc<Shared>,
}

impl Lanes {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let lanes = processors.clamp(*LANES.start(), *LANES.end());
        Self { queues: (0..lanes).map(|_| ArrayQueue::new(LANE_REQUESTS)).collect(), shared }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(ArrayQueue::is_empty)
    }

    /// Moves requests into `group` until it has `at_most` of them or `bytes` of wire, taking from each
    /// lane in turn and beginning with another one each time.
    pub(super) fn drain(&self, first: usize, at_most: usize, bytes: usize, group: &mut Vec<Admitted>) {
        let mut taken = 0usize;
        let mut found = true;
        while found {
            found = false;
            let lanes = self.queues.len();
            for queue in self.queues.iter().cycle().skip(first % lanes).take(lanes) {
                if group.len() >= at_most || taken >= bytes {
                    return;
                }
                if let Some(request) = queue.pop() {
                    taken = taken.saturating_add(request.wire.len());
                    group.push(request);
                    found = true;
                }
            }
        }
    }
}

/// What a thread that hands over requests remembers.
struct Lane {
    number: usize,
    announces_at_rest: Cell<bool>,
    unannounced: Cell<u32>,
}

static NEXT_LANE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static LANE: Lane = Lane {
        number: NEXT_LANE.fetch_add(1, Ordering::Relaxed),
        announces_at_rest: const { Cell::new(false) },
        unannounced: const { Cell::new(0) },
    };
}

impl Lanes {
    /// To be called once by a thread that will call [`Intake::announce`] each time before it waits for
    /// anything, or works for long.
    pub fn announces_at_rest() {
        LANE.with(|lane| lane.announces_at_rest.set(true));
    }
}

impl Intake for Lanes {
    fn try_push(&self, admitted: Admitted) -> Result<(), Admitted> {
        if self.shared.closed.is_closed() {
            return Err(admitted);
        }
        let number = LANE.with(|lane| lane.number);
        let Some(queue) = self.queues.get(number % self.queues.len()) else { return Err(admitted) };
        queue.push(admitted)?;
        // The sequencer may have ended since the look: it closes and then empties the lanes.
        if self.shared.closed.was_closed_meanwhile() {
            while let Some(request) = queue.pop() {
                refuse(&request, RefusedReason::NotReady, "the daemon is stopping".into());
            }
        }
        let waits = LANE.with(|lane| {
            let unannounced = lane.unannounced.get().saturating_add(1);
            lane.unannounced.set(unannounced);
            lane.announces_at_rest.get() && unannounced < UNANNOUNCED
        });
        if !waits {
            self.announce();
        }
        Ok(())
    }

    fn announce(&self) {
        if LANE.with(|lane| lane.unannounced.replace(0)) > 0 {
            self.shared.sequencer.wake();
        }
    }

    fn holds(&self, position: u64, encoding: Encoding, wire: &[u8]) -> bool {
        let record = Recorder(self.shared.clone()).records(Position(position)).next();
        record.is_some_and(|record| record.at.0 == position && same_body(encoding, &record.wire, wire))
    }
}

/// Reports a request as not taken, with all its parts.
pub(super) fn refuse(request: &Admitted, reason: RefusedReason, why: String) {
    request.reply.refuse(reason, || why);
    request.reply.done(1 + u32::try_from(request.slices.len()).unwrap_or(u32::MAX - 1));
}

#[derive(Debug)]
struct Pipe {
    queue: ArrayQueue<Step>,
    consumer: Sleeper,
    producer: Sleeper,
    /// One side is gone.
    closed: Gate,
}

/// The sequencer's end of the way to a shard.
#[derive(Debug)]
pub struct StepSender(Arc<Pipe>);

/// A shard's end of the way from the sequencer.
#[derive(Debug)]
pub struct StepReceiver(Arc<Pipe>);

/// How long a side sleeps before it looks again by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A bounded queue from the sequencer to one shard.
#[must_use]
pub fn steps(capacity: usize) -> (StepSender, StepReceiver) {
    let pipe = Arc::new(Pipe {
        queue: ArrayQueue::new(capacity.max(1)),
        consumer: Sleeper::default(),
        producer: Sleeper::default(),
        closed: Gate::default(),
    });
    (StepSender(pipe.clone()), StepReceiver(pipe))
}

impl StepSender {
    /// Hands a step over; waits when the shard is behind by a whole queue. `false` when the shard is gone.
    /// The shard need not see it before [`StepSender::announce`].
    pub fn send(&self, mut step: Step) -> bool {
        loop {
            match self.0.queue.push(step) {
                Ok(()) => return true,
                Err(back) => step = back,
            }
            self.announce();
            if self.0.closed.is_closed() {
                return false;
            }
            let pipe = &*self.0;
            pipe.producer
                .sleep(LOOK_AGAIN, || pipe.queue.len() < pipe.queue.capacity() || pipe.closed.is_closed());
        }
    }
}

impl StepSender {
    /// Tells the shard that there are steps.
    pub fn announce(&self) {
        self.0.consumer.wake();
    }
}

impl StepReceiver {
    /// The next step; waits for it. `None` when the sequencer is gone and everything was received.
    pub fn receive(&self) -> Option<Step> {
        let pipe = &*self.0;
        loop {
            if let Some(step) = pipe.queue.pop() {
                pipe.producer.wake();
                return Some(step);
            }
            if pipe.closed.is_closed() {
                // It may have sent something just before it went.
                return pipe.queue.pop();
            }
            pipe.consumer.sleep(LOOK_AGAIN, || !pipe.queue.is_empty() || pipe.closed.is_closed());
        }
    }

    /// The next step if there is one.
    #[must_use]
    pub fn try_receive(&self) -> Option<Step> {
        let step = self.0.queue.pop();
        if step.is_some() {
            self.0.producer.wake();
        }
        step
    }
}

impl Drop for StepSender {
    fn drop(&mut self) {
        self.0.closed.close();
        self.0.consumer.wake();
    }
}

impl Drop for StepReceiver {
    fn drop(&mut self) {
        self.0.closed.close();
        self.0.producer.wake();
    }
}
