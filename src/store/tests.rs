//! The store against a naive oracle, over restarts, and with a disk that fails or is small.

use crate::aggregate::{Accepted, Cell, Total};
use crate::journal::Cut;
use crate::limits::{LateReason, RejectedReason};
use crate::model::{SeriesId, SeriesKey, ServiceKey, Signal, SpanKind, Timestamp, WindowId};
use crate::settings::{ByteSize, Seconds};
use crate::store::{Checkpoint, Config, Error, Level, Pieces, Stage, Store};
use crate::window::{Quality, SealedWindow};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn cut(number: u64) -> Cut {
    Cut { number, arrived: Timestamp::from_secs(number), ..Cut::default() }
}

/// The cut that seals a window.
pub(super) fn seals(window: u64) -> Cut {
    cut(WindowId(window).end().secs() + 15)
}

pub(super) fn window(id: u64, amendment: bool, sealed: Cut, cells: &[(u8, u32)]) -> Arc<SealedWindow> {
    let cells = cells
        .iter()
        .map(|&(n, delta)| (SeriesId([n; 16]), Cell::Total(Total { delta: f64::from(delta), points: 1 })))
        .collect();
    let quality = Quality { late: 1, ..Quality::default() };
    Arc::new(SealedWindow { id: WindowId(id), sealed, amendment, cells, quality, ..SealedWindow::default() })
}

pub(super) fn checkpoint(cut: Cut) -> Checkpoint {
    Checkpoint {
        cut,
        parts: BTreeMap::from([("window".to_owned(), cut.number.to_be_bytes().to_vec())]),
        pieces: Pieces::default(),
        accepted: Accepted { spans: cut.number, log_records: 2, metric_points: 3 },
        rejected: BTreeMap::from([(RejectedReason::TooOld, 5)]),
        late: BTreeMap::from([(LateReason::Future, 6)]),
    }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, Config::default()).unwrap()
}

/// Delta by window and series, of everything a level holds.
pub(super) type Sums = BTreeMap<(WindowId, SeriesId), f64>;

pub(super) fn sums(store: &Store, level: Level) -> Sums {
    let mut sums = Sums::new();
    for stored in store.windows(Timestamp::ZERO, Timestamp::MAX, level) {
        assert_eq!(stored.level, level);
        for (series, cell) in stored.window.cells.iter() {
            let Cell::Total(total) = cell else { panic!("{cell:?}") };
            assert!(sums.insert((stored.window.id, series), total.delta).is_none(), "twice");
        }
    }
    sums
}

