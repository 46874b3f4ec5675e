//! A walker over the fields of a protobuf message, borrowing from its bytes.
//!
//! It accepts and refuses exactly what prost does (`prost::encoding`): varints of at most ten bytes
//! that fit 64 bits, keys that fit 32 bits, field numbers from 1, groups skipped whole. The two
//! listed differences are the depth limit, [`DEPTH_LIMIT`] here and 100 there, and that of attributes,
//! [`ATTRIBUTES_LIMIT`] here and none there (`check.rs`).

use super::schema;
use crate::limits::RejectedReason;
use crate::model::Signal;
use std::fmt;

/// How deep messages and groups may nest below a resource.
pub const DEPTH_LIMIT: u32 = 64;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("ends within a number")]
    TruncatedVarint,
    #[error("a number longer than 64 bits")]
    OverlongVarint,
    #[error("ends within a value of fixed width")]
    TruncatedFixed,
    #[error("announces {announced} bytes where {left} are left")]
    PastTheEnd { announced: u64, left: u64 },
    #[error("a field key over 32 bits")]
    KeyTooLarge,
    #[error("field number 0")]
    FieldNumberZero,
    #[error("wire type {0}, which does not exist")]
    UnknownWireType(u8),
    #[error("wire type {found} where {expected} belongs")]
    WrongWireType { found: WireType, expected: WireType },
    #[error("the end of a group that did not begin")]
    StrayGroupEnd,
    #[error("a group without its end")]
    UnfinishedGroup,
    #[error("text that is not UTF-8")]
    NotUtf8,
    #[error("nested deeper than {DEPTH_LIMIT} levels")]
    TooDeep,
    #[error("parts of one message are scattered over a resource too large to put together")]
    ScatteredTooLarge,
    #[error("more than {limit} resources in one request")]
    TooManyResources { limit: usize },
    #[error("more than {ATTRIBUTES_LIMIT} attributes or entries in one list")]
    TooManyAttributes,
}

impl Damage {
    /// How what is refused for it is counted.
    #[must_use]
    pub const fn reason(self) -> RejectedReason {
        match self {
            Self::TooDeep
            | Self::ScatteredTooLarge
            | Self::TooManyResources { .. }
            | Self::TooManyAttributes => RejectedReason::TooLarge,
            _ => RejectedReason::Malformed,
        }
    }
}

/// Most attributes of one span, event, link, log record, metric point, scope or resource, and most entries of one list of
/// keys and values: eighty times what SDKs send by default.
pub(super) const ATTRIBUTES_LIMIT: usize = 10_000;

/// A malformed message: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Malformed {
    /// The path of the field as in the `.proto` files: `scope_spans[1].spans[3].name`. Empty when the
    /// message itself is meant.
    pub path: String,
    /// Offset of the damaged field within the bytes that were read.
    pub offset: usize,
    pub what: Damage,
}

impl Malformed {
    /// The same, told from the request's beginning: what was wrong within the resource `index` of it.
    #[must_use]
    pub fn in_resource(mut self, signal: Signal, index: usize) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.path = format!("{}[{index}]{dot}{}", schema::resources_name(signal), self.path);
        self
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} (at byte {})", self.what, self.offset)
    }
}

/// How the value of a field is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Group,
    Fixed32,
}

impl fmt::Display for WireType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Varint => "varint",
            Self::Fixed64 => "64-bit",
            Self::Bytes => "length-delimited",
            Self::Group => "group",
            Self::Fixed32 => "32-bit",
        })
    }
}

/// The value of a field as it lies on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// A group, which was skipped.
    Group,
    Fixed32(u32),
}

impl Value<'_> {
    #[must_use]
    pub const fn wire_type(&self) -> WireType {
        match self {
            Self::Varint(_) => WireType::Varint,
            Self::Fixed64(_) => WireType::Fixed64,
            Self::Bytes(_) => WireType::Bytes,
            Self::Group => WireType::Group,
            Self::Fixed32(_) => WireType::Fixed32,
        }
    }
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
}

