//! Equality of short byte strings.

/// As `a == b`, for names of a few dozen bytes: a call of the C library costs more than comparing them.
#[inline(always)]
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (Some(last_a), Some(last_b)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        return a.iter().zip(b).all(|(a, b)| a == b);
    };
    // The last eight bytes overlap what was looked at already.
    let differs = a
        .as_chunks::<8>()
        .0
        .iter()
        .zip(b.as_chunks::<8>().0)
        .fold(0u64, |bits, (a, b)| bits | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)));
    differs | (u64::from_ne_bytes(*last_a) ^ u64::from_ne_bytes(*last_b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_equality(a in prop::collection::vec(any::<u8>(), 0..40), flip in prop::option::of(any::<prop::sample::Index>()), cut: bool) {
            let mut b = a.clone();
            if let Some(flip) = flip && !b.is_empty() {
                let at = flip.index(b.len());
                b[at] ^= 1;
            }
            if cut {
                b.pop();
            }
            prop_assert_eq!(equal(&a, &b), a == b);
        }
    }
}
