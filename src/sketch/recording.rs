//! Durations while they are being counted. Equal to recording each into a [`Histogram`], but a value
//! touches one or two cache lines, searches nothing and allocates nothing in steady state.
//!
//! The first few values are kept as they came; then four octaves around their median are an array of
//! bytes. What lies outside it, and every 255th of one bucket, goes to arrays of an octave each.

use super::{Histogram, SCALE};

const OCTAVE: usize = 1 << SCALE;
/// Octaves of durations from 1 ns to 2^64 ns, and one below for 1 ns itself.
const OCTAVES: usize = 65;
/// Buckets of the array of bytes.
const NEAR: usize = 4 * OCTAVE;
const FEW: usize = 14;
const NONE: u32 = u32::MAX;
/// Buckets of durations begin at -1, that of 1 ns.
const LOWEST: i32 = -(OCTAVE as i32);

/// The arrays of all recordings of one owner. Emptied at once; keeps its memory.
#[derive(Debug, Default)]
pub struct Recordings {
    near: Vec<[u8; NEAR]>,
    octaves: Vec<[u32; OCTAVE]>,
    tables: Vec<[u32; OCTAVES]>,
}

impl Recordings {
    /// Memory that is in use.
    #[inline]
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        size_of_val(self.near.as_slice())
            + size_of_val(self.octaves.as_slice())
            + size_of_val(self.tables.as_slice())
    }

    /// Every recording in it is void then.
    pub fn clear(&mut self) {
        self.near.clear();
        self.octaves.clear();
        self.tables.clear();
    }
}

/// Durations in nanoseconds, most of them in a [`Recordings`].
#[derive(Clone, Copy, Debug)]
pub struct Recording {
    zero: u32,
    /// Places in the recordings.
    near: u32,
    table: u32,
    /// First bucket of the array of bytes.
    base: i16,
    /// How many of the first few there are.
    count: u8,
    /// Buckets, as they came.
    few: [i16; FEW],
}

impl Default for Recording {
    fn default() -> Self {
        Self { zero: 0, near: NONE, table: NONE, base: 0, count: 0, few: [0; FEW] }
    }
}

impl Recording {
    #[inline]
    pub fn record(&mut self, duration_ns: u64, rest: &mut Recordings) {
        if duration_ns == 0 {
            self.zero = self.zero.saturating_add(1);
            return;
        }
        let bucket = Histogram::bucket_of(duration_ns as f64);
        if self.near != NONE {
            self.add(bucket, rest);
        } else if let Some(place) = self.few.get_mut(usize::from(self.count)) {
            *place = bucket as i16;
            self.count += 1;
        } else {
            self.widen(rest);
            self.add(bucket, rest);
        }
    }

    #[inline]
    fn add(&mut self, bucket: i32, rest: &mut Recordings) {
        let within = bucket.wrapping_sub(i32::from(self.base)) as usize;
        let near = rest.near.get_mut(self.near as usize).and_then(|near| near.get_mut(within));
        match near {
            Some(count) if *count < u8::MAX => *count += 1,
            Some(count) => {
                *count = 1;
                self.add_far(bucket, u32::from(u8::MAX), rest);
            }
            None => self.add_far(bucket, 1, rest),
        }
    }

    #[cold]
    fn widen(&mut self, rest: &mut Recordings) {
        let mut sorted = self.few;
        sorted.sort_unstable();
        self.base = sorted.get(FEW / 2).map_or(0, |middle| middle.saturating_sub(NEAR as i16 / 2));
        self.near = u32::try_from(rest.near.len()).unwrap_or(NONE);
        rest.near.push([0; NEAR]);
        for bucket in sorted {
            self.add(i32::from(bucket), rest);
        }
    }

    #[cold]
    fn add_far(&mut self, bucket: i32, times: u32, rest: &mut Recordings) {
        if self.table == NONE {
            self.table = u32::try_from(rest.tables.len()).unwrap_or(NONE);
            rest.tables.push([NONE; OCTAVES]);
        }
        let shifted = usize::try_from(bucket - LOWEST).unwrap_or(0);
        let Some(octave) =
            rest.tables.get_mut(self.table as usize).and_then(|table| table.get_mut(shifted / OCTAVE))
        else {
            return;
        };
        if *octave == NONE {
            *octave = u32::try_from(rest.octaves.len()).unwrap_or(NONE);
            rest.octaves.push([0; OCTAVE]);
        }
        if let Some(count) =
            rest.octaves.get_mut(*octave as usize).and_then(|counts| counts.get_mut(shifted % OCTAVE))
        {
            *count = count.saturating_add(times);
        }
    }

    /// What was recorded.
    #[must_use]
    pub fn histogram(&self, rest: &Recordings) -> Histogram {
        let mut buckets: Vec<(i32, u64)> = Vec::new();
        match rest.near.get(self.near as usize) {
            None => {
                let mut few = self.few;
                let few = few.get_mut(..usize::from(self.count)).unwrap_or_default();
                few.sort_unstable();
                for &mut bucket in few {
                    match buckets.last_mut() {
                        Some((last, count)) if *last == i32::from(bucket) => *count += 1,
                        _ => buckets.push((i32::from(bucket), 1)),
                    }
                }
            }
            Some(near) => {
                let far = rest.tables.get(self.table as usize);
                let near = |bucket: i32| {
                    let within = bucket.wrapping_sub(i32::from(self.base)) as usize;
                    near.get(within).map_or(0, |&count| u64::from(count))
                };
                match far {
                    None => {
                        let all = i32::from(self.base)..i32::from(self.base) + NEAR as i32;
                        buckets
                            .extend(all.map(|bucket| (bucket, near(bucket))).filter(|&(_, count)| count > 0));
                    }
                    Some(table) => {
                        for (octave, &place) in table.iter().enumerate() {
                            let first = (octave * OCTAVE) as i32 + LOWEST;
                            let far = rest.octaves.get(place as usize);
                            let is_near = first + (OCTAVE as i32) > i32::from(self.base)
                                && first < i32::from(self.base) + NEAR as i32;
                            if far.is_none() && !is_near {
                                continue;
                            }
                            for within in 0..OCTAVE {
                                let bucket = first + within as i32;
                                let far = far.and_then(|far| far.get(within)).map_or(0, |&n| u64::from(n));
                                let count = far + near(bucket);
                                if count > 0 {
                                    buckets.push((bucket, count));
                                }
                            }
                        }
                    }
                }
            }
        }
        Histogram::from_sorted(SCALE, u64::from(self.zero), &buckets, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_recording_into_a_histogram(
            durations in prop::collection::vec(
                prop_oneof![0u64..5, 1u64..10_000_000_000, 1_000_000u64..1_010_000, any::<u64>()], 0..600),
            repeated in 0u64..700,
        ) {
            let (mut recording, mut rest, mut expected) =
                (Recording::default(), Recordings::default(), Histogram::new());
            // Another one shares the arrays.
            let mut other = Recording::default();
            for duration in durations.iter().copied().chain((0..repeated).map(|_| 1_000_000)) {
                recording.record(duration, &mut rest);
                other.record(duration / 2, &mut rest);
                expected.record(duration as f64);
            }
            prop_assert_eq!(recording.histogram(&rest), expected);
        }
    }
}
