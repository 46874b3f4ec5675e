//! What evidently good parts of a message look like: laid out as encoders write them. The check passes them
//! at a glance; whatever looks otherwise is not wrong for that, but needs the whole check.

use super::wire::delimited;

/// Key and value of a `KeyValue` that is laid out as every encoder does it: one key, then one value,
/// nothing else. `None` for all others, which are not wrong for that.
#[inline(always)]
pub(super) fn plain_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, length @ 0..0x80, rest @ ..] = pair else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*length))?;
    match rest {
        [0x12, length @ 0..0x80, value @ ..] if value.len() == usize::from(*length) => Some((key, value)),
        [0x12, rest @ ..] => match delimited(rest)? {
            (value, []) => Some((key, value)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a `KeyValue` is evidently good: plainly laid out, the key ASCII, the value one field of ASCII
/// text, a truth value, a number or a double. Others need the whole check.
#[inline(always)]
pub(super) fn is_plain_pair(pair: &[u8]) -> bool {
    let Some((key, value)) = plain_pair(pair) else { return false };
    match value {
        // Tags and lengths are ASCII too, so that one look over all of the bytes is enough.
        [0x0a, length @ 0..0x80, text @ ..] if text.len() == usize::from(*length) => is_ascii(pair),
        [0x0a, rest @ ..] => {
            matches!(delimited(rest), Some((text, [])) if is_ascii(key) && is_ascii(text))
        }
        [0x10 | 0x18, number @ ..] => is_varint(number) && is_ascii(key),
        [0x21, _, _, _, _, _, _, _, _] => is_ascii(key),
        _ => false,
    }
}

/// Whether a `KeyValue` of fewer than 128 bytes is plainly laid out with a text for its value. It is good if all of
/// it is ASCII, which is for the caller to see: of many of them at once.
#[inline(always)]
pub(super) fn is_short_text_pair(pair: &[u8]) -> bool {
    let [0x0a, key_bytes, ..] = *pair else { return false };
    let Some((_, value)) = pair.split_at_checked(2 + usize::from(key_bytes)) else { return false };
    let [0x12, value_bytes, 0x0a, text_bytes, text @ ..] = value else { return false };
    pair.len() < 0x80 && usize::from(*text_bytes) == text.len() && usize::from(*value_bytes) == text.len() + 2
}

/// Whether these bytes are one number of at most nine bytes (63 bits).
#[inline(always)]
fn is_varint(bytes: &[u8]) -> bool {
    match bytes {
        [0..0x80] | [0x80..=0xff, 0..0x80] => true,
        [first @ .., 0..0x80] => first.len() < 9 && first.iter().all(|&byte| byte >= 0x80),
        _ => false,
    }
}

/// As `[u8]::is_ascii`, for texts of up to some hundred bytes, nearly all of which are.
#[inline(always)]
pub(super) fn is_ascii(text: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = text.as_chunks::<8>();
    let bits = words.iter().fold(0u64, |bits, word| bits | u64::from_ne_bytes(*word));
    let last = match text.last_chunk::<8>() {
        // Overlaps what was looked at already.
        Some(last) => u64::from_ne_bytes(*last),
        None => rest.iter().fold(0u64, |bits, &byte| bits | u64::from(byte)),
    };
    (bits | last) & HIGH == 0
}

/// A number of one byte, and the rest.
#[inline(always)]
pub(super) fn small(rest: &[u8]) -> Option<(u8, &[u8])> {
    match *rest {
        [value @ 0..0x80, ref rest @ ..] => Some((value, rest)),
        _ => None,
    }
}
