//! The folder of keepsakes: what is in it, what comes and what goes.

use super::choice::{Bounds, Held, superfluous};
use super::file::{self, Requests};
use super::keepsake::{Keepsake, Quality, Route};
use crate::diagnose::decode::decode;
use crate::diagnose::rows::{Gather, Limits, Rows};
use crate::diagnose::{Config, Error, Redaction};
use crate::disk::{self, DiskFile, Mode};
use crate::limits::ShedReason;
use crate::model::{Timestamp, TraceId};
use crate::observe::{Collect, Counter, Exposition, Kind};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXTENSION: &str = "keepsake";
/// Largest file.
const FILE_BYTES: usize = 512 << 10;
/// Most rows of those that are read at one time.
const ROWS: usize = 50_000;

/// All keepsakes. One thread adds, any may read.
#[derive(Debug)]
pub struct Keepsakes {
    directory: PathBuf,
    bounds: Bounds,
    inside: Mutex<Inside>,
    kept: Counter,
    removed: Counter,
    shed: [Counter; ShedReason::ALL.len()],
}

#[derive(Debug, Default)]
struct Inside {
    held: HashMap<TraceId, Held>,
    /// Files that cannot be read, with their bytes: they go first when there is too little room.
    damaged: Vec<(PathBuf, u64)>,
}

impl Keepsakes {
    /// Opens the folder, which is made when missing. A file that is damaged is named in the log and passed over.
    ///
    /// # Errors
    /// When the folder cannot be made or listed.
    pub fn open(directory: impl Into<PathBuf>, config: &Config, now: Timestamp) -> Result<Self, Error> {
        let directory = directory.into();
        disk::make_folders(&directory).map_err(Error::file(&directory))?;
        let mut inside = Inside::default();
        for entry in fs::read_dir(&directory).map_err(Error::file(&directory))? {
            let path = entry.map_err(Error::file(&directory))?.path();
            if !is_one(&path) {
                // What was being written when the process died.
                if path.extension().is_some_and(|extension| extension == "new") {
                    let _ = disk::remove_file(&path);
                }
                continue;
            }
            let read = fs::read(&path).map_err(|error| error.to_string());
            let bytes = read.as_ref().map_or(0, |read| read.len() as u64);
            match read.and_then(|read| known(&path, &read).map(|(keepsake, _)| keepsake)) {
                Ok(keepsake) => {
                    inside.held.insert(keepsake.trace, Held { keepsake: Arc::new(keepsake), bytes });
                }
                Err(why) => inside.damage(path, bytes, &why),
            }
        }
        let bounds = Bounds {
            bytes: config.keepsake_bytes.0,
            age: config.keepsake_age.0,
            healthy: usize::try_from(config.keepsakes_per_operation).unwrap_or(usize::MAX),
        };
        let (inside, shed) = (Mutex::new(inside), Default::default());
        let (kept, removed) = (Counter::default(), Counter::default());
        let shelf = Self { directory, bounds, inside, kept, removed, shed };
        shelf.tidy(now);
        Ok(shelf)
    }

    pub(super) fn held(&self) -> Vec<Held> {
        self.inside.lock().held.values().cloned().collect()
    }

