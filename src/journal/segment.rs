//! A segment: one preallocated file of the journal, written front to back, later recycled.

use super::record::{HEADER_BYTES, Header, Record};
use super::{Error, Position};
use crate::disk::{self, DiskFile, Mode};
use bytes::Bytes;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of a segment's header: magic (8), version (2), zero (6), start position (8), size (8), crc32
/// of those (4), zero.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 64;
const MAGIC: [u8; 8] = *b"barojrnl";
const VERSION: u16 = 1;

#[derive(Debug)]
pub(super) struct Segment {
    /// Position of the file's first byte.
    pub start: u64,
    pub size: u64,
    pub file: DiskFile,
    pub path: PathBuf,
    /// Written since the last sync.
    pub dirty: AtomicBool,
    /// Where its last record ends, once that is known; until then `u64::MAX`.
    pub used: AtomicU64,
    /// Its header was damaged when it was opened: what it said follows from the file's name and length.
    pub is_headless: bool,
}

/// What a file turns out to be.
enum Opened {
    Whole(Segment),
    /// A segment that was used, whose header cannot be read.
    Headless(Segment),
    /// Nothing was ever appended to it.
    Unfinished,
}

/// Why a segment was not made.
#[derive(Debug)]
pub(super) enum Unmade {
    /// The disk is full, or the like.
    Refused(io::Error),
    /// The folder could not be synced: a second try would succeed, whatever became of the first.
    Unsynced(io::Error),
}

impl From<io::Error> for Unmade {
    fn from(error: io::Error) -> Self {
        Self::Refused(error)
    }
}

impl Segment {
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Position of the first record.
    pub fn first(&self) -> u64 {
        self.start.saturating_add(SEGMENT_HEADER_BYTES)
    }

    fn name(dir: &Path, start: u64) -> PathBuf {
        dir.join(format!("{start:020}.segment"))
    }

    /// Makes a segment in a new file or in that of a segment which is no longer needed.
    ///
    /// # Errors
    /// [`Unmade::Refused`] leaves nothing behind and may be tried again; [`Unmade::Unsynced`] must not be.
    pub fn make(dir: &Path, start: u64, size: u64, recycled: Option<&Segment>) -> Result<Self, Unmade> {
        let raw = dir.join("next.segment");
        if let Some(old) = recycled {
            disk::rename(&old.path, &raw)?;
        }
        let file = DiskFile::open(&raw, Mode::Make)?;
        let made = Self::fill(&file, start, size).and_then(|()| disk::rename(&raw, &Self::name(dir, start)));
        if let Err(error) = made {
            // Without this, a file that could not be allocated would go on taking the space it got.
            let _ = disk::remove_file(&raw);
            return Err(error.into());
        }
        // The name must survive a power loss, or the records in the file would not be found.
        disk::sync_folder(dir).map_err(Unmade::Unsynced)?;
        Ok(Self::of(start, size, file, Self::name(dir, start)))
    }

    fn of(start: u64, size: u64, file: DiskFile, path: PathBuf) -> Self {
        let (dirty, used) = (AtomicBool::new(false), AtomicU64::new(u64::MAX));
        Self { start, size, file, path, dirty, used, is_headless: false }
    }

    /// Whether the file is still this segment, and not recycled for another.
    pub fn is_current(&self) -> bool {
        let mut bytes = [0u8; SEGMENT_HEADER_BYTES as usize];
        let is_read = self.file.read_exact_at(&mut bytes, 0).is_ok();
        let start = bytes.get(16..24).and_then(|start| start.try_into().ok()).map(u64::from_le_bytes);
        is_read && (self.is_headless || start == Some(self.start))
    }

    fn fill(file: &DiskFile, start: u64, size: u64) -> io::Result<()> {
        // Invalid until it is whole.
        file.write_all_at(&[0; SEGMENT_HEADER_BYTES as usize], 0)?;
        if file.length()? > size {
            file.set_length(size)?;
        }
        file.allocate(size)?;
        Self::write_header(file, start, size)?;
        file.sync_all()
    }

