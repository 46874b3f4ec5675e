//! Retries after a lost answer: a request that was counted, and whose sender may not know it, is not counted
//! a second time when it comes again.
//!
//! Nothing is remembered while answers are delivered. When a caller gives up waiting, a connection breaks
//! with answers on it, or the daemon dies with requests in hand, what those requests are recognised by is
//! kept for five minutes. A request that looks like one of them is compared with the record in the journal,
//! byte for byte; only if they are equal it is acknowledged without being counted. Each is recognised once:
//! whoever sends the same bytes again and again on purpose is counted from then on.

use super::Intake;
use super::reply::Receipt;
use crate::model::Signal;
use crate::otlp::Encoding;
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a request is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// Requests that are remembered at most: the newest.
const MOST: usize = 65_536;
/// Of those that look alike at most: the newest. Each is read from the journal when one more comes.
const ALIKE: usize = 4;
/// Answers of one connection that are looked back on when it breaks, and how far back.
const ANSWERS: usize = 64;
const LOOK_BACK: Duration = Duration::from_secs(30);
/// Bytes at each end of a body that it is looked up by.
const END_BYTES: usize = 64;
/// Where gzip keeps the time of compression, which differs when the same data are compressed again.
const GZIP_TIME: std::ops::Range<usize> = 4..8;

/// What a request is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Print {
    signal: Signal,
    length: usize,
    ends: u64,
}

impl Print {
    #[must_use]
    pub fn of(signal: Signal, encoding: Encoding, wire: &[u8]) -> Self {
        let first = wire.get(..END_BYTES.min(wire.len())).unwrap_or_default();
        let last = wire.get(wire.len().saturating_sub(END_BYTES)..).unwrap_or_default();
        let hasher = foldhash::fast::FixedState::default();
        let ends = match (encoding, first.get(GZIP_TIME)) {
            // Short data are at both ends: then the time is too.
            (Encoding::Gzip, Some(_)) if wire.len() > 2 * END_BYTES => {
                hasher.hash_one((first.get(GZIP_TIME.end..), last))
            }
            (Encoding::Gzip, _) => hasher.hash_one(wire.get(GZIP_TIME.end..)),
            _ => hasher.hash_one((first, last)),
        };
        Self { signal, length: wire.len(), ends }
    }
}

/// Whether two bodies are the same, but for the time at which they were compressed.
#[must_use]
pub fn same_body(encoding: Encoding, one: &[u8], other: &[u8]) -> bool {
    one == other
        || encoding == Encoding::Gzip
            && one.len() == other.len()
            && one.get(..GZIP_TIME.start) == other.get(..GZIP_TIME.start)
            && one.get(GZIP_TIME.end..).is_some_and(|rest| other.get(GZIP_TIME.end..) == Some(rest))
}

/// Where the first copy of a request is.
#[derive(Debug)]
enum Copy {
    Recorded(u64),
    /// Perhaps not recorded yet.
    Handed(Receipt),
}

#[derive(Debug, Default)]
struct Remembered {
    copies: BTreeMap<Print, VecDeque<(u64, Copy)>>,
    /// Number, print and end of what is remembered, oldest first. What was recognised, or had too many
    /// alike, is still listed.
    order: VecDeque<(u64, Print, Instant)>,
    next: u64,
}

/// What is to be done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Count it.
    New,
    /// It is counted already, as the record at this position: acknowledge it.
    Counted(u64),
    /// Its first copy is still being recorded and counted.
    UnderWay,
}

/// The memory of requests whose answers may be lost.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// Looked at with every request: nothing else is while nothing is remembered.
    count: AtomicUsize,
    remembered: Mutex<Remembered>,
}

impl Retries {
    fn remember(&self, print: Print, copy: Copy) {
        let mut remembered = self.remembered.lock();
        let number = remembered.next;
        remembered.next = number.wrapping_add(1);
        let alike = remembered.copies.entry(print).or_default();
        alike.push_back((number, copy));
        if alike.len() > ALIKE {
            alike.pop_front();
        }
        remembered.order.push_back((number, print, Instant::now() + REMEMBERED_FOR));
        self.settle(&mut remembered);
    }

    /// A caller gave up waiting for the answer.
    pub fn remember_handed(&self, print: Print, receipt: Receipt) {
        self.remember(print, Copy::Handed(receipt));
    }

    /// The answer may not have arrived, or none was sent.
    pub fn remember_recorded(&self, print: Print, position: u64) {
        self.remember(print, Copy::Recorded(position));
    }

