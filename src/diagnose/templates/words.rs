//! The words of a log line, with what is variable in it.

use super::VARIABLE;
use foldhash::fast::FixedState;
use std::hash::{BuildHasher, Hasher};

/// Words of a line that are compared; what follows is ignored.
const WORDS: usize = 48;

/// The first line of a log record's text.
pub struct Line<'a> {
    text: &'a str,
    signature: u64,
    code_location: Option<&'a str>,
}

impl<'a> Line<'a> {
    pub fn new(text: &'a str) -> Self {
        let text = text.split('\n').next().unwrap_or_default();
        let mut hasher = FixedState::default().build_hasher();
        let (mut words, mut was_variable, mut code_location) = (0usize, false, None);
        each(text, &mut |word| {
            match word {
                Word::Variable if was_variable => return true,
                Word::Variable => hasher.write_u8(1),
                Word::Constant(word) => {
                    hasher.write(word.as_bytes());
                    hasher.write_u8(0);
                }
                Word::CodeLocation(word) => {
                    code_location = code_location.or(Some(word));
                    hasher.write(word.as_bytes());
                    hasher.write_u8(0);
                }
            }
            was_variable = matches!(word, Word::Variable);
            words += 1;
            words < WORDS
        });
        Self { text, signature: hasher.finish(), code_location }
    }

    /// Equal for lines with equal [`Self::words`].
    pub const fn signature(&self) -> u64 {
        self.signature
    }

    /// The first word that is a place in source code.
    pub const fn code_location(&self) -> Option<&'a str> {
        self.code_location
    }

    /// Its words, variable ones masked and runs of masked ones joined.
    pub fn words(&self) -> Vec<&'a str> {
        let mut words: Vec<&'a str> = Vec::new();
        each(self.text, &mut |word| {
            match word {
                Word::Variable if words.last() == Some(&VARIABLE) => return true,
                Word::Variable => words.push(VARIABLE),
                Word::Constant(word) | Word::CodeLocation(word) => words.push(word),
            }
            words.len() < WORDS
        });
        words
    }
}

/// The first word that is no variable: what tells statements apart soonest.
pub fn leading<'a>(words: &[&'a str]) -> &'a str {
    words.iter().copied().find(|word| *word != VARIABLE).unwrap_or(VARIABLE)
}

