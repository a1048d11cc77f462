//! An aggregator's host: what `aggregator/server` does around its core, on a disk that can lose what is not synced.

use std::collections::HashMap;

use bytes::Bytes;
use catchment_aggregator_core::block::Block;
use catchment_aggregator_core::ingest::{self, Beside, Writer};
use catchment_aggregator_core::log::needed_from;
use catchment_aggregator_core::marks::Mark;
use catchment_aggregator_core::planner::Cube;
use catchment_aggregator_core::runs::{Folder, fold, split_row_key};
use catchment_aggregator_core::tables::{Blocks, Bounds, CubeError};
use catchment_aggregator_core::{LogRow, Tables, Watched, forwarding};
use catchment_cells::ack::Ack;
use catchment_cells::cell::Wanted;
use catchment_cells::frame::{CellsBlock, Producer};
use catchment_cells::key::CellKey;
use catchment_cells::limits::LINK_WINDOW;
use catchment_cells::{Cell, ClientId, Secret};

use crate::disk::Disk;
use crate::random::Random;

const LOG: u8 = b'l';
const MARKS: u8 = b'm';
const CELLS: u8 = b'c';
const CURSORS: u8 = b'k';
const PARKED: u8 = b'p';
const FLUSHED: &[u8] = b"flushed";
const FORWARDED: &[u8] = b"forwarded";

/// The process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Died;

/// An aggregator: its disk, and its memory while it runs.
#[derive(Debug)]
pub struct Aggregator {
    /// The region; `None`: central.
    pub home: Option<String>,
    /// Whether it has a central to pass frames on to.
    pub forwards: bool,
    /// Its disk.
    pub disk: Disk,
    /// Its memory, while it runs.
    pub memory: Option<Memory>,
    bounds: Bounds,
    secret: Secret,
}

/// What is in memory.
#[derive(Debug)]
pub struct Memory {
    writer: Writer,
    tables: Tables,
    folder: Folder,
    forwarded: u64,
    parked_bytes: u64,
    /// Whom someone looks at.
    pub watched: Watched,
}

/// Dies at a disk's steps, at a rate.
struct Steps<'a> {
    random: &'a mut Random,
    rate: u64,
}

impl Steps<'_> {
    fn step(&mut self) -> Result<(), Died> {
        if self.random.happens(self.rate) { Err(Died) } else { Ok(()) }
    }
}

struct Stand<'a> {
    disk: &'a mut Disk,
    tables: &'a mut Tables,
    watched: &'a Watched,
    steps: Steps<'a>,
    uptime: i64,
}

impl ingest::Ground for Stand<'_> {
    type Error = Died;

    fn full(&self) -> Option<&'static str> {
        self.tables.full()
    }

    fn mark(&self, producer: &Producer) -> Result<Option<Mark>, Died> {
        Ok(mark(self.disk, producer))
    }

    fn admit(&mut self, cells: &CellsBlock) -> Result<Vec<(ClientId, Cube)>, CubeError> {
        let new = self.tables.new_cubes(cells)?;
        self.tables.add_cubes(&new);
        Ok(new)
    }

    fn is_watched(&self, cells: &CellsBlock, now: i64) -> bool {
        cells.0.keys().any(|client| self.watched.is_watched(client, now))
    }

    fn config_version(&self) -> u32 {
        0
    }

    fn append(&mut self, rows: &[LogRow], beside: &Beside) -> Result<(), Died> {
        self.steps.step()?;
        self.disk.begin();
        for row in rows {
            self.disk.put(LOG, &row.position.to_be_bytes(), row.encode());
        }
        for (producer, mark) in &beside.marks {
            self.disk.put(MARKS, &producer.encode(), mark.encode());
        }
        // Written, and the machine dies before it is synced: it may be there, or not.
        self.steps.step()?;
        self.disk.sync(usize::MAX);
        self.steps.step()
    }

    fn merge(&mut self, rows: &[LogRow], blocks: Vec<Blocks>) -> Result<(), Died> {
        self.tables.merge(rows, blocks, self.uptime, |_, _, _| {});
        self.steps.step()
    }
}

struct Passed<'a> {
    disk: &'a mut Disk,
    steps: Steps<'a>,
}

impl forwarding::Ground for Passed<'_> {
    type Error = Died;

    fn set_forwarded(&mut self, position: u64) -> Result<(), Died> {
        self.disk.begin();
        self.disk.put(CURSORS, FORWARDED, position.to_le_bytes().to_vec());
        self.steps.step()
    }

    fn park(&mut self, row: &LogRow, _ack: &Ack) -> Result<(), Died> {
        self.disk.begin();
        self.disk.put(PARKED, &row.position.to_be_bytes(), row.encode());
        self.disk.put(CURSORS, FORWARDED, (row.position + 1).to_le_bytes().to_vec());
        self.disk.sync(usize::MAX);
        self.steps.step()
    }
}

