//! Views that the three signals share: attributes and their values, resources, scopes.
//!
//! A view borrows from bytes that [`super::Checked`] has seen whole; of bytes that were not checked
//! it shows what lies before the damage.

use super::plain::plain_pair;
use super::wire::{Field, Fields, Repeated, Value};
use std::fmt;
use std::marker::PhantomData;

/// A view of one message.
pub trait View<'a>: Sized {
    fn of(message: &'a [u8]) -> Self;
}

/// The views of a repeated message field.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a, V> {
    messages: Repeated<'a>,
    view: PhantomData<V>,
}

impl<'a, V> Views<'a, V> {
    pub(super) const fn of(message: &'a [u8], number: u32) -> Self {
        Self { messages: Repeated::of(message, number), view: PhantomData }
    }
}

impl<'a, V: View<'a>> Iterator for Views<'a, V> {
    type Item = V;

    #[inline]
    fn next(&mut self) -> Option<V> {
        self.messages.next().map(V::of)
    }
}

/// Text that was checked to be UTF-8.
#[inline]
pub(super) fn text(value: Value<'_>) -> &str {
    match value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        _ => "",
    }
}

#[inline]
pub(super) const fn bytes(value: Value<'_>) -> &[u8] {
    match value {
        Value::Bytes(bytes) => bytes,
        _ => &[],
    }
}

/// Numbers of every layout; narrower types take the low bits, as prost does.
#[inline]
pub(super) fn number(value: Value<'_>) -> u64 {
    match value {
        Value::Varint(n) | Value::Fixed64(n) => n,
        Value::Fixed32(n) => u64::from(n),
        Value::Bytes(_) | Value::Group => 0,
    }
}

#[inline]
pub(super) fn double(value: Value<'_>) -> f64 {
    f64::from_bits(number(value))
}

/// Zigzag encoding: `sint32`.
#[inline]
pub(super) fn zigzag(value: Value<'_>) -> i32 {
    let n = number(value) as u32;
    ((n >> 1) as i32) ^ -((n & 1) as i32)
}

/// The last occurrence of a length-delimited field.
pub(super) fn last(message: &[u8], number: u32) -> Option<&[u8]> {
    Repeated::of(message, number).last()
}

/// Keys and their values, in the order in which they were sent. Keys may repeat.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(Repeated<'a>);

impl<'a> Attributes<'a> {
    pub(super) const fn of(message: &'a [u8], number: u32) -> Self {
        Self(Repeated::of(message, number))
    }

    /// The value of a key; of several the last.
    #[must_use]
    pub fn get(self, key: &str) -> Option<AnyValue<'a>> {
        let mut found = None;
        for pair in self.0 {
            match plain_pair(pair) {
                Some((name, _)) if name != key.as_bytes() => {}
                Some((_, value)) => found = Some(AnyValue::of(value)),
                None => {
                    let (name, value) = read_pair(pair);
                    if name == key {
                        found = Some(value);
                    }
                }
            }
        }
        found
    }
}

impl<'a> Attributes<'a> {
    /// The bytes of each `KeyValue` message.
    #[inline]
    pub fn messages(self) -> impl Iterator<Item = &'a [u8]> {
        self.0
    }

    /// The bytes of each key, and of the `AnyValue` message of each value.
    #[inline]
    pub fn raw(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0.map(|pair| plain_pair(pair).unwrap_or_else(|| raw_pair(pair)))
    }
}

#[cold]
fn raw_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    (last(pair, 1).unwrap_or_default(), last(pair, 2).unwrap_or_default())
}

#[inline]
fn read_pair(pair: &[u8]) -> (&str, AnyValue<'_>) {
    if let Some((key, value)) = plain_pair(pair) {
        return (std::str::from_utf8(key).unwrap_or_default(), AnyValue::of(value));
    }
    let mut key = "";
    let mut value = AnyValue::Empty;
    for field in Fields::of(pair) {
        match field {
            Field { number: 1, value } => key = text(value),
            Field { number: 2, value: inner } => value = AnyValue::of(bytes(inner)),
            _ => {}
        }
    }
    (key, value)
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, AnyValue<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(read_pair)
    }
}

/// The value of an attribute, or the body of a log record.
#[derive(Clone, Copy, Debug, Default)]
pub enum AnyValue<'a> {
    #[default]
    Empty,
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Views<'a, Self>),
    KeyValues(Attributes<'a>),
    Bytes(&'a [u8]),
    /// An index into a table of texts, which only profiles have.
    TextIndex(i32),
}

impl<'a> View<'a> for AnyValue<'a> {
    #[inline]
    fn of(message: &'a [u8]) -> Self {
        let mut found = Self::Empty;
        for Field { number: field, value } in Fields::of(message) {
            found = match field {
                1 => Self::Text(text(value)),
                2 => Self::Bool(number(value) != 0),
                3 => Self::Int(number(value) as i64),
                4 => Self::Double(double(value)),
                5 => Self::Array(Views::of(bytes(value), 1)),
                6 => Self::KeyValues(Attributes::of(bytes(value), 1)),
                7 => Self::Bytes(bytes(value)),
                8 => Self::TextIndex(number(value) as i32),
                _ => found,
            };
        }
        found
    }
}

