//! Files, the documents in them, and what is said of those that cannot be taken.

use super::{openslo, pyrra, sloth};
use crate::slo::Definition;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Objectives that all files together may hold.
const OBJECTIVES: usize = 50_000;

/// Directories in directories that are read at most.
const DEEP: usize = 8;

/// Files that are named one by one where many are refused.
const NAMED: usize = 20;

/// A file that cannot be taken: `FILE:LINE: KEY: what is wrong`.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {key}: {wrong}", path.display())]
    Wrong { path: PathBuf, line: u64, key: String, wrong: String },
}

impl FileError {
    /// Whether a name that it refers to is not there: it may lie in another file.
    fn is_about_another(&self) -> bool {
        matches!(self, Self::Wrong { key, .. } if key.ends_with("Ref") || key == "alertPolicies")
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. } | Self::Wrong { path, .. } => path,
        }
    }
}

/// Files that cannot be taken, the first mistake of each; there is at least one.
#[derive(Debug)]
pub struct Refused(pub Vec<FileError>);

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().take(NAMED).enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        match self.0.len().checked_sub(NAMED) {
            Some(more) if more > 0 => write!(f, "\nand {more} more"),
            _ => Ok(()),
        }
    }
}

impl From<FileError> for Refused {
    fn from(error: FileError) -> Self {
        Self(vec![error])
    }
}

/// What files hold together.
#[derive(Debug, Default)]
pub struct Taken {
    pub definitions: Vec<Definition>,
    /// Files that hold nothing at all: no mistake in the others, but hardly what somebody meant.
    pub empty: Vec<FileError>,
}

/// One YAML document of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a> {
    pub path: &'a Path,
    /// Lines of the file before it.
    above: u64,
    text: &'a str,
}

/// What tells kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<Spanned<String>>,
    kind: Option<Spanned<String>>,
    version: Option<Spanned<String>>,
}

impl<'a> Document<'a> {
    /// What is wrong, at a line of this document.
    pub fn wrong(&self, line: u64, key: &str, wrong: impl Into<String>) -> FileError {
        let line = self.above.saturating_add(line.max(1));
        FileError::Wrong { path: self.path.to_owned(), line, key: key.to_owned(), wrong: wrong.into() }
    }

    /// What is wrong, at a value of this document.
    pub fn wrong_at<T>(&self, at: &Spanned<T>, key: &str, wrong: impl Into<String>) -> FileError {
        self.wrong(at.referenced.line(), key, wrong)
    }

    /// The line of the file.
    pub fn line(&self, line: u64) -> u64 {
        self.above.saturating_add(line)
    }

    /// The whole document.
    ///
    /// # Errors
    /// It is no YAML, or has not these keys.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, FileError> {
        serde_saphyr::from_str(self.text).map_err(|error| {
            let (line, column) =
                error.location().map_or((1, 1), |location| (location.line(), location.column()));
            let message = error.without_snippet().to_string();
            let first = message.lines().next().unwrap_or_default();
            let text = self.text.lines().nth(place(line)).unwrap_or_default();
            if let Some((key, wrong)) = share_as_percent(text).filter(|_| first.contains("floating point")) {
                return self.wrong(line, key, wrong);
            }
            let key = first.split('`').nth(1).unwrap_or("document").to_owned();
            let hint = if first.contains("flow") && is_brace_in_a_name(text, place(column)) {
                "; in { } what holds a brace is quoted, such as operation: \"GET /user/{id}\""
            } else {
                ""
            };
            self.wrong(line, &key, format!("{first}{hint}"))
        })
    }
}

/// Where in a text it is what its reader counts from 1.
fn place(number: u64) -> usize {
    usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX)
}

/// The share that somebody who wrote so many percent means; `None` where that is unlikely.
pub(super) fn share_of_percent(percent: f64) -> Option<f64> {
    // Rounded, for a hundredth of 99.9 is not quite 0.999.
    (percent > 0.0 && percent < 100.0).then(|| (percent * 1e8).round() / 1e10)
}

/// The key of a share that a line gives as `99.9%`, and what to write instead.
fn share_as_percent(line: &str) -> Option<(&'static str, String)> {
    ["target", "timeSliceTarget"].into_iter().find_map(|key| {
        let (_, value) = line.split_once(&format!("{key}:"))?;
        let (number, _) = value.split_once('%')?;
        let number = number.trim().trim_start_matches(['"', '\'']).trim_end();
        let share = share_of_percent(number.parse().ok()?)?;
        Some((key, format!("is a share, not percent: write {share} for {number} %")))
    })
}

/// Whether a brace stands within a name, as in `GET /user/{id}`, rather than where something in braces begins.
fn is_brace_in_a_name(line: &str, column: usize) -> bool {
    let before = column.checked_sub(1).and_then(|before| line.chars().nth(before));
    line.chars().nth(column) == Some('{')
        && before.is_some_and(|c| !c.is_whitespace() && !matches!(c, '{' | '[' | ',' | ':'))
}

/// Splits a file at its `---` lines.
fn documents<'a>(path: &'a Path, text: &'a str) -> Vec<Document<'a>> {
    let mut found = Vec::new();
    let (mut begin, mut above) = (0, 0);
    let (mut at, mut line) = (0, 0u64);
    let mut push = |begin: usize, end: usize, above: u64| {
        let text = text.get(begin..end).unwrap_or_default();
        let is_empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        if !is_empty {
            found.push(Document { path, above, text });
        }
    };
    for full in text.split_inclusive('\n') {
        if full.trim_end() == "---" {
            push(begin, at, above);
            (begin, above) = (at + full.len(), line + 1);
        }
        at += full.len();
        line += 1;
    }
    push(begin, text.len(), above);
    found
}