    /// Forgets what is too old, or too much.
    fn settle(&self, remembered: &mut Remembered) {
        let now = Instant::now();
        while let Some(&(number, print, end)) = remembered.order.front()
            && (end <= now || remembered.order.len() > MOST)
        {
            remembered.order.pop_front();
            remembered.forget(number, &print);
        }
        self.count.store(remembered.copies.len(), Ordering::Release);
    }

    /// Whether a request was counted before.
    pub fn judge(&self, print: &Print, encoding: Encoding, wire: &Bytes, intake: &dyn Intake) -> Verdict {
        if self.count.load(Ordering::Acquire) == 0 {
            return Verdict::New;
        }
        let (found, is_under_way) = self.alike(print);
        for (number, position) in found {
            // Records are read without the lock: others are not to wait for the disk.
            if intake.holds(position, encoding, wire) && self.recognise(number, print) {
                return Verdict::Counted(position);
            }
        }
        if is_under_way { Verdict::UnderWay } else { Verdict::New }
    }

    /// What is remembered and looks like this: numbers and positions, and whether one is still being recorded and
    /// counted.
    fn alike(&self, print: &Print) -> (Vec<(u64, u64)>, bool) {
        let mut remembered = self.remembered.lock();
        self.settle(&mut remembered);
        let mut found = Vec::new();
        let mut is_under_way = false;
        for (number, copy) in remembered.copies.get(print).into_iter().flatten() {
            match copy {
                Copy::Recorded(position) => found.push((*number, *position)),
                Copy::Handed(receipt) => match receipt.recorded() {
                    Some(position) if receipt.is_done() => found.push((*number, position)),
                    Some(_) | None if !receipt.is_done() => is_under_way = true,
                    // It was refused.
                    _ => {}
                },
            }
        }
        (found, is_under_way)
    }

    /// Forgets one that came again; `false` if another copy of it came first.
    fn recognise(&self, number: u64, print: &Print) -> bool {
        let mut remembered = self.remembered.lock();
        let is_first = remembered.forget(number, print);
        self.count.store(remembered.copies.len(), Ordering::Release);
        is_first
    }

    /// A connection broke: its last answers may not have arrived.
    pub fn connection_broke(&self, answered: &Answered) {
        while let Some((print, position, at)) = answered.0.pop() {
            if at.elapsed() < LOOK_BACK {
                self.remember_recorded(print, position);
            }
        }
    }
}

impl Remembered {
    /// Whether it was there.
    fn forget(&mut self, number: u64, print: &Print) -> bool {
        let Some(copies) = self.copies.get_mut(print) else { return false };
        let before = copies.len();
        copies.retain(|(of, _)| *of != number);
        let was_there = copies.len() < before;
        if copies.is_empty() {
            self.copies.remove(print);
        }
        was_there
    }
}

/// The last answers of a connection.
#[derive(Debug)]
pub(super) struct Answered(ArrayQueue<(Print, u64, Instant)>);

impl Default for Answered {
    fn default() -> Self {
        Self(ArrayQueue::new(ANSWERS))
    }
}

impl Answered {
    pub fn note(&self, print: Print, position: u64) {
        let _ = self.0.force_push((print, position, Instant::now()));
    }
}

/// A request whose answer is waited for. If the caller goes away meanwhile, it is remembered.
pub(super) struct Waiting<'a> {
    retries: &'a Retries,
    print: Print,
    /// `None` once the answer is there.
    receipt: Option<Receipt>,
}

impl<'a> Waiting<'a> {
    pub const fn new(retries: &'a Retries, print: Print, receipt: Receipt) -> Self {
        Self { retries, print, receipt: Some(receipt) }
    }

