//! A shard's tables: rings, written at slot = number mod size, and tables of so many rows for good, so that nothing is ever deleted and all
//! is bounded.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use catchment_cells::ClientId;
use catchment_cells::codec::DecodeError;
use catchment_collector::limits::{IDS_ROWS_MAX, LOG_ROWS_MAX, OUTBOX_FRAMES_MAX, PARKED_MAX, SPILLED_ROWS};
use catchment_collector::{ConfigRow, IdsRow, LogRow, Meta, SpilledRow, shard};
use thiserror::Error;
use worker::js_sys::{Function, Reflect};
use worker::wasm_bindgen::closure::Closure;
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::{SqlStorage, SqlStorageValue};

/// The tables of version 1, which is the version of their rows.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS meta (slot INTEGER PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS log (slot INTEGER PRIMARY KEY, n INTEGER NOT NULL, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS outbox (slot INTEGER PRIMARY KEY, n INTEGER NOT NULL, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS ids (slot INTEGER PRIMARY KEY, n INTEGER NOT NULL, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS spilled (slot INTEGER PRIMARY KEY, n INTEGER NOT NULL, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS configs (client TEXT PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS parked (slot INTEGER PRIMARY KEY, n INTEGER NOT NULL, row BLOB NOT NULL);
";

/// The tables.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    object: JsValue,
    sql: SqlStorage,
    /// As the platform counts and bills them, since it was opened.
    rows_written: Rc<Cell<u64>>,
}

/// Why storage can't be used.
#[derive(Debug, Error)]
pub(crate) enum StorageError {
    /// The platform refused.
    #[error("storage failed: {0}")]
    Sql(String),
    /// What is stored contradicts itself.
    #[error("what is stored contradicts itself: {0}")]
    Broken(String),
    /// A row is not what this code writes.
    #[error("a row of {0} can't be read: {1}")]
    Row(&'static str, DecodeError),
}

impl From<worker::Error> for StorageError {
    fn from(error: worker::Error) -> Self {
        StorageError::Sql(error.to_string())
    }
}

impl Storage {
    /// Opens the tables, and makes them where they aren't.
    pub(crate) fn open(storage: &worker::Storage) -> Result<Self, StorageError> {
        let sql = storage.sql();
        sql.exec(TABLES, None)?;
        Ok(Storage { object: storage.as_raw().into(), sql, rows_written: Rc::default() })
    }

    /// Rows that were written since it was opened, as the platform counts and bills them.
    pub(crate) fn rows_written(&self) -> u64 {
        self.rows_written.get()
    }

    /// Does some writes, all or none.
    pub(crate) fn transaction(
        &self,
        work: impl FnOnce() -> Result<(), StorageError> + 'static,
    ) -> Result<(), StorageError> {
        let work = AssertUnwindSafe(move || work().map_err(|error| JsValue::from_str(&error.to_string())));
        let callback = Closure::once_into_js(work);
        // The crate `worker` has no name for it.
        let call = || {
            let transaction: Function = Reflect::get(&self.object, &"transactionSync".into())?.dyn_into()?;
            transaction.call1(&self.object, &callback)
        };
        call().map(drop).map_err(|error: JsValue| StorageError::Sql(format!("{error:?}")))
    }

    fn put(&self, statement: &str, n: u64, slots: u64, row: Vec<u8>) -> Result<(), StorageError> {
        // The platform's limit, which workerd doesn't enforce.
        if row.len() > 2_000_000 {
            return Err(StorageError::Sql(format!("a row of {} bytes", row.len())));
        }
        let slot = SqlStorageValue::Integer((n % slots) as i64);
        self.write(statement, vec![slot, SqlStorageValue::Integer(n as i64), row.into()])
    }

    fn write(&self, statement: &str, bindings: Vec<SqlStorageValue>) -> Result<(), StorageError> {
        let cursor = self.sql.exec(statement, bindings)?;
        self.rows_written.set(self.rows_written.get() + cursor.rows_written() as u64);
        Ok(())
    }

    /// The one row that a statement finds, of a number and bytes.
    fn read(&self, statement: &str, numbers: &[u64]) -> Result<Option<(u64, Vec<u8>)>, StorageError> {
        let mut found = None;
        self.visit(statement, numbers, |n, bytes| {
            found = Some((n, bytes));
            Ok(())
        })?;
        Ok(found)
    }

    /// Visits rows of a number and bytes.
    fn visit(
        &self,
        statement: &str,
        numbers: &[u64],
        mut visit: impl FnMut(u64, Vec<u8>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let bindings: Vec<_> = numbers.iter().map(|&n| SqlStorageValue::Integer(n as i64)).collect();
        let cursor = self.sql.exec(statement, bindings)?;
        for row in cursor.raw() {
            match <[SqlStorageValue; 2]>::try_from(row?) {
                Ok([SqlStorageValue::Integer(n), SqlStorageValue::Blob(bytes)]) => visit(n as u64, bytes)?,
                Ok(other) => return Err(StorageError::Sql(format!("an unexpected row: {other:?}"))),
                Err(other) => return Err(StorageError::Sql(format!("a row of {} columns", other.len()))),
            }
        }
        Ok(())
    }
}

impl shard::Storage for Storage {
    type Error = StorageError;

