//! Cells on disk: blocks, in rows of `(series, first bucket, run)`. A flush writes a run; a fold merges the runs of a stretch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use catchment_aggregator_core::Tiers;
use catchment_aggregator_core::block::Decoded;
use catchment_aggregator_core::dictionary::Admission;
use catchment_aggregator_core::runs::{Stretch, bucket_key, fold, split_row_key};
use catchment_aggregator_core::tables::Frozen;
use catchment_cells::ClientId;
use catchment_cells::cell::Wanted;
use catchment_cells::codec::DecodeError;
use catchment_cells::key::CellKey;
use fjall::Readable;

use super::{Cursor, Store, StoreError};
use crate::crash;

/// The cells, and the dictionaries, as they were at one moment.
pub(crate) struct Snapshot {
    pub(super) store: Store,
    pub(super) snapshot: fjall::Snapshot,
}

/// What a flush did.
pub(crate) struct Flushed {
    /// The stretches that it wrote to.
    pub touched: Vec<Stretch>,
    /// Values that it folded.
    pub values_folded: usize,
}

impl Store {
    /// Writes a memtable as one run, with the hours and days made of its minutes, what it lets into dictionaries and the log
    /// position that cells now reach, in one synced batch. Returns the stretches that it wrote to.
    pub(crate) fn flush(
        &self,
        frozen: &Frozen,
        tiers: impl Fn(&ClientId) -> Arc<Tiers>,
        today: i64,
        values_max: impl Fn(&ClientId) -> usize,
    ) -> Result<Flushed, StoreError> {
        let mut batch = self.synced_batch();
        let admission = Admission::of(&frozen.memtable, (frozen.run, today), values_max, |key| self.dictionary(key))?;
        admission.changed.iter().for_each(|(key, dictionary)| self.put_dictionary(&mut batch, *key, dictionary));
        let folded = admission.fold(&frozen.memtable);
        let touched = frozen.for_each_row(&folded, tiers, |row_key, block| batch.insert(&self.blocks, row_key, block));
        batch.insert(&self.meta, Cursor::Flushed.key(), frozen.run.to_le_bytes());
        crash::point("flush.before_commit");
        batch.commit()?;
        crash::point("flush.after_commit");
        Ok(Flushed { touched, values_folded: admission.folded() })
    }

    /// Merges the runs of a stretch into one, and says how many rows that removed.
    pub(crate) fn fold(&self, stretch: &Stretch) -> Result<usize, StoreError> {
        let rows = self.blocks.range(&*stretch.from..&*stretch.to).map(fjall::Guard::into_inner);
        let folded = fold(&rows.collect::<Result<Vec<_>, _>>()?).map_err(block_row)?;
        let removed = folded.remove.len();
        // Not synced: a fold that is lost leaves its runs as they were.
        let mut batch = self.database.batch();
        folded.remove.into_iter().for_each(|row_key| batch.remove(&self.blocks, row_key));
        folded.put.into_iter().for_each(|(row_key, block)| batch.insert(&self.blocks, row_key, block));
        crash::point("fold.before_commit");
        batch.commit()?;
        crash::point("fold.after_commit");
        Ok(removed)
    }

    /// The bytes of rows by cube and tier, of all clients.
    pub(crate) fn sizes(&self) -> Result<BTreeMap<(Box<str>, &'static str), u64>, StoreError> {
        let mut sizes = BTreeMap::new();
        for guard in self.blocks.iter() {
            let (row_key, block) = guard.into_inner()?;
            // Without its values and its run a row's key is one of a cube without dimensions.
            let (key, _) = CellKey::decode(&row_key, 0).map_err(block_row)?;
            *sizes.entry((key.cube, key.tier.name())).or_default() += (row_key.len() + block.len()) as u64;
        }
        Ok(sizes)
    }

    /// The cells as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { store: self.clone(), snapshot: self.database.snapshot() }
    }
}

impl Snapshot {
    /// The first buckets of a series' first row and of its last one.
    pub(crate) fn extent(&self, series: &[u8]) -> Result<Option<(i64, i64)>, StoreError> {
        let mut rows = self.snapshot.prefix(&self.store.blocks, series);
        let Some(first) = rows.next() else { return Ok(None) };
        let first = bucket_of(&first.key()?)?;
        let last = rows.next_back().map(|last| bucket_of(&last.key()?)).transpose()?;
        Ok(Some((first, last.unwrap_or(first))))
    }

    /// The blocks of a series that have buckets of a range, from the stretch on in which it begins: of each its first bucket, its run, and its
    /// cells of the range, with what is wanted.
    pub(crate) fn blocks(
        &self,
        series: &[u8],
        stretch: &Stretch,
        range: Range<i64>,
        wanted: Wanted,
    ) -> Result<impl Iterator<Item = Result<(i64, u64, Decoded), StoreError>> + use<>, StoreError> {
        let rows = |from: &[u8], to: &[u8]| {
            self.snapshot.range(&self.store.blocks, from..to).map(|guard| {
                let (row_key, block) = guard.into_inner()?;
                let (_, first, run) = split_row_key(&row_key).map_err(block_row)?;
                Ok((run, (first, block)))
            })
        };
        let (after_first, to) = (bucket_key(series, range.start + 1), bucket_key(series, range.end));
        // Of what begins by then, the last block of each run alone can reach into the range: they follow each other.
        let heads = rows(&stretch.from, &after_first).collect::<Result<BTreeMap<_, _>, StoreError>>()?;
        let rows = heads.into_iter().map(Ok).chain(rows(&after_first, &to));
        Ok(rows.filter_map(move |row: Result<_, StoreError>| {
            let read = |(run, (first, block)): (u64, (i64, fjall::Slice))| {
                let block = Decoded::read(first, &block, wanted, range.clone()).map_err(block_row)?;
                Ok(block.map(|block| (first, run, block)))
            };
            row.and_then(read).transpose()
        }))
    }
}

pub(super) fn bucket_of(row_key: &[u8]) -> Result<i64, StoreError> {
    let (_, bucket, _) = split_row_key(row_key).map_err(block_row)?;
    Ok(bucket)
}

pub(super) fn block_row(error: DecodeError) -> StoreError {
    StoreError::Row { keyspace: "blocks", error }
}

#[cfg(test)]
impl Store {
    /// How many rows cells have.
    pub(crate) fn cell_rows(&self) -> usize {
        self.blocks.iter().count()
    }
}
