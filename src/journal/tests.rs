//! The journal as a whole, on a real disk.

use super::*;
use crate::limits::{Permit, RefusedReason};
use crate::model::{ManualClock, Signal, SystemClock, Timestamp};
use crate::otlp::{Encoding, Slice};
use crate::receive::{Admitted, CallerTag, Intake, Pending, Reply};
use crate::settings::ByteSize;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn request(wire: impl Into<Bytes>, partitions: &[u8]) -> (Admitted, Pending) {
    let wire = wire.into();
    let (reply, pending) = Reply::new(1 + partitions.len() as u32);
    let slices = partitions.iter().map(|&partition| Slice { partition, range: 0..0 }).collect();
    let admitted = Admitted {
        signal: Signal::Traces,
        encoding: Encoding::Identity,
        body: wire.clone(),
        wire,
        slices,
        caller: CallerTag::NOBODY,
        permit: Permit::free(),
        reply,
    };
    (admitted, pending)
}

fn open(dir: &Path, max_bytes: u64, resume: Option<Position>) -> (Sequencer, Lanes, Recorder) {
    let config = Config { max_bytes: Some(ByteSize(max_bytes)), ..Config::default() };
    Journal::open(dir, &config, Arc::new(ManualClock::default()), resume).unwrap()
}

/// A wire body that is also a request without resources: one unknown field of bytes.
pub(super) fn wire(number: u32, bytes: usize) -> Vec<u8> {
    let mut wire = vec![0x7a];
    prost::encoding::encode_varint(bytes as u64, &mut wire);
    wire.extend(number.to_le_bytes().into_iter().cycle().take(bytes));
    wire
}

#[test]
fn what_was_appended_is_read_back_after_a_restart_and_appending_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for life in 0..3u32 {
        let (mut sequencer, _, recorder) = open(dir.path(), 16 << 20, None);
        let before: Vec<_> = recorder.records(Position(0)).map(|record| (record.at, record.wire)).collect();
        assert_eq!(before, written);
        for number in 0..40 {
            // 1 MiB segments: some requests are larger than one.
            let wire =
                Bytes::from(wire(life * 100 + number, if number % 16 == 3 { 1_200_000 } else { 20_000 }));
            let at = Timestamp::from_secs(u64::from(1_000 + life * 40 + number));
            let (admitted, _pending) = request(wire.clone(), &[0]);
            let steps: Vec<Step> = sequencer.append_at(admitted, at).unwrap().collect();
            let Some(Step::Work { at: position, arrived, .. }) = steps.last() else { panic!("{steps:?}") };
            assert_eq!(*arrived, at);
            written.push((*position, wire));
            sequencer.handle().set_checkpoint(Position(0));
        }
        if life == 1 {
            break;
        }
    }
    assert!(written.is_sorted_by_key(|(at, _)| *at));
}

/// The only segment's file.
fn segment_file(dir: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).collect();
    files.sort();
    files.swap_remove(0)
}

/// Writes six records of one segment; gives where the first begins and where each ends.
fn six_records(dir: &Path) -> Vec<u64> {
    let (mut sequencer, _, _recorder) = open(dir, 4 << 20, None);
    let mut ends = vec![64];
    for number in 0..6 {
        let (admitted, _) = request(wire(number, 200), &[]);
        sequencer.append_at(admitted, Timestamp::from_secs(10)).unwrap().for_each(drop);
        ends.push(sequencer.end().0);
    }
    ends
}

