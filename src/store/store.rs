//! Sealed windows and checkpoints on disk.

use super::checkpoint::{decode, encode};
use super::contents::{Contents, Stored};
use super::database::{BLOCKS, Db, META, SERIES};
use super::files::{Block, Files};
use super::rollup::{Left, Rollup};
use crate::aggregate::Cell;
use crate::disk;
use crate::journal::Cut;
use crate::model::{SeriesId, SeriesKey, Timestamp, WINDOW, WindowId};
use crate::store::{Checkpoint, Config, Error, Ledger, Level, PieceKey};
use crate::window::{Forgotten, Merged, Registry, SealedWindow};
use parking_lot::{Mutex, RwLock};
use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A handle; clones share the store.
///
/// What is sealed stays in memory until [`Store::commit`], which writes all of it up to the
/// checkpoint's cut, and the checkpoint, as one. After a crash the windows behind the last checkpoint
/// are made again by the replay, so each is kept exactly once.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    db: Arc<Db>,
    files: Files,
    ledger: Ledger,
    /// Knows the series whose keys are in the database, once somebody asked for it.
    registry: OnceLock<Arc<Registry>>,
    state: RwLock<State>,
    /// One commit at a time.
    commit: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    contents: Contents,
    /// Every window of 10 s before this is held or on its way.
    through: WindowId,
    /// How far things stood, by number of the cut, since the last checkpoint.
    marks: VecDeque<(u64, Mark)>,
    committed: Mark,
    series: VecDeque<(u64, SeriesId, Arc<SeriesKey>)>,
    next_block: u64,
    /// A commit failed half way: the database may name blocks that are not in `contents`.
    doubtful: bool,
    pending_cells: u64,
    dropped_windows: u64,
    /// The hour in which was last looked for series to forget.
    forgot_h: u64,
}

/// How far windows were sealed and rolled up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Mark {
    through: WindowId,
    left: [WindowId; 3],
}

/// How much the store holds, for `status` and `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of blocks and database on disk.
    pub bytes: u64,
    pub blocks: u64,
    /// Windows that wait in memory for a checkpoint, roll-ups included.
    pub pending_windows: u64,
    /// Windows let go because no checkpoint could be written for too long.
    pub dropped_windows: u64,
    /// Blocks that could not be read.
    pub damaged_blocks: u64,
}

impl Store {
    /// Opens the store in `dir`, making it if it is not there.
    ///
    /// # Errors
    /// If it is in use, of another version, or the disk fails.
    pub fn open(dir: &Path, config: Config) -> Result<Self, Error> {
        Self::open_with(dir, config, true)
    }