    fn broken(&self, what: String) -> StorageError {
        StorageError::Broken(what)
    }

    fn meta(&self) -> Result<Option<Meta>, StorageError> {
        let row = self.read("SELECT slot, row FROM meta WHERE slot = ?", &[0])?;
        row.map(|(_, bytes)| Meta::decode(&bytes).map_err(|error| StorageError::Row("meta", error))).transpose()
    }

    fn put_meta(&self, meta: &Meta) -> Result<(), StorageError> {
        self.write("INSERT OR REPLACE INTO meta (slot, row) VALUES (0, ?)", vec![meta.encode().into()])
    }

    fn read_log(
        &self,
        from: u64,
        mut visit: impl FnMut(u64, LogRow) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.visit("SELECT n, row FROM log WHERE n >= ? ORDER BY n", &[from], |n, bytes| {
            visit(n, LogRow::decode(&bytes).map_err(|error| StorageError::Row("log", error))?)
        })
    }

    fn put_log(&self, n: u64, row: &LogRow) -> Result<(), StorageError> {
        self.put("INSERT OR REPLACE INTO log (slot, n, row) VALUES (?, ?, ?)", n, LOG_ROWS_MAX, row.encode())
    }

    fn frame(&self, n: u64) -> Result<Option<Vec<u8>>, StorageError> {
        let row = self.read("SELECT n, row FROM outbox WHERE slot = ? AND n = ?", &[n % OUTBOX_FRAMES_MAX, n])?;
        Ok(row.map(|(_, bytes)| bytes))
    }

    fn put_frame(&self, n: u64, frame: Vec<u8>) -> Result<(), StorageError> {
        self.put("INSERT OR REPLACE INTO outbox (slot, n, row) VALUES (?, ?, ?)", n, OUTBOX_FRAMES_MAX, frame)
    }

    fn read_ids(&self, from: u64, to: u64, mut visit: impl FnMut(IdsRow)) -> Result<(), StorageError> {
        self.visit("SELECT n, row FROM ids WHERE n >= ? AND n < ? ORDER BY n", &[from, to], |n, bytes| {
            visit(IdsRow::decode(n, &bytes).map_err(|error| StorageError::Row("ids", error))?);
            Ok(())
        })
    }

    fn ids(&self, n: u64) -> Result<Option<IdsRow>, StorageError> {
        let row = self.read("SELECT n, row FROM ids WHERE slot = ? AND n = ?", &[n % IDS_ROWS_MAX, n])?;
        row.map(|(n, bytes)| IdsRow::decode(n, &bytes).map_err(|error| StorageError::Row("ids", error))).transpose()
    }

    fn put_ids(&self, row: &IdsRow) -> Result<(), StorageError> {
        self.put("INSERT OR REPLACE INTO ids (slot, n, row) VALUES (?, ?, ?)", row.n, IDS_ROWS_MAX, row.encode())
    }

    fn spilled(&self, n: u64) -> Result<Option<SpilledRow>, StorageError> {
        let row = self.read("SELECT n, row FROM spilled WHERE slot = ?", &[n])?;
        row.map(|(n, bytes)| SpilledRow::decode(n, &bytes).map_err(|error| StorageError::Row("spilled", error)))
            .transpose()
    }

    fn put_spilled(&self, row: &SpilledRow) -> Result<(), StorageError> {
        self.put("INSERT OR REPLACE INTO spilled (slot, n, row) VALUES (?, ?, ?)", row.n, SPILLED_ROWS, row.encode())
    }

    fn config(&self, client: &ClientId) -> Result<Option<ConfigRow>, StorageError> {
        let cursor = self.sql.exec("SELECT row FROM configs WHERE client = ?", vec![client.as_str().into()])?;
        let Some(row) = cursor.raw().next() else { return Ok(None) };
        match <[SqlStorageValue; 1]>::try_from(row?) {
            Ok([SqlStorageValue::Blob(bytes)]) => {
                ConfigRow::decode(&bytes).map(Some).map_err(|error| StorageError::Row("configs", error))
            }
            other => Err(StorageError::Sql(format!("an unexpected row: {other:?}"))),
        }
    }

    fn put_config(&self, client: &ClientId, row: &ConfigRow) -> Result<(), StorageError> {
        let bindings = vec![client.as_str().into(), row.encode().into()];
        self.write("INSERT OR REPLACE INTO configs (client, row) VALUES (?, ?)", bindings)
    }

    fn park(&self, n: u64, frame: Vec<u8>) -> Result<(), StorageError> {
        self.put("INSERT INTO parked (slot, n, row) VALUES (?, ?, ?)", n, PARKED_MAX, frame)
    }
}
