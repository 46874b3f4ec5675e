//! Crash images: what a disk may hold after a power loss.

use super::Trace;
use super::trace::{Op, take_below};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Naming {
    Is(PathBuf, u64),
    Moved(PathBuf, PathBuf),
    Exchanged(PathBuf, PathBuf),
    Gone(PathBuf),
    Folder(PathBuf),
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<PathBuf, u64>,
    folders: BTreeMap<PathBuf, ()>,
}

/// A disk that forgets, as a trace was played on it.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    ops: std::vec::IntoIter<Op>,
    played: usize,
    files: BTreeMap<u64, Content>,
    names: Names,
    /// By folder, in order.
    unsynced_names: BTreeMap<PathBuf, Vec<Naming>>,
}

/// A crash image in a folder of its own.
#[derive(Debug)]
pub struct Image {
    pub folder: tempfile::TempDir,
    /// How much had been done when the power failed.
    pub at: usize,
}

/// How many crash images a test looks at: `$BAROGRAPH_CRASH_IMAGES`, else 1,000.
#[must_use]
pub fn wanted() -> usize {
    std::env::var("BAROGRAPH_CRASH_IMAGES").ok().and_then(|images| images.parse().ok()).unwrap_or(1_000)
}

/// What becomes of unsynced changes.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Kept,
    /// Kept in order up to somewhere within one of them.
    Torn,
    /// Each sector for itself.
    Reordered,
}

impl Disk {
    /// # Panics
    /// If something is still done under the trace.
    #[must_use]
    pub fn new(trace: &Trace) -> Self {
        let root = trace.root().to_owned();
        Self {
            names: Names { folders: [(root.clone(), ())].into(), ..Names::default() },
            root,
            ops: trace.ops().into_iter(),
            played: 0,
            files: BTreeMap::new(),
            unsynced_names: BTreeMap::new(),
        }
    }

    /// So many crash images at moments drawn by chance, in the order of the moments.
    pub fn images(&mut self, count: usize, random: &mut Rng, mut each: impl FnMut(Image, &mut Rng)) {
        let mut moments: Vec<usize> = (0..count).map(|_| random.usize(0..=self.ops.len())).collect();
        moments.sort_unstable();
        for moment in moments {
            while self.played < moment
                && let Some(op) = self.ops.next()
            {
                self.play(op);
                self.played += 1;
            }
            let folder = scratch();
            self.write(folder.path(), random);
            each(Image { folder, at: moment }, random);
        }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Make { path, inode } => {
                self.files.entry(inode).or_default();
                self.name(&path.clone(), Naming::Is(path, inode));
            }
            Op::MakeFolder { path } => self.name(&path.clone(), Naming::Folder(path)),
            Op::Rename { from, to } => {
                assert_eq!(from.parent(), to.parent(), "only within a folder");
                self.name(&from.clone(), Naming::Moved(from, to));
            }
            Op::Exchange { one, other } => {
                assert_eq!(one.parent(), other.parent(), "only within a folder");
                self.name(&one.clone(), Naming::Exchanged(one, other));
            }
            Op::Remove { path } => self.name(&path.clone(), Naming::Gone(path)),
            Op::SyncFolder { path } => {
                for naming in self.unsynced_names.remove(&path).unwrap_or_default() {
                    self.names.apply(&naming);
                }
            }
            Op::Write { inode, offset, bytes } => self.change(inode, Change::Write(offset, bytes)),
            Op::Length { inode, length } => self.change(inode, Change::Length(length)),
            Op::Sync { inode } => {
                let content = self.files.entry(inode).or_default();
                for change in std::mem::take(&mut content.unsynced) {
                    change.apply(&mut content.durable);
                }
            }
        }
    }

    fn change(&mut self, inode: u64, change: Change) {
        self.files.entry(inode).or_default().unsynced.push(change);
    }

    fn name(&mut self, path: &Path, naming: Naming) {
        let folder = path.parent().expect("within the root").to_owned();
        self.unsynced_names.entry(folder).or_default().push(naming);
    }

    fn write(&self, folder: &Path, random: &mut Rng) {
        let mut names = self.names.clone();
        for unsynced in self.unsynced_names.values() {
            let kept = random.usize(0..=unsynced.len());
            unsynced[..kept].iter().for_each(|naming| names.apply(naming));
        }
        let fate = [Fate::Lost, Fate::Kept, Fate::Torn, Fate::Reordered][random.usize(0..4)];
        let within = |path: &Path| {
            path.ancestors()
                .skip(1)
                .take_while(|above| above.starts_with(&self.root))
                .all(|above| names.folders.contains_key(above))
        };
        let place = |path: &Path| folder.join(path.strip_prefix(&self.root).expect("within the root"));
        for path in names.folders.keys().filter(|path| **path != self.root && within(path)) {
            fs::create_dir(place(path)).expect("a folder");
        }
        for (path, inode) in names.files.iter().filter(|(path, _)| within(path)) {
            write_sparse(&place(path), &self.files[inode].after(fate, random));
        }
    }
}

