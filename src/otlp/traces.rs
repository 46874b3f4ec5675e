//! Views of spans.

use super::common::{Attributes, OfResource, View, Views, bytes, number, text};
use super::wire::{Field, Fields};
use crate::model::{SpanId, SpanKind, Timestamp, TraceId};

/// All spans that one resource sent in a request.
pub type ResourceSpans<'a> = OfResource<'a, SpanView<'a>>;

/// `Status.StatusCode` of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusCode {
    /// Also any number that has no meaning.
    #[default]
    Unset,
    Ok,
    Error,
}

/// A span. Absent fields are zero or empty, as in protobuf.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanView<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// `NONE` in a root span.
    pub parent_span_id: SpanId,
    pub trace_state: &'a str,
    pub flags: u32,
    pub name: &'a str,
    pub kind: SpanKind,
    pub start: Timestamp,
    pub end: Timestamp,
    pub status: StatusCode,
    pub status_message: &'a str,
    pub dropped_attributes_count: u32,
    pub dropped_events_count: u32,
    pub dropped_links_count: u32,
    message: &'a [u8],
    /// The part of the message in which all attributes lie.
    attributes: &'a [u8],
}

impl<'a> View<'a> for SpanView<'a> {
    #[inline]
    fn of(message: &'a [u8]) -> Self {
        let mut span = Self { message, attributes: message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            match field {
                1 => span.trace_id = TraceId::from_wire(bytes(value)),
                2 => span.span_id = SpanId::from_wire(bytes(value)),
                3 => span.trace_state = text(value),
                4 => span.parent_span_id = SpanId::from_wire(bytes(value)),
                5 => span.name = text(value),
                6 => span.kind = SpanKind::from_wire(u64::from(number(value) as u32)),
                7 => span.start = Timestamp(number(value)),
                8 => span.end = Timestamp(number(value)),
                10 => span.dropped_attributes_count = number(value) as u32,
                12 => span.dropped_events_count = number(value) as u32,
                14 => span.dropped_links_count = number(value) as u32,
                15 => (span.status, span.status_message) = status(bytes(value)),
                16 => span.flags = number(value) as u32,
                _ => {}
            }
        }
        span
    }
}

fn status(message: &[u8]) -> (StatusCode, &str) {
    let mut code = StatusCode::Unset;
    let mut words = "";
    for Field { number: field, value } in Fields::of(message) {
        match field {
            2 => words = text(value),
            3 => {
                code = match number(value) as u32 {
                    1 => StatusCode::Ok,
                    2 => StatusCode::Error,
                    _ => StatusCode::Unset,
                }
            }
            _ => {}
        }
    }
    (code, words)
}

impl<'a> SpanView<'a> {
    /// A span whose fields are yet to be read.
    #[inline]
    pub(super) fn of_message(message: &'a [u8]) -> Self {
        Self { message, ..Self::default() }
    }

    /// No attribute lies before this rest of the message.
    #[inline]
    pub(super) fn begin_attributes(&mut self, rest: &'a [u8]) {
        self.attributes = rest;
    }

    /// Reads a `Status` message into the span.
    pub(super) fn read_status(&mut self, message: &'a [u8]) -> StatusCode {
        (self.status, self.status_message) = status(message);
        self.status
    }

    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.attributes, 9)
    }

    #[must_use]
    pub const fn events(&self) -> Views<'a, EventView<'a>> {
        Views::of(self.message, 11)
    }

    #[must_use]
    pub const fn links(&self) -> Views<'a, LinkView<'a>> {
        Views::of(self.message, 13)
    }

    /// The span's bytes on the wire.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.message
    }
}

/// An event within a span.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventView<'a> {
    pub time: Timestamp,
    pub name: &'a str,
    message: &'a [u8],
}

impl<'a> View<'a> for EventView<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut event = Self { message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            match field {
                1 => event.time = Timestamp(number(value)),
                2 => event.name = text(value),
                _ => {}
            }
        }
        event
    }
}

impl<'a> EventView<'a> {
    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, 3)
    }
}

/// A link of a span to another.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkView<'a> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub trace_state: &'a str,
    pub flags: u32,
    message: &'a [u8],
}

impl<'a> View<'a> for LinkView<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut link = Self { message, ..Self::default() };
        for Field { number: field, value } in Fields::of(message) {
            match field {
                1 => link.trace_id = TraceId::from_wire(bytes(value)),
                2 => link.span_id = SpanId::from_wire(bytes(value)),
                3 => link.trace_state = text(value),
                6 => link.flags = number(value) as u32,
                _ => {}
            }
        }
        link
    }
}

impl<'a> LinkView<'a> {
    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, 4)
    }
}
