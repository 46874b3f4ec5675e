//! The one writer: appends groups of requests to the segments and recycles the oldest.

use super::config::{Durability, Sizes};
use super::record::{HEADER_BYTES, Header};
use super::segment::{SEGMENT_HEADER_BYTES, Segment, Unmade};
use super::shared::Shared;
use super::{Error, Position};
use crate::disk;
use crate::model::Timestamp;
use crate::receive::Admitted;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const SYNC_EVERY: Duration = Duration::from_millis(200);
/// When the helper has not got on for so long, nothing more is appended: a power loss would take all that came since.
const HANGING_AFTER: Duration = Duration::from_secs(10);
/// Counts as time in which it did not get on between two looks at most: the whole process may have stood still.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
const HANGING: &str = "the disk under the journal does not answer, send it again later";
/// The time for which records are kept is spread over so many segments at least.
const SEGMENTS_AN_AGE: u32 = 4;

pub(super) struct Writer {
    dir: PathBuf,
    sizes: Sizes,
    max_age: Duration,
    durability: Durability,
    shared: Arc<Shared>,
    /// Oldest first; the last one is written to.
    segments: Vec<Arc<Segment>>,
    /// The next one, made ahead so that a full disk does not meet an append.
    spare: Option<Arc<Segment>>,
    /// Whether the helper is making the next one.
    is_being_made: bool,
    helper: Option<Helper>,
    patience: Patience,
    /// Where the next record goes.
    next: u64,
    /// No segment made from now on begins before this.
    next_segment: u64,
}

/// A segment to be made.
struct Job {
    start: u64,
    size: u64,
    recycled: Option<Arc<Segment>>,
}

/// The thread that syncs and makes segments, so that the one that appends need not wait for a disk.
struct Helper {
    jobs: Sender<Job>,
    made: Receiver<Result<Segment, Unmade>>,
    thread: JoinHandle<()>,
}

/// For how long the helper has been seen not to get on.
#[derive(Debug)]
struct Patience {
    steps: u64,
    waited: Duration,
    looked: Instant,
}

impl Patience {
    fn new(now: Instant) -> Self {
        Self { steps: 0, waited: Duration::ZERO, looked: now }
    }

    /// Whether that is too long.
    fn look(&mut self, steps: u64, now: Instant) -> bool {
        if steps == self.steps {
            let more = now.saturating_duration_since(self.looked).min(LOOK_WITHIN);
            self.waited = self.waited.saturating_add(more);
        } else {
            (self.steps, self.waited) = (steps, Duration::ZERO);
        }
        self.looked = now;
        self.waited >= HANGING_AFTER
    }

    /// It is too long, until it gets on.
    fn end(&mut self) {
        self.waited = HANGING_AFTER;
    }
}

impl Writer {
    /// Goes on at `next`: where the whole records of `segments` end, or later than all of them.
    pub fn open(
        dir: PathBuf,
        sizes: Sizes,
        durability: Durability,
        shared: Arc<Shared>,
        segments: Vec<Arc<Segment>>,
        next: u64,
    ) -> Result<Self, Error> {
        let (jobs, waiting) = mpsc::channel();
        let (done, made) = mpsc::channel();
        let thread = {
            let (dir, dir_name, shared) = (dir.clone(), dir.clone(), shared.clone());
            let syncs = durability == Durability::Interval;
            thread::Builder::new()
                .name("journal-helper".into())
                .spawn(move || {
                    helping(&shared, || help(&dir, &shared, syncs, &waiting, &done));
                })
                .map_err(Error::io(dir_name, "start the thread that syncs"))?
        };
        let helper = Some(Helper { jobs, made, thread });
        let writer = Self {
            dir,
            sizes,
            max_age: Duration::MAX,
            durability,
            shared,
            segments,
            spare: None,
            is_being_made: false,
            helper,
            patience: Patience::new(Instant::now()),
            next,
            next_segment: next,
        };
        writer.publish();
        writer.shared.written.store(next, Ordering::Release);
        Ok(writer)
    }

    /// Keeps what arrived no longer than this.
    pub fn keep_for(&mut self, max_age: Duration) {
        self.max_age = max_age;
    }

