//! The read side: replay, and captures of some minutes.

use super::index::Plan;
use super::record::{Header, Record};
use super::segment::Segment;
use super::shared::Shared;
use super::{Damage, Filter, Index, Position};
use crate::model::Timestamp;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How far ahead of its arrival an item's time may be; beyond, it counts at arrival.
const AHEAD: Duration = Duration::from_secs(10);
/// How long after its time a capture still looks for an item: clients batch, and retry.
const LATE: Duration = Duration::from_secs(90);

/// Reads what was recorded, while it is being written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder(pub(super) Arc<Shared>);

impl Recorder {
    /// All records from a position on, in order, up to what is written when the iterator gets there.
    /// A position that is no longer held stands for the oldest that is.
    #[must_use]
    pub fn records(&self, from: Position) -> Records {
        Records { walk: Walk::new(self.0.clone(), from) }
    }

    /// Records that begin in this range, which need not begin where one does.
    pub fn records_between(&self, range: Range<Position>) -> impl Iterator<Item = Record> + use<> {
        let written = self.0.written.load(Ordering::Acquire);
        let segments = self.0.segments.load();
        let segment = segments.iter().find(|segment| segment.end() > range.start.0);
        let from = segment.map_or(range.end.0, |segment| {
            let limit = segment.end().min(written);
            segment.next_whole(range.start.0, limit).unwrap_or_else(|| segment.end())
        });
        self.records(Position(from)).take_while(move |record| record.at < range.end)
    }

    /// Records before a position that arrived at a time or later; where these are more than so many bytes, the last.
    pub fn tail(
        &self,
        before: Position,
        since: Timestamp,
        bytes: u64,
    ) -> impl Iterator<Item = Record> + use<> {
        let from = self.first_after(since).unwrap_or(before.0).max(before.0.saturating_sub(bytes));
        self.records_between(Position(from)..before)
    }

    /// Records that may hold items of these event times and of this filter, in order. Coarse: whole
    /// requests, of which the reader takes what it wants. Items that came more than 90 s late are not
    /// looked for. When the writer overtakes a slow reader, the records it lost are left out.
    #[must_use]
    pub fn read(&self, times: Range<Timestamp>, filter: &Filter) -> Captured {
        let arrivals = times.start.saturating_sub(AHEAD)..times.end.saturating_add(LATE);
        Captured {
            plan: self.0.index.plan(&times, filter),
            walk: Walk::new(self.0.clone(), Position(self.before(arrivals.start))),
            arrivals,
        }
    }

    /// All records that arrived before a time and may match a filter: of the newest segment first, within each in the
    /// order they came. For who looks for one thing and cannot read everything: what is likely wanted comes early.
    #[must_use]
    pub fn read_backward(&self, before: Timestamp, filter: &Filter) -> Backward {
        Backward {
            plan: self.0.index.plan(&(Timestamp::ZERO..Timestamp::MAX), filter),
            shared: self.0.clone(),
            older: self.0.segments.load().to_vec(),
            segment: None,
            before,
        }
    }

    /// The index that shards fill.
    #[must_use]
    pub fn index(&self) -> Arc<Index> {
        self.0.index.clone()
    }

    /// Position and arrival of the oldest record.
    #[must_use]
    pub fn oldest(&self) -> Option<(Position, Timestamp)> {
        Walk::new(self.0.clone(), Position(0)).next().map(|(_, header)| (header.at, header.arrived))
    }

    /// First position after the newest record, and its arrival. `None` when nothing is recorded.
    #[must_use]
    pub fn newest(&self) -> Option<(Position, Timestamp)> {
        let arrived = self.0.last_arrived.load(Ordering::Acquire);
        let end = self.0.written.load(Ordering::Acquire);
        (arrived != 0).then_some((Position(end), Timestamp(arrived)))
    }

