//! Runs: each flush writes its cells as rows of `(store key, run)`; a fold merges the runs of a key.

use std::collections::HashMap;

use catchment_cells::Cell;
use catchment_cells::codec::{DecodeError, Reader};
use catchment_cells::key::CellKey;
use jiff::tz::TimeZone;

use crate::tables::Frozen;

/// Bytes of a run in a row's key.
const RUN_BYTES: usize = 8;
/// Runs of a bucket that are folded at once.
const FOLD_RUNS: u32 = 8;
/// Flushes that pass a bucket by, after which it is folded whatever the number of its runs: late events may be over.
const FOLD_IDLE_FLUSHES: u64 = 16;
/// Buckets that wait to be folded; those that come at the bound stay as they are, which costs reading time only.
const FOLD_BUCKETS_MAX: usize = 200_000;

/// Which buckets have several runs. A restart forgets it: what was waiting then stays in several runs until the bucket is
/// written to again.
#[derive(Debug, Default)]
pub struct Folder {
    flushes: u64,
    /// By what a bucket's row keys begin with: its runs, and the last flush that wrote to it.
    buckets: HashMap<Vec<u8>, (u32, u64)>,
    due: Vec<Vec<u8>>,
}

/// The fold of one bucket: takes its rows in the order of their keys, and says what changes. What one call says belongs into
/// one batch, together with all that was said since the last time that a key was complete.
#[derive(Debug, Default)]
pub struct Fold {
    open: Option<Open>,
}

/// The key at hand, its last run, its merged cell, and whether it had several.
#[derive(Debug)]
struct Open {
    key: Vec<u8>,
    run: u64,
    cell: Cell,
    several: bool,
}

/// A change of a fold.
#[derive(Debug)]
pub enum Change<'a> {
    /// A row goes.
    Remove(Vec<u8>),
    /// A row gets this cell.
    Put(Vec<u8>, &'a Cell),
}

impl Folder {
    /// A flush wrote to a bucket.
    pub fn touch(&mut self, bucket: Vec<u8>) {
        if self.buckets.len() >= FOLD_BUCKETS_MAX && !self.buckets.contains_key(&bucket) {
            return;
        }
        let (runs, last_flush) = self.buckets.entry(bucket).or_default();
        *runs += 1;
        *last_flush = self.flushes;
    }

    /// A flush is over: decides which buckets are due.
    pub fn flushed(&mut self) {
        let flushes = self.flushes;
        let gone = self
            .buckets
            .extract_if(|_, (runs, last_flush)| *runs >= FOLD_RUNS || flushes - *last_flush >= FOLD_IDLE_FLUSHES);
        self.due.extend(gone.filter(|(_, (runs, _))| *runs > 1).map(|(bucket, _)| bucket));
        self.flushes += 1;
    }

    /// A bucket to fold now: what its rows' keys begin with.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        self.due.pop()
    }
}

impl Frozen {
    /// The rows of a flush: every cell of every minute, and of the hours and days these lie in.
    pub fn for_each_row(&self, zone: &TimeZone, folder: &mut Folder, mut put: impl FnMut(Vec<u8>, &Cell)) {
        let mut bucket = None;
        self.memtable.for_each_tier(zone, |key, cell| {
            let (prefix, _) = CellKey::range(&key.client, &key.cube, key.tier, key.bucket, key.bucket);
            // Keys come bucket by bucket.
            if bucket.as_ref() != Some(&prefix) {
                folder.touch(prefix.clone());
                bucket = Some(prefix);
            }
            put(row_key(key.encode(), self.run), cell);
        });
    }
}

impl Fold {
    /// Takes the next row, and says whether the key before it is complete, so that a batch may end here.
    pub fn row(
        &mut self,
        row_key: &[u8],
        value: &[u8],
        mut change: impl FnMut(Change<'_>),
    ) -> Result<bool, DecodeError> {
        let (key, run) = split_run(row_key)?;
        let cell = Cell::decode_stored(value)?;
        if let Some(open) = self.open.as_mut().filter(|open| open.key == key) {
            change(Change::Remove(self::row_key(key.to_vec(), open.run)));
            open.cell.merge(&cell);
            (open.run, open.several) = (run, true);
            return Ok(false);
        }
        let next = Fold { open: Some(Open { key: key.to_vec(), run, cell, several: false }) };
        std::mem::replace(self, next).finish(change);
        Ok(true)
    }

    /// There are no more rows.
    pub fn finish(self, mut change: impl FnMut(Change<'_>)) {
        if let Some(Open { key, run, cell, several: true }) = self.open {
            change(Change::Put(row_key(key, run), &cell));
        }
    }
}

/// A row's key.
fn row_key(mut key: Vec<u8>, run: u64) -> Vec<u8> {
    key.extend_from_slice(&run.to_be_bytes());
    key
}

/// A row key's store key and run.
pub fn split_run(row_key: &[u8]) -> Result<(&[u8], u64), DecodeError> {
    let (key, run) = row_key
        .split_at_checked(row_key.len().saturating_sub(RUN_BYTES))
        .ok_or(DecodeError::Truncated { needed: RUN_BYTES, remaining: row_key.len() })?;
    Ok((key, u64::from_be_bytes(Reader::new(run).array()?)))
}
