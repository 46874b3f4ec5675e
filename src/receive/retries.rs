//! Retries after a lost answer: a request that was counted, and whose sender may not know it, is not counted
//! a second time when it comes again.
//!
//! Nothing is remembered while answers are delivered. When a caller gives up waiting, a connection breaks
//! with answers on it, or the daemon dies with requests in hand, what those requests are recognised by is
//! kept for five minutes. A request that looks like one of them is compared with the record in the journal,
//! byte for byte; only if they are equal it is acknowledged without being counted. Each is recognised once:
//! whoever sends the same bytes again and again on purpose is counted from then on.
//!
//! By whom a request was sent decides what is forgotten when the memory is full, so that nobody can have what
//! others sent forgotten. It does not decide what is recognised: behind a load balancer a retry may come from
//! another address than its first copy, and equal bytes are proof enough.

use super::reply::Receipt;
use super::server::STREAMS_LIMIT;
use super::{CallerTag, Intake};
use crate::model::Signal;
use crate::otlp::Encoding;
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a request is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// Requests that are remembered at most. Beyond that whoever has most loses the oldest of its own.
const MOST: usize = 65_536;
/// Of those that look alike at most: the newest. Each is read from the journal when one more comes.
const ALIKE: usize = 4;
/// Answers of one connection that are looked back on when it breaks: as many as can be unread at a time.
const ANSWERS: usize = STREAMS_LIMIT as usize;
/// How far back that is: a connection that takes nothing any more, or no answer, is noticed before.
const LOOK_BACK: Duration = Duration::from_secs(120);
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
    /// Print, end and sender of what is remembered, by number: oldest first.
    order: BTreeMap<u64, (Print, Instant, CallerTag)>,
    next: u64,
    /// The numbers of what each sender has, and senders by how many these are.
    of_caller: BTreeMap<CallerTag, BTreeSet<u64>>,
    by_count: BTreeSet<(usize, CallerTag)>,
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
    fn remember(&self, print: Print, copy: Copy, caller: CallerTag) {
        let mut remembered = self.remembered.lock();
        remembered.add(print, copy, caller, Instant::now() + REMEMBERED_FOR);
        self.settle(&mut remembered);
    }

    /// A caller gave up waiting for the answer.
    pub fn remember_handed(&self, print: Print, receipt: Receipt, caller: CallerTag) {
        self.remember(print, Copy::Handed(receipt), caller);
    }

    /// The answer may not have arrived, or none was sent.
    pub fn remember_recorded(&self, print: Print, position: u64, caller: CallerTag) {
        self.remember(print, Copy::Recorded(position), caller);
    }

    /// Forgets what is too old, or too much.
    fn settle(&self, remembered: &mut Remembered) {
        let now = Instant::now();
        while let Some((&number, &(_, end, _))) = remembered.order.first_key_value()
            && end <= now
        {
            remembered.forget(number);
        }
        while remembered.order.len() > MOST
            && let Some(number) = remembered.oldest_of_most()
        {
            remembered.forget(number);
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
            if intake.holds(position, encoding, wire) && self.recognise(number) {
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
    fn recognise(&self, number: u64) -> bool {
        let mut remembered = self.remembered.lock();
        let is_first = remembered.forget(number);
        self.count.store(remembered.copies.len(), Ordering::Release);
        is_first
    }

    /// A connection broke: its last answers may not have arrived.
    pub fn connection_broke(&self, answered: &Answered) {
        while let Some((print, position, caller, at)) = answered.0.pop() {
            if at.elapsed() < LOOK_BACK {
                self.remember_recorded(print, position, caller);
            }
        }
    }
}

impl Remembered {
    fn add(&mut self, print: Print, copy: Copy, caller: CallerTag, end: Instant) {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let alike = self.copies.entry(print).or_default();
        alike.push_back((number, copy));
        let beyond = if alike.len() > ALIKE { alike.front().map(|(number, _)| *number) } else { None };
        self.order.insert(number, (print, end, caller));
        self.change(caller, |numbers| numbers.insert(number));
        if let Some(beyond) = beyond {
            self.forget(beyond);
        }
    }

    /// Whether it was there.
    fn forget(&mut self, number: u64) -> bool {
        let Some((print, _, caller)) = self.order.remove(&number) else { return false };
        if let Some(copies) = self.copies.get_mut(&print) {
            copies.retain(|(of, _)| *of != number);
            if copies.is_empty() {
                self.copies.remove(&print);
            }
        }
        self.change(caller, |numbers| numbers.remove(&number));
        true
    }

    /// Changes what a sender has, and with it its place among all.
    fn change(&mut self, caller: CallerTag, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let numbers = self.of_caller.entry(caller).or_default();
        self.by_count.remove(&(numbers.len(), caller));
        change(numbers);
        if numbers.is_empty() {
            self.of_caller.remove(&caller);
        } else {
            self.by_count.insert((numbers.len(), caller));
        }
    }

    /// The oldest request of the sender that has most.
    fn oldest_of_most(&self) -> Option<u64> {
        let (_, caller) = self.by_count.last()?;
        self.of_caller.get(caller)?.first().copied()
    }
}

/// The last answers of a connection.
#[derive(Debug)]
pub(super) struct Answered(ArrayQueue<(Print, u64, CallerTag, Instant)>);

impl Default for Answered {
    fn default() -> Self {
        Self(ArrayQueue::new(ANSWERS))
    }
}

impl Answered {
    pub fn note(&self, print: Print, position: u64, caller: CallerTag) {
        let _ = self.0.force_push((print, position, caller, Instant::now()));
    }
}

/// A request whose answer is waited for. If the caller goes away meanwhile, it is remembered.
pub(super) struct Waiting<'a> {
    retries: &'a Retries,
    print: Print,
    caller: CallerTag,
    /// `None` once the answer is there.
    receipt: Option<Receipt>,
}

impl<'a> Waiting<'a> {
    pub const fn new(retries: &'a Retries, print: Print, receipt: Receipt, caller: CallerTag) -> Self {
        Self { retries, print, caller, receipt: Some(receipt) }
    }

    /// The answer is there; where the request was recorded.
    pub fn done(mut self) -> Option<u64> {
        self.receipt.take().and_then(|receipt| receipt.recorded())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.retries.remember_handed(self.print, receipt, self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::{Admitted, Reply};

    const ONE: CallerTag = CallerTag(1);
    const TWO: CallerTag = CallerTag(2);

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
        retries.remember_recorded(print(&wire), 64, ONE);
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
        retries.remember_recorded(print(&wire), 64, ONE);
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
            drop(Waiting::new(&retries, print(&wire), pending.receipt(), ONE));
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
        assert_eq!(Waiting::new(&retries, print(&wire), pending.receipt(), ONE).done(), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let retries = Retries::default();
        for number in 0..MOST as u64 + 10 {
            retries.remember_recorded(print(&number.to_le_bytes()), 64, ONE);
        }
        assert_eq!(retries.count.load(Ordering::Acquire), MOST);
        assert_eq!(retries.remembered.lock().order.len(), MOST);
        let answered = Answered::default();
        (0..200u64).for_each(|number| answered.note(print(&[1, number as u8]), number, ONE));
        retries.connection_broke(&answered);
        assert_eq!(retries.count.load(Ordering::Acquire), MOST);
    }

    #[test]
    fn who_fills_the_memory_has_its_own_requests_forgotten_and_nobody_elses() {
        let retries = Retries::default();
        let wire = vec![7; 300];
        let intake = Holding(wire.clone());
        retries.remember_recorded(print(&wire), 64, TWO);
        for number in 0..2 * MOST as u64 {
            retries.remember_recorded(print(&number.to_le_bytes()), 64, ONE);
        }
        assert_eq!(retries.count.load(Ordering::Acquire), MOST);
        assert_eq!(judge(&retries, &intake, &wire), Verdict::Counted(64));
        // Once another has most, it is that one's turn.
        for number in 0..MOST as u64 {
            retries.remember_recorded(print(&[&[1], &number.to_le_bytes()[..]].concat()), 64, TWO);
        }
        let remembered = retries.remembered.lock();
        let held: Vec<_> =
            remembered.of_caller.iter().map(|(caller, numbers)| (*caller, numbers.len())).collect();
        assert_eq!(held, [(ONE, MOST / 2), (TWO, MOST / 2)]);
    }

    #[test]
    fn nothing_is_left_of_what_is_forgotten() {
        let retries = Retries::default();
        for position in 0..3 * ALIKE as u64 {
            retries.remember_recorded(print(&[7; 300]), position, CallerTag(position as u16));
        }
        let mut remembered = retries.remembered.lock();
        assert_eq!((remembered.order.len(), remembered.by_count.len()), (ALIKE, ALIKE));
        while let Some(number) = remembered.oldest_of_most() {
            assert!(remembered.forget(number) && !remembered.forget(number));
        }
        assert!(remembered.copies.is_empty() && remembered.order.is_empty());
        assert!(remembered.of_caller.is_empty() && remembered.by_count.is_empty());
    }

    #[test]
    fn all_answers_that_a_connection_may_have_unread_are_remembered_when_it_breaks() {
        let retries = Retries::default();
        let answered = Answered::default();
        let streams = u64::from(STREAMS_LIMIT);
        (0..streams).for_each(|number| answered.note(print(&number.to_le_bytes()), number, ONE));
        retries.connection_broke(&answered);
        assert_eq!(retries.count.load(Ordering::Acquire) as u64, streams);
    }

    #[test]
    fn of_many_that_look_alike_the_newest_are_remembered() {
        let retries = Retries::default();
        let wire = vec![7; 300];
        let intake = Holding(wire.clone());
        for position in [64, 64, 64, 64, 64, 1, 1] {
            retries.remember_recorded(print(&wire), position, ONE);
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
