//! Buckets and their counts in little space: one byte for most, where 16 would be needed in a list.
//!
//! Ascending buckets, each a byte of two small numbers: how far from the bucket before, less one
//! (three bits), and how many, less one (five bits). The largest of each means that what goes beyond
//! follows as a varint. Equal lists have equal bytes.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;
use std::iter::Peekable;

/// Largest number in the three and five bits; it stands for itself and more.
const GAP: u64 = 7;
const COUNT: u64 = 31;

/// Sorted by bucket, no bucket twice, no count of zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Buckets {
    bytes: Vec<u8>,
}

/// Memory in which a list is put together.
#[derive(Debug, Default)]
struct Writer {
    /// Most lists fit onto the stack, so that adding to one takes no memory.
    bytes: SmallVec<[u8; 256]>,
    last: Option<i32>,
}

impl Writer {
    /// Buckets must ascend.
    #[inline]
    fn push(&mut self, bucket: i32, count: u64) {
        // The first is counted from the smallest bucket there can be.
        let before = self.last.map_or(i64::from(i32::MIN) - 1, i64::from);
        let gap = (i64::from(bucket) - before - 1) as u64;
        let count = count.saturating_sub(1);
        self.last = Some(bucket);
        self.bytes.push((gap.min(GAP) << 5 | count.min(COUNT)) as u8);
        if gap >= GAP {
            self.varint(gap - GAP);
        }
        if count >= COUNT {
            self.varint(count - COUNT);
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn finish(self) -> Buckets {
        Buckets { bytes: self.bytes.to_vec() }
    }
}

/// Ascending buckets and their counts.
#[derive(Clone, Debug)]
pub(super) struct Iter<'a> {
    bytes: std::slice::Iter<'a, u8>,
    before: i64,
}

impl Iter<'_> {
    /// Whether the rest is what a [`Writer`] makes: complete, and no bucket beyond the largest there is.
    fn ascends(&mut self) -> bool {
        while let Some(&head) = self.bytes.as_slice().first() {
            let varints =
                usize::from(u64::from(head) >> 5 == GAP) + usize::from(u64::from(head) & COUNT == COUNT);
            let mut rest = self.bytes.as_slice().iter().skip(1);
            if (0..varints).any(|_| !rest.by_ref().take(10).any(|&byte| byte < 0x80)) {
                return false;
            }
            let before = self.before;
            if self.next().is_none() || self.before <= before || self.before > i64::from(i32::MAX) {
                return false;
            }
        }
        true
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Some(value)
    }
}

impl Iterator for Iter<'_> {
    type Item = (i32, u64);

    #[inline]
    fn next(&mut self) -> Option<(i32, u64)> {
        let head = u64::from(*self.bytes.next()?);
        let (mut gap, mut count) = (head >> 5, head & COUNT);
        if gap == GAP {
            gap = gap.saturating_add(self.varint()?);
        }
        if count == COUNT {
            count = count.saturating_add(self.varint()?);
        }
        self.before = self.before.saturating_add_unsigned(gap.saturating_add(1));
        Some((self.before as i32, count.saturating_add(1)))
    }
}

impl Buckets {
    /// Of a list that ascends and has no zero counts.
    pub fn of(sorted: impl Iterator<Item = (i32, u64)>) -> Self {
        let mut writer = Writer::default();
        sorted.for_each(|(bucket, count)| writer.push(bucket, count));
        writer.finish()
    }

    pub fn iter(&self) -> Iter<'_> {
        Iter { bytes: self.bytes.iter(), before: i64::from(i32::MIN) - 1 }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sum of all counts.
    pub fn count(&self) -> u64 {
        self.iter().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Memory it takes beside itself.
    pub fn size_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Each bucket halved `shift` times, counts added up where several become one.
    pub fn coarser(&self, shift: i8) -> Self {
        let shift = shift.clamp(0, 31);
        let mut writer = Writer::default();
        let mut fine = self.iter().map(|(bucket, count)| (bucket >> shift, count)).peekable();
        while let Some((bucket, mut count)) = fine.next() {
            while let Some((_, more)) = fine.next_if(|&(next, _)| next == bucket) {
                count = count.saturating_add(more);
            }
            writer.push(bucket, count);
        }
        writer.finish()
    }

    /// Adds counts, ascending by bucket.
    pub fn add(&mut self, other: impl Iterator<Item = (i32, u64)>) {
        let mut other = other.peekable();
        if other.peek().is_none() {
            return;
        }
        let mut writer = Writer::default();
        merge(self.iter().peekable(), other, |bucket, count| writer.push(bucket, count));
        self.bytes.clear();
        if self.bytes.capacity() < writer.bytes.len() {
            // A little more than is needed now: there are many of these, and most grow no further.
            self.bytes.reserve_exact(writer.bytes.len() + writer.bytes.len() / 8);
        }
        self.bytes.extend_from_slice(&writer.bytes);
    }

    /// Takes counts away; `None` when something is missing of them.
    pub fn subtract(&mut self, other: &Self) -> Option<()> {
        let mut writer = Writer::default();
        let mut other = other.iter().peekable();
        for (bucket, count) in self.iter() {
            let less = other.next_if(|&(next, _)| next == bucket).map_or(0, |(_, less)| less);
            let left = count.checked_sub(less)?;
            if left > 0 {
                writer.push(bucket, left);
            }
        }
        if other.peek().is_some() {
            return None;
        }
        *self = writer.finish();
        Some(())
    }
}

/// As the bytes that they are.
impl Serialize for Buckets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Buckets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Written)
    }
}

