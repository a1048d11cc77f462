//! The writer's decisions: which frames of a batch are stored, in which order what happens, and what is acked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::codec::DecodeError;
use catchment_cells::frame::{self, CHAIN_START, CellsBlock, DeadLettersBlock, FrameError, Kind, Opened, Producer};
use catchment_cells::{ClientId, Secret};

use crate::log::LogRow;
use crate::marks::{self, Decision, Mark};
use crate::planner::Cube;
use crate::tables::{Blocks, CubeError};

/// What a producer waits when there is no room, in ms.
const BUSY_RETRY_MS: u32 = 1_000;
/// The epoch of the one placement map there is.
const MAP_VERSION: u32 = 1;

/// What a writer stands on: a store and the tables over it.
pub trait Ground {
    /// What can go wrong with the store. The writer is of no use after it: a restart goes on with what was stored.
    type Error;

    /// Whether there is no room for more frames: what is lacking, as a sentence.
    fn full(&self) -> Option<&'static str>;

    /// The mark of a producer, as stored.
    fn mark(&self, producer: &Producer) -> Result<Option<Mark>, Self::Error>;

    /// Checks the cubes of a frame against those known, and returns the new ones, which are known from here on.
    fn admit(&mut self, cells: &CellsBlock) -> Result<Vec<(ClientId, Cube)>, CubeError>;

    /// Whether someone looks at any of the clients that have cells here.
    fn is_watched(&self, cells: &CellsBlock, now: i64) -> bool;

    /// The version of the clients' configs that is in force.
    fn config_version(&self) -> u32;

    /// Appends rows to the log, with what goes with them: all or nothing, and synced when it returns.
    fn append(&mut self, rows: &[LogRow], beside: &Beside) -> Result<(), Self::Error>;

    /// Merges the cells of rows that the log has.
    fn merge(&mut self, rows: &[LogRow], blocks: Vec<Blocks>) -> Result<(), Self::Error>;
}

/// The writer.
#[derive(Debug)]
pub struct Writer {
    secret: Secret,
    /// The region whose frames are taken; `None`: those of every region.
    home: Option<String>,
    next_position: u64,
}

/// What is stored together with rows of the log.
#[derive(Debug, Default)]
pub struct Beside {
    /// The marks after them.
    pub marks: HashMap<Producer, Mark>,
    /// The cubes that they are the first to have.
    pub cubes: Vec<(ClientId, Cube)>,
    /// The dead letters of those that have any, by position.
    pub letters: Vec<(u64, DeadLettersBlock)>,
}

/// What a batch will store.
#[derive(Default)]
struct Batch {
    rows: Vec<LogRow>,
    blocks: Vec<Blocks>,
    beside: Beside,
}

/// What will be answered of a frame.
struct Verdict {
    status: Status,
    producer: Producer,
    seq: u64,
    detail: String,
    watched: bool,
}

impl Writer {
    /// A writer of frames for one home, or for all, whose next row of the log gets this position.
    pub fn new(secret: Secret, home: Option<String>, next_position: u64) -> Writer {
        Writer { secret, home, next_position }
    }

    /// Stores what is to be stored of a batch of frames, and returns an ack for each: they may leave now, and not before.
    pub fn take<G: Ground>(&mut self, ground: &mut G, frames: &[Bytes], now: i64) -> Result<Vec<Ack>, G::Error> {
        let full = ground.full();
        let mut batch = Batch::default();
        let mut verdicts = Vec::with_capacity(frames.len());
        for frame in frames {
            verdicts.push(self.judge(ground, frame, full, now, &mut batch)?);
        }
        if !batch.rows.is_empty() {
            ground.append(&batch.rows, &batch.beside)?;
            ground.merge(&batch.rows, batch.blocks)?;
        }
        let config_version = ground.config_version();
        // The marks of the whole batch: a frame's ack tells of those after it, too, which are as safe.
        let ack = |verdict: Verdict| {
            let mark = batch.beside.marks.get(&verdict.producer);
            Ack {
                mark: mark.map_or(0, |mark| mark.seq),
                chain: mark.map_or(CHAIN_START, Mark::chain),
                watched: verdict.watched,
                config_version,
                map_version: MAP_VERSION,
                retry_after_ms: if verdict.status == Status::Busy { BUSY_RETRY_MS } else { 0 },
                ..Ack::refusal(verdict.status, verdict.producer, verdict.seq, verdict.detail)
            }
        };
        Ok(verdicts.into_iter().map(ack).collect())
    }

