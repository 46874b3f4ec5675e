//! The journal over crash images: whatever a power loss leaves of what was not synced, what was synced is
//! read back, nothing else than what was appended is, and appending goes on.

use super::config::{Durability, Sizes};
use super::shared::Shared;
use super::tests::{request, wire};
use super::writer::Writer;
use super::{Config, Cut, Journal, Position, check};
use crate::disk::{Disk, Image, Trace, make_folders, wanted};
use crate::model::{ManualClock, Timestamp};
use crate::settings::ByteSize;
use bytes::Bytes;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Crash images of one life.
const IMAGES: usize = 100;

/// What was done in one life, and what was promised when.
#[derive(Default)]
struct Life {
    /// Everything that was appended, promised or not, by position, with the moment it was synced.
    appended: BTreeMap<u64, (Bytes, Option<usize>)>,
    /// Moments from which on a checkpoint holds everything before a position.
    checkpoints: Vec<(usize, u64)>,
}

/// Appends groups of requests to a journal of tiny segments that is recycled some times over.
fn live(dir: &Path, trace: &Trace, durability: Durability, random: &mut Rng) -> Life {
    make_folders(dir).unwrap();
    let sizes = Sizes { segment_bytes: 8 << 10, max_bytes: 64 << 10 };
    let shared = Arc::new(Shared::default());
    let mut writer = Writer::open(dir.to_owned(), sizes, durability, shared.clone(), Vec::new(), 0).unwrap();
    let mut life = Life::default();
    let mut outcome = Vec::new();
    for number in 0..200u32 {
        // Now and then one that goes through several segments.
        let most = if random.u32(0..8) == 0 { 30 } else { 6 };
        let group: Vec<_> = (0..random.u32(1..most))
            .map(|part| request(wire(number << 8 | part, random.usize(1..1_500)), &[0]).0)
            .collect();
        writer.append(&group, Timestamp::from_secs(1_000 + u64::from(number)), &mut outcome).unwrap();
        let synced = (durability == Durability::Always).then(|| trace.now());
        for (request, at) in group.iter().zip(&outcome) {
            if let Ok(at) = at {
                life.appended.insert(at.0, (request.wire.clone(), synced));
            }
        }
        if random.u32(0..10) == 0 {
            writer.sync().unwrap();
            let now = trace.now();
            life.appended.values_mut().for_each(|(_, synced)| *synced = synced.or(Some(now)));
        }
        // Sooner or later a checkpoint is written, up to some record before; then segments are recycled.
        if random.u32(0..8) == 0
            && let Some((at, _)) = life.appended.iter().nth_back(random.usize(0..20))
        {
            life.checkpoints.push((trace.now(), *at));
            shared.checkpoint.fetch_max(*at, Ordering::AcqRel);
        }
    }
    life
}

/// Opens an image, and holds it against what was promised; how many synced records it had to have.
fn recover(image: &Image, life: &Life, told: &str) -> usize {
    let dir = image.folder.path().join("journal");
    let resume = life.checkpoints.iter().filter(|(moment, _)| *moment <= image.at).map(|(_, at)| *at).max();
    let resume = Position(resume.unwrap_or(0));
    if dir.exists() {
        check(&dir).unwrap_or_else(|error| panic!("{told}: {error}"));
    }
    let config =
        Config { durability: Durability::Always, max_bytes: Some(ByteSize(4 << 20)), ..Config::default() };
    let open = || {
        Journal::open(&dir, &config, Arc::new(ManualClock::default()), Some(resume))
            .unwrap_or_else(|error| panic!("{told}: {error}"))
    };
    let (mut sequencer, _, recorder) = open();
    let found: BTreeMap<u64, Bytes> =
        recorder.records(resume).map(|record| (record.at.0, record.wire)).collect();
    let mut promised = 0;
    for (at, (wire, synced)) in life.appended.range(resume.0..) {
        if synced.is_some_and(|synced| synced <= image.at) {
            assert_eq!(found.get(at), Some(wire), "{told}: synced, and not read back at {at}");
            promised += 1;
        }
    }
    for (at, wire) in &found {
        assert_eq!(life.appended.get(at).map(|(wire, _)| wire), Some(wire), "{told}: never appended at {at}");
    }
    let cut = Cut { number: 1, through: resume, ..Cut::default() };
    let replayed = sequencer.replay(Some(cut), |_| Ok::<(), ()>(())).unwrap();
    assert_eq!((replayed.records, replayed.unreadable), (found.len() as u64, 0), "{told}");
    // It goes on, and what was there is not harmed.
    let mut expected = found;
    for number in 0..2 {
        let (admitted, _pending) = request(wire(u32::MAX - number, 700), &[0]);
        let wire = admitted.wire.clone();
        let at = sequencer.end().0;
        sequencer.append_at(admitted, Timestamp::from_secs(9_000)).unwrap().for_each(drop);
        let last = recorder.records(Position(at)).last().unwrap_or_else(|| panic!("{told}: not appended"));
        assert_eq!(last.wire, wire);
        expected.insert(last.at.0, wire);
    }
    drop((sequencer, recorder));
    let (_sequencer, _, recorder) = open();
    let again: BTreeMap<u64, Bytes> =
        recorder.records(resume).map(|record| (record.at.0, record.wire)).collect();
    assert_eq!(again, expected, "{told}: after going on");
    promised
}

#[test]
fn what_was_synced_is_in_every_crash_image() {
    let (mut images, mut promised) = (0, 0);
    for seed in 0..wanted().div_ceil(IMAGES) as u64 {
        let mut random = Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let trace = Trace::begin(folder.path());
        let durability = [Durability::Always, Durability::Os][random.usize(0..2)];
        let life = live(&folder.path().join("journal"), &trace, durability, &mut random);
        Disk::new(&trace).images(IMAGES, &mut random, |image, _| {
            let told = format!("seed {seed}, {durability:?}, cut off after {} operations", image.at);
            promised += recover(&image, &life, &told);
            images += 1;
        });
    }
    assert!(promised > images, "only {promised} synced records in {images} images");
    println!("journal: {images} crash images, {promised} synced records read back, none lost, 0 panics");
}

#[test]
fn always_syncs_every_segment_of_a_group_before_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { segment_bytes: 8 << 10, max_bytes: 64 << 10 };
    let shared = Arc::new(Shared::default());
    let dir = folder.path().to_owned();
    let mut writer = Writer::open(dir, sizes, Durability::Always, shared.clone(), Vec::new(), 0).unwrap();
    let group: Vec<_> = (0..20).map(|number| request(wire(number, 1_400), &[0]).0).collect();
    let mut outcome = Vec::new();
    writer.append(&group, Timestamp::from_secs(1_000), &mut outcome).unwrap();
    assert!(outcome.iter().all(Result::is_ok), "{outcome:?}");
    let segments = shared.segments.load();
    assert!(segments.len() >= 4, "{} segments", segments.len());
    let unsynced = segments.iter().filter(|segment| segment.dirty.load(Ordering::Acquire)).count();
    assert_eq!(unsynced, 0, "of {} segments", segments.len());
}
