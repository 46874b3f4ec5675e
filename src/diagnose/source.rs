//! Where a capture reads from: the journal, or requests held in memory.

use super::Error;
use crate::journal::{Filter, Recorder};
use crate::model::{Signal, Timestamp};
use bytes::Bytes;
use std::ops::Range;

/// Recorded export requests.
pub trait Source {
    /// Calls `each` with the inflated body of every request that may hold items of these event times
    /// and of this filter, in the order they came. Coarse: the reader takes what it wants of a body.
    ///
    /// # Errors
    /// When what was recorded cannot be read.
    fn read(
        &self,
        times: Range<Timestamp>,
        filter: &Filter,
        each: &mut dyn FnMut(Signal, &[u8]),
    ) -> Result<(), Error>;

    /// Since when requests are held; `None` if there are none.
    fn oldest(&self) -> Option<Timestamp>;
}

impl Source for Recorder {
    fn read(
        &self,
        times: Range<Timestamp>,
        filter: &Filter,
        each: &mut dyn FnMut(Signal, &[u8]),
    ) -> Result<(), Error> {
        for record in Self::read(self, times, filter) {
            // One record that cannot be inflated must not cost the capture of all others.
            if let Ok(body) = record.body() {
                each(record.signal, &body);
            }
        }
        Ok(())
    }

    fn oldest(&self) -> Option<Timestamp> {
        Self::oldest(self).map(|(_, arrived)| arrived)
    }
}

/// Requests in memory, for recordings and tests.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Signal, body and since when its items are, in the order they came.
    pub requests: Vec<(Signal, Bytes, Timestamp)>,
}

impl Source for Memory {
    fn read(
        &self,
        _: Range<Timestamp>,
        _: &Filter,
        each: &mut dyn FnMut(Signal, &[u8]),
    ) -> Result<(), Error> {
        self.requests.iter().for_each(|(signal, body, _)| each(*signal, body));
        Ok(())
    }

    fn oldest(&self) -> Option<Timestamp> {
        self.requests.iter().map(|(_, _, at)| *at).min()
    }
}
