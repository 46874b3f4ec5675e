//! Series by the raw bytes that name them in a request.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

/// 128 bits that stand for the bytes of a name.
///
/// The bytes themselves are not kept, and so not compared: with many series they would be what most
/// of the waiting for memory is spent on. Both halves are drawn from seeds of their own at the start of the
/// process and shown to nobody, so that no sender can aim at a collision; by chance, among 2^32 names,
/// there is one in a run out of 2^65.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NameHash(pub [u64; 2]);

#[derive(Clone, Copy, Debug)]
struct Name {
    hash: NameHash,
    series: u32,
}

/// Several names may stand for one series (attributes in another order).
#[derive(Debug, Default)]
pub(super) struct Names {
    hashers: [RandomState; 2],
    lookup: HashTable<Name>,
}

impl Names {
    #[inline]
    pub fn hash(&self, head: [u64; 2], raw: &[u8]) -> NameHash {
        let [first, second] = &self.hashers;
        let of = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            for part in head {
                hasher.write_u64(part);
            }
            hasher.write(raw);
            hasher.finish()
        };
        NameHash([of(first), of(second)])
    }

    #[inline]
    pub fn find(&self, name: NameHash) -> Option<u32> {
        self.lookup.find(name.0[0], |known| known.hash == name).map(|known| known.series)
    }

    pub fn add(&mut self, name: NameHash, series: u32) {
        self.lookup.insert_unique(name.0[0], Name { hash: name, series }, |known| known.hash.0[0]);
    }

    pub fn len(&self) -> usize {
        self.lookup.len()
    }

    pub fn clear(&mut self) {
        self.lookup.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_told_apart() {
        let mut names = Names::default();
        let bytes: Vec<u8> = (0..=255).collect();
        let all = || (0..4u64).flat_map(|head| (0..=bytes.len()).map(move |length| (head, length)));
        for (number, (head, length)) in (0u32..).zip(all()) {
            let name = names.hash([head, 0], &bytes[..length]);
            assert_eq!(names.find(name), None, "{head} {length}");
            names.add(name, number);
        }
        for (number, (head, length)) in (0u32..).zip(all()) {
            assert_eq!(names.find(names.hash([head, 0], &bytes[..length])), Some(number));
        }
        assert_ne!(names.hash([0, 1], b"x"), names.hash([1, 0], b"x"));
        names.clear();
        assert_eq!(names.len(), 0);
    }

    /// Each half alone tells names apart, so that both must fail for two to meet.
    #[test]
    fn the_halves_are_independent() {
        let names = Names::default();
        let hashes: Vec<NameHash> = (0..100_000u32).map(|n| names.hash([0, 0], &n.to_le_bytes())).collect();
        for half in 0..2 {
            let mut of: Vec<u64> = hashes.iter().map(|hash| hash.0[half]).collect();
            of.sort_unstable();
            of.dedup();
            assert_eq!(of.len(), hashes.len());
        }
        assert!(hashes.iter().all(|hash| hash.0[0] != hash.0[1]));
    }
}
