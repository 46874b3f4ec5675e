//! What must not leave in a bundle: values of attributes whose key says that they are secret, and
//! secrets written into texts and names. Applied while rows are decoded, so that nothing later can forget it.

use super::secret_values::{SCHEMES, Values};
use crate::confirm::Anomaly;
use crate::context::Change;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::ops::Range;

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// Which attributes hold secrets: those whose key contains one of the words, whatever their case.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    words: Vec<String>,
    /// Finds whether any of the words is there at all, which of most texts is not; `None` looks for each.
    any: Option<Regex>,
    /// Finds the words of a text that look like a secret; `None` when nothing does.
    patterns: Option<Regex>,
    /// Whether passwords of URLs are hidden.
    of_urls: bool,
}

/// Characters of a pattern, and patterns, that are taken at most.
pub(super) const PATTERN_CHARACTERS: usize = 100;
pub(super) const PATTERNS: usize = 50;

impl Redaction {
    /// From the words of the configuration; empty ones are ignored.
    #[must_use]
    pub fn new(words: &[String]) -> Self {
        let words = words.iter().map(|word| word.to_ascii_lowercase()).filter(|word| !word.is_empty());
        let words: Vec<String> = words.collect();
        let either: Vec<String> =
            words.iter().map(String::as_str).chain(SCHEMES).map(regex::escape).collect();
        let any = Regex::new(&format!("(?i-u:{})", either.join("|"))).ok();
        Self { words, any, patterns: None, of_urls: true }
    }

    /// Hides as well each word of a text that a pattern fits as a whole: `*` stands for any characters, `#` for a
    /// digit, `?` for one character; case means nothing.
    #[must_use]
    pub fn with_patterns(self, patterns: &[String]) -> Self {
        let usable = patterns.iter().filter(|pattern| !pattern.is_empty());
        let all: Vec<String> = usable.map(|pattern| expression(pattern)).collect();
        let patterns = (!all.is_empty()).then(|| Regex::new(&format!("(?i)^(?:{})$", all.join("|"))));
        Self { patterns: patterns.and_then(Result::ok), ..self }
    }

    /// Whether there is certainly nothing to hide, neither of an attribute with this key nor in this text.
    fn is_plain(&self, text: &str) -> bool {
        self.patterns.is_none() && self.has_no_word(text) && !self.may_hold_url(text)
    }

    fn may_hold_url(&self, text: &str) -> bool {
        self.of_urls && text.contains('@')
    }

    fn has_no_word(&self, text: &str) -> bool {
        self.words.is_empty() || self.any.as_ref().is_some_and(|any| !any.is_match(text.as_bytes()))
    }

    /// Whether the value of this key is hidden whole.
    #[must_use]
    pub(super) fn hides(&self, key: &str) -> bool {
        if self.has_no_word(key) {
            return false;
        }
        let key = key.to_ascii_lowercase();
        self.words.iter().any(|word| key.contains(word.as_str()))
    }

    /// The value of an attribute as it may be kept.
    #[must_use]
    pub fn value<'a>(&self, key: &str, value: &'a str) -> Cow<'a, str> {
        if self.hides(key) { Cow::Borrowed(REDACTED) } else { self.text(value) }
    }

    /// An anomaly as it may be quoted: the names of its operations are as rows hold them.
    #[must_use]
    pub fn anomaly(&self, anomaly: &Anomaly) -> Anomaly {
        let mut shown = anomaly.clone();
        let hide = |text: &mut String| {
            if let Cow::Owned(hidden) = self.text(text) {
                *text = hidden;
            }
        };
        // Of a service that is called as a secret is, what follows its name is none.
        let name = format!("{}: ", anomaly.service.name);
        match anomaly.title.strip_prefix(&name) {
            Some(rest) => shown.title = format!("{name}{}", self.text(rest)),
            None => hide(&mut shown.title),
        }
        for member in &mut shown.members {
            hide(&mut member.signal);
            for (key, value) in &mut member.attributes {
                *value = self.value(key, value).into_owned();
            }
        }
        for near in &mut shown.examined.nearest {
            hide(&mut near.line);
            hide(&mut near.why_not);
        }
        shown.suppressed_by.iter_mut().for_each(hide);
        shown
    }

    /// A change as it may be quoted.
    #[must_use]
    pub fn change(&self, change: &Change) -> Change {
        Change { title: self.text(&change.title).into_owned(), ..change.clone() }
    }

    /// A text in which what follows `WORD=`, `WORD:` or `"WORD":` is hidden: a quoted value, list or map whole, what
    /// follows `Cookie:` and `Authorization:` up to the end of the line, and else up to the next blank, quote, comma,
    /// semicolon or ampersand; after `Bearer ` and `Basic ` likewise; the password of a URL; and words that a pattern
    /// fits, with or without what ends a sentence.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.is_plain(text) {
            return Cow::Borrowed(text);
        }
        let lower = text.to_ascii_lowercase();
        let mut hidden: Vec<(usize, usize)> = Vec::new();
        if let Some(patterns) = &self.patterns {
            hidden.extend(words_of(text).filter_map(|at| {
                let word = text.get(at.clone())?;
                let bare = word.trim_end_matches(['.', '?', '!']);
                let fits = [word, bare].into_iter().find(|word| patterns.is_match(word.as_bytes()))?;
                Some((at.start, at.start + fits.len()))
            }));
        }
        if self.may_hold_url(text) {
            hidden.extend(passwords_of_urls(text));
        }
        let words = self.words.iter().map(String::as_str);
        hidden.extend(Values::of(&lower).after_each(words.chain(SCHEMES)));
        if hidden.is_empty() {
            return Cow::Borrowed(text);
        }
        hidden.sort_unstable();
        let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
        for (from, to) in hidden {
            if from >= at {
                shown.push_str(text.get(at..from).unwrap_or_default());
                shown.push_str(REDACTED);
            }
            at = at.max(to);
        }
        shown.push_str(text.get(at..).unwrap_or_default());
        Cow::Owned(shown)
    }
}

