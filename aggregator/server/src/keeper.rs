//! The keeper: flushes the memtable, cuts the log off behind it, folds the runs that flushes leave, cuts hours and days anew where a
//! client's clock is another one, and removes what is not kept any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catchment_aggregator_core::Tiers;
use catchment_aggregator_core::log::needed_from;
use catchment_aggregator_core::runs::Folder;
use catchment_cells::ClientId;
use catchment_config::RetentionDays;
use tracing::info;

use crate::cells::Cells;
use crate::clock::now_ms;
use crate::configs::Configs;
use crate::health::Health;
use crate::store::{Cursor, StoreError};
use crate::{crash, metrics};

/// So often the keeper looks.
const TICK: Duration = Duration::from_millis(100);
/// So often it looks what is not kept any more.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// So often it looks for dictionaries that aren't needed any more.
const SWEEP: Duration = Duration::from_secs(60 * 60);
/// How far the clock may be ahead of the newest frame for what is not kept any more, in ms.
const AHEAD_MS_MAX: i64 = 24 * 60 * 60 * 1_000;

/// The keeper.
pub(crate) struct Keeper {
    cells: Arc<Cells>,
    /// The position up to which central has all frames; `None`: there is no central.
    forwarded: Option<Arc<AtomicU64>>,
    health: Arc<Health>,
    folder: Folder,
    swept: Instant,
    configs: Arc<Configs>,
    /// For how long figures are kept of clients whose configs don't say.
    retention: RetentionDays,
    round: Round,
}

/// A round over all clients, to remove what is not kept any more.
#[derive(Default)]
struct Round {
    began: Option<Instant>,
    client: Option<ClientId>,
    /// From which of the client's rows on; `None`: all are done.
    sweep: Option<Vec<u8>>,
    /// What was kept of each client when all before it had been removed.
    swept: HashMap<ClientId, Arc<Tiers>>,
}

impl Keeper {
    /// A keeper of cells, of which the forwarder says how far central is.
    pub(crate) fn new(
        cells: Arc<Cells>,
        configs: Arc<Configs>,
        retention: RetentionDays,
        forwarded: Option<Arc<AtomicU64>>,
        health: Arc<Health>,
    ) -> Keeper {
        Keeper {
            cells,
            forwarded,
            health,
            folder: Folder::default(),
            swept: Instant::now(),
            configs,
            retention,
            round: Round::default(),
        }
    }

    /// Keeps until told to stop. Blocks: run it on a thread of its own.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Result<(), StoreError> {
        while !stop.load(Ordering::Relaxed) {
            let has_more = self.tick()?;
            // A clock that jumps ahead must not expire what the edge's clocks say is young: without frames nothing expires.
            let now = self.cells.as_of().map(|as_of| now_ms().min(as_of.saturating_add(AHEAD_MS_MAX)));
            let expires_more = now.map_or(Ok(false), |now| self.expire(now))?;
            if !has_more && !expires_more {
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
        let cut = self.cells.cut()?;
        let Some(stretch) = self.folder.pop() else { return Ok(cut) };
        metrics::count_folded(self.cells.store().fold(&stretch)?);
        Ok(true)
    }

    /// Goes on with what is not kept any more at `now`, in ms, by one client or a batch of its rows, and says whether there is more to do at once.
    pub(crate) fn expire(&mut self, now: i64) -> Result<bool, StoreError> {
        let Round { began, client: at, sweep, swept } = &mut self.round;
        let store = self.cells.store();
        if let Some(client) = at
            && let Some(from) = sweep.take()
        {
            let tiers = self.cells.tiers(client);
            *sweep = store.sweep(client, &tiers, &from)?;
            if sweep.is_none() {
                swept.insert(client.clone(), tiers);
            }
            return Ok(true);
        }
        if at.is_none() && began.is_some_and(|began| began.elapsed() < EXPIRE_EVERY) {
            return Ok(false);
        }
        if at.is_none() {
            *began = Some(Instant::now());
        }
        *at = store.client_after(at.as_ref())?;
        let Some(client) = at else { return Ok(false) };
        let config = self.configs.get(client);
        if config.unreadable.is_some() {
            // It may say that more is kept than we know.
            return Ok(true);
        }
        let retention = config.config.retention_days.unwrap_or(self.retention);
        let tiers = self.cells.expire(client, retention.tiers(), now)?;
        let is_swept = swept.get(client).is_some_and(|swept| swept.has_kept_as(&tiers));
        *sweep = (tiers.is_kept_in_part() && !is_swept).then(Vec::new);
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
