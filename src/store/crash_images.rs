//! The store over crash images: whatever a power loss leaves of what was not synced, the last checkpoint,
//! its windows and the ledger are there, and the store goes on.

use super::tests::{Sums, checkpoint, cut, seals, sums, window};
use crate::disk::{Disk, DiskFile, Image, Mode, Trace, wanted};
use crate::model::{Timestamp, WindowId};
use crate::settings::ByteSize;
use crate::store::{Config, Level, NewRecord, Stage, Store};
use crate::window::SealedWindow;
use fastrand::Rng;
use redb::StorageBackend;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Crash images of one life.
const IMAGES: usize = 100;

/// A database file whose changes are traced.
#[derive(Debug)]
pub(super) struct Backend(DiskFile);

impl Backend {
    pub fn open(path: &Path) -> io::Result<Self> {
        DiskFile::open(path, Mode::Make).map(Self)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

/// What was done in one life. Moments are when something had begun and when it was promised.
#[derive(Default)]
struct Life {
    /// When the store was open for the first time: what is begun before may have to be begun anew.
    opened: usize,
    windows: Vec<Arc<SealedWindow>>,
    /// Of commits: the cut's number, begun, promised.
    commits: Vec<(u64, usize, usize)>,
    /// Of ledger records: begun, promised.
    records: Vec<(usize, usize)>,
}

fn config(is_small: bool) -> Config {
    // Smaller than the database alone: every block goes as soon as it is rolled up.
    if is_small { Config { max_bytes: ByteSize(1), ..Config::default() } } else { Config::default() }
}

fn record(number: usize) -> NewRecord {
    let at = Timestamp::from_secs(number as u64);
    NewRecord::new(at, Stage::Confirm, format!("object-{}", number % 5), number.to_string(), &number).unwrap()
}

fn live(folder: &Path, trace: &Trace, is_small: bool, random: &mut Rng) -> Life {
    let store = Store::open(folder, config(is_small)).unwrap();
    let mut life = Life { opened: trace.now(), ..Life::default() };
    let mut next = 1_000;
    for _ in 0..60 {
        match random.u32(0..10) {
            0..5 => {
                next += if random.u32(0..10) == 0 { random.u64(0..400) } else { 0 };
                let cells: Vec<_> = (0..random.u8(0..4)).map(|n| (n, random.u32(1..1_000))).collect();
                life.windows.push(window(next, false, seals(next), &cells));
                assert!(store.seal(life.windows.last().unwrap().clone()));
                next += 1;
            }
            5..8 => {
                let begun = trace.now();
                store.ledger().append_all(vec![record(life.records.len())]).unwrap();
                life.records.push((begun, trace.now()));
            }
            _ => {
                let number = seals(next - 1).number;
                if life.commits.last().is_some_and(|(last, ..)| *last >= number) {
                    continue;
                }
                let begun = trace.now();
                store.commit(&checkpoint(cut(number))).unwrap();
                life.commits.push((number, begun, trace.now()));
            }
        }
    }
    life
}

/// Delta by window and series of what a checkpoint holds.
fn expected(life: &Life, through: u64) -> Sums {
    let held = life.windows.iter().filter(|window| window.sealed.number <= through);
    let cells = held.flat_map(|window| window.cells.iter().map(|(series, cell)| ((window.id, series), cell)));
    cells
        .map(|(key, cell)| {
            let crate::aggregate::Cell::Total(total) = cell else { panic!("{cell:?}") };
            (key, total.delta)
        })
        .collect()
}

fn recover(image: &Image, life: &Life, is_small: bool, told: &str) -> (usize, usize) {
    let folder = &image.folder.path().join("data");
    let open = || Store::open(folder, config(is_small)).unwrap_or_else(|error| panic!("{told}: {error}"));
    let store = open();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name();
        let is_damaged = name.to_string_lossy().contains("damaged");
        assert!(!is_damaged || image.at < life.opened, "{told}: {name:?}");
    }
    let promised = life.commits.iter().filter(|(.., promised)| *promised <= image.at).count();
    let begun = life.commits.iter().filter(|(_, begun, _)| *begun < image.at).count();
    let found = store.checkpoint().unwrap();
    let through = found.as_ref().map_or(0, |found| found.cut.number);
    assert!(found.is_none_or(|found| found == checkpoint(cut(through))), "{told}");
    let number = life.commits.iter().position(|(number, ..)| *number == through).map_or(0, |at| at + 1);
    assert!((promised..=begun).contains(&number), "{told}: checkpoint {number} of {promised} to {begun}");
    if !is_small {
        assert_eq!(sums(&store, Level::Seconds10), expected(life, through), "{told}");
    } else {
        let _ = store.windows(Timestamp::ZERO, Timestamp::MAX, Level::Hour1);
    }
    assert!(store.damaged().is_empty(), "{told}: {:?}", store.damaged());
    let ledger = store.ledger().read_from(1, usize::MAX).unwrap();
    let written = life.records.iter().filter(|(_, promised)| *promised <= image.at).count();
    let begun = life.records.iter().filter(|(begun, _)| *begun < image.at).count();
    assert!(
        (written..=begun).contains(&ledger.len()),
        "{told}: {} records of {written} to {begun}",
        ledger.len()
    );
    for (number, found) in ledger.iter().enumerate() {
        let appended = record(number);
        assert_eq!(
            (found.sequence, &found.key, &found.payload),
            (number as u64 + 1, &appended.key, &appended.payload),
            "{told}"
        );
    }
    // It goes on.
    let id = WindowId(1_000_000);
    assert!(store.seal(window(id.0, false, seals(id.0), &[(9, 9)])), "{told}");
    store.ledger().append_all(vec![record(life.records.len())]).unwrap();
    store.commit(&checkpoint(seals(id.0))).unwrap_or_else(|error| panic!("{told}: {error}"));
    drop(store);
    let store = open();
    assert_eq!(store.checkpoint().unwrap(), Some(checkpoint(seals(id.0))), "{told}: after going on");
    assert_eq!(store.ledger().last(), ledger.len() as u64 + 1, "{told}: after going on");
    (promised, written)
}

#[test]
fn what_was_committed_is_in_every_crash_image() {
    let (mut images, mut commits, mut records) = (0, 0, 0);
    for seed in 0..wanted().div_ceil(IMAGES) as u64 {
        let mut random = Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let trace = Trace::begin(folder.path());
        let is_small = seed % 4 == 3;
        let life = live(&folder.path().join("data"), &trace, is_small, &mut random);
        Disk::new(&trace).images(IMAGES, &mut random, |image, _| {
            let told = format!("seed {seed}, cut off after {} operations", image.at);
            let (of_commits, of_records) = recover(&image, &life, is_small, &told);
            commits += of_commits;
            records += of_records;
            images += 1;
        });
    }
    assert!(
        commits > images && records > images,
        "{commits} commits and {records} records in {images} images"
    );
    println!(
        "store: {images} crash images, {commits} commits and {records} ledger records found, none lost, 0 panics"
    );
}
