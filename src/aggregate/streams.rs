//! Cumulative metrics: the last value of each stream, and what it grew by.

use super::config::{Bounds, is_fair, is_fair_of_a_caller};
use crate::model::Timestamp;
use crate::receive::CallerTag;
use crate::sketch::Histogram;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What tells a stream from any other, hashed: resource, scope, metric, type and attributes.
pub(super) type StreamId = u128;

/// A histogram as a stream carries it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Growing {
    pub counts: Counts,
    pub sum: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Counts {
    /// Of explicit buckets, and their bounds.
    Explicit {
        counts: Vec<u64>,
        bounds: Vec<f64>,
    },
    Exponential(Histogram),
}

impl Default for Counts {
    fn default() -> Self {
        Self::Explicit { counts: Vec::new(), bounds: Vec::new() }
    }
}

impl Growing {
    /// What was added since `earlier`; `None` when this cannot have grown from that.
    fn since(&self, earlier: &Self) -> Option<Self> {
        let counts = match (&self.counts, &earlier.counts) {
            (Counts::Exponential(later), Counts::Exponential(earlier)) => {
                Counts::Exponential(later.since(earlier)?)
            }
            (Counts::Explicit { counts, bounds }, Counts::Explicit { counts: before, bounds: known })
                if bounds == known && counts.len() == before.len() =>
            {
                let grown: Option<Vec<u64>> =
                    counts.iter().zip(before).map(|(later, earlier)| later.checked_sub(*earlier)).collect();
                Counts::Explicit { counts: grown?, bounds: bounds.clone() }
            }
            _ => return None,
        };
        Some(Self { counts, sum: self.sum - earlier.sum })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Last {
    Number(f64),
    Histogram(Growing),
}

impl Last {
    /// Counts and bounds of buckets that it holds, in words of eight bytes.
    fn buckets(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Histogram(Growing { counts: Counts::Explicit { counts, bounds }, .. }) => {
                counts.len().saturating_add(bounds.len())
            }
            Self::Histogram(Growing { counts: Counts::Exponential(histogram), .. }) => {
                histogram.size_bytes() / size_of::<u64>()
            }
        }
    }
}

/// The last point of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stream {
    start: Timestamp,
    time: Timestamp,
    last: Last,
    pub partition: u8,
    /// The service that it is one of.
    owner: u64,
    pub used: u64,
    /// Who brought it; nobody, after a restart.
    #[serde(skip)]
    caller: CallerTag,
}

/// Where and when a point of a stream is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub id: StreamId,
    pub start: Timestamp,
    pub time: Timestamp,
    pub partition: u8,
    pub owner: u64,
    /// Second of journal time.
    pub used: u64,
}

/// Ids are hashes already.
#[derive(Debug, Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

/// The last values of all streams of a shard.
#[derive(Debug)]
pub(super) struct Streams {
    all: HashMap<StreamId, Stream, BuildHasherDefault<Identity>>,
    of_owners: HashMap<u64, usize, BuildHasherDefault<Identity>>,
    /// Whose request is counted now.
    pub caller: CallerTag,
    of_callers: BTreeMap<CallerTag, usize>,
    limit: usize,
    limit_of_one: usize,
    /// Of all histograms, and at most.
    buckets: usize,
    limit_of_buckets: usize,
    /// Points of streams that there was no room for, since this was asked.
    refused: u64,
    /// When this shard began to listen: streams that began later are known from their beginning.
    pub born: Timestamp,
}

