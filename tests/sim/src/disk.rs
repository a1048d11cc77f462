//! A disk: rows by table and key. What was not synced when its machine dies may be lost, the newest first.

use std::collections::BTreeMap;

/// What one batch overwrote.
type Undo = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A disk. A batch is lost as a whole or not at all, and never without those after it, as with a journal.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of each batch that is not synced, what it overwrote.
    unsynced: Vec<Undo>,
}

impl Disk {
    /// Begins a batch; all that is written belongs to it until the next one begins.
    pub fn begin(&mut self) {
        self.unsynced.push(Vec::new());
    }

    /// Batches that are not synced.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The oldest `batches` that are not synced are now.
    pub fn sync(&mut self, batches: usize) {
        self.unsynced.drain(..batches.min(self.unsynced.len()));
    }

    /// The newest `batches` that are not synced never were.
    pub fn lose(&mut self, batches: usize) {
        for _ in 0..batches {
            for (key, old) in self.unsynced.pop().unwrap_or_default().into_iter().rev() {
                match old {
                    Some(value) => _ = self.rows.insert(key, value),
                    None => _ = self.rows.remove(&key),
                }
            }
        }
    }

    /// The row with a key.
    pub fn get(&self, table: u8, key: &[u8]) -> Option<&[u8]> {
        self.rows.get(&at(table, key)).map(Vec::as_slice)
    }

    /// Writes a row.
    pub fn put(&mut self, table: u8, key: &[u8], value: Vec<u8>) {
        let key = at(table, key);
        let old = self.rows.insert(key.clone(), value);
        self.note(key, old);
    }

    /// Removes a row.
    pub fn remove(&mut self, table: u8, key: &[u8]) {
        let key = at(table, key);
        let old = self.rows.remove(&key);
        self.note(key, old);
    }

    /// The rows whose keys begin with some bytes, ascending.
    pub fn prefix<'a>(&'a self, table: u8, prefix: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let start = at(table, prefix);
        let rows = self.rows.range(start.clone()..).take_while(move |(key, _)| key.starts_with(&start));
        rows.map(|(key, value)| (&key[1..], value.as_slice()))
    }

    /// The rows of a table from a key on, ascending.
    pub fn from<'a>(&'a self, table: u8, key: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let rows = self.rows.range(at(table, key)..).take_while(move |(key, _)| key[0] == table);
        rows.map(|(key, value)| (&key[1..], value.as_slice()))
    }

    /// Bytes of a table's rows, and how many there are.
    pub fn size(&self, table: u8) -> (usize, usize) {
        self.from(table, &[]).fold((0, 0), |(bytes, rows), (_, value)| (bytes + value.len(), rows + 1))
    }

    fn note(&mut self, key: Vec<u8>, old: Option<Vec<u8>>) {
        if let Some(batch) = self.unsynced.last_mut() {
            batch.push((key, old));
        }
    }
}

fn at(table: u8, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(table);
    out.extend_from_slice(key);
    out
}