    /// Lets go of segments of which everything arrived too long ago; a checkpoint must hold it. One in which little
    /// arrives is left before it is full, so that its time comes, too.
    pub fn expire(&mut self, now: Timestamp) {
        let began_before = |segment: &Segment, age: Duration| {
            let first = segment.header(segment.first());
            first.is_some_and(|first| now.since(first.arrived) > age)
        };
        if self.segments.last().is_some_and(|last| began_before(last, self.max_age / SEGMENTS_AN_AGE)) {
            if self.spare.is_some() || self.is_being_made {
                // If it cannot be made, there will be another try.
                let _ = self.turn(0);
            } else {
                self.make_ahead();
            }
        }
        while self.segments.get(1).is_some_and(|second| began_before(second, self.max_age))
            && let Some(oldest) = self.pop_oldest()
        {
            if let Err(error) = disk::remove_file(&oldest.path) {
                tracing::warn!(file = %oldest.path.display(), %error, "a part of the journal that is too old stays");
            }
        }
    }

    fn publish(&self) {
        self.shared.segments.store(Arc::new(self.segments.clone()));
    }

    /// First position after the last record.
    pub fn end(&self) -> Position {
        Position(self.shared.written.load(Ordering::Acquire))
    }

    /// Appends a group. Of each request the position, or why it was not appended: then nothing of it
    /// may be counted.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when what was acknowledged may not be durable.
    pub fn append(
        &mut self,
        group: &[Admitted],
        arrived: Timestamp,
        outcome: &mut Vec<Result<Position, String>>,
    ) -> Result<(), Error> {
        self.poisoned()?;
        outcome.clear();
        if self.durability == Durability::Interval && self.hangs() {
            outcome.extend(group.iter().map(|_| Err(HANGING.to_owned())));
            return Ok(());
        }
        let mut rest = group;
        while !rest.is_empty() {
            let count = self.fitting(rest);
            let (now, later) = rest.split_at(count);
            if now.is_empty() {
                if let Err(why) = self.turn(rest.first().map_or(0, |first| first.wire.len() as u64)) {
                    outcome.extend(later.iter().map(|_| Err(why.clone())));
                    break;
                }
                continue;
            }
            match self.write(now, arrived, outcome) {
                Ok(()) => rest = later,
                Err(error) => {
                    let why = format!("the journal cannot be written: {error}");
                    self.undo(now);
                    outcome.extend(rest.iter().map(|_| Err(why.clone())));
                    break;
                }
            }
        }
        if self.durability == Durability::Always {
            // All of them: where segments are small, a group goes through several. What is synced already
            // costs a look.
            self.sync()?;
        }
        if self.spare.is_none() && !self.is_being_made && self.is_half_full() {
            self.make_ahead();
        }
        self.poisoned()
    }

    /// To be called each second, so that a disk that hangs is seen however seldom requests come.
    pub fn look(&mut self) {
        self.hangs();
    }

    /// Whether the helper has not got on for too long.
    fn hangs(&mut self) -> bool {
        self.patience.look(self.shared.helper_beat.steps(), Instant::now())
    }

    fn poisoned(&self) -> Result<(), Error> {
        self.shared.poisoned().map_or(Ok(()), |why| Err(Error::Poisoned(why)))
    }

    fn is_half_full(&self) -> bool {
        self.segments.last().is_none_or(|last| self.next.saturating_sub(last.start) > last.size / 2)
    }

    /// How many of the requests fit into the segment in hand.
    fn fitting(&self, group: &[Admitted]) -> usize {
        let end = self.segments.last().map_or(0, |last| last.end());
        let mut at = self.next;
        group
            .iter()
            .take(IOV_REQUESTS)
            .take_while(|request| {
                at = at.saturating_add((HEADER_BYTES + request.wire.len()) as u64);
                at <= end
            })
            .count()
    }

    fn write(
        &mut self,
        group: &[Admitted],
        arrived: Timestamp,
        outcome: &mut Vec<Result<Position, String>>,
    ) -> io::Result<()> {
        let Some(segment) = self.segments.last() else {
            return Err(io::Error::other("there is no segment"));
        };
        let mut at = self.next;
        let mut headers = [[0u8; HEADER_BYTES]; IOV_REQUESTS];
        for (header, request) in headers.iter_mut().zip(group) {
            let plain = Header {
                length: u32::try_from(request.wire.len()).map_err(io::Error::other)?,
                crc: 0,
                signal: request.signal,
                encoding: request.encoding,
                caller: request.caller,
                arrived,
                at: Position(at),
            };
            *header = plain.encode(&request.wire);
            at += plain.whole();
        }
        let mut slices = [IoSlice::new(&[]); 2 * IOV_REQUESTS];
        for ((pair, header), request) in slices.chunks_exact_mut(2).zip(&headers).zip(group) {
            if let [first, second] = pair {
                (*first, *second) = (IoSlice::new(header), IoSlice::new(&request.wire));
            }
        }
        let used = slices.get_mut(..2 * group.len()).unwrap_or_default();
        segment.file.write_all_vectored_at(used, self.next.saturating_sub(segment.start))?;
        segment.dirty.store(true, Ordering::Release);
        let mut position = self.next;
        for request in group {
            outcome.push(Ok(Position(position)));
            position += (HEADER_BYTES + request.wire.len()) as u64;
        }
        self.next = at;
        self.shared.last_arrived.store(arrived.0, Ordering::Release);
        self.shared.written.store(at, Ordering::Release);
        Ok(())
    }

