//! Which events were counted before: keyed 64-bit hashes of their ids, exact up to the collisions of 64 bits.
//!
//! The youngest are in memory. The others were spilled: they are in rows of storage, of which memory has a Bloom filter each
//! ("Space/Time Trade-offs in Hash Coding with Allowable Errors", 1970), so that a row is read for a duplicate, and for one in a hundred of
//! the events that are none. Rows are not kept in memory: hashes are spread evenly, so that the next one asks for another.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::limits::{
    FILTER_BITS_PER_ID, IDS_RING_MAX, IDS_SPILL_FROM, IDS_SPILL_WITHIN, IDS_SPILLED_MAX, IDS_TABLES, SPILLED_ROWS,
};
use crate::rows::SpilledRow;

/// Bits of a filter for each id that it has: ln 2 times the bits that there are for each is best.
const FILTER_BITS_SET: u64 = (FILTER_BITS_PER_ID * 7 / 10) as u64;

/// How many ids a shard remembers, and when it spills them. Others than the default are for tests that are to spill early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdsBounds {
    /// See [`IDS_RING_MAX`].
    pub ring_max: usize,
    /// See [`IDS_SPILLED_MAX`].
    pub spilled_max: usize,
    /// See [`IDS_SPILL_FROM`].
    pub spill_from: usize,
    /// See [`IDS_SPILL_WITHIN`].
    pub spill_within: usize,
}

impl Default for IdsBounds {
    fn default() -> Self {
        IdsBounds {
            ring_max: IDS_RING_MAX,
            spilled_max: IDS_SPILLED_MAX,
            spill_from: IDS_SPILL_FROM,
            spill_within: IDS_SPILL_WITHIN,
        }
    }
}

/// The ids of a shard. The hashes are keyed, so that nobody can choose where they fall.
#[derive(Debug)]
pub(crate) struct Ids {
    /// Those in memory. Each table has those of some consecutive spilled rows: it grows by itself, and it alone is searched for a row's.
    young: Vec<HashSet<u64, BuildHasherDefault<AsItIs>>>,
    in_memory: usize,
    /// The spilled rows; none before there are any.
    spilled: Vec<Spilled>,
}

/// What is known of a spilled row.
#[derive(Debug)]
enum Spilled {
    /// It wasn't read since the shard was loaded.
    Unread,
    Read {
        filter: Filter,
        /// By when its oldest group was received.
        oldest: Option<i64>,
    },
}

/// A Bloom filter.
#[derive(Debug)]
struct Filter(Box<[u64]>);

/// Passes a u64 that is a hash on as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Ids {
    /// No ids. Where some were spilled, each row is read when it is first asked for.
    pub(crate) fn new(spilled: bool) -> Self {
        let rows = if spilled { SPILLED_ROWS } else { 0 };
        Ids {
            young: vec![HashSet::default(); IDS_TABLES],
            in_memory: 0,
            spilled: (0..rows).map(|_| Spilled::Unread).collect(),
        }
    }

    /// How many are in memory.
    pub(crate) fn in_memory(&self) -> usize {
        self.in_memory
    }

    /// Adds an id.
    pub(crate) fn insert(&mut self, id: u64) {
        self.in_memory += usize::from(self.young[table(SpilledRow::of(id))].insert(id));
    }

    /// Whether an id is there; `read` reads a spilled row.
    pub(crate) fn contains<E>(
        &mut self,
        id: u64,
        read: &mut dyn FnMut(u64) -> Result<SpilledRow, E>,
    ) -> Result<bool, E> {
        let n = SpilledRow::of(id);
        if self.young[table(n)].contains(&id) {
            return Ok(true);
        }
        if !self.may_be_spilled(id) {
            return Ok(false);
        }
        let row = read(n)?;
        if let Some(spilled @ Spilled::Unread) = self.spilled.get_mut(n as usize) {
            *spilled = Spilled::of(&row);
        }
        Ok(row.contains(id))
    }

    /// Forgets ids, unless they were spilled.
    pub(crate) fn remove_all(&mut self, ids: &[u64]) {
        for id in ids {
            self.in_memory -= usize::from(self.young[table(SpilledRow::of(*id))].remove(id));
        }
    }

    /// Whether there are ids in memory that go to a spilled row.
    pub(crate) fn has_young(&self, row: u64) -> bool {
        self.young[table(row)].iter().any(|&id| SpilledRow::of(id) == row)
    }

    /// Takes the ids that go to a spilled row, and are not there, out of memory: ascending.
    pub(crate) fn take_young(&mut self, row: &SpilledRow) -> Vec<u64> {
        let young = &mut self.young[table(row.n)];
        let mut ids: Vec<u64> = young.extract_if(|&id| SpilledRow::of(id) == row.n).collect();
        // What was taken leaves marks, for which a table would grow beyond what it holds.
        young.shrink_to(2 * young.len());
        self.in_memory -= ids.len();
        ids.retain(|&id| !(self.may_be_spilled(id) && row.contains(id)));
        ids.sort_unstable();
        ids
    }

    /// Takes note of what a spilled row has now.
    pub(crate) fn note(&mut self, row: &SpilledRow) {
        if self.spilled.is_empty() {
            self.spilled = (0..SPILLED_ROWS).map(|n| Spilled::of(&SpilledRow::empty(n))).collect();
        }
        self.spilled[row.n as usize] = Spilled::of(row);
    }

    /// The spilled rows that may have a group received before a time.
    pub(crate) fn spilled_before(&self, time: i64) -> impl Iterator<Item = u64> {
        let is_older = move |spilled: &Spilled| match spilled {
            Spilled::Unread => true,
            Spilled::Read { oldest, .. } => oldest.is_some_and(|oldest| oldest < time),
        };
        (0..).zip(&self.spilled).filter(move |(_, spilled)| is_older(spilled)).map(|(n, _)| n)
    }

    fn may_be_spilled(&self, id: u64) -> bool {
        match self.spilled.get(SpilledRow::of(id) as usize) {
            None => false,
            Some(Spilled::Unread) => true,
            Some(Spilled::Read { filter, .. }) => filter.may_contain(id),
        }
    }
}