    /// Bytes recorded for requests that arrived in this range: what reading all of it costs at most.
    #[must_use]
    pub fn bytes_between(&self, arrivals: &Range<Timestamp>) -> u64 {
        let end = self.first_after(arrivals.end).unwrap_or_else(|| self.0.written.load(Ordering::Acquire));
        self.first_after(arrivals.start).map_or(0, |start| end.saturating_sub(start))
    }

    /// Position of the first record that arrived at a time or later.
    fn first_after(&self, arrived: Timestamp) -> Option<u64> {
        let mut walk = Walk::new(self.0.clone(), Position(self.before(arrived)));
        std::iter::from_fn(|| walk.next())
            .find(|(_, header)| header.arrived >= arrived)
            .map(|(_, header)| header.at.0)
    }

    /// Where the last segment begins that begins before an arrival; one that cannot be read is not later.
    fn before(&self, arrived: Timestamp) -> u64 {
        let segments = self.0.segments.load_full();
        let after = segments.partition_point(|segment| {
            segment.header(segment.first()).is_none_or(|header| header.arrived < arrived)
        });
        segments.get(after.saturating_sub(1)).map_or(0, |segment| segment.first())
    }

    /// How far journal time is ahead of the wall clock; below zero while a step forward of that is not followed.
    #[must_use]
    pub fn clock_ahead_s(&self) -> f64 {
        self.0.clock_ahead_ns.load(Ordering::Acquire) as f64 / 1e9
    }

    /// Records at which three starts in a row had ended, and that are kept aside.
    #[must_use]
    pub fn quarantined(&self) -> u64 {
        self.0.quarantined.load(Ordering::Acquire)
    }

    /// Disk space that the segments take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.segments.load().iter().map(|segment| segment.size).sum()
    }
}

/// Damage that one walk remembers; more is met all the same.
const DAMAGE_KEPT: usize = 1_000;

/// Hops from header to header, and over what cannot be read.
#[derive(Debug)]
struct Walk {
    shared: Arc<Shared>,
    segment: Option<Arc<Segment>>,
    at: u64,
    damage: Vec<Damage>,
}

impl Walk {
    fn new(shared: Arc<Shared>, from: Position) -> Self {
        Self { shared, segment: None, at: from.0, damage: Vec::new() }
    }

    fn next(&mut self) -> Option<(Arc<Segment>, Header)> {
        loop {
            if self.at >= self.shared.written.load(Ordering::Acquire) {
                return None;
            }
            let segment = match self.segment.clone().filter(|segment| self.at < segment.end()) {
                Some(segment) => segment,
                None => {
                    let all = self.shared.segments.load();
                    let segment = all.iter().find(|segment| segment.end() > self.at)?.clone();
                    self.at = self.at.max(segment.first());
                    self.segment = Some(segment.clone());
                    segment
                }
            };
            match segment.header(self.at) {
                Some(header) => {
                    self.at = self.at.saturating_add(header.whole());
                    return Some((segment, header));
                }
                None => {
                    let at = self.at;
                    self.resume(&segment, at, at, |limit| segment.next_whole(at, limit));
                }
            }
        }
    }

    /// Goes on behind a record whose checksum does not fit.
    fn pass(&mut self, segment: &Segment, damaged: &Header) {
        let end = damaged.at.0.saturating_add(damaged.whole());
        self.resume(segment, damaged.at.0, end, |limit| segment.after_damaged(damaged, limit));
    }

    /// Goes on where `next` finds the next whole record before a limit; at the end of the segment if there
    /// is none: its rest was not used, or it was recycled under our hands. What cannot be read reaches at
    /// least to `end`.
    fn resume(&mut self, segment: &Segment, from: u64, end: u64, next: impl FnOnce(u64) -> Option<u64>) {
        let written = self.shared.written.load(Ordering::Acquire);
        let limit = segment.used.load(Ordering::Acquire).min(written);
        if from >= limit || !segment.is_current() {
            self.at = segment.end();
            return;
        }
        let next = next(limit);
        let end = next.unwrap_or(end);
        if end > from && self.damage.len() < DAMAGE_KEPT {
            self.damage.push(segment.damage(from, end));
        }
        match next {
            Some(next) => self.at = next,
            None => {
                // So that nobody looks through it again.
                if segment.end() <= written {
                    segment.used.fetch_min(from, Ordering::AcqRel);
                }
                self.at = segment.end();
            }
        }
    }

