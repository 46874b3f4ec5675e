//! Counts of neighbouring slots of time in few bytes.
//!
//! Each total is kept as what it exceeds the smallest one by, beside it what some of the events were, or what
//! they lacked to all, whichever takes fewer bits; all numbers of a block have the same width. Steady traffic
//! of which nearly everything is good so takes about a byte a slot.

use serde::{Deserialize, Serialize};

/// Slots that lie in one block.
pub(super) const SLOTS: u64 = 128;

/// Count of slots − 1, width of the totals, width of the other number and [`LACKING`], the smallest total as
/// a variable-length integer; then the numbers of each slot, lowest bit first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packed(Box<[u8]>);

/// The other number is what `some` lacks to the total.
const LACKING: u8 = 0x80;

impl Packed {
    /// Of at most [`SLOTS`] slots, each `(some, total)`; those behind are not taken.
    pub fn of(slots: &[(u64, u64)]) -> Self {
        let slots = slots.get(..SLOTS as usize).unwrap_or(slots);
        let least = slots.iter().map(|(_, total)| *total).min().unwrap_or(0);
        let (mut over, mut some_or, mut lacking) = (0, 0, 0);
        let mut never_more = true;
        for &(some, total) in slots {
            over |= total - least;
            some_or |= some;
            lacking |= total.saturating_sub(some);
            never_more &= some <= total;
        }
        let is_lacking = never_more && width(lacking) < width(some_or);
        let (total_width, other_width) = (width(over), width(if is_lacking { lacking } else { some_or }));
        let last = u8::try_from(slots.len().saturating_sub(1)).unwrap_or(u8::MAX);
        let mut bytes = vec![last, total_width, other_width | if is_lacking { LACKING } else { 0 }];
        let mut rest = least;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        let (mut held, mut count) = (0u128, 0u32);
        for &(some, total) in slots {
            let other = if is_lacking { total - some } else { some };
            for (value, width) in [(total - least, total_width), (other, other_width)] {
                held |= u128::from(value) << count;
                count += u32::from(width);
                while count >= 8 {
                    bytes.push(held as u8);
                    (held, count) = (held >> 8, count - 8);
                }
            }
        }
        if count > 0 {
            bytes.push(held as u8);
        }
        Self(bytes.into())
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub const fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `(some, total)` of each slot. Of bytes that [`Self::of`] did not make, anything.
    pub fn slots(&self) -> Slots<'_> {
        let Some(Layout { count, least, is_lacking, total_width, other_width, bytes }) = self.layout() else {
            return Slots::default();
        };
        let bits = Bits { bytes, held: 0, count: 0 };
        Slots { left: count, least, is_lacking, total_width, other_width, bits }
    }

    /// Sums of `some` and of `total` over the slots from one on and before another; they wrap.
    pub fn sum(&self, from: u16, to: u16) -> (u64, u64) {
        let Some(Layout { count, least, is_lacking, total_width, other_width, bytes }) = self.layout() else {
            return (0, 0);
        };
        let to = to.min(count);
        let width = total_width + other_width;
        if width > WITHIN_A_WORD {
            let slots = self.slots().take(usize::from(to)).skip(usize::from(from));
            return slots
                .fold((0u64, 0u64), |sum, slot| (sum.0.wrapping_add(slot.0), sum.1.wrapping_add(slot.1)));
        }
        let (total_mask, other_mask) = ((1u64 << total_width) - 1, (1u64 << other_width) - 1);
        let (mut over, mut other) = (0u64, 0u64);
        for slot in from..to {
            let bit = u32::from(slot) * width;
            let held = word_at(bytes, bit as usize / 8) >> (bit % 8);
            over = over.wrapping_add(held & total_mask);
            other = other.wrapping_add(held >> total_width & other_mask);
        }
        let total = over.wrapping_add(least.wrapping_mul(u64::from(to.saturating_sub(from))));
        (if is_lacking { total.wrapping_sub(other) } else { other }, total)
    }

    fn layout(&self) -> Option<Layout<'_>> {
        let (head, mut bytes) = self.0.split_at_checked(3)?;
        let &[last, total_width, other] = head else { return None };
        let (mut least, mut shift) = (0u64, 0u32);
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            least |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift = shift.saturating_add(7);
            if byte < 0x80 {
                break;
            }
        }
        Some(Layout {
            count: u16::from(last) + 1,
            least,
            is_lacking: other & LACKING != 0,
            total_width: u32::from(total_width).min(64),
            other_width: u32::from(other & !LACKING).min(64),
            bytes,
        })
    }
}