/// The table of those ids in memory that go to a spilled row.
fn table(row: u64) -> usize {
    row as usize / (SPILLED_ROWS as usize / IDS_TABLES)
}

impl Spilled {
    fn of(row: &SpilledRow) -> Self {
        let oldest = row.groups.first().map(|group| group.received_by);
        Spilled::Read { filter: Filter::of(row), oldest }
    }
}

impl Filter {
    fn of(row: &SpilledRow) -> Self {
        let mut words = vec![0; (row.len() * FILTER_BITS_PER_ID).div_ceil(64)];
        for &id in row.groups.iter().flat_map(|group| &group.ids) {
            for bit in bits(id, words.len()) {
                words[bit / 64] |= 1 << (bit % 64);
            }
        }
        Filter(words.into())
    }

    fn may_contain(&self, id: u64) -> bool {
        !self.0.is_empty() && bits(id, self.0.len()).all(|bit| self.0[bit / 64] >> (bit % 64) & 1 == 1)
    }
}

/// The bits of an id: places at a distance of each other that depends on it, too (Kirsch and Mitzenmacher, "Less Hashing, Same
/// Performance", 2006).
fn bits(id: u64, words: usize) -> impl Iterator<Item = usize> {
    let (first, step) = (id as u32, (id >> 32) as u32 | 1);
    let bits = 64 * words as u64;
    (0..FILTER_BITS_SET as u32).map(move |i| {
        let place = first.wrapping_add(i.wrapping_mul(step));
        ((u64::from(place) * bits) >> 32) as usize
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::rows::SpilledGroup;

    /// SplitMix64's output function: hashes of numbers.
    fn hash(n: u64) -> u64 {
        let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn a_filter_has_its_ids_and_one_in_a_hundred_of_the_others_at_most() {
        let of_row = |from| (from..).map(hash).filter(|&id| SpilledRow::of(id) == 5);
        let mut ids: Vec<u64> = of_row(0).take(IDS_SPILLED_MAX / SPILLED_ROWS as usize).collect();
        ids.sort_unstable();
        let groups = vec![SpilledGroup { received_by: 0, ids: ids.clone() }];
        let filter = Filter::of(&SpilledRow { n: 5, groups });
        assert!(ids.iter().all(|&id| filter.may_contain(id)));
        let wrong = of_row(1 << 40).take(100_000).filter(|&id| filter.may_contain(id)).count();
        // (1 - e^(-7/10))^7 = 0.82 %, with a standard error of 0.03 %.
        assert!(wrong < 1_000, "{wrong} of 100,000");
    }

    #[test]
    fn a_row_is_read_for_what_may_be_there_alone() {
        let mut ids = Ids::new(true);
        let spilled: Vec<u64> = (0..3).map(|n| 5 << 40 | n).collect();
        let row = SpilledRow { n: 5, groups: vec![SpilledGroup { received_by: 7, ids: spilled.clone() }] };
        let mut reads = 0;
        let mut contains = |ids: &mut Ids, id| {
            let Ok(known) = ids.contains(id, &mut |n| {
                reads += 1;
                Ok::<_, Infallible>(if n == 5 { row.clone() } else { SpilledRow::empty(n) })
            });
            (known, reads)
        };
        assert_eq!(contains(&mut ids, hash(1)), (false, 1), "what is in storage is not known yet");
        assert_eq!(contains(&mut ids, hash(1)), (false, 1));
        assert_eq!(contains(&mut ids, spilled[1]), (true, 2));
        assert_eq!(contains(&mut ids, spilled[2]), (true, 3));
        ids.insert(hash(1));
        assert_eq!(contains(&mut ids, hash(1)), (true, 3));
        assert!(ids.spilled_before(8).any(|n| n == 5) && !ids.spilled_before(7).any(|n| n == 5));
        // Of what is in the row already, and in memory after a restart, nothing is spilled again.
        ids.insert(spilled[0]);
        ids.insert(5 << 40 | 9);
        assert_eq!((ids.take_young(&row), ids.in_memory()), (vec![5 << 40 | 9], 1));
    }
}
