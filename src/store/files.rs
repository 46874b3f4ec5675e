//! The folder of block files. A file counts only once the database names it.

use super::block;
use super::poison::Poison;
use crate::disk::{self, DiskFile, Mode};
use crate::model::WindowId;
use crate::store::{Error, Level};
use crate::window::SealedWindow;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the database holds of a block file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block {
    pub level: Level,
    /// Least and greatest id of its windows, amendments included.
    pub first: WindowId,
    pub last: WindowId,
    pub bytes: u64,
    pub crc32: u32,
}

impl Block {
    pub fn overlaps(&self, level: Level, from: WindowId, to: WindowId) -> bool {
        self.level == level && self.first < to && self.last >= from
    }
}

type Windows = Arc<Vec<Arc<SealedWindow>>>;

/// Bytes that are written to a file at once.
const WRITE_BYTES: usize = 256 << 10;

/// The end of a new file, at which more is written.
struct End<'a> {
    file: DiskFile,
    path: &'a Path,
    poison: &'a Poison,
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl io::Write for End<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Here, for whatever encodes wraps what it is told.
        self.poison.written(self.path, self.file.write_all_at(bytes, self.bytes))?;
        self.bytes += bytes.len() as u64;
        self.crc.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads and writes block files; keeps the last ones read.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    durable: bool,
    poison: Arc<Poison>,
    cache_cells: u64,
    cache: Mutex<Cache>,
    /// Files that could not be read, and why.
    damaged: Mutex<BTreeMap<PathBuf, String>>,
}

#[derive(Debug, Default)]
struct Cache {
    /// Least recently used first.
    blocks: VecDeque<(u64, Windows, u64)>,
    cells: u64,
}

impl Files {
    pub fn open(
        folder: PathBuf,
        durable: bool,
        poison: Arc<Poison>,
        cache_cells: u64,
    ) -> Result<Self, Error> {
        disk::make_folders(&folder).map_err(Error::file(&folder))?;
        Ok(Self { folder, durable, poison, cache_cells, cache: Mutex::default(), damaged: Mutex::default() })
    }

    pub fn path(&self, number: u64, level: Level) -> PathBuf {
        self.folder.join(format!("{number:012}-{}.arrow", level.as_str()))
    }

    /// Deletes what the database does not name: left by a crash between a file and its transaction.
    pub fn delete_unnamed(&self, named: &BTreeMap<u64, Block>) -> Result<u64, Error> {
        let named: BTreeSet<PathBuf> =
            named.iter().map(|(number, block)| self.path(*number, block.level)).collect();
        let mut deleted = 0;
        for entry in fs::read_dir(&self.folder).map_err(Error::file(&self.folder))? {
            let path = entry.map_err(Error::file(&self.folder))?.path();
            if path.extension().is_some_and(|extension| extension == "arrow") && !named.contains(&path) {
                disk::remove_file(&path).map_err(Error::file(&path))?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Writes a block; it is on disk when this returns, and found there after [`Self::sync_folder`].
    pub fn write(&self, number: u64, level: Level, windows: &[Arc<SealedWindow>]) -> Result<Block, Error> {
        let path = self.path(number, level);
        let written = self.write_file(&path, level, windows);
        if written.is_err() {
            let _ = disk::remove_file(&path);
        }
        let (bytes, crc32) = written.map_err(Error::file(&path))?;
        let ids = || windows.iter().map(|window| window.id);
        Ok(Block {
            level,
            first: ids().min().unwrap_or_default(),
            last: ids().max().unwrap_or_default(),
            bytes,
            crc32,
        })
    }

    /// Length and checksum of what was written.
    fn write_file(&self, path: &Path, level: Level, windows: &[Arc<SealedWindow>]) -> io::Result<(u64, u32)> {
        let poison = &*self.poison;
        // What cannot be made is made the next time: nothing was written that could be lost.
        let file = DiskFile::open(path, Mode::Replace)?;
        let end = End { file, path, poison, bytes: 0, crc: crc32fast::Hasher::new() };
        let mut to = io::BufWriter::with_capacity(WRITE_BYTES, end);
        block::write(level, windows.iter().map(|window| &**window), &mut to)?;
        let End { file, bytes, crc, .. } = to.into_inner().map_err(io::IntoInnerError::into_error)?;
        if self.durable {
            poison.synced(path, file.sync_all())?;
        }
        Ok((bytes, crc.finalize()))
    }

    /// A file's name is on disk only once its folder is.
    pub fn sync_folder(&self) -> Result<(), Error> {
        if self.durable {
            let synced = self.poison.synced(&self.folder, disk::sync_folder(&self.folder));
            synced.map_err(Error::file(&self.folder))?;
        }
        Ok(())
    }

    /// The windows of a block; none if retention deleted it meanwhile, or if it is damaged, which is
    /// reported once and can be asked for.
    pub fn read(&self, number: u64, block: &Block) -> Windows {
        if let Some(windows) = self.cache.lock().get(number) {
            return windows;
        }
        let path = self.path(number, block.level);
        let read = match fs::read(&path) {
            Ok(bytes) if crc32fast::hash(&bytes) == block.crc32 => block::read(&bytes),
            Ok(_) => Err("its checksum does not match".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(windows) => {
                let windows: Windows = Arc::new(windows.into_iter().map(Arc::new).collect());
                self.cache.lock().insert(number, &windows, self.cache_cells);
                windows
            }
            Err(what) => {
                let mut damaged = self.damaged.lock();
                damaged.entry(path).or_insert_with_key(|path| {
                    tracing::error!(path = %path.display(), what, "a block cannot be read and is passed over");
                    what
                });
                Arc::default()
            }
        }
    }

    pub fn delete(&self, number: u64, level: Level) {
        let path = self.path(number, level);
        self.cache.lock().remove(number);
        self.damaged.lock().remove(&path);
        // What stays is deleted at the next start.
        if let Err(error) = disk::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a block that is no longer needed stays for now");
        }
    }

    /// Blocks that could not be read since the start, by path, and why.
    pub fn damaged(&self) -> Vec<Error> {
        let damaged = self.damaged.lock();
        damaged.iter().map(|(path, what)| Error::Damaged { path: path.clone(), what: what.clone() }).collect()
    }
}

impl Cache {
    fn get(&mut self, number: u64) -> Option<Windows> {
        let at = self.blocks.iter().position(|&(held, ..)| held == number)?;
        let entry = self.blocks.remove(at)?;
        let windows = entry.1.clone();
        self.blocks.push_back(entry);
        Some(windows)
    }

    fn insert(&mut self, number: u64, windows: &Windows, limit: u64) {
        // A window costs something even without cells.
        let cells = windows.iter().map(|window| window.cells.len() as u64 + 1).sum();
        if cells > limit || self.blocks.iter().any(|&(held, ..)| held == number) {
            return;
        }
        self.cells += cells;
        self.blocks.push_back((number, windows.clone(), cells));
        while self.cells > limit {
            let Some((.., cells)) = self.blocks.pop_front() else { break };
            self.cells -= cells;
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some(at) = self.blocks.iter().position(|&(held, ..)| held == number)
            && let Some((.., cells)) = self.blocks.remove(at)
        {
            self.cells -= cells;
        }
    }
}