fn damage_byte(file: &Path, at: u64) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at as usize] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn any_flipped_byte_costs_at_most_the_record_it_lies_in_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ends = six_records(dir.path());
    let file = segment_file(dir.path());
    let whole = std::fs::read(&file).unwrap();
    let all: Vec<Bytes> = (0..6).map(|number| Bytes::from(wire(number, 200))).collect();
    for at in (0..ends[6]).filter(|at| at % 3 == 0 || *at < 110) {
        damage_byte(&file, at);
        let lost = ends.iter().position(|&end| at < end).unwrap().checked_sub(1);
        let report = check(dir.path()).unwrap();
        let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
        let replayed = sequencer.replay(None, |_| Ok::<(), ()>(())).unwrap();
        let found: Vec<Bytes> = recorder.records(Position(0)).map(|record| record.wire).collect();
        drop((sequencer, recorder));
        let mut expected = all.clone();
        // The header's reserved bytes and those of a header that says nothing are not missed.
        let harmless = found == all;
        if let Some(lost) = lost.filter(|_| !harmless) {
            expected.remove(lost);
            // The newest record cannot be told from one that was being written.
            assert_eq!(replayed.damage.is_empty(), lost == 5, "byte {at}: {replayed:?}");
            assert!(
                lost == 5
                    || report
                        .damage
                        .iter()
                        .any(|damage| damage.offset <= at && at < damage.offset + damage.bytes),
                "byte {at}: {report:?}"
            );
        } else if (0..36).contains(&at) {
            assert_eq!(
                report.damage.first().map(|damage| damage.what),
                Some("no readable header"),
                "byte {at}"
            );
        }
        assert_eq!(found, expected, "byte {at}");
        std::fs::write(&file, &whole).unwrap();
    }
}

#[test]
fn a_segment_cut_short_keeps_what_stands_before_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let ends = six_records(dir.path());
    let file = segment_file(dir.path());
    let whole = std::fs::read(&file).unwrap();
    for length in (0..=ends[6]).step_by(7) {
        std::fs::write(&file, &whole[..length as usize]).unwrap();
        let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
        let kept = ends.iter().skip(1).filter(|&&end| end <= length).count();
        assert_eq!(recorder.records(Position(0)).count(), kept, "cut at {length}");
        // Appending goes on, also where the file ends.
        let (admitted, _) = request(wire(77, 200), &[]);
        sequencer.append_at(admitted, Timestamp::from_secs(11)).unwrap().for_each(drop);
        assert_eq!(recorder.records(Position(0)).count(), kept + 1, "cut at {length}");
        drop((sequencer, recorder));
        std::fs::read_dir(dir.path()).unwrap().for_each(|entry| {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "segment") {
                std::fs::remove_file(path).unwrap();
            }
        });
    }
}

#[test]
fn a_segment_cut_short_and_damaged_loses_what_was_damaged_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ends = six_records(dir.path());
    let file = segment_file(dir.path());
    let whole = std::fs::read(&file).unwrap();
    // Of six records the fourth is damaged, and the file ends within the last.
    std::fs::write(&file, &whole[..ends[6] as usize - 10]).unwrap();
    damage_byte(&file, ends[3] + 100);
    let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
    let replayed = sequencer.replay(None, |_| Ok::<(), ()>(())).unwrap();
    let found: Vec<u64> = recorder.records(Position(0)).map(|record| record.at.0).collect();
    assert_eq!(found, [0, 1, 2, 4].map(|number| ends[number]));
    assert_eq!(replayed.damage.iter().map(|of| of.at.0).collect::<Vec<_>>(), [ends[3]]);
}

#[test]
fn a_record_at_which_three_starts_ended_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
    let mut positions = Vec::new();
    for number in 0..5 {
        positions.push(sequencer.end());
        let (admitted, _) = request(wire(number, 200), &[]);
        sequencer.append_at(admitted, Timestamp::from_secs(10)).unwrap().for_each(drop);
    }
    positions[0] = Position(64);
    drop((sequencer, recorder));
    let start = |poison: Option<Position>| {
        let (mut sequencer, _, _) = open(dir.path(), 4 << 20, None);
        // A process that dies does nothing any more, and so does this one.
        sequencer.replay(None, |step| match step {
            Step::Work { at, .. } if Some(at) == poison => Err(()),
            _ => Ok(()),
        })
    };
    for _ in 0..3 {
        assert_eq!(start(Some(positions[2])), Err(()));
    }
    let replayed = start(Some(positions[2])).expect("the record is left out");
    assert_eq!((replayed.records, replayed.quarantined), (4, 1));
    let kept = dir.path().join("quarantine").join(format!("{:020}.traces", positions[2].0));
    assert_eq!(std::fs::read(kept).unwrap(), wire(2, 200));
    let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
    sequencer.replay(None, |_| Ok::<(), ()>(())).unwrap();
    assert_eq!(recorder.quarantined(), 1);
    drop((sequencer, recorder));
    // Deaths at different records do not add up.
    for position in [positions[1], positions[3], positions[1], positions[3]] {
        assert_eq!(start(Some(position)), Err(()));
    }
    assert_eq!(start(None).unwrap().records, 5);
}

