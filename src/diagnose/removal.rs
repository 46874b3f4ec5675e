//! Evidence bundles are removed when they are old, or when they are too many for their part of the disk.

use super::{Config, Error};
use crate::confirm::AnomalyId;
use crate::model::Timestamp;
use crate::store::{LedgerRecord, Stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Objects of removals begin so.
const REMOVED: &str = "removed/";
/// Bundles that are kept at most, however small they are.
const BUNDLES: usize = 10_000;
/// Younger ones stay: a diagnosis may be writing the next pass.
const YOUNG: Duration = Duration::from_secs(600);

/// Why a bundle was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovedReason {
    Age,
    Room,
}

impl RemovedReason {
    pub const ALL: [Self; 2] = [Self::Age, Self::Room];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Room => "room",
        }
    }

    /// In words, after `was removed`.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Age => "for its age",
            Self::Room => "to make room",
        }
    }
}

/// A bundle was removed, as the ledger holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    pub removed: AnomalyId,
    pub at: Timestamp,
    pub bytes: u64,
    pub reason: RemovedReason,
}

impl Removed {
    /// The ledger's object.
    #[must_use]
    pub fn object(&self) -> String {
        format!("{REMOVED}{}", self.removed)
    }

    /// The ledger's key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.object(), self.at.0)
    }

    /// Reads a record; `None` if it is of something else.
    #[must_use]
    pub fn read(record: &LedgerRecord) -> Option<Self> {
        if record.stage != Stage::Diagnose || !record.object.starts_with(REMOVED) {
            return None;
        }
        serde_json::from_value(record.payload.clone()).ok()
    }
}

/// What a look at all bundles found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub removed: Vec<Removed>,
    /// Bundles that are left, and their disk space.
    pub bundles: u64,
    pub bytes: u64,
}

struct Bundle {
    written: Timestamp,
    path: PathBuf,
    anomaly: AnomalyId,
    bytes: u64,
}

/// Removes what is older than `diagnose.evidence_age` or more than `diagnose.evidence_bytes`, oldest first; never the
/// bundle of an anomaly that is open. Blocking.
///
/// # Errors
/// When the directory cannot be read. A bundle that cannot be removed is logged, and tried again the next time.
pub fn sweep(
    directory: &Path,
    config: &Config,
    now: Timestamp,
    open: &BTreeSet<AnomalyId>,
) -> Result<Swept, Error> {
    let mut bundles = look(directory, now)?;
    bundles.sort_by(|a, b| (a.written, &a.path).cmp(&(b.written, &b.path)));
    let mut swept = Swept {
        bundles: bundles.len() as u64,
        bytes: bundles.iter().map(|bundle| bundle.bytes).fold(0, u64::saturating_add),
        removed: Vec::new(),
    };
    for Bundle { written, path, anomaly, bytes } in bundles {
        let age = now.since(written);
        let is_much = swept.bytes > config.evidence_bytes.0 || swept.bundles > BUNDLES as u64;
        let reason = match age {
            _ if open.contains(&anomaly) || age < YOUNG => continue,
            age if age > config.evidence_age.0 => RemovedReason::Age,
            _ if is_much => RemovedReason::Room,
            _ => continue,
        };
        // First out of sight as a whole.
        let aside = directory.join(format!(".{anomaly}.removed"));
        let gone = fs::rename(&path, &aside).and_then(|()| fs::remove_dir_all(&aside));
        if let Err(error) = gone {
            tracing::warn!(path = %path.display(), %error, "a bundle that is to be removed stays for now");
            if path.exists() {
                continue;
            }
        }
        swept.bundles = swept.bundles.saturating_sub(1);
        swept.bytes = swept.bytes.saturating_sub(bytes);
        swept.removed.push(Removed { removed: anomaly, at: now, bytes, reason });
    }
    Ok(swept)
}

/// All bundles of a directory; what unfinished ones and removals left is removed.
fn look(directory: &Path, now: Timestamp) -> Result<Vec<Bundle>, Error> {
    let mut bundles = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::file(directory))? {
        let path = entry.map_err(Error::file(directory))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        let is_rest = name.starts_with('.');
        let described = if is_rest { path.clone() } else { path.join("manifest.json") };
        // One that is being written, or is none of ours.
        let Ok(modified) = described.metadata().and_then(|file| file.modified()) else { continue };
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        if is_rest {
            if now.since(written) > YOUNG && path.is_dir() {
                let _ = fs::remove_dir_all(&path);
            }
            continue;
        }
        let bytes = size(&path);
        bundles.push(Bundle { written, path, anomaly: AnomalyId(name), bytes });
    }
    Ok(bundles)
}

/// Bytes of the files of a bundle, which has no folders but one for what collectors said.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => {
            let files = fs::read_dir(entry.path()).into_iter().flatten().flatten();
            files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
        }
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{ByteSize, Seconds};
    use std::fs::File;

    const NOW: u64 = 1_700_000_000;

    fn bundle(directory: &Path, name: &str, age_s: u64, bytes: u64) {
        let folder = directory.join(name);
        fs::create_dir_all(&folder).unwrap();
        let file = File::create(folder.join("manifest.json")).unwrap();
        file.set_len(bytes).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(NOW - age_s)).unwrap();
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_old_goes_then_what_is_too_much_and_open_anomalies_keep_theirs() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age_s) in
            [("old", 90_000), ("open", 95_000), ("third", 3_000), ("second", 2_000), ("first", 700)]
        {
            bundle(folder.path(), name, age_s, 1_000);
        }
        bundle(folder.path(), "young", 10, 5_000);
        fs::create_dir(folder.path().join("not-ours")).unwrap();
        let config = Config {
            evidence_bytes: ByteSize(8_000),
            evidence_age: Seconds(Duration::from_secs(86_400)),
            ..Config::default()
        };
        let open = BTreeSet::from([AnomalyId("open".into())]);
        let swept = sweep(folder.path(), &config, Timestamp::from_secs(NOW), &open).unwrap();
        let removed: Vec<_> =
            swept.removed.iter().map(|one| (&*one.removed.0, one.bytes, one.reason)).collect();
        assert_eq!(removed, [("old", 1_000, RemovedReason::Age), ("third", 1_000, RemovedReason::Room)]);
        assert_eq!(names(folder.path()), ["first", "not-ours", "open", "second", "young"]);
        assert_eq!((swept.bundles, swept.bytes), (4, 8_000));
        let again = sweep(folder.path(), &config, Timestamp::from_secs(NOW), &open).unwrap();
        assert_eq!(again, Swept { removed: Vec::new(), ..swept });
    }

    #[test]
    fn what_a_removal_that_was_cut_off_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        bundle(folder.path(), ".a.removed", 0, 10);
        let later = Timestamp::from_secs(u64::MAX / 2_000_000_000);
        sweep(folder.path(), &Config::default(), later, &BTreeSet::new()).unwrap();
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn a_record_of_a_removal_is_read_as_one() {
        let removed = Removed {
            removed: AnomalyId("a".into()),
            at: Timestamp::from_secs(1),
            bytes: 2,
            reason: RemovedReason::Age,
        };
        let record = LedgerRecord {
            sequence: 1,
            at: removed.at,
            stage: Stage::Diagnose,
            object: removed.object(),
            key: removed.key(),
            payload: serde_json::to_value(&removed).unwrap(),
        };
        assert_eq!(Removed::read(&record), Some(removed));
        assert_eq!(Removed::read(&LedgerRecord { object: "a".into(), ..record }), None);
    }
}
