//! One open file.

#[cfg(test)]
use super::trace::{Op, Traced};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Read,
    /// It must be there.
    Write,
    /// It is made if it is not there.
    Make,
    /// The same, and what it held is dropped.
    Replace,
}

/// An open file.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    #[cfg(test)]
    traced: Option<Traced>,
}

impl DiskFile {
    /// Opens a file. A new one survives a power loss once its folder is synced.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path, mode: Mode) -> io::Result<Self> {
        let mut options = File::options();
        options
            .read(true)
            .write(mode != Mode::Read)
            .create(matches!(mode, Mode::Make | Mode::Replace))
            .truncate(mode == Mode::Replace);
        #[cfg(not(test))]
        return Ok(Self { file: options.open(path)? });
        #[cfg(test)]
        {
            let (file, traced) = Traced::open(path, mode, || options.open(path))?;
            Ok(Self { file, traced })
        }
    }

    #[cfg(not(test))]
    #[inline]
    fn change(&self, change: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        change(&self.file)
    }

    #[cfg(test)]
    fn traced(
        &self,
        change: impl FnOnce(&File) -> io::Result<()>,
        op: impl FnOnce(u64) -> Op,
    ) -> io::Result<()> {
        match &self.traced {
            None => change(&self.file),
            Some(traced) => traced.note(|| change(&self.file), op),
        }
    }

    /// Length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills the buffer from `offset` on.
    ///
    /// # Errors
    /// What the file system says, also when there are too few bytes.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Writes at `offset`; durable once synced.
    ///
    /// # Errors
    /// What the file system says; part of it may be written then.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let change = |file: &File| file.write_all_at(bytes, offset);
        #[cfg(not(test))]
        return self.change(change);
        #[cfg(test)]
        self.traced(change, |inode| Op::Write { inode, offset, bytes: bytes.to_vec() })
    }

    /// Writes the slices one behind the other from `offset` on; they are used up.
    ///
    /// # Errors
    /// What the file system says; part of it may be written then.
    pub fn write_all_vectored_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        #[cfg(not(test))]
        return self.change(|file| write_vectored(file, slices, offset));
        #[cfg(test)]
        {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let op = |inode| Op::Write { inode, offset, bytes };
            self.traced(|file| write_vectored(file, slices, offset), op)
        }
    }

    /// Cuts the file off, or fills it up with zeros.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_length(&self, length: u64) -> io::Result<()> {
        let change = |file: &File| file.set_len(length);
        #[cfg(not(test))]
        return self.change(change);
        #[cfg(test)]
        self.traced(change, |inode| Op::Length { inode, length })
    }

    /// Makes sure that so many bytes have room on the disk; the file is that long then, or longer. Where
    /// the file system cannot say so, zeros are written to what is lacking.
    ///
    /// # Errors
    /// That there is no room.
    pub fn allocate(&self, length: u64) -> io::Result<()> {
        let before = self.length()?;
        let change = |file: &File| match fallocate(file, FallocateFlags::empty(), 0, length) {
            Err(Errno::OPNOTSUPP) => fill(file, before, length),
            allocated => Ok(allocated?),
        };
        #[cfg(not(test))]
        return self.change(change);
        #[cfg(test)]
        self.traced(change, |inode| Op::Length { inode, length: length.max(before) })
    }

    /// Makes what was written survive a power loss.
    ///
    /// # Errors
    /// What the file system says. What was written may be lost then, and a second try would not tell.
    pub fn sync_data(&self) -> io::Result<()> {
        #[cfg(not(test))]
        return self.change(File::sync_data);
        #[cfg(test)]
        self.traced(File::sync_data, |inode| Op::Sync { inode })
    }

    /// The same, times and other words about the file included.
    ///
    /// # Errors
    /// As [`Self::sync_data`].
    pub fn sync_all(&self) -> io::Result<()> {
        #[cfg(not(test))]
        return self.change(File::sync_all);
        #[cfg(test)]
        self.traced(File::sync_all, |inode| Op::Sync { inode })
    }
}

fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0u8; 1 << 20];
    let mut at = from;
    while at < to {
        let count = to.saturating_sub(at).min(zeros.len() as u64);
        file.write_all_at(zeros.get(..count as usize).unwrap_or_default(), at)?;
        at = at.saturating_add(count);
    }
    Ok(())
}

fn write_vectored(file: &File, mut left: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    while !left.is_empty() {
        match rustix::io::pwritev(file, left, offset) {
            Ok(0) if left.iter().all(|slice| slice.is_empty()) => break,
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset = offset.saturating_add(count as u64);
                IoSlice::advance_slices(&mut left, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