/// What kills when a second is sealed is the fault of no single record, and certainly not of the next.
#[test]
fn no_record_is_blamed_for_starts_that_end_between_records() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
    for number in 0..5u32 {
        let (admitted, _) = request(wire(number, 200), &[]);
        sequencer.append_at(admitted, Timestamp::from_secs(10 + u64::from(number))).unwrap().for_each(drop);
    }
    drop((sequencer, recorder));
    for is_over in [false, false, false, false, true] {
        let (mut sequencer, _, _) = open(dir.path(), 4 << 20, None);
        let replayed = sequencer.replay(None, |step| match step {
            Step::Barrier(cut) if cut.number == 13 && !is_over => Err(()),
            _ => Ok(()),
        });
        assert_eq!(replayed.is_ok(), is_over);
        assert!(replayed.is_err() || replayed.is_ok_and(|of| (of.records, of.quarantined) == (5, 0)));
    }
}

#[test]
fn a_torn_tail_is_cut_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
    let mut ends = Vec::new();
    for number in 0..5 {
        let (admitted, _) = request(wire(number, 1_000), &[]);
        sequencer.append_at(admitted, Timestamp::from_secs(10)).unwrap().for_each(drop);
        ends.push(sequencer.end());
    }
    drop((sequencer, recorder));
    let file = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let torn = ends[2].0 as usize + 40;
    bytes[torn] ^= 1;
    bytes[ends[3].0 as usize + 40] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
    assert_eq!(sequencer.end(), ends[2], "two that are torn and nothing behind them");
    // A record of the very same length as the torn ones must not bring back the one behind it.
    let (admitted, _) = request(wire(77, 1_000), &[]);
    sequencer.append_at(admitted, Timestamp::from_secs(11)).unwrap().for_each(drop);
    let wires: Vec<Bytes> = recorder.records(Position(0)).map(|record| record.wire).collect();
    assert_eq!(wires, [0, 1, 2, 77].map(|number| Bytes::from(wire(number, 1_000))));
    drop((sequencer, recorder));
    let (_, _, recorder) = open(dir.path(), 4 << 20, None);
    assert_eq!(recorder.records(Position(0)).count(), 4);
}

#[test]
fn the_oldest_is_recycled_but_never_past_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
    let append = |sequencer: &mut Sequencer, number: u32| {
        let (admitted, mut pending) = request(wire(number, 50_000), &[]);
        sequencer.append_at(admitted, Timestamp::from_secs(10)).unwrap().for_each(drop);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(&mut pending).poll(&mut context) {
            std::task::Poll::Ready(outcome) => outcome.refused,
            std::task::Poll::Pending => panic!("the journal has not had its say"),
        }
    };
    use std::future::Future;
    let refused = (0..1_000).find(|&number| append(&mut sequencer, number).is_some()).unwrap();
    assert!((70..84).contains(&refused), "{refused} times 50 kB fill 4 MiB");
    assert_eq!(append(&mut sequencer, 1_000), Some(RefusedReason::Journal));
    assert_eq!(recorder.records(Position(0)).count(), refused as usize);
    sequencer.handle().set_checkpoint(sequencer.end());
    for number in 0..500 {
        assert_eq!(append(&mut sequencer, 2_000 + number), None);
        sequencer.handle().set_checkpoint(sequencer.end());
    }
    assert!(recorder.bytes() <= 4 << 20);
    let left: Vec<Bytes> = recorder.records(Position(0)).map(|record| record.wire).collect();
    assert!(left.len() > 60 && left.last() == Some(&Bytes::from(wire(2_499, 50_000))));
    assert!(recorder.oldest().unwrap().0 > Position(0));
    // Until then the next segment is made ready under another name.
    drop((sequencer, recorder));
    let files: u64 =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(files <= (4 << 20) + (256 << 10) + 100, "{files}");
}

