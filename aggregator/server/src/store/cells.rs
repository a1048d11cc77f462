//! Cells on disk: rows of `(store key, run)`. A flush writes a run; a fold merges the runs of a key.

use catchment_aggregator_core::planner::{Cube, Span};
use catchment_aggregator_core::runs::{Change, Fold, Folder, split_run};
use catchment_aggregator_core::tables::Frozen;
use catchment_cells::cell::Wanted;
use catchment_cells::codec::{DecodeError, Reader};
use catchment_cells::key::{CellKey, read_place};
use catchment_cells::limits::CUBE_DIMENSIONS_MAX;
use catchment_cells::{Cell, ClientId};
use fjall::{OwnedWriteBatch, Readable};
use jiff::tz::TimeZone;

use super::{Cursor, Store, StoreError};
use crate::crash;

/// Rows that one batch of a fold removes, roughly.
const FOLD_BATCH_ROWS: usize = 2_000;

/// The cells as they were at one moment.
pub(crate) struct Snapshot {
    store: Store,
    snapshot: fjall::Snapshot,
}

impl Store {
    /// Writes a memtable as one run, with the hours and days made of its minutes and the log position that cells now
    /// reach, in one synced batch.
    pub(crate) fn flush(&self, frozen: &Frozen, zone: &TimeZone, folder: &mut Folder) -> Result<(), StoreError> {
        let mut batch = self.synced_batch();
        frozen.for_each_row(zone, folder, |row_key, cell| self.put_cell(&mut batch, row_key, cell));
        batch.insert(&self.meta, Cursor::Flushed.key(), frozen.run.to_le_bytes());
        crash::point("flush.before_commit");
        batch.commit()?;
        crash::point("flush.after_commit");
        folder.flushed();
        Ok(())
    }

    /// Merges the runs of each key of a bucket into one, and says how many rows that removed.
    pub(crate) fn fold(&self, bucket: &[u8]) -> Result<usize, StoreError> {
        let mut removed = 0;
        let mut batch = self.database.batch();
        let mut fold = Fold::default();
        let mut apply = |batch: &mut OwnedWriteBatch, change: Change<'_>| match change {
            Change::Remove(row_key) => {
                batch.remove(&self.cells, row_key);
                removed += 1;
            }
            Change::Put(row_key, cell) => self.put_cell(batch, row_key, cell),
        };
        for guard in self.cells.prefix(bucket) {
            let (row_key, value) = guard.into_inner()?;
            let complete = fold.row(&row_key, &value, |change| apply(&mut batch, change)).map_err(cell_row)?;
            if complete && batch.len() >= FOLD_BATCH_ROWS {
                self.commit_fold(std::mem::replace(&mut batch, self.database.batch()))?;
            }
        }
        fold.finish(|change| apply(&mut batch, change));
        self.commit_fold(batch)?;
        Ok(removed)
    }

    /// The cells as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { store: self.clone(), snapshot: self.database.snapshot() }
    }

    /// Not synced: a fold that is lost leaves its runs as they were.
    fn commit_fold(&self, batch: OwnedWriteBatch) -> Result<(), StoreError> {
        if !batch.is_empty() {
            crash::point("fold.before_commit");
            batch.commit()?;
            crash::point("fold.after_commit");
        }
        Ok(())
    }

    fn put_cell(&self, batch: &mut OwnedWriteBatch, row_key: Vec<u8>, cell: &Cell) {
        let mut value = Vec::with_capacity(128);
        cell.encode_stored(&mut value);
        batch.insert(&self.cells, row_key, value);
    }
}

impl Snapshot {
    /// Visits the cells of a client's cube in a span, with their buckets and values, until a visit fails; of a cell, what is
    /// wanted is there. The cells of one run can be passed over.
    pub(crate) fn scan<E: From<StoreError>>(
        &self,
        (client, cube): (&ClientId, &Cube),
        span: Span,
        without_run: Option<u64>,
        wanted: Wanted,
        mut visit: impl FnMut(i64, &[Option<&str>], &Cell) -> Result<(), E>,
    ) -> Result<(), E> {
        let (from, to) = CellKey::range(client, &cube.name, span.tier, span.from, span.to);
        let place_at = from.len() - size_of::<i64>();
        let dimensions = cube.dimensions.len().min(CUBE_DIMENSIONS_MAX);
        for guard in self.snapshot.range(&self.store.cells, from..to) {
            let (row_key, value) = guard.into_inner().map_err(StoreError::from)?;
            let (key, run) = split_run(&row_key).map_err(cell_row)?;
            if without_run == Some(run) {
                continue;
            }
            let mut values = [None; CUBE_DIMENSIONS_MAX];
            let values = &mut values[..dimensions];
            let place = key.get(place_at..).unwrap_or_default();
            let bucket = read_place(&mut Reader::new(place), values).map_err(cell_row)?;
            let cell = Cell::decode_wanted(&value, wanted).map_err(cell_row)?;
            visit(bucket, values, &cell)?;
        }
        Ok(())
    }
}

fn cell_row(error: DecodeError) -> StoreError {
    StoreError::Row { keyspace: "cells", error }
}

#[cfg(test)]
impl Store {
    /// How many rows cells have.
    pub(crate) fn cell_rows(&self) -> usize {
        self.cells.iter().count()
    }
}
