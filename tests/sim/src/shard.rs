//! A shard's host: what the Durable Object of `edge/worker` does around [`catchment_collector::Shard`], on a disk that can fail.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use catchment_cells::ClientId;
use catchment_cells::codec::DecodeError;
use catchment_collector::limits::{IDS_ROWS_MAX, LOG_ROWS_MAX, OUTBOX_FRAMES_MAX, PARKED_MAX, SPILLED_ROWS};
use catchment_collector::shard::Storage;
use catchment_collector::{ConfigRow, IdsRow, LogRow, Meta, Shard, SpilledRow};

use crate::disk::Disk;

/// A shard's memory; an answer goes to `R`.
pub type Core<R> = Shard<Rows, R>;

const META: u8 = b'm';
const LOG: u8 = b'l';
const OUTBOX: u8 = b'o';
const IDS: u8 = b'i';
const PARKED: u8 = b'p';
const SPILLED: u8 = b's';
const CONFIGS: u8 = b'c';

/// A shard's tables: rings, as in the Durable Object.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    disk: Rc<RefCell<Disk>>,
    /// The next write fails, or the next read of a spilled row.
    fails: Rc<Cell<bool>>,
    used: Rc<Cell<Used>>,
    /// The next frame is damaged as it is written.
    damages: Rc<Cell<bool>>,
}

/// Rows that were written, and spilled rows that were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// All that were written.
    pub written: u64,
    /// Those of them that are spilled rows.
    pub spilled: u64,
    /// Spilled rows that were read.
    pub spilled_read: u64,
}

/// Why storage can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowsError {
    /// The disk refused.
    Failed,
    /// What is stored can't be right: never to be seen.
    Broken(String),
}

impl Rows {
    /// The disk beneath.
    pub fn disk(&self) -> &RefCell<Disk> {
        &self.disk
    }

    /// What was written and read.
    pub fn used(&self) -> Used {
        self.used.get()
    }

    /// Bytes of the spilled rows, and how many there are.
    pub fn spilled_size(&self) -> (usize, usize) {
        self.disk.borrow().size(SPILLED)
    }

    /// Has the next write fail, or the next read of a spilled row; or none any longer.
    pub fn set_fails(&self, fails: bool) {
        self.fails.set(fails);
    }

    /// Has the next frame be damaged, but for more than can be kept aside: a shard that is full of those waits for its operator.
    pub fn set_damages(&self) {
        let parked = self.disk.borrow().size(PARKED).1 as u64;
        self.damages.set(parked < PARKED_MAX / 2);
    }

    /// The frames that were parked.
    pub fn parked(&self) -> Vec<Vec<u8>> {
        self.disk.borrow().from(PARKED, &[]).map(|(_, row)| row[8..].to_vec()).collect()
    }

    /// Bytes of the outbox' and of the log's rows, and the outbox' rows.
    pub fn size(&self) -> (usize, usize, usize) {
        let disk = self.disk.borrow();
        let (outbox, frames) = disk.size(OUTBOX);
        (outbox, disk.size(LOG).0, frames)
    }

    /// Whether nothing was ever stored: its first write failed, and no request came again.
    pub fn is_new(&self) -> bool {
        let disk = self.disk.borrow();
        disk.get(META, &[]).is_none() && disk.size(LOG).1 == 0
    }

    /// Whether each ring has at most its slots.
    pub fn is_bounded(&self) -> bool {
        let disk = self.disk.borrow();
        let rings = [(LOG, LOG_ROWS_MAX), (OUTBOX, OUTBOX_FRAMES_MAX), (IDS, IDS_ROWS_MAX), (PARKED, PARKED_MAX)];
        let bounds = rings.into_iter().chain([(SPILLED, SPILLED_ROWS)]);
        { bounds }.all(|(table, rows)| disk.size(table).1 as u64 <= rows)
    }

    /// Notes a use, unless it is to fail.
    fn note(&self, use_of: impl FnOnce(&mut Used)) -> Result<(), RowsError> {
        if self.fails.replace(false) {
            return Err(RowsError::Failed);
        }
        let mut used = self.used.get();
        use_of(&mut used);
        self.used.set(used);
        Ok(())
    }

    fn put(&self, table: u8, n: u64, slots: u64, row: Vec<u8>) -> Result<(), RowsError> {
        self.note(|used| {
            used.written += 1;
            used.spilled += u64::from(table == SPILLED);
        })?;
        if row.len() > 2_000_000 {
            return Err(RowsError::Broken(format!("a row of {} bytes", row.len())));
        }
        let row = [&n.to_be_bytes()[..], &row].concat();
        self.disk.borrow_mut().put(table, &(n % slots).to_be_bytes(), row);
        Ok(())
    }

