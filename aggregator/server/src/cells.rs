//! The cells of all clients: what the memtable and the store hold, seen as one, under one lock for the tables.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use catchment_aggregator_core::answer::{Answer, TooMuch};
use catchment_aggregator_core::block::{Decoded, stretch, stretch_minutes};
use catchment_aggregator_core::dictionary::{self, Dictionaries};
use catchment_aggregator_core::kept::Kept;
use catchment_aggregator_core::limits::{KEPT_BYTES_MAX, QUESTION_CELLS_MAX};
use catchment_aggregator_core::log::needed_from;
use catchment_aggregator_core::planner::{Cube, PlanError, Span};
use catchment_aggregator_core::runs::{Folder, Stretch};
use catchment_aggregator_core::tables::{Blocks, CubeError};
use catchment_aggregator_core::tiers::{KeptDays, TooManyZones, Zone};
use catchment_aggregator_core::{LogRow, Plan, Tables, Tiers};
use catchment_cells::cell::Wanted;
use catchment_cells::frame::CellsBlock;
use catchment_cells::key::{Values, series};
use catchment_cells::{Cell, ClientId, Secret};
use catchment_config::{self as config, Config, is_report};
use thiserror::Error;
use tracing::info;

use crate::clock::now_ms;
use crate::config::Limits;
use crate::live::Feed;
use crate::metrics;
use crate::store::{Cursor, Flushed, Snapshot, Store, StoreError};

/// Names of measures that are told at most.
const MEASURES_MAX: usize = 1_000;
/// Types and fields that are told at most.
const REPORTED_MAX: usize = 1_000;
/// Cells between two looks at the clock.
const CELLS_PER_LOOK: u64 = 1_024;
/// Stretches that are read in one scan.
const SCAN_STRETCHES_MAX: usize = 1_000;
/// Stretches that may wait to be folded because a question found several runs there.
const SCATTERED_MAX: usize = 10_000;

/// All cells, for the writer, the keeper and questions.
pub(crate) struct Cells {
    store: Store,
    /// What the tables' times count from.
    started: Instant,
    tables: RwLock<Tables>,
    /// Taken while the tables are locked, or alone.
    kept: Mutex<Kept>,
    /// Held by whoever changes what hours and days are made of, or makes some.
    shaping: Mutex<()>,
    /// What clients may take of which a config says so.
    limits: RwLock<HashMap<ClientId, config::Limits>>,
    /// Where questions found several runs.
    scattered: Mutex<HashSet<Stretch>>,
    feed: Arc<Feed>,
}

/// The store as a question sees it.
struct View {
    snapshot: Snapshot,
    /// The last flush that it has.
    through: u64,
    /// The run of the memtable that is being flushed, which the snapshot may have or not.
    without_run: Option<u64>,
}

/// An answer, and what it is made of.
#[derive(Debug)]
pub(crate) struct Answered {
    pub answer: Answer,
    /// The log position before which every frame is in it.
    pub position: u64,
    /// When the newest frame that we have, of any client, was cut, in ms.
    pub as_of: Option<i64>,
}