    /// A store that does not wait for the disk, for backtests: a crash may lose all of it.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn scratch(dir: &Path, config: Config) -> Result<Self, Error> {
        Self::open_with(dir, config, false)
    }

    fn open_with(dir: &Path, config: Config, durable: bool) -> Result<Self, Error> {
        disk::make_folders(dir).map_err(Error::file(dir))?;
        let db = Arc::new(Db::open(&dir.join("barograph.redb"), durable)?);
        let files = Files::open(dir.join("blocks"), durable, db.poison(), config.cache_cells)?;
        let (blocks, mark, floor) = db.read(|transaction| {
            let mut blocks = BTreeMap::new();
            for entry in transaction.open_table(BLOCKS)?.iter()? {
                let (number, block) = entry?;
                blocks.insert(number.value(), decode::<Block>(block.value())?);
            }
            let meta = transaction.open_table(META)?;
            let mark = meta.get("mark")?.map(|bytes| decode(bytes.value())).transpose()?;
            let floor = meta.get("floor")?.map(|bytes| decode(bytes.value())).transpose()?;
            Ok((blocks, mark.unwrap_or_default(), floor.unwrap_or_default()))
        })?;
        let deleted = files.delete_unnamed(&blocks)?;
        if deleted > 0 {
            tracing::info!(deleted, "deleted blocks that no checkpoint names");
        }
        let next_block = blocks.last_key_value().map_or(0, |(number, _)| number + 1);
        let mut contents = Contents { blocks: Arc::new(blocks), floor, ..Contents::default() };
        let mut left = Left::new();
        let read = |level, from| {
            Ok::<_, Error>(contents.gather(&files, level, from, WindowId(u64::MAX)).into_values().collect())
        };
        let Mark { left: rolled, through } = mark;
        contents.rollup = Rollup::restore(rolled, read, &mut left)?;
        contents.pending.extend(left);
        let ledger = Ledger::over(db.clone())?;
        let pending_cells = contents.pending.iter().map(|(_, window)| cost(window)).sum();
        let state =
            State { pending_cells, contents, through, committed: mark, next_block, ..State::default() };
        Ok(Self(Arc::new(Inner {
            config,
            db,
            files,
            ledger,
            registry: OnceLock::new(),
            state: RwLock::new(state),
            commit: Mutex::new(()),
        })))
    }

    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.0.ledger.clone()
    }

    /// The last checkpoint.
    ///
    /// # Errors
    /// Of the database.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, Error> {
        self.0.db.read(Checkpoint::read)
    }

    /// All pieces of states that the last checkpoint left, in ascending order.
    ///
    /// # Errors
    /// Of the database.
    pub fn pieces(&self) -> Result<Vec<(PieceKey, Vec<u8>)>, Error> {
        self.0.db.read(Checkpoint::read_pieces)
    }

    /// The series that the last checkpoint knew, for shards that hold `series` at most. From now on each commit lets
    /// go of those to which neither a stored window nor anything live refers; the registry is the same for all who ask.
    ///
    /// # Errors
    /// Of the database.
    pub fn registry(&self, series: u64) -> Result<Arc<Registry>, Error> {
        if let Some(known) = self.0.registry.get() {
            return Ok(known.clone());
        }
        let registry = self.0.db.read(|transaction| {
            let registry = Registry::bounded(series);
            for entry in transaction.open_table(SERIES)?.iter()? {
                let (id, row) = entry?;
                let (heard_h, key) = decode(row.value())?;
                registry.restore(SeriesId(id.value()), key, heard_h);
            }
            registry.settle();
            Ok(registry)
        })?;
        Ok(self.0.registry.get_or_init(|| Arc::new(registry)).clone())
    }

    /// Keeps what a cut made: its new series, the windows that it sealed, and what came for earlier ones. Call in the
    /// order of cuts.
    pub fn keep(&self, merged: &Merged) {
        self.add_series(merged.tick.cut, &merged.tick.new);
        merged.sealed.iter().for_each(|window| _ = self.seal(window.clone()));
        merged.amendments.iter().for_each(|amendment| self.amend(amendment.clone()));
    }

    /// Keeps series that were new at a cut (`Tick::new`); call in the order of cuts.
    pub fn add_series(&self, cut: Cut, new: &[(SeriesId, Arc<SeriesKey>)]) {
        if !new.is_empty() {
            let mut state = self.0.state.write();
            state.series.extend(new.iter().map(|(id, key)| (cut.number, *id, key.clone())));
        }
    }

    /// Keeps a sealed window; call in the order of sealing. A window that is held already (sealed
    /// before the last checkpoint) is not taken again: `false`.
    pub fn seal(&self, window: Arc<SealedWindow>) -> bool {
        let mut state = self.0.state.write();
        if window.id < state.through {
            return false;
        }
        state.through = window.id.next();
        let mut left = Left::new();
        state.contents.rollup.seal(&window, &mut left);
        state.keep(window, left, self.0.config.pending_cells);
        true
    }

    /// Keeps an amendment; call in the order of the cuts that made them, after that cut's windows.
    pub fn amend(&self, amendment: Arc<SealedWindow>) {
        let mut state = self.0.state.write();
        let mut left = Left::new();
        state.contents.rollup.amend(&amendment, &mut left);
        state.keep(amendment, left, self.0.config.pending_cells);
    }

    /// Windows of the width `step` that overlap `from..to`, ascending: blocks, what is not yet
    /// written, and amendments, added up; times in which the daemon did not run have none. Where
    /// windows of that width were deleted, the coarser ones that are left. The last window may be
    /// incomplete: it has what was sealed so far. A damaged block is passed over; see
    /// [`Store::damaged`].
    #[must_use]
    pub fn windows(&self, from: Timestamp, to: Timestamp, step: Level) -> Vec<Stored> {
        let contents = self.0.state.read().contents.clone();
        let last = Timestamp(to.ns().saturating_sub(1));
        let end = if from < to { WindowId::of(last).next() } else { WindowId::of(from) };
        let mut out = Vec::new();
        contents.windows(&self.0.files, WindowId::of(from), end, step, &mut out);
        out
    }

    /// The cells of each series that `filter` wants, summed over `from..to` (rounded outwards to
    /// windows of a width fit for its length).
    #[must_use]
    pub fn series_range(
        &self,
        from: Timestamp,
        to: Timestamp,
        filter: impl Fn(SeriesId) -> bool,
    ) -> BTreeMap<SeriesId, Cell> {
        let mut sums: BTreeMap<SeriesId, Cell> = BTreeMap::new();
        let step = Level::for_range(to.since(from));
        let mut at = from;
        while at < to {
            // Piece by piece, so that a long range is never in memory as a whole.
            let next = step.end(step.slot(WindowId::of(at))).saturating_add(step.width() * 59).min(to);
            for Stored { window, .. } in self.windows(at, next, step) {
                for (series, packed) in window.cells.packed().filter(|(series, _)| filter(*series)) {
                    let Some(cell) = packed.cell() else { continue };
                    match sums.entry(series) {
                        Entry::Occupied(mut sum) => sum.get_mut().merge(&cell),
                        Entry::Vacant(free) => {
                            free.insert(cell);
                        }
                    }
                }
            }
            at = next;
        }
        sums
    }

    /// The last sealed windows of 10 s, at most `count` and none older than ten minutes before `now`:
    /// for `Windows::seed_recent` after a restart.
    #[must_use]
    pub fn recent(&self, now: Timestamp, count: usize) -> Vec<Arc<SealedWindow>> {
        let from = now.saturating_sub(Duration::from_secs(600));
        let mut windows = self.windows(from, now.saturating_add(WINDOW), Level::Seconds10);
        windows.retain(|stored| stored.level == Level::Seconds10);
        let skip = windows.len().saturating_sub(count);
        windows.into_iter().skip(skip).map(|stored| stored.window).collect()
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.0.state.read();
        let blocks = &state.contents.blocks;
        Usage {
            bytes: blocks.values().map(|block| block.bytes).sum::<u64>() + self.0.db.bytes(),
            blocks: blocks.len() as u64,
            pending_windows: state.contents.pending.len() as u64,
            dropped_windows: state.dropped_windows,
            damaged_blocks: self.0.files.damaged().len() as u64,
        }
    }

    /// Blocks that could not be read since the start, each with its path and what is wrong with it.
    #[must_use]
    pub fn damaged(&self) -> Vec<Error> {
        self.0.files.damaged()
    }

    /// Writes the checkpoint, and what was sealed or new up to its cut, as one.
    ///
    /// # Errors
    /// If the disk is full: the checkpoint before it still holds, everything stays in memory, and the next
    /// commit tries again. [`Error::Poisoned`] if it fails: nothing is written from then on.
    pub fn commit(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let _one_at_a_time = self.0.commit.lock();
        self.0.db.sound()?;
        let plan = self.0.state.write().plan(checkpoint.cut.number);
        let mut written = BTreeMap::new();
        let mut names = Names::default();
        let done = self.0.write_blocks(&plan, &mut written).and_then(|()| {
            let (victims, floor) = self.0.victims(checkpoint.cut.arrived, &plan, &written);
            names = self.0.names(checkpoint.cut, &plan, &written, &victims);
            // From here on a failure leaves the files: the transaction may have reached the disk.
            self.0.write_transaction(checkpoint, &plan, &written, &victims, floor, &names)?;
            Ok((victims, floor))
        });
        match done {
            Ok((victims, floor)) => {
                let mut state = self.0.state.write();
                state.committed(checkpoint.cut.number, &plan, written, &victims, floor);
                state.forgot_h = names.forgot_h;
                drop(state);
                for (number, level) in victims {
                    self.0.files.delete(number, level);
                }
                Ok(())
            }
            Err(error) => {
                self.0.state.write().doubtful = true;
                if let Some(registry) = self.0.registry.get() {
                    registry.put_back(names.forgotten);
                    registry.put_back_changed(&names.changed);
                }
                self.0.db.sound()?;
                Err(error)
            }
        }
    }

    /// Why nothing is written any more, if that is so: a write or sync failed otherwise than for want of room.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.0.db.poison().why()
    }
}

