//! A record: one request as it came, with when and where.

use super::{Error, Position};
use crate::model::{Signal, Timestamp};
use crate::otlp::Encoding;
use crate::receive::CallerTag;
use bytes::Bytes;

/// Bytes of a record's header. The wire bytes follow at once, the next record follows those.
pub(super) const HEADER_BYTES: usize = 32;
const MAGIC: u32 = 0x4f52_4142;

/// What stands before the wire bytes, little endian: magic (4), length of the wire bytes (4), crc32
/// of all that follows it (4), signal (1), encoding (1), tag of the caller (2), arrival in ns (8), position (8).
///
/// The position is what tells a record from one that an earlier life of a recycled segment left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub length: u32,
    pub crc: u32,
    pub signal: Signal,
    pub encoding: Encoding,
    pub caller: CallerTag,
    pub arrived: Timestamp,
    pub at: Position,
}

impl Header {
    /// The first bytes of every header.
    pub const MARK: &[u8] = &MAGIC.to_le_bytes();

    pub fn encode(mut self, wire: &[u8]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        let (front, rest) = bytes.split_at_mut(12);
        rest.copy_from_slice(&self.covered());
        self.crc = checksum(rest, wire);
        for (to, word) in front.chunks_exact_mut(4).zip([MAGIC, self.length, self.crc]) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The part of the header that the checksum covers.
    fn covered(&self) -> [u8; HEADER_BYTES - 12] {
        let mut bytes = [0u8; HEADER_BYTES - 12];
        let (kinds, times) = bytes.split_at_mut(4);
        let [low, high] = self.caller.0.to_le_bytes();
        kinds.copy_from_slice(&[self.signal as u8, self.encoding as u8, low, high]);
        for (to, word) in times.chunks_exact_mut(8).zip([self.arrived.0, self.at.0]) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The header at a position, or `None` where there is none that belongs there.
    pub fn decode(bytes: &[u8; HEADER_BYTES], at: Position) -> Option<Self> {
        let word = |from: usize| bytes.get(from..from + 4)?.try_into().ok().map(u32::from_le_bytes);
        let long = |from: usize| bytes.get(from..from + 8)?.try_into().ok().map(u64::from_le_bytes);
        if word(0)? != MAGIC || long(24)? != at.0 {
            return None;
        }
        let signal = match bytes.get(12)? {
            0 => Signal::Traces,
            1 => Signal::Logs,
            2 => Signal::Metrics,
            _ => return None,
        };
        let encoding = match bytes.get(13)? {
            0 => Encoding::Identity,
            1 => Encoding::Gzip,
            2 => Encoding::Zstd,
            _ => return None,
        };
        let caller = CallerTag(u16::from_le_bytes(bytes.get(14..16)?.try_into().ok()?));
        let arrived = Timestamp(long(16)?);
        Some(Self { length: word(4)?, crc: word(8)?, signal, encoding, caller, arrived, at })
    }

    pub fn matches(&self, wire: &[u8]) -> bool {
        checksum(&self.covered(), wire) == self.crc
    }

    /// Bytes of header and wire together.
    pub fn whole(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }
}

fn checksum(covered: &[u8], wire: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(covered);
    hasher.update(wire);
    hasher.finalize()
}

/// A request read back from the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub at: Position,
    pub arrived: Timestamp,
    pub signal: Signal,
    pub encoding: Encoding,
    pub caller: CallerTag,
    /// The `Export*ServiceRequest` as it came.
    pub wire: Bytes,
}

impl Record {
    /// First position after the record.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.at.0.saturating_add(HEADER_BYTES as u64).saturating_add(self.wire.len() as u64))
    }

    pub(super) fn unreadable(&self, what: impl ToString) -> Error {
        Error::Unreadable { position: self.at.0, what: what.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_damaged_byte_is_noticed(wire in prop::collection::vec(any::<u8>(), 0..100), at: u64, arrived: u64, caller: u16, damaged: prop::sample::Index, bit in 0u8..8) {
            let header = Header {
                length: wire.len() as u32, crc: 0, signal: Signal::Logs, encoding: Encoding::Zstd,
                caller: CallerTag(caller), arrived: Timestamp(arrived), at: Position(at),
            };
            let mut bytes = header.encode(&wire).to_vec();
            bytes.extend(&wire);
            let read = |bytes: &[u8]| {
                let header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap(), Position(at))?;
                let wire = bytes.get(HEADER_BYTES..header.whole() as usize)?;
                header.matches(wire).then_some((header, wire.to_vec()))
            };
            let (found, found_wire) = read(&bytes).unwrap();
            prop_assert_eq!((Header { crc: 0, ..found }, found_wire), (header, wire));
            bytes[damaged.index(header.whole() as usize)] ^= 1 << bit;
            prop_assert_eq!(read(&bytes), None);
        }
    }
}