/// Why a question has no answer.
#[derive(Debug, Error)]
pub(crate) enum AnswerError {
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the client's time zone has just been changed: ask again")]
    Changed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Cells {
    /// Opens the cells over a store: whatever the log holds beyond the last flush is read again. New cells go to the feed.
    pub(crate) fn open(
        store: Store,
        limits: Limits,
        secret: &Secret,
        forwards: bool,
        feed: Arc<Feed>,
    ) -> Result<Cells, StoreError> {
        let flushed = store.cursor(Cursor::Flushed)?;
        let forwarded = if forwards { Some(store.cursor(Cursor::Forwarded)?) } else { None };
        let mut tables = Tables::new(limits.into(), flushed, store.newest_cut_at()?, store.cubes()?);
        for (client, tiers) in store.all_tiers()? {
            tables.set_tiers(&client, Arc::new(tiers));
        }
        let kept = Mutex::new(Kept::new(flushed, KEPT_BYTES_MAX));
        let (started, tables, scattered) = (Instant::now(), RwLock::new(tables), Mutex::default());
        // What the log holds is flushed within the same limits as before.
        let of = |bytes: &[u8]| Config::decode(bytes).unwrap_or_else(|_| Config::salvage(bytes)).limits;
        let configs = store.configs()?.into_iter();
        let limits = RwLock::new(configs.map(|(client, _, bytes)| (client, of(&bytes))).collect());
        let shaping = Mutex::default();
        let cells = Cells { store, started, tables, kept, shaping, limits, scattered, feed };
        let mut folder = Folder::default();
        for row in cells.store.rows(needed_from(flushed, forwarded)) {
            let row = row?;
            let restored = cells.write().restore(&row, secret, cells.uptime());
            if restored.map_err(|error| StoreError::frame(&row, &error))? {
                cells.flush(&mut folder)?;
            }
        }
        Ok(cells)
    }

    /// The store beneath.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Checks the cubes of a frame against those known, and returns the new ones, which are known from here on.
    pub(crate) fn admit(&self, block: &CellsBlock) -> Result<Vec<(ClientId, Cube)>, CubeError> {
        let new = self.read().new_cubes(block)?;
        if !new.is_empty() {
            self.write().add_cubes(&new);
        }
        Ok(new)
    }

    /// Checks the cubes that a config declares, and returns those that are new.
    pub(crate) fn new_cubes(&self, client: &ClientId, cubes: &[Cube]) -> Result<Vec<Cube>, CubeError> {
        new_of(&self.read(), client, cubes)
    }

    /// Checks the cubes that a config declares, which are known from here on, as its limits are.
    pub(crate) fn declare(&self, client: &ClientId, cubes: Vec<Cube>, limits: config::Limits) -> Result<(), CubeError> {
        let mut tables = self.write();
        let new = new_of(&tables, client, &cubes)?;
        let added: Vec<_> = new.iter().map(|cube| (client.clone(), cube.clone())).collect();
        tables.add_cubes(&added);
        tables.declare(client, cubes);
        self.limits.write().unwrap_or_else(PoisonError::into_inner).insert(client.clone(), limits);
        Ok(())
    }

    /// Adds frames that the log holds.
    pub(crate) fn merge(&self, rows: &[LogRow], blocks: Vec<Blocks>) {
        // Under the same lock as the position: a view that starts meanwhile has these cells or gets them, never both.
        let tell = |position, cut_at, cells: &_| self.feed.take(position, cut_at, cells);
        self.write().merge(rows, blocks, self.uptime(), tell);
    }

    /// Whether there is no room for more frames: what is lacking, as a sentence.
    pub(crate) fn full(&self) -> Option<&'static str> {
        self.read().full()
    }

    /// Whether it is time to flush: for the memtable's sake, for a restart's, or to make room in the log.
    pub(crate) fn is_flush_due(&self) -> bool {
        self.read().is_flush_due(self.uptime())
    }

    /// Writes the open memtable to the store. One caller at a time: the keeper.
    pub(crate) fn flush(&self, folder: &mut Folder) -> Result<(), StoreError> {
        let _shaping = self.shaping();
        let Some(frozen) = self.write().freeze() else { return Ok(()) };
        let limits = self.limits.read().unwrap_or_else(PoisonError::into_inner).clone();
        let values_max =
            |client: &ClientId| limits.get(client).copied().unwrap_or_default().values_per_dimension as usize;
        let Flushed { touched, values_folded } =
            self.store.flush(&frozen, |client| self.tiers(client), today(), values_max)?;
        metrics::count_values_folded(values_folded);
        {
            let mut tables = self.write();
            self.kept().flushed(frozen.run, &touched);
            tables.flushed();
        }
        folder.flushed(touched);
        Ok(())
    }

    /// A client's tiers.
    pub(crate) fn tiers(&self, client: &ClientId) -> Arc<Tiers> {
        self.read().tiers(client)
    }

    /// Has a client's hours and days cut on a clock from now on, as far as they aren't: `store` gets what its tiers are then, if they are others.
    pub(crate) fn set_zone<E: From<StoreError> + From<TooManyZones>>(
        &self,
        client: &ClientId,
        zone: Zone,
        store: impl FnOnce(&Store, Option<&Tiers>) -> Result<(), StoreError>,
    ) -> Result<(), E> {
        let _shaping = self.shaping();
        let tiers = self.tiers(client);
        if *tiers.zone() == zone {
            return Ok(store(&self.store, None)?);
        }
        let tiers = tiers.with_zone(zone)?;
        store(&self.store, Some(&tiers))?;
        let mut tables = self.write();
        self.kept().clear();
        tables.set_tiers(client, Arc::new(tiers));
        Ok(())
    }

    /// Has no more of a client's tiers be kept than for so many days before the present one, at `now`, in ms: what is not kept any more is read by no
    /// question from here on, and may be [swept](Store::sweep).
    pub(crate) fn expire(&self, client: &ClientId, days: KeptDays, now: i64) -> Result<Arc<Tiers>, StoreError> {
        let _shaping = self.shaping();
        let tiers = self.tiers(client);
        let Some(tiers) = tiers.with_kept(days, now).map(Arc::new) else { return Ok(tiers) };
        self.store.put_tiers(client, &tiers)?;
        self.write().set_tiers(client, tiers.clone());
        Ok(tiers)
    }

