//! Trace and span ids as OpenTelemetry defines them: 16 and 8 bytes, all zero = absent; and ids of our own,
//! which follow from what they stand for.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! hex_id {
    ($name:ident, $bytes:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            pub const NONE: Self = Self([0; $bytes]);

            /// The id in wire bytes; `NONE` unless they have exactly the right length.
            #[must_use]
            pub fn from_wire(bytes: &[u8]) -> Self {
                bytes.try_into().map_or(Self::NONE, Self)
            }

            /// Reads lower- or upper-case hexadecimal digits of exactly the right number.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let digits = text.as_bytes();
                if digits.len() != 2 * $bytes {
                    return None;
                }
                let mut id = [0u8; $bytes];
                for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
                    let pair = std::str::from_utf8(pair).ok()?;
                    *byte = u8::from_str_radix(pair, 16).ok().filter(|_| !pair.starts_with('+'))?;
                }
                Some(Self(id))
            }

            #[must_use]
            pub fn is_none(&self) -> bool {
                *self == Self::NONE
            }
        }

        /// Lower-case hexadecimal.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    Self::from_hex(&text)
                        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no id")))
                } else {
                    <[u8; $bytes]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

hex_id!(TraceId, 16, "Id of a trace.");
hex_id!(SpanId, 8, "Id of a span within its trace.");

/// A short name of something by what makes it up: 16 hexadecimal digits of BLAKE3 over the parts, each behind
/// its length, so that no two lists of parts look alike.
#[must_use]
pub fn name_of(parts: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let id = SpanId([0, 1, 2, 0xab, 4, 5, 6, 0xff]);
        assert_eq!(id.to_string(), "000102ab040506ff");
        assert_eq!(SpanId::from_hex("000102AB040506ff"), Some(id));
        assert_eq!(SpanId::from_hex("000102AB040506f"), None);
        assert_eq!(SpanId::from_hex("+00102AB040506ff"), None);
        assert_eq!(SpanId::from_wire(&[1, 2, 3]), SpanId::NONE);
    }
}
