//! The keeper: flushes the memtable, cuts the log off behind it, and folds the runs that flushes leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catchment_aggregator_core::log::needed_from;
use catchment_aggregator_core::runs::Folder;
use tracing::info;

use crate::cells::Cells;
use crate::health::Health;
use crate::store::{Cursor, StoreError};
use crate::{crash, metrics};

/// So often the keeper looks.
const TICK: Duration = Duration::from_millis(100);
/// So often it looks for dictionaries that aren't needed any more.
const SWEEP: Duration = Duration::from_secs(6 * 60 * 60);

/// The keeper.
pub(crate) struct Keeper {
    cells: Arc<Cells>,
    /// The position up to which central has all frames; `None`: there is no central.
    forwarded: Option<Arc<AtomicU64>>,
    health: Arc<Health>,
    folder: Folder,
    swept: Instant,
}

impl Keeper {
    /// A keeper of cells, of which the forwarder says how far central is.
    pub(crate) fn new(cells: Arc<Cells>, forwarded: Option<Arc<AtomicU64>>, health: Arc<Health>) -> Keeper {
        Keeper { cells, forwarded, health, folder: Folder::default(), swept: Instant::now() }
    }

    /// Keeps until told to stop. Blocks: run it on a thread of its own.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Result<(), StoreError> {
        while !stop.load(Ordering::Relaxed) {
            if !self.tick()? {
                std::thread::sleep(TICK);
            }
        }
        Ok(())
    }

    /// Does what is due, and says whether there is more to do at once.
    pub(crate) fn tick(&mut self) -> Result<bool, StoreError> {
        let (memtable, log) = self.cells.bytes();
        metrics::set_bytes(memtable, log, self.cells.kept_bytes());
        self.health.set("store", self.cells.full().map(str::to_owned));
        let flush = self.cells.is_flush_due();
        if flush {
            self.flush()?;
        }
        self.truncate(flush)?;
        self.cells.scattered().into_iter().for_each(|stretch| self.folder.suggest(stretch));
        if self.swept.elapsed() >= SWEEP && !self.cells.sweep_dictionaries()? {
            self.swept = Instant::now();
        }
        let Some(stretch) = self.folder.pop() else { return Ok(false) };
        metrics::count_folded(self.cells.store().fold(&stretch)?);
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let started = Instant::now();
        let (bytes, _) = self.cells.bytes();
        self.cells.flush(&mut self.folder)?;
        metrics::observe_flush(started.elapsed());
        info!(bytes, ms = started.elapsed().as_millis() as u64, "memtable flushed");
        Ok(())
    }

    /// Cuts the log off where neither a restart nor central needs it.
    fn truncate(&mut self, flushed: bool) -> Result<(), StoreError> {
        let flushed_through = self.cells.store().cursor(Cursor::Flushed)?;
        let forwarded = self.forwarded.as_ref().map(|forwarded| forwarded.load(Ordering::Acquire));
        let position = needed_from(flushed_through, forwarded);
        if flushed || self.cells.is_truncation_due(position) {
            self.cells.truncate(position)?;
            crash::point("truncate.after");
        }
        Ok(())
    }
}
