//! Names of files and folders.

#[cfg(test)]
use super::trace::{self, Op};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Gives a file another name in the same folder, taking the place of what had it.
///
/// # Errors
/// What the file system says.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(not(test))]
    return fs::rename(from, to);
    #[cfg(test)]
    trace::note(from, || fs::rename(from, to), || Op::Rename { from: from.to_owned(), to: to.to_owned() })
}

/// # Errors
/// What the file system says.
pub fn remove_file(path: &Path) -> io::Result<()> {
    #[cfg(not(test))]
    return fs::remove_file(path);
    #[cfg(test)]
    trace::note(path, || fs::remove_file(path), || Op::Remove { path: path.to_owned() })
}

/// Makes the names in a folder survive a power loss.
///
/// # Errors
/// What the file system says.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let sync = || File::open(path)?.sync_all();
    #[cfg(not(test))]
    return sync();
    #[cfg(test)]
    trace::note(path, sync, || Op::SyncFolder { path: path.to_owned() })
}

/// Makes a folder and those above it that are missing; their names survive a power loss.
///
/// # Errors
/// What the file system says.
pub fn make_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folders(parent)?;
    let make = || match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    };
    #[cfg(not(test))]
    make()?;
    #[cfg(test)]
    trace::note(path, make, || Op::MakeFolder { path: path.to_owned() })?;
    sync_folder(parent)
}