#[test]
fn the_tail_before_a_position_is_bounded_by_time_and_by_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sequencer, _, recorder) = open(dir.path(), 16 << 20, None);
    let mut positions = Vec::new();
    for second in 0..40u64 {
        // 1 MiB segments: the tail is in several.
        let (admitted, _pending) = request(wire(second as u32, 100_000), &[0]);
        let steps = sequencer.append_at(admitted, Timestamp::from_secs(1_000 + second)).unwrap();
        positions.extend(steps.filter_map(|step| match step {
            Step::Work { at, .. } => Some(at),
            Step::Barrier(_) => None,
        }));
    }
    let tail = |before: Position, since: u64, bytes: u64| -> Vec<Position> {
        recorder.tail(before, Timestamp::from_secs(since), bytes).map(|record| record.at).collect()
    };
    assert_eq!(tail(positions[30], 1_010, u64::MAX), positions[10..30]);
    assert_eq!(tail(positions[30], 0, u64::MAX), positions[..30]);
    assert_eq!(tail(positions[30], 1_010, 250_000), positions[28..30], "what begins within the bytes");
    assert!(tail(positions[30], 1_035, u64::MAX).is_empty(), "all of it is newer");
    assert!(tail(positions[30], 2_000, u64::MAX).is_empty());
    assert!(tail(Position(0), 0, u64::MAX).is_empty());
}

#[test]
fn what_is_too_old_goes_though_little_arrives_but_never_past_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        max_bytes: Some(ByteSize(16 << 20)),
        max_age: crate::settings::Seconds(Duration::from_secs(3_600)),
        ..Config::default()
    };
    let clock = Arc::new(ManualClock::default());
    let (mut sequencer, _, recorder) = Journal::open(dir.path(), &config, clock.clone(), None).unwrap();
    let kept = |sequencer: &mut Sequencer, minutes: std::ops::Range<u32>| {
        for minute in minutes {
            let (admitted, _pending) = request(wire(minute, 100), &[0]);
            let at = Timestamp::from_secs(60_000 + 60 * u64::from(minute));
            sequencer.append_at(admitted, at).unwrap().for_each(drop);
        }
        recorder.records(Position(0)).map(|record| record.arrived.secs()).collect::<Vec<_>>()
    };
    assert_eq!(kept(&mut sequencer, 0..200).len(), 200, "no checkpoint holds it");
    sequencer.handle().set_checkpoint(sequencer.end());
    let held = kept(&mut sequencer, 200..300);
    let now = 60_000 + 60 * 299;
    assert!(held.windows(2).all(|pair| pair[1] == pair[0] + 60) && held.last() == Some(&now), "no gap");
    // The checkpoint does not hold the last hundred; segments are of a quarter of an hour.
    let oldest = (now - held[0]) / 60;
    assert!((99..120).contains(&oldest), "{oldest} minutes are held");
    sequencer.handle().set_checkpoint(sequencer.end());
    let held = kept(&mut sequencer, 300..302);
    let oldest = (now + 120 - held[0]) / 60;
    assert!((60..80).contains(&oldest), "{oldest} minutes are held");
    drop((sequencer, recorder));
    let (_, _, recorder) = Journal::open(dir.path(), &config, clock, None).unwrap();
    assert_eq!(recorder.records(Position(0)).count(), held.len());
}

#[test]
fn a_lost_journal_gives_out_no_position_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, Some(Position(123_456)));
    let (admitted, _) = request(wire(1, 10), &[]);
    sequencer.append_at(admitted, Timestamp::from_secs(1)).unwrap().for_each(drop);
    assert!(recorder.oldest().unwrap().0 >= Position(123_456));
    assert_eq!(recorder.records(Position(123_456)).count(), 1);
}