/// What a commit is to write.
#[derive(Debug)]
struct Plan {
    windows: BTreeMap<Level, Vec<Arc<SealedWindow>>>,
    series: Vec<(SeriesId, Arc<SeriesKey>)>,
    mark: Mark,
    blocks: Arc<BTreeMap<u64, Block>>,
    floor: [WindowId; 4],
    first_block: u64,
    doubtful: bool,
    /// Of all windows that are held, in blocks or not.
    oldest: Option<WindowId>,
    forgot_h: u64,
}

/// What a commit is to write of the names of series, beside those that are new.
#[derive(Debug, Default)]
struct Names {
    /// Series with their keys and the last hour in which they were heard, where that is another one now.
    changed: Vec<(SeriesId, Arc<SeriesKey>, u64)>,
    forgotten: Forgotten,
    forgot_h: u64,
}

type Victims = Vec<(u64, Level)>;

impl Inner {
    fn write_blocks(&self, plan: &Plan, written: &mut BTreeMap<u64, Block>) -> Result<(), Error> {
        let mut write = || {
            for (number, (level, windows)) in (plan.first_block..).zip(&plan.windows) {
                written.insert(number, self.files.write(number, *level, windows)?);
            }
            if plan.windows.is_empty() { Ok(()) } else { self.files.sync_folder() }
        };
        let done = write();
        if done.is_err() {
            // No transaction has named them.
            for (number, block) in written.iter() {
                self.files.delete(*number, block.level);
            }
        }
        done
    }

