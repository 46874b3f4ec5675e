//! The check of one resource's bytes before anything of it is counted, and the views over what passed.

use super::plain::is_plain_pair;
use super::schema::{self, Kind, Label, Message};
use super::wire::{ATTRIBUTES_LIMIT, DEPTH_LIMIT, Damage, Fields, Malformed, Value, WireType};
use super::{ResourceLogs, ResourceMetrics, ResourceSpans};
use crate::model::Signal;
use opentelemetry_proto::tonic::{
    logs::v1::ResourceLogs as ProstLogs, metrics::v1::ResourceMetrics as ProstMetrics,
    trace::v1::ResourceSpans as ProstSpans,
};
use prost::Message as _;
use std::borrow::Cow;
use std::fmt::Write;

/// Largest resource that is put together again when parts of one message are scattered in it.
/// Nobody's encoder writes such; decoding it takes many times its size of memory.
const SCATTERED_LIMIT_BYTES: usize = 1 << 20;

/// One resource whose every byte was checked: prost decodes it, with the values that the views show.
#[derive(Clone, Debug)]
pub struct Checked<'a> {
    /// Canonical in one respect: no message that occurs once is scattered over several fields.
    bytes: Cow<'a, [u8]>,
}

impl<'a> Checked<'a> {
    /// Checks the bytes of a resource (a [`super::Slice`]).
    ///
    /// # Errors
    /// The first damage. Nothing of the resource may be counted then; [`count_items`] says how many
    /// items it would have had.
    pub fn new(signal: Signal, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut scattered = false;
        check(schema::resource(signal), bytes, &mut scattered)?;
        if !scattered {
            return Ok(Self { bytes: Cow::Borrowed(bytes) });
        }
        let malformed = |what| Malformed { path: String::new(), offset: 0, what };
        if bytes.len() > SCATTERED_LIMIT_BYTES {
            return Err(malformed(Damage::ScatteredTooLarge));
        }
        // Protobuf asks to merge the parts of a message that occurs more than once. That is rare
        // enough to let prost do it, so that the views need not.
        let whole = match signal {
            Signal::Traces => ProstSpans::decode(bytes).map(|message| message.encode_to_vec()),
            Signal::Logs => ProstLogs::decode(bytes).map(|message| message.encode_to_vec()),
            Signal::Metrics => ProstMetrics::decode(bytes).map(|message| message.encode_to_vec()),
        };
        whole.map(|whole| Self { bytes: Cow::Owned(whole) }).map_err(|_| malformed(Damage::TooDeep))
    }

    /// The view of a resource of spans; of no use with another signal's bytes.
    #[must_use]
    pub fn spans(&self) -> ResourceSpans<'_> {
        ResourceSpans::of(&self.bytes)
    }

    /// The view of a resource of log records; of no use with another signal's bytes.
    #[must_use]
    pub fn logs(&self) -> ResourceLogs<'_> {
        ResourceLogs::of(&self.bytes)
    }

    /// The view of a resource of metrics; of no use with another signal's bytes.
    #[must_use]
    pub fn metrics(&self) -> ResourceMetrics<'_> {
        ResourceMetrics::of(&self.bytes)
    }
}

/// Items (spans, log records, metric points) of one resource, as far as its damage lets one see.
#[must_use]
pub fn count_items(signal: Signal, bytes: &[u8]) -> u64 {
    fn inner(bytes: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
        super::wire::Repeated::of(bytes, number)
    }
    inner(bytes, 2)
        .flat_map(|scope| inner(scope, 2))
        .map(|item| match signal {
            Signal::Traces | Signal::Logs => 1,
            Signal::Metrics => Fields::of(item)
                .map(|field| match field.value {
                    Value::Bytes(data) if matches!(field.number, 5 | 7 | 9 | 10 | 11) => {
                        inner(data, 1).count() as u64
                    }
                    _ => 0,
                })
                .sum(),
        })
        .sum()
}