    /// Checks one frame, and adds it to the batch where it is to be stored.
    fn judge<G: Ground>(
        &mut self,
        ground: &mut G,
        frame: &Bytes,
        full: Option<&'static str>,
        now: i64,
        batch: &mut Batch,
    ) -> Result<Verdict, G::Error> {
        let address = match frame::address(frame) {
            Ok(address) => address,
            Err(error) => return Ok(Verdict::unnamed(error)),
        };
        let verdict = |status, detail: String| {
            Ok(Verdict { status, producer: address.producer.clone(), seq: address.seq, detail, watched: false })
        };
        if let Some(full) = full {
            return verdict(Status::Busy, full.into());
        }
        // The mark is read for the ack, too: whatever is wrong with a frame that comes again, its producer learns what is safe.
        if let Entry::Vacant(place) = batch.beside.marks.entry(address.producer.clone())
            && let Some(mark) = ground.mark(place.key())?
        {
            place.insert(mark);
        }
        let opened = match frame::open(frame, &self.secret.frame_key(&address.producer)) {
            Ok(opened) => opened,
            Err(error) => return verdict(status_of(&error), error.to_string()),
        };
        let header = opened.header();
        if let Some(home) = self.home.as_ref().filter(|home| **home != header.home) {
            return verdict(Status::WrongHome, format!("this is {home}, the frame is for {}", header.home));
        }
        let mark = batch.beside.marks.get(&header.producer);
        match marks::decide(mark, header, &opened.chain()) {
            Decision::Store => {}
            Decision::Duplicate => {
                // Its first ack may have been lost, and with it that someone looks.
                let watched = opened.cells().is_ok_and(|cells| ground.is_watched(&cells, now));
                return Ok(Verdict { watched, ..verdict(Status::Stored, String::new())? });
            }
            Decision::Gap { expected } => return verdict(Status::Gap, format!("seq {expected} is expected")),
            Decision::Fork => return verdict(Status::Fork, "the frame contradicts what was stored".into()),
        }
        let decoded = match decode(ground, &opened) {
            Ok(decoded) => decoded,
            Err(detail) => return verdict(Status::Malformed, detail),
        };
        let watched = ground.is_watched(&decoded.blocks.cells, now);
        let after = Mark::after(mark, header, opened.chain());
        batch.beside.marks.insert(header.producer.clone(), after);
        batch.rows.push(LogRow { position: self.next_position, received_at: now, frame: frame.clone() });
        batch.blocks.push(decoded.blocks);
        if !decoded.letters.0.is_empty() {
            batch.beside.letters.push((self.next_position, decoded.letters));
        }
        batch.beside.cubes.extend(decoded.cubes);
        self.next_position += 1;
        Ok(Verdict { watched, ..verdict(Status::Stored, String::new())? })
    }
}

/// What a frame holds.
struct Decoded {
    blocks: Blocks,
    cubes: Vec<(ClientId, Cube)>,
    letters: DeadLettersBlock,
}

/// Decodes all that will be merged or kept: a frame that has what can't be is not stored.
fn decode<G: Ground>(ground: &mut G, opened: &Opened<'_>) -> Result<Decoded, String> {
    let cells = opened.cells().map_err(|error| error.to_string())?;
    let counters = opened.counters().map_err(|error| error.to_string())?;
    let letters = opened.letters().map_err(|error| error.to_string())?;
    // The MAC lets a forwarder leave blocks out. An ack makes the shard forget these, so that they must be here; a
    // writer makes no empty ones.
    let there = [
        (Kind::CELLS, cells.0.is_empty()),
        (Kind::COUNTERS, counters.0.is_empty()),
        (Kind::DEAD_LETTERS, letters.0.is_empty()),
    ];
    for (kind, is_empty) in there {
        if is_empty && opened.header().blocks.iter().any(|block| block.kind == kind) {
            return Err(format!("block {} was left out, or is empty", kind.0));
        }
    }
    let cubes = ground.admit(&cells).map_err(|error| error.to_string())?;
    Ok(Decoded { blocks: Blocks { cells, counters, cut_at: opened.header().cut_at }, cubes, letters })
}

impl Verdict {
    /// Of a frame that doesn't say whose it is there is no producer to name.
    fn unnamed(error: DecodeError) -> Verdict {
        let producer = Producer::new(0, "unknown").expect("a name of 7 bytes is a shard's");
        Verdict { status: Status::Malformed, producer, seq: 0, detail: error.to_string(), watched: false }
    }
}

/// A frame's bytes and those of its blocks, inflated: what a batch holds of it.
pub fn weight(frame: &[u8]) -> usize {
    let blocks = frame::peek(frame).map(|header| header.blocks).unwrap_or_default();
    frame.len() + blocks.iter().map(|block| block.raw_bytes as usize).sum::<usize>()
}

fn status_of(error: &FrameError) -> Status {
    match error {
        FrameError::Version(_) => Status::Version,
        // None of these is what its producer sealed. What is well sealed and yet can't be merged is another thing.
        FrameError::Malformed(_) | FrameError::Mac | FrameError::Digest(_) => Status::BadMac,
    }
}
