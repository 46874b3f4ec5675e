//! Where in a text the values lie that follow words such as `password`.

use std::ops::Range;

/// Headers whose values have several parts.
const HEADERS: [&str; 2] = ["cookie", "authorization"];

/// What secrets follow, beside the words.
pub(super) const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// The values of a lower-case text. However many words stand in it, it is looked through a few times for each: what
/// the search for one value has passed is not passed again for the next, which may have the same end.
#[derive(Debug)]
pub(super) struct Values<'a> {
    lower: &'a str,
    sign: Search,
    begin: Search,
    quote: Search,
    end: Search,
    line_end: Search,
}

/// A search for the next character of a kind, and what it found last.
#[derive(Debug, Default)]
struct Search {
    /// From anywhere in between, the next one is where this ends.
    found: Option<Range<usize>>,
    #[cfg(test)]
    looked_at: usize,
}

impl Search {
    /// Where at or behind `from` the next such character stands; the end of the text if there is none.
    fn next(&mut self, text: &str, from: usize, is_one: impl Fn(char) -> bool) -> usize {
        if let Some(found) = self.found.as_ref().filter(|found| found.start <= from && from <= found.end) {
            return found.end;
        }
        let rest = text.get(from..).unwrap_or_default();
        let end = rest.find(is_one).map_or(text.len(), |length| from + length);
        self.found = Some(from..end);
        #[cfg(test)]
        {
            self.looked_at += end - from;
        }
        end
    }
}

fn is_around(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.is_whitespace()
}

fn is_end(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '}' | ')')
}

const fn is_opening(first: Option<char>) -> bool {
    matches!(first, Some('[' | '{'))
}

impl<'a> Values<'a> {
    pub fn of(lower: &'a str) -> Self {
        let [sign, begin, quote, end, line_end] = std::array::from_fn(|_| Search::default());
        Self { lower, sign, begin, quote, end, line_end }
    }

    /// Where the values of all these words lie.
    pub fn after_each<'w>(&mut self, words: impl Iterator<Item = &'w str>) -> Vec<(usize, usize)> {
        let lower = self.lower;
        let mut found = Vec::new();
        for word in words {
            // What lies in a list or map that is hidden has no end of its own to be looked for.
            let mut until = 0;
            for (at, _) in lower.match_indices(word) {
                if at < until {
                    continue;
                }
                if let Some((from, to)) = self.after(word, at + word.len()) {
                    if is_opening(lower.get(from..).and_then(|value| value.chars().next())) {
                        until = to;
                    }
                    found.push((from, to));
                }
            }
        }
        found
    }

    /// Where the value lies that belongs to a word that ends at `end`, if one does.
    fn after(&mut self, word: &str, end: usize) -> Option<(usize, usize)> {
        let lower = self.lower;
        let (mut from, mut quote, mut is_header, mut is_json) = (end, None, false, false);
        if !word.ends_with(' ') {
            let sign = self.sign.next(lower, end, |c| !is_around(c));
            let is_colon = match lower.get(sign..)?.chars().next() {
                Some(':') => true,
                Some('=') => false,
                _ => return None,
            };
            from = self.begin.next(lower, sign + 1, |c| !is_around(c) && !matches!(c, '=' | ':'));
            is_header = is_colon && HEADERS.into_iter().any(|header| word.contains(header));
            is_json = self.quote.next(lower, end, |c| c == '"') < from;
            quote = lower.get(..from)?.chars().next_back().filter(|c| matches!(c, '"' | '\''));
            let value = lower.get(from..)?;
            if let Some(scheme) = SCHEMES.into_iter().find(|scheme| value.starts_with(scheme)) {
                (from, quote, is_header) = (from + scheme.len(), None, false);
            }
        }
        let value = lower.get(from..)?;
        let is_enclosed = quote.is_none() && (is_json || !is_header) && is_opening(value.chars().next());
        let to = if let Some(quote) = quote {
            // Within a text that is itself quoted, quotes are escaped. What begins the next value so ends this one.
            let is_escaped = lower.get(..from - 1)?.ends_with('\\');
            let mut before = ' ';
            let length = value.find(|c| {
                let was_escape = std::mem::replace(&mut before, c) == '\\';
                c == quote && was_escape == is_escaped
            });
            #[cfg(test)]
            {
                self.quote.looked_at += length.unwrap_or(value.len());
            }
            length.map_or(lower.len(), |length| from + length.saturating_sub(usize::from(is_escaped)))
        } else if is_enclosed {
            // A list or map whole, with what stands right behind it: a scheme may stand in brackets before what it hashes.
            let inner = enclosed(value);
            let behind = value.get(inner..)?.find(|c: char| is_end(c) || c == ']');
            behind.map_or(lower.len(), |behind| from + inner + behind)
        } else if is_header {
            self.line_end.next(lower, from, |c| matches!(c, '\n' | '\r'))
        } else {
            self.end.next(lower, from, is_end)
        };
        (to > from).then_some((from, to))
    }
}

