//! OTLP/JSON to protobuf wire bytes, driven by the tables in `schema`.
//!
//! As the OTLP specification asks: trace and span ids in hexadecimal, enums by number (their names are
//! taken too), 64-bit integers as text or number, other bytes in Base64, names in lowerCamelCase (those
//! of the `.proto` files are taken too), unknown names ignored, `null` the same as absent.

use super::base64;
use super::json_text::{Reader, Wrong};
use super::schema::{self, Field, Kind, Label, Message};
use super::wire::{DEPTH_LIMIT, WireType, put_varint};
use crate::model::Signal;
use std::fmt::Write;

/// What is wrong with a JSON request, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{what} (at byte {offset})", .path, if .path.is_empty() { "" } else { ": " })]
pub struct JsonError {
    /// `resourceSpans[0].scopeSpans[1].spans[3].traceId`; empty when the whole is meant.
    pub path: String,
    pub offset: usize,
    pub what: String,
}

/// Damage on its way up, gathering the path.
struct Found {
    path: Vec<Segment>,
    wrong: Wrong,
    /// Nothing is wrong but that more becomes of it than may.
    is_too_large: bool,
}

enum Segment {
    Name(&'static str),
    Index(usize),
}

type Result<T> = std::result::Result<T, Box<Found>>;

impl From<Wrong> for Box<Found> {
    #[cold]
    fn from(wrong: Wrong) -> Self {
        Self::new(Found { path: Vec::new(), wrong, is_too_large: false })
    }
}

/// A number of a list takes so much at most on the wire, and in JSON a digit and a comma.
const NUMBER_BYTES: usize = 10;

/// No more bytes than this become of a JSON request: all but the numbers of lists are shorter on the wire.
#[must_use]
pub fn wire_bytes_at_most(json: &[u8]) -> usize {
    let commas = memchr::memchr_iter(b',', json).count();
    json.len().saturating_add(commas.saturating_add(1).saturating_mul(NUMBER_BYTES))
}

/// Puts a JSON request into the protobuf bytes of the same request.
///
/// # Errors
/// The first thing that is not JSON, or not of the type that belongs there.
pub fn json_to_wire(signal: Signal, json: &[u8]) -> std::result::Result<Vec<u8>, JsonError> {
    json_to_wire_within(signal, json, usize::MAX).map(Option::unwrap_or_default)
}

/// The same; `None` as soon as more than `limit_bytes` become of it.
///
/// # Errors
/// As [`json_to_wire`].
pub fn json_to_wire_within(
    signal: Signal,
    json: &[u8],
    limit_bytes: usize,
) -> std::result::Result<Option<Vec<u8>>, JsonError> {
    let whole = |offset, what: &str| JsonError { path: String::new(), offset, what: what.to_owned() };
    let text =
        std::str::from_utf8(json).map_err(|error| whole(error.valid_up_to(), "text that is not UTF-8"))?;
    let mut reader = Reader::new(text);
    reader.limit_bytes = limit_bytes;
    if reader.peek().is_none() {
        return Err(whole(0, "empty, where a JSON object belongs"));
    }
    let mut out = Vec::with_capacity(json.len() / 2);
    let read = put_message(&mut reader, schema::request(signal), 0, &mut out);
    match read.and_then(|()| Ok(reader.end()?)) {
        Ok(()) => Ok((out.len() <= limit_bytes).then_some(out)),
        Err(found) if found.is_too_large => Ok(None),
        Err(found) => {
            let mut path = String::new();
            for segment in found.path.iter().rev() {
                let _ = match segment {
                    Segment::Name(name) if path.is_empty() => write!(path, "{name}"),
                    Segment::Name(name) => write!(path, ".{name}"),
                    Segment::Index(index) => write!(path, "[{index}]"),
                };
            }
            Err(JsonError { path, offset: found.wrong.offset, what: found.wrong.what })
        }
    }
}

/// Ends the reading of what becomes too large, before it takes the memory.
fn check_limit(reader: &mut Reader<'_>, out: &[u8]) -> Result<()> {
    if out.len() <= reader.limit_bytes {
        return Ok(());
    }
    let wrong = reader.wrong(String::new());
    Err(Box::new(Found { path: Vec::new(), wrong, is_too_large: true }))
}

fn put_key(out: &mut Vec<u8>, field: &Field, wire_type: WireType) {
    let wire_type = match wire_type {
        WireType::Varint => 0,
        WireType::Fixed64 => 1,
        WireType::Bytes => 2,
        WireType::Group => 3,
        WireType::Fixed32 => 5,
    };
    put_varint(out, u64::from(field.number << 3 | wire_type));
}

/// Writes what `content` writes, preceded by its length.
fn put_delimited(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let begin = out.len();
    out.push(0);
    content(out)?;
    let length = out.len().saturating_sub(begin).saturating_sub(1);
    if let (Ok(short), Some(place)) = (u8::try_from(length), out.get_mut(begin))
        && short < 0x80
    {
        *place = short;
        return Ok(());
    }
    // Most messages are short; longer ones are moved to make room for their length.
    let mut prefix = Vec::with_capacity(5);
    put_varint(&mut prefix, length as u64);
    out.splice(begin..=begin, prefix);
    Ok(())
}

fn put_message(
    reader: &mut Reader<'_>,
    schema: &'static Message,
    depth: u32,
    out: &mut Vec<u8>,
) -> Result<()> {
    // The request itself stands one level above the resources, from which depth is counted.
    if depth > DEPTH_LIMIT.saturating_add(1) {
        return Err(reader.wrong(format!("nested deeper than {DEPTH_LIMIT} levels")).into());
    }
    reader.open(b'{', "an object")?;
    let mut first = true;
    while reader.more(&mut first, b'}')? {
        let name = reader.text("a name in quotes")?;
        let field = schema.named(&name);
        reader.colon()?;
        match field {
            None => reader.skip()?,
            Some(_) if reader.null()? => {}
            Some(field) => put_field(reader, field, depth, out).map_err(|mut found| {
                found.path.push(Segment::Name(field.json));
                found
            })?,
        }
    }
    Ok(())
}

fn put_field(reader: &mut Reader<'_>, field: &Field, depth: u32, out: &mut Vec<u8>) -> Result<()> {
    if field.label != Label::Repeated {
        return put_single(reader, field, depth, out);
    }
    if field.kind.wire_type() == WireType::Bytes {
        return each(reader, |reader| {
            put_single(reader, field, depth, out)?;
            check_limit(reader, out)
        });
    }
    let before = out.len();
    put_key(out, field, WireType::Bytes);
    let mut any = false;
    put_delimited(out, |out| {
        each(reader, |reader| {
            any = true;
            put_number(reader, field.kind, out)?;
            check_limit(reader, out)
        })
    })?;
    if !any {
        out.truncate(before);
    }
    Ok(())
}

/// Reads an array, adding the index to the path of what goes wrong.
fn each(reader: &mut Reader<'_>, mut element: impl FnMut(&mut Reader<'_>) -> Result<()>) -> Result<()> {
    reader.open(b'[', "an array")?;
    let mut first = true;
    let mut index = 0usize;
    while reader.more(&mut first, b']')? {
        element(reader).map_err(|mut found| {
            found.path.push(Segment::Index(index));
            found
        })?;
        index = index.saturating_add(1);
    }
    Ok(())
}