    /// Goes on with hours and days that are cut anew, by one step, if there are any, and says so.
    pub(crate) fn cut(&self) -> Result<bool, StoreError> {
        let _shaping = self.shaping();
        let Some((client, tiers)) = self.read().cutting() else { return Ok(false) };
        let (tiers, touched) = self.store.cut(&client, &tiers)?;
        if tiers.cutting().is_none() {
            info!(%client, time_zone = tiers.zone().name(), "hours and days are cut on another clock");
        }
        let mut tables = self.write();
        self.kept().recut(&touched);
        tables.set_tiers(&client, Arc::new(tiers));
        Ok(true)
    }

    /// Where questions found several runs since the last look.
    pub(crate) fn scattered(&self) -> HashSet<Stretch> {
        std::mem::take(&mut self.scattered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it is worth it to cut the log off at a position.
    pub(crate) fn is_truncation_due(&self, position: u64) -> bool {
        self.read().is_truncation_due(position)
    }

    /// Gives back the disk of the log before a position.
    pub(crate) fn truncate(&self, position: u64) -> Result<(), StoreError> {
        self.store.truncate(position)?;
        self.write().truncate(position);
        Ok(())
    }

    /// When the newest frame that we have was cut, in ms.
    pub(crate) fn as_of(&self) -> Option<i64> {
        self.read().as_of()
    }

    /// Bytes of the memtables and of the log.
    pub(crate) fn bytes(&self) -> (usize, u64) {
        self.read().bytes()
    }

    /// The cubes that a client has beside the default ones.
    pub(crate) fn cubes(&self, client: &ClientId) -> Vec<Cube> {
        self.read().cubes(client).to_vec()
    }

    /// Answers a planned question of a client: `answer` has no cells yet.
    pub(crate) fn answer(
        &self,
        client: &ClientId,
        mut answer: Answer,
        deadline: Instant,
    ) -> Result<Answered, AnswerError> {
        let plan = answer.plan().clone();
        let wanted = answer.wanted();
        let (position, as_of) = self.visit(client, &plan, wanted, deadline, &mut answer)?;
        Ok(Answered { answer, position, as_of })
    }

    /// The names of the measures that the cells of a plan have.
    pub(crate) fn measures(
        &self,
        client: &ClientId,
        plan: Plan,
        deadline: Instant,
    ) -> Result<BTreeSet<Box<str>>, AnswerError> {
        let mut names = BTreeSet::new();
        let wanted = Wanted { users: false, measures: true };
        self.visit(client, &plan, wanted, deadline, &mut |_: i64, _: &[Option<&str>], cell: &Cell| {
            for name in cell.measures.names() {
                if !names.contains(name) && names.len() < MEASURES_MAX {
                    names.insert(name.into());
                }
            }
        })?;
        Ok(names)
    }

    /// What the cells of a plan of `received` say of types and fields that no schema knows: the reason, and the first bucket that has it.
    pub(crate) fn reported(
        &self,
        client: &ClientId,
        plan: &Plan,
        deadline: Instant,
    ) -> Result<BTreeMap<Box<str>, i64>, AnswerError> {
        let mut reported: BTreeMap<Box<str>, i64> = BTreeMap::new();
        let wanted = Wanted { users: false, measures: false };
        self.visit(client, plan, wanted, deadline, &mut |bucket: i64, values: &[Option<&str>], _: &Cell| {
            let Some(reason) = values.first().copied().flatten().filter(|reason| is_report(reason)) else {
                return;
            };
            if let Some(first) = reported.get_mut(reason) {
                *first = bucket.min(*first);
            } else if reported.len() < REPORTED_MAX {
                reported.insert(reason.into(), bucket);
            }
        })?;
        Ok(reported)
    }

    /// Visits each cell of a plan once, with its bucket and values and at least what is wanted of it, and says up to which log
    /// position these are and when the newest frame that we have, of any client, was cut.
    fn visit(
        &self,
        client: &ClientId,
        plan: &Plan,
        wanted: Wanted,
        deadline: Instant,
        visitor: &mut impl Visitor,
    ) -> Result<(u64, Option<i64>), AnswerError> {
        let mut bounded = Bounded { visitor, cells_read: 0, deadline };
        // Whoever writes waits for no visit: what is visited is held, and no longer the tables.
        let (plan, minutes, frozen, view, position, as_of) = {
            let tables = self.read();
            // By the tiers as the store has them now: what isn't kept any more, or not cut yet, is not read.
            let tiers = tables.tiers(client);
            if tiers.zone() != plan.tiers.zone() {
                return Err(AnswerError::Changed);
            }
            let plan = plan.over(&tiers)?;
            let (start, end) = plan.range();
            let minutes = tables.minutes(client, &plan.cube.name, start, end);
            let frozen = tables.frozen();
            let (through, without_run) = (self.kept().through(), frozen.as_ref().map(|frozen| frozen.run));
            let view = View { snapshot: self.store.snapshot(), through, without_run };
            (plan, minutes, frozen, view, tables.position(), tables.as_of())
        };
        let (start, end) = plan.range();
        for (minute, cells) in minutes {
            bounded.visit_minute(minute, &cells)?;
        }
        let days = (dictionary::day(start), dictionary::day(end));
        let dictionaries = view.snapshot.dictionaries(client, plan.told_apart(), days, deadline)?;
        bounded.visitor.know(dictionaries.ok_or(TooMuch::Time)?, &plan);
        if let Some(frozen) = &frozen {
            for (minute, cells) in frozen.memtable.minutes(client, &plan.cube.name, start, end) {
                bounded.visit_minute(minute, cells)?;
            }
        }
        for span in &plan.spans {
            let series = series(client, &plan.cube.name, span.tier);
            self.visit_span(&view, &series, *span, (wanted, deadline), |bucket, values, cell| {
                bounded.visit(bucket, values, cell)
            })?;
        }
        Ok((position, as_of))
    }

    /// Visits the cells of a span in the store: those that are kept, and between these the rest in one scan each, which are
    /// kept from here on.
    fn visit_span(
        &self,
        view: &View,
        series: &[u8],
        Span { tier, mut from, mut to }: Span,
        (wanted, deadline): (Wanted, Instant),
        mut visit: impl FnMut(i64, &[Option<&str>], &Cell) -> Result<(), AnswerError>,
    ) -> Result<(), AnswerError> {
        if (to - from) / stretch_minutes(tier) > SCAN_STRETCHES_MAX as i64 {
            // Of so long a time there is not much; and where nothing is, nothing is looked for.
            let Some((first, last)) = view.snapshot.extent(series)? else { return Ok(()) };
            (from, to) = (from.max(first), to.min(stretch(tier, last) + stretch_minutes(tier)));
        }
        let length = stretch_minutes(tier);
        let starts = (stretch(tier, from)..to).step_by(length as usize);
        let part = |start: i64| Part {
            start,
            range: from.max(start)..to.min(start + length),
            stretch: Stretch::of(series, tier, start),
        };
        let mut parts = starts.map(part).peekable();
        let kept = |part: &Part| self.kept().get(&part.stretch, &part.range, wanted, view.through);
        while let Some(first) = parts.next() {
            if Instant::now() >= deadline {
                return Err(TooMuch::Time.into());
            }
            if let Some(blocks) = kept(&first) {
                blocks.iter().try_for_each(|block| block.visit(from, to, &mut visit))?;
                continue;
            }
            let mut missing = vec![first];
            while missing.len() < SCAN_STRETCHES_MAX
                && let Some(next) = parts.next_if(|next| kept(next).is_none())
            {
                missing.push(next);
            }
            let (Some(first), Some(last)) = (missing.first(), missing.last()) else { continue };
            let rows = view.snapshot.blocks(series, &first.stretch, first.range.start..last.range.end, wanted)?;
            let mut missing = missing.into_iter();
            let mut read: Option<Read> = None;
            for row in rows {
                let (first, run, block) = row?;
                if Instant::now() >= deadline {
                    return Err(TooMuch::Time.into());
                }
                if view.without_run == Some(run) {
                    continue;
                }
                let start = stretch(tier, first);
                while read.as_ref().is_none_or(|read| read.part.start != start) {
                    let Some(next) = missing.next() else { break };
                    read.replace(Read::of(next)).into_iter().for_each(|read| self.keep(view, wanted, read));
                }
                block.visit(from, to, &mut visit)?;
                if let Some(read) = &mut read {
                    read.take(run, block);
                }
            }
            read.into_iter().chain(missing.map(Read::of)).for_each(|read| self.keep(view, wanted, read));
        }
        Ok(())
    }

    /// Keeps what was read of a stretch, and has it folded where that was in several runs.
    fn keep(&self, view: &View, wanted: Wanted, read: Read) {
        if read.is_scattered {
            let mut scattered = self.scattered.lock().unwrap_or_else(PoisonError::into_inner);
            if scattered.len() < SCATTERED_MAX {
                scattered.insert(read.part.stretch.clone());
            }
        }
        if let Some(blocks) = read.blocks {
            self.kept().put(read.part.stretch, read.part.range, wanted, view.through, blocks);
        }
    }

    /// Takes out some of the dictionaries that aren't needed any more, and says whether there may be more.
    pub(crate) fn sweep_dictionaries(&self) -> Result<bool, StoreError> {
        self.store.sweep_dictionaries(today())
    }

    /// Bytes of what questions have read and is kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept().bytes()
    }

    fn shaping(&self) -> MutexGuard<'_, ()> {
        self.shaping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables' clock, in ms.
    fn uptime(&self) -> i64 {
        self.started.elapsed().as_millis() as i64
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        // A writer that panicked ends the process; until then what it left is read.
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_of(tables: &Tables, client: &ClientId, cubes: &[Cube]) -> Result<Vec<Cube>, CubeError> {
    tables.new_of(client, cubes.iter().map(|cube| (&*cube.name, &*cube.dimensions, cube.digest)))
}

/// Whoever looks at the cells of a plan.
trait Visitor {
    /// Says which values may have been folded, of the cells that are visited from here on, and by which plan these are read.
    fn know(&mut self, _dictionaries: Dictionaries, _plan: &Plan) {}

    /// Takes a cell.
    fn visit(&mut self, bucket: i64, values: &[Option<&str>], cell: &Cell) -> Result<(), AnswerError>;
}

impl Visitor for Answer {
    fn know(&mut self, dictionaries: Dictionaries, plan: &Plan) {
        Answer::know(self, dictionaries, plan);
    }

    fn visit(&mut self, bucket: i64, values: &[Option<&str>], cell: &Cell) -> Result<(), AnswerError> {
        Ok(self.add(bucket, values, cell).map(drop)?)
    }
}

impl<F: FnMut(i64, &[Option<&str>], &Cell)> Visitor for F {
    fn visit(&mut self, bucket: i64, values: &[Option<&str>], cell: &Cell) -> Result<(), AnswerError> {
        self(bucket, values, cell);
        Ok(())
    }
}

/// A visitor that is held to the bounds of a question.
struct Bounded<'a, V> {
    visitor: &'a mut V,
    cells_read: u64,
    deadline: Instant,
}

impl<V: Visitor> Bounded<'_, V> {
    fn visit(&mut self, bucket: i64, values: &[Option<&str>], cell: &Cell) -> Result<(), AnswerError> {
        self.cells_read += 1;
        if self.cells_read > QUESTION_CELLS_MAX {
            return Err(TooMuch::Cells.into());
        }
        if self.cells_read.is_multiple_of(CELLS_PER_LOOK) && Instant::now() >= self.deadline {
            return Err(TooMuch::Time.into());
        }
        self.visitor.visit(bucket, values, cell)
    }

    fn visit_minute(&mut self, minute: i64, cells: &BTreeMap<Values, Cell>) -> Result<(), AnswerError> {
        let mut borrowed = Vec::new();
        cells.iter().try_for_each(|(values, cell)| self.visit(minute, borrow(values, &mut borrowed), cell))
    }
}

/// What a question is about of a stretch.
struct Part {
    /// Where the stretch starts.
    start: i64,
    stretch: Stretch,
    /// The buckets.
    range: Range<i64>,
}

/// What was read of it.
struct Read {
    part: Part,
    run: Option<u64>,
    is_scattered: bool,
    /// None once they are too many to be kept.
    blocks: Option<Vec<Decoded>>,
    bytes: usize,
}

impl Read {
    fn of(part: Part) -> Read {
        Read { part, run: None, is_scattered: false, blocks: Some(Vec::new()), bytes: 0 }
    }

    fn take(&mut self, run: u64, block: Decoded) {
        self.is_scattered |= self.run.replace(run).is_some_and(|other| other != run);
        self.bytes += block.memory_bytes();
        if self.bytes > KEPT_BYTES_MAX / 4 {
            self.blocks = None;
        }
        if let Some(blocks) = &mut self.blocks {
            blocks.push(block);
        }
    }
}

/// Values as a visit takes them.
fn borrow<'a, 'b>(values: &'a Values, borrowed: &'b mut Vec<Option<&'a str>>) -> &'b [Option<&'a str>] {
    borrowed.clear();
    borrowed.extend(values.iter().map(Option::as_deref));
    borrowed
}

/// The day of UTC, in days since 1970.
fn today() -> i64 {
    dictionary::day(now_ms().div_euclid(60_000))
}