/// Damage on its way up, gathering the path.
struct Found {
    /// Names from the inside to the outside, with the index where the field is repeated.
    path: Vec<(&'static str, Option<usize>)>,
    offset: usize,
    what: Damage,
}

/// Whether a message that lies `depth` levels below its resource is good, and none of its parts are scattered.
#[inline(never)]
pub(super) fn is_good_message(schema: &'static Message, bytes: &[u8], depth: u32) -> bool {
    let mut scattered = false;
    check_message(schema, bytes, depth, &mut scattered).is_ok() && !scattered
}

fn check(schema: &'static Message, bytes: &[u8], scattered: &mut bool) -> Result<(), Malformed> {
    check_message(schema, bytes, 0, scattered).map_err(|found| {
        let mut path = String::new();
        for (name, index) in found.path.iter().rev() {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            if let Some(index) = index {
                let _ = write!(path, "[{index}]");
            }
        }
        Malformed { path, offset: found.offset, what: found.what }
    })
}

fn check_message(
    schema: &'static Message,
    bytes: &[u8],
    depth: u32,
    scattered: &mut bool,
) -> Result<(), Box<Found>> {
    if depth > DEPTH_LIMIT {
        return Err(Box::new(Found { path: Vec::new(), offset: 0, what: Damage::TooDeep }));
    }
    let mut fields = Fields::at_depth(bytes, depth);
    // Numbers of the messages seen that may occur once.
    let mut seen = 0u32;
    let mut attributes = 0usize;
    loop {
        let start = fields.offset();
        let field = match fields.try_next() {
            Ok(None) => return Ok(()),
            Ok(Some(field)) => field,
            Err(what) => return Err(locate(schema, bytes, start, start, what, None)),
        };
        let Some(known) = schema.field(field.number) else { continue };
        if let Kind::Message(of) = known.kind
            && std::ptr::eq(of, &schema::KEY_VALUE)
        {
            attributes = attributes.saturating_add(1);
            if attributes > ATTRIBUTES_LIMIT {
                return Err(locate(schema, bytes, start, start, Damage::TooManyAttributes, None));
            }
        }
        let result = match (known.kind, field.value) {
            // Most of a request: worth not looking up what each of its bytes may be.
            (Kind::Message(of), Value::Bytes(inner))
                if std::ptr::eq(of, &schema::KEY_VALUE) && is_plain_pair(inner) =>
            {
                continue;
            }
            (Kind::Message(of), Value::Bytes(inner)) => {
                if known.label == Label::Explicit {
                    *scattered |= seen & (1 << field.number) != 0;
                    seen |= 1 << field.number;
                }
                match check_message(of, inner, depth.saturating_add(1), scattered) {
                    Ok(()) => continue,
                    Err(found) => {
                        let content = fields.offset().saturating_sub(inner.len());
                        let offset = content.saturating_add(found.offset);
                        return Err(locate(schema, bytes, start, offset, found.what, Some(found)));
                    }
                }
            }
            (Kind::Text, Value::Bytes(text)) => {
                if text.is_ascii() || std::str::from_utf8(text).is_ok() {
                    Ok(())
                } else {
                    Err(Damage::NotUtf8)
                }
            }
            (kind, Value::Bytes(packed)) if known.label == Label::Repeated => {
                check_packed(kind.wire_type(), packed)
            }
            (kind, value) => {
                let (found, expected) = (value.wire_type(), kind.wire_type());
                if found == expected { Ok(()) } else { Err(Damage::WrongWireType { found, expected }) }
            }
        };
        if let Err(what) = result {
            return Err(locate(schema, bytes, start, start, what, None));
        }
    }
}

/// Numbers packed into one length-delimited field.
fn check_packed(wire_type: WireType, packed: &[u8]) -> Result<(), Damage> {
    match wire_type {
        WireType::Varint => {
            let mut numbers = Fields::of(packed);
            while numbers.packed_varint()?.is_some() {}
            Ok(())
        }
        WireType::Fixed64 if packed.len().is_multiple_of(8) => Ok(()),
        WireType::Fixed32 if packed.len().is_multiple_of(4) => Ok(()),
        WireType::Fixed64 | WireType::Fixed32 => Err(Damage::TruncatedFixed),
        // Repeated text and messages are not packed, and were dealt with before.
        WireType::Bytes | WireType::Group => Ok(()),
    }
}

/// Adds the field that begins at `start` to the path: its name, and how many of its kind come before.
#[cold]
fn locate(
    schema: &'static Message,
    bytes: &[u8],
    start: usize,
    offset: usize,
    what: Damage,
    inside: Option<Box<Found>>,
) -> Box<Found> {
    let mut found = inside.unwrap_or_else(|| Box::new(Found { path: Vec::new(), offset, what }));
    found.offset = offset;
    if let Some(known) = Fields::number_at(bytes, start).and_then(|number| schema.field(number)) {
        let mut before = Fields::of(bytes);
        let mut index = 0usize;
        while before.offset() < start {
            let Ok(Some(field)) = before.try_next() else { break };
            index = index.saturating_add(usize::from(field.number == known.number));
        }
        found.path.push((known.name, (known.label == Label::Repeated).then_some(index)));
    }
    found
}
