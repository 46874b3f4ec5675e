//! How a journal is opened, and what is found in it.

use super::in_hand::InHand;
use super::lane::Lanes;
use super::record::HEADER_BYTES;
use super::segment::Segment;
use super::shared::Shared;
use super::stamper::Stamper;
use super::writer::Writer;
use super::{Config, Error, Position, Recorder, Sequencer, lock};
use crate::disk;
use crate::model::{Clock, SystemClock, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The journal of one directory.
#[derive(Debug)]
pub struct Journal;

impl Journal {
    /// Opens the journal of `dir`, which is made when missing and locked for this process. `resume` is
    /// the position up to which a checkpoint holds everything: it is not recycled past, and no position
    /// before it is given out again, even when the journal itself was lost.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Version`], or what the file system says.
    pub fn open(
        dir: &Path,
        config: &Config,
        clock: Arc<dyn Clock>,
        resume: Option<Position>,
    ) -> Result<(Sequencer, Lanes, Recorder), Error> {
        let lock = lock(dir)?;
        let mut segments = Segment::all(dir)?;
        let (end, last_arrived) = loop {
            let Some(last) = segments.last() else { break (0, Timestamp::ZERO) };
            match tail(last) {
                Some(found) => break found,
                None => {
                    // Made ahead and not used yet; it is made again where it belongs then.
                    disk::remove_file(&last.path)
                        .map_err(Error::io(&last.path, "remove an unused segment"))?;
                    segments.pop();
                }
            }
        };
        let held: u64 = segments.iter().map(|segment| segment.size).sum();
        let space = rustix::fs::statvfs(dir).map_err(|error| Error::io(dir, "measure")(error.into()))?;
        let sizes = config.sizes(space.f_bavail.saturating_mul(space.f_frsize).saturating_add(held));
        let resume = resume.unwrap_or_default();
        let next = if resume.0 <= end {
            end
        } else {
            // What the checkpoint knows of is gone: go on behind it and behind every segment.
            segments.last().map_or(0, Segment::end).max(resume.0)
        };
        if let Some(last) = segments.last().filter(|last| next < last.end()) {
            clear(last, next);
        }
        let shared = Arc::new(Shared::default());
        shared.checkpoint.store(resume.0, Ordering::Release);
        shared.last_arrived.store(last_arrived.0, Ordering::Release);
        shared.index.begin(resume);
        let segments = segments.into_iter().map(Arc::new).collect();
        let mut writer =
            Writer::open(dir.to_owned(), sizes, config.durability, shared.clone(), segments, next)?;
        writer.keep_for(config.max_age.0);
        let mut stamper = Stamper::new();
        if last_arrived != Timestamp::ZERO {
            stamper.admit(last_arrived);
        }
        let in_hand = Some(InHand::open(dir));
        let sequencer =
            Sequencer::recording(writer, lock, shared.clone(), clock, stamper, sizes.max_bytes, in_hand);
        let lanes = sequencer.lanes();
        Ok((sequencer, lanes, Recorder(shared)))
    }

    /// A sequencer that records nothing: for tests, and for backtests that need no captures.
    #[must_use]
    pub fn none() -> (Sequencer, Lanes, Recorder) {
        let shared = Arc::new(Shared::default());
        let sequencer = Sequencer::unrecorded(shared.clone(), Arc::new(SystemClock));
        let lanes = sequencer.lanes();
        (sequencer, lanes, Recorder(shared))
    }
}

/// End of the last whole record of a segment, and its arrival; `None` when it has none. A record that
/// cannot be read is no end as long as one stands behind it that can.
fn tail(segment: &Segment) -> Option<(u64, Timestamp)> {
    let mut found = None;
    let mut at = segment.first();
    loop {
        match segment.header(at).and_then(|header| segment.record(&header)) {
            Some(record) => {
                at = record.end().0;
                found = Some((at, record.arrived));
            }
            None => match segment.next_whole(at, segment.end()) {
                Some(next) => at = next,
                None => return found,
            },
        }
    }
}

/// Wipes what lies behind the tail, so that nothing of a torn group can ever fit by chance.
fn clear(segment: &Segment, from: u64) {
    let zeros = vec![0u8; 1 << 20];
    let mut offset = from.saturating_sub(segment.start);
    let mut blank = 0;
    // A group is at most a few MiB: stop behind as much as that of what cannot be a record.
    while offset < segment.size && blank < 32 {
        let count = (segment.size - offset).min(zeros.len() as u64) as usize;
        let Some(part) = zeros.get(..count.max(HEADER_BYTES).min(count)) else { return };
        if segment.file.write_all_at(part, offset).is_err() {
            return;
        }
        offset += count as u64;
        blank += 1;
    }
}