    /// How many there are, and their bytes on disk.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let inside = self.inside.lock();
        (inside.held.len() as u64, inside.bytes())
    }

    /// Notes what was not kept.
    pub(super) fn shed(&self, reason: ShedReason) {
        if let Some(counter) = self.shed.get(reason as usize) {
            counter.add(1);
        }
    }

    /// How often something was not kept for this reason.
    #[must_use]
    pub fn shed_for(&self, reason: ShedReason) -> u64 {
        self.shed.get(reason as usize).map_or(0, Counter::get)
    }

    /// Keeps a trace; when it is too large or cannot be written, that is counted.
    pub(super) fn add(&self, keepsake: Keepsake, requests: &Requests) {
        let bytes = match file::encode(&keepsake, requests) {
            Ok(bytes) if bytes.len() <= FILE_BYTES => bytes,
            Ok(_) => return self.shed(ShedReason::TooLarge),
            Err(why) => {
                tracing::debug!(trace = %keepsake.trace, why, "a trace has no form to be kept in");
                return self.shed(ShedReason::TooLarge);
            }
        };
        let path = file_of(&self.directory, keepsake.trace);
        let fresh = path.with_extension("new");
        let written = DiskFile::open(&fresh, Mode::Replace)
            .and_then(|file| {
                file.write_all_at(&bytes, 0)?;
                // Its name must not outlive its content, else it were damaged.
                file.sync_data()
            })
            .and_then(|()| disk::rename(&fresh, &path));
        if let Err(error) = written {
            tracing::warn!(file = %path.display(), %error, "a keepsake cannot be written");
            let _ = disk::remove_file(&fresh);
            return self.shed(ShedReason::Disk);
        }
        self.kept.add(1);
        let held = Held { bytes: bytes.len() as u64, keepsake: Arc::new(keepsake) };
        self.inside.lock().held.insert(held.keepsake.trace, held);
    }

    /// Removes what is too old or too much.
    pub(super) fn tidy(&self, now: Timestamp) {
        let (gone, damaged) = {
            let mut inside = self.inside.lock();
            let damaged = if inside.bytes() > self.bounds.bytes {
                std::mem::take(&mut inside.damaged)
            } else {
                Vec::new()
            };
            let held: Vec<Held> = inside.held.values().cloned().collect();
            let damaged_bytes = inside.damaged.iter().map(|(_, bytes)| bytes).sum::<u64>();
            let bounds = Bounds { bytes: self.bounds.bytes.saturating_sub(damaged_bytes), ..self.bounds };
            let gone = superfluous(&held, now, bounds);
            for trace in &gone {
                inside.held.remove(trace);
            }
            (gone, damaged)
        };
        self.removed.add(gone.len() as u64);
        let files = gone.iter().map(|trace| file_of(&self.directory, *trace));
        for path in files.chain(damaged.into_iter().map(|(path, _)| path)) {
            if let Err(error) = disk::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "a keepsake cannot be removed");
            }
        }
    }

    /// Healthy keepsakes of an operation at the top of a trace from before a moment, newest first, at most so
    /// many.
    #[must_use]
    pub fn healthy(&self, top: &Route, before: Timestamp, at_most: usize) -> Vec<Arc<Keepsake>> {
        let inside = self.inside.lock();
        let fits = |keepsake: &Keepsake| {
            keepsake.quality == Quality::Healthy && keepsake.at < before && keepsake.tops.contains(top)
        };
        let mut found: Vec<Arc<Keepsake>> = inside
            .held
            .values()
            .map(|held| held.keepsake.clone())
            .filter(|keepsake| fits(keepsake))
            .collect();
        found.sort_by_key(|keepsake| std::cmp::Reverse((keepsake.at, keepsake.trace)));
        found.truncate(at_most);
        found
    }

    /// All rows of these traces, redacted; those that are not kept, or damaged, are left out.
    #[must_use]
    pub fn rows(&self, traces: &BTreeSet<TraceId>, redaction: &Redaction) -> Rows {
        let mut all = Gather::new(Limits { spans: ROWS, log_records: ROWS, points: 0 });
        for trace in traces {
            if !self.inside.lock().held.contains_key(trace) {
                continue;
            }
            let path = file_of(&self.directory, *trace);
            let read = fs::read(&path).map_err(|error| error.to_string());
            let requests = read.and_then(|bytes| file::unpack(file::decode(&bytes)?.1));
            match requests {
                Ok(requests) => {
                    for (signal, body) in requests {
                        // It was read when it was kept.
                        let _ = decode(signal, &body, redaction, &|_| true, &mut all);
                    }
                }
                Err(why) => {
                    let mut inside = self.inside.lock();
                    if let Some(held) = inside.held.remove(trace) {
                        inside.damage(path, held.bytes, &why);
                    }
                }
            }
        }
        all.finish()
    }
}

impl Inside {
    fn damage(&mut self, path: PathBuf, bytes: u64, why: &str) {
        tracing::warn!(file = %path.display(), why, "a keepsake cannot be read and is passed over");
        self.damaged.push((path, bytes));
    }

    fn bytes(&self) -> u64 {
        let damaged = self.damaged.iter().map(|(_, bytes)| *bytes);
        self.held.values().map(|held| held.bytes).chain(damaged).fold(0, u64::saturating_add)
    }
}

fn name_of(trace: TraceId) -> String {
    format!("{trace}.{EXTENSION}")
}

fn file_of(directory: &Path, trace: TraceId) -> PathBuf {
    directory.join(name_of(trace))
}

/// Whether a file is a keepsake, by its name.
pub fn is_one(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}

/// What is known of the keepsake that a file holds, and its requests, packed.
///
/// # Errors
/// What is wrong with it.
fn known<'a>(path: &Path, bytes: &'a [u8]) -> Result<(Keepsake, &'a [u8]), String> {
    let (keepsake, packed) = file::decode(bytes)?;
    if path.file_name().is_none_or(|name| *name != *name_of(keepsake.trace)) {
        return Err("it is another trace's".to_owned());
    }
    Ok((keepsake, packed))
}

/// Reads all that a file holds.
///
/// # Errors
/// What is wrong with it.
pub fn check(path: &Path, bytes: &[u8]) -> Result<(), String> {
    file::unpack(known(path, bytes)?.1).map(drop)
}

impl Collect for Keepsakes {
    fn collect(&self, out: &mut Exposition) {
        let (count, bytes) = self.totals();
        out.single(
            "barograph_keepsakes",
            Kind::Gauge,
            "Traces kept for when the journal is gone.",
            count as f64,
        );
        out.single("barograph_keepsakes_bytes", Kind::Gauge, "Disk space of keepsakes.", bytes as f64);
        out.single(
            "barograph_keepsakes_kept_total",
            Kind::Counter,
            "Traces that became keepsakes.",
            self.kept.get() as f64,
        );
        out.single(
            "barograph_keepsakes_removed_total",
            Kind::Counter,
            "Keepsakes that made room or were too old.",
            self.removed.get() as f64,
        );
        out.by_label(
            "barograph_keepsakes_shed_total",
            "Traces, or looks at a part of the journal, that gave no keepsake.",
            "reason",
            ShedReason::ALL.iter().map(|&reason| (reason.as_str(), self.shed_for(reason))),
        );
    }
}