/// The fields of a message in the order in which they lie.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Nesting of the message, for the depth limit of groups.
    depth: u32,
}

impl<'a> Fields<'a> {
    #[must_use]
    pub const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0 }
    }

    /// The fields of a message that lies `depth` levels below its resource.
    #[must_use]
    pub const fn at_depth(bytes: &'a [u8], depth: u32) -> Self {
        Self { bytes, at: 0, depth }
    }

    /// Offset of the next field.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// The next field, or `None` at the end.
    ///
    /// # Errors
    /// What is wrong with it; the walker cannot be used further then.
    #[inline]
    pub fn try_next(&mut self) -> Result<Option<Field<'a>>, Damage> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        let value = self.value(number, wire_type, self.depth)?;
        Ok(Some(Field { number, value }))
    }

    /// The next number of a packed field, or `None` at the end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn packed_varint(&mut self) -> Result<Option<u64>, Damage> {
        if self.at >= self.bytes.len() { Ok(None) } else { self.varint().map(Some) }
    }

    /// The same for numbers of 64 bits each.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn packed_fixed64(&mut self) -> Result<Option<u64>, Damage> {
        if self.at >= self.bytes.len() { Ok(None) } else { self.fixed().map(u64::from_le_bytes).map(Some) }
    }

    /// Number of the field that begins at an offset.
    #[must_use]
    pub fn number_at(bytes: &'a [u8], offset: usize) -> Option<u32> {
        Self { bytes, at: offset, depth: 0 }.key().ok().map(|(number, _)| number)
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, u8), Damage> {
        let key = u32::try_from(self.varint()?).map_err(|_| Damage::KeyTooLarge)?;
        let wire_type = (key & 7) as u8;
        if wire_type > 5 {
            return Err(Damage::UnknownWireType(wire_type));
        }
        if key < 8 {
            return Err(Damage::FieldNumberZero);
        }
        Ok((key >> 3, wire_type))
    }

    #[inline]
    fn value(&mut self, number: u32, wire_type: u8, depth: u32) -> Result<Value<'a>, Damage> {
        Ok(match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let announced = self.varint()?;
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                let inner = usize::try_from(announced)
                    .ok()
                    .and_then(|length| rest.get(..length))
                    .ok_or(Damage::PastTheEnd { announced, left: rest.len() as u64 })?;
                self.at = self.at.saturating_add(inner.len());
                Value::Bytes(inner)
            }
            3 => {
                self.skip_group(number, depth.saturating_add(1))?;
                Value::Group
            }
            4 => return Err(Damage::StrayGroupEnd),
            _ => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
        })
    }

    #[cold]
    fn skip_group(&mut self, group: u32, depth: u32) -> Result<(), Damage> {
        if depth > DEPTH_LIMIT {
            return Err(Damage::TooDeep);
        }
        loop {
            if self.at >= self.bytes.len() {
                return Err(Damage::UnfinishedGroup);
            }
            let (number, wire_type) = self.key()?;
            if wire_type == 4 {
                return if number == group { Ok(()) } else { Err(Damage::StrayGroupEnd) };
            }
            self.value(number, wire_type, depth)?;
        }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let value = rest.first_chunk::<N>().ok_or(Damage::TruncatedFixed)?;
        self.at = self.at.saturating_add(N);
        Ok(*value)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Damage> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match *rest {
            [a, ..] if a < 0x80 => {
                self.at = self.at.saturating_add(1);
                Ok(u64::from(a))
            }
            [a, b, ..] if b < 0x80 => {
                self.at = self.at.saturating_add(2);
                Ok(u64::from(a & 0x7f) | u64::from(b) << 7)
            }
            _ => self.long_varint(rest),
        }
    }

    fn long_varint(&mut self, rest: &[u8]) -> Result<u64, Damage> {
        let mut value = 0u64;
        for (number, &byte) in rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * number);
            if byte < 0x80 {
                if number == 9 && byte > 1 {
                    return Err(Damage::OverlongVarint);
                }
                self.at = self.at.saturating_add(number).saturating_add(1);
                return Ok(value);
            }
        }
        Err(if rest.len() < 10 { Damage::TruncatedVarint } else { Damage::OverlongVarint })
    }
}

