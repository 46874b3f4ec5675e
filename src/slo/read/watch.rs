//! Notices that files changed.

use super::document::{Refused, Taken, files_of, read_all};
use crate::slo::Definition;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files with objectives, and what they were like when they were last looked at.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    /// Objectives that are there whatever stands in the files.
    own: Vec<Definition>,
    seen: Option<Vec<(PathBuf, Option<(SystemTime, u64)>)>>,
    /// Files that held something when they were last taken.
    full: BTreeSet<PathBuf>,
}

impl Files {
    #[must_use]
    pub const fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, own: Vec::new(), seen: None, full: BTreeSet::new() }
    }

    /// The same with objectives that are there whatever stands in the files.
    #[must_use]
    pub fn with(mut self, own: Vec<Definition>) -> Self {
        self.own = own;
        self
    }

    /// Reads the files if any of them changed since the last look, whether or not that could be read.
    ///
    /// # Errors
    /// They cannot be taken, said once for each change: whoever has objectives from before keeps those.
    pub fn changed(&mut self) -> Result<Option<Taken>, Refused> {
        let stamp = |path: PathBuf| {
            let known = std::fs::metadata(&path).ok();
            let known = known.and_then(|known| Some((known.modified().ok()?, known.len())));
            (path, known)
        };
        let now: Vec<_> = files_of(&self.paths)?.into_iter().map(stamp).collect();
        if self.seen.as_ref() == Some(&now) {
            return Ok(None);
        }
        let files: Vec<PathBuf> = now.iter().map(|(path, _)| path.clone()).collect();
        self.seen = Some(now);
        let mut taken = read_all(&self.paths)?;
        let is_empty = |path: &Path| taken.empty.iter().any(|error| error.path() == path);
        // Editors empty a file before they write it anew, and what an objective counted goes with it.
        if self.full.iter().any(|path| is_empty(path)) {
            return Err(Refused(taken.empty));
        }
        self.full = files.into_iter().filter(|path| !is_empty(path)).collect();
        // What somebody wrote comes first: of two with one name, that one is kept.
        taken.definitions.extend(self.own.iter().cloned());
        Ok(Some(taken))
    }
}
