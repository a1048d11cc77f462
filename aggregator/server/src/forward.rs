//! The forwarder: sends every frame of the log to central, from a cursor, until central has it. Whom someone looks at there is watched
//! here, too, so that figures come soon to those who ask central.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catchment_aggregator_core::Watched;
use catchment_cells::Secret;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::limits::LINK_WINDOW;
use catchment_link::{Client, LinkError};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::cells::Blocks;
use crate::clock::now_ms;
use crate::store::{LogRow, Store, StoreError};
use crate::{crash, metrics};

/// Bytes that one batch of frames may have.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Bytes of frames that central refused; at the bound the next one isn't parked but tried again, and the log grows.
const PARKED_BYTES_MAX: u64 = 1 << 30;
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

/// What an answer of central means for the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Central has it.
    Done,
    /// Central will never take it.
    Park,
    /// It is to be sent again, with all that follow.
    Again,
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
            if self.settle(&rows, &answers)? {
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
    fn settle(&mut self, rows: &[LogRow], answers: &[Result<Ack, LinkError>]) -> Result<bool, StoreError> {
        let mut done = 0;
        for (row, answer) in rows.iter().zip(answers) {
            if answer.as_ref().is_ok_and(|ack| ack.watched) {
                self.watch(row)?;
            }
            match outcome(answer) {
                Outcome::Done => {}
                Outcome::Park if self.parked_bytes < PARKED_BYTES_MAX => self.park(row, answer)?,
                Outcome::Park | Outcome::Again => break,
            }
            done += 1;
        }
        if done > 0 {
            let position = rows[done - 1].position + 1;
            self.store.set_forwarded(position)?;
            crash::point("forward.after_cursor");
            self.cursor.store(position, Ordering::Release);
            metrics::count_forwarded("settled", done);
        }
        if let Some(answer) = answers.get(done) {
            let (status, reason) = match answer {
                Ok(ack) => (ack.status.as_str(), ack.detail.clone()),
                Err(error) => ("no_answer", error.to_string()),
            };
            metrics::count_forwarded(status, 1);
            warn!(position = rows[done].position, status, reason, "central did not take a frame; it is sent again");
        }
        Ok(done == rows.len())
    }

    /// Watches the clients of a frame.
    fn watch(&self, row: &LogRow) -> Result<(), StoreError> {
        let blocks = Blocks::of(row, &self.secret)?;
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for client in blocks.cells.0.keys() {
            watched.watch(client, now_ms());
        }
        Ok(())
    }

    fn park(&mut self, row: &LogRow, answer: &Result<Ack, LinkError>) -> Result<(), StoreError> {
        let Ok(ack) = answer else { return Ok(()) };
        self.store.park(row, ack.status)?;
        self.parked_frames += 1;
        self.parked_bytes += row.frame.len() as u64;
        metrics::set_parked(self.parked_frames, self.parked_bytes);
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

/// Sorts the answers. Frames were checked before they got into the log: a bad MAC, a foreign home or an unknown version is
/// a central that is set up differently, and waits until it isn't. A gap is looked at only when all frames before it are
/// done with, so that what central misses is nothing that it will ever get.
fn outcome(answer: &Result<Ack, LinkError>) -> Outcome {
    let Ok(ack) = answer else { return Outcome::Again };
    match ack.status {
        Status::Stored => Outcome::Done,
        Status::Gap | Status::Fork | Status::Malformed => Outcome::Park,
        Status::BadMac | Status::Version | Status::Busy | Status::WrongHome | Status::Unreachable => Outcome::Again,
    }
}
