//! Clients' tiers: on which clocks hours and days are cut, how far they are, and what of each tier goes.

use catchment_aggregator_core::block::stretch;
use catchment_aggregator_core::dictionary;
use catchment_aggregator_core::recut::{Day, Recut};
use catchment_aggregator_core::runs::Stretch;
use catchment_aggregator_core::tiers::{Cutting, Tiers};
use catchment_cells::ClientId;
use catchment_cells::codec::DecodeError;
use catchment_cells::key::{CellKey, Tier, series};
use fjall::OwnedWriteBatch;

use super::cells::{block_row, bucket_of};
use super::{Cursor, Store, StoreError};
use crate::crash;

/// Rows that are removed in one batch.
const REMOVED_MAX: usize = 1_000;

impl Store {
    /// The tiers of all clients whose are not as everyone's.
    pub(crate) fn all_tiers(&self) -> Result<Vec<(ClientId, Tiers)>, StoreError> {
        let row = |error| StoreError::Row { keyspace: "tiers", error };
        let malformed = || row(DecodeError::Malformed("client id"));
        self.tiers
            .iter()
            .map(|guard| {
                let (key, value) = guard.into_inner()?;
                let client = str::from_utf8(&key).ok().and_then(|text| ClientId::new(text).ok());
                Ok((client.ok_or_else(malformed)?, Tiers::decode_row(&value).map_err(row)?))
            })
            .collect()
    }