    fn write_header(file: &DiskFile, start: u64, size: u64) -> io::Result<()> {
        let mut header = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 6]);
        header.extend_from_slice(&start.to_le_bytes());
        header.extend_from_slice(&size.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        file.write_all_at(&header, 0)
    }

    /// Opens a file that an earlier start left.
    fn open(path: &Path) -> Result<Opened, Error> {
        let file = DiskFile::open(path, Mode::Read).map_err(Error::io(path, "open"))?;
        let mut header = [0u8; 36];
        let is_read = file.read_exact_at(&mut header, 0).is_ok();
        let (covered, crc) = header.split_at(32);
        if !is_read || !covered.starts_with(&MAGIC) || crc != crc32fast::hash(covered).to_le_bytes() {
            // A file gets its number only once its header is whole.
            let named = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            let Some(start) = named else { return Ok(Opened::Unfinished) };
            let size = file.length().map_err(Error::io(path, "measure"))?;
            let segment = Self { is_headless: true, ..Self::of(start, size, file, path.to_owned()) };
            let is_used = segment.next_whole(segment.first(), segment.end()).is_some();
            return Ok(if is_used { Opened::Headless(segment) } else { Opened::Unfinished });
        }
        let long = |from: usize| {
            covered.get(from..from + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let version = (long(8) & 0xffff) as u16;
        if version != VERSION {
            return Err(Error::Version { path: path.to_owned(), found: version });
        }
        Ok(Opened::Whole(Self::of(long(16), long(24), file, path.to_owned())))
    }

    /// The header at a position of this segment, `None` where no record begins.
    pub fn header(&self, at: u64) -> Option<Header> {
        let offset = at.checked_sub(self.start)?;
        if offset < SEGMENT_HEADER_BYTES || offset.checked_add(HEADER_BYTES as u64)? > self.size {
            return None;
        }
        let mut bytes = [0u8; HEADER_BYTES];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        let header = Header::decode(&bytes, Position(at))?;
        (offset.checked_add(header.whole())? <= self.size).then_some(header)
    }

    /// The record of a header, `None` when its checksum does not fit.
    pub fn record(&self, header: &Header) -> Option<Record> {
        let offset = header.at.0.checked_sub(self.start)?.checked_add(HEADER_BYTES as u64)?;
        let mut wire = vec![0u8; header.length as usize];
        self.file.read_exact_at(&mut wire, offset).ok()?;
        header.matches(&wire).then(|| Record {
            at: header.at,
            arrived: header.arrived,
            caller: header.caller,
            signal: header.signal,
            encoding: header.encoding,
            wire: Bytes::from(wire),
        })
    }

    pub fn sync(&self) -> io::Result<()> {
        if self.dirty.swap(false, Ordering::AcqRel) { self.file.sync_data() } else { Ok(()) }
    }

    /// All segments of a directory, oldest first, ready to be written to. Headers that are damaged are
    /// written anew, files that were not finished removed.
    pub fn all(dir: &Path) -> Result<Vec<Self>, Error> {
        let mut writable = Vec::new();
        let (found, unfinished) = Self::look(dir)?;
        for path in unfinished {
            disk::remove_file(&path).map_err(Error::io(&path, "remove an unfinished segment"))?;
        }
        for mut segment in found {
            let path = segment.path.clone();
            segment.file = DiskFile::open(&path, Mode::Write).map_err(Error::io(&path, "open"))?;
            if std::mem::take(&mut segment.is_headless) {
                tracing::error!(file = %path.display(), "the header of a segment was damaged: it is written anew");
                Self::write_header(&segment.file, segment.start, segment.size)
                    .and_then(|()| segment.file.sync_all())
                    .map_err(Error::io(&path, "write the header of"))?;
            }
            writable.push(segment);
        }
        Ok(writable)
    }

    /// All segments of a directory, oldest first, and the files that were never finished; changes nothing.
    pub fn look(dir: &Path) -> Result<(Vec<Self>, Vec<PathBuf>), Error> {
        let (mut found, mut unfinished) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
            let path = entry.map_err(Error::io(dir, "list"))?.path();
            let is_segment = path.extension().is_some_and(|extension| extension == "segment");
            if !is_segment {
                continue;
            }
            match Self::open(&path)? {
                Opened::Whole(segment) | Opened::Headless(segment)
                    if path == Self::name(dir, segment.start) =>
                {
                    found.push(segment);
                }
                // Cut short while it was being made: nothing was ever appended to it.
                _ => unfinished.push(path),
            }
        }
        found.sort_by_key(|segment| segment.start);
        Ok((found, unfinished))
    }
}
