//! Names of files and folders.

#[cfg(test)]
use super::trace::{self, Op};
use super::{DiskFile, Mode};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Gives a file or a folder another name in the same folder, taking the place of the file that had it.
///
/// # Errors
/// What the file system says.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(not(test))]
    return fs::rename(from, to);
    #[cfg(test)]
    trace::note(from, || fs::rename(from, to), || Op::Rename { from: from.to_owned(), to: to.to_owned() })
}

/// Exchanges the names of two folders that lie in one, so that at no moment there is none of either name. Where the
/// file system cannot do so, the first is moved out of the way for a moment.
///
/// # Errors
/// What the file system says.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let exchange = || match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            let aside = other.with_extension("aside");
            fs::rename(one, &aside)?;
            if let Err(error) = fs::rename(other, one) {
                fs::rename(&aside, one)?;
                return Err(error);
            }
            fs::rename(&aside, other)
        }
        exchanged => Ok(exchanged?),
    };
    #[cfg(not(test))]
    return exchange();
    #[cfg(test)]
    trace::note(one, exchange, || Op::Exchange { one: one.to_owned(), other: other.to_owned() })
}

/// Removes a folder with all that is in it; nothing if there is none.
///
/// # Errors
/// What the file system says.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    let remove = || match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    };
    #[cfg(not(test))]
    return remove();
    #[cfg(test)]
    trace::note(path, remove, || Op::Remove { path: path.to_owned() })
}

/// Writes a file whole, and makes what it holds survive a power loss; its name does once the folder is synced.
///
/// # Errors
/// What the file system says; part of it may be there then.
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = DiskFile::open(path, Mode::Replace)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
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
