//! A segment: one preallocated file of the journal, written front to back, later recycled.

use super::record::{HEADER_BYTES, Header, Record};
use super::{Error, Position};
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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
    pub file: File,
    pub path: PathBuf,
    /// Written since the last sync.
    pub dirty: AtomicBool,
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
    pub fn make(dir: &Path, start: u64, size: u64, recycled: Option<&Segment>) -> io::Result<Self> {
        let raw = dir.join("next.segment");
        if let Some(old) = recycled {
            fs::rename(&old.path, &raw)?;
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&raw)?;
        let made = Self::fill(&file, start, size).and_then(|()| fs::rename(&raw, Self::name(dir, start)));
        if let Err(error) = made {
            // Without this, a file that could not be allocated would go on taking the space it got.
            let _ = fs::remove_file(&raw);
            return Err(error);
        }
        // The name must survive a power loss, or the records in the file would not be found.
        File::open(dir)?.sync_all()?;
        Ok(Self { start, size, file, path: Self::name(dir, start), dirty: AtomicBool::new(false) })
    }

    fn fill(file: &File, start: u64, size: u64) -> io::Result<()> {
        // Invalid until it is whole.
        file.write_all_at(&[0; SEGMENT_HEADER_BYTES as usize], 0)?;
        let length = file.metadata()?.len();
        if length > size {
            file.set_len(size)?;
        }
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) if length >= size => {}
            Err(Errno::OPNOTSUPP) => {
                let zeros = vec![0u8; 1 << 20];
                let mut at = length;
                while at < size {
                    let count = (size - at).min(zeros.len() as u64) as usize;
                    file.write_all_at(zeros.get(..count).unwrap_or_default(), at)?;
                    at += count as u64;
                }
            }
            Err(error) => return Err(error.into()),
        }
        let mut header = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 6]);
        header.extend_from_slice(&start.to_le_bytes());
        header.extend_from_slice(&size.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        file.write_all_at(&header, 0)?;
        file.sync_all()
    }

    /// Opens a segment that an earlier start left; `None` when its header is not whole.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let file = File::options().read(true).write(true).open(path).map_err(Error::io(path, "open"))?;
        let mut header = [0u8; 36];
        if file.read_exact_at(&mut header, 0).is_err() {
            return Ok(None);
        }
        let (covered, crc) = header.split_at(32);
        if !covered.starts_with(&MAGIC) || crc != crc32fast::hash(covered).to_le_bytes() {
            return Ok(None);
        }
        let long = |from: usize| {
            covered.get(from..from + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let version = (long(8) & 0xffff) as u16;
        if version != VERSION {
            return Err(Error::Version { path: path.to_owned(), found: version });
        }
        Ok(Some(Self {
            start: long(16),
            size: long(24),
            file,
            path: path.to_owned(),
            dirty: AtomicBool::new(false),
        }))
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
            signal: header.signal,
            encoding: header.encoding,
            wire: Bytes::from(wire),
        })
    }

    pub fn sync(&self) -> io::Result<()> {
        if self.dirty.swap(false, Ordering::AcqRel) { self.file.sync_data() } else { Ok(()) }
    }

    /// All segments of a directory, oldest first.
    pub fn all(dir: &Path) -> Result<Vec<Self>, Error> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(Error::io(dir, "list"))? {
            let path = entry.map_err(Error::io(dir, "list"))?.path();
            let is_segment = path.extension().is_some_and(|extension| extension == "segment");
            if !is_segment {
                continue;
            }
            match Self::open(&path)? {
                Some(segment) if path == Self::name(dir, segment.start) => found.push(segment),
                // Cut short while it was being made: nothing was ever appended to it.
                _ => fs::remove_file(&path).map_err(Error::io(&path, "remove an unfinished segment"))?,
            }
        }
        found.sort_by_key(|segment| segment.start);
        Ok(found)
    }
}