impl Aggregator {
    /// An aggregator with an empty disk, which doesn't run yet.
    pub fn new(home: Option<String>, forwards: bool, bounds: Bounds, secret: Secret) -> Aggregator {
        Aggregator { home, forwards, disk: Disk::default(), memory: None, bounds, secret }
    }

    /// Starts: replays the log over what is on the disk.
    pub fn start(&mut self, uptime: i64) -> Result<(), String> {
        let flushed = self.cursor(FLUSHED);
        let forwarded = self.cursor(FORWARDED);
        let newest = self.disk.from(MARKS, &[]).filter_map(|(_, row)| Mark::decode(row).ok()).map(|mark| mark.cut_at);
        let mut tables = Tables::new(self.bounds, flushed, newest.max(), []);
        let mut folder = Folder::default();
        let from = needed_from(flushed, self.forwards.then_some(forwarded));
        for row in self.log(from, usize::MAX) {
            if tables.restore(&row, &self.secret, uptime).map_err(|error| error.to_string())? {
                flush(&mut self.disk, &mut tables, &mut folder, || Ok(())).map_err(|Died| "died".to_owned())?;
            }
        }
        let last = self.disk.from(LOG, &[]).last().map_or(0, |(key, _)| be(key));
        let next_position = (last + 1).max(flushed).max(forwarded);
        let parked_bytes = self.disk.size(PARKED).0 as u64;
        self.memory = Some(Memory {
            writer: Writer::new(self.secret.clone(), self.home.clone(), next_position),
            tables,
            folder,
            forwarded,
            parked_bytes,
            watched: Watched::default(),
        });
        Ok(())
    }

    /// Dies: memory is gone, and some of what is not synced.
    pub fn die(&mut self, random: &mut Random) {
        self.memory = None;
        let lost = random.below(self.disk.unsynced() as u64 + 1) as usize;
        self.disk.lose(lost);
        self.disk.sync(usize::MAX);
    }

    /// The writer takes a batch of frames.
    pub fn take(
        &mut self,
        frames: &[Bytes],
        now: i64,
        uptime: i64,
        random: &mut Random,
        rate: u64,
    ) -> Result<Vec<Ack>, Died> {
        let memory = self.memory.as_mut().ok_or(Died)?;
        let (disk, tables, watched) = (&mut self.disk, &mut memory.tables, &memory.watched);
        let mut stand = Stand { disk, tables, watched, steps: Steps { random, rate }, uptime };
        memory.writer.take(&mut stand, frames, now)
    }

    /// The keeper looks: flushes, cuts the log off, folds.
    pub fn keep(&mut self, uptime: i64, force: bool, random: &mut Random, rate: u64) -> Result<(), Died> {
        let Some(memory) = self.memory.as_mut() else { return Ok(()) };
        let mut steps = Steps { random, rate };
        let due = force || memory.tables.is_flush_due(uptime);
        if due {
            flush(&mut self.disk, &mut memory.tables, &mut memory.folder, || steps.step())?;
        }
        let flushed = cursor(&self.disk, FLUSHED);
        let position = needed_from(flushed, self.forwards.then_some(memory.forwarded));
        if due || memory.tables.is_truncation_due(position) {
            // The cursor of what central has is synced before what it passed is gone.
            self.disk.sync(usize::MAX);
            steps.step()?;
            // Whole tables go: of the rows before the position some stay.
            let kept = steps.random.below(3);
            let gone: Vec<_> = self.disk.from(LOG, &[]).map(|(key, _)| key.to_vec()).collect();
            for key in gone.iter().filter(|key| be(key) + kept < position) {
                self.disk.remove(LOG, key);
            }
            memory.tables.truncate(position);
            steps.step()?;
        }
        while let Some(stretch) = memory.folder.pop() {
            let rows: Vec<_> =
                self.disk.from(CELLS, &stretch.from).take_while(|(key, _)| **key < *stretch.to).collect();
            let folded = fold(&rows).map_err(|_| Died)?;
            // Not synced.
            self.disk.begin();
            for (key, block) in folded.put {
                self.disk.put(CELLS, &key, block);
            }
            for key in folded.remove {
                self.disk.remove(CELLS, &key);
            }
            steps.step()?;
        }
        Ok(())
    }

