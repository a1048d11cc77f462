//! The cells of all clients: what the memtable and the store hold, seen as one.
//!
//! A frame's cells are in exactly one of three places: the open memtable, the frozen one that a flush is writing, or the
//! store. Which is decided under one lock, so that a question counts each once whatever a flush does meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use catchment_aggregator_core::answer::{Answer, TooMuch};
use catchment_aggregator_core::limits::{CLIENT_CUBES_MAX, QUESTION_CELLS_MAX};
use catchment_aggregator_core::memtable::add_counters;
use catchment_aggregator_core::planner::Cube;
use catchment_aggregator_core::{Memtable, Plan};
use catchment_cells::frame::{self, CellsBlock, CountersBlock};
use catchment_cells::key::Values;
use catchment_cells::{Cell, ClientId, Secret, cube};
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::config::Limits;
use crate::live::Feed;
use crate::store::{Cursor, Folder, LogRow, LogSize, Store, StoreError};

/// The log is cut off when that makes it so much smaller, or when it is full.
const TRUNCATE_BYTES: u64 = 4 << 20;
/// Names of measures that are told at most.
const MEASURES_MAX: usize = 1_000;
/// Cells between two looks at the clock.
const CELLS_PER_LOOK: u64 = 1_024;

/// The cubes whose dimensions are the same for every client.
static FIXED_CUBES: LazyLock<Vec<Cube>> =
    LazyLock::new(|| Cube::defaults().chain([Cube::from(&cube::RECEIVED)]).collect());

/// All cells, for the writer, the keeper and questions.
pub(crate) struct Cells {
    store: Store,
    limits: Limits,
    tables: RwLock<Tables>,
    feed: Arc<Feed>,
}

struct Tables {
    open: Memtable,
    /// The log position that cells reach, with those of the open memtable.
    position: u64,
    /// When the open memtable got its first frame.
    open_since: Option<Instant>,
    frozen: Option<Arc<Frozen>>,
    log: LogSize,
    /// When the newest frame was cut, in ms.
    as_of: Option<i64>,
    /// The cubes that clients have beside the default ones.
    cubes: HashMap<ClientId, Vec<Cube>>,
}

/// A memtable that a flush is writing.
struct Frozen {
    memtable: Memtable,
    /// The run it is written as: the log position that it reaches.
    run: u64,
}

/// A frame's cells and counters.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    pub cells: CellsBlock,
    pub counters: CountersBlock,
    pub cut_at: i64,
}

