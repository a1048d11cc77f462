//! Dead letters: the events of each client that were not counted, the newest of them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use catchment_aggregator_core::letters::{LetterId, Order};
use catchment_aggregator_core::limits::{DEAD_LETTERS_BYTES_MAX, DEAD_LETTERS_MAX};
use catchment_cells::ClientId;
use catchment_cells::codec::{DecodeError, Reader};
use catchment_cells::frame::{DeadLetter, DeadLettersBlock};
use fjall::{Keyspace, OwnedWriteBatch};

use super::StoreError;

const VERSION: u8 = 1;
/// Bytes of a key behind its client's part.
const ID_BYTES: usize = 12;

/// The keyspace, and how much of it is whose, as far as it was asked.
pub(crate) struct Letters {
    rows: Keyspace,
    totals: Mutex<HashMap<ClientId, Total>>,
}

/// What a client has.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    letters: usize,
    bytes: usize,
}

impl Letters {
    /// The letters that are there.
    pub(super) fn open(rows: Keyspace) -> Letters {
        Letters { rows, totals: Mutex::default() }
    }

    /// Adds frames' letters to a batch, each with its frame's position, and takes the oldest of each client out that are beyond its
    /// bounds.
    pub(super) fn add(
        &self,
        batch: &mut OwnedWriteBatch,
        frames: &[(u64, DeadLettersBlock)],
    ) -> Result<(), StoreError> {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let clients: BTreeSet<&ClientId> = frames.iter().flat_map(|(_, block)| block.0.keys()).collect();
        for client in clients {
            let prefix = prefix_of(client);
            let total = match totals.entry(client.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.total(&prefix)?),
            };
            for (position, block) in frames {
                for (n, letter) in (0u32..).zip(block.0.get(client).into_iter().flatten()) {
                    let key = key_of(&prefix, LetterId { position: *position, n });
                    let mut value = vec![VERSION];
                    letter.encode(&mut value);
                    total.add(key.len() + value.len());
                    batch.insert(&self.rows, key, value);
                }
            }
            // The oldest are of earlier batches: those of this one aren't there yet.
            let mut oldest = self.rows.prefix(&prefix);
            while total.letters > DEAD_LETTERS_MAX || total.bytes > DEAD_LETTERS_BYTES_MAX {
                let Some(row) = oldest.next() else { break };
                let (key, value) = row.into_inner()?;
                total.letters = total.letters.saturating_sub(1);
                total.bytes = total.bytes.saturating_sub(key.len() + value.len());
                batch.remove(&self.rows, key);
            }
        }
        Ok(())
    }

    /// What a client has, as stored.
    fn total(&self, prefix: &[u8]) -> Result<Total, StoreError> {
        let mut total = Total::default();
        for row in self.rows.prefix(prefix) {
            let (key, value) = row.into_inner()?;
            total.add(key.len() + value.len());
        }
        Ok(total)
    }

    /// Visits a client's letters in an order, from behind one of them on, until the visit says that it's enough.
    pub(crate) fn visit(
        &self,
        client: &ClientId,
        order: Order,
        after: Option<LetterId>,
        mut visit: impl FnMut(LetterId, DeadLetter) -> bool,
    ) -> Result<(), StoreError> {
        let prefix = prefix_of(client);
        let at = |id| key_of(&prefix, id);
        let (first, last) = (Bound::Included(at(LetterId::FIRST)), Bound::Included(at(LetterId::LAST)));
        let after = after.map(|id| Bound::Excluded(at(id)));
        let rows = match order {
            Order::Oldest => self.rows.range((after.unwrap_or(first), last)),
            Order::Newest => self.rows.range((first, after.unwrap_or(last))),
        };
        let rows: Box<dyn Iterator<Item = _>> = match order {
            Order::Oldest => Box::new(rows),
            Order::Newest => Box::new(rows.rev()),
        };
        for row in rows {
            let (key, value) = row.into_inner()?;
            if !visit(id_of(&key).map_err(malformed)?, decode(&value).map_err(malformed)?) {
                break;
            }
        }
        Ok(())
    }
}

impl Total {
    fn add(&mut self, bytes: usize) {
        self.letters += 1;
        self.bytes += bytes;
    }
}

fn prefix_of(client: &ClientId) -> Vec<u8> {
    [client.as_str().as_bytes(), &[0]].concat()
}

fn key_of(prefix: &[u8], id: LetterId) -> Vec<u8> {
    [prefix, &id.position.to_be_bytes(), &id.n.to_be_bytes()].concat()
}

/// The id at a key's end.
fn id_of(key: &[u8]) -> Result<LetterId, DecodeError> {
    let (_, id) = key.split_last_chunk::<ID_BYTES>().ok_or(DecodeError::Malformed("key"))?;
    let mut reader = Reader::new(id);
    Ok(LetterId { position: u64::from_be_bytes(reader.array()?), n: u32::from_be_bytes(reader.array()?) })
}

fn decode(value: &[u8]) -> Result<DeadLetter, DecodeError> {
    let mut reader = Reader::new(value);
    match reader.u8()? {
        VERSION => {}
        version => return Err(DecodeError::Version(version)),
    }
    let letter = DeadLetter::decode(&mut reader)?;
    reader.finish()?;
    Ok(letter)
}

fn malformed(error: DecodeError) -> StoreError {
    StoreError::Row { keyspace: "dead_letters", error }
}