    /// The frames to pass on next.
    pub fn to_forward(&self) -> Vec<LogRow> {
        let Some(memory) = self.memory.as_ref().filter(|_| self.forwards) else { return Vec::new() };
        self.log(memory.forwarded, LINK_WINDOW)
    }

    /// Whether there is none.
    pub fn has_forwarded(&self) -> bool {
        let memory = self.memory.as_ref().filter(|_| self.forwards);
        memory.is_none_or(|memory| self.disk.from(LOG, &memory.forwarded.to_be_bytes()).next().is_none())
    }

    /// Central answered.
    pub fn settle(
        &mut self,
        rows: &[LogRow],
        answers: &[Option<Ack>],
        now: i64,
        random: &mut Random,
        rate: u64,
    ) -> Result<bool, Died> {
        let memory = self.memory.as_mut().ok_or(Died)?;
        for (row, _) in rows.iter().zip(answers).filter(|(_, ack)| ack.as_ref().is_some_and(|ack| ack.watched)) {
            for client in Blocks::of(row, &self.secret).map_err(|_| Died)?.cells.0.keys() {
                memory.watched.watch(client, now);
            }
        }
        let mut ground = Passed { disk: &mut self.disk, steps: Steps { random, rate } };
        let settled = forwarding::settle(&mut ground, rows, answers, memory.parked_bytes)?;
        memory.parked_bytes += settled.parked_bytes;
        if settled.done > 0 {
            memory.forwarded = rows[settled.done - 1].position + 1;
        }
        Ok(settled.done == rows.len())
    }

    /// The mark of a producer.
    pub fn mark(&self, producer: &Producer) -> Option<Mark> {
        mark(&self.disk, producer)
    }

    /// Frames that central refused for good.
    pub fn parked(&self) -> usize {
        self.disk.size(PARKED).1
    }

    /// Every cell of the disk, after a flush: the runs of a key merged.
    pub fn cells(&self) -> Result<HashMap<CellKey, Cell>, String> {
        let mut cells: HashMap<CellKey, Cell> = HashMap::new();
        for (row_key, block) in self.disk.from(CELLS, &[]) {
            let (series, first, _) = split_row_key(row_key).map_err(|error| error.to_string())?;
            // Without values and run the key is that of a cube without dimensions.
            let place = &row_key[..series.len() + size_of_val(&first)];
            let (place, _) = CellKey::decode(place, 0).map_err(|error| error.to_string())?;
            let mut block = Block::open(first, block).map_err(|error| error.to_string())?;
            let all = Wanted { users: true, measures: true };
            while let Some((bucket, places, cell)) = block.next(all).map_err(|error| error.to_string())? {
                let values =
                    block.values(&places)[..block.dimensions()].iter().map(|value| value.map(Into::into)).collect();
                cells.entry(CellKey { bucket, values, ..place.clone() }).or_default().merge(&cell);
            }
        }
        Ok(cells)
    }

    fn log(&self, from: u64, rows: usize) -> Vec<LogRow> {
        let rows = self.disk.from(LOG, &from.to_be_bytes()).take(rows);
        rows.filter_map(|(key, value)| LogRow::decode(key, Bytes::copy_from_slice(value)).ok()).collect()
    }

    fn cursor(&self, name: &[u8]) -> u64 {
        cursor(&self.disk, name)
    }
}

fn flush(
    disk: &mut Disk,
    tables: &mut Tables,
    folder: &mut Folder,
    mut step: impl FnMut() -> Result<(), Died>,
) -> Result<(), Died> {
    let Some(frozen) = tables.freeze() else { return Ok(()) };
    let mut rows = Vec::new();
    let touched =
        frozen.for_each_row(&CellsBlock::default(), |_| Default::default(), |key, block| rows.push((key, block)));
    step()?;
    disk.begin();
    for (key, value) in rows {
        disk.put(CELLS, &key, value);
    }
    disk.put(CURSORS, FLUSHED, frozen.run.to_le_bytes().to_vec());
    step()?;
    disk.sync(usize::MAX);
    step()?;
    folder.flushed(touched);
    tables.flushed();
    Ok(())
}

fn mark(disk: &Disk, producer: &Producer) -> Option<Mark> {
    Mark::decode(disk.get(MARKS, &producer.encode())?).ok()
}

fn cursor(disk: &Disk, name: &[u8]) -> u64 {
    disk.get(CURSORS, name).map_or(1, |bytes| bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
}

fn be(key: &[u8]) -> u64 {
    key.iter().fold(0, |n, &byte| n << 8 | u64::from(byte))
}