fn put_single(reader: &mut Reader<'_>, field: &Field, depth: u32, out: &mut Vec<u8>) -> Result<()> {
    let before = out.len();
    put_key(out, field, field.kind.wire_type());
    let value = out.len();
    match field.kind {
        Kind::Message(of) => {
            return put_delimited(out, |out| put_message(reader, of, depth.saturating_add(1), out));
        }
        Kind::Text => {
            let text = reader.text("text")?;
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        Kind::Bytes => {
            let at = reader.offset();
            let text = reader.text("text in Base64")?;
            put_delimited(out, |out| {
                base64::read(&text, out)
                    .ok_or_else(|| Wrong { offset: at, what: "not Base64".to_owned() }.into())
            })?;
        }
        Kind::Id(length) => {
            let at = reader.offset();
            let text = reader.text("text in hexadecimal")?;
            put_id(&text, length, out).ok_or_else(|| Wrong {
                offset: at,
                what: format!(
                    "expected {} hexadecimal digits or none, found {:?}",
                    length.saturating_mul(2),
                    shorten(&text)
                ),
            })?;
        }
        kind => put_number(reader, kind, out)?,
    }
    // Absent means the same, and is what encoders write.
    if field.label == Label::Implicit
        && out.get(value..).is_some_and(|value| value.iter().all(|&byte| byte == 0))
    {
        out.truncate(before);
    }
    Ok(())
}

fn shorten(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}

fn put_id(text: &str, length: usize, out: &mut Vec<u8>) -> Option<()> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || !(pairs.is_empty() || pairs.len() == length) {
        return None;
    }
    put_varint(out, pairs.len() as u64);
    for &[high, low] in pairs {
        let digit = |c: u8| char::from(c).to_digit(16);
        out.push((digit(high)? << 4 | digit(low)?) as u8);
    }
    Some(())
}

/// Reads one number (or truth value) and writes it in the layout of its kind, without a key.
fn put_number(reader: &mut Reader<'_>, kind: Kind, out: &mut Vec<u8>) -> Result<()> {
    match kind {
        Kind::Bool => out.push(u8::from(reader.boolean()?)),
        // Negative numbers of 32 bits take ten bytes on the wire, as those of 64.
        Kind::Int32 => put_varint(out, i64::from(reader.integer::<i32>()?) as u64),
        Kind::Uint32 => put_varint(out, u64::from(reader.integer::<u32>()?)),
        Kind::Sint32 => {
            let n = reader.integer::<i32>()?;
            put_varint(out, u64::from(((n << 1) ^ (n >> 31)) as u32));
        }
        Kind::Int64 => put_varint(out, reader.integer::<i64>()? as u64),
        Kind::Uint64 => put_varint(out, reader.integer::<u64>()?),
        Kind::Fixed32 => out.extend_from_slice(&reader.integer::<u32>()?.to_le_bytes()),
        Kind::Fixed64 => out.extend_from_slice(&reader.integer::<u64>()?.to_le_bytes()),
        Kind::Sfixed64 => out.extend_from_slice(&reader.integer::<i64>()?.to_le_bytes()),
        Kind::Double => out.extend_from_slice(&reader.double()?.to_le_bytes()),
        Kind::Enum(prefix, names) => {
            let at = reader.offset();
            if reader.peek() == Some(b'"') {
                let name = reader.text("a number")?;
                let number =
                    name.strip_prefix(prefix).and_then(|name| names.iter().position(|known| *known == name));
                let number = number.ok_or_else(|| Wrong {
                    offset: at,
                    what: format!("expected a number, found {:?}", shorten(&name)),
                })?;
                put_varint(out, number as u64);
            } else {
                put_varint(out, i64::from(reader.integer::<i32>()?) as u64);
            }
        }
        // Not numbers: the caller has dealt with them.
        Kind::Text | Kind::Bytes | Kind::Id(_) | Kind::Message(_) => {}
    }
    Ok(())
}
