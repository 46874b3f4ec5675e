//! Cumulative metrics: the last value of each stream, and what it grew by.

use crate::model::Timestamp;
use crate::sketch::Histogram;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
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

/// The last point of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stream {
    start: Timestamp,
    time: Timestamp,
    last: Last,
    pub partition: u8,
    pub used: u64,
}

/// Where and when a point of a stream is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub id: StreamId,
    pub start: Timestamp,
    pub time: Timestamp,
    pub partition: u8,
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

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

/// The last values of all streams of a shard.
#[derive(Debug)]
pub(super) struct Streams {
    all: HashMap<StreamId, Stream, BuildHasherDefault<Identity>>,
    limit: usize,
    /// When this shard began to listen: streams that began later are known from their beginning.
    pub born: Timestamp,
}

impl Streams {
    pub fn new(limit: usize) -> Self {
        Self { all: HashMap::default(), limit, born: Timestamp::MAX }
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
            // Of a stream that is older than this shard nothing is known but its first point seen here.
            let is_young = at.start != Timestamp::ZERO && at.start >= self.born;
            let grown = is_young.then(|| difference(&last, None)).flatten();
            if self.all.len() < self.limit {
                let stream =
                    Stream { start: at.start, time: at.time, last, partition: at.partition, used: at.used };
                self.all.insert(at.id, stream);
            }
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
        (known.start, known.time, known.last) = (at.start, at.time, last);
        grown
    }

    /// Forgets streams without a point since `second`.
    pub fn forget_unused(&mut self, second: u64) {
        self.all.retain(|_, stream| stream.used >= second);
    }

    /// All streams in the order of their ids.
    pub fn all(&self) -> Vec<(StreamId, &Stream)> {
        let mut all: Vec<_> = self.all.iter().map(|(&id, stream)| (id, stream)).collect();
        all.sort_by_key(|&(id, _)| id);
        all
    }

    pub fn restore(&mut self, id: StreamId, stream: Stream) {
        if self.all.len() < self.limit {
            self.all.insert(id, stream);
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
            used: time,
        }
    }

    #[test]
    fn growth_of_a_counter_over_restarts_repeats_and_resets() {
        let mut streams = Streams::new(10);
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
        let mut streams = Streams::new(10);
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
