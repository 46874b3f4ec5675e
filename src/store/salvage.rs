//! A damaged database: it is put aside, and what can be read of it goes into a new one.

use super::checkpoint::decode;
use super::database::{BLOCKS, KEYS, LATEST, META, RECORDS, SERIES};
use super::files::Block;
use super::ledger::LedgerRecord;
use crate::disk;
use crate::model::SeriesKey;
use crate::store::Error;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Databases larger than this are not checked as a whole at the start.
const CHECKED_BYTES: u64 = 1 << 30;

/// Runs work on a database that may be damaged: what it says of damage, and panics over it, is an error.
pub(super) fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let damaged = |what: String| Error::Damaged { path: path.to_owned(), what };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(Error::Database(error))) if is_damage(&error) => Err(damaged(error.to_string())),
        Ok(done) => done,
        Err(_) => Err(damaged("it does not read as a database".to_owned())),
    }
}

fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) | redb::Error::RepairAborted => true,
        redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

/// Whether every page of a database has the checksum that it should have; `false` if it had to be mended.
pub(super) fn check(path: &Path, database: &mut Database) -> Result<bool, Error> {
    if path.metadata().map_or(0, |file| file.len()) > CHECKED_BYTES {
        return Ok(true);
    }
    Ok(database.check_integrity()?)
}

/// Puts a damaged file aside, under a name that is free.
pub(super) fn put_aside(path: &Path) -> Result<PathBuf, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = (1..1_000u32)
        .map(|number| path.with_file_name(format!("{name}.damaged-{number}")))
        .find(|aside| !aside.exists())
        .ok_or_else(|| Error::Damaged {
            path: path.to_owned(),
            what: "999 damaged ones lie beside it".to_owned(),
        })?;
    disk::rename(path, &free).map_err(Error::file(path))?;
    Ok(free)
}

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Salvaged {
    pub records: u64,
    pub series: u64,
    pub blocks: u64,
}

/// Copies what reads: the ledger, series, which blocks there are. The checkpoint is left out, for half of
/// one would be wrong: the whole journal is replayed instead.
pub(super) fn salvage(from: &Path, into: &Database) -> Result<Salvaged, Error> {
    let mut salvaged = Salvaged::default();
    let copy = from.with_extension("salvage");
    let old = open_somehow(from, &copy);
    let _ = std::fs::remove_file(&copy);
    let Some(old) = old else { return Ok(salvaged) };
    let transaction = into.begin_write()?;
    {
        let (mut records, mut keys) = (transaction.open_table(RECORDS)?, transaction.open_table(KEYS)?);
        let mut latest = transaction.open_table(LATEST)?;
        for (sequence, bytes) in rows(&old, RECORDS, |key| key) {
            let Ok(record) = serde_json::from_slice::<LedgerRecord>(&bytes) else { continue };
            if record.sequence != sequence {
                continue;
            }
            let stage = record.stage.number();
            records.insert(sequence, bytes.as_slice())?;
            keys.insert((stage, &*record.key), sequence)?;
            latest.insert((stage, &*record.object), sequence)?;
            salvaged.records += 1;
        }
        let mut series = transaction.open_table(SERIES)?;
        for (id, bytes) in rows(&old, SERIES, |key| key) {
            if decode::<(u64, SeriesKey)>(&bytes).is_ok() {
                series.insert(id, bytes.as_slice())?;
                salvaged.series += 1;
            }
        }
        let mut blocks = transaction.open_table(BLOCKS)?;
        for (number, bytes) in rows(&old, BLOCKS, |key| key) {
            if decode::<Block>(&bytes).is_ok() {
                blocks.insert(number, bytes.as_slice())?;
                salvaged.blocks += 1;
            }
        }
        // Without how far windows were sealed, those in the blocks would be sealed once more.
        let mut meta = transaction.open_table(META)?;
        for (name, bytes) in rows(&old, META, str::to_owned) {
            if ["mark", "floor"].contains(&name.as_str()) {
                meta.insert(&*name, bytes.as_slice())?;
            }
        }
    }
    transaction.commit()?;
    Ok(salvaged)
}

/// Opens a copy of a damaged database: as it is; after a repair that it is made to believe it needs, which
/// works out anew what is not data; and with its end, when that was cut off, as zeros.
fn open_somehow(from: &Path, copy: &Path) -> Option<Database> {
    /// Of redb's header: where its flags stand, and which says that the last use did not end well.
    const FLAGS_AT: u64 = 9;
    const NEEDS_REPAIR: u8 = 2;
    let prepare = |attempt: u32| -> std::io::Result<()> {
        std::fs::copy(from, copy)?;
        let file = std::fs::File::options().read(true).write(true).open(copy)?;
        if attempt > 0 {
            let mut flags = [0u8];
            file.read_exact_at(&mut flags, FLAGS_AT)?;
            file.write_all_at(&[flags[0] | NEEDS_REPAIR], FLAGS_AT)?;
        }
        if attempt > 1 {
            let length = file.metadata()?.len();
            file.set_len(length.saturating_mul(2).next_power_of_two())?;
        }
        Ok(())
    };
    (0..3).find_map(|attempt| {
        prepare(attempt).ok()?;
        guarded(copy, || Ok(Database::open(copy)?)).ok()
    })
}

/// Rows of a table up to the first that cannot be read, from both of its ends.
fn rows<K: redb::Key + 'static, O: PartialEq>(
    old: &Database,
    table: TableDefinition<'static, K, &'static [u8]>,
    own: impl Fn(K::SelfType<'_>) -> O,
) -> Vec<(O, Vec<u8>)> {
    let mut found = Vec::new();
    let mut behind = Vec::new();
    // Pages that are damaged may be met as errors or as panics; either ends the walk from that side.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let Ok(transaction) = old.begin_read() else { return };
        let Ok(table) = transaction.open_table(table) else { return };
        let Ok(mut range) = table.iter() else { return };
        let ended = catch_unwind(AssertUnwindSafe(|| {
            while let Some(Ok((key, value))) = range.next() {
                found.push((own(key.value()), value.value().to_vec()));
            }
        }));
        let _ = ended;
        let Ok(mut range) = table.iter() else { return };
        while let Some(Ok((key, value))) = range.next_back() {
            let key = own(key.value());
            if found.last().is_some_and(|(last, _)| *last == key) {
                break;
            }
            behind.push((key, value.value().to_vec()));
        }
    }));
    found.extend(behind.into_iter().rev());
    found
}