    /// The answer is there; where the request was recorded.
    pub fn done(mut self) -> Option<u64> {
        self.receipt.take().and_then(|receipt| receipt.recorded())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.retries.remember_handed(self.print, receipt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::{Admitted, Reply};

    /// Holds one body at position 64.
    struct Holding(Vec<u8>);

    impl Intake for Holding {
        fn try_push(&self, admitted: Admitted) -> Result<(), Admitted> {
            Err(admitted)
        }

        fn holds(&self, position: u64, encoding: Encoding, wire: &[u8]) -> bool {
            position == 64 && same_body(encoding, &self.0, wire)
        }
    }

    fn print(wire: &[u8]) -> Print {
        Print::of(Signal::Traces, Encoding::Identity, wire)
    }

    fn judge(retries: &Retries, intake: &Holding, wire: &[u8]) -> Verdict {
        retries.judge(&print(wire), Encoding::Identity, &Bytes::copy_from_slice(wire), intake)
    }

    #[test]
    fn what_was_counted_is_recognised_once_and_only_byte_for_byte() {
        let retries = Retries::default();
        let wire: Vec<u8> = (0..200).collect();
        let mut other = wire.clone();
        other[100] ^= 1;
        assert_eq!(print(&wire), print(&other), "the ends alone do not tell them apart");
        let intake = Holding(wire.clone());
        assert_eq!(judge(&retries, &intake, &wire), Verdict::New);
        retries.remember_recorded(print(&wire), 64);
        assert_eq!(judge(&retries, &intake, &other), Verdict::New);
        assert_eq!(judge(&retries, &intake, &wire), Verdict::Counted(64));
        assert_eq!(judge(&retries, &intake, &wire), Verdict::New, "once");
        assert_eq!(retries.count.load(Ordering::Acquire), 0);
    }

    /// While it reads the record for one copy of a request, another one comes.
    struct Racing<'a> {
        retries: &'a Retries,
        wire: &'a [u8],
        other: Mutex<Option<Verdict>>,
    }

    impl Intake for Racing<'_> {
        fn try_push(&self, admitted: Admitted) -> Result<(), Admitted> {
            Err(admitted)
        }

        fn holds(&self, position: u64, _: Encoding, wire: &[u8]) -> bool {
            let verdict = judge(self.retries, &Holding(self.wire.to_vec()), wire);
            self.other.lock().replace(verdict);
            position == 64
        }
    }

    #[test]
    fn of_two_copies_that_come_at_once_one_is_recognised_and_neither_waits_for_the_other() {
        let retries = Retries::default();
        let wire = vec![7; 300];
        retries.remember_recorded(print(&wire), 64);
        let racing = Racing { retries: &retries, wire: &wire, other: Mutex::new(None) };
        let bytes = Bytes::copy_from_slice(&wire);
        let verdict = retries.judge(&print(&wire), Encoding::Identity, &bytes, &racing);
        assert_eq!((racing.other.into_inner(), verdict), (Some(Verdict::Counted(64)), Verdict::New));
    }

    #[test]
    fn a_caller_that_gives_up_is_remembered_whatever_becomes_of_its_request() {
        let retries = Retries::default();
        let wire = vec![7; 300];
        let intake = Holding(wire.clone());
        let give_up = || {
            let (reply, pending) = Reply::new(2);
            drop(Waiting::new(&retries, print(&wire), pending.receipt()));
            reply
        };
        let reply = give_up();
        assert_eq!(judge(&retries, &intake, &wire), Verdict::UnderWay);
        reply.recorded(64);
        reply.done(1);
        assert_eq!(judge(&retries, &intake, &wire), Verdict::UnderWay, "recorded, not counted yet");
        reply.done(1);
        assert_eq!(judge(&retries, &intake, &wire), Verdict::Counted(64));
        let refused = give_up();
        refused.done(2);
        assert_eq!(judge(&retries, &intake, &wire), Verdict::New, "it was never recorded");
        // An answer that is there is not remembered.
        let (_, pending) = Reply::new(2);
        assert_eq!(Waiting::new(&retries, print(&wire), pending.receipt()).done(), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let retries = Retries::default();
        for number in 0..MOST as u64 + 10 {
            retries.remember_recorded(print(&number.to_le_bytes()), 64);
        }
        assert_eq!(retries.count.load(Ordering::Acquire), MOST);
        assert_eq!(retries.remembered.lock().order.len(), MOST);
        let answered = Answered::default();
        (0..100u64).for_each(|number| answered.note(print(&[1, number as u8]), number));
        retries.connection_broke(&answered);
        assert_eq!(retries.count.load(Ordering::Acquire), MOST);
    }

    #[test]
    fn of_many_that_look_alike_the_newest_are_remembered() {
        let retries = Retries::default();
        let wire = vec![7; 300];
        let intake = Holding(wire.clone());
        for position in [64, 64, 64, 64, 64, 1, 1] {
            retries.remember_recorded(print(&wire), position);
        }
        assert_eq!(judge(&retries, &intake, &wire), Verdict::Counted(64));
        assert_eq!(judge(&retries, &intake, &wire), Verdict::Counted(64));
        assert_eq!(judge(&retries, &intake, &wire), Verdict::New);
    }

    #[test]
    fn the_time_at_which_gzip_compressed_does_not_matter() {
        let one: Vec<u8> = (0..250).collect();
        let mut other = one.clone();
        other[5] = 99;
        for length in [6, 60, 250] {
            let (one, other) = (&one[..length], &other[..length]);
            let of = |wire| Print::of(Signal::Logs, Encoding::Gzip, wire);
            assert_eq!(of(one), of(other), "{length}");
            assert!(length < 8 || same_body(Encoding::Gzip, one, other));
            assert!(!same_body(Encoding::Identity, one, other));
        }
    }
}
