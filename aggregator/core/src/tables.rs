//! The tables: what an aggregator has in memory of its cells, and which of them are open, being flushed, or in the store.
//!
//! A frame's cells are in exactly one of three places: the open memtable, the frozen one that a flush is writing, or the
//! store. Whoever shares the tables between threads holds one lock for each call, so that a question counts each cell once
//! whatever a flush does meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use catchment_cells::frame::{self, CellsBlock, CountersBlock, FrameError};
use catchment_cells::limits::CLIENT_CUBES_MAX;
use catchment_cells::{ClientId, Secret, cube};
use thiserror::Error;

use crate::log::{LogRow, LogSize};
use crate::memtable::{Memtable, Minute, add_counters};
use crate::planner::Cube;
use crate::tiers::Tiers;

/// The log is cut off when that makes it so much smaller, or when it is full.
const TRUNCATE_BYTES: u64 = 4 << 20;

/// The cubes whose dimensions are the same for every client.
static FIXED_CUBES: LazyLock<Vec<Cube>> =
    LazyLock::new(|| Cube::defaults().chain([Cube::from(&cube::RECEIVED)]).collect());

/// How much may be kept where.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of the memtable at which it is flushed; at twice as many there is no room.
    pub memtable_bytes: usize,
    /// How long a frame waits for a flush, in ms.
    pub flush_ms: i64,
    /// Bytes of frames in the log at which there is no room.
    pub log_bytes: u64,
}

/// What is in memory.
#[derive(Debug)]
pub struct Tables {
    bounds: Bounds,
    open: Memtable,
    /// The log position that cells reach, with those of the open memtable.
    position: u64,
    /// When the open memtable got its first frame, in ms of a clock that never goes back.
    open_since: Option<i64>,
    frozen: Option<Arc<Frozen>>,
    log: LogSize,
    /// When the newest frame was cut, in ms.
    as_of: Option<i64>,
    /// The cubes that clients have, or once had, beside the default ones.
    cubes: HashMap<ClientId, Vec<Cube>>,
    /// Those that clients' configs declare now.
    declared: HashMap<ClientId, Vec<Cube>>,
    /// Of clients whose tiers aren't as everyone's.
    tiers: HashMap<ClientId, Arc<Tiers>>,
    default_tiers: Arc<Tiers>,
}

/// A memtable that a flush is writing.
#[derive(Debug)]
pub struct Frozen {
    /// The cells.
    pub memtable: Memtable,
    /// The run it is written as: the log position that it reaches.
    pub run: u64,
}

/// A frame's cells and counters.
#[derive(Debug, Default)]
pub struct Blocks {
    /// The cells.
    pub cells: CellsBlock,
    /// The counters.
    pub counters: CountersBlock,
    /// When the frame was cut, in ms.
    pub cut_at: i64,
}

/// A frame with a cube that contradicts an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CubeError {
    /// It is another cube of that name.
    #[error("cube {0} has other dimensions than before")]
    Changed(Box<str>),
    /// At the bound.
    #[error("a client has more than {CLIENT_CUBES_MAX} cubes of its own")]
    TooMany,
}

impl Tables {
    /// The tables over a store: the position that its cells reach, when the newest of its frames was cut, and its clients'
    /// own cubes. Hand in the log's rows from where they are [needed](crate::log::needed_from) next.
    pub fn new(
        bounds: Bounds,
        flushed: u64,
        as_of: Option<i64>,
        cubes: impl IntoIterator<Item = (ClientId, Cube)>,
    ) -> Tables {
        let mut by_client: HashMap<ClientId, Vec<Cube>> = HashMap::new();
        for (client, cube) in cubes {
            by_client.entry(client).or_default().push(cube);
        }
        Tables {
            bounds,
            open: Memtable::default(),
            position: flushed,
            open_since: None,
            frozen: None,
            log: LogSize::default(),
            as_of,
            cubes: by_client,
            declared: HashMap::new(),
            tiers: HashMap::new(),
            default_tiers: Arc::default(),
        }
    }