/// Where the passwords of URLs lie: `scheme://user:PASSWORD@host`, with slashes that may be escaped as in JSON.
fn passwords_of_urls(text: &str) -> Vec<(usize, usize)> {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
    let mut found = Vec::new();
    for sign in ["://", ":\\/\\/"] {
        // What was looked through once is not looked through again for each further sign in it.
        let (mut end, mut at_sign) = (0, 0);
        for (at, sign) in text.match_indices(sign) {
            let begin = at + sign.len();
            let Some(rest) = text.get(begin..) else { continue };
            if end <= begin {
                end = rest.find(is_end).map_or(text.len(), |length| begin + length);
            }
            let Some(rest) = text.get(begin..end) else { continue };
            let authority =
                rest.get(..rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len())).unwrap_or(rest);
            let Some((user, after)) = authority.split_once(':') else { continue };
            let from = begin + user.len() + 1;
            let length = after.rfind('@').or_else(|| {
                // A password with a sign that should have been encoded; an address or a port is none.
                let is_host = authority.starts_with('[') || after.chars().all(|c| c.is_ascii_digit());
                if at_sign < from {
                    at_sign = text.get(from..)?.find('@').map_or(text.len(), |length| from + length);
                }
                (!is_host && at_sign < end).then(|| at_sign - from)
            });
            found.extend(length.filter(|length| *length > 0).map(|length| (from, from + length)));
        }
    }
    found
}

