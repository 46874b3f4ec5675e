//! Ids in names of operations: `GET /user/123` is counted as `GET /user/{id}`, so that one route is one series.

use std::borrow::Cow;

/// What stands for an id.
const ID: &str = "{id}";
/// Names without a path: from so many digits on a number is an id, not a count or a status.
const LONG_NUMBER: usize = 5;
/// Hexadecimal digits from which on a word that holds a digit is an id.
const LONG_HEX: usize = 8;
/// Letters and digits from which on a word with several digits is an id.
const LONG_WORD: usize = 20;
const SEVERAL_DIGITS: usize = 4;

/// The name with its ids replaced; itself if it has none. In a path each segment that is a number, a UUID, or
/// a long hexadecimal or mixed word counts as one, and a query is cut off; elsewhere words that are long
/// numbers, UUIDs or long hexadecimal ones. Applied to its own result it changes nothing.
#[must_use]
pub fn operation_name(name: &str) -> Cow<'_, str> {
    let Some(slash) = name.find('/') else { return words(name) };
    let path = name.split_once('?').map_or(name, |(path, _)| path);
    let path = if path.len() < slash { name } else { path };
    let is_plain = path.len() == name.len() && !path.split('/').skip(1).any(is_id_of_path);
    if is_plain {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(path.len());
    for (number, segment) in path.split('/').enumerate() {
        if number > 0 {
            out.push('/');
        }
        out.push_str(if number > 0 && is_id_of_path(segment) { ID } else { segment });
    }
    Cow::Owned(out)
}

fn words(name: &str) -> Cow<'_, str> {
    let is_edge = |c: char| c == ' ' || c == ':' || c == ',';
    if !name.split(is_edge).any(is_id_of_text) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len());
    for piece in name.split_inclusive(is_edge) {
        let word = piece.trim_end_matches(is_edge);
        out.push_str(if is_id_of_text(word) { ID } else { word });
        out.push_str(piece.get(word.len()..).unwrap_or_default());
    }
    Cow::Owned(out)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_id_of_path(segment: &str) -> bool {
    is_number(segment) || is_uuid(segment) || is_hex(segment, LONG_HEX) || is_mixed(segment)
}

fn is_id_of_text(word: &str) -> bool {
    word.len() >= LONG_NUMBER && is_number(word) || is_uuid(word) || is_hex(word, 2 * LONG_HEX)
}

fn is_uuid(word: &str) -> bool {
    let mut lengths = word.split('-').map(str::len);
    word.len() == 36
        && [8, 4, 4, 4, 12].iter().all(|&length| lengths.next() == Some(length))
        && word.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn is_hex(word: &str, least: usize) -> bool {
    word.len() >= least
        && word.bytes().all(|byte| byte.is_ascii_hexdigit())
        && word.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_mixed(word: &str) -> bool {
    word.len() >= LONG_WORD
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && word.bytes().filter(u8::is_ascii_digit).count() >= SEVERAL_DIGITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_replaced_and_words_are_not() {
        for (name, wanted) in [
            ("GET /user/123", "GET /user/{id}"),
            ("GET /user/123/cart?page=2", "GET /user/{id}/cart"),
            ("/orders/9f8b3c2e-1111-4222-8333-444455556666", "/orders/{id}"),
            ("PUT /blob/deadbeef01/part/7", "PUT /blob/{id}/part/{id}"),
            ("GET /s/Ab12Cd34Ef56Gh78Ij90xyz", "GET /s/{id}"),
            ("process order 123456", "process order {id}"),
            ("send:9f8b3c2e-1111-4222-8333-444455556666", "send:{id}"),
            ("GET /user/{id}", "GET /user/{id}"),
            ("GET /v1/users", "GET /v1/users"),
            ("GET /api/v2/oauth2/token", "GET /api/v2/oauth2/token"),
            ("GET /decade/facade", "GET /decade/facade"),
            ("HTTP 200", "HTTP 200"),
            ("shop.Cart/AddItem", "shop.Cart/AddItem"),
            ("orders process", "orders process"),
            ("SELECT shop.orders", "SELECT shop.orders"),
            ("", ""),
            ("/", "/"),
            ("what? GET /a", "what? GET /a"),
        ] {
            let made = operation_name(name);
            assert_eq!(made, wanted);
            assert_eq!(operation_name(&made), made, "twice changes nothing");
        }
    }
}
