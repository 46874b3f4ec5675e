//! The one database file, and its tables.

use super::poison::{Noting, Poison};
use super::salvage;
use crate::disk;
use crate::store::{Error, PieceKey};
use parking_lot::RwLock;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `"version"`, and what else is one value each.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Part of the last checkpoint by name.
pub(super) const PARTS: TableDefinition<&str, &[u8]> = TableDefinition::new("checkpoint_parts");
/// Pieces of states of the last checkpoint that are written when they change.
pub(super) const PIECES: TableDefinition<PieceKey, &[u8]> = TableDefinition::new("checkpoint_pieces");
/// Last hour in which a series was heard, and its `SeriesKey` or what stands for it (postcard), by id.
pub(super) const SERIES: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("series");
/// `Block` (postcard) by number.
pub(super) const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
/// `LedgerRecord` (JSON) by sequence.
pub(super) const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("ledger_records");
/// Sequence by stage and key.
pub(super) const KEYS: TableDefinition<(u8, &str), u64> = TableDefinition::new("ledger_keys");
/// Sequence of the latest record by stage and object.
pub(super) const LATEST: TableDefinition<(u8, &str), u64> = TableDefinition::new("ledger_latest");

/// Format of everything in the data directory that the store writes.
const VERSION: u32 = 6;
const CACHE_BYTES: usize = 8 << 20;

/// The database. When the disk was full redb refuses further writes until the file is opened again; this
/// does so, so that the daemon can go on when there is room. After any other failure it never does.
#[derive(Debug)]
pub(super) struct Db {
    path: Option<PathBuf>,
    /// Whether a commit waits for the disk.
    durable: bool,
    poison: Arc<Poison>,
    /// `None` only while it could not be opened again.
    database: RwLock<Option<Database>>,
}

impl Db {
    pub fn open(path: &Path, durable: bool) -> Result<Self, Error> {
        let checked = salvage::guarded(path, || {
            let poison = Arc::<Poison>::default();
            let mut database = open(path, &poison)?;
            if !salvage::check(path, &mut database)? {
                tracing::error!(path = %path.display(), "the database was damaged and is mended");
            }
            let (path, database) = (Some(path.to_owned()), RwLock::new(Some(database)));
            let db = Self { database, path, durable, poison };
            db.prepare()?;
            db.sync_name()?;
            Ok(db)
        });
        let Err(Error::Damaged { what, .. }) = &checked else { return checked };
        let aside = salvage::put_aside(path)?;
        let poison = Arc::<Poison>::default();
        let database = RwLock::new(Some(open(path, &poison)?));
        let db = Self { database, path: Some(path.to_owned()), durable, poison };
        db.prepare()?;
        db.sync_name()?;
        let salvaged = match &*db.database.read() {
            Some(database) => salvage::salvage(&aside, database)?,
            None => salvage::Salvaged::default(),
        };
        tracing::error!(
            what,
            aside = %aside.display(),
            ?salvaged,
            "the database is damaged: it is put aside, what reads of it is taken over, and the whole journal \
             is replayed; totals begin with what the journal holds"
        );
        Ok(db)
    }

    pub fn in_memory() -> Result<Self, Error> {
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(InMemoryBackend::new())?;
        let database = RwLock::new(Some(database));
        let db = Self { path: None, durable: false, poison: Arc::default(), database };
        db.prepare()?;
        Ok(db)
    }

    /// What is committed to a new file is found again only if its name is on the disk, too.
    fn sync_name(&self) -> Result<(), Error> {
        match self.path.as_deref().and_then(Path::parent).filter(|_| self.durable) {
            Some(folder) => disk::sync_folder(folder).map_err(Error::file(folder)),
            None => Ok(()),
        }
    }

    /// Checks the version, and makes the tables so that readers find them.
    fn prepare(&self) -> Result<(), Error> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("version")?.map(|bytes| bytes.value().to_vec());
            match found {
                None => {
                    meta.insert("version", VERSION.to_le_bytes().as_slice())?;
                }
                Some(bytes) => {
                    let found = bytes.try_into().map_or(0, u32::from_le_bytes);
                    if found != VERSION {
                        return Err(Error::Version { found, known: VERSION });
                    }
                }
            }
            transaction.open_table(PARTS)?;
            transaction.open_table(PIECES)?;
            transaction.open_table(SERIES)?;
            transaction.open_table(BLOCKS)?;
            transaction.open_table(RECORDS)?;
            transaction.open_table(KEYS)?;
            transaction.open_table(LATEST)?;
            Ok(())
        })
    }

    pub fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, Error>) -> Result<T, Error> {
        self.open_if_gone();
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(gone)?;
        work(&database.begin_read()?)
    }

    /// One transaction: all of it is on disk when this returns `Ok`, and nothing otherwise (but for a
    /// failure of the commit itself, after which it may be either).
    pub fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, Error>) -> Result<T, Error> {
        self.sound()?;
        let done = self.write_once(work);
        // Not before it is known that the disk was only full.
        self.sound()?;
        if let Err(error) = &done
            && error.shuts()
        {
            self.open_again();
        }
        done
    }

    /// # Errors
    /// [`Error::Poisoned`] once the disk has failed.
    pub fn sound(&self) -> Result<(), Error> {
        self.poison.check()
    }

    /// What remembers that the disk has failed.
    pub fn poison(&self) -> Arc<Poison> {
        self.poison.clone()
    }

    fn write_once<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, Error>) -> Result<T, Error> {
        self.open_if_gone();
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(gone)?;
        let mut transaction = database.begin_write()?;
        transaction.set_durability(if self.durable { Durability::Immediate } else { Durability::None })?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    fn open_again(&self) {
        // Nobody reads while this is held, so no transaction is left that would keep the file open.
        let mut database = self.database.write();
        *database = None;
        if let Err(error) = self.open_into(&mut database) {
            tracing::error!(%error, "the database cannot be opened again yet");
        }
    }

    /// Tries once more what [`Self::open_again`] could not do, for nobody else may come who writes.
    fn open_if_gone(&self) {
        if self.database.read().is_some() || self.sound().is_err() {
            return;
        }
        let mut database = self.database.write();
        // Another one may have been here meanwhile.
        if database.is_none() {
            let _ = self.open_into(&mut database);
        }
    }

    fn open_into(&self, database: &mut Option<Database>) -> Result<(), Error> {
        if let Some(path) = &self.path {
            *database = Some(open(path, &self.poison)?);
        }
        Ok(())
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        self.path.as_ref().and_then(|path| path.metadata().ok()).map_or(0, |file| file.len())
    }
}

fn open(path: &Path, poison: &Arc<Poison>) -> Result<Database, Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    #[cfg(test)]
    if crate::disk::is_traced(path) {
        let inner = super::crash_images::Backend::open(path).map_err(Error::file(path))?;
        let backend = Noting { inner, path: path.into(), poison: poison.clone() };
        return Ok(builder.create_with_backend(backend)?);
    }
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let inner = FileBackend::new(file.map_err(Error::file(path))?)?;
    match builder.create_with_backend(Noting { inner, path: path.into(), poison: poison.clone() }) {
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(Error::InUse(path.to_owned())),
        other => Ok(other?),
    }
}

fn gone() -> Error {
    Error::Database(Box::new(redb::Error::PreviousIo))
}