/// How long the list or map is that a text begins with; the whole text if it does not end in it. Within a text that is
/// itself quoted, quotes are escaped, once for each time.
fn enclosed(text: &str) -> usize {
    let (mut depth, mut quote, mut escapes, mut before) = (0u32, None, 0usize, ' ');
    for (at, character) in text.char_indices() {
        if character == '\\' {
            escapes = escapes.saturating_add(1);
            continue;
        }
        let escaped = std::mem::take(&mut escapes);
        match (quote, character) {
            // More escapes belong to a quote within, or are escaped ones before the end.
            (Some((open, by)), _) if open == character && escaped >= by => {
                if (escaped - by).is_multiple_of(by.saturating_add(1).saturating_mul(2)) {
                    quote = None;
                }
            }
            (Some(_), _) => {}
            (None, '"') => quote = Some((character, escaped)),
            // Not an apostrophe.
            (None, '\'') if !before.is_alphanumeric() => quote = Some((character, escaped)),
            (None, '[' | '{') => depth = depth.saturating_add(1),
            (None, ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + character.len_utf8();
                }
            }
            (None, _) => {}
        }
        before = character;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WORDS: [&str; 6] = ["password", "token", "cookie", "authorization", "\"", "="];

    /// The same as [`Values::after`], with each value looked for by itself.
    fn value_after(lower: &str, word: &str, end: usize) -> Option<(usize, usize)> {
        let rest = lower.get(end..)?;
        let is_around = |c: char| matches!(c, '"' | '\'' | '\\') || c.is_whitespace();
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '}' | ')');
        let (mut value, mut quote, mut is_header, mut is_json) = (rest, None, false, false);
        if !word.ends_with(' ') {
            let sign = rest.trim_start_matches(is_around);
            let after =
                sign.strip_prefix(['=', ':'])?.trim_start_matches(|c| is_around(c) || matches!(c, '=' | ':'));
            let before = rest.get(..rest.len() - after.len())?;
            is_header = sign.starts_with(':') && HEADERS.into_iter().any(|header| word.contains(header));
            is_json = before.contains('"');
            quote = before.chars().next_back().filter(|c| matches!(c, '"' | '\''));
            value = after;
            if let Some(scheme) = SCHEMES.into_iter().find(|scheme| value.starts_with(scheme)) {
                (value, quote, is_header) = (value.get(scheme.len()..)?, None, false);
            }
        }
        let from = end + rest.len() - value.len();
        let is_enclosed = quote.is_none() && (is_json || !is_header) && is_opening(value.chars().next());
        let length = if let Some(quote) = quote {
            // Within a text that is itself quoted, quotes are escaped.
            let is_escaped = lower.get(..from - 1)?.ends_with('\\');
            let mut before = ' ';
            let length = value.find(|c| {
                let was_escape = std::mem::replace(&mut before, c) == '\\';
                c == quote && was_escape == is_escaped
            });
            length.map(|length| length.saturating_sub(usize::from(is_escaped)))
        } else if is_enclosed {
            // A list or map whole, with what stands right behind it: a scheme may stand in brackets before what it hashes.
            let inner = enclosed(value);
            let behind = value.get(inner..)?.find(|c: char| is_end(c) || c == ']');
            behind.map(|behind| inner + behind)
        } else if is_header {
            value.find(['\n', '\r'])
        } else {
            value.find(is_end)
        };
        let length = length.unwrap_or(value.len());
        (length > 0).then_some((from, from + length))
    }

    fn values_slowly(lower: &str) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for word in WORDS.into_iter().chain(SCHEMES) {
            let mut until = 0;
            for (at, _) in lower.match_indices(word) {
                if at < until {
                    continue;
                }
                if let Some((from, to)) = value_after(lower, word, at + word.len()) {
                    if is_opening(lower.get(from..).and_then(|value| value.chars().next())) {
                        until = to;
                    }
                    found.push((from, to));
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn values_are_those_that_are_found_one_by_one(
            parts in prop::collection::vec(prop::sample::select(vec![
                "password", "token", "cookie", "authorization", "bearer ", "basic ", "=", ":", "\"", "'", "\\",
                "\\\"", " ", "\n", "\t", ",", ";", "&", "[", "]", "{", "}", ")", "x", "ü", "ab c", "it's",
            ]), 0..60),
        ) {
            let lower = parts.concat();
            let found = Values::of(&lower).after_each(WORDS.into_iter().chain(SCHEMES));
            prop_assert_eq!(found, values_slowly(&lower), "{:?}", lower);
        }
    }

    #[test]
    fn many_values_with_one_end_are_looked_for_once() {
        const TIMES: usize = 20_000;
        for part in [
            "password=",
            "cookie: ",
            "cookie:",
            "password:=",
            "token='",
            "token=\\\"",
            "token",
            "token ",
            "=",
            "\"",
            "bearer ",
            "bearer bearer",
            "token={",
            "cookie:[",
            "token=[]x",
        ] {
            let lower = part.repeat(TIMES);
            let mut values = Values::of(&lower);
            values.after_each(WORDS.into_iter().chain(SCHEMES));
            let Values { sign, begin, quote, end, line_end, .. } = values;
            let looked_at: usize = [sign, begin, quote, end, line_end].iter().map(|of| of.looked_at).sum();
            let each = WORDS.len() + SCHEMES.len();
            assert!(looked_at <= 5 * each * lower.len(), "{part}: {looked_at} of {}", lower.len());
        }
    }
}
