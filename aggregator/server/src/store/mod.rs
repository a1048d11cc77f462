//! What survives the process. The one place that names fjall; the keyspaces are specified in docs/FORMATS.md.

mod cells;
mod configs;
mod dashboards;
mod dictionaries;
mod letters;
mod log;
mod tiers;
mod upgrade;

use std::path::Path;
use std::sync::Arc;

use catchment_aggregator_core::LogRow;
use catchment_aggregator_core::marks::Mark;
use catchment_aggregator_core::planner::Cube;
use catchment_cells::ClientId;
use catchment_cells::codec::{DecodeError, Reader};
use catchment_cells::frame::{FrameError, Producer};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use thiserror::Error;

pub(crate) use self::cells::{Flushed, Snapshot};
use self::letters::Letters;

/// The format of the whole store, and the one before, which is brought up to it.
const VERSION: u8 = 2;
const VERSION_BEFORE: u8 = 1;
/// Bytes that a keyspace holds in memory before it writes a table: what a restart reads back from the journal.
const BIG_KEYSPACE_BYTES: u64 = 16 << 20;
const SMALL_KEYSPACE_BYTES: u64 = 4 << 20;
/// fjall starts to press for room once its journals have so many bytes; it takes no less.
const JOURNAL_BYTES: u64 = 64 << 20;
/// Bytes of decoded blocks kept for reading.
const CACHE_BYTES: u64 = 64 << 20;

/// The keyspaces.
#[derive(Clone)]
pub(crate) struct Store {
    database: Database,
    meta: Keyspace,
    log: Keyspace,
    marks: Keyspace,
    blocks: Keyspace,
    dictionaries: Keyspace,
    cubes: Keyspace,
    configs: Keyspace,
    tiers: Keyspace,
    dashboards: Keyspace,
    parked: Keyspace,
    letters: Arc<Letters>,
}

/// What can go wrong with the store.
#[derive(Debug, Clone, Error)]
pub(crate) enum StoreError {
    #[error("{folder} is in use by another process")]
    Locked { folder: String },
    #[error("can't open the store in {folder}: {error}")]
    Open { folder: String, error: Arc<std::io::Error> },
    #[error("the store failed: {0}")]
    Fjall(Arc<fjall::Error>),
    #[error("the store has version {0}, which this program doesn't read")]
    Version(u8),
    #[error("the store's keyspace {keyspace} has a row that can't be read: {error}")]
    Row { keyspace: &'static str, error: DecodeError },
    #[error("the frame at position {position} of the log can't be read: {reason}")]
    Frame { position: u64, reason: String },
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        StoreError::Fjall(Arc::new(error))
    }
}

impl StoreError {
    /// A frame of the log that can't be read any more.
    pub(crate) fn frame(row: &LogRow, error: &FrameError) -> StoreError {
        StoreError::Frame { position: row.position, reason: error.to_string() }
    }
}

/// A place in the log that all before it is done with. The names are stored: final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// Cells hold every frame before it.
    Flushed,
    /// Central has every frame before it.
    Forwarded,
}

impl Cursor {
    fn key(self) -> &'static str {
        match self {
            Cursor::Flushed => "flushed",
            Cursor::Forwarded => "forwarded",
        }
    }
}

impl Store {
    /// Opens the store in a folder, or makes one.
    pub(crate) fn open(folder: &Path) -> Result<Store, StoreError> {
        let database = Database::builder(folder)
            .max_journaling_size(JOURNAL_BYTES)
            .cache_size(CACHE_BYTES)
            .worker_threads(2)
            .open()
            .map_err(|error| {
                let folder = folder.display().to_string();
                match error {
                    fjall::Error::Locked => StoreError::Locked { folder },
                    fjall::Error::Io(error) => StoreError::Open { folder, error: Arc::new(error) },
                    error => error.into(),
                }
            })?;
        let keyspace =
            |name, bytes| database.keyspace(name, move || KeyspaceCreateOptions::default().max_memtable_size(bytes));
        let store = Store {
            meta: keyspace("meta", SMALL_KEYSPACE_BYTES)?,
            log: keyspace("log", BIG_KEYSPACE_BYTES)?,
            marks: keyspace("marks", SMALL_KEYSPACE_BYTES)?,
            blocks: keyspace("blocks", BIG_KEYSPACE_BYTES)?,
            dictionaries: keyspace("dictionaries", SMALL_KEYSPACE_BYTES)?,
            cubes: keyspace("cubes", SMALL_KEYSPACE_BYTES)?,
            configs: keyspace("configs", SMALL_KEYSPACE_BYTES)?,
            tiers: keyspace("tiers", SMALL_KEYSPACE_BYTES)?,
            dashboards: keyspace("dashboards", SMALL_KEYSPACE_BYTES)?,
            parked: keyspace("parked", SMALL_KEYSPACE_BYTES)?,
            letters: Arc::new(Letters::open(keyspace("dead_letters", SMALL_KEYSPACE_BYTES)?)),
            database,
        };
        match store.meta.get("version")?.as_deref() {
            None => store.set_version()?,
            Some(&[VERSION]) => store.drop_version_1()?,
            Some(&[VERSION_BEFORE]) => store.upgrade()?,
            Some(other) => return Err(StoreError::Version(other.first().copied().unwrap_or(0))),
        }
        Ok(store)
    }

    /// Where a cursor stands; 1, the log's first position, where it was never moved.
    pub(crate) fn cursor(&self, cursor: Cursor) -> Result<u64, StoreError> {
        let Some(bytes) = self.meta.get(cursor.key())? else { return Ok(1) };
        Reader::new(&bytes).u64().map_err(|error| StoreError::Row { keyspace: "meta", error })
    }

    /// The mark of a producer.
    pub(crate) fn mark(&self, producer: &Producer) -> Result<Option<Mark>, StoreError> {
        let Some(bytes) = self.marks.get(producer.encode())? else { return Ok(None) };
        Mark::decode(&bytes).map(Some).map_err(|error| StoreError::Row { keyspace: "marks", error })
    }

    /// The dead letters.
    pub(crate) fn letters(&self) -> &Letters {
        &self.letters
    }

    /// When the newest frame of all was cut, in ms.
    pub(crate) fn newest_cut_at(&self) -> Result<Option<i64>, StoreError> {
        let mut newest = None;
        for row in self.marks.iter() {
            let mark = Mark::decode(&row.value()?).map_err(|error| StoreError::Row { keyspace: "marks", error })?;
            newest = newest.max(Some(mark.cut_at));
        }
        Ok(newest)
    }

    /// The cubes that clients have beside the default ones.
    pub(crate) fn cubes(&self) -> Result<Vec<(ClientId, Cube)>, StoreError> {
        let row = |error| StoreError::Row { keyspace: "cubes", error };
        self.cubes
            .iter()
            .map(|guard| {
                let (key, value) = guard.into_inner()?;
                Cube::decode_row(&key, &value).map_err(row)
            })
            .collect()
    }

    fn set_version(&self) -> Result<(), StoreError> {
        let mut batch = self.synced_batch();
        batch.insert(&self.meta, "version", [VERSION]);
        Ok(batch.commit()?)
    }

    fn synced_batch(&self) -> OwnedWriteBatch {
        self.database.batch().durability(Some(PersistMode::SyncData))
    }

    fn put_cube(&self, batch: &mut OwnedWriteBatch, client: &ClientId, cube: &Cube) {
        let (key, value) = cube.encode_row(client);
        batch.insert(&self.cubes, key, value);
    }
}