fn block_files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.join("blocks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[derive(Clone, Debug)]
enum Act {
    Seal {
        skip: u64,
        cells: Vec<(u8, u32)>,
    },
    Amend {
        back: u64,
        amount: u32,
    },
    /// Commits at a cut this many windows ago.
    Commit {
        back: u64,
    },
    /// Dies; what was sealed after the last commit is sealed again, as a replay does.
    Crash,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let cells = prop::collection::btree_map(0u8..4, 1u32..1_000, 0..4);
    let act = prop_oneof![
        12 => (prop_oneof![20 => Just(0u64), 1 => 1u64..500], cells)
            .prop_map(|(skip, cells)| Act::Seal { skip, cells: cells.into_iter().collect() }),
        3 => (0u64..40, 1u32..1_000).prop_map(|(back, amount)| Act::Amend { back, amount }),
        2 => (0u64..3).prop_map(|back| Act::Commit { back }),
        1 => Just(Act::Crash),
    ];
    prop::collection::vec(act, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_level_holds_the_sum_of_what_was_sealed(acts in acts()) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        // Everything handed over, in order, by the number of its cut.
        let mut history: Vec<Arc<SealedWindow>> = Vec::new();
        let mut next = 1_000;
        let mut committed = 0;
        let hand_over = |store: &Store, window: &Arc<SealedWindow>| {
            if window.amendment { store.amend(window.clone()) } else { assert!(store.seal(window.clone())) }
        };
        for act in acts {
            match act {
                Act::Seal { skip, cells } => {
                    next += skip;
                    history.push(window(next, false, seals(next), &cells));
                    hand_over(&store, history.last().unwrap());
                    next += 1;
                }
                // Amendments come with the cut that seals a window, so never after its checkpoint.
                Act::Amend { .. } if seals(next - 1).number <= committed => {}
                Act::Amend { back, amount } => {
                    history.push(window(next - 1 - back, true, seals(next - 1), &[(1, amount)]));
                    hand_over(&store, history.last().unwrap());
                }
                Act::Commit { back } => {
                    committed = seals(next - 1 - back).number.max(committed);
                    store.commit(&checkpoint(cut(committed))).unwrap();
                    prop_assert_eq!(store.checkpoint().unwrap(), Some(checkpoint(cut(committed))));
                }
                Act::Crash => {
                    drop(store);
                    store = open(folder.path());
                    history.iter().filter(|window| window.sealed.number > committed).for_each(|window| hand_over(&store, window));
                }
            }
        }
        for level in Level::ALL {
            let mut expected = Sums::new();
            for window in &history {
                for (series, cell) in window.cells.iter() {
                    let Cell::Total(total) = cell else { continue };
                    *expected.entry((level.slot(window.id), series)).or_default() += total.delta;
                }
            }
            prop_assert_eq!(sums(&store, level), expected, "{:?}", level);
        }
        prop_assert!(store.damaged().is_empty());
    }
}

#[test]
fn what_was_not_committed_is_gone_after_a_restart_and_its_files_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let key = |name: &str| {
        Arc::new(SeriesKey {
            service: ServiceKey::named(name),
            signal: Signal::Logs,
            operation: "".into(),
            kind: SpanKind::Unspecified,
            entry: false,
            unit: "".into(),
            attributes: Vec::new(),
        })
    };
    store.add_series(seals(100), &[(key("a").id(), key("a"))]);
    assert!(store.seal(window(100, false, seals(100), &[(1, 5)])));
    store.add_series(seals(101), &[(key("b").id(), key("b"))]);
    assert!(store.seal(window(101, false, seals(101), &[(1, 6)])));
    store.commit(&checkpoint(seals(100))).unwrap();
    assert_eq!(block_files(folder.path()).len(), 1);
    assert_eq!(sums(&store, Level::Seconds10).len(), 2);
    assert!(store.ledger().append(Timestamp::ZERO, Stage::Alert, "x", "x", &1).unwrap().is_some());
    assert!(matches!(Store::open(folder.path(), Config::default()), Err(Error::InUse(_))));
    drop(store);
    fs::write(folder.path().join("blocks/000000000077-10s.arrow"), "left by a crash").unwrap();

    let store = open(folder.path());
    assert_eq!(block_files(folder.path()).len(), 1);
    assert_eq!(store.checkpoint().unwrap(), Some(checkpoint(seals(100))));
    let registry = store.registry(1_000).unwrap();
    assert_eq!((registry.len(), registry.get(key("a").id())), (1, Some(key("a"))));
    assert_eq!(sums(&store, Level::Seconds10), Sums::from([((WindowId(100), SeriesId([1; 16])), 5.0)]));
    assert_eq!(store.ledger().last(), 1);
    // What is held already is not taken again; what comes after is.
    assert!(!store.seal(window(100, false, seals(100), &[(1, 5)])));
    assert!(store.seal(window(101, false, seals(101), &[(1, 6)])));
    assert_eq!(store.recent(Timestamp::from_secs(1_040), 60).len(), 2);
    assert_eq!(store.recent(Timestamp::from_secs(1_040), 1)[0].id, WindowId(101));
}

#[test]
fn parts_that_a_checkpoint_no_longer_has_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(store.checkpoint().unwrap(), None);
    let mut first = checkpoint(cut(1));
    first.parts.insert("shard/3".to_owned(), vec![1; 100_000]);
    store.commit(&first).unwrap();
    assert_eq!(store.checkpoint().unwrap(), Some(first));
    store.commit(&checkpoint(cut(2))).unwrap();
    assert_eq!(store.checkpoint().unwrap(), Some(checkpoint(cut(2))));
}

#[test]
fn pieces_stay_until_they_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (early, late) = ((1, 7, 2), (2, 7, 1));
    let mut first = checkpoint(cut(1));
    first.pieces.put = vec![(late, vec![2; 3]), (early, vec![1])];
    store.commit(&first).unwrap();
    assert_eq!(store.pieces().unwrap(), [(early, vec![1]), (late, vec![2; 3])]);
    store.commit(&checkpoint(cut(2))).unwrap();
    assert_eq!(store.pieces().unwrap().len(), 2, "what did not change is not written");
    let mut third = checkpoint(cut(3));
    third.pieces = Pieces { put: vec![(late, vec![4])], remove: vec![early, (9, 9, 9)] };
    store.commit(&third).unwrap();
    assert_eq!(store.pieces().unwrap(), [(late, vec![4])]);
}

