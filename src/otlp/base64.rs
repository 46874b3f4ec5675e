//! Base64 (RFC 4648), as JSON carries bytes.

use std::fmt::{self, Write};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes the standard alphabet with padding.
pub fn write(bytes: &[u8], out: &mut impl Write) -> fmt::Result {
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit) & 63) as usize;
            out.write_char(if digit > group.len() { '=' } else { char::from(ALPHABET[index]) })?;
        }
    }
    Ok(())
}

/// Reads the standard and the URL-safe alphabet, with or without padding; `None` if it is neither.
pub fn read(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let digits = text.trim_end_matches('=').as_bytes();
    if text.len().saturating_sub(digits.len()) > 2 || digits.len() % 4 == 1 {
        return None;
    }
    for group in digits.chunks(4) {
        let mut word = 0u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            word = word << 6 | u32::from(value);
        }
        word <<= 6 * (4 - group.len());
        let bytes = word.to_be_bytes();
        out.extend_from_slice(bytes.get(1..group.len())?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_go_both_ways(bytes: Vec<u8>) {
            let mut text = String::new();
            write(&bytes, &mut text).unwrap();
            for text in [text.clone(), text.replace('=', ""), text.replace('+', "-").replace('/', "_")] {
                let mut read_back = Vec::new();
                prop_assert_eq!(read(&text, &mut read_back), Some(()));
                prop_assert_eq!(&read_back, &bytes);
            }
        }
    }

    #[test]
    fn known_answers_and_refusals() {
        let mut text = String::new();
        write(b"foob", &mut text).unwrap();
        assert_eq!(text, "Zm9vYg==");
        for wrong in ["Z", "Zm9vY", "Zm9v!g==", "Zg===", "Zm 9v"] {
            assert_eq!(read(wrong, &mut Vec::new()), None, "{wrong}");
        }
    }
}
