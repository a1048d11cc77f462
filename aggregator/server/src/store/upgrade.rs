//! From version 1 of the store, which had a row for each cell, to blocks.

use std::collections::BTreeMap;

use catchment_aggregator_core::planner::Cube;
use catchment_aggregator_core::runs::{Rows, Stretch};
use catchment_cells::codec::{DecodeError, Reader};
use catchment_cells::key::{CellKey, Values, series};
use catchment_cells::{Cell, cube};
use fjall::{KeyspaceCreateOptions, PersistMode};
use tracing::info;

use super::{Cursor, Store, StoreError};

/// The keyspace of rows `store key ‖ u64 run → cell`, a row for each run that had the key.
const CELLS: &str = "cells";
/// Bytes of a run.
const RUN_BYTES: usize = 8;

impl Store {
    /// Writes all cells as blocks of one run. Whoever dies meanwhile begins anew: the version changes at the end.
    pub(super) fn upgrade(&self) -> Result<(), StoreError> {
        info!(version = super::VERSION, "bringing the store to another version");
        self.blocks.clear()?;
        let cells = self.database.keyspace(CELLS, KeyspaceCreateOptions::default)?;
        let own = self.cubes()?;
        let dimensions = |key: &CellKey| {
            let of_client = own.iter().filter(|(client, _)| *client == key.client).map(|(_, cube)| cube.clone());
            let mut cubes = Cube::defaults().chain([Cube::from(&cube::RECEIVED)]).chain(of_client);
            let cube = cubes.find(|cube| cube.name == key.cube).ok_or(DecodeError::Malformed("unknown cube"))?;
            Ok(cube.dimensions.len())
        };
        let mut failed = Ok(());
        let mut rows = Rows::new(self.cursor(Cursor::Flushed)?, |row_key, block| {
            if failed.is_ok() {
                failed = self.blocks.insert(row_key, block);
            }
        });
        // A bucket at hand. Its rows came by the length of their values, and go into blocks by the values.
        let mut open: Option<(CellKey, BTreeMap<Values, Cell>)> = None;
        let mut last = None;
        let mut push = |(key, cells): (CellKey, BTreeMap<Values, Cell>)| {
            let series = series(&key.client, &key.cube, key.tier);
            let stretch = Stretch::of(&series, key.tier, key.bucket);
            if last.as_ref() != Some(&stretch) {
                rows.begin(series, key.values.len());
                last = Some(stretch);
            }
            for (values, cell) in &cells {
                rows.push(key.bucket, values.iter().map(Option::as_deref), cell);
            }
        };
        for guard in cells.iter() {
            let (row_key, value) = guard.into_inner()?;
            let (key, cell) = read(&row_key, &value, dimensions).map_err(cell_row)?;
            let is_of = |of: &CellKey| {
                (&of.client, &of.cube, of.tier, of.bucket) == (&key.client, &key.cube, key.tier, key.bucket)
            };
            if !open.as_ref().is_some_and(|(of, _)| is_of(of)) {
                open.replace((key.clone(), BTreeMap::new())).into_iter().for_each(&mut push);
            }
            if let Some((_, cells)) = &mut open {
                cells.entry(key.values).and_modify(|sum| sum.merge(&cell)).or_insert(cell);
            }
        }
        open.into_iter().for_each(push);
        rows.end();
        drop(rows);
        failed?;
        self.database.persist(PersistMode::SyncAll)?;
        self.set_version()?;
        self.drop_version_1()
    }

    /// Gives the disk of version 1 back, where it is still there.
    pub(super) fn drop_version_1(&self) -> Result<(), StoreError> {
        if self.database.keyspace_exists(CELLS) {
            self.database.delete_keyspace(self.database.keyspace(CELLS, KeyspaceCreateOptions::default)?)?;
        }
        Ok(())
    }
}

fn read(
    row_key: &[u8],
    value: &[u8],
    dimensions: impl Fn(&CellKey) -> Result<usize, DecodeError>,
) -> Result<(CellKey, Cell), DecodeError> {
    // Without its values the key still says of which cube it is.
    let (key, _) = CellKey::decode(row_key, 0)?;
    let (key, run) = CellKey::decode(row_key, dimensions(&key)?)?;
    let mut run = Reader::new(run);
    run.bytes(RUN_BYTES)?;
    run.finish()?;
    Ok((key, Cell::decode_stored(value)?))
}

fn cell_row(error: DecodeError) -> StoreError {
    StoreError::Row { keyspace: CELLS, error }
}

#[cfg(test)]
mod tests {
    use catchment_aggregator_core::Memtable;
    use catchment_cells::frame::CellsBlock;

    use super::*;
    use crate::tests::kit::{Aggregator, DAY, Folder, client, event};

    const QUERIES: [&str; 3] = [
        "metric=events&metric=users&metric=p95:duration&start=2024-01-01&end=2024-01-04&granularity=1d",
        "metric=events&start=2024-01-01&end=2024-01-02&granularity=7m",
        "metric=events&metric=users&group_by=page&limit=3&start=2024-01-01T00:30:00Z&end=2024-01-04",
    ];

    /// Takes a store back to version 1, with so many runs of the same cells.
    fn put_back(folder: &Folder, cells: &CellsBlock, runs: u64) {
        let store = Store::open(folder.path()).unwrap();
        let old = store.database.keyspace(CELLS, KeyspaceCreateOptions::default).unwrap();
        let mut memtable = Memtable::default();
        memtable.merge(cells.clone());
        memtable.for_each_tier(
            &CellsBlock::default(),
            |_| Default::default(),
            |place, cells| {
                for (values, cell) in cells {
                    let mut value = Vec::new();
                    cell.encode_stored(&mut value);
                    for run in 0..runs {
                        let row_key = [&place.key(values).encode()[..], &run.to_be_bytes()].concat();
                        old.insert(row_key, &value).unwrap();
                    }
                }
            },
        );
        store.meta.insert("version", [super::super::VERSION_BEFORE]).unwrap();
        store.database.persist(PersistMode::SyncAll).unwrap();
    }

    #[test]
    fn a_store_of_version_1_answers_as_before() {
        let a = client("a");
        let mut cells = CellsBlock::default();
        for n in 0..200 {
            event(&mut cells, &a, DAY + n * 17, &format!("/{}", "x".repeat(5 - n as usize % 5)), n as u64 % 60, n % 7);
        }
        let (folder, expected) = (Folder::new(), Folder::new());
        put_back(&folder, &cells, 3);
        let mut shard = crate::tests::kit::Shard::new(1);
        let mut anew = Aggregator::open(&expected);
        (0..3).for_each(|_| _ = anew.send(shard.cut(cells.clone())));
        // The second time there is nothing to do.
        for _ in 0..2 {
            let upgraded = Aggregator::open(&folder);
            for query in QUERIES {
                assert_eq!(upgraded.ask(&a, query), anew.ask(&a, query), "{query}");
            }
        }
    }
}
