//! Which events were counted before: keyed 64-bit hashes of their ids, exact up to the collisions of 64 bits.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::limits::IDS_MAX;

/// The ids of a shard. The hashes are keyed, so that nobody can choose where in the table they fall.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids(HashSet<u64, BuildHasherDefault<AsItIs>>);

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
    /// Adds an id; `false` if it was there.
    pub(crate) fn insert(&mut self, id: u64) -> bool {
        self.0.insert(id)
    }

    /// Whether an id is there.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.0.contains(&id)
    }

    /// Adds ids.
    pub(crate) fn extend(&mut self, ids: &[u64]) {
        self.0.extend(ids);
    }

    /// Forgets ids.
    pub(crate) fn remove_all(&mut self, ids: &[u64]) {
        for id in ids {
            self.0.remove(id);
        }
    }

    /// Whether `n` more would be too many.
    pub(crate) fn is_full_for(&self, n: usize) -> bool {
        self.0.len() + n > IDS_MAX
    }
}