#[test]
fn a_damaged_block_is_named_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for id in 100..102 {
        store.seal(window(id, false, seals(id), &[(1, 5)]));
        store.commit(&checkpoint(seals(id))).unwrap();
    }
    drop(store);
    let damaged = block_files(folder.path())[0].clone();
    let path = folder.path().join("blocks").join(&damaged);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();

    let store = open(folder.path());
    let ids: Vec<u64> = store
        .windows(Timestamp::ZERO, Timestamp::MAX, Level::Seconds10)
        .iter()
        .map(|stored| stored.window.id.0)
        .collect();
    assert_eq!(ids, [101]);
    let [error] = store.damaged().try_into().unwrap();
    assert!(error.to_string().contains(&damaged), "{error}");
    assert_eq!(store.usage().damaged_blocks, 1);
}

#[test]
fn a_disk_that_fails_loses_nothing_and_the_next_commit_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.seal(window(100, false, seals(100), &[(1, 5)]));
    store.commit(&checkpoint(seals(100))).unwrap();
    store.seal(window(101, false, seals(101), &[(1, 6)]));
    // No file can be made in a folder that is not there.
    let (blocks, away) = (folder.path().join("blocks"), folder.path().join("away"));
    fs::rename(&blocks, &away).unwrap();
    assert!(matches!(store.commit(&checkpoint(seals(101))), Err(Error::File { .. })));
    assert_eq!(store.checkpoint().unwrap(), Some(checkpoint(seals(100))));
    fs::rename(&away, &blocks).unwrap();
    assert_eq!(sums(&store, Level::Seconds10).len(), 2);
    store.commit(&checkpoint(seals(101))).unwrap();
    drop(store);
    let store = open(folder.path());
    assert_eq!(sums(&store, Level::Seconds10).len(), 2);
    assert_eq!(store.checkpoint().unwrap(), Some(checkpoint(seals(101))));
}

#[test]
fn when_room_is_short_the_finest_and_oldest_go_first_and_coarser_windows_stand_in() {
    let folder = tempfile::tempdir().unwrap();
    // Two minutes a commit, from the start of an hour, for 70 minutes.
    let first = 3_600;
    let cells: Vec<(u8, u32)> = (0..200).map(|n| (n, 1)).collect();
    let fill = |store: &Store| {
        for id in first..first + 420 {
            store.seal(window(id, false, seals(id), &cells));
            if id % 12 == 11 {
                store.commit(&checkpoint(seals(id))).unwrap();
            }
        }
    };
    let store = open(folder.path());
    fill(&store);
    let full = store.usage().bytes;
    let expected = sums(&store, Level::Hour1);
    drop(store);

    let folder = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: ByteSize(full - (200 << 10)), ..Config::default() };
    let store = Store::open(folder.path(), config).unwrap();
    fill(&store);
    assert!(store.usage().bytes <= full - (200 << 10));
    let names = block_files(folder.path());
    let count = |level: &str| names.iter().filter(|name| name.ends_with(&format!("-{level}.arrow"))).count();
    assert_eq!((count("1m"), count("5m"), count("1h")), (35, 14, 1));
    assert!((5..35).contains(&count("10s")), "{names:?}");
    // Nothing is counted twice, nothing is missing, whatever stands in.
    let stored = store.windows(Timestamp::ZERO, Timestamp::MAX, Level::Seconds10);
    assert!(
        stored.first().unwrap().level == Level::Minute1 && stored.last().unwrap().level == Level::Seconds10
    );
    let mut at = WindowId(first);
    for stored in &stored {
        assert_eq!(stored.window.id, at);
        at = stored.level.after(at);
    }
    assert_eq!(at, WindowId(first + 420));
    assert_eq!(sums(&store, Level::Hour1), expected);
    drop(store);
    // Also after a restart.
    let store = open(folder.path());
    assert_eq!(store.windows(Timestamp::ZERO, Timestamp::MAX, Level::Seconds10), stored);
    assert_eq!(block_files(folder.path()), names);
}