/// Reads what was written; formats without bytes of their own give a list of numbers.
struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Buckets;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("packed buckets")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Buckets, E> {
        let read = Buckets { bytes: bytes.to_vec() };
        if read.iter().ascends() { Ok(read) } else { Err(E::custom("packed buckets that do not ascend")) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Buckets, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}

/// Two ascending lists as one, counts of equal buckets added up.
#[inline]
fn merge(
    mut a: Peekable<impl Iterator<Item = (i32, u64)>>,
    mut b: Peekable<impl Iterator<Item = (i32, u64)>>,
    mut each: impl FnMut(i32, u64),
) {
    loop {
        match (a.peek().copied(), b.peek().copied()) {
            (Some(x), Some(y)) if x.0 == y.0 => {
                each(x.0, x.1.saturating_add(y.1));
                a.next();
                b.next();
            }
            (Some(x), Some(y)) if x.0 < y.0 => {
                each(x.0, x.1);
                a.next();
            }
            (_, Some(y)) => {
                each(y.0, y.1);
                b.next();
            }
            (Some(x), None) => {
                each(x.0, x.1);
                a.next();
            }
            (None, None) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn list() -> impl Strategy<Value = BTreeMap<i32, u64>> {
        let bucket = prop_oneof![-20i32..20, 400i32..900, any::<i32>()];
        let count = prop_oneof![1u64..40, Just(u64::MAX), 1u64..];
        prop::collection::btree_map(bucket, count, 0..60)
    }

    fn packed(of: &BTreeMap<i32, u64>) -> Buckets {
        Buckets::of(of.iter().map(|(&bucket, &count)| (bucket, count)).collect::<Vec<_>>().into_iter())
    }

    proptest! {
        #[test]
        fn a_list_comes_out_as_it_went_in(of in list()) {
            let written = packed(&of);
            prop_assert!(written.iter().eq(of));
            let bytes = postcard::to_stdvec(&written).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<Buckets>(&bytes).unwrap(), &written);
            let json = serde_json::to_string(&written).unwrap();
            prop_assert_eq!(serde_json::from_str::<Buckets>(&json).unwrap(), written);
        }

        #[test]
        fn whatever_is_read_ascends(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let written = postcard::to_stdvec(&Buckets { bytes }).unwrap();
            if let Ok(read) = postcard::from_bytes::<Buckets>(&written) {
                let buckets: Vec<i32> = read.iter().map(|(bucket, _)| bucket).collect();
                prop_assert!(buckets.is_sorted_by(|a, b| a < b));
                // All of it was read.
                prop_assert_eq!(Buckets::of(read.iter()).iter().count(), buckets.len());
            }
        }

        #[test]
        fn sums_and_differences_are_those_of_maps(a in list(), b in list()) {
            let mut sum = a.clone();
            for (&bucket, &count) in &b {
                let here = sum.entry(bucket).or_default();
                *here = here.saturating_add(count);
            }
            let mut packed_sum = packed(&a);
            packed_sum.add(packed(&b).iter());
            prop_assert_eq!(&packed_sum, &packed(&sum));
            if sum.values().all(|&count| count < u64::MAX) {
                prop_assert!(packed_sum.subtract(&packed(&b)).is_some());
                prop_assert_eq!(packed_sum, packed(&a));
            }
        }

        #[test]
        fn coarser_is_what_shifting_each_makes(of in list(), shift in 0i8..10) {
            let mut expected: BTreeMap<i32, u64> = BTreeMap::new();
            for (&bucket, &count) in &of {
                let here = expected.entry(bucket >> shift).or_default();
                *here = here.saturating_add(count);
            }
            prop_assert_eq!(packed(&of).coarser(shift), packed(&expected));
        }
    }
}