/// For messages that were checked: damage ends the iteration.
impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        self.try_next().ok().flatten()
    }
}

/// Occurrences of one length-delimited field of a checked message.
#[derive(Clone, Copy, Debug)]
pub struct Repeated<'a> {
    fields: Fields<'a>,
    number: u32,
}

impl<'a> Repeated<'a> {
    #[must_use]
    pub const fn of(message: &'a [u8], number: u32) -> Self {
        Self { fields: Fields::of(message), number }
    }
}

impl<'a> Iterator for Repeated<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            // Occurrences mostly lie one behind another.
            if let Some([tag, after @ ..]) = self.fields.bytes.get(self.fields.at..)
                && u32::from(*tag) == self.number << 3 | 2
                && let Some((inner, after)) = delimited(after)
            {
                self.fields.at = self.fields.bytes.len().saturating_sub(after.len());
                return Some(inner);
            }
            let field = self.fields.next()?;
            if let Value::Bytes(bytes) = field.value
                && field.number == self.number
            {
                return Some(bytes);
            }
        }
    }
}

/// The bytes behind a length of up to four bytes, and the rest. `None` when there are fewer, or the
/// length is longer.
#[inline(always)]
pub(super) fn delimited(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    match *rest {
        [length @ 0..0x80, ref rest @ ..] => rest.split_at_checked(usize::from(length)),
        [low, high @ 0..0x80, ref rest @ ..] => {
            rest.split_at_checked(usize::from(low & 0x7f) | usize::from(high) << 7)
        }
        [low, mid, high @ 0..0x80, ref rest @ ..] => rest.split_at_checked(
            usize::from(low & 0x7f) | usize::from(mid & 0x7f) << 7 | usize::from(high) << 14,
        ),
        [low, mid, more, high @ 0..0x80, ref rest @ ..] => rest.split_at_checked(
            usize::from(low & 0x7f)
                | usize::from(mid & 0x7f) << 7
                | usize::from(more & 0x7f) << 14
                | usize::from(high) << 21,
        ),
        _ => None,
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What prost makes of bytes as a message of which it knows no field.
    fn prost_accepts(bytes: &[u8]) -> bool {
        #[derive(Clone, PartialEq, prost::Message)]
        struct Nothing {}
        <Nothing as prost::Message>::decode(bytes).is_ok()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn the_walker_accepts_what_prost_accepts(bytes in proptest::collection::vec(
            prop_oneof![Just(0x0bu8), Just(0x0c), Just(0x80), Just(0xff), 0u8..24, any::<u8>()], 0..40)) {
            let mut fields = Fields::of(&bytes);
            let ours = loop {
                match fields.try_next() {
                    Ok(None) => break true,
                    Ok(Some(_)) => {}
                    Err(_) => break false,
                }
            };
            prop_assert_eq!(ours, prost_accepts(&bytes));
        }

        #[test]
        fn varints_go_both_ways(value: u64) {
            let mut bytes = vec![8];
            put_varint(&mut bytes, value);
            prop_assert_eq!(Fields::of(&bytes).try_next(), Ok(Some(Field { number: 1, value: Value::Varint(value) })));
        }
    }

    #[test]
    fn groups_nest_to_the_limit_and_no_further() {
        for (levels, accepted) in [(64usize, true), (65, false)] {
            let bytes = [vec![0x0b; levels], vec![0x0c; levels]].concat();
            assert_eq!(Fields::of(&bytes).try_next().is_ok(), accepted, "{levels} levels");
        }
    }
}
