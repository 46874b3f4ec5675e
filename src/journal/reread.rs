//! From a record back to what was admitted.

use super::{Error, Record};
use crate::limits::Permit;
use crate::otlp::{Encoding, PARTITIONS, Slice};
use crate::receive::{Admitted, Reply};
use bytes::Bytes;
use smallvec::SmallVec;
use std::hash::BuildHasher;
use std::io::Read;

/// What a recorded request may inflate to: nothing larger was ever admitted by default limits times four.
const INFLATED_BYTES: u64 = 256 << 20;

impl Record {
    /// The inflated request.
    ///
    /// # Errors
    /// [`Error::Unreadable`]
    pub fn body(&self) -> Result<Bytes, Error> {
        let mut body = Vec::new();
        match self.encoding {
            Encoding::Identity => return Ok(self.wire.clone()),
            Encoding::Gzip => flate2::read::MultiGzDecoder::new(&*self.wire)
                .take(INFLATED_BYTES)
                .read_to_end(&mut body)
                .map_err(|error| self.unreadable(error))?,
            Encoding::Zstd => zstd::Decoder::with_buffer(&*self.wire)
                .map_err(|error| self.unreadable(error))?
                .take(INFLATED_BYTES)
                .read_to_end(&mut body)
                .map_err(|error| self.unreadable(error))?,
        };
        Ok(body.into())
    }

    /// The request as it was when it was admitted: inflated and split again.
    ///
    /// # Errors
    /// [`Error::Unreadable`]
    pub fn admitted(&self) -> Result<Admitted, Error> {
        let body = self.body()?;
        let slices = split(&body).ok_or_else(|| self.unreadable("its body cannot be split"))?;
        Ok(Admitted {
            signal: self.signal,
            encoding: self.encoding,
            wire: self.wire.clone(),
            body,
            slices,
            permit: Permit::free(),
            reply: Reply::nobody(),
        })
    }
}

fn split(body: &[u8]) -> Option<SmallVec<[Slice; 8]>> {
    let mut slices = SmallVec::new();
    let mut at = 0usize;
    while at < body.len() {
        let mut rest = body.get(at..)?;
        let before = rest.len();
        let tag = prost::encoding::decode_varint(&mut rest).ok()?;
        let length = match tag & 7 {
            2 => usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?,
            0 => {
                prost::encoding::decode_varint(&mut rest).ok()?;
                0
            }
            1 => 8,
            5 => 4,
            _ => return None,
        };
        let from = at + (before - rest.len());
        let to = from.checked_add(length).filter(|&to| to <= body.len())?;
        if tag == 0x0a {
            let resource = body.get(from..to)?;
            let hash = foldhash::fast::FixedState::default().hash_one(resource);
            let partition = (hash % u64::from(PARTITIONS)) as u8;
            slices.push(Slice { partition, range: u32::try_from(from).ok()?..u32::try_from(to).ok()? });
        }
        at = to;
    }
    Some(slices)
}
