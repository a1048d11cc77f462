//! Events at a steady rate, and when each was acknowledged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catchment_harness::{Failure, Line, Random, Result, Sender};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Pages that events are spread over.
pub(crate) const PAGES: usize = 50;
const USERS: u64 = 20_000;
const COUNTRIES: [&str; 8] = ["AU", "CA", "CH", "DE", "FR", "GB", "JP", "US"];
const DEVICES: [&str; 3] = ["desktop", "mobile", "tablet"];
const CATEGORIES: [&str; 6] = ["books", "coffee", "garden", "kitchen", "tea", "tools"];
/// A request leaves so often, with all that fell due.
const TICK: Duration = Duration::from_millis(50);
/// Requests in flight; beyond, the load waits, and the rate that is reported falls.
const IN_FLIGHT: usize = 16;

/// A request that was answered 202.
#[derive(Debug, Clone)]
pub(crate) struct Ack {
    pub(crate) at: Instant,
    /// Its events, by page.
    pub(crate) pages: [u16; PAGES],
}

/// Runs until dropped.
#[derive(Debug)]
pub(crate) struct Load {
    acks: Arc<Mutex<Vec<Ack>>>,
    task: JoinHandle<Failure>,
}

impl Load {
    /// Begins to send.
    pub(crate) fn start(sender: Sender, events_per_s: u64) -> Load {
        let acks = Arc::<Mutex<Vec<Ack>>>::default();
        let task = tokio::spawn(send(sender, events_per_s, acks.clone()));
        Load { acks, task }
    }

    /// What was acknowledged so far, by time; fails if the load has ended.
    pub(crate) async fn acks(&mut self) -> Result<Vec<Ack>> {
        if self.task.is_finished() {
            return Err((&mut self.task).await.map_err(Failure::at("the load"))?);
        }
        Ok(self.acks.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn send(sender: Sender, events_per_s: u64, acks: Arc<Mutex<Vec<Ack>>>) -> Failure {
    let connection = match sender.connect() {
        Ok(connection) => connection,
        Err(failure) => return failure,
    };
    let mut random = Random::new(sender.seed);
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let failed = Arc::new(Mutex::new(None));
    let started = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    let mut sent = 0;
    loop {
        ticks.tick().await;
        if let Some(failure) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return failure;
        }
        let Ok(permit) = in_flight.clone().acquire_owned().await else { continue };
        let due = (started.elapsed().as_secs_f64() * events_per_s as f64) as u64;
        let now = Timestamp::now().as_millisecond();
        let mut pages = [0; PAGES];
        // A wait is not made good all at once.
        let batch: Vec<Line> = (sent..due.min(sent + events_per_s))
            .map(|n| {
                let page = random.between(0, PAGES as u64) as usize;
                pages[page] += 1;
                event(n, page, now, &mut random)
            })
            .collect();
        sent = due;
        if batch.is_empty() {
            continue;
        }
        let (connection, acks, failed) = (connection.clone(), acks.clone(), failed.clone());
        tokio::spawn(async move {
            let outcome = connection.deliver(batch).await;
            drop(permit);
            match outcome {
                Ok(_) => acks.lock().unwrap_or_else(PoisonError::into_inner).push(Ack { at: Instant::now(), pages }),
                Err(failure) => *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure),
            }
        });
    }
}

fn event(n: u64, page: usize, now_ms: i64, random: &mut Random) -> Line {
    let mut one_of = |texts: &[&'static str]| texts[random.between(0, texts.len() as u64) as usize];
    let event = json!({
        "event_id": format!("bench-{n}"), "event_type": "page_view", "timestamp": now_ms, "page": format!("/p{page}"),
        "country": one_of(&COUNTRIES), "device": one_of(&DEVICES), "category": one_of(&CATEGORIES),
        "user_id": format!("u{}", random.between(0, USERS)), "properties": {"duration_ms": random.between(1, 2_000)},
    });
    let text = event.to_string().into();
    Line { number: n as usize, text, route: format!("1.{}", n % 16).into(), repeated: false }
}