impl Streams {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            all: HashMap::default(),
            of_owners: HashMap::default(),
            caller: CallerTag::NOBODY,
            of_callers: BTreeMap::new(),
            limit: bounds.streams,
            limit_of_one: bounds.streams_of_a_service,
            buckets: 0,
            limit_of_buckets: bounds.stream_buckets,
            refused: 0,
            born: Timestamp::MAX,
        }
    }

    /// Points since the last time of streams that there was no room for: they are counted, but not what they grew by,
    /// which without their last value nobody can tell.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    fn has_room(&self, owner: u64, last: &Last) -> bool {
        let own = self.of_owners.get(&owner).copied().unwrap_or(0);
        let of_caller = self.of_callers.get(&self.caller).copied().unwrap_or(0);
        self.buckets.saturating_add(last.buckets()) <= self.limit_of_buckets
            && own < self.limit_of_one
            && is_fair(own, self.all.len(), self.limit)
            && is_fair_of_a_caller(of_caller, self.all.len(), self.limit)
    }

    fn add(&mut self, id: StreamId, stream: Stream) {
        let (owner, caller) = (stream.owner, stream.caller);
        self.buckets = self.buckets.saturating_add(stream.last.buckets());
        if self.all.insert(id, stream).is_none() {
            *self.of_owners.entry(owner).or_default() += 1;
            if caller != CallerTag::NOBODY {
                *self.of_callers.entry(caller).or_default() += 1;
            }
        }
    }

    /// What a monotonic sum grew by.
    pub fn number(&mut self, at: Moment, value: f64) -> f64 {
        if !value.is_finite() {
            return 0.0;
        }
        let grown = self.grown(at, Last::Number(value), |last, known| match (last, known) {
            (Last::Number(value), Some(Last::Number(known))) if value >= known => {
                Some(Last::Number(value - known))
            }
            (Last::Number(_), Some(_)) => None,
            (last, None) => Some(last.clone()),
            _ => None,
        });
        match grown {
            Some(Last::Number(grown)) => grown,
            _ => 0.0,
        }
    }

    /// What a histogram grew by.
    pub fn histogram(&mut self, at: Moment, value: Growing) -> Option<Growing> {
        let grown = self.grown(at, Last::Histogram(value), |last, known| match (last, known) {
            (Last::Histogram(value), Some(Last::Histogram(known))) => value.since(known).map(Last::Histogram),
            (Last::Histogram(_), Some(_)) => None,
            (last, None) => Some(last.clone()),
            _ => None,
        });
        match grown {
            Some(Last::Histogram(grown)) => Some(grown),
            _ => None,
        }
    }

    fn grown(
        &mut self,
        at: Moment,
        last: Last,
        difference: impl Fn(&Last, Option<&Last>) -> Option<Last>,
    ) -> Option<Last> {
        let Some(known) = self.all.get_mut(&at.id) else {
            if !self.has_room(at.owner, &last) {
                self.refused += 1;
                return None;
            }
            // Of a stream that is older than this shard nothing is known but its first point seen here.
            let is_young = at.start != Timestamp::ZERO && at.start >= self.born;
            let grown = is_young.then(|| difference(&last, None)).flatten();
            let Moment { id, start, time, partition, owner, used } = at;
            self.add(id, Stream { start, time, last, partition, owner, used, caller: self.caller });
            return grown;
        };
        known.used = at.used;
        if at.time <= known.time {
            // A duplicate, or overtaken by a later point that had counted it already.
            return None;
        }
        let is_same = at.start == known.start || at.start == Timestamp::ZERO;
        let grown = if is_same { difference(&last, Some(&known.last)) } else { None };
        // A new start, or a value that fell: the counter began again at zero.
        let grown = grown.or_else(|| difference(&last, None));
        let buckets = self.buckets.saturating_sub(known.last.buckets()).saturating_add(last.buckets());
        if buckets > self.limit_of_buckets && buckets > self.buckets {
            self.remove(at.id);
            self.refused += 1;
            return None;
        }
        self.buckets = buckets;
        (known.start, known.time, known.last) = (at.start, at.time, last);
        grown
    }

    /// Forgets a stream.
    fn remove(&mut self, id: StreamId) {
        let Some(stream) = self.all.remove(&id) else { return };
        self.buckets = self.buckets.saturating_sub(stream.last.buckets());
        if let Some(own) = self.of_owners.get_mut(&stream.owner) {
            *own = own.saturating_sub(1);
        }
        if let Some(of_caller) = self.of_callers.get_mut(&stream.caller) {
            *of_caller = of_caller.saturating_sub(1);
        }
    }

    /// Forgets streams without a point since `second`.
    pub fn forget_unused(&mut self, second: u64) {
        let Self { all, of_owners, of_callers, buckets, .. } = self;
        of_owners.clear();
        of_callers.clear();
        *buckets = 0;
        all.retain(|_, stream| {
            let keep = stream.used >= second;
            if keep {
                *buckets = buckets.saturating_add(stream.last.buckets());
                *of_owners.entry(stream.owner).or_default() += 1;
                if stream.caller != CallerTag::NOBODY {
                    *of_callers.entry(stream.caller).or_default() += 1;
                }
            }
            keep
        });
    }

    /// All streams in the order of their ids.
    pub fn all(&self) -> Vec<(StreamId, &Stream)> {
        let mut all: Vec<_> = self.all.iter().map(|(&id, stream)| (id, stream)).collect();
        all.sort_by_key(|&(id, _)| id);
        all
    }

    pub fn restore(&mut self, id: StreamId, stream: Stream) {
        if self.all.len() < self.limit
            && self.buckets.saturating_add(stream.last.buckets()) <= self.limit_of_buckets
        {
            self.add(id, stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: u64, time: u64) -> Moment {
        Moment {
            id: 7,
            start: Timestamp::from_secs(start),
            time: Timestamp::from_secs(time),
            partition: 0,
            owner: 1,
            used: time,
        }
    }

    fn bounds(streams: usize) -> Bounds {
        Bounds { streams, streams_of_a_service: streams / 2, ..crate::aggregate::Config::default().bounds(1) }
    }

    #[test]
    fn whoever_has_few_streams_finds_room_and_what_has_none_is_not_counted_over_and_over() {
        let mut streams = Streams::new(bounds(100));
        streams.born = Timestamp::from_secs(100);
        let number = |streams: &mut Streams, owner: u64, stream: u128, time: u64| {
            let id = u128::from(owner) << 64 | stream;
            streams.number(Moment { id, owner, ..at(100, time) }, time as f64)
        };
        // Four that take what they get.
        for stream in 0..200 {
            (1..5).for_each(|owner| {
                number(&mut streams, owner, stream, 110);
            });
        }
        let mut had: Vec<usize> = streams.of_owners.values().copied().collect();
        had.sort_unstable();
        assert_eq!((had.iter().sum::<usize>(), streams.all.len()), (97, 97), "{had:?}");
        assert_eq!(streams.take_refused(), 4 * 200 - 97);
        assert_eq!(number(&mut streams, 1, 150, 120), 0.0, "it may be what was counted before");
        assert_eq!(number(&mut streams, 9, 1, 110), 110.0, "a newcomer's first");
        assert_eq!(number(&mut streams, 9, 1, 120), 10.0);
        // Of one alone half are.
        let mut streams = Streams::new(bounds(100));
        (0..200).for_each(|stream| {
            number(&mut streams, 1, stream, 110);
        });
        assert_eq!(streams.all.len(), 50);
        streams.forget_unused(111);
        assert!(streams.all.is_empty() && streams.of_owners.is_empty());
    }

    #[test]
    fn buckets_of_histograms_are_bounded_in_all() {
        let mut streams = Streams::new(Bounds { stream_buckets: 10_000, ..bounds(1_000) });
        streams.born = Timestamp::from_secs(100);
        let add = |streams: &mut Streams, stream: u128, time: u64, buckets: usize| {
            let counts = Counts::Explicit {
                counts: vec![time; buckets],
                bounds: (1..buckets).map(|bound| bound as f64).collect(),
            };
            streams.histogram(Moment { id: stream, ..at(100, time) }, Growing { counts, sum: 1.0 }).is_some()
        };
        assert!((0..20).all(|stream| add(&mut streams, stream, 110, 3)));
        assert_eq!(streams.buckets, 100);
        assert_eq!((20..40).filter(|&stream| add(&mut streams, stream, 110, 1_000)).count(), 4);
        assert_eq!((streams.buckets, streams.take_refused()), (100 + 4 * 1_999, 16));
        // One that is known and grows beyond what there is, is known no more.
        assert!(add(&mut streams, 0, 120, 500) && !add(&mut streams, 1, 120, 1_000));
        assert_eq!((streams.all.len(), streams.take_refused()), (23, 1));
        assert!(streams.buckets <= 10_000 && add(&mut streams, 2, 120, 3), "{}", streams.buckets);
        streams.forget_unused(111);
        let held: usize = streams.all.values().map(|stream| stream.last.buckets()).sum();
        assert_eq!((streams.all.len(), streams.buckets), (2, held));
        streams.forget_unused(200);
        assert_eq!(streams.buckets, 0);
    }

    #[test]
    fn a_caller_that_brings_many_services_leaves_room_for_the_streams_of_others() {
        let mut streams = Streams::new(bounds(100));
        streams.born = Timestamp::from_secs(100);
        let one = |streams: &mut Streams, owner: u64| {
            streams.number(Moment { id: u128::from(owner), owner, ..at(100, 110) }, 1.0)
        };
        streams.caller = CallerTag(2);
        (0..200).for_each(|owner| {
            one(&mut streams, owner);
        });
        assert!((90..96).contains(&streams.all.len()), "{}", streams.all.len());
        streams.caller = CallerTag(1);
        assert_eq!((1_000..1_004).map(|owner| one(&mut streams, owner)).sum::<f64>(), 4.0);
        streams.forget_unused(111);
        assert!(streams.of_callers.is_empty());
    }

    #[test]
    fn growth_of_a_counter_over_restarts_repeats_and_resets() {
        let mut streams = Streams::new(bounds(10));
        streams.born = Timestamp::from_secs(100);
        assert_eq!(streams.number(at(50, 110), 1_000.0), 0.0, "began before us");
        assert_eq!(streams.number(at(50, 120), 1_005.0), 5.0);
        assert_eq!(streams.number(at(50, 120), 1_005.0), 0.0, "the same point again");
        assert_eq!(streams.number(at(50, 115), 1_002.0), 0.0, "overtaken");
        assert_eq!(streams.number(at(50, 130), 1_006.0), 1.0);
        assert_eq!(streams.number(at(131, 140), 3.0), 3.0, "a new start");
        assert_eq!(streams.number(at(131, 150), 2.0), 2.0, "fell without a new start");
        let young = Moment { id: 8, ..at(100, 150) };
        assert_eq!(streams.number(young, 9.0), 9.0, "began under our eyes");
    }

    #[test]
    fn growth_of_histograms() {
        let mut streams = Streams::new(bounds(10));
        streams.born = Timestamp::from_secs(100);
        let point = |counts: &[u64], sum| Growing {
            counts: Counts::Explicit { counts: counts.to_vec(), bounds: vec![1.0] },
            sum,
        };
        assert_eq!(streams.histogram(at(50, 110), point(&[5, 5], 10.0)), None);
        assert_eq!(streams.histogram(at(50, 120), point(&[6, 7], 14.0)), Some(point(&[1, 2], 4.0)));
        assert_eq!(streams.histogram(at(50, 130), point(&[1, 1], 2.0)), Some(point(&[1, 1], 2.0)));
    }
}