#[test]
fn a_replay_gives_the_same_steps_as_the_first_time() {
    let dir = tempfile::tempdir().unwrap();
    let show = |step: &Step| match step {
        Step::Work { at, arrived, .. } => (*at, *arrived, None),
        Step::Barrier(cut) => (cut.through, cut.arrived, Some(cut.number)),
    };
    let (mut sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
    let mut live = Vec::new();
    for number in 0..60u32 {
        let (admitted, _) = request(wire(number, 30_000), &[]);
        let at = Timestamp(1_000_000_000_000 + u64::from(number) * 700_000_000);
        live.extend(sequencer.append_at(admitted, at).unwrap().map(|step| show(&step)));
    }
    drop((sequencer, recorder));
    let (mut sequencer, _, _) = open(dir.path(), 4 << 20, None);
    let mut again = Vec::new();
    let replayed = sequencer.replay(None, |step| {
        again.push(show(&step));
        Ok::<(), ()>(())
    });
    assert_eq!(replayed, Ok(Replayed { records: 60, ..Replayed::default() }));
    assert_eq!(again, live);
    // From a cut in the middle: what came after it.
    let (place, cut) = live
        .iter()
        .enumerate()
        .filter_map(|(place, &(through, arrived, number))| {
            Some((place, Cut { number: number?, arrived, through, checkpoint: true }))
        })
        .nth(10)
        .unwrap();
    again.clear();
    sequencer
        .replay(Some(cut), |step| {
            again.push(show(&step));
            Ok::<(), ()>(())
        })
        .unwrap();
    assert_eq!(again, live[place + 1..]);
}

#[test]
fn a_capture_reads_what_arrived_around_its_times_and_skips_by_index() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sequencer, _, recorder) = open(dir.path(), 64 << 20, None);
    let wanted = crate::model::TraceId([9; 16]);
    let mut parts: std::collections::BTreeMap<u64, BlockWriter> = Default::default();
    for number in 0..400u32 {
        let at = Timestamp::from_secs(u64::from(1_000 + number));
        let (admitted, _) = request(wire(number, 50_000), &[]);
        for step in sequencer.append_at(admitted, at).unwrap() {
            if let Step::Work { at: position, .. } = step {
                let part =
                    parts.entry(BlockPart::block(position)).or_insert_with(|| BlockWriter::new(position));
                part.add_item(at, if number == 150 { wanted } else { crate::model::TraceId([1; 16]) });
            }
        }
    }
    let range = Timestamp::from_secs(1_100)..Timestamp::from_secs(1_300);
    let arrivals = |filter: &Filter| -> Vec<u64> {
        recorder.read(range.clone(), filter).map(|record| record.arrived.secs()).collect()
    };
    assert_eq!(arrivals(&Filter::default()), (1_090..1_390).collect::<Vec<_>>());
    let filter = Filter { traces: Some([wanted].into()), services: None };
    assert_eq!(arrivals(&filter).len(), 300, "nothing is known yet, so all is read");
    let parts = parts.into_iter().map(|(block, mut writer)| (block, writer.finish())).collect();
    recorder.index().publish(0, 1, sequencer.end(), parts);
    let found = arrivals(&filter);
    assert!(found.contains(&1_150) && found.len() < 50, "{found:?}");
}

#[test]
fn reading_backward_gives_the_newest_segment_first_and_says_since_when_all_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sequencer, _, recorder) = open(dir.path(), 16 << 20, None);
    for second in 0..40u64 {
        // 1 MiB segments of nine or ten records.
        let (admitted, _pending) = request(wire(second as u32, 100_000), &[]);
        sequencer.append_at(admitted, Timestamp::from_secs(1_000 + second)).unwrap().for_each(drop);
    }
    let read = |before: u64| {
        let mut seconds: Vec<u64> = Vec::new();
        let mut part: Vec<u64> = Vec::new();
        for step in recorder.read_backward(Timestamp::from_secs(before), &Filter::default()) {
            match step {
                Backstep::Record(record) => part.push(record.arrived.secs()),
                Backstep::Since(since) => {
                    assert!(
                        part.is_sorted() && part.first() == Some(&since.secs()),
                        "{part:?} since {since}"
                    );
                    assert!(seconds.first().is_none_or(|newer| part.last().unwrap() + 1 == *newer));
                    seconds.splice(0..0, part.drain(..));
                }
            }
        }
        assert!(part.is_empty(), "{part:?} belong to no part");
        seconds
    };
    assert_eq!(read(9_999), (1_000..1_040).collect::<Vec<_>>());
    assert_eq!(read(1_025), (1_000..1_025).collect::<Vec<_>>());
    assert!(read(1_000).is_empty());
    // What the index knows not to hold anything of it is left out, and counts as given.
    let filter = Filter { traces: Some([crate::model::TraceId([9; 16])].into()), services: None };
    let mut blocks: std::collections::BTreeMap<u64, BlockWriter> = Default::default();
    for record in recorder.records(Position(0)) {
        let block = BlockPart::block(record.at);
        let part = blocks.entry(block).or_insert_with(|| BlockWriter::new(record.at));
        part.add_item(record.arrived, crate::model::TraceId([1; 16]));
    }
    let blocks = blocks.into_iter().map(|(block, mut writer)| (block, writer.finish())).collect();
    recorder.index().publish(0, 1, sequencer.end(), blocks);
    let (mut records, mut since) = (0, Timestamp::MAX);
    for step in recorder.read_backward(Timestamp::MAX, &filter) {
        match step {
            Backstep::Record(_) => records += 1,
            Backstep::Since(at) => since = at,
        }
    }
    assert!(records < 15, "{records} of the block that is being filled");
    assert_eq!(since, Timestamp::from_secs(1_000));
}