#[test]
fn windows_go_when_they_are_too_old_though_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let day = Seconds(Duration::from_secs(86_400));
    let store = Store::scratch(folder.path(), Config { max_age: day, ..Config::default() }).unwrap();
    let first = 360 * 1_000;
    let last = first + 3 * 8_640 - 1;
    for id in first..=last {
        store.seal(window(id, false, seals(id), &[(1, 1)]));
        if id % 360 == 359 {
            store.commit(&checkpoint(seals(id))).unwrap();
        }
    }
    for level in Level::ALL {
        let held = store.windows(Timestamp::ZERO, Timestamp::MAX, level);
        let oldest = held.first().unwrap().window.id.0;
        assert!((last - 8_640 - 360..=last - 8_640 + 360).contains(&oldest), "{level:?}: {}", last - oldest);
        assert_eq!(sums(&store, level).len() as u64, (last + 1 - oldest).div_ceil(level.windows()));
    }
}

#[test]
fn sums_over_a_range_are_those_of_its_windows() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::scratch(folder.path(), Config::default()).unwrap();
    for id in 1_000..3_000 {
        store.seal(window(id, false, seals(id), &[(1, 1), (2, 2)]));
        if id % 400 == 0 {
            store.commit(&checkpoint(seals(id))).unwrap();
        }
    }
    let sum = |from: u64, to: u64| {
        let (from, to) = (WindowId(from).start(), WindowId(to).start());
        store.series_range(from, to, |series| series == SeriesId([2; 16]))
    };
    let total = |windows: u32| {
        let cell = Cell::Total(Total { delta: f64::from(2 * windows), points: u64::from(windows) });
        BTreeMap::from([(SeriesId([2; 16]), cell)])
    };
    assert_eq!(sum(1_000, 1_100), total(100));
    assert_eq!(sum(1_001, 1_002), total(1));
    assert_eq!(sum(2_995, 4_000), total(5));
    // Long enough for minutes: from the start of one.
    assert_eq!(sum(1_002, 2_802), total(1_800));
    assert_eq!(sum(5_000, 5_000), BTreeMap::new());
}

#[test]
fn what_waits_for_a_checkpoint_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { pending_cells: 10_000, ..Config::default() };
    let store = Store::open(folder.path(), config).unwrap();
    let cells: Vec<(u8, u32)> = (0..200).map(|n| (n, 1)).collect();
    for id in 0..200 {
        store.seal(window(id, false, seals(id), &cells));
    }
    let usage = store.usage();
    assert!(usage.pending_windows <= 50 && usage.dropped_windows >= 150, "{usage:?}");
    let last = store.windows(Timestamp::ZERO, Timestamp::MAX, Level::Seconds10).pop().unwrap();
    assert_eq!(last.window.id, WindowId(199));
}

#[test]
fn a_damaged_database_is_put_aside_and_what_reads_of_it_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Config::default()).unwrap();
    let at = Timestamp::from_secs(7);
    for number in 0..200 {
        let key = format!("a/{number}");
        store.ledger().append(at, Stage::Confirm, "a", &key, &format!("{number:0400}")).unwrap();
    }
    drop(store);
    assert!(crate::store::check(folder.path()).unwrap().1.is_empty());
    let path = folder.path().join("barograph.redb");
    let whole = std::fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let (mut mended, mut aside, mut kept) = (0, 0, 0);
    for number in 0..40 {
        let mut bytes = whole.clone();
        if number < 30 {
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u8(..8);
        } else {
            bytes.truncate(random.usize(..bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
        let named = crate::store::check(folder.path()).unwrap().1;
        // Whatever is damaged, it starts, and takes records again.
        let store = Store::open(folder.path(), Config::default()).unwrap();
        let held = store.ledger().read_from(0, 1_000).unwrap().len();
        store.ledger().append(at, Stage::Confirm, "b", "b/1", &1).unwrap();
        drop(store);
        let damaged: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.display().to_string().contains(".damaged-"))
            .collect();
        assert!(damaged.is_empty() || !named.is_empty(), "what is put aside was named: {named:?}");
        mended += usize::from(!named.is_empty() && damaged.is_empty());
        aside += damaged.len();
        // What is cut off is lost; a bit costs the page that it lies in at most.
        kept += if number < 30 { held } else { 0 };
        assert!(!damaged.is_empty() || held == 200, "{held} of 200 records without a word: {named:?}");
        damaged.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
    println!(
        "40 times damaged: {mended} mended, {aside} put aside; {kept} of 6,000 records kept over 30 flips"
    );
    assert!(aside > 0 && kept > 5_000, "{aside} put aside, {kept} kept");
}
