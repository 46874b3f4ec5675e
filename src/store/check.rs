//! Reads the store without changing it, and names what is damaged.

use super::checkpoint::decode;
use super::database::BLOCKS;
use super::files::Block;
use super::{block, salvage};
use crate::store::Error;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};
use std::path::Path;

/// Everything that is damaged in the store of `dir`, and how many blocks it names.
///
/// # Errors
/// [`Error::InUse`] while a daemon runs on it, or what the file system says.
pub fn check(dir: &Path) -> Result<(u64, Vec<Error>), Error> {
    let path = dir.join("barograph.redb");
    let mut damaged = Vec::new();
    if !path.exists() {
        return Ok((0, damaged));
    }
    // What a daemon is writing would look damaged.
    let _held = match crate::journal::lock(dir) {
        Ok(lock) => lock,
        Err(_) => return Err(Error::InUse(path)),
    };
    // Checking mends what can be mended: so a copy is checked.
    let copy = std::env::temp_dir().join(format!("barograph-check-{}.redb", std::process::id()));
    std::fs::copy(&path, &copy).map_err(Error::file(&copy))?;
    let named = salvage::guarded(&path, || {
        let mut database = Database::open(&copy)?;
        if !salvage::check(&copy, &mut database)? {
            let what = "some of its pages, which the next start mends".to_owned();
            damaged.push(Error::Damaged { path: path.clone(), what });
        }
        let mut blocks = Vec::new();
        for entry in database.begin_read()?.open_table(BLOCKS)?.iter()? {
            let (number, block) = entry?;
            blocks.push((number.value(), decode::<Block>(block.value())?));
        }
        Ok(blocks)
    });
    let _ = std::fs::remove_file(&copy);
    let blocks = match named {
        Ok(blocks) => blocks,
        Err(error @ Error::Damaged { .. }) => {
            damaged.push(error);
            return Ok((0, damaged));
        }
        Err(error) => return Err(error),
    };
    for (number, of) in &blocks {
        let file = dir.join("blocks").join(format!("{number:012}-{}.arrow", of.level.as_str()));
        let what = match std::fs::read(&file) {
            Ok(bytes) if crc32fast::hash(&bytes) == of.crc32 => match block::read(&bytes) {
                Ok(_) => continue,
                Err(what) => what,
            },
            Ok(_) => "its checksum does not match".to_owned(),
            Err(error) => error.to_string(),
        };
        damaged.push(Error::Damaged { path: file, what });
    }
    Ok((blocks.len() as u64, damaged))
}
