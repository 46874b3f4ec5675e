//! From a record back to what was admitted.

use super::{Error, Record};
use crate::limits::Permit;
use crate::otlp::{inflate, split};
use crate::receive::{Admitted, Reply};
use bytes::Bytes;

/// What a recorded request may inflate to. Admission has its own, smaller limit; this one only keeps
/// a damaged record from taking all memory.
const INFLATED_BYTES: usize = 1 << 30;

impl Record {
    /// The inflated request.
    ///
    /// # Errors
    /// [`Error::Unreadable`]
    pub fn body(&self) -> Result<Bytes, Error> {
        inflate(self.encoding, &self.wire, INFLATED_BYTES).map_err(|error| self.unreadable(error))
    }

    /// The request as it was when it was admitted: inflated and split again.
    ///
    /// # Errors
    /// [`Error::Unreadable`]
    pub fn admitted(&self) -> Result<Admitted, Error> {
        let body = self.body()?;
        let slices = split(self.signal, &body).map_err(|error| self.unreadable(error))?;
        Ok(Admitted {
            signal: self.signal,
            encoding: self.encoding,
            wire: self.wire.clone(),
            body,
            slices,
            caller: self.caller,
            permit: Permit::free(),
            reply: Reply::nobody(),
        })
    }
}
