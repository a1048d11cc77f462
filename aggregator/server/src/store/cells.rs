//! Cells on disk: rows of `(store key, run)`. A flush writes a run; a fold merges the runs of a key.

use std::collections::HashMap;

use catchment_aggregator_core::Memtable;
use catchment_aggregator_core::planner::{Cube, Span};
use catchment_cells::codec::{DecodeError, Reader};
use catchment_cells::key::{CellKey, Values};
use catchment_cells::{Cell, ClientId};
use fjall::{OwnedWriteBatch, Readable};
use jiff::tz::TimeZone;

use super::{Cursor, Store, StoreError};
use crate::crash;

/// Bytes of a run in a row's key.
const RUN_BYTES: usize = 8;
/// Runs of a bucket that are folded at once.
const FOLD_RUNS: u32 = 8;
/// Flushes that pass a bucket by, after which it is folded whatever the number of its runs: late events may be over.
const FOLD_IDLE_FLUSHES: u64 = 16;
/// Buckets that wait to be folded; those that come at the bound stay as they are, which costs reading time only.
const FOLD_BUCKETS_MAX: usize = 200_000;
/// Rows that one batch of a fold removes, roughly.
const FOLD_BATCH_ROWS: usize = 2_000;

/// The cells as they were at one moment.
pub(crate) struct Snapshot {
    store: Store,
    snapshot: fjall::Snapshot,
}

/// Which buckets have several runs. A restart forgets it: what was waiting then stays in several runs until the bucket is
/// written to again.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    flushes: u64,
    /// By what a bucket's row keys begin with: its runs, and the last flush that wrote to it.
    buckets: HashMap<Vec<u8>, (u32, u64)>,
    due: Vec<Vec<u8>>,
}

impl Folder {
    fn touch(&mut self, bucket: Vec<u8>) {
        if self.buckets.len() >= FOLD_BUCKETS_MAX && !self.buckets.contains_key(&bucket) {
            return;
        }
        let (runs, last_flush) = self.buckets.entry(bucket).or_default();
        *runs += 1;
        *last_flush = self.flushes;
    }

    /// A flush is over: decides which buckets are due.
    fn flushed(&mut self) {
        let flushes = self.flushes;
        let gone = self
            .buckets
            .extract_if(|_, (runs, last_flush)| *runs >= FOLD_RUNS || flushes - *last_flush >= FOLD_IDLE_FLUSHES);
        self.due.extend(gone.filter(|(_, (runs, _))| *runs > 1).map(|(bucket, _)| bucket));
        self.flushes += 1;
    }

    /// A bucket to fold now.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        self.due.pop()
    }
}

impl Store {
    /// Writes a memtable as one run, with the hours and days made of its minutes and the log position that cells now
    /// reach, in one synced batch.
    pub(crate) fn flush(
        &self,
        memtable: &Memtable,
        zone: &TimeZone,
        run: u64,
        folder: &mut Folder,
    ) -> Result<(), StoreError> {
        let mut batch = self.synced_batch();
        let mut bucket = None;
        memtable.for_each_tier(zone, |key, cell| {
            let (prefix, _) = CellKey::range(&key.client, &key.cube, key.tier, key.bucket, key.bucket);
            // Keys come bucket by bucket.
            if bucket.as_ref() != Some(&prefix) {
                folder.touch(prefix.clone());
                bucket = Some(prefix);
            }
            self.put_cell(&mut batch, key.encode(), run, cell);
        });
        batch.insert(&self.meta, Cursor::Flushed.key(), run.to_le_bytes());
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
        // The key at hand, its last run, its merged cell, and whether it had several.
        let mut open: Option<(Vec<u8>, u64, Cell, bool)> = None;
        for guard in self.cells.prefix(bucket) {
            let (row_key, value) = guard.into_inner()?;
            let (key, run) = split_run(&row_key).map_err(cell_row)?;
            let cell = Cell::decode_stored(&value).map_err(cell_row)?;
            if let Some((open_key, open_run, merged, several)) = &mut open
                && open_key == key
            {
                batch.remove(&self.cells, [&open_key[..], &open_run.to_be_bytes()].concat());
                removed += 1;
                merged.merge(&cell);
                (*open_run, *several) = (run, true);
                continue;
            }
            self.put_folded(&mut batch, open.replace((key.to_vec(), run, cell, false)));
            if batch.len() >= FOLD_BATCH_ROWS {
                self.commit_fold(std::mem::replace(&mut batch, self.database.batch()))?;
            }
        }
        self.put_folded(&mut batch, open);
        self.commit_fold(batch)?;
        Ok(removed)
    }

    /// The cells as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { store: self.clone(), snapshot: self.database.snapshot() }
    }

    fn put_folded(&self, batch: &mut OwnedWriteBatch, open: Option<(Vec<u8>, u64, Cell, bool)>) {
        if let Some((key, run, cell, true)) = open {
            self.put_cell(batch, key, run, &cell);
        }
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

    fn put_cell(&self, batch: &mut OwnedWriteBatch, mut key: Vec<u8>, run: u64, cell: &Cell) {
        key.extend_from_slice(&run.to_be_bytes());
        let mut value = Vec::with_capacity(128);
        cell.encode_stored(&mut value);
        batch.insert(&self.cells, key, value);
    }
}

impl Snapshot {
    /// Visits the cells of a client's cube in a span, with their buckets and values, until a visit fails. The cells of
    /// one run can be passed over.
    pub(crate) fn scan<E: From<StoreError>>(
        &self,
        client: &ClientId,
        cube: &Cube,
        span: Span,
        without_run: Option<u64>,
        mut visit: impl FnMut(i64, &Values, &Cell) -> Result<(), E>,
    ) -> Result<(), E> {
        let (from, to) = CellKey::range(client, &cube.name, span.tier, span.from, span.to);
        for guard in self.snapshot.range(&self.store.cells, from..to) {
            let (row_key, value) = guard.into_inner().map_err(StoreError::from)?;
            let (key, run) = split_run(&row_key).map_err(cell_row)?;
            if without_run == Some(run) {
                continue;
            }
            let (key, _) = CellKey::decode(key, cube.dimensions.len()).map_err(cell_row)?;
            let cell = Cell::decode_stored(&value).map_err(cell_row)?;
            visit(key.bucket, &key.values, &cell)?;
        }
        Ok(())
    }
}

/// A row key's store key and run.
fn split_run(row_key: &[u8]) -> Result<(&[u8], u64), DecodeError> {
    let (key, run) = row_key
        .split_at_checked(row_key.len().saturating_sub(RUN_BYTES))
        .ok_or(DecodeError::Truncated { needed: RUN_BYTES, remaining: row_key.len() })?;
    Ok((key, u64::from_be_bytes(Reader::new(run).array()?)))
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