/// Reads files, and of directories all `.yaml` and `.yml` files below them, together: what one refers to may lie in another.
///
/// # Errors
/// Some cannot be read, are no YAML, or say what is not understood: each with file, line and key. Also if two
/// objectives of a service have one name.
pub fn read_all(paths: &[PathBuf]) -> Result<Taken, Refused> {
    let (mut texts, mut refused) = (Vec::new(), Vec::new());
    for path in files_of(paths)? {
        match std::fs::read_to_string(&path) {
            Ok(text) => texts.push((path, text)),
            Err(source) => refused.push(FileError::Read { path, source }),
        }
    }
    read_texts(&texts, refused)
}

/// The files that paths mean, those of a directory in the order of their names, then those of its directories.
///
/// # Errors
/// A directory cannot be read, or lies too deep.
pub(super) fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files_in(path, DEEP, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn files_in(directory: &Path, deeper: usize, files: &mut Vec<PathBuf>) -> Result<(), FileError> {
    let unreadable = |source| FileError::Read { path: directory.to_owned(), source };
    let (mut own, mut below) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        // Kubernetes mounts a file as a link into a hidden directory, which holds it once more; and a link to a
        // directory may lead in a circle.
        if entry.file_type().map_err(unreadable)?.is_dir() {
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                below.push(path);
            }
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            own.push(path);
        }
    }
    own.sort();
    below.sort();
    files.append(&mut own);
    for path in below {
        let Some(deeper) = deeper.checked_sub(1) else {
            let source = std::io::Error::other(format!("it lies more than {DEEP} directories deep"));
            return Err(FileError::Read { path, source });
        };
        files_in(&path, deeper, files)?;
    }
    Ok(())
}

/// Reads the text of a file.
///
/// # Errors
/// As [`read_all`].
pub fn read(path: &Path, text: &str) -> Result<Vec<Definition>, Refused> {
    read_texts(&[(path.to_owned(), text.to_owned())], Vec::new()).map(|taken| taken.definitions)
}

/// Reads texts of files, some of which were `refused` already.
fn read_texts(texts: &[(PathBuf, String)], mut refused: Vec<FileError>) -> Result<Taken, Refused> {
    let mut openslo = openslo::Reader::default();
    let mut taken = Taken::default();
    for (path, text) in texts {
        let documents = documents(path, text);
        if documents.is_empty() {
            let wrong = "is empty: it holds no objective".to_owned();
            taken.empty.push(FileError::Wrong {
                path: path.clone(),
                line: 1,
                key: "document".to_owned(),
                wrong,
            });
        }
        // Of a file its first mistake is told; those of others are not hidden by it.
        let read = documents.into_iter().try_for_each(|document| {
            taken.definitions.extend(read_document(document, &mut openslo)?);
            Ok(())
        });
        refused.extend(read.err());
    }
    let (definitions, wrong) = openslo.finish();
    taken.definitions.extend(definitions);
    // What refers to a file that was refused is no mistake of its own.
    let is_whole = refused.is_empty();
    refused.extend(wrong.into_iter().filter(|error| is_whole || !error.is_about_another()));
    let mut known: BTreeMap<(&str, &str), &Definition> = BTreeMap::new();
    for definition in &taken.definitions {
        let wrong = |wrong: String| {
            let (path, line) = (definition.origin.path.clone(), definition.origin.line);
            FileError::Wrong { path, line, key: "name".to_owned(), wrong }
        };
        if let Some(first) = known.insert((&definition.service, &definition.name), definition) {
            let (path, line) = (first.origin.path.display(), first.origin.line);
            refused.push(wrong(format!("{:?} is the name of another one, {path}:{line}", definition.name)));
        }
        if known.len() > OBJECTIVES {
            refused.push(wrong(format!("is one too many, allowed: {OBJECTIVES}")));
            break;
        }
    }
    let mut told = BTreeSet::new();
    refused.retain(|error| told.insert(error.path().to_owned()));
    refused.sort_by(|a, b| a.path().cmp(b.path()));
    if refused.is_empty() { Ok(taken) } else { Err(Refused(refused)) }
}

/// The objectives of a document; those of OpenSLO are put together when all documents are read.
fn read_document<'a>(
    document: Document<'a>,
    openslo: &mut openslo::Reader<'a>,
) -> Result<Vec<Definition>, FileError> {
    let head: Head = document.parse()?;
    let (Some(version), key) = (match &head.version {
        Some(version) => (Some(version), "version"),
        None => (head.api_version.as_ref(), "apiVersion"),
    }) else {
        return Err(document.wrong(1, "apiVersion", "is missing"));
    };
    match (version.value.as_str(), &head.kind) {
        ("openslo/v1", Some(kind)) => openslo.take(document, kind).map(|()| Vec::new()),
        ("prometheus/v1", _) => sloth::plain(document),
        ("sloth.slok.dev/v1", _) => sloth::kubernetes(document),
        ("pyrra.dev/v1alpha1", _) => pyrra::read(document),
        ("openslo/v1", None) => Err(document.wrong(1, "kind", "is missing")),
        _ => {
            let allowed = "is not supported, allowed: openslo/v1, prometheus/v1 and sloth.slok.dev/v1 (Sloth), pyrra.dev/v1alpha1 (Pyrra)";
            Err(document.wrong_at(version, key, allowed))
        }
    }
}