    /// Makes sure that nothing of a refused group is found by a replay: its sender will send it again.
    fn undo(&self, group: &[Admitted]) {
        let Some(segment) = self.segments.last() else { return };
        let mut at = self.next;
        for request in group {
            // Every header, not only the first: a later group of other lengths may let one be met again.
            if segment.end().saturating_sub(at) < HEADER_BYTES as u64 {
                return;
            }
            let _ = segment.file.write_all_at(&[0; HEADER_BYTES], at - segment.start);
            at = at.saturating_add((HEADER_BYTES + request.wire.len()) as u64);
        }
    }

    /// Goes on to the next segment, which must have room for a request of `wire_bytes`.
    fn turn(&mut self, wire_bytes: u64) -> Result<(), String> {
        let needed = wire_bytes + HEADER_BYTES as u64 + SEGMENT_HEADER_BYTES;
        if self.is_being_made {
            let wait = if self.hangs() { Duration::ZERO } else { HANGING_AFTER };
            let made = self.helper.as_ref().map(|helper| helper.made.recv_timeout(wait));
            if let Some(Err(RecvTimeoutError::Timeout)) = made {
                self.patience.end();
                return Err(HANGING.into());
            }
            self.is_being_made = false;
            match made {
                Some(Ok(Ok(made))) => self.spare = Some(Arc::new(made)),
                Some(Ok(Err(Unmade::Unsynced(error)))) => return Err(self.shared.poison(&error).to_string()),
                // Made here, which tells why it fails.
                Some(Ok(Err(Unmade::Refused(_))) | Err(_)) | None => {}
            }
        }
        let next = match self.spare.take().filter(|spare| spare.size >= needed) {
            Some(spare) => spare,
            None => Arc::new(self.make_now(needed)?),
        };
        if let Some(last) = self.segments.last() {
            last.used.store(self.next, Ordering::Release);
        }
        self.next = next.first();
        self.segments.push(next);
        self.publish();
        Ok(())
    }

    /// Has the next segment made beside the appending.
    fn make_ahead(&mut self) {
        // When the journal is full, this is tried again with each append until it is not.
        if let Ok(job) = self.plan(0)
            && let Some(helper) = &self.helper
        {
            self.is_being_made = helper.jobs.send(job).is_ok();
        }
    }

    fn make_now(&mut self, at_least: u64) -> Result<Segment, String> {
        let job = self.plan(at_least)?;
        let failed = match Segment::make(&self.dir, job.start, job.size, job.recycled.as_deref()) {
            Ok(made) => return Ok(made),
            Err(Unmade::Unsynced(error)) => return Err(self.shared.poison(&error).to_string()),
            Err(Unmade::Refused(error)) => error,
        };
        // A full disk: give up the oldest part of the recording rather than the newest.
        if failed.kind() == io::ErrorKind::StorageFull
            && let Some(oldest) = self.pop_oldest()
        {
            match Segment::make(&self.dir, job.start, job.size, Some(&oldest)) {
                Ok(made) => return Ok(made),
                Err(Unmade::Unsynced(error)) => return Err(self.shared.poison(&error).to_string()),
                Err(Unmade::Refused(_)) => {}
            }
        }
        Err(format!("the next segment of the journal cannot be made: {failed}"))
    }

    /// The next segment, of the usual size or of `at_least`: in a new file, or in that of the oldest
    /// when the journal has reached its bound.
    fn plan(&mut self, at_least: u64) -> Result<Job, String> {
        let size = self.sizes.segment_bytes.max(at_least);
        let start = self.segments.last().map_or(self.next_segment, |last| last.end().max(self.next_segment));
        let mut recycled: Option<Arc<Segment>> = None;
        while self.segments.iter().map(|segment| segment.size).sum::<u64>() + size > self.sizes.max_bytes {
            if self.segments.len() < 2 {
                break;
            }
            let Some(oldest) = self.pop_oldest() else {
                if recycled.is_some() {
                    break;
                }
                return Err("the journal is full up to the last checkpoint".into());
            };
            if let Some(another) = recycled.replace(oldest) {
                disk::remove_file(&another.path).map_err(|error| error.to_string())?;
            }
        }
        Ok(Job { start, size, recycled })
    }

