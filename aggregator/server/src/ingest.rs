//! The writer: the one that stores frames. It drains what has arrived, checks each frame, appends the good ones with their
//! marks in one synced batch, merges their cells, and only then acks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use catchment_aggregator_core::marks::{self, Decision, Mark};
use catchment_aggregator_core::planner::Cube;
use catchment_aggregator_core::watched::Watched;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::codec::DecodeError;
use catchment_cells::frame::{self, CHAIN_START, CellsBlock, FrameError, Kind, Opened, Producer};
use catchment_cells::{ClientId, Secret};
use catchment_link::Arrival;
use tokio::sync::{Notify, mpsc};
use tracing::warn;

use crate::cells::{Blocks, Cells};
use crate::clock::now_ms;
use crate::store::{LogRow, StoreError};
use crate::{crash, metrics};

/// Bytes, as the frames are and inflated, and frames that one batch takes before it is committed.
const BATCH_BYTES_MAX: usize = 16 << 20;
const BATCH_FRAMES_MAX: usize = 1_024;
/// What a producer waits when there is no room, in ms.
const BUSY_RETRY_MS: u32 = 1_000;
/// The epoch of the one placement map there is.
const MAP_VERSION: u32 = 1;

/// The writer.
pub(crate) struct Writer {
    cells: Arc<Cells>,
    secret: Secret,
    /// The region whose frames are taken; `None`: those of every region.
    home: Option<String>,
    watched: Arc<Mutex<Watched>>,
    /// Told of each append.
    appended: Arc<Notify>,
    next_position: u64,
}

/// What a batch will store.
#[derive(Default)]
struct Batch {
    marks: HashMap<Producer, Mark>,
    rows: Vec<LogRow>,
    blocks: Vec<Blocks>,
    cubes: Vec<(ClientId, Cube)>,
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
    /// A writer of frames for one home, or for all.
    pub(crate) fn new(
        cells: Arc<Cells>,
        secret: Secret,
        home: Option<String>,
        watched: Arc<Mutex<Watched>>,
        appended: Arc<Notify>,
    ) -> Result<Writer, StoreError> {
        let next_position = cells.store().next_position()?;
        Ok(Writer { cells, secret, home, watched, appended, next_position })
    }

    /// Takes frames until nobody can send any more. Blocks: run it on a thread of its own.
    pub(crate) fn run(mut self, mut arrivals: mpsc::Receiver<Arrival>) -> Result<(), StoreError> {
        while let Some(first) = arrivals.blocking_recv() {
            let mut bytes = weight(&first.frame);
            let mut batch = vec![first];
            while bytes < BATCH_BYTES_MAX && batch.len() < BATCH_FRAMES_MAX {
                let Ok(next) = arrivals.try_recv() else { break };
                bytes += weight(&next.frame);
                batch.push(next);
            }
            self.take(batch, now_ms())?;
        }
        Ok(())
    }

    /// Stores what is to be stored of a batch, and answers all of it.
    pub(crate) fn take(&mut self, arrivals: Vec<Arrival>, now: i64) -> Result<(), StoreError> {
        let full = self.cells.full();
        let mut batch = Batch::default();
        let mut verdicts = Vec::with_capacity(arrivals.len());
        for arrival in &arrivals {
            verdicts.push(self.judge(&arrival.frame, full, now, &mut batch)?);
        }
        if !batch.rows.is_empty() {
            let started = Instant::now();
            crash::point("ingest.before_commit");
            self.cells.store().append(&batch.rows, &batch.marks, &batch.cubes)?;
            crash::point("ingest.after_commit");
            metrics::observe_commit(started.elapsed(), &batch.rows);
            self.cells.merge(&batch.rows, batch.blocks);
            self.appended.notify_one();
            crash::point("ingest.after_merge");
        }
        for (arrival, verdict) in arrivals.into_iter().zip(verdicts) {
            metrics::count_frame(verdict.status);
            if !matches!(verdict.status, Status::Stored | Status::Busy) {
                let Verdict { status, producer, seq, detail, .. } = &verdict;
                warn!(
                    status = status.as_str(),
                    shard = producer.shard(),
                    nonce = producer.nonce(),
                    seq,
                    detail,
                    "frame refused"
                );
            }
            let mark = batch.marks.get(&verdict.producer);
            let ack = Ack {
                mark: mark.map_or(0, |mark| mark.seq),
                chain: mark.map_or(CHAIN_START, Mark::chain),
                watched: verdict.watched,
                map_version: MAP_VERSION,
                retry_after_ms: if verdict.status == Status::Busy { BUSY_RETRY_MS } else { 0 },
                ..Ack::refusal(verdict.status, verdict.producer, verdict.seq, verdict.detail)
            };
            // Whoever sent it may be gone by now, and will send it again.
            let _ = arrival.reply.send(Bytes::from(ack.encode()));
        }
        Ok(())
    }

