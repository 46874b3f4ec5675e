//! Durations of one cell while it is being counted: the first few as they come, then arrays of an
//! octave each. Equal to recording each into a [`Histogram`], without searching or allocating.

use crate::sketch::{Histogram, SCALE};

const OCTAVE: usize = 1 << SCALE;
/// Octaves of durations from 1 ns to 2^64 ns, and one below for 1 ns itself.
const OCTAVES: usize = 65;
const FEW: usize = 14;
const NONE: u32 = u32::MAX;

/// The arrays of all cells of a shard. Emptied at each barrier; keeps its memory.
#[derive(Debug, Default)]
pub(super) struct Pages {
    counts: Vec<[u32; OCTAVE]>,
    tables: Vec<[u32; OCTAVES]>,
}

impl Pages {
    pub fn clear(&mut self) {
        self.counts.clear();
        self.tables.clear();
    }
}

/// Durations of one cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    zero: u32,
    few_count: u8,
    /// Buckets, as they came.
    few: [i16; FEW],
    table: u32,
}

impl Default for Latency {
    fn default() -> Self {
        Self { zero: 0, few_count: 0, few: [0; FEW], table: NONE }
    }
}

impl Latency {
    #[inline]
    pub fn record(&mut self, duration_ns: u64, pages: &mut Pages) {
        if duration_ns == 0 {
            self.zero = self.zero.saturating_add(1);
            return;
        }
        let bucket = Histogram::bucket_of(duration_ns as f64);
        if self.table == NONE {
            if let Some(place) = self.few.get_mut(usize::from(self.few_count)) {
                *place = bucket as i16;
                self.few_count += 1;
                return;
            }
            self.table = u32::try_from(pages.tables.len()).unwrap_or(NONE);
            pages.tables.push([NONE; OCTAVES]);
            for bucket in self.few {
                add(self.table, i32::from(bucket), pages);
            }
        }
        add(self.table, bucket, pages);
    }

    pub fn histogram(&self, pages: &Pages) -> Histogram {
        let mut buckets: Vec<(i32, u64)> = Vec::new();
        if self.table == NONE {
            let mut few = self.few;
            let few = few.get_mut(..usize::from(self.few_count)).unwrap_or_default();
            few.sort_unstable();
            for &mut bucket in few {
                match buckets.last_mut() {
                    Some((last, count)) if *last == i32::from(bucket) => *count += 1,
                    _ => buckets.push((i32::from(bucket), 1)),
                }
            }
        } else if let Some(table) = pages.tables.get(self.table as usize) {
            for (octave, &page) in table.iter().enumerate() {
                let Some(counts) = pages.counts.get(page as usize) else { continue };
                for (within, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
                    let bucket = (octave * OCTAVE + within) as i32 - OCTAVE as i32;
                    buckets.push((bucket, u64::from(count)));
                }
            }
        }
        Histogram::from_sorted(u64::from(self.zero), buckets)
    }
}

#[inline]
fn add(table: u32, bucket: i32, pages: &mut Pages) {
    // Buckets of durations begin at -1, that of 1 ns.
    let shifted = usize::try_from(bucket + OCTAVE as i32).unwrap_or(0);
    let Some(page) = pages.tables.get_mut(table as usize).and_then(|table| table.get_mut(shifted / OCTAVE))
    else {
        return;
    };
    if *page == NONE {
        *page = u32::try_from(pages.counts.len()).unwrap_or(NONE);
        pages.counts.push([0; OCTAVE]);
    }
    if let Some(count) =
        pages.counts.get_mut(*page as usize).and_then(|counts| counts.get_mut(shifted % OCTAVE))
    {
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_recording_into_a_histogram(durations in prop::collection::vec(prop_oneof![0u64..5, 1u64..10_000_000_000, any::<u64>()], 0..200)) {
            let (mut latency, mut pages, mut expected) = (Latency::default(), Pages::default(), Histogram::new());
            // Another cell shares the pages.
            let mut other = Latency::default();
            for &duration in &durations {
                latency.record(duration, &mut pages);
                other.record(duration / 2, &mut pages);
                expected.record(duration as f64);
            }
            prop_assert_eq!(latency.histogram(&pages), expected);
        }
    }
}
