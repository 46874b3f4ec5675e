//! Damage: where it is, and where the next readable record stands behind it.

use super::Position;
use super::record::{HEADER_BYTES, Header};
use super::segment::Segment;
use std::fmt;
use std::path::PathBuf;

/// Bytes looked through at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A part of a segment that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    /// Bytes of the file.
    pub offset: u64,
    pub bytes: u64,
    /// The position that the offset stands for.
    pub at: Position,
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.offset.saturating_add(self.bytes);
        write!(
            out,
            "{}: {} in bytes {} to {end} (position {})",
            self.file.display(),
            self.what,
            self.offset,
            self.at.0
        )
    }
}

impl Segment {
    /// Records that cannot be read between two positions of this segment.
    pub(super) fn damage(&self, from: u64, to: u64) -> Damage {
        Damage {
            file: self.path.clone(),
            offset: from.saturating_sub(self.start),
            bytes: to.saturating_sub(from),
            at: Position(from),
            what: "no readable record",
        }
    }

    /// Position of the first whole record from `from` on that begins before `limit`. A record is known by
    /// its mark, its position and its checksum, so nothing that an earlier life of the file left is taken
    /// for one.
    pub(super) fn next_whole(&self, from: u64, limit: u64) -> Option<u64> {
        let finder = memchr::memmem::Finder::new(Header::MARK);
        let mut at = from.max(self.first());
        // A file that was cut off is shorter than its header says, and may be damaged before its end too.
        let held = self.file.length().map_or(self.end(), |bytes| self.start.saturating_add(bytes));
        let end = self.end().min(held);
        let limit = limit.min(end);
        let mut chunk = vec![0u8; CHUNK_BYTES];
        while at < limit {
            let offset = at.checked_sub(self.start)?;
            let wanted =
                usize::try_from(end.saturating_sub(at)).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let part = chunk.get_mut(..wanted)?;
            self.file.read_exact_at(part, offset).ok()?;
            for place in finder.find_iter(part) {
                let candidate = at.saturating_add(place as u64);
                if candidate >= limit {
                    return None;
                }
                if self.whole(candidate) {
                    return Some(candidate);
                }
            }
            // A mark may lie across the edge.
            let passed = wanted.saturating_sub(Header::MARK.len() - 1).max(1);
            at = at.saturating_add(passed as u64);
            if wanted < HEADER_BYTES {
                return None;
            }
        }
        None
    }

    fn whole(&self, at: u64) -> bool {
        self.header(at).is_some_and(|header| self.record(&header).is_some())
    }

    /// Where to go on behind a record whose checksum does not fit: where it ends if a record stands there,
    /// else at the first that is found.
    pub(super) fn after_damaged(&self, header: &Header, limit: u64) -> Option<u64> {
        let end = header.at.0.saturating_add(header.whole());
        if end < limit && self.whole(end) {
            return Some(end);
        }
        self.next_whole(header.at.0.saturating_add(1), limit)
    }
}
