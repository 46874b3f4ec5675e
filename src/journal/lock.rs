//! One daemon a data directory.

use super::Error;
use crate::disk;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Holds a directory for this process until it is dropped (or the process dies).
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the directory, which is made when it is missing.
///
/// # Errors
/// [`Error::Locked`], naming the process that has it, or what the file system says.
pub fn lock(dir: &Path) -> Result<Lock, Error> {
    disk::make_folders(dir).map_err(Error::io(dir, "make the directory"))?;
    let path = dir.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io(&path, "open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = Read::take(&mut file, 32).read_to_string(&mut text);
            return Err(Error::Locked { path: dir.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(error) => return Err(Error::io(&path, "lock")(error.into())),
    }
    let text = format!("{}\n", std::process::id());
    file.set_len(0).map_err(Error::io(&path, "write"))?;
    file.write_all_at(text.as_bytes(), 0).map_err(Error::io(&path, "write"))?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_come_is_told_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        assert!(lock(dir.path()).is_ok());
    }
}
