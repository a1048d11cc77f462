//! The forwarder: sends every frame of the log to central, from a cursor, until central has it. Whom someone looks at there is watched
//! here, too, so that figures come soon to those who ask central.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catchment_aggregator_core::forwarding::{self, Ground, Settled};
use catchment_aggregator_core::tables::Blocks;
use catchment_aggregator_core::{LogRow, Watched};
use catchment_cells::Secret;
use catchment_cells::ack::Ack;
use catchment_cells::limits::LINK_WINDOW;
use catchment_link::{Client, LinkError};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::clock::now_ms;
use crate::store::{Store, StoreError};
use crate::{crash, metrics};

/// Bytes that one batch of frames may have.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How long to wait for news of new frames before looking.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pause after a failure; it doubles with each further one, up to the other.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The forwarder.
pub(crate) struct Forwarder {
    store: Store,
    central: Client,
    secret: Secret,
    watched: Arc<Mutex<Watched>>,
    /// Told of each append.
    appended: Arc<Notify>,
    /// The position that central has all frames before.
    cursor: Arc<AtomicU64>,
    parked_frames: u64,
    parked_bytes: u64,
}

/// What the core's decisions are carried out on.
struct Stand<'a> {
    store: &'a Store,
    parked_frames: &'a mut u64,
    parked_bytes: u64,
}

impl Forwarder {
    /// A forwarder from where the cursor stands.
    pub(crate) fn new(
        store: Store,
        central: Client,
        secret: Secret,
        watched: Arc<Mutex<Watched>>,
        appended: Arc<Notify>,
        cursor: Arc<AtomicU64>,
    ) -> Result<Forwarder, StoreError> {
        let (parked_frames, parked_bytes) = store.parked()?;
        metrics::set_parked(parked_frames, parked_bytes);
        Ok(Forwarder { store, central, secret, watched, appended, cursor, parked_frames, parked_bytes })
    }

    /// Forwards until the store fails.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let mut pause = PAUSE_MIN;
        loop {
            let rows = self.next_rows()?;
            let Some(oldest) = rows.first() else {
                metrics::set_forward_lag(0);
                // Whether told or not, there is another look.
                let _ = timeout(LOOK_EVERY, self.appended.notified()).await;
                continue;
            };
            metrics::set_forward_lag(now_ms() - oldest.received_at);
            crash::point("forward.before_send");
            let answers = self.central.send(rows.iter().map(|row| row.frame.clone()).collect()).await;
            crash::point("forward.after_ack");
            if self.settle(&rows, answers)? {
                pause = PAUSE_MIN;
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    fn next_rows(&self) -> Result<Vec<LogRow>, StoreError> {
        let mut bytes = 0;
        let mut rows = Vec::new();
        for row in self.store.rows(self.cursor.load(Ordering::Acquire)).take(LINK_WINDOW) {
            let row = row?;
            bytes += row.frame.len();
            rows.push(row);
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        Ok(rows)
    }

    /// Moves the cursor past what is done with, and says whether that is all of it.
    fn settle(&mut self, rows: &[LogRow], answers: Vec<Result<Ack, LinkError>>) -> Result<bool, StoreError> {
        let mut unanswered = None;
        let answers: Vec<Option<Ack>> = answers
            .into_iter()
            .map(|answer| answer.map_err(|error| unanswered = unanswered.take().or(Some(error))).ok())
            .collect();
        for (row, _) in rows.iter().zip(&answers).filter(|(_, ack)| ack.as_ref().is_some_and(|ack| ack.watched)) {
            self.watch(row)?;
        }
        let parked_bytes = self.parked_bytes;
        let mut stand = Stand { store: &self.store, parked_frames: &mut self.parked_frames, parked_bytes };
        let Settled { done, parked_bytes } = forwarding::settle(&mut stand, rows, &answers, parked_bytes)?;
        self.parked_bytes += parked_bytes;
        if done > 0 {
            self.cursor.store(rows[done - 1].position + 1, Ordering::Release);
            metrics::count_forwarded("settled", done);
        }
        if let Some(answer) = answers.get(done) {
            let (status, reason) = match (answer, unanswered) {
                (Some(ack), _) => (ack.status.as_str(), ack.detail.clone()),
                (None, error) => ("no_answer", error.map_or(String::new(), |error| error.to_string())),
            };
            metrics::count_forwarded(status, 1);
            warn!(position = rows[done].position, status, reason, "central did not take a frame; it is sent again");
        }
        Ok(done == rows.len())
    }

    /// Watches the clients of a frame.
    fn watch(&self, row: &LogRow) -> Result<(), StoreError> {
        let blocks = Blocks::of(row, &self.secret).map_err(|error| StoreError::frame(row, &error))?;
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for client in blocks.cells.0.keys() {
            watched.watch(client, now_ms());
        }
        Ok(())
    }
}

impl Ground for Stand<'_> {
    type Error = StoreError;

    fn set_forwarded(&mut self, position: u64) -> Result<(), StoreError> {
        self.store.set_forwarded(position)?;
        crash::point("forward.after_cursor");
        Ok(())
    }

    fn park(&mut self, row: &LogRow, ack: &Ack) -> Result<(), StoreError> {
        self.store.park(row, ack.status)?;
        *self.parked_frames += 1;
        self.parked_bytes += row.frame.len() as u64;
        metrics::set_parked(*self.parked_frames, self.parked_bytes);
        metrics::count_forwarded(ack.status.as_str(), 1);
        let (status, shard) = (ack.status.as_str(), ack.producer.shard());
        warn!(
            position = row.position,
            status,
            shard,
            seq = ack.seq,
            detail = ack.detail,
            "central refuses a frame; it is parked"
        );
        Ok(())
    }
}