    fn row(&self, table: u8, n: u64, slots: u64) -> Option<Vec<u8>> {
        let disk = self.disk.borrow();
        let row = disk.get(table, &(n % slots).to_be_bytes())?;
        (row[..8] == n.to_be_bytes()).then(|| row[8..].to_vec())
    }

    /// The rows of a ring with numbers in a range, ascending.
    fn rows(&self, table: u8, from: u64, to: u64) -> Vec<(u64, Vec<u8>)> {
        let disk = self.disk.borrow();
        let number = |row: &[u8]| row[..8].iter().fold(0u64, |n, &byte| n << 8 | u64::from(byte));
        let mut rows: Vec<_> = disk.from(table, &[]).map(|(_, row)| (number(row), row[8..].to_vec())).collect();
        rows.retain(|(n, _)| (from..to).contains(n));
        rows.sort_unstable();
        rows
    }
}

/// Damages a frame in its last block, as its header's digest tells; once more, and it is whole again.
pub fn damage(frame: &mut [u8]) {
    if let Some(last) = frame.last_mut() {
        *last ^= 1;
    }
}

fn unreadable(error: DecodeError) -> RowsError {
    RowsError::Broken(error.to_string())
}

impl Storage for Rows {
    type Error = RowsError;

    fn broken(&self, what: String) -> RowsError {
        RowsError::Broken(what)
    }

    fn meta(&self) -> Result<Option<Meta>, RowsError> {
        self.disk.borrow().get(META, &[]).map(|row| Meta::decode(row).map_err(unreadable)).transpose()
    }

    fn put_meta(&self, meta: &Meta) -> Result<(), RowsError> {
        self.note(|used| used.written += 1)?;
        self.disk.borrow_mut().put(META, &[], meta.encode());
        Ok(())
    }

    fn read_log(
        &self,
        from: u64,
        mut visit: impl FnMut(u64, LogRow) -> Result<(), RowsError>,
    ) -> Result<(), RowsError> {
        for (n, row) in self.rows(LOG, from, u64::MAX) {
            visit(n, LogRow::decode(&row).map_err(unreadable)?)?;
        }
        Ok(())
    }

    fn put_log(&self, n: u64, row: &LogRow) -> Result<(), RowsError> {
        self.put(LOG, n, LOG_ROWS_MAX, row.encode())
    }

    fn frame(&self, n: u64) -> Result<Option<Vec<u8>>, RowsError> {
        Ok(self.row(OUTBOX, n, OUTBOX_FRAMES_MAX))
    }

    fn put_frame(&self, n: u64, mut frame: Vec<u8>) -> Result<(), RowsError> {
        if self.damages.replace(false) {
            damage(&mut frame);
        }
        self.put(OUTBOX, n, OUTBOX_FRAMES_MAX, frame)
    }

    fn read_ids(&self, from: u64, to: u64, mut visit: impl FnMut(IdsRow)) -> Result<(), RowsError> {
        for (n, row) in self.rows(IDS, from, to) {
            visit(IdsRow::decode(n, &row).map_err(unreadable)?);
        }
        Ok(())
    }

    fn ids(&self, n: u64) -> Result<Option<IdsRow>, RowsError> {
        self.row(IDS, n, IDS_ROWS_MAX).map(|row| IdsRow::decode(n, &row).map_err(unreadable)).transpose()
    }

    fn put_ids(&self, row: &IdsRow) -> Result<(), RowsError> {
        self.put(IDS, row.n, IDS_ROWS_MAX, row.encode())
    }

    fn spilled(&self, n: u64) -> Result<Option<SpilledRow>, RowsError> {
        self.note(|used| used.spilled_read += 1)?;
        self.row(SPILLED, n, SPILLED_ROWS).map(|row| SpilledRow::decode(n, &row).map_err(unreadable)).transpose()
    }

    fn put_spilled(&self, row: &SpilledRow) -> Result<(), RowsError> {
        self.put(SPILLED, row.n, SPILLED_ROWS, row.encode())
    }

    fn config(&self, client: &ClientId) -> Result<Option<ConfigRow>, RowsError> {
        let disk = self.disk.borrow();
        let row = disk.get(CONFIGS, client.as_str().as_bytes());
        row.map(|row| ConfigRow::decode(row).map_err(unreadable)).transpose()
    }

    fn put_config(&self, client: &ClientId, row: &ConfigRow) -> Result<(), RowsError> {
        self.note(|used| used.written += 1)?;
        self.disk.borrow_mut().put(CONFIGS, client.as_str().as_bytes(), row.encode());
        Ok(())
    }

    fn park(&self, n: u64, frame: Vec<u8>) -> Result<(), RowsError> {
        self.put(PARKED, n, PARKED_MAX, frame)
    }
}
