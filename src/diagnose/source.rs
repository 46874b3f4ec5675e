//! Where a capture reads from: the journal, or requests held in memory.

use super::Error;
use crate::journal::{Filter, Recorder};
use crate::model::{Signal, Timestamp};
use bytes::Bytes;
use std::ops::{ControlFlow, Range};

/// A request that was recorded.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    pub signal: Signal,
    pub arrived: Timestamp,
    /// Inflated.
    pub body: &'a [u8],
    /// Bytes read for it.
    pub read_bytes: u64,
}

/// Recorded export requests.
pub trait Source {
    /// Calls `each` with every request that may hold items of these event times and of this filter, in
    /// the order they came, until it breaks off. Coarse: the reader takes what it wants of a body.
    ///
    /// # Errors
    /// When what was recorded cannot be read.
    fn read(
        &self,
        times: Range<Timestamp>,
        filter: &Filter,
        each: &mut dyn FnMut(Recorded<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error>;

    /// Bytes recorded for requests of these times, about.
    fn bytes(&self, times: &Range<Timestamp>) -> u64;

    /// Since when requests are held; `None` if there are none.
    fn oldest(&self) -> Option<Timestamp>;
}

impl Source for Recorder {
    fn read(
        &self,
        times: Range<Timestamp>,
        filter: &Filter,
        each: &mut dyn FnMut(Recorded<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for record in Self::read(self, times, filter) {
            // One record that cannot be inflated must not cost the capture of all others.
            let Ok(body) = record.body() else { continue };
            let read_bytes = record.wire.len() as u64;
            if each(Recorded { signal: record.signal, arrived: record.arrived, body: &body, read_bytes })
                .is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn bytes(&self, times: &Range<Timestamp>) -> u64 {
        self.bytes_between(times)
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
        each: &mut dyn FnMut(Recorded<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let _ = self.requests.iter().try_for_each(|(signal, body, at)| {
            each(Recorded { signal: *signal, arrived: *at, body, read_bytes: body.len() as u64 })
        });
        Ok(())
    }

    fn bytes(&self, times: &Range<Timestamp>) -> u64 {
        let within = self.requests.iter().filter(|(_, _, at)| times.contains(at));
        within.map(|(_, body, _)| body.len() as u64).sum()
    }

    fn oldest(&self) -> Option<Timestamp> {
        self.requests.iter().map(|(_, _, at)| *at).min()
    }
}