/// What a pattern says, as a regular expression.
fn expression(pattern: &str) -> String {
    let mut expression = String::new();
    for character in pattern.chars() {
        match character {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '#' => expression.push_str("[0-9]"),
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    expression
}

/// Where the words of a text lie: what stands between blanks, quotes, brackets and the signs that join names to values.
fn words_of(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_between = |c: char| {
        let is_sign =
            matches!(c, '"' | '\'' | ',' | ';' | '&' | '=' | ':' | '/' | '<' | '>' | '|' | '“' | '”');
        is_sign || c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | '{' | '}')
    };
    let mut at = 0;
    text.split_inclusive(is_between).filter_map(move |part| {
        let from = at;
        at += part.len();
        let word = part.trim_end_matches(is_between);
        (!word.is_empty()).then(|| from..from + word.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redaction() -> Redaction {
        Redaction::new(&["password".into(), "authorization".into(), "cookie".into(), "token".into()])
    }

    #[test]
    fn values_of_secret_keys_are_hidden() {
        assert_eq!(redaction().value("http.request.header.Authorization", "x"), REDACTED);
        assert_eq!(redaction().value("http.route", "/a?b=1"), "/a?b=1");
    }

    #[test]
    fn words_that_a_pattern_fits_are_hidden() {
        let patterns = ["sk_live_*", "####-####-####-####", "*@*.example", "?ü?"].map(str::to_owned);
        let redaction = redaction().with_patterns(&patterns);
        for (text, shown) in [
            ("paid with 4111-1111-1111-1111.", "paid with [redacted]."),
            ("mail ada@mail.example! or bob@b.example?", "mail [redacted]! or [redacted]?"),
            ("4111-1111-1111-11111", "4111-1111-1111-11111"),
            ("paid with 4111-1111-1111-1111, thanks", "paid with [redacted], thanks"),
            ("key=SK_LIVE_abc&x=sk_test_abc", "key=[redacted]&x=sk_test_abc"),
            ("GET /users/ada@mail.example/cart", "GET /users/[redacted]/cart"),
            ("(aüb) aüüb", "([redacted]) aüüb"),
            ("“ada@mail.example” is slow", "“[redacted]” is slow"),
            ("password=ada@mail.example rest", "password=[redacted] rest"),
            ("", ""),
        ] {
            assert_eq!(redaction.text(text), shown);
        }
        assert_eq!(redaction.value("user.email", "ada@mail.example"), REDACTED);
        let without_words = Redaction::default().with_patterns(&patterns);
        assert_eq!(without_words.text("to ada@mail.example"), "to [redacted]");
        assert_eq!(without_words.value("password", "x"), "x");
    }

    #[test]
    fn passwords_of_urls_are_hidden() {
        let cases = [
            ("postgres://app:hunter2@db:5432/shop", "postgres://app:[redacted]@db:5432/shop"),
            (
                "cannot reach redis://:hunter2@cache, trying again",
                "cannot reach redis://:[redacted]@cache, trying again",
            ),
            ("a://u:p@q@h/ b://v:w@i", "a://u:[redacted]@h/ b://v:[redacted]@i"),
            ("mongodb://u:a,b@h1,h2/x", "mongodb://u:[redacted]@h1,h2/x"),
            ("amqp://u:a/b#c@mq", "amqp://u:[redacted]@mq"),
            (r#"{"url":"https:\/\/u:p@h\/x"}"#, r#"{"url":"https:\/\/u:[redacted]@h\/x"}"#),
            ("http://h:8080/users/ada@mail.example", "http://h:8080/users/ada@mail.example"),
            ("http://[::1]:80/a@b ssh://git@h/x", "http://[::1]:80/a@b ssh://git@h/x"),
            ("ß://ü:é@ö", "ß://ü:[redacted]@ö"),
        ];
        for (text, shown) in cases {
            assert_eq!(redaction().text(text), shown);
            assert_eq!(Redaction::new(&[]).text(text), shown);
        }
        assert_eq!(Redaction::default().text("a://b:c@d"), "a://b:c@d");
        // Each sign must not look through all that follows: that would take minutes.
        let many = format!("{}a:@", "://".repeat(300_000));
        assert_eq!(redaction().text(&many), many);
    }

    #[test]
    fn secrets_within_texts_are_hidden() {
        let cases = [
            ("login password=hunter2 ok", "login password=[redacted] ok"),
            (r#"{"password": "hunter2", "a": 1}"#, r#"{"password": "[redacted]", "a": 1}"#),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
            ("sent Bearer abc.def", "sent Bearer [redacted]"),
            ("no tokens here", "no tokens here"),
            ("password: \"a b\", x", "password: \"[redacted]\", x"),
            ("password:\thunter2 ok", "password:\t[redacted] ok"),
            ("password:\nhunter2", "password:\n[redacted]"),
            (r#"{"m": "{\"password\": \"a b\", 1}"}"#, r#"{"m": "{\"password\": \"[redacted]\", 1}"}"#),
            ("Cookie: a=1; session=2\nHost: x", "Cookie: [redacted]\nHost: x"),
            (r#"authorization: Digest username="a", response="b""#, "authorization: [redacted]"),
            (
                r#"{"authorization": "Digest username=\"a\"", "b": 1}"#,
                r#"{"authorization": "[redacted]", "b": 1}"#,
            ),
            ("authorization=a b", "authorization=[redacted] b"),
            ("ß token=ü&x=1", "ß token=[redacted]&x=1"),
            (r#"{"password": ["a b", "c]"], "a": 1}"#, r#"{"password": [redacted], "a": 1}"#),
            (r#"{"token": {"a": {"b": "c d"}}, "e": "f"}"#, r#"{"token": [redacted], "e": "f"}"#),
            (r#"{"m": "{\"token\": [\"a b\"]}", "e": 1}"#, r#"{"m": "{\"token\": [redacted]}", "e": 1}"#),
            ("password={a b", "password=[redacted]"),
            ("password=[redacted] x", "password=[redacted] x"),
            ("password=[x]abc de", "password=[redacted] de"),
            ("password={SSHA}HASH, x", "password=[redacted], x"),
            ("Cookie: {a}; session=s", "Cookie: [redacted]"),
            (r#"{"cookie": {"a": "b c"}, "d": 1}"#, r#"{"cookie": [redacted], "d": 1}"#),
            ("token=['a]b', 'it\\'s ]'] x", "token=[redacted] x"),
            ("token=[it's] x", "token=[redacted] x"),
            (
                r#"{"m": "{\"token\": [\"a]b c\", \"\\\"]\"], \"x\": 1}"}"#,
                r#"{"m": "{\"token\": [redacted], \"x\": 1}"}"#,
            ),
        ];
        for (text, shown) in cases {
            assert_eq!(redaction().text(text), shown);
        }
        assert_eq!(Redaction::default().text("password=1"), "password=1");
    }
}