#[test]
fn a_reader_that_the_writer_overtakes_sees_only_whole_records_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (sequencer, _, recorder) = open(dir.path(), 4 << 20, None);
    let mut sequencer = sequencer.without_checkpoints();
    let mut append = |number: u32| {
        let (admitted, _) = request(wire(number, 40_000), &[]);
        sequencer.append_at(admitted, Timestamp::from_secs(5)).unwrap().for_each(drop);
    };
    (0..50).for_each(&mut append);
    let mut reader = recorder.records(Position(0));
    let mut seen: Vec<Bytes> = reader.by_ref().take(3).map(|record| record.wire).collect();
    (50..400).for_each(&mut append);
    seen.extend(reader.map(|record| record.wire));
    let numbers: Vec<u32> =
        seen.iter().map(|wire| u32::from_le_bytes(wire[4..8].try_into().unwrap())).collect();
    assert!(numbers.is_sorted() && numbers.last() == Some(&399) && numbers.len() < 200, "{numbers:?}");
    for (number, found) in numbers.iter().zip(&seen) {
        assert_eq!(*found, Bytes::from(wire(*number, 40_000)));
    }
}

#[test]
fn every_request_of_many_threads_reaches_its_shards_once_and_in_order() {
    const THREADS: u32 = 4;
    const EACH: u32 = 500;
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: Some(ByteSize(64 << 20)), ..Config::default() };
    let (sequencer, lanes, recorder) =
        Journal::open(dir.path(), &config, Arc::new(SystemClock), None).unwrap();
    let handle = sequencer.handle();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| steps(4)).unzip();
    let sequencing = std::thread::spawn(move || sequencer.run(&senders));
    let shards: Vec<_> = receivers
        .into_iter()
        .map(|receiver| {
            std::thread::spawn(move || {
                let (mut positions, mut barriers) = (Vec::new(), Vec::new());
                while let Some(step) = receiver.receive() {
                    match step {
                        Step::Work { at, request, .. } => {
                            positions.push(at);
                            request.reply.done(1);
                        }
                        Step::Barrier(cut) => barriers.push(cut),
                    }
                }
                (positions, barriers)
            })
        })
        .collect();
    // As the daemon's threads do. Were a request left unannounced, it would wait for the next second.
    let announcing = lanes.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(Lanes::announces_at_rest)
        .on_thread_park(move || announcing.announce())
        .build()
        .unwrap();
    let begun = std::time::Instant::now();
    let senders: Vec<_> = (0..THREADS)
        .map(|thread| {
            let lanes = lanes.clone();
            runtime.spawn(async move {
                for number in 0..EACH {
                    let (admitted, pending) =
                        request(wire(thread * EACH + number, 100), &[(number % 2) as u8]);
                    lanes.try_push(admitted).expect("one request in flight a task");
                    assert_eq!(pending.await, crate::receive::Outcome::default());
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for sender in senders {
            sender.await.unwrap();
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(60), "requests waited for the sequencer to look by itself");
    handle.close();
    sequencing.join().unwrap().unwrap();
    let (refused, _) = request(wire(0, 1), &[]);
    assert!(lanes.try_push(refused).is_err());
    let found: Vec<_> = shards.into_iter().map(|shard| shard.join().unwrap()).collect();
    assert_eq!(found[0].1, found[1].1, "both shards have the same barriers");
    assert!(
        found[0].1.last().is_some_and(|cut| cut.checkpoint && cut.through == recorder.newest().unwrap().0)
    );
    assert!(found[0].1.is_sorted_by(|a, b| a.number + 1 == b.number));
    for (positions, _) in &found {
        assert!(positions.is_sorted_by(|a, b| a < b));
    }
    assert_eq!(found.iter().map(|(positions, _)| positions.len()).sum::<usize>(), (THREADS * EACH) as usize);
    assert_eq!(recorder.records(Position(0)).count(), (THREADS * EACH) as usize);
}

#[test]
fn a_sleeper_misses_no_waking() {
    // Without the announcement and the second look, this would take a sleep of 100 s for each loss.
    let sleeper = Arc::new(crate::parallel::Sleeper::default());
    let queue = Arc::new(crossbeam::queue::ArrayQueue::new(4));
    let consumer = std::thread::spawn({
        let (sleeper, queue) = (sleeper.clone(), queue.clone());
        move || {
            let mut sum = 0u64;
            let mut count = 0;
            while count < 20_000 {
                match queue.pop() {
                    Some(number) => {
                        sum += number;
                        count += 1;
                    }
                    None => sleeper.sleep(Duration::from_secs(100), || !queue.is_empty()),
                }
            }
            sum
        }
    });
    for mut number in 0..20_000u64 {
        while let Err(back) = queue.push(number) {
            number = back;
            std::thread::yield_now();
        }
        sleeper.wake();
        if number % 3 == 0 {
            std::thread::yield_now();
        }
    }
    assert_eq!(consumer.join().unwrap(), 19_999 * 10_000);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_bytes: Some(ByteSize(4 << 20)), ..Config::default() };
    let (sequencer, lanes, _) = Journal::open(dir.path(), &config, Arc::new(SystemClock), None).unwrap();
    let shared = sequencer.handle().0;
    let (sender, receiver) = steps(64);
    let sequencing = std::thread::spawn(move || sequencer.run(&[sender]));
    shared.poison(&std::io::Error::other("the disk is gone"));
    let (admitted, pending) = request(wire(1, 10), &[0]);
    // Either the sequencer still takes it and refuses it, or it is gone already.
    let taken = lanes.try_push(admitted).is_ok();
    let error = sequencing.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    if taken {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(pending).refused.is_some());
    }
    let works =
        std::iter::from_fn(|| receiver.receive()).filter(|step| matches!(step, Step::Work { .. })).count();
    assert_eq!(works, 0);
    let (late, _) = request(wire(1, 10), &[0]);
    assert!(lanes.try_push(late).is_err());
}

#[test]
fn after_a_clock_that_was_ahead_arrivals_go_on_from_there_and_it_is_told_how_far() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (mut sequencer, _, _recorder) = open(dir.path(), 4 << 20, None);
        let (admitted, _pending) = request(wire(0, 10), &[]);
        sequencer.append_at(admitted, Timestamp::from_secs(20_000)).unwrap().for_each(drop);
    }
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(10_000)));
    let config = Config { max_bytes: Some(ByteSize(4 << 20)), ..Config::default() };
    let (sequencer, lanes, recorder) = Journal::open(dir.path(), &config, clock.clone(), None).unwrap();
    let handle = sequencer.handle();
    let sequencing = std::thread::spawn(move || sequencer.run(&[]));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let send = |number| {
        let (admitted, pending) = request(wire(number, 10), &[]);
        lanes.try_push(admitted).unwrap();
        lanes.announce();
        assert_eq!(runtime.block_on(pending), crate::receive::Outcome::default());
        recorder.clock_ahead_s()
    };
    let ahead_s = send(1);
    assert!((10_000.0..10_100.0).contains(&ahead_s), "{ahead_s}");
    // A year ahead is not followed either.
    clock.set(Timestamp::from_secs(365 * 24 * 3_600));
    let ahead_s = send(2);
    assert!(ahead_s < -31e6, "{ahead_s}");
    handle.close();
    sequencing.join().unwrap().unwrap();
    let arrived: Vec<u64> = recorder.records(Position(0)).map(|record| record.arrived.secs()).collect();
    assert!(arrived.len() == 3 && arrived.is_sorted() && arrived[2] < 20_100, "{arrived:?}");
}
