//! Fetching the files of a bundle into a directory, or into one file.

use super::connection::Daemon;
use super::failure::Failure;
use crate::api::v1;
use crate::api::v1::download_evidence_response::Part;
use crate::serve::text::plain;
use std::fs::File;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use tonic::Streaming;

/// Fetches into `out`; if its name ends with `.tar.zst`, into a directory beside it that is then packed.
pub(super) fn into<T>(out: &Path, fetch: impl FnOnce(&Path) -> Result<T, Failure>) -> Result<T, Failure> {
    if !out.to_str().is_some_and(|name| name.ends_with(".tar.zst")) {
        return fetch(out);
    }
    // Fetched beside where it is to lie, so that nothing is left half done on another disk.
    let mut directory = out.to_owned();
    directory.set_extension("");
    directory.set_extension(format!("fetched-{}", std::process::id()));
    let done = fetch(&directory).and_then(|fetched| {
        crate::diagnose::pack(&directory, out).map_err(|error| Failure::failed(error.to_string()))?;
        Ok(fetched)
    });
    // It may never have been made.
    let _ = std::fs::remove_dir_all(&directory);
    done
}

/// A file being written, and what it must turn out to be.
struct Incoming {
    path: PathBuf,
    file: File,
    hash: blake3::Hasher,
    expected: v1::EvidenceFile,
}

impl Incoming {
    fn begin(out: &Path, expected: v1::EvidenceFile) -> Result<Self, Failure> {
        let path = out.join(safe_path(&expected.path)?);
        let cannot = |error| Failure::failed(format!("cannot write {}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(cannot)?;
        }
        let file = File::create(&path).map_err(cannot)?;
        Ok(Self { path, file, hash: blake3::Hasher::new(), expected })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.hash.update(data);
        self.file
            .write_all(data)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", self.path.display())))
    }

    fn end(self) -> Result<(), Failure> {
        let hash = self.hash.finalize().to_hex();
        if self.expected.blake3.is_empty() || *hash == *self.expected.blake3 {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "{} changed while it was fetched (late spans were being added): fetch it again",
            self.path.display()
        )))
    }
}

/// Writes the files of a bundle into a directory, which is made.
pub(super) async fn receive(
    mut parts: Streaming<v1::DownloadEvidenceResponse>,
    out: &Path,
    daemon: &Daemon,
) -> Result<(), Failure> {
    std::fs::create_dir_all(out)
        .map_err(|error| Failure::failed(format!("cannot make {}: {error}", out.display())))?;
    let mut open: Option<Incoming> = None;
    while let Some(part) = parts.message().await.map_err(|status| daemon.failure(&status))? {
        match part.part {
            Some(Part::File(file)) => {
                if let Some(done) = open.replace(Incoming::begin(out, file)?) {
                    done.end()?;
                }
            }
            Some(Part::Data(data)) => match &mut open {
                Some(file) => file.write(&data)?,
                None => return Err(Failure::failed("the daemon sent bytes before naming their file")),
            },
            None => {}
        }
    }
    open.map_or(Ok(()), Incoming::end)
}

/// A path that stays within the directory: a daemon is not to write elsewhere on this machine.
fn safe_path(path: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(path);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    if stays && path.file_name().is_some() {
        Ok(path.to_owned())
    } else {
        Err(Failure::failed(format!(
            "the daemon named a file outside of the bundle, {:?}: nothing was written there",
            plain(&path.display().to_string())
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_within_the_directory() {
        for good in ["index.html", "traces/spans.parquet"] {
            assert_eq!(safe_path(good), Ok(PathBuf::from(good)));
        }
        for bad in ["", "/etc/passwd", "../x", "a/../../x", ".", "a/.."] {
            assert_eq!(safe_path(bad).map_err(|failure| failure.code), Err(1), "{bad:?}");
        }
    }
}