/// How the numbers of a block lie.
struct Layout<'a> {
    count: u16,
    least: u64,
    is_lacking: bool,
    total_width: u32,
    other_width: u32,
    bytes: &'a [u8],
}

/// Numbers of as many bits lie within eight bytes wherever in the first of them they begin.
const WITHIN_A_WORD: u32 = 57;

/// Eight bytes from a place on; zeros behind the end.
#[inline]
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Bits that the number needs.
const fn width(value: u64) -> u8 {
    (64 - value.leading_zeros()) as u8
}

#[derive(Clone, Debug, Default)]
pub(super) struct Slots<'a> {
    left: u16,
    least: u64,
    is_lacking: bool,
    total_width: u32,
    other_width: u32,
    bits: Bits<'a>,
}

impl Iterator for Slots<'_> {
    type Item = (u64, u64);

    #[inline]
    fn next(&mut self) -> Option<(u64, u64)> {
        self.left = self.left.checked_sub(1)?;
        let total = self.least.wrapping_add(self.bits.take(self.total_width));
        let other = self.bits.take(self.other_width);
        Some((if self.is_lacking { total.saturating_sub(other) } else { other }, total))
    }
}

/// Reads numbers of any width; zeros behind the end.
#[derive(Clone, Debug, Default)]
struct Bits<'a> {
    bytes: &'a [u8],
    held: u128,
    count: u32,
}

impl Bits<'_> {
    #[inline]
    fn take(&mut self, width: u32) -> u64 {
        if self.count < width {
            let word = word_at(self.bytes, 0);
            self.bytes = self.bytes.get(8..).unwrap_or_default();
            self.held |= u128::from(word) << self.count;
            self.count += 64;
        }
        let mask = if width >= 64 { u64::MAX } else { (1 << width) - 1 };
        let value = self.held as u64 & mask;
        self.held >>= width;
        self.count -= width;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_packed_is_had_back(
            slots in prop::collection::vec((any::<u64>(), any::<u64>(), 0u32..64, any::<bool>()), 1..=128),
        ) {
            let slots: Vec<(u64, u64)> = slots
                .into_iter()
                .map(|(some, total, shift, within)| {
                    let total = total >> shift;
                    (if within { some.checked_rem(total).unwrap_or(0) } else { some >> shift }, total)
                })
                .collect();
            prop_assert_eq!(Packed::of(&slots).slots().collect::<Vec<_>>(), slots);
        }

        #[test]
        fn sums_are_those_of_the_slots(
            slots in prop::collection::vec((0u64..40, 0u64..40), 1..=128),
            shift in 0u32..58,
            from in 0u16..140,
            length in 0u16..140,
        ) {
            let slots: Vec<(u64, u64)> = slots
                .into_iter()
                .map(|(some, more)| (some << shift, (some << shift).wrapping_add(more << shift)))
                .collect();
            let asked = slots.iter().skip(usize::from(from)).take(usize::from(length));
            let expected = asked.fold((0u64, 0u64), |sum, slot| {
                (sum.0.wrapping_add(slot.0), sum.1.wrapping_add(slot.1))
            });
            prop_assert_eq!(Packed::of(&slots).sum(from, from + length), expected);
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let packed = Packed::from_bytes(&bytes);
            prop_assert!(packed.slots().count() <= 256);
            packed.sum(3, 300);
        }
    }

    #[test]
    fn steady_traffic_takes_about_a_byte_a_slot() {
        let mut random = fastrand::Rng::with_seed(1);
        // Ten requests a second in slots of a minute; nearly all are good.
        let slots: Vec<(u64, u64)> = (0..SLOTS)
            .map(|_| {
                let total = 560 + random.u64(0..80);
                (total - u64::from(random.u8(0..10) == 0), total)
            })
            .collect();
        assert!(Packed::of(&slots).bytes().len() <= 134, "{}", Packed::of(&slots).bytes().len());
        let nothing_failed: Vec<(u64, u64)> = slots.iter().map(|&(_, total)| (total, total)).collect();
        assert!(Packed::of(&nothing_failed).bytes().len() <= 118);
    }
}