    /// What has to go because it is too old, or so that the rest fits: the finest level first, its oldest block first;
    /// but nothing that is still to be rolled up.
    fn victims(
        &self,
        now: Timestamp,
        plan: &Plan,
        written: &BTreeMap<u64, Block>,
    ) -> (Victims, [WindowId; 4]) {
        let oldest = WindowId::of(now.saturating_sub(self.config.max_age.0));
        let all: Vec<(u64, &Block)> =
            plan.blocks.iter().chain(written).map(|(number, block)| (*number, block)).collect();
        let mut bytes = all.iter().map(|(_, block)| block.bytes).sum::<u64>() + self.db.bytes();
        let (mut victims, mut floor) = (Victims::new(), plan.floor);
        for level in Level::ALL {
            for (number, block) in all.iter().filter(|(_, block)| block.level == level) {
                let after = level.after(block.last);
                if bytes <= self.config.max_bytes.0 && after > oldest {
                    continue;
                }
                if plan.mark.left.get(level as usize).is_some_and(|rolled| after > *rolled) {
                    break;
                }
                bytes -= block.bytes;
                victims.push((*number, level));
                if let Some(floor) = floor.get_mut(level as usize) {
                    *floor = after.max(*floor);
                }
            }
        }
        (victims, floor)
    }

    /// What becomes of the names of series when `victims` are gone.
    fn names(&self, cut: Cut, plan: &Plan, written: &BTreeMap<u64, Block>, victims: &Victims) -> Names {
        let (now, forgot_h) = (cut.arrived.secs(), cut.arrived.secs() / 3_600);
        let Some(registry) = self.registry.get() else { return Names::default() };
        let mut names = Names { changed: registry.take_changed(), forgot_h, ..Names::default() };
        if forgot_h != plan.forgot_h || registry.is_full() {
            let stays = |number: &u64| !victims.iter().any(|(victim, _)| victim == number);
            let blocks = plan.blocks.iter().chain(written);
            let blocks = blocks.filter(|(number, _)| stays(number)).map(|(_, block)| block.first);
            let oldest = blocks.chain(plan.oldest).min().map_or(now, |oldest| oldest.start().secs());
            names.forgotten = registry.forget(now, oldest);
        }
        names
    }