impl Names {
    fn apply(&mut self, naming: &Naming) {
        match naming {
            Naming::Is(path, inode) => {
                self.files.insert(path.clone(), *inode);
            }
            Naming::Moved(from, to) => {
                let files = take_below(&mut self.files, from, to);
                self.files.extend(files);
                let folders = take_below(&mut self.folders, from, to);
                self.folders.extend(folders);
            }
            Naming::Exchanged(one, other) => {
                let files =
                    [take_below(&mut self.files, one, other), take_below(&mut self.files, other, one)];
                self.files.extend(files.into_iter().flatten());
                let folders =
                    [take_below(&mut self.folders, one, other), take_below(&mut self.folders, other, one)];
                self.folders.extend(folders.into_iter().flatten());
            }
            Naming::Gone(path) => {
                self.files.retain(|name, _| !name.starts_with(path));
                self.folders.retain(|name, _| !name.starts_with(path));
            }
            Naming::Folder(path) => {
                self.folders.insert(path.clone(), ());
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(offset, written) => put(bytes, *offset as usize, written),
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

impl Content {
    fn after(&self, fate: Fate, random: &mut Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        match fate {
            Fate::Lost => {}
            Fate::Kept => self.unsynced.iter().for_each(|change| change.apply(&mut bytes)),
            Fate::Torn => {
                let kept = random.usize(0..=self.unsynced.len());
                self.unsynced[..kept].iter().for_each(|change| change.apply(&mut bytes));
                if let Some(Change::Write(offset, written)) = self.unsynced.get(kept) {
                    let part = &written[..random.usize(0..=written.len())];
                    put(&mut bytes, *offset as usize, part);
                }
            }
            Fate::Reordered => {
                for change in &self.unsynced {
                    match change {
                        Change::Length(_) if random.bool() => change.apply(&mut bytes),
                        Change::Length(_) => {}
                        Change::Write(offset, written) => {
                            let mut at = 0;
                            while at < written.len() {
                                let place = offset + at as u64;
                                let left = (SECTOR_BYTES - place % SECTOR_BYTES) as usize;
                                let end = (at + left).min(written.len());
                                if random.bool() {
                                    put(&mut bytes, place as usize, &written[at..end]);
                                }
                                at = end;
                            }
                        }
                    }
                }
            }
        }
        bytes
    }
}

/// A folder in memory, where there is one: images are many and short-lived.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = fs::File::create(path).expect("a file");
    file.set_len(bytes.len() as u64).expect("a length");
    for (number, page) in bytes.chunks(4096).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, number as u64 * 4096).expect("written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskFile, Mode, make_folders, rename, sync_folder};
    use std::collections::BTreeSet;

    #[test]
    fn what_is_synced_is_in_every_image_and_what_is_not_is_lost_kept_or_torn() {
        let folder = tempfile::tempdir().unwrap();
        let trace = Trace::begin(folder.path());
        let dir = folder.path().join("d");
        make_folders(&dir).unwrap();
        let file = DiskFile::open(&dir.join("new"), Mode::Make).unwrap();
        file.write_all_at(&[1; 2_000], 0).unwrap();
        file.sync_all().unwrap();
        rename(&dir.join("new"), &dir.join("file")).unwrap();
        sync_folder(&dir).unwrap();
        let synced = trace.now();
        file.write_all_at(&[2; 2_000], 500).unwrap();
        let mut seen = BTreeSet::new();
        Disk::new(&trace).images(400, &mut Rng::with_seed(1), |image, _| {
            let found = fs::read(image.folder.path().join("d/file"));
            if image.at < synced {
                seen.insert("before");
                return;
            }
            let found = found.expect("its name was synced");
            assert_eq!(found[..500], [1; 500]);
            let new = found.iter().filter(|byte| **byte == 2).count();
            let is_torn = found.windows(2).any(|pair| pair == [2, 1]);
            seen.insert(match (new, is_torn) {
                (0, _) => "lost",
                (2_000, _) => "kept",
                (_, true) => "torn",
                _ => "part",
            });
        });
        assert_eq!(seen, ["before", "lost", "kept", "torn", "part"].into());
    }
}
