//! A reader of JSON text (RFC 8259), value by value, without building a tree.

use std::borrow::Cow;
use std::str::FromStr;

/// How deep values that nobody knows may nest.
const SKIP_DEPTH_LIMIT: u32 = 128;

/// What is wrong, and where in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub offset: usize,
    pub what: String,
}

type Result<T> = std::result::Result<T, Wrong>;

/// Reads JSON from the front.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Most bytes that may become of the text.
    pub limit_bytes: usize,
}

impl<'a> Reader<'a> {
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0, limit_bytes: usize::MAX }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// First byte of what comes after white space.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.byte() {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.step();
        }
        None
    }

    /// Where the next value begins.
    pub fn offset(&mut self) -> usize {
        self.peek();
        self.at
    }

    /// An error at the next value.
    #[cold]
    pub fn wrong(&mut self, what: String) -> Wrong {
        Wrong { offset: self.offset(), what }
    }

    #[cold]
    fn expected(&mut self, what: &str) -> Wrong {
        let found = match self.peek() {
            None => "the end",
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "text",
            Some(b't' | b'f') => "a truth value",
            Some(b'n') => "null",
            Some(b'-' | b'0'..=b'9') => "a number",
            Some(byte) => {
                let c = self.text.get(self.at..).and_then(|rest| rest.chars().next());
                return self.wrong(format!("expected {what}, found {:?}", c.unwrap_or(char::from(byte))));
            }
        };
        self.wrong(format!("expected {what}, found {found}"))
    }

    /// The opening bracket of an object or array.
    pub fn open(&mut self, bracket: u8, what: &str) -> Result<()> {
        if self.peek() != Some(bracket) {
            return Err(self.expected(what));
        }
        self.step();
        Ok(())
    }

    /// Whether another element comes before the closing bracket, which is read.
    #[inline]
    pub fn more(&mut self, first: &mut bool, close: u8) -> Result<bool> {
        let next = self.peek();
        if next == Some(close) {
            self.step();
            return Ok(false);
        }
        if std::mem::take(first) {
            return Ok(true);
        }
        if next != Some(b',') {
            return Err(self.expected(if close == b'}' { "`,` or `}`" } else { "`,` or `]`" }));
        }
        self.step();
        if self.peek() == Some(close) {
            return Err(self.expected("another element after `,`"));
        }
        Ok(true)
    }

    pub fn colon(&mut self) -> Result<()> {
        self.open(b':', "`:`")
    }

    /// Nothing but white space may come.
    pub fn end(&mut self) -> Result<()> {
        if self.peek().is_none() { Ok(()) } else { Err(self.expected("the end")) }
    }

    fn word(&mut self, word: &str) -> Result<()> {
        if !self.text.get(self.at..).unwrap_or_default().starts_with(word) {
            return Err(self.expected("a value"));
        }
        self.at = self.at.saturating_add(word.len());
        Ok(())
    }

    /// Reads `null` if it comes.
    pub fn null(&mut self) -> Result<bool> {
        if self.peek() == Some(b'n') { self.word("null").map(|()| true) } else { Ok(false) }
    }

    pub fn boolean(&mut self) -> Result<bool> {
        match self.peek() {
            Some(b't') => self.word("true").map(|()| true),
            Some(b'f') => self.word("false").map(|()| false),
            _ => Err(self.expected("true or false")),
        }
    }

    /// Text in quotes; borrowed unless it has escapes.
    #[inline]
    pub fn text(&mut self, what: &str) -> Result<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.expected(what));
        }
        self.step();
        let begin = self.at;
        match self.plain()? {
            b'"' => {
                let text = self.text.get(begin..self.at).unwrap_or_default();
                self.step();
                Ok(Cow::Borrowed(text))
            }
            _ => self.escaped(begin).map(Cow::Owned),
        }
    }

    /// Reads up to the next quote or backslash, which is returned and not read.
    #[inline]
    fn plain(&mut self) -> Result<u8> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ') else {
            self.at = self.text.len();
            return Err(self.expected("the closing quote"));
        };
        self.at = self.at.saturating_add(length);
        match self.byte() {
            Some(byte @ (b'"' | b'\\')) => Ok(byte),
            _ => Err(Wrong { offset: self.at, what: "a control character within text".to_owned() }),
        }
    }

    fn escaped(&mut self, begin: usize) -> Result<String> {
        let mut text = self.text.get(begin..self.at).unwrap_or_default().to_owned();
        loop {
            let at = self.at;
            if self.plain()? == b'"' {
                text.push_str(self.text.get(at..self.at).unwrap_or_default());
                self.step();
                return Ok(text);
            }
            text.push_str(self.text.get(at..self.at).unwrap_or_default());
            self.step();
            let escape = self.byte();
            self.step();
            text.push(match escape {
                Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
                Some(b'b') => '\u{8}',
                Some(b'f') => '\u{c}',
                Some(b'n') => '\n',
                Some(b'r') => '\r',
                Some(b't') => '\t',
                Some(b'u') => self.unicode()?,
                _ => return Err(self.bad_escape()),
            });
        }
    }

    #[cold]
    fn bad_escape(&self) -> Wrong {
        Wrong { offset: self.at.saturating_sub(1), what: "an escape that does not exist".to_owned() }
    }

    fn four_digits(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at..self.at.saturating_add(4));
        let unit = digits
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.bad_escape())?;
        self.at = self.at.saturating_add(4);
        Ok(unit)
    }

    /// What follows `\u`: one unit of UTF-16, or two that belong together.
    fn unicode(&mut self) -> Result<char> {
        let unit = self.four_digits()?;
        let code = match unit {
            0xd800..=0xdbff => {
                if !self.text.get(self.at..).unwrap_or_default().starts_with("\\u") {
                    return Err(self.bad_escape());
                }
                self.at = self.at.saturating_add(2);
                let low = self.four_digits()?;
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(self.bad_escape());
                }
                0x1_0000 + ((unit & 0x3ff) << 10 | low & 0x3ff)
            }
            _ => unit,
        };
        char::from_u32(code).ok_or_else(|| self.bad_escape())
    }

    /// The text of a number, checked against the grammar.
    fn number_text(&mut self) -> Result<&'a str> {
        let begin = self.offset();
        let digits = |reader: &mut Self| {
            let begin = reader.at;
            while reader.byte().is_some_and(|byte| byte.is_ascii_digit()) {
                reader.step();
            }
            reader.at.saturating_sub(begin)
        };
        if self.byte() == Some(b'-') {
            self.step();
        }
        let zero_first = self.byte() == Some(b'0');
        let whole = digits(self);
        let mut good = whole == 1 || whole > 1 && !zero_first;
        if self.byte() == Some(b'.') {
            self.step();
            good &= digits(self) > 0;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.step();
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.step();
            }
            good &= digits(self) > 0;
        }
        if !good {
            self.at = begin;
            return Err(match self.byte() {
                Some(b'-' | b'0'..=b'9') => self.wrong("not a number as JSON writes them".to_owned()),
                _ => self.expected("a number"),
            });
        }
        Ok(self.text.get(begin..self.at).unwrap_or_default())
    }

    /// An integer, as number or as text.
    pub fn integer<T: FromStr + TryFrom<i128>>(&mut self) -> Result<T> {
        let at = self.offset();
        let text = if self.byte() == Some(b'"') {
            self.text("a number")?
        } else {
            Cow::Borrowed(self.number_text()?)
        };
        text.parse()
            .ok()
            .or_else(|| {
                // `1e3` and `5.0` are integers too, if they are exact.
                let plausible =
                    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'));
                let n = text
                    .parse::<f64>()
                    .ok()
                    .filter(|n| plausible && n.fract() == 0.0 && n.abs() < 2f64.powi(64))?;
                T::try_from(n as i128).ok()
            })
            .ok_or_else(|| Wrong {
                offset: at,
                what: format!(
                    "expected an integer of {} bits, found {text:.64}",
                    size_of::<T>().saturating_mul(8)
                ),
            })
    }

    /// A number, also as text, and `"NaN"`, `"Infinity"`, `"-Infinity"`.
    pub fn double(&mut self) -> Result<f64> {
        let at = self.offset();
        if self.byte() != Some(b'"') {
            let text = self.number_text()?;
            return text.parse().map_err(|_| Wrong { offset: at, what: "not a number".to_owned() });
        }
        let text = self.text("a number")?;
        match &*text {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            text => {
                let mut inner = Reader::new(text);
                let number = inner.number_text().ok().filter(|number| number.len() == text.len());
                number.and_then(|number| number.parse().ok()).ok_or_else(|| Wrong {
                    offset: at,
                    what: format!("expected a number, found {text:.64?}"),
                })
            }
        }
    }

    /// Reads over a value of any type.
    pub fn skip(&mut self) -> Result<()> {
        self.skip_at(0)
    }

    fn skip_at(&mut self, depth: u32) -> Result<()> {
        if depth > SKIP_DEPTH_LIMIT {
            return Err(self.wrong(format!("nested deeper than {SKIP_DEPTH_LIMIT} levels")));
        }
        match self.peek() {
            Some(b'"') => self.text("text").map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') => self.null().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number_text().map(drop),
            Some(b'[') => {
                self.step();
                let mut first = true;
                while self.more(&mut first, b']')? {
                    self.skip_at(depth.saturating_add(1))?;
                }
                Ok(())
            }
            Some(b'{') => {
                self.step();
                let mut first = true;
                while self.more(&mut first, b'}')? {
                    self.text("a name in quotes")?;
                    self.colon()?;
                    self.skip_at(depth.saturating_add(1))?;
                }
                Ok(())
            }
            _ => Err(self.expected("a value")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// serde_json is the oracle of the grammar.
        #[test]
        fn text_is_json_exactly_if_it_is_to_serde_json(
            text in proptest::string::string_regex(r#"[ \[\]{}:,0-9eE.+\-tfn]{0,6}("[a\\nu0-9dé]{0,8}")?(true|false|null|:|,|\{"a":)?[\[\]{}:,0-9e.\- ]{0,6}"#).unwrap()
        ) {
            let mut reader = Reader::new(&text);
            let ours = reader.skip().and_then(|()| reader.end());
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // A number too large for a double is JSON all the same.
            let theirs = theirs.map_or_else(|error| error.to_string().contains("number out of range"), |_| true);
            prop_assert_eq!(ours.is_ok(), theirs, "{:?}: {:?}", text, ours);
        }

        #[test]
        fn text_goes_both_ways(text: String, value: i64, double: f64) {
            let json = serde_json::to_string(&(&text, value, double)).unwrap();
            let mut reader = Reader::new(&json);
            reader.open(b'[', "").unwrap();
            let mut first = true;
            prop_assert!(reader.more(&mut first, b']').unwrap());
            prop_assert_eq!(&*reader.text("text").unwrap(), &text);
            prop_assert!(reader.more(&mut first, b']').unwrap());
            prop_assert_eq!(reader.integer::<i64>().unwrap(), value);
            prop_assert!(reader.more(&mut first, b']').unwrap());
            if double.is_finite() {
                prop_assert_eq!(reader.double().unwrap(), double);
            }
        }
    }

    #[test]
    fn integers_are_taken_as_numbers_and_as_text_if_exact() {
        for (text, value) in [
            ("7", Some(7)),
            ("\"7\"", Some(7)),
            ("7.0", Some(7)),
            ("1e3", Some(1000)),
            ("7.5", None),
            ("\"x\"", None),
            ("4294967296", None),
            ("-1", None),
            ("\"inf\"", None),
        ] {
            assert_eq!(Reader::new(text).integer::<u32>().ok(), value, "{text}");
        }
        assert_eq!(Reader::new("18446744073709551615").integer::<u64>(), Ok(u64::MAX));
        assert_eq!(Reader::new("\"-9223372036854775808\"").integer::<i64>(), Ok(i64::MIN));
    }
}