/// A frame with a cube that contradicts an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CubeError {
    #[error("cube {0} has other dimensions than before")]
    Changed(Box<str>),
    #[error("a client has more than {CLIENT_CUBES_MAX} cubes of its own")]
    TooMany,
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
    #[error("the question takes too long: narrow its range or ask for coarser buckets")]
    TooLong,
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
        let kept_from = if forwards { flushed.min(store.cursor(Cursor::Forwarded)?) } else { flushed };
        let mut cubes: HashMap<ClientId, Vec<Cube>> = HashMap::new();
        for (client, cube) in store.cubes()? {
            cubes.entry(client).or_default().push(cube);
        }
        let tables = Tables {
            open: Memtable::default(),
            position: flushed,
            open_since: None,
            frozen: None,
            log: LogSize::default(),
            as_of: store.newest_cut_at()?,
            cubes,
        };
        let cells = Cells { store, limits, tables: RwLock::new(tables), feed };
        let mut folder = Folder::default();
        for row in cells.store.rows(kept_from) {
            let row = row?;
            if row.position < flushed {
                cells.write().log.append(&row);
                continue;
            }
            let blocks = Blocks::of(&row, secret)?;
            cells.merge(std::slice::from_ref(&row), vec![blocks]);
            if cells.read().open.bytes() >= limits.memtable_bytes.get() {
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
            let mut tables = self.write();
            for (client, cube) in &new {
                tables.cubes.entry(client.clone()).or_default().push(cube.clone());
            }
        }
        Ok(new)
    }

    /// Adds frames that the log holds.
    pub(crate) fn merge(&self, rows: &[LogRow], blocks: Vec<Blocks>) {
        let mut tables = self.write();
        for (row, blocks) in rows.iter().zip(blocks) {
            let mut cells = blocks.cells;
            add_counters(&mut cells, blocks.counters);
            // Under the same lock as the position: a view that starts meanwhile has these cells or gets them, never both.
            self.feed.take(row.position, blocks.cut_at.min(row.received_at), &cells);
            tables.open.merge(cells);
            // A clock that is ahead says nothing of what we have.
            tables.as_of = tables.as_of.max(Some(blocks.cut_at.min(row.received_at)));
            tables.position = row.position + 1;
            tables.log.append(row);
        }
        tables.open_since.get_or_insert_with(Instant::now);
    }

    /// Whether there is no room for more frames: what is lacking, as a sentence.
    pub(crate) fn full(&self) -> Option<&'static str> {
        let tables = self.read();
        if tables.log.bytes() >= self.limits.log_bytes.get() {
            Some("the log is full")
        } else if tables.open.bytes() >= 2 * self.limits.memtable_bytes.get() {
            Some("the memtable is full")
        } else {
            None
        }
    }

    /// Whether it is time to flush: for the memtable's sake, for a restart's, or to make room in the log.
    pub(crate) fn is_flush_due(&self) -> bool {
        let tables = self.read();
        tables.open_since.is_some_and(|since| {
            since.elapsed() >= Duration::from_secs(self.limits.flush_s)
                || tables.open.bytes() >= self.limits.memtable_bytes.get()
                || tables.log.bytes() >= self.limits.log_bytes.get()
        })
    }

    /// Writes the open memtable to the store. One caller at a time: the keeper.
    pub(crate) fn flush(&self, folder: &mut Folder) -> Result<(), StoreError> {
        let frozen = {
            let mut tables = self.write();
            if tables.open_since.take().is_none() {
                return Ok(());
            }
            let frozen = Arc::new(Frozen { memtable: std::mem::take(&mut tables.open), run: tables.position });
            tables.frozen = Some(frozen.clone());
            frozen
        };
        self.store.flush(&frozen.memtable, &zone(), frozen.run, folder)?;
        self.write().frozen = None;
        Ok(())
    }

    /// Whether it is worth it to cut the log off at a position.
    pub(crate) fn is_truncation_due(&self, position: u64) -> bool {
        let log = &self.read().log;
        let bytes = log.bytes_before(position);
        bytes >= TRUNCATE_BYTES || (bytes > 0 && log.bytes() >= self.limits.log_bytes.get())
    }

    /// Gives back the disk of the log before a position.
    pub(crate) fn truncate(&self, position: u64) -> Result<(), StoreError> {
        self.store.truncate(position)?;
        self.write().log.truncate(position);
        Ok(())
    }

    /// Bytes of the memtables and of the log.
    pub(crate) fn bytes(&self) -> (usize, u64) {
        let tables = self.read();
        let frozen = tables.frozen.as_ref().map_or(0, |frozen| frozen.memtable.bytes());
        (tables.open.bytes() + frozen, tables.log.bytes())
    }

    /// The cubes that a client has beside the default ones.
    pub(crate) fn cubes(&self, client: &ClientId) -> Vec<Cube> {
        self.read().cubes.get(client).cloned().unwrap_or_default()
    }

    /// Answers a planned question of a client: `answer` has no cells yet.
    pub(crate) fn answer(
        &self,
        client: &ClientId,
        mut answer: Answer,
        deadline: Instant,
    ) -> Result<Answered, AnswerError> {
        let plan = answer.plan().clone();
        let (position, as_of) = self
            .visit(client, &plan, deadline, |bucket, values, cell| Ok(answer.add(bucket, values, cell).map(drop)?))?;
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
        self.visit(client, &plan, deadline, |_, _, cell| {
            for name in cell.measures.keys() {
                if !names.contains(name) && names.len() < MEASURES_MAX {
                    names.insert(name.clone());
                }
            }
            Ok(())
        })?;
        Ok(names)
    }

    /// Visits each cell of a plan once, with its bucket and values, and says up to which log position these are and when
    /// the newest frame that we have, of any client, was cut.
    fn visit(
        &self,
        client: &ClientId,
        plan: &Plan,
        deadline: Instant,
        mut visit: impl FnMut(i64, &Values, &Cell) -> Result<(), AnswerError>,
    ) -> Result<(u64, Option<i64>), AnswerError> {
        let (start, end) = (plan.question.start, plan.question.end);
        let mut cells_read = 0u64;
        let mut visit = |bucket, values: &_, cell: &_| {
            cells_read += 1;
            if cells_read > QUESTION_CELLS_MAX {
                return Err(TooMuch::Cells.into());
            }
            if cells_read.is_multiple_of(CELLS_PER_LOOK) && Instant::now() >= deadline {
                return Err(AnswerError::TooLong);
            }
            visit(bucket, values, cell)
        };
        let (frozen, snapshot, position, as_of) = {
            let tables = self.read();
            for (minute, values, cell) in tables.open.scan(client, &plan.cube.name, start, end) {
                visit(minute, values, cell)?;
            }
            (tables.frozen.clone(), self.store.snapshot(), tables.position, tables.as_of)
        };
        if let Some(frozen) = &frozen {
            for (minute, values, cell) in frozen.memtable.scan(client, &plan.cube.name, start, end) {
                visit(minute, values, cell)?;
            }
        }
        // The snapshot may hold the frozen memtable's run already, or not: those cells were just visited.
        let without_run = frozen.map(|frozen| frozen.run);
        for span in &plan.spans {
            snapshot.scan(client, &plan.cube, *span, without_run, &mut visit)?;
        }
        Ok((position, as_of))
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        // A writer that panicked ends the process; until then what it left is read.
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn new_cubes(&self, block: &CellsBlock) -> Result<Vec<(ClientId, Cube)>, CubeError> {
        let mut new = Vec::new();
        for (client, section) in &block.0 {
            let own = self.cubes.get(client).map_or(&[][..], |cubes| cubes);
            let before = new.len();
            for (name, cells) in section {
                match FIXED_CUBES.iter().chain(own).find(|cube| cube.name == *name) {
                    Some(cube) if cube.dimensions == cells.dimensions => {}
                    Some(_) => return Err(CubeError::Changed(name.clone())),
                    None => {
                        let cube = Cube { name: name.clone(), dimensions: cells.dimensions.clone(), digest: false };
                        new.push((client.clone(), cube));
                    }
                }
            }
            if own.len() + new.len() - before > CLIENT_CUBES_MAX {
                return Err(CubeError::TooMany);
            }
        }
        Ok(new)
    }
}

impl Blocks {
    /// The cells and counters of a frame of the log, which were decoded once before they got there.
    pub(crate) fn of(row: &LogRow, secret: &Secret) -> Result<Blocks, StoreError> {
        let failed = |reason: String| StoreError::Frame { position: row.position, reason };
        let header = frame::peek(&row.frame).map_err(|error| failed(error.to_string()))?;
        let key = secret.frame_key(&header.producer);
        let opened = frame::open(&row.frame, &key).map_err(|error| failed(error.to_string()))?;
        Ok(Blocks {
            cells: opened.cells().map_err(|error| failed(error.to_string()))?,
            counters: opened.counters().map_err(|error| failed(error.to_string()))?,
            cut_at: header.cut_at,
        })
    }
}

/// The clock that hours and days are cut on: UTC, until clients have a configured one.
pub(crate) fn zone() -> TimeZone {
    TimeZone::UTC
}
