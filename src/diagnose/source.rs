//! Where a capture reads from: the journal, or requests held in memory.

use super::Error;
use crate::journal::{Backstep, Filter, Recorder};
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

/// What a reading backwards comes to.
#[derive(Clone, Copy, Debug)]
pub enum Backwards<'a> {
    Request(Recorded<'a>),
    /// All that arrived from then on has been given.
    Since(Timestamp),
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

    /// Calls `each` with every request that arrived before a time and may hold items of this filter, part by part, the
    /// newest part first, until it breaks off. Within a part requests come in the order they came.
    ///
    /// # Errors
    /// When what was recorded cannot be read.
    fn read_backward(
        &self,
        before: Timestamp,
        filter: &Filter,
        each: &mut dyn FnMut(Backwards<'_>) -> ControlFlow<()>,
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

    fn read_backward(
        &self,
        before: Timestamp,
        filter: &Filter,
        each: &mut dyn FnMut(Backwards<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        for step in Self::read_backward(self, before, filter) {
            let next = match step {
                Backstep::Since(since) => each(Backwards::Since(since)),
                Backstep::Record(record) => {
                    // As above: one that cannot be inflated must not cost all others.
                    let Ok(body) = record.body() else { continue };
                    let read_bytes = record.wire.len() as u64;
                    let (signal, arrived) = (record.signal, record.arrived);
                    each(Backwards::Request(Recorded { signal, arrived, body: &body, read_bytes }))
                }
            };
            if next.is_break() {
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

    fn read_backward(
        &self,
        before: Timestamp,
        _: &Filter,
        each: &mut dyn FnMut(Backwards<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let wanted: Vec<_> = self.requests.iter().filter(|(_, _, at)| *at < before).collect();
        // A part is what has one time.
        let _ = wanted.chunk_by(|a, b| a.2 == b.2).rev().try_for_each(|part| {
            part.iter().try_for_each(|(signal, body, at)| {
                let read_bytes = body.len() as u64;
                each(Backwards::Request(Recorded { signal: *signal, arrived: *at, body, read_bytes }))
            })?;
            part.first().map_or(ControlFlow::Continue(()), |(_, _, at)| each(Backwards::Since(*at)))
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
