//! The log: every frame that was acked, until cells and central have it.
//!
//! Rows are never removed one by one. A table whose rows all lie before both cursors is dropped as a whole, which gives
//! its disk back at once (docs/BENCHMARKS.md, "Log on fjall"); rows before the cursors that a table still holds, or that
//! a restart reads back from the journal, are passed over.

use bytes::Bytes;
use catchment_aggregator_core::LogRow;
use catchment_aggregator_core::ingest::Beside;
use catchment_cells::ack::Status;
use catchment_cells::codec::{DecodeError, Reader};
use fjall::{AbstractTree, PersistMode};

use super::{Cursor, Store, StoreError};

/// The version byte of a parked row.
const VERSION: u8 = 1;

impl Store {
    /// Appends rows with what goes with them, in one synced batch.
    pub(crate) fn append(&self, rows: &[LogRow], beside: &Beside) -> Result<(), StoreError> {
        let mut batch = self.synced_batch();
        for row in rows {
            batch.insert(&self.log, row.position.to_be_bytes(), row.encode());
        }
        for (producer, mark) in &beside.marks {
            batch.insert(&self.marks, producer.encode(), mark.encode());
        }
        for (client, cube) in &beside.cubes {
            self.put_cube(&mut batch, client, cube);
        }
        self.letters.add(&mut batch, &beside.letters)?;
        Ok(batch.commit()?)
    }

    /// The position that the next row gets.
    pub(crate) fn next_position(&self) -> Result<u64, StoreError> {
        let last = match self.log.last_key_value() {
            None => 0,
            Some(row) => u64::from_be_bytes(Reader::new(&row.key()?).array().map_err(log_row)?),
        };
        Ok((last + 1).max(self.cursor(Cursor::Flushed)?).max(self.cursor(Cursor::Forwarded)?))
    }

    /// The position of the oldest row there is, or of the next one.
    pub(crate) fn first_position(&self) -> Result<u64, StoreError> {
        match self.log.first_key_value() {
            None => self.next_position(),
            Some(row) => Ok(u64::from_be_bytes(Reader::new(&row.key()?).array().map_err(log_row)?)),
        }
    }

    /// The rows from a position on.
    pub(crate) fn rows(&self, from: u64) -> impl Iterator<Item = Result<LogRow, StoreError>> {
        self.log.range(from.to_be_bytes()..).map(|guard| {
            let (key, value) = guard.into_inner()?;
            LogRow::decode(&key, Bytes::from_owner(value)).map_err(log_row)
        })
    }

    /// Gives the disk of rows before the position back, as far as whole tables have no others.
    pub(crate) fn truncate(&self, position: u64) -> Result<(), StoreError> {
        // The cursor of what central has is not synced when it moves: it must be before what it passed is gone.
        self.database.persist(PersistMode::SyncData)?;
        Ok(self.log.tree.drop_range(..position.to_be_bytes()).map_err(fjall::Error::from)?)
    }

    /// Moves the cursor of what central has. Not synced: a frame that is sent again is known there.
    pub(crate) fn set_forwarded(&self, position: u64) -> Result<(), StoreError> {
        Ok(self.meta.insert(Cursor::Forwarded.key(), position.to_le_bytes())?)
    }

    /// Keeps a frame that central refuses for good, and moves the cursor past it.
    pub(crate) fn park(&self, row: &LogRow, status: Status) -> Result<(), StoreError> {
        let mut batch = self.synced_batch();
        let value = [&[VERSION, status as u8][..], &row.encode()].concat();
        batch.insert(&self.parked, row.position.to_be_bytes(), value);
        batch.insert(&self.meta, Cursor::Forwarded.key(), (row.position + 1).to_le_bytes());
        Ok(batch.commit()?)
    }

    /// How many frames are parked, and their bytes.
    pub(crate) fn parked(&self) -> Result<(u64, u64), StoreError> {
        let (mut frames, mut bytes) = (0, 0);
        for row in self.parked.iter() {
            frames += 1;
            bytes += u64::from(row.size()?);
        }
        Ok((frames, bytes))
    }
}

fn log_row(error: DecodeError) -> StoreError {
    StoreError::Row { keyspace: "log", error }
}
