//! Ready-made bodies over kept connections, as many as the edge takes or at a rate, and when each was acknowledged.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catchment_harness::{Failure, Result};
use catchment_workload::{Body, Events};
use jiff::Timestamp;
use tokio::task::JoinSet;

use crate::http::Http;

/// Different bodies.
const BODIES: u64 = 32;
/// The longest pause of one that is refused, whatever is said.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// What one waits whose connection was closed.
const RECONNECT: Duration = Duration::from_secs(1);
/// Routes that requests are spread over.
const ROUTES: usize = 16;

/// How to send.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The edge: `http://host:port`.
    pub(crate) url: String,
    /// The write key.
    pub(crate) key: String,
    /// Events of a request.
    pub(crate) batch: usize,
    /// Requests in flight at most.
    pub(crate) connections: usize,
    /// Events a second; `None`: the next request leaves with the answer to the last.
    pub(crate) events_per_s: Option<f64>,
}

/// A request that was answered 202.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    pub(crate) at: Instant,
    pub(crate) events: u64,
    /// Since it was due.
    pub(crate) took: Duration,
}

/// What came back so far.
#[derive(Debug, Default)]
struct Seen {
    acks: Mutex<Vec<Ack>>,
    refused: AtomicU64,
    closed: AtomicU64,
    stop: AtomicBool,
}

/// Runs until it is ended or dropped.
#[derive(Debug)]
pub(crate) struct Firehose {
    seen: Arc<Seen>,
    connections: JoinSet<Result<()>>,
}

/// All that came back.
#[derive(Debug)]
pub(crate) struct Sent {
    /// In the order of their times.
    pub(crate) acks: Vec<Ack>,
    /// Requests that were refused for now.
    pub(crate) refused: u64,
    /// Connections that were closed before an answer.
    pub(crate) closed: u64,
}

impl Firehose {
    /// Connects, and begins to send.
    pub(crate) async fn start(plan: Plan) -> Result<Firehose> {
        let mut events = Events::new(1, BODIES * plan.batch as u64);
        let bodies: Vec<Body> = std::iter::from_fn(|| events.body(plan.batch)).collect();
        let seen = Arc::<Seen>::default();
        let next = Arc::new(AtomicU64::new(0));
        let mut open = Vec::new();
        for _ in 0..plan.connections {
            open.push(Http::connect(&plan.url).await?);
        }
        let started = Instant::now();
        let mut connections = JoinSet::new();
        for (n, http) in open.into_iter().enumerate() {
            let head = Http::head(&format!("/v1/events?k={}&r=1.{}", plan.key, n % ROUTES), "");
            let body = bodies[n % bodies.len()].clone();
            let pace = Pace { started, next: next.clone(), batch: plan.batch, events_per_s: plan.events_per_s };
            connections.spawn(send(http, plan.url.clone(), head, body, pace, seen.clone()));
        }
        Ok(Firehose { seen, connections })
    }

    /// Lets the requests in flight be answered, and ends.
    pub(crate) async fn end(mut self) -> Result<Sent> {
        self.seen.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.connections.join_next().await {
            ended.map_err(Failure::at("a connection of the load"))??;
        }
        let mut acks = std::mem::take(&mut *self.seen.acks.lock().unwrap_or_else(PoisonError::into_inner));
        acks.sort_by_key(|ack| ack.at);
        let [refused, closed] = [&self.seen.refused, &self.seen.closed].map(|count| count.load(Ordering::Relaxed));
        Ok(Sent { acks, refused, closed })
    }
}

impl Sent {
    /// The acks of a span of time.
    pub(crate) fn of(&self, span: &Range<Instant>) -> impl Iterator<Item = &Ack> {
        self.acks.iter().filter(|ack| span.contains(&ack.at))
    }

    /// Events of all acks.
    pub(crate) fn events(&self) -> u64 {
        self.acks.iter().map(|ack| ack.events).sum()
    }
}

/// When the next request is due.
struct Pace {
    started: Instant,
    /// The number of the next request, of all connections.
    next: Arc<AtomicU64>,
    batch: usize,
    events_per_s: Option<f64>,
}

async fn send(mut http: Http, url: String, head: String, mut body: Body, pace: Pace, seen: Arc<Seen>) -> Result<()> {
    while !seen.stop.load(Ordering::Relaxed) {
        let first_event = pace.next.fetch_add(1, Ordering::Relaxed) * pace.batch as u64;
        let mut due = Instant::now();
        if let Some(rate) = pace.events_per_s {
            due = pace.started + Duration::from_secs_f64(first_event as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        body.stamp(first_event, Timestamp::now().as_millisecond() as u64);
        // Until it is taken: a sender keeps what it was not acknowledged.
        while !seen.stop.load(Ordering::Relaxed) {
            let Ok(answer) = http.post(&head, body.bytes()).await else {
                // Whoever refuses a request needn't read all of it, and may be gone before its answer is.
                seen.closed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(RECONNECT).await;
                http = Http::connect(&url).await?;
                continue;
            };
            match answer.status {
                202 => {
                    let at = Instant::now();
                    let ack = Ack { at, events: taken(&answer.body)?, took: at.saturating_duration_since(due) };
                    seen.acks.lock().unwrap_or_else(PoisonError::into_inner).push(ack);
                    break;
                }
                429 | 503 => {
                    seen.refused.fetch_add(1, Ordering::Relaxed);
                    let wait = answer.retry_after.ok_or_else(|| Failure("a refusal without Retry-After".into()))?;
                    tokio::time::sleep(wait.min(PAUSE_MAX)).await;
                }
                status => {
                    let said = String::from_utf8_lossy(&answer.body).into_owned();
                    return Err(Failure(format!("the edge answers {status}: {said}")));
                }
            }
        }
    }
    Ok(())
}

/// Events that are counted by now, at this attempt or at one whose answer was lost: `{"accepted":n,"duplicates":n,…`, which is not worth
/// a parser for each answer.
fn taken(body: &[u8]) -> Result<u64> {
    let number = |rest: &[u8]| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        digits.map(|digit| u64::from(digit - b'0')).reduce(|n, digit| n * 10 + digit)
    };
    let read = || {
        let rest = body.strip_prefix(b"{\"accepted\":")?;
        let accepted = number(rest)?;
        let comma = rest.iter().position(|&byte| byte == b',')?;
        Some(accepted + number(rest[comma..].strip_prefix(b",\"duplicates\":")?)?)
    };
    read().ok_or_else(|| Failure(format!("a 202 that can't be read: {}", String::from_utf8_lossy(body))))
}
