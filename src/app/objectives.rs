//! Objectives from files, read again when these change.

use super::judging::Judging;
use crate::observe::{Collect, Exposition, Kind};
use crate::slo::Files;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Files are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Whether the files as they are now could be taken.
#[derive(Debug, Default)]
pub struct Reloading {
    refused: AtomicBool,
}

impl Collect for Reloading {
    fn collect(&self, out: &mut Exposition) {
        out.single(
            "barograph_slo_files_refused",
            Kind::Gauge,
            "1 while the files with objectives cannot be taken and those read before stay.",
            u8::from(self.refused.load(Ordering::Relaxed)),
        );
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
            Ok(Some(definitions)) => {
                tracing::info!(objectives = definitions.len(), "read the files with objectives again");
                judging.lock().judge.budgets.replace(definitions);
                self.refused.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::error!(%error, "the objectives stay as they were");
                self.refused.store(true, Ordering::Relaxed);
            }
        }
    }
}
