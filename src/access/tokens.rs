//! Bearer tokens, read from a file. Only their digests are kept.

use super::guard::Caller;
use super::{Role, Roles};
use crate::model::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::{Table, Value};

/// SHA-256 of a secret. Secrets are looked up by it, so how long a look takes tells nothing about them.
pub(super) type Digest = [u8; 32];

/// Most tokens of a file.
const MOST: usize = 10_000;

pub(super) fn digest(secret: &[u8]) -> Digest {
    let mut out = Digest::default();
    let made = ring::digest::digest(&ring::digest::SHA256, secret);
    out.iter_mut().zip(made.as_ref()).for_each(|(to, from)| *to = *from);
    out
}

/// Whom a token stands for.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub caller: Caller,
    pub expires: Option<Timestamp>,
}

/// All tokens by digest.
#[derive(Clone, Default)]
pub(super) struct Tokens(BTreeMap<Digest, Holder>);

impl Tokens {
    pub fn get(&self, digest: &Digest) -> Option<&Holder> {
        self.0.get(digest)
    }

    /// Reads a file of tokens.
    ///
    /// # Errors
    /// What is wrong, without quoting any value: it could be a secret in the wrong place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!("line {}: not TOML", 1 + before.matches('\n').count())
        })?;
        if let Some(key) = table.keys().find(|key| *key != "token") {
            return Err(format!("unknown key {key:?}, allowed: [[token]]"));
        }
        let entries = match table.get("token") {
            Some(Value::Array(entries)) => entries.as_slice(),
            Some(_) => return Err("token is no list: write [[token]]".to_owned()),
            None => &[],
        };
        if entries.len() > MOST {
            return Err(format!("more than {MOST} tokens"));
        }
        let mut tokens = Self::default();
        for (number, entry) in entries.iter().enumerate() {
            let (digest, holder) =
                read(entry).map_err(|wrong| format!("token {}: {wrong}", number.saturating_add(1)))?;
            if tokens.0.insert(digest, holder).is_some() {
                return Err(format!("token {}: the same token stands twice", number.saturating_add(1)));
            }
        }
        Ok(tokens)
    }
}

fn read(entry: &Value) -> Result<(Digest, Holder), String> {
    const KEYS: [&str; 5] = ["name", "roles", "token", "sha256", "expires"];
    let entry = entry.as_table().ok_or("is no table: write [[token]]")?;
    if let Some(key) = entry.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown key {key:?}, allowed: {}", KEYS.join(", ")));
    }
    let text = |key: &str| match entry.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.as_str())),
        Some(_) => Err(format!("{key} is no text, or empty")),
    };
    let name = text("name")?.ok_or("has no name")?;
    let roles = entry.get("roles").and_then(Value::as_array).ok_or("has no list of roles")?;
    let roles: Roles = roles
        .iter()
        .map(|role| {
            role.as_str()
                .and_then(Role::parse)
                .ok_or_else(|| "roles: allowed are ingest, read, operate, admin".to_owned())
        })
        .collect::<Result<_, String>>()?;
    let digest = match (text("token")?, text("sha256")?) {
        (Some(token), None) if token.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            return Err("token holds white space".to_owned());
        }
        (Some(token), None) => digest(token.as_bytes()),
        (None, Some(hex)) => from_hex(hex).ok_or("sha256 is not 64 hexadecimal digits")?,
        _ => return Err("needs either token or sha256".to_owned()),
    };
    let expires = match entry.get("expires") {
        None => None,
        Some(Value::Datetime(at)) => Some(moment(&at.to_string())?),
        Some(Value::String(at)) => Some(moment(at)?),
        Some(_) => return Err("expires is no time".to_owned()),
    };
    Ok((digest, Holder { caller: Caller { name: Arc::from(name), has_token: true, roles }, expires }))
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
        .map_err(|_| "expires is no RFC 3339 time such as 2027-01-31T00:00:00Z".to_owned())
}

fn from_hex(hex: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if hex.len() != 2 * digest.len() || !hex.is_ascii() {
        return None;
    }
    for (number, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * number..2 * number + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_plain_or_as_digests() {
        let tokens = Tokens::parse(
            "[[token]]\nname = \"collector\"\nroles = [\"ingest\"]\ntoken = \"secret-1\"\n\
             [[token]]\nname = \"ci\"\nroles = [\"operate\"]\nexpires = 2027-01-31T00:00:00Z\n\
             sha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n",
        )
        .unwrap();
        let collector = tokens.get(&digest(b"secret-1")).unwrap();
        assert_eq!((&*collector.caller.name, collector.expires), ("collector", None));
        assert!(collector.caller.roles.may(Role::Ingest) && !collector.caller.roles.may(Role::Read));
        let ci = tokens.get(&digest(b"secret")).unwrap();
        assert_eq!(ci.expires, Some(Timestamp::from_secs(1_801_353_600)));
        assert!(tokens.get(&digest(b"secret-2")).is_none());
    }

    #[test]
    fn mistakes_are_named_without_their_values() {
        for text in [
            "[[token]]\nname = \"a\"\nroles = [\"hunter2\"]\ntoken = \"hunter2\"",
            "[[token]]\nname = \"a\"\nroles = []\ntoken = \"hunter2 \"",
            "[[token]]\nname = \"a\"\nroles = []\nsha256 = \"hunter2\"",
            "[[token]]\nname = \"a\"\nroles = []\ntoken = \"x\"\nexpires = \"hunter2\"",
            "token = \"hunter2\"",
            "[[token]\nhunter2",
            "[[token]]\nname = \"a\"\nroles = []\ntoken = \"hunter2\"\n[[token]]\nname = \"b\"\nroles = []\ntoken = \"hunter2\"",
        ] {
            let wrong = Tokens::parse(text).err().unwrap_or_else(|| panic!("taken: {text}"));
            assert!(!wrong.contains("hunter2"), "{wrong}");
        }
    }
}