    /// Takes the oldest segment out, if it is not the one in hand and no checkpoint needs it. Readers
    /// do not begin with it any more; those that already did notice by the positions.
    fn pop_oldest(&mut self) -> Option<Arc<Segment>> {
        let checkpoint = self.shared.checkpoint.load(Ordering::Acquire);
        if self.segments.len() < 2 || self.segments.first().is_none_or(|oldest| oldest.end() > checkpoint) {
            return None;
        }
        let oldest = self.segments.remove(0);
        self.publish();
        Some(oldest)
    }

    /// Writes everything to the disk.
    ///
    /// # Errors
    /// [`Error::Poisoned`], now and from then on.
    pub fn sync(&self) -> Result<(), Error> {
        for segment in &self.segments {
            segment.sync().map_err(|error| self.shared.poison(&error))?;
        }
        self.poisoned()
    }
}

/// Requests in one write: two slices each stay far below the kernel's limit of 1,024.
pub(super) const IOV_REQUESTS: usize = 64;

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(Helper { jobs, thread, .. }) = self.helper.take() {
            drop(jobs);
            let _ = thread.join();
        }
    }
}

/// Runs the helper. If it panics nobody syncs any more: then nothing more may be acknowledged.
fn helping(shared: &Shared, help: impl FnOnce()) {
    struct Fate<'a>(&'a Shared);
    impl Drop for Fate<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                self.0.poison(&io::Error::other("the thread journal-helper, which syncs it, has ended"));
            }
        }
    }
    let _fate = Fate(shared);
    help();
}

fn help(
    dir: &Path,
    shared: &Shared,
    syncs: bool,
    jobs: &Receiver<Job>,
    made: &Sender<Result<Segment, Unmade>>,
) {
    let mut synced = Instant::now();
    loop {
        match jobs.recv_timeout(SYNC_EVERY.saturating_sub(synced.elapsed())) {
            Ok(job) => {
                let segment = Segment::make(dir, job.start, job.size, job.recycled.as_deref());
                if made.send(segment).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        shared.helper_beat.step();
        if synced.elapsed() < SYNC_EVERY {
            continue;
        }
        synced = Instant::now();
        if !syncs {
            continue;
        }
        for segment in shared.segments.load().iter() {
            if let Err(error) = segment.sync() {
                // What was acknowledged may be lost, and a second try would not tell: never go on.
                shared.poison(&error);
                return;
            }
            shared.helper_beat.step();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::{request, wire};

    #[test]
    fn patience_ends_with_a_helper_that_hangs_and_not_with_a_process_that_stood_still() {
        let begun = Instant::now();
        let mut patience = Patience::new(begun);
        let at = |seconds: f64| begun + Duration::from_secs_f64(seconds);
        // It gets on, however seldom somebody looks.
        assert!((1..100u32).all(|look| !patience.look(look.into(), at(f64::from(look) * 60.0))));
        // A process that stood still for an hour.
        assert!(!patience.look(99, at(10_000.0)));
        // Nine seconds of looks are not enough, ten are, and one step ends it.
        assert!((1..=90u32).all(|look| !patience.look(100, at(10_000.0 + f64::from(look) / 10.0))));
        assert!(patience.look(100, at(10_009.5)) || patience.look(100, at(10_010.2)));
        assert!(!patience.look(101, at(10_010.3)));
    }

    #[test]
    fn when_the_thread_that_syncs_panics_nothing_more_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let sizes = Sizes { segment_bytes: 8 << 10, max_bytes: 64 << 10 };
        let (dir, shared) = (folder.path().to_owned(), Arc::new(Shared::default()));
        let mut writer =
            Writer::open(dir, sizes, Durability::Interval, shared.clone(), Vec::new(), 0).unwrap();
        let mut append = |number| {
            let group = [request(wire(number, 100), &[0]).0];
            writer.append(&group, Timestamp::from_secs(1_000), &mut Vec::new())
        };
        append(1).unwrap();
        let panicking = move || helping(&shared, || panic!("on purpose"));
        thread::spawn(panicking).join().unwrap_err();
        let refused = append(2).unwrap_err().to_string();
        assert!(refused.contains("journal-helper"), "{refused}");
    }
}
