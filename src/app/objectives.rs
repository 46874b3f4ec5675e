//! Objectives from files, read again when these change.

use super::judging::Judging;
use crate::api::v1;
use crate::observe::{Collect, Exposition, Kind};
use crate::slo::{Definition, FileError, Files, Taken};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Files are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Refused files that are told at most.
const REFUSED_AT_MOST: usize = 100;

/// What the files as they are now hold, and which of them cannot be taken.
#[derive(Debug, Default)]
pub struct Reloading {
    refused: ArcSwap<Vec<v1::RefusedFile>>,
    /// Name and service of each objective that was read last.
    defined: ArcSwap<Vec<(String, String)>>,
}

impl Collect for Reloading {
    fn collect(&self, out: &mut Exposition) {
        out.single(
            "barograph_slo_files_refused",
            Kind::Gauge,
            "Files with objectives that are refused as they are now: what was read before stays.",
            u32::try_from(self.refused.load().len()).unwrap_or(u32::MAX),
        );
    }
}

/// As it is told to people and programs.
fn told(error: &FileError, left_out: bool) -> v1::RefusedFile {
    let file = error.path().display().to_string();
    match error {
        FileError::Read { source, .. } => v1::RefusedFile {
            file,
            line: None,
            key: String::new(),
            reason: format!("cannot be read: {source}"),
            left_out,
        },
        FileError::Wrong { line, key, wrong, .. } => {
            v1::RefusedFile { file, line: Some(*line), key: key.clone(), reason: wrong.clone(), left_out }
        }
    }
}

impl Reloading {
    /// Looks at the files until everything stops. Objectives change between two cuts.
    pub async fn run(
        self: Arc<Self>,
        mut files: Files,
        judging: Arc<Mutex<Judging>>,
        mut stopping: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let (this, judging) = (self.clone(), judging.clone());
            let looked = tokio::task::spawn_blocking(move || {
                this.look(&mut files, &judging);
                files
            });
            match looked.await {
                Ok(back) => files = back,
                Err(error) => {
                    tracing::error!(%error, "the files with objectives are not looked at any more");
                    return;
                }
            }
        }
    }

    fn look(&self, files: &mut Files, judging: &Mutex<Judging>) {
        match files.changed() {
            Ok(None) => {}
            Ok(Some(taken)) => {
                tracing::info!(objectives = taken.definitions.len(), "read the files with objectives again");
                let definitions = self.take(taken);
                judging.lock().judge.budgets.replace(definitions);
            }
            Err(refused) => {
                tracing::error!(error = %refused, "the objectives stay as they were");
                let refused = refused.0.iter().take(REFUSED_AT_MOST).map(|error| told(error, false));
                self.refused.store(Arc::new(refused.collect()));
            }
        }
    }

    /// Notes what was read, and gives the definitions.
    pub fn take(&self, taken: Taken) -> Vec<Definition> {
        let Taken { definitions, empty } = taken;
        for error in &empty {
            tracing::warn!(%error, "a file with objectives is empty");
        }
        let empty = empty.iter().take(REFUSED_AT_MOST).map(|error| told(error, true)).collect();
        self.refused.store(Arc::new(empty));
        let defined = definitions.iter().map(|of| (of.name.clone(), of.service.clone())).collect();
        self.defined.store(Arc::new(defined));
        definitions
    }

    /// Files that are refused as they are now.
    #[must_use]
    pub fn refused(&self) -> Vec<v1::RefusedFile> {
        self.refused.load().to_vec()
    }

    /// Name and service of each objective that is defined, whether or not its service sends anything.
    #[must_use]
    pub fn defined(&self) -> Arc<Vec<(String, String)>> {
        self.defined.load_full()
    }
}
