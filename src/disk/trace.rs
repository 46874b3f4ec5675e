//! What was done to the files below a folder, in order.

use super::Mode;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One thing that was done. A file is known by a number, whatever its name.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Make { path: PathBuf, inode: u64 },
    MakeFolder { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Exchange { one: PathBuf, other: PathBuf },
    Remove { path: PathBuf },
    SyncFolder { path: PathBuf },
    Write { inode: u64, offset: u64, bytes: Vec<u8> },
    Length { inode: u64, length: u64 },
    Sync { inode: u64 },
}

/// What fails from some moment on: syncs or writes of files with this extension.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    pub name: &'static str,
    pub syncs: bool,
    pub writes: bool,
    /// What the system says then, by number.
    pub error: i32,
}

#[derive(Debug, Default)]
struct State {
    failure: Option<Failure>,
    names: BTreeMap<PathBuf, u64>,
    next: u64,
    ops: Vec<Op>,
}

#[derive(Debug)]
struct Log {
    root: PathBuf,
    state: Mutex<State>,
}

/// All traces that run.
static TRACES: Mutex<Vec<Arc<Log>>> = Mutex::new(Vec::new());

fn log_of(path: &Path) -> Option<Arc<Log>> {
    TRACES.lock().iter().find(|log| path.starts_with(&log.root)).cloned()
}

/// Takes out a name and those below it, each as it is called once `from` is called `to`.
pub(super) fn take_below<T>(
    names: &mut BTreeMap<PathBuf, T>,
    from: &Path,
    to: &Path,
) -> BTreeMap<PathBuf, T> {
    let below = names.extract_if(.., |name, _| name.starts_with(from));
    // An empty rest would leave a slash behind it.
    let renamed = below.map(|(name, of)| match name.strip_prefix(from) {
        Ok(rest) if !rest.as_os_str().is_empty() => (to.join(rest), of),
        _ => (to.to_owned(), of),
    });
    renamed.collect()
}

/// Whether what is done to a file is noted.
#[must_use]
pub fn is_traced(path: &Path) -> bool {
    log_of(path).is_some()
}

/// Does something to a name, and notes it if it succeeds.
pub(super) fn note(
    path: &Path,
    change: impl FnOnce() -> io::Result<()>,
    op: impl FnOnce() -> Op,
) -> io::Result<()> {
    let Some(log) = log_of(path) else { return change() };
    let mut state = log.state.lock();
    change()?;
    let op = op();
    match &op {
        Op::Rename { from, to } => {
            let moved = take_below(&mut state.names, from, to);
            state.names.extend(moved);
        }
        Op::Exchange { one, other } => {
            let moved = [take_below(&mut state.names, one, other), take_below(&mut state.names, other, one)];
            state.names.extend(moved.into_iter().flatten());
        }
        Op::Remove { path } => {
            state.names.retain(|name, _| !name.starts_with(path));
        }
        _ => {}
    }
    state.ops.push(op);
    Ok(())
}

/// A file whose changes are noted.
#[derive(Clone, Debug)]
pub(super) struct Traced {
    log: Arc<Log>,
    inode: u64,
}

impl Traced {
    pub fn open(
        path: &Path,
        mode: Mode,
        open: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<(File, Option<Self>)> {
        let Some(log) = log_of(path) else { return Ok((open()?, None)) };
        let mut state = log.state.lock();
        let file = open()?;
        let inode = match state.names.get(path) {
            Some(inode) => *inode,
            None => {
                state.next += 1;
                let inode = state.next;
                state.names.insert(path.to_owned(), inode);
                state.ops.push(Op::Make { path: path.to_owned(), inode });
                inode
            }
        };
        if mode == Mode::Replace {
            state.ops.push(Op::Length { inode, length: 0 });
        }
        drop(state);
        Ok((file, Some(Self { log, inode })))
    }

    /// Does something to the file, and notes it if it succeeds.
    pub fn note(
        &self,
        change: impl FnOnce() -> io::Result<()>,
        op: impl FnOnce(u64) -> Op,
    ) -> io::Result<()> {
        let mut state = self.log.state.lock();
        let op = op(self.inode);
        if let Some(failure) = state.failure
            && if matches!(op, Op::Sync { .. }) { failure.syncs } else { failure.writes }
            && state.names.iter().any(|(path, inode)| {
                *inode == self.inode && path.extension().is_some_and(|extension| extension == failure.name)
            })
        {
            return Err(io::Error::from_raw_os_error(failure.error));
        }
        change()?;
        state.ops.push(op);
        Ok(())
    }
}

/// Notes what is done below a folder, which is empty at first, until it is dropped.
#[derive(Debug)]
pub struct Trace(Arc<Log>);

impl Trace {
    #[must_use]
    pub fn begin(root: &Path) -> Self {
        let log = Arc::new(Log { root: root.to_owned(), state: Mutex::default() });
        TRACES.lock().push(log.clone());
        Self(log)
    }

    /// How much was done so far: a moment, for [`super::Image::at`].
    #[must_use]
    pub fn now(&self) -> usize {
        self.0.state.lock().ops.len()
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// From here on something fails.
    pub fn fail(&self, failure: Failure) {
        self.0.state.lock().failure = Some(failure);
    }

    /// From here on nothing fails.
    pub fn heal(&self) {
        self.0.state.lock().failure = None;
    }

    /// What was done, once nothing more is.
    pub(super) fn ops(&self) -> Vec<Op> {
        std::mem::take(&mut self.0.state.lock().ops)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        TRACES.lock().retain(|log| !Arc::ptr_eq(log, &self.0));
    }
}
