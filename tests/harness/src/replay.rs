//! Sends a trace over parallel connections, and doesn't stop before each event was answered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::trace::Line;
use crate::{Failure, Random, Result, Trace};

/// Bytes that one request carries at most; the edge takes 1,000,000.
const BATCH_BYTES_MAX: usize = 900_000;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Sends with one write key.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The edge: `http://host:port`.
    pub url: String,
    /// The write key.
    pub key: String,
    /// Requests in flight.
    pub connections: usize,
    /// Events in a request: from, to (inclusive), chosen by the seed.
    pub batch_events: (usize, usize),
    /// A batch that failed is sent again in two halves, as clients that queue do.
    pub recut: bool,
    /// How long one request may take before it counts as failed.
    pub timeout: Duration,
    /// How long a batch is tried before the replay gives up.
    pub patience: Duration,
    /// Decides sizes of batches.
    pub seed: u64,
    /// Events accepted so far: for a progress bar.
    pub accepted: Arc<AtomicU64>,
}

/// One connection of a sender, for batches that fall due one by one.
#[derive(Debug, Clone)]
pub struct Connection {
    sender: Sender,
    http: reqwest::Client,
}

/// What the edge answered.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Events counted.
    pub accepted: u64,
    /// Events that were counted before.
    pub duplicates: u64,
    /// Events that were not taken.
    pub rejected: Vec<Rejected>,
    /// Requests that were answered 202.
    pub requests: u64,
    /// Requests that had to be sent again.
    pub retries: u64,
    /// From the first request to the last answer.
    pub wall: Duration,
    /// When how many events were accepted, in the order of the answers.
    pub acks: Vec<(Instant, u64)>,
}

/// One event that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The line's number in the trace's file.
    pub line: usize,
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
struct Accepted {
    accepted: u64,
    duplicates: u64,
    rejected: Vec<RejectedEvent>,
}

#[derive(Deserialize)]
struct RejectedEvent {
    index: usize,
    reason: String,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// What came of one request.
enum Reply {
    Taken(Accepted),
    /// Sending the same again won't help; less of it may.
    Refused(String),
    /// Sending anything won't help.
    Hopeless(String),
    /// Anything else: again, after a while.
    Failed(Option<Duration>, String),
}

impl Sender {
    /// Sends with usual settings.
    pub fn new(url: String, key: String) -> Sender {
        Sender {
            url,
            key,
            connections: 8,
            batch_events: (200, 200),
            recut: false,
            timeout: Duration::from_secs(10),
            patience: Duration::from_secs(120),
            seed: 0,
            accepted: Arc::default(),
        }
    }

    /// Sends every line until it is answered. Lines that repeat an earlier event_id go last, so that it is the first that counts.
    pub async fn replay(&self, trace: &Trace) -> Result<Outcome> {
        let (repeats, firsts): (Vec<Line>, Vec<Line>) = trace.lines.iter().cloned().partition(|line| line.repeated);
        let mut outcome = self.send(&Trace { lines: firsts }).await?;
        let again = self.send(&Trace { lines: repeats }).await?;
        outcome.wall += again.wall;
        outcome.add(again);
        Ok(outcome)
    }

    /// Opens a connection once its first batch is sent.
    pub fn connect(&self) -> Result<Connection> {
        let http = reqwest::Client::builder().pool_max_idle_per_host(1).timeout(self.timeout).build();
        Ok(Connection { sender: self.clone(), http: http.map_err(Failure::at("making an HTTP client"))? })
    }

