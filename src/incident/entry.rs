//! What operators do and say, each entry chained to the one before it.

use super::Error;
use crate::model::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

const LONGEST_AUTHOR_BYTES: usize = 128;
const LONGEST_TEXT_BYTES: usize = 4_096;

/// What an operator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Somebody takes care of it.
    Acknowledge,
    /// A line for the record.
    Note,
    /// The record is closed; this says nothing of the service's health.
    Resolve,
}

/// BLAKE3 of an entry; of nothing for the first.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        blake3::Hash::from_hex(&text).map(|hash| Self(hash.into())).map_err(|error| error.to_string())
    }
}

/// An entry of an incident's record: append-only, chained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub incident: String,
    /// From 1.
    pub number: u32,
    pub at: Timestamp,
    /// Such as a person's login name.
    pub author: String,
    pub kind: Action,
    pub text: String,
    /// What the entry is about beside the incident: ids, links.
    pub refs: Vec<String>,
    /// Hash of the entry before it.
    pub previous: Hash,
}

impl Entry {
    /// Hash over every field, each text preceded by its length.
    #[must_use]
    pub fn hash(&self) -> Hash {
        fn text(hasher: &mut blake3::Hasher, text: &str) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.previous.0);
        hasher.update(&self.number.to_le_bytes());
        hasher.update(&self.at.ns().to_le_bytes());
        hasher.update(&[self.kind as u8]);
        text(&mut hasher, &self.incident);
        text(&mut hasher, &self.author);
        text(&mut hasher, &self.text);
        for reference in &self.refs {
            text(&mut hasher, reference);
        }
        Hash(hasher.finalize().into())
    }
}

/// An append to the ledger, `Stage::Incident`. When the ledger already holds the key, somebody else
/// wrote meanwhile: fold what is new and build the write again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub object: String,
    pub key: String,
    pub entry: Entry,
}

impl Write {
    pub(super) fn new(entry: Entry) -> Self {
        Self { object: entry.incident.clone(), key: format!("{}/{}", entry.incident, entry.number), entry }
    }
}

/// The author as it is recorded.
pub(super) fn author(name: &str) -> Result<String, Error> {
    let name = name.trim();
    if name.is_empty() {
        return Ok("operator".to_owned());
    }
    if name.len() > LONGEST_AUTHOR_BYTES {
        return Err(Error::Length { what: "author", bytes: name.len(), allowed: "1 to 128" });
    }
    printable("author", name, false)?;
    Ok(name.to_owned())
}

/// The text as it is recorded.
pub(super) fn text(text: &str, may_be_empty: bool) -> Result<String, Error> {
    let text = text.trim();
    if text.len() > LONGEST_TEXT_BYTES || (text.is_empty() && !may_be_empty) {
        let allowed = if may_be_empty { "0 to 4096" } else { "1 to 4096" };
        return Err(Error::Length { what: "text", bytes: text.len(), allowed });
    }
    printable("text", text, true)?;
    Ok(text.to_owned())
}

fn printable(what: &'static str, text: &str, lines: bool) -> Result<(), Error> {
    match text.chars().find(|&c| c.is_control() && !(lines && matches!(c, '\n' | '\t'))) {
        Some(c) => Err(Error::ControlCharacter { what, character: u32::from(c) }),
        None => Ok(()),
    }
}