    /// Takes up a row of the log after a restart: its cells, too, unless the store has them. Says whether a flush is due
    /// before the next one.
    pub fn restore(&mut self, row: &LogRow, secret: &Secret, uptime: i64) -> Result<bool, FrameError> {
        if row.position < self.position {
            self.log.append(row);
            return Ok(false);
        }
        let blocks = Blocks::of(row, secret)?;
        self.merge(std::slice::from_ref(row), vec![blocks], uptime, |_, _, _| {});
        Ok(self.open.bytes() >= self.bounds.memtable_bytes)
    }

    /// Checks the cubes of a frame against those known, and returns the new ones.
    pub fn new_cubes(&self, block: &CellsBlock) -> Result<Vec<(ClientId, Cube)>, CubeError> {
        let mut new = Vec::new();
        for (client, section) in &block.0 {
            let cubes = section.iter().map(|(name, cells)| (&**name, &*cells.dimensions, false));
            new.extend(self.new_of(client, cubes)?.into_iter().map(|cube| (client.clone(), cube)));
        }
        Ok(new)
    }

    /// Checks the cubes that a client is to have beside the default ones, by name, dimensions and whether they have digests, and returns the
    /// new ones.
    pub fn new_of<'c>(
        &self,
        client: &ClientId,
        cubes: impl Iterator<Item = (&'c str, &'c [Box<str>], bool)>,
    ) -> Result<Vec<Cube>, CubeError> {
        let own = self.cubes.get(client).map_or(&[][..], |cubes| cubes);
        let mut new = Vec::new();
        for (name, dimensions, digest) in cubes {
            match FIXED_CUBES.iter().chain(own).find(|known| *known.name == *name) {
                Some(known) if known.dimensions == dimensions => {}
                Some(_) => return Err(CubeError::Changed(name.into())),
                None => new.push(Cube { name: name.into(), dimensions: dimensions.into(), digest }),
            }
        }
        if own.len() + new.len() > CLIENT_CUBES_MAX { Err(CubeError::TooMany) } else { Ok(new) }
    }

    /// A client's config says which cubes it has beside the default ones: questions are answered from no others, as these are no longer
    /// filled. They are known to be none but [new](Self::new_of) or known ones.
    pub fn declare(&mut self, client: &ClientId, cubes: Vec<Cube>) {
        self.declared.insert(client.clone(), cubes);
    }

    /// Adds cubes that a frame is the first to have.
    pub fn add_cubes(&mut self, new: &[(ClientId, Cube)]) {
        for (client, cube) in new {
            self.cubes.entry(client.clone()).or_default().push(cube.clone());
        }
    }

    /// Adds frames that the log holds. `tell` hears of each before it is merged: its position, when it was cut, in ms, and its
    /// cells.
    pub fn merge(
        &mut self,
        rows: &[LogRow],
        blocks: Vec<Blocks>,
        uptime: i64,
        mut tell: impl FnMut(u64, i64, &CellsBlock),
    ) {
        for (row, blocks) in rows.iter().zip(blocks) {
            let mut cells = blocks.cells;
            add_counters(&mut cells, blocks.counters);
            // A clock that is ahead says nothing of what we have.
            let as_of = blocks.cut_at.min(row.received_at);
            tell(row.position, as_of, &cells);
            self.open.merge(cells);
            self.as_of = self.as_of.max(Some(as_of));
            self.position = row.position + 1;
            self.log.append(row);
        }
        self.open_since.get_or_insert(uptime);
    }

    /// Whether there is no room for more frames: what is lacking, as a sentence.
    pub fn full(&self) -> Option<&'static str> {
        if self.log.bytes() >= self.bounds.log_bytes {
            Some("the log is full")
        } else if self.open.bytes() >= 2 * self.bounds.memtable_bytes {
            Some("the memtable is full")
        } else {
            None
        }
    }

    /// Whether it is time to flush: for the memtable's sake, for a restart's, or to make room in the log.
    pub fn is_flush_due(&self, uptime: i64) -> bool {
        self.open_since.is_some_and(|since| {
            uptime - since >= self.bounds.flush_ms
                || self.open.bytes() >= self.bounds.memtable_bytes
                || self.log.bytes() >= self.bounds.log_bytes
        })
    }

    /// Begins a flush, where there is something to flush: write what this returns, with the position that it reaches, in one
    /// batch, and then say that it is [flushed](Self::flushed). One flush at a time.
    pub fn freeze(&mut self) -> Option<Arc<Frozen>> {
        self.open_since.take()?;
        let frozen = Arc::new(Frozen { memtable: std::mem::take(&mut self.open), run: self.position });
        self.frozen = Some(frozen.clone());
        Some(frozen)
    }

    /// The store has what was frozen.
    pub fn flushed(&mut self) {
        self.frozen = None;
    }

    /// Whether it is worth it to cut the log off at a position.
    pub fn is_truncation_due(&self, position: u64) -> bool {
        let bytes = self.log.bytes_before(position);
        bytes >= TRUNCATE_BYTES || (bytes > 0 && self.log.bytes() >= self.bounds.log_bytes)
    }

    /// The log's rows before a position are gone.
    pub fn truncate(&mut self, position: u64) {
        self.log.truncate(position);
    }

    /// The client's cells of a cube in the minutes `from..to` of the open memtable, as they are now.
    pub fn minutes(&self, client: &ClientId, cube: &str, from: i64, to: i64) -> Vec<(i64, Minute)> {
        self.open.minutes(client, cube, from, to).map(|(minute, cells)| (minute, cells.clone())).collect()
    }

    /// The memtable that a flush is writing.
    pub fn frozen(&self) -> Option<Arc<Frozen>> {
        self.frozen.clone()
    }

    /// The log position that cells reach, those of the memtables with those of the store.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// When the newest frame that we have, of any client, was cut, in ms.
    pub fn as_of(&self) -> Option<i64> {
        self.as_of
    }

    /// The cubes that a client has beside the default ones: those that its config declares, or that its frames had.
    pub fn cubes(&self, client: &ClientId) -> &[Cube] {
        self.declared.get(client).or_else(|| self.cubes.get(client)).map_or(&[], |cubes| cubes)
    }

    /// A client's tiers.
    pub fn tiers(&self, client: &ClientId) -> Arc<Tiers> {
        self.tiers.get(client).unwrap_or(&self.default_tiers).clone()
    }

    /// A client's tiers are others now.
    pub fn set_tiers(&mut self, client: &ClientId, tiers: Arc<Tiers>) {
        self.tiers.insert(client.clone(), tiers);
    }

    /// A client whose hours and days are being cut anew.
    pub fn cutting(&self) -> Option<(ClientId, Arc<Tiers>)> {
        let mut cutting = self.tiers.iter().filter(|(_, tiers)| tiers.cutting().is_some());
        cutting.next().map(|(client, tiers)| (client.clone(), tiers.clone()))
    }

    /// Bytes of the memtables, and of frames in the log.
    pub fn bytes(&self) -> (usize, u64) {
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.memtable.bytes());
        (self.open.bytes() + frozen, self.log.bytes())
    }
}

impl Blocks {
    /// The cells and counters of a frame of the log, which were decoded once before they got there.
    pub fn of(row: &LogRow, secret: &Secret) -> Result<Blocks, FrameError> {
        let header = frame::peek(&row.frame)?;
        let key = secret.frame_key(&header.producer);
        let opened = frame::open(&row.frame, &key)?;
        Ok(Blocks { cells: opened.cells()?, counters: opened.counters()?, cut_at: header.cut_at })
    }
}
