//! The writer: the one that stores frames. It drains what has arrived, has the core decide on it over store and cells, and
//! answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use catchment_aggregator_core::ingest::{Beside, Ground, Writer as Decider, weight};
use catchment_aggregator_core::marks::Mark;
use catchment_aggregator_core::planner::Cube;
use catchment_aggregator_core::tables::{Blocks, CubeError};
use catchment_aggregator_core::{LogRow, Watched};
use catchment_cells::ack::Status;
use catchment_cells::frame::{CellsBlock, Producer};
use catchment_cells::{ClientId, Secret};
use catchment_link::Arrival;
use tokio::sync::{Notify, mpsc};
use tracing::warn;

use crate::cells::Cells;
use crate::clock::now_ms;
use crate::configs::Configs;
use crate::store::StoreError;
use crate::{crash, metrics};

/// Bytes, as the frames are and inflated, and frames that one batch takes before it is committed.
const BATCH_BYTES_MAX: usize = 16 << 20;
const BATCH_FRAMES_MAX: usize = 1_024;

/// The writer.
pub(crate) struct Writer {
    decider: Decider,
    stand: Stand,
}

/// What the writer stands on.
struct Stand {
    cells: Arc<Cells>,
    configs: Arc<Configs>,
    watched: Arc<Mutex<Watched>>,
    /// Told of each append.
    appended: Arc<Notify>,
}

impl Writer {
    /// A writer of frames for one home, or for all.
    pub(crate) fn new(
        cells: Arc<Cells>,
        configs: Arc<Configs>,
        secret: Secret,
        home: Option<String>,
        watched: Arc<Mutex<Watched>>,
        appended: Arc<Notify>,
    ) -> Result<Writer, StoreError> {
        let decider = Decider::new(secret, home, cells.store().next_position()?);
        Ok(Writer { decider, stand: Stand { cells, configs, watched, appended } })
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
        let frames: Vec<Bytes> = arrivals.iter().map(|arrival| arrival.frame.clone()).collect();
        let acks = self.decider.take(&mut self.stand, &frames, now)?;
        for (arrival, ack) in arrivals.into_iter().zip(acks) {
            metrics::count_frame(ack.status);
            if !matches!(ack.status, Status::Stored | Status::Busy) {
                warn!(
                    status = ack.status.as_str(),
                    shard = ack.producer.shard(),
                    nonce = ack.producer.nonce(),
                    seq = ack.seq,
                    detail = ack.detail,
                    "frame refused"
                );
            }
            // Whoever sent it may be gone by now, and will send it again.
            let _ = arrival.reply.send(Bytes::from(ack.encode()));
        }
        Ok(())
    }
}

impl Ground for Stand {
    type Error = StoreError;

    fn full(&self) -> Option<&'static str> {
        self.cells.full()
    }

    fn mark(&self, producer: &Producer) -> Result<Option<Mark>, StoreError> {
        self.cells.store().mark(producer)
    }

    fn admit(&mut self, cells: &CellsBlock) -> Result<Vec<(ClientId, Cube)>, CubeError> {
        self.cells.admit(cells)
    }

    fn is_watched(&self, cells: &CellsBlock, now: i64) -> bool {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        cells.0.keys().any(|client| watched.is_watched(client, now))
    }

    fn config_version(&self) -> u32 {
        self.configs.version()
    }

    fn append(&mut self, rows: &[LogRow], beside: &Beside) -> Result<(), StoreError> {
        let started = Instant::now();
        crash::point("ingest.before_commit");
        self.cells.store().append(rows, beside)?;
        crash::point("ingest.after_commit");
        metrics::observe_commit(started.elapsed(), rows);
        Ok(())
    }

    fn merge(&mut self, rows: &[LogRow], blocks: Vec<Blocks>) -> Result<(), StoreError> {
        self.cells.merge(rows, blocks);
        self.appended.notify_one();
        crash::point("ingest.after_merge");
        Ok(())
    }
}
