//! Files as the journal and the store use them: every write, sync and rename goes through here.
//!
//! In tests, what is done below a folder can be traced, and from the trace follow *crash images*: what a
//! disk may hold after the power failed at some moment. Only what was synced is sure to be there; later
//! writes may be lost, torn or reordered, names may be those of before.

mod file;
mod folder;
#[cfg(test)]
mod images;
#[cfg(test)]
mod trace;

pub use file::{DiskFile, Mode};
pub use folder::{exchange, make_folders, remove_file, remove_folder, rename, sync_folder, write_file};
#[cfg(test)]
pub use images::{Disk, Image, wanted};
#[cfg(test)]
pub use trace::{Failure, Trace, is_traced};
