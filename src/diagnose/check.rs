//! Reads keepsakes and evidence bundles without changing them, and names what is damaged.

use super::archive::{self, Files};
use super::{Error, keepsakes, offline};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file that is damaged, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: damaged: {what}", .path.display())]
pub struct Damaged {
    pub path: PathBuf,
    pub what: String,
}

/// What was looked at, whole or damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub keepsakes: u64,
    pub bundles: u64,
    pub damage: Vec<Damaged>,
}

/// How often a bundle is read that a running daemon writes anew meanwhile.
const READS: usize = 3;

/// Reads every keepsake of one folder and every bundle of another; a folder that is not there is empty. A daemon may
/// be writing to them.
///
/// # Errors
/// When a folder cannot be listed.
pub fn check(of_keepsakes: &Path, of_bundles: &Path) -> Result<Checked, Error> {
    let mut checked = Checked::default();
    for path in entries(of_keepsakes)?.into_iter().filter(|path| keepsakes::is_one(path)) {
        let bytes = match fs::read(&path) {
            // It made room meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.map_err(|error| error.to_string()),
        };
        checked.keepsakes = checked.keepsakes.saturating_add(1);
        if let Err(what) = bytes.and_then(|bytes| keepsakes::check(&path, &bytes)) {
            checked.damage.push(Damaged { path, what });
        }
    }
    for path in entries(of_bundles)?.into_iter().filter(|path| is_bundle(path)) {
        let damage = damage(&path);
        // It was removed meanwhile.
        if path.exists() {
            checked.bundles = checked.bundles.saturating_add(1);
            checked.damage.extend(damage);
        }
    }
    Ok(checked)
}

/// By name, so that the same folder is told of in the same order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(Error::file(folder))?,
    };
    let mut paths = Vec::new();
    for entry in listed {
        paths.push(entry.map_err(Error::file(folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Not what is being written or removed, nor what somebody else put there.
fn is_bundle(path: &Path) -> bool {
    let is_rest = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    !is_rest && ["manifest.json", "causes.json"].iter().any(|file| path.join(file).is_file())
}

fn damage(bundle: &Path) -> Vec<Damaged> {
    let mut found = Vec::new();
    for _ in 0..READS {
        let (damage, manifest) = match archive::read(bundle) {
            Ok(files) => (wrong(bundle, &files), files.get("manifest.json").cloned()),
            Err(error) => (vec![Damaged { path: bundle.to_owned(), what: error.to_string() }], None),
        };
        found = damage;
        // A pass that was written meanwhile has other files than the one whose manifest was read.
        if found.is_empty() || fs::read(bundle.join("manifest.json")).ok() == manifest {
            break;
        }
    }
    found
}

fn wrong(bundle: &Path, files: &Files) -> Vec<Damaged> {
    let of = |name: &str, what: String| Damaged { path: bundle.join(name), what };
    let changed = match offline::Manifest::of(files) {
        Ok(manifest) => manifest.changed(files),
        Err(what) => return vec![of("manifest.json", what)],
    };
    if !changed.is_empty() {
        return changed.into_iter().map(|(name, what)| of(&name, what.to_owned())).collect();
    }
    match offline::Bundle::of(files) {
        Ok(_) => Vec::new(),
        Err(error) => vec![Damaged { path: bundle.to_owned(), what: error.to_string() }],
    }
}
