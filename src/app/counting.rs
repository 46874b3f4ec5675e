//! The counting stages on one thread: shards and windows, stepped in the journal's order. Restarts
//! and backtests count with it; the daemon takes it apart into threads.

use super::Error;
use crate::aggregate::{self, Indicator, Shard};
use crate::journal::{Cut, Index, Step};
use crate::window::{Merged, Registry, Windows};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All shards and the window stage.
pub struct Counting {
    pub shards: Vec<Shard>,
    pub windows: Windows,
}

impl Counting {
    /// `of` shards that fill the index of the recorder as they walk.
    #[must_use]
    pub fn new(
        of: u16,
        aggregate: &aggregate::Config,
        window: crate::window::Config,
        registry: Arc<Registry>,
        index: &Arc<Index>,
    ) -> Self {
        let shards = (0..of.max(1)).map(|number| {
            let mut shard = Shard::new(number, of.max(1), aggregate);
            shard.set_index(index.clone());
            shard
        });
        Self { shards: shards.collect(), windows: Windows::new(window, registry) }
    }

    /// Counts a request, or cuts: only a barrier brings something.
    pub fn step(&mut self, step: Step) -> Option<Merged> {
        match step {
            Step::Work { at, arrived, request } => {
                for shard in &mut self.shards {
                    shard.apply(at, arrived, &request);
                }
                request.release();
                None
            }
            Step::Barrier(cut) => Some(self.cut(cut)),
        }
    }

    fn cut(&mut self, cut: Cut) -> Merged {
        let partials = self.shards.iter_mut().map(|shard| shard.cut(cut)).collect();
        self.windows.merge(cut, partials)
    }

    /// Goes back to the state of a checkpoint, which may be of another number of shards.
    ///
    /// # Errors
    /// When a part cannot be read.
    pub fn restore(&mut self, parts: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
        for (name, state) in parts.iter().filter(|(name, _)| name.starts_with("shard/")) {
            for shard in &mut self.shards {
                shard.restore(state).map_err(|error| Error::part(name, &error))?;
            }
        }
        if let Some(state) = parts.get("window") {
            self.windows.restore(state).map_err(|error| Error::part("window", &error))?;
        }
        Ok(())
    }

    /// What service level indicators count from now on.
    pub fn set_indicators(&mut self, indicators: &Arc<Vec<Indicator>>) {
        for shard in &mut self.shards {
            shard.set_indicators(indicators.clone());
        }
    }
}
