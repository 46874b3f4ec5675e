//! Views of log records.

use super::common::{AnyValue, Attributes, OfResource, View, bytes, number, text};
use super::wire::{Field, Fields};
use crate::model::{SpanId, Timestamp, TraceId};

/// All log records that one resource sent in a request.
pub type ResourceLogs<'a> = OfResource<'a, LogView<'a>>;

/// A log record. Absent fields are zero or empty, as in protobuf.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogView<'a> {
    /// When it happened; zero if its source does not know.
    pub time: Timestamp,
    /// When the collection system first saw it.
    pub observed_time: Timestamp,
    /// `SeverityNumber`: 1-24, 0 when none is given. Other numbers have no meaning.
    pub severity_number: i32,
    pub severity_text: &'a str,
    pub body: AnyValue<'a>,
    pub flags: u32,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub event_name: &'a str,
    pub dropped_attributes_count: u32,
    message: &'a [u8],
}

impl<'a> View<'a> for LogView<'a> {
    #[inline]
    fn of(message: &'a [u8]) -> Self {
        let mut log = Self { message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            match field {
                1 => log.time = Timestamp(number(value)),
                2 => log.severity_number = number(value) as i32,
                3 => log.severity_text = text(value),
                5 => log.body = AnyValue::of(bytes(value)),
                7 => log.dropped_attributes_count = number(value) as u32,
                8 => log.flags = number(value) as u32,
                9 => log.trace_id = TraceId::from_wire(bytes(value)),
                10 => log.span_id = SpanId::from_wire(bytes(value)),
                11 => log.observed_time = Timestamp(number(value)),
                12 => log.event_name = text(value),
                _ => {}
            }
        }
        log
    }
}

impl<'a> LogView<'a> {
    /// A record whose fields are yet to be read.
    #[inline]
    pub(super) fn of_message(message: &'a [u8]) -> Self {
        Self { message, ..Self::default() }
    }

    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, 6)
    }

    /// The record's bytes on the wire.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.message
    }

    /// When it happened, or else when it was first seen.
    #[must_use]
    pub const fn time_or_observed(&self) -> Timestamp {
        if self.time.0 == 0 { self.observed_time } else { self.time }
    }
}