    /// Writes how series are called: those that are new, those that were heard in another hour, and what stands for
    /// those whose names are forgotten.
    fn write_names(
        &self,
        transaction: &WriteTransaction,
        plan: &Plan,
        names: &Names,
        cut: Cut,
    ) -> Result<(), Error> {
        let mut series = transaction.open_table(SERIES)?;
        let heard_h = |id: SeriesId| self.registry.get().and_then(|registry| registry.heard_h(id));
        for (id, key) in &plan.series {
            let heard_h = heard_h(*id).unwrap_or(cut.arrived.secs() / 3_600);
            series.insert(id.0, encode(&(heard_h, &**key))?.as_slice())?;
        }
        for (id, key, heard_h) in &names.changed {
            series.insert(id.0, encode(&(heard_h, &**key))?.as_slice())?;
        }
        for (id, key, heard_s) in &names.forgotten.folded {
            series.insert(id.0, encode(&(heard_s / 3_600, &**key))?.as_slice())?;
        }
        for id in &names.forgotten.gone {
            series.remove(id.0)?;
        }
        Ok(())
    }

    fn write_transaction(
        &self,
        checkpoint: &Checkpoint,
        plan: &Plan,
        written: &BTreeMap<u64, Block>,
        victims: &Victims,
        floor: [WindowId; 4],
        names: &Names,
    ) -> Result<(), Error> {
        self.db.write(|transaction| {
            checkpoint.write(transaction)?;
            self.write_names(transaction, plan, names, checkpoint.cut)?;
            let mut blocks = transaction.open_table(BLOCKS)?;
            if plan.doubtful {
                blocks.retain(|number, _| plan.blocks.contains_key(&number))?;
            }
            for (number, block) in written {
                blocks.insert(number, encode(block)?.as_slice())?;
            }
            for (number, _) in victims {
                blocks.remove(number)?;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert("mark", encode(&plan.mark)?.as_slice())?;
            meta.insert("floor", encode(&floor)?.as_slice())?;
            Ok(())
        })
    }
}

impl State {
    fn keep(&mut self, window: Arc<SealedWindow>, left: Left, limit_cells: u64) {
        let cut = window.sealed.number;
        for (level, window) in std::iter::once((Level::Seconds10, window)).chain(left) {
            self.pending_cells += cost(&window);
            self.contents.pending.push_back((level, window));
        }
        let mark = Mark { through: self.through, left: self.contents.rollup.left() };
        match self.marks.back_mut() {
            Some((last, held)) if *last == cut => *held = mark,
            _ => self.marks.push_back((cut, mark)),
        }
        while self.pending_cells > limit_cells {
            let Some((_, oldest)) = self.contents.pending.pop_front() else { break };
            self.pending_cells -= cost(&oldest);
            self.dropped_windows += 1;
        }
    }

    fn plan(&mut self, cut: u64) -> Plan {
        let mut windows: BTreeMap<Level, Vec<Arc<SealedWindow>>> = BTreeMap::new();
        for (level, window) in self.contents.pending.iter().filter(|(_, window)| window.sealed.number <= cut)
        {
            windows.entry(*level).or_default().push(window.clone());
        }
        let series = self.series.iter().filter(|(at, ..)| *at <= cut);
        let mark =
            self.marks.iter().rev().find(|(at, _)| *at <= cut).map_or(self.committed, |&(_, mark)| mark);
        let first_block = self.next_block;
        // Numbers are never used twice, so that what a failed commit left cannot be mistaken.
        self.next_block += windows.len() as u64;
        Plan {
            windows,
            series: series.map(|(_, id, key)| (*id, key.clone())).collect(),
            mark,
            blocks: self.contents.blocks.clone(),
            floor: self.contents.floor,
            first_block,
            doubtful: self.doubtful,
            oldest: self.contents.unwritten().map(|window| window.id).min(),
            forgot_h: self.forgot_h,
        }
    }

    fn committed(
        &mut self,
        cut: u64,
        plan: &Plan,
        written: BTreeMap<u64, Block>,
        victims: &Victims,
        floor: [WindowId; 4],
    ) {
        let blocks = Arc::make_mut(&mut self.contents.blocks);
        blocks.extend(written);
        for (number, _) in victims {
            blocks.remove(number);
        }
        self.contents.floor = floor;
        self.contents.pending.retain(|(_, window)| window.sealed.number > cut);
        self.pending_cells = self.contents.pending.iter().map(|(_, window)| cost(window)).sum();
        self.series.retain(|(at, ..)| *at > cut);
        self.marks.retain(|(at, _)| *at > cut);
        self.committed = plan.mark;
        self.doubtful = false;
    }
}

/// What a window weighs against `store.pending_cells`; it costs something even without cells.
fn cost(window: &SealedWindow) -> u64 {
    window.cells.len() as u64 + 1
}