    async fn send(&self, trace: &Trace) -> Result<Outcome> {
        let mut random = Random::new(self.seed);
        let (from, to) = self.batch_events;
        let batches = trace.batches(|| random.between(from as u64, to as u64 + 1) as usize);
        let queue = Arc::new(Mutex::new(VecDeque::from(batches)));
        let started = Instant::now();
        let mut connections = JoinSet::new();
        for _ in 0..self.connections.max(1) {
            let (connection, queue) = (self.connect()?, queue.clone());
            connections.spawn(async move {
                let mut outcome = Outcome::default();
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(batch) = next() {
                    outcome.add(connection.deliver(batch).await?);
                }
                Ok::<_, Failure>(outcome)
            });
        }
        let mut outcome = Outcome::default();
        while let Some(done) = connections.join_next().await {
            outcome.add(done.map_err(Failure::at("a connection of the replay"))??);
        }
        outcome.wall = started.elapsed();
        outcome.acks.sort_by_key(|ack| ack.0);
        Ok(outcome)
    }
}

impl Connection {
    /// Sends one batch, whose lines have one route, until each of its events is answered.
    pub async fn deliver(&self, batch: Vec<Line>) -> Result<Outcome> {
        let sender = &self.sender;
        let mut outcome = Outcome::default();
        let mut pieces = vec![batch];
        let started = Instant::now();
        let mut backoff = BACKOFF_FIRST;
        while let Some(mut piece) = pieces.pop() {
            if piece.len() > 1 && piece.iter().map(|line| line.text.len() + 1).sum::<usize>() > BATCH_BYTES_MAX {
                pieces.push(piece.split_off(piece.len() / 2));
                pieces.push(piece);
                continue;
            }
            match self.post(&piece).await {
                Reply::Taken(taken) => {
                    backoff = BACKOFF_FIRST;
                    outcome.requests += 1;
                    outcome.accepted += taken.accepted;
                    outcome.duplicates += taken.duplicates;
                    outcome.acks.push((Instant::now(), taken.accepted));
                    sender.accepted.fetch_add(taken.accepted, Ordering::Relaxed);
                    for event in taken.rejected {
                        let line = piece
                            .get(event.index)
                            .ok_or_else(|| Failure("the edge rejects an event that wasn't sent".into()))?;
                        outcome.rejected.push(Rejected { line: line.number, reason: event.reason });
                    }
                }
                // Something in it is at fault; halves find out what.
                Reply::Refused(_) if piece.len() > 1 => {
                    pieces.push(piece.split_off(piece.len() / 2));
                    pieces.push(piece);
                }
                Reply::Refused(reason) => {
                    outcome
                        .rejected
                        .extend(piece.iter().map(|line| Rejected { line: line.number, reason: reason.clone() }));
                }
                Reply::Hopeless(why) => return Err(Failure(format!("the edge refuses to take events: {why}"))),
                Reply::Failed(wait, why) => {
                    if started.elapsed() > sender.patience {
                        return Err(Failure(format!("the edge doesn't take events: {why}")));
                    }
                    outcome.retries += 1;
                    tokio::time::sleep(wait.unwrap_or(backoff).min(BACKOFF_MAX)).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    if sender.recut && piece.len() > 1 {
                        pieces.push(piece.split_off(piece.len() / 2));
                    }
                    pieces.push(piece);
                }
            }
        }
        outcome.wall = started.elapsed();
        Ok(outcome)
    }

    async fn post(&self, lines: &[Line]) -> Reply {
        let mut body = Vec::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
        for line in lines {
            body.extend_from_slice(&line.text);
            body.push(b'\n');
        }
        let route = lines.first().map_or("", |line| &line.route);
        let url = format!("{}/v1/events?k={}&r={route}", self.sender.url, self.sender.key);
        let answer = async {
            let answer = self.http.post(url).body(Bytes::from(body)).send().await?;
            let retry_after = answer.headers().get("retry-after").and_then(|text| text.to_str().ok()?.parse().ok());
            let status = answer.status();
            Ok::<_, reqwest::Error>((status.as_u16(), retry_after.map(Duration::from_secs), answer.bytes().await?))
        };
        match answer.await {
            Err(error) => Reply::Failed(None, error.to_string()),
            Ok((202, _, body)) => match serde_json::from_slice(&body) {
                Ok(taken) => Reply::Taken(taken),
                Err(error) => Reply::Failed(None, format!("a 202 that can't be read: {error}")),
            },
            Ok((400 | 413 | 422, _, body)) => {
                let refused = serde_json::from_slice(&body).map(|refused: Refused| refused.error);
                Reply::Refused(refused.unwrap_or_else(|_| "refused".into()))
            }
            Ok((status @ (401 | 403 | 404 | 405), _, body)) => {
                Reply::Hopeless(format!("status {status}: {}", String::from_utf8_lossy(&body)))
            }
            Ok((status, retry_after, body)) => {
                Reply::Failed(retry_after, format!("status {status}: {}", String::from_utf8_lossy(&body)))
            }
        }
    }
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.rejected.extend(other.rejected);
        self.requests += other.requests;
        self.retries += other.retries;
        self.acks.extend(other.acks);
    }
}