    /// Writes a client's tiers. Not synced: what follows from it comes after it in the journal.
    pub(crate) fn put_tiers(&self, client: &ClientId, tiers: &Tiers) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        self.add_tiers(&mut batch, client, tiers);
        Ok(batch.commit()?)
    }

    pub(super) fn add_tiers(&self, batch: &mut OwnedWriteBatch, client: &ClientId, tiers: &Tiers) {
        batch.insert(&self.tiers, client.as_str(), tiers.encode_row());
    }

    /// Goes on with a client's hours and days that are cut anew, by one step: to which tiers that leads, and which stretches it wrote to. No flush
    /// goes on meanwhile.
    pub(crate) fn cut(&self, client: &ClientId, tiers: &Tiers) -> Result<(Tiers, Vec<Stretch>), StoreError> {
        let (cube, from) = match tiers.cutting() {
            None => return Ok((tiers.clone(), Vec::new())),
            Some(Cutting::Clearing) => {
                let later = |tier| (tier != Tier::Minute).then_some((tiers.since(), i64::MAX));
                if self.remove(client, &[], later)?.is_some() {
                    return Ok((tiers.clone(), Vec::new()));
                }
                return self.turn_to(client, tiers, None, Recut::default());
            }
            Some(Cutting::Cubes { cube, from }) => (cube, *from),
        };
        let minutes = series(client, cube, Tier::Minute);
        let before = Stretch::between(&minutes, Tier::Minute, tiers.since(), from.saturating_add(59));
        let Some(last) = self.blocks.range(&*before.from..&*before.to).next_back() else {
            return self.turn_to(client, tiers, Some(cube), Recut::default());
        };
        let last = stretch(Tier::Minute, bucket_of(&last.key()?)?) + 59;
        let day = Day::of(client, cube, tiers, last.min(from - 1));
        let (start, end) = day.minutes();
        let read = Stretch::between(&minutes, Tier::Minute, start, end + 59);
        let rows = self.blocks.range(&*read.from..&*read.to).map(|guard| Ok(guard.into_inner()?));
        let recut = day.cut(rows, self.cursor(Cursor::Flushed)?, block_row)?;
        if day.start <= tiers.since() {
            return self.turn_to(client, tiers, Some(cube), recut);
        }
        let cutting = Cutting::Cubes { cube: cube.clone(), from: day.start };
        self.write_cut(client, tiers.with_cutting(Some(cutting)), recut)
    }

    /// Goes on with the cube after one, or ends.
    fn turn_to(
        &self,
        client: &ClientId,
        tiers: &Tiers,
        done: Option<&str>,
        recut: Recut,
    ) -> Result<(Tiers, Vec<Stretch>), StoreError> {
        let mut next = self.all_series(client, done.map_or(Vec::new(), |cube| series(client, cube, Tier::Day)));
        let next = next.find(|series| !matches!(series, Ok((_, Tier::Hour | Tier::Day)))).transpose()?;
        let cutting = next.map(|(cube, _)| Cutting::Cubes { cube, from: i64::MAX });
        self.write_cut(client, tiers.with_cutting(cutting), recut)
    }

    /// Writes what was cut, with how far that is: not synced, since a step that is lost is taken again.
    fn write_cut(&self, client: &ClientId, tiers: Tiers, recut: Recut) -> Result<(Tiers, Vec<Stretch>), StoreError> {
        let mut batch = self.database.batch();
        recut.rows.into_iter().for_each(|(row_key, block)| batch.insert(&self.blocks, row_key, block));
        self.add_tiers(&mut batch, client, &tiers);
        crash::point("cut.before_commit");
        batch.commit()?;
        crash::point("cut.after_commit");
        Ok((tiers, recut.touched))
    }

    /// Removes rows of a client that are not kept any more, from a key on: says from which one to go on, if there may be more.
    pub(crate) fn sweep(&self, client: &ClientId, tiers: &Tiers, from: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if from.is_empty() {
            self.forget_dictionaries(client, dictionary::day(tiers.kept_from(Tier::Day)))?;
        }
        self.remove(client, from, |tier| Some((i64::MIN, tiers.kept_from(tier))))
    }

    /// Removes a batch of rows of the stretches within a range of each tier.
    fn remove(
        &self,
        client: &ClientId,
        after: &[u8],
        range: impl Fn(Tier) -> Option<(i64, i64)>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut batch = self.database.batch();
        let (mut removed, mut last) = (0, None);
        for found in self.all_series(client, after.to_vec()) {
            let (cube, tier) = found?;
            let Some((from, to)) = range(tier) else { continue };
            let Stretch { from, to } = Stretch::between(&series(client, &cube, tier), tier, from, to);
            let from = from.max(after.to_vec());
            if from >= to {
                continue;
            }
            for guard in self.blocks.range(from..to).take(REMOVED_MAX - removed) {
                let row_key = guard.key()?;
                batch.remove(&self.blocks, row_key.clone());
                (removed, last) = (removed + 1, Some(row_key.to_vec()));
            }
            if removed == REMOVED_MAX {
                break;
            }
        }
        // Not synced: what is not removed any more is removed again.
        batch.commit()?;
        crash::point("remove.after_commit");
        Ok(last.filter(|_| removed == REMOVED_MAX))
    }

    /// The client that comes after one, of those that have cells.
    pub(crate) fn client_after(&self, client: Option<&ClientId>) -> Result<Option<ClientId>, StoreError> {
        // What ends a client in a key is below all that one has in it.
        let from = client.map_or(Vec::new(), |client| [client.as_str().as_bytes(), &[1]].concat());
        let Some(row) = self.blocks.range(from..).next() else { return Ok(None) };
        let (key, _) = CellKey::decode(&row.key()?, 0).map_err(block_row)?;
        Ok(Some(key.client))
    }

    /// The cubes of a client with the tiers that have rows, from a key on.
    fn all_series(
        &self,
        client: &ClientId,
        mut from: Vec<u8>,
    ) -> impl Iterator<Item = Result<(Box<str>, Tier), StoreError>> {
        let first = [client.as_str().as_bytes(), &[0]].concat();
        let end = [client.as_str().as_bytes(), &[1]].concat();
        from = from.max(first);
        std::iter::from_fn(move || {
            let row = self.blocks.range(&*from..&*end).next()?;
            let read = || {
                let (key, _) = CellKey::decode(&row.key()?, 0).map_err(block_row)?;
                Ok::<_, StoreError>((key.cube, key.tier))
            };
            let read = read();
            match &read {
                // No bucket of a key begins with so many.
                Ok((cube, tier)) => from = [&*series(client, cube, *tier), &[0xff; 9]].concat(),
                Err(_) => from.clone_from(&end),
            }
            Some(read)
        })
    }
}
