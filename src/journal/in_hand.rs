//! Records that kill the process.
//!
//! While the journal is replayed, the position of the record in hand stands in a small file, with how many
//! starts in a row ended at it. The kernel keeps what was written there when the process dies. A record at
//! which three starts ended is left out and kept aside; kills at random do not meet one record three times
//! running. Between records, when a second is sealed and judged, none is in hand.

use super::{Position, Record};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Starts in a row that may end at one record.
const STARTS: u64 = 3;
/// Records kept aside at most.
const KEPT: usize = 100;

/// The record in hand, over starts.
#[derive(Debug)]
pub(super) struct InHand {
    dir: PathBuf,
    path: PathBuf,
    /// Made with the first record.
    file: Option<File>,
    /// At which record the last start ended, and how many starts before it in a row did.
    before: Option<(u64, u64)>,
    /// Whether a record is noted.
    is_taken: bool,
}

impl InHand {
    pub fn open(dir: &Path) -> Self {
        let path = dir.join("in-hand");
        let before = fs::read(&path).ok().and_then(|bytes| {
            let number = u128::from_le_bytes(bytes.try_into().ok()?);
            Some((number as u64, (number >> 64) as u64))
        });
        Self { dir: dir.to_owned(), path, file: None, before, is_taken: false }
    }

    /// Records that are kept aside.
    pub fn kept(&self) -> u64 {
        fs::read_dir(self.dir.join("quarantine")).map_or(0, |entries| entries.count() as u64)
    }

    /// Notes that a record is in hand. `false`: it is not to be taken, three starts have ended at it.
    pub fn take(&mut self, record: &Record) -> bool {
        let starts = match self.before {
            Some((at, starts)) if at == record.at.0 => starts,
            _ => 0,
        };
        if starts >= STARTS {
            self.keep_aside(record);
            return false;
        }
        if self.file.is_none() {
            self.file = File::options().write(true).create(true).truncate(false).open(&self.path).ok();
        }
        self.note(u128::from(record.at.0) | u128::from(starts + 1) << 64);
        self.is_taken = true;
        true
    }

    /// Notes that no record is in hand: what all of a second bring together is judged, and if that kills, no single
    /// one of them is known to be at fault.
    pub fn put_down(&mut self) {
        if std::mem::take(&mut self.is_taken) {
            self.note(0);
        }
    }

    fn note(&self, number: u128) {
        // When this fails, a record that kills is met again: no worse than without.
        let _ = self.file.as_ref().map(|file| file.write_all_at(&number.to_le_bytes(), 0));
    }

    fn keep_aside(&self, record: &Record) {
        let folder = self.dir.join("quarantine");
        let path = folder.join(format!("{:020}.{}", record.at.0, record.signal.as_str()));
        let kept = fs::create_dir_all(&folder)
            .and_then(|()| Ok(fs::read_dir(&folder)?.count()))
            .and_then(|count| if count < KEPT { fs::write(&path, &record.wire) } else { Ok(()) });
        let Position(position) = record.at;
        match kept {
            Ok(()) => tracing::error!(
                position,
                file = %path.display(),
                "three starts in a row ended at this record: it is left out and kept aside"
            ),
            Err(error) => tracing::error!(
                position,
                %error,
                "three starts in a row ended at this record: it is left out, and could not be kept aside"
            ),
        }
    }

    /// The replay is through.
    pub fn end(self) {
        let _ = fs::remove_file(&self.path);
    }
}
