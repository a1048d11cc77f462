//! Dictionaries on disk: which values of each client's dimensions are told apart on which day.

use std::time::Instant;

use catchment_aggregator_core::dictionary::{Dictionaries, Dictionary, Key};
use catchment_cells::ClientId;
use catchment_cells::codec::DecodeError;
use fjall::{OwnedWriteBatch, Readable};

use super::{Snapshot, Store, StoreError};

/// How long a dictionary that has folded nothing is kept after its last change, in days: events come late. Without it its day's values are
/// let in anew, which is only more room than there should be.
const OPEN_KEPT_DAYS: i64 = 3;
/// Rows that one sweep takes out.
const SWEEP_ROWS_MAX: usize = 10_000;

impl Store {
    /// A dictionary; one of no values where there is none.
    pub(super) fn dictionary(&self, key: Key<'_>) -> Result<Dictionary, StoreError> {
        for is_folding in [false, true] {
            if let Some(bytes) = self.dictionaries.get(key.encode(is_folding))? {
                return Dictionary::decode(&bytes, is_folding).map_err(row);
            }
        }
        Ok(Dictionary::default())
    }

    /// Adds a dictionary that has changed to a batch.
    pub(super) fn put_dictionary(&self, batch: &mut OwnedWriteBatch, key: Key<'_>, dictionary: &Dictionary) {
        if dictionary.is_folding() {
            batch.remove(&self.dictionaries, key.encode(false));
        }
        batch.insert(&self.dictionaries, key.encode(dictionary.is_folding()), dictionary.encode());
    }

    /// Takes out a client's dictionaries of days before one: nothing of these is kept any more.
    pub(super) fn forget_dictionaries(&self, client: &ClientId, day: i64) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        for guard in self.dictionaries.prefix(Key::folding_of(client)) {
            let key = guard.key()?;
            if Key::day_of(&key).map_err(row)? < day {
                batch.remove(&self.dictionaries, key);
            }
        }
        Ok(batch.commit()?)
    }

    /// Takes out some dictionaries that have folded nothing and haven't changed for days, and says whether there may be more.
    pub(crate) fn sweep_dictionaries(&self, today: i64) -> Result<bool, StoreError> {
        let mut batch = self.database.batch();
        let mut rows = 0;
        for guard in self.dictionaries.prefix(Key::OPEN) {
            let (key, bytes) = guard.into_inner()?;
            if Dictionary::decode(&bytes, false).map_err(row)?.written_day() < today - OPEN_KEPT_DAYS {
                batch.remove(&self.dictionaries, key);
                rows += 1;
            }
            if rows == SWEEP_ROWS_MAX {
                break;
            }
        }
        batch.commit()?;
        Ok(rows == SWEEP_ROWS_MAX)
    }
}

impl Snapshot {
    /// The dictionaries of a client's dimensions that have folded values on some of the days `from..=to`; `None` where there is no time for them.
    pub(crate) fn dictionaries<'a>(
        &self,
        client: &ClientId,
        dimensions: impl IntoIterator<Item = &'a str>,
        (from, to): (i64, i64),
        deadline: Instant,
    ) -> Result<Option<Dictionaries>, StoreError> {
        let mut dictionaries = Dictionaries::default();
        for dimension in dimensions {
            let key = |day| Key { client, dimension, day }.encode(true);
            for guard in self.snapshot.range(&self.store.dictionaries, key(from)..=key(to)) {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
                let (key, bytes) = guard.into_inner()?;
                let day = Key::day_of(&key).map_err(row)?;
                dictionaries.insert(dimension, day, Dictionary::decode(&bytes, true).map_err(row)?);
            }
        }
        Ok(Some(dictionaries))
    }
}

fn row(error: DecodeError) -> StoreError {
    StoreError::Row { keyspace: "dictionaries", error }
}

#[cfg(test)]
impl Store {
    /// How many dictionaries there are.
    pub(crate) fn dictionary_rows(&self) -> usize {
        self.dictionaries.iter().count()
    }
}
