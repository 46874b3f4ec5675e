//! What a shard needs to go on after a restart: its series, and the last values of its streams.

use super::series::SeriesTable;
use super::shard::Shard;
use super::streams::{Stream, StreamId};
use crate::model::{SeriesKey, Timestamp};
use serde::{Deserialize, Serialize};

/// A shard's state that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("a shard's state cannot be read: {0}")]
pub struct StateError(#[from] postcard::Error);

const VERSION: u8 = 2;

#[derive(Serialize)]
struct Outgoing<'a> {
    version: u8,
    number: u16,
    of: u16,
    born: Timestamp,
    /// k of the share 1 in 2^k of traces chosen, and the quiet barriers since it changed.
    shift: (u32, u32),
    looked: u64,
    series: Vec<(&'a SeriesKey, u64, bool)>,
    streams: Vec<(StreamId, &'a Stream)>,
}

#[derive(Deserialize)]
struct Incoming {
    version: u8,
    number: u16,
    of: u16,
    born: Timestamp,
    /// k of the share 1 in 2^k of traces chosen, and the quiet barriers since it changed.
    shift: (u32, u32),
    looked: u64,
    series: Vec<(SeriesKey, u64, bool)>,
    streams: Vec<(StreamId, Stream)>,
}

impl Shard {
    /// The state at a cut, right after it was taken.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        let outgoing = Outgoing {
            version: VERSION,
            number: self.number,
            of: self.of,
            born: self.streams.born,
            shift: (self.halves.shift, self.halves.quiet),
            looked: self.looked,
            series: SeriesTable::keys(&self.series).collect(),
            streams: self.streams.all(),
        };
        // Writing into memory fails only for types that have no length, and there are none here.
        postcard::to_stdvec(&outgoing).unwrap_or_default()
    }

    /// Takes from a state what is this shard's. After a restart with another number of shards, give
    /// every shard every state.
    ///
    /// # Errors
    /// [`StateError`]; nothing was taken then.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let incoming: Incoming = postcard::from_bytes(state)?;
        if incoming.version != VERSION {
            return Err(postcard::Error::DeserializeBadEncoding.into());
        }
        self.streams.born = self.streams.born.min(incoming.born);
        for (id, stream) in incoming.streams {
            if u16::from(stream.partition) % self.of == self.number {
                self.streams.restore(id, stream);
            }
        }
        if (incoming.number, incoming.of) == (self.number, self.of) {
            (self.halves.shift, self.halves.quiet) = (incoming.shift.0.min(16), incoming.shift.1);
            self.looked = incoming.looked;
            for (key, used, is_overflow) in incoming.series {
                self.series.restore(key, used, is_overflow);
            }
        }
        Ok(())
    }
}