#[derive(Clone, Copy)]
enum Word<'a> {
    Variable,
    Constant(&'a str),
    CodeLocation(&'a str),
}

/// What a byte is to the reader of words.
const SPACE: u8 = 1;
const SEPARATOR: u8 = 2;
const DIGIT: u8 = 4;
const COLON: u8 = 8;
const HASH: u8 = 16;
const DOT: u8 = 32;
const SLASH: u8 = 64;

const KINDS: [u8; 256] = {
    let mut kinds = [0u8; 256];
    let mut at = 0;
    while at < 256 {
        kinds[at] = match at as u8 {
            b' ' | b'\t' | b'\r' | 11 | 12 => SPACE,
            b',' | b';' | b'=' | b'[' | b']' | b'(' | b')' | b'{' | b'}' | b'"' | b'\'' | b'|' | b'<'
            | b'>' => SEPARATOR,
            b':' => SEPARATOR | COLON,
            b'0'..=b'9' => DIGIT,
            b'#' => HASH,
            b'.' => DOT,
            b'/' => SLASH,
            _ => 0,
        };
        at += 1;
    }
    kinds
};

fn kind(byte: u8) -> u8 {
    KINDS.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Calls `each` with the words of a line until it returns false.
fn each<'a>(line: &'a str, each: &mut impl FnMut(Word<'a>) -> bool) {
    let bytes = line.as_bytes();
    let mut start = 0;
    while start < bytes.len() {
        let (mut end, mut kinds) = (start, 0u8);
        while let Some(&byte) = bytes.get(end) {
            let is = kind(byte);
            if is & SPACE != 0 {
                break;
            }
            kinds |= is;
            end += 1;
        }
        // Spaces are ASCII, so a piece between them is a text of its own.
        if end > start
            && let Some(piece) = line.get(start..end)
            && !pieces(piece, kinds, each)
        {
            return;
        }
        start = end + 1;
    }
}

/// The words of what stands between two spaces.
fn pieces<'a>(piece: &'a str, kinds: u8, each: &mut impl FnMut(Word<'a>) -> bool) -> bool {
    if kinds & (SEPARATOR | DIGIT | DOT | SLASH) == 0 {
        return each(plain(piece, 0));
    }
    if kinds & SLASH != 0 {
        let inner = piece.trim_start_matches(['[', '(', '{', '"', '\'', '<']);
        if (inner.starts_with('/') && inner.len() > 1) || (kinds & COLON != 0 && inner.contains("://")) {
            return each(Word::Variable);
        }
    }
    if kinds & DIGIT != 0 && kinds & (COLON | HASH) != 0 {
        let inner = piece.trim_matches(['[', ']', '(', ')', ',', ':']);
        if is_code_location(inner) {
            return each(Word::CodeLocation(inner));
        }
        if is_hardware_address(inner) {
            return each(Word::Variable);
        }
    }
    let bytes = piece.as_bytes();
    let mut start = 0;
    while start < bytes.len() {
        let (mut end, mut kinds) = (start, 0u8);
        while let Some(&byte) = bytes.get(end) {
            let is = kind(byte);
            let leader = is & DOT != 0 && bytes.get(end + 1) == Some(&b'.');
            if is & SEPARATOR != 0 || leader {
                break;
            }
            kinds |= is;
            end += 1;
        }
        if let Some(word) = piece.get(start..end) {
            let word = if kinds & DOT != 0 { word.trim_matches('.') } else { word };
            if !word.is_empty() && !each(plain(word, kinds)) {
                return false;
            }
        }
        start = end + 1;
    }
    true
}

/// A word without separators: a number, an id, an address, a time, a path, or part of the statement.
fn plain(word: &str, kinds: u8) -> Word<'_> {
    let path = kinds & SLASH != 0 && word.starts_with('/') && word.len() > 1;
    let host = kinds & DOT != 0 && is_host(word);
    if kinds & DIGIT != 0 || path || host || is_calendar(word) || is_hexadecimal(word) {
        Word::Variable
    } else {
        Word::Constant(word)
    }
}

/// A day's or a month's short name.
fn is_calendar(word: &str) -> bool {
    const NAMES: [&str; 19] = [
        "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul",
        "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    word.len() == 3 && NAMES.contains(&word)
}

/// Hexadecimal digits that happen to be letters, too many for a word.
fn is_hexadecimal(word: &str) -> bool {
    word.len() >= 12
        && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        && word.bytes().any(|byte| byte != b'-')
}

/// A host's name: lower-case labels of which the last is a top-level domain.
fn is_host(word: &str) -> bool {
    const DOMAINS: [&str; 12] =
        ["com", "net", "org", "edu", "gov", "mil", "int", "io", "local", "internal", "lan", "arpa"];
    let Some((_, last)) = word.rsplit_once('.') else { return false };
    let of_host =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    (DOMAINS.contains(&last) || last.len() == 2) && word.bytes().all(of_host)
}

/// Pairs of hexadecimal digits with colons between them.
fn is_hardware_address(word: &str) -> bool {
    word.len() >= 11
        && word.split(':').all(|pair| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a word is a place in source code, as loggers write it: `Class#123`, `file.go:123`.
fn is_code_location(word: &str) -> bool {
    let Some((name, line)) = word.rsplit_once(['#', ':']) else { return false };
    let is_line = (1..=5).contains(&line.len()) && line.bytes().all(|byte| byte.is_ascii_digit());
    let separator = word.as_bytes().get(name.len()).copied();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._$-/".contains(&byte));
    let is_file = || {
        const EXTENSIONS: [&str; 14] =
            ["go", "py", "rs", "java", "kt", "scala", "c", "cc", "cpp", "h", "js", "ts", "rb", "php"];
        name.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
    };
    is_line && is_name && (separator == Some(b'#') || is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_signature_agree() {
        for (line, wanted) in [
            ("onExtend:1514038530000 14 0 4", "onExtend <*>"),
            ("GET /v2/54fa/servers?limit=3&x=y HTTP/1.1", "GET <*>"),
            ("data address space................0", "data address space <*>"),
            ("at Fri Jun 17 07:07:00 2005 from a.b.adelphia.net", "at <*> from <*>"),
            ("action: android.intent.action.SCREEN_ON", "action android.intent.action.SCREEN_ON"),
            ("changed: FF:F2:9F:16:E2:23 ip=10.0.0.151 é", "changed <*> ip <*> é"),
            ("x handler.go:12] y [a.b.C#3] z", "x handler.go:12 y a.b.C#3 z"),
        ] {
            let parsed = Line::new(line);
            assert_eq!(parsed.words().join(" "), wanted, "{line}");
            assert_eq!(parsed.signature(), Line::new(&wanted.replace(VARIABLE, "7")).signature(), "{line}");
        }
    }
}