impl<'a> AnyValue<'a> {
    #[must_use]
    pub const fn as_str(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    #[must_use]
    pub const fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// JSON, as values within arrays and maps are written.
    fn write_json(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => out.write_str("null"),
            Self::Text(text) => write_json_text(text, out),
            Self::Bytes(_) => write!(out, "\"{self}\""),
            Self::Double(n) if !n.is_finite() => write!(out, "\"{n}\""),
            _ => fmt::Display::fmt(self, out),
        }
    }
}

fn write_json_text(text: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write;
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if c < ' ' => write!(out, "\\u{:04x}", c as u32)?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

/// The value as text, as OpenTelemetry asks for systems that know no other: text as it is, numbers in
/// decimal, arrays and maps as JSON, bytes in Base64, nothing as nothing.
impl fmt::Display for AnyValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Text(text) => f.write_str(text),
            Self::Bool(yes) => write!(f, "{yes}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::Double(n) => write!(f, "{n}"),
            Self::TextIndex(n) => write!(f, "#{n}"),
            Self::Bytes(bytes) => super::base64::write(bytes, f),
            Self::Array(values) => {
                f.write_str("[")?;
                for (number, value) in values.enumerate() {
                    f.write_str(if number == 0 { "" } else { "," })?;
                    value.write_json(f)?;
                }
                f.write_str("]")
            }
            Self::KeyValues(pairs) => {
                f.write_str("{")?;
                for (number, (key, value)) in pairs.enumerate() {
                    f.write_str(if number == 0 { "" } else { "," })?;
                    write_json_text(key, f)?;
                    f.write_str(":")?;
                    value.write_json(f)?;
                }
                f.write_str("}")
            }
        }
    }
}

/// The resource that items come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceView<'a>(&'a [u8]);

impl<'a> ResourceView<'a> {
    pub(super) const fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.0, 1)
    }

    /// The raw message: equal bytes mean an equal resource.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// The instrumentation scope that items come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct InstrumentationScope<'a> {
    pub name: &'a str,
    pub version: &'a str,
    message: &'a [u8],
}

impl<'a> View<'a> for InstrumentationScope<'a> {
    fn of(message: &'a [u8]) -> Self {
        let mut scope = Self { message, ..Self::default() };
        for Field { number, value } in Fields::of(message) {
            match number {
                1 => scope.name = text(value),
                2 => scope.version = text(value),
                _ => {}
            }
        }
        scope
    }
}

impl<'a> InstrumentationScope<'a> {
    /// The raw message: equal bytes mean an equal scope.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.message
    }

    #[must_use]
    pub const fn attributes(&self) -> Attributes<'a> {
        Attributes::of(self.message, 3)
    }
}

/// All that one resource sent in a request.
#[derive(Clone, Copy, Debug)]
pub struct OfResource<'a, V> {
    message: &'a [u8],
    view: PhantomData<V>,
}

impl<'a, V> OfResource<'a, V> {
    pub(super) const fn of(message: &'a [u8]) -> Self {
        Self { message, view: PhantomData }
    }

    #[must_use]
    pub fn resource(&self) -> ResourceView<'a> {
        ResourceView(last(self.message, 1).unwrap_or_default())
    }

    #[must_use]
    pub fn schema_url(&self) -> &'a str {
        last(self.message, 3).map(|bytes| text(Value::Bytes(bytes))).unwrap_or_default()
    }

    #[must_use]
    pub const fn scopes(&self) -> Views<'a, OfScope<'a, V>> {
        Views::of(self.message, 2)
    }
}

/// All that one instrumentation scope of a resource sent in a request.
#[derive(Clone, Copy, Debug)]
pub struct OfScope<'a, V> {
    message: &'a [u8],
    view: PhantomData<V>,
}

impl<'a, V> View<'a> for OfScope<'a, V> {
    fn of(message: &'a [u8]) -> Self {
        Self { message, view: PhantomData }
    }
}

impl<'a, V: View<'a>> OfScope<'a, V> {
    #[must_use]
    pub fn scope(&self) -> InstrumentationScope<'a> {
        InstrumentationScope::of(last(self.message, 1).unwrap_or_default())
    }

    #[must_use]
    pub fn schema_url(&self) -> &'a str {
        last(self.message, 3).map(|bytes| text(Value::Bytes(bytes))).unwrap_or_default()
    }

    /// Spans, log records or metrics.
    #[must_use]
    pub const fn items(&self) -> Views<'a, V> {
        Views::of(self.message, 2)
    }
}