    /// Checks one frame, and adds it to the batch where it is to be stored.
    fn judge(
        &mut self,
        frame: &Bytes,
        full: Option<&'static str>,
        now: i64,
        batch: &mut Batch,
    ) -> Result<Verdict, StoreError> {
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
        if let Entry::Vacant(place) = batch.marks.entry(address.producer.clone())
            && let Some(mark) = self.cells.store().mark(place.key())?
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
        let mark = batch.marks.get(&header.producer);
        match marks::decide(mark, header, &opened.chain()) {
            Decision::Store => {}
            Decision::Duplicate => {
                // Its first ack may have been lost, and with it that someone looks.
                let watched = opened.cells().is_ok_and(|cells| self.is_watched(&cells, now));
                return Ok(Verdict { watched, ..verdict(Status::Stored, String::new())? });
            }
            Decision::Gap { expected } => return verdict(Status::Gap, format!("seq {expected} is expected")),
            Decision::Fork => return verdict(Status::Fork, "the frame contradicts what was stored".into()),
        }
        let (blocks, cubes) = match self.decode(&opened) {
            Ok(decoded) => decoded,
            Err(detail) => return verdict(Status::Malformed, detail),
        };
        let watched = self.is_watched(&blocks.cells, now);
        let after = Mark::after(mark, header, opened.chain());
        batch.marks.insert(header.producer.clone(), after);
        batch.rows.push(LogRow { position: self.next_position, received_at: now, frame: frame.clone() });
        batch.blocks.push(blocks);
        batch.cubes.extend(cubes);
        self.next_position += 1;
        Ok(Verdict { watched, ..verdict(Status::Stored, String::new())? })
    }

    /// Whether someone looks at any of the clients that have cells here.
    fn is_watched(&self, cells: &CellsBlock, now: i64) -> bool {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        cells.0.keys().any(|client| watched.is_watched(client, now))
    }

    /// Decodes all that will be merged: what can't be merged is not stored.
    fn decode(&self, opened: &Opened<'_>) -> Result<(Blocks, Vec<(ClientId, Cube)>), String> {
        let cells = opened.cells().map_err(|error| error.to_string())?;
        let counters = opened.counters().map_err(|error| error.to_string())?;
        // The MAC lets a forwarder leave blocks out. An ack makes the shard forget these, so that they must be here; a
        // writer makes no empty ones.
        for (kind, is_empty) in [(Kind::CELLS, cells.0.is_empty()), (Kind::COUNTERS, counters.0.is_empty())] {
            if is_empty && opened.header().blocks.iter().any(|block| block.kind == kind) {
                return Err(format!("block {} was left out, or is empty", kind.0));
            }
        }
        let cubes = self.cells.admit(&cells).map_err(|error| error.to_string())?;
        Ok((Blocks { cells, counters, cut_at: opened.header().cut_at }, cubes))
    }
}

impl Verdict {
    /// Of a frame that doesn't say whose it is there is no producer to name.
    fn unnamed(error: DecodeError) -> Verdict {
        let producer = Producer::new(0, "unknown").expect("a name of 7 bytes is a shard's");
        Verdict { status: Status::Malformed, producer, seq: 0, detail: error.to_string(), watched: false }
    }
}

/// A frame's bytes and those of its blocks, inflated: what a batch holds of it.
fn weight(frame: &[u8]) -> usize {
    let blocks = frame::peek(frame).map(|header| header.blocks).unwrap_or_default();
    frame.len() + blocks.iter().map(|block| block.raw_bytes as usize).sum::<usize>()
}

fn status_of(error: &FrameError) -> Status {
    match error {
        FrameError::Version(_) => Status::Version,
        FrameError::Malformed(_) => Status::Malformed,
        FrameError::Mac | FrameError::Digest(_) => Status::BadMac,
    }
}