    /// Goes on at a later position, of which it is known that a record begins there.
    fn jump(&mut self, to: Position) {
        self.at = self.at.max(to.0);
    }
}

/// Records in order; see [`Recorder::records`].
#[derive(Debug)]
pub struct Records {
    walk: Walk,
}

impl Records {
    /// What could not be read so far.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.walk.damage
    }
}

impl Iterator for Records {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let (segment, header) = self.walk.next()?;
            match segment.record(&header) {
                Some(record) => return Some(record),
                None => self.walk.pass(&segment, &header),
            }
        }
    }
}

/// Records of a capture; see [`Recorder::read`].
#[derive(Debug)]
pub struct Captured {
    plan: Plan,
    walk: Walk,
    arrivals: Range<Timestamp>,
}

impl Iterator for Captured {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let (segment, header) = self.walk.next()?;
            if header.arrived >= self.arrivals.end {
                return None;
            }
            if self.plan.skips(header.at) {
                if let Some(onward) = self.plan.onward(header.at) {
                    self.walk.jump(onward);
                }
                continue;
            }
            if header.arrived < self.arrivals.start {
                continue;
            }
            match segment.record(&header) {
                Some(record) => return Some(record),
                None => self.walk.pass(&segment, &header),
            }
        }
    }
}

/// What a reading backwards comes to.
#[derive(Debug)]
pub enum Backstep {
    Record(Record),
    /// All that arrived from then on has been given.
    Since(Timestamp),
}

/// Records of one segment after the other, backwards; see [`Recorder::read_backward`].
#[derive(Debug)]
pub struct Backward {
    plan: Plan,
    shared: Arc<Shared>,
    /// Segments that were not begun, the newest last.
    older: Vec<Arc<Segment>>,
    segment: Option<OneSegment>,
    before: Timestamp,
}

/// A segment that is read.
#[derive(Debug)]
struct OneSegment {
    walk: Walk,
    end: u64,
    /// When its first record arrived.
    since: Option<Timestamp>,
}

impl Backward {
    /// The next record of a segment; `None` at its end.
    fn next_of(&self, of: &mut OneSegment) -> Option<Record> {
        loop {
            let (segment, header) = of.walk.next().filter(|(_, header)| header.at.0 < of.end)?;
            of.since.get_or_insert(header.arrived);
            if header.arrived >= self.before {
                return None;
            }
            if self.plan.skips(header.at) {
                if let Some(onward) = self.plan.onward(header.at) {
                    of.walk.jump(onward);
                }
                continue;
            }
            match segment.record(&header) {
                Some(record) => return Some(record),
                None => of.walk.pass(&segment, &header),
            }
        }
    }
}

impl Iterator for Backward {
    type Item = Backstep;

    fn next(&mut self) -> Option<Backstep> {
        loop {
            if let Some(mut segment) = self.segment.take() {
                if let Some(record) = self.next_of(&mut segment) {
                    self.segment = Some(segment);
                    return Some(Backstep::Record(record));
                }
                // One that was made ahead holds nothing yet, and one that was recycled meanwhile nothing any more.
                if let Some(since) = segment.since.filter(|since| *since < self.before) {
                    return Some(Backstep::Since(since));
                }
            }
            let segment = self.older.pop()?;
            let walk = Walk::new(self.shared.clone(), Position(segment.first()));
            self.segment = Some(OneSegment { walk, end: segment.end(), since: None });
        }
    }
}
