//! How soon an accepted event is in the answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::{Api, Failure, Result};

const POLL: Duration = Duration::from_millis(50);
const DAY_MS: i64 = 86_400_000;

/// When a poll first answered a count.
type Polls = Arc<Mutex<Vec<(Instant, u64)>>>;

/// Polls the count of all events in the background.
#[derive(Debug)]
pub struct Watcher {
    polls: Polls,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// What the polls saw.
#[derive(Debug)]
pub struct Counted(Vec<(Instant, u64)>);

/// Milliseconds from the 202 to the first answer that holds the event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Visible {
    /// Half of the events took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
}

impl Watcher {
    /// Begins to poll; whole days are the cheapest question.
    pub fn start(api: Api, (start, end): (i64, i64)) -> Watcher {
        let (start, end) = (start.div_euclid(DAY_MS) * DAY_MS, (end.div_euclid(DAY_MS) + 1) * DAY_MS);
        let polls = Polls::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (polls.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut last = 0;
            while !stopped.load(Ordering::Relaxed) {
                // A poll that fails is one that saw nothing.
                if let Ok(count) = api.count("events", (start, end)).await
                    && count > last
                {
                    last = count;
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), count));
                }
                tokio::time::sleep(POLL).await;
            }
        });
        Watcher { polls, stop, task }
    }

    /// Waits until `events` are counted, or until the count has not moved for a while.
    pub async fn counted(self, events: u64, patience: Duration) -> Result<Counted> {
        let began = Instant::now();
        loop {
            let last = self.polls.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
            let (at, count) = last.unwrap_or((began, 0));
            if count >= events || at.max(began).elapsed() > patience {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.map_err(Failure::at("polling"))?;
        Ok(Counted(std::mem::take(&mut *self.polls.lock().unwrap_or_else(PoisonError::into_inner))))
    }
}

impl Counted {
    /// The last count that was answered.
    pub fn last(&self) -> u64 {
        self.0.last().map_or(0, |poll| poll.1)
    }

    /// Of all events that were accepted; the acks are in the order of their times.
    pub fn visible(&self, acks: &[(Instant, u64)]) -> Option<Visible> {
        self.visible_of(acks, |_| true)
    }

    /// Of the events whose ack came at a time that counts. The k-th accepted event is visible once a polled count reaches k.
    pub fn visible_of(&self, acks: &[(Instant, u64)], counts: impl Fn(Instant) -> bool) -> Option<Visible> {
        let mut waits: Vec<Duration> = Vec::new();
        let mut polls = self.0.iter().peekable();
        let mut k = 0;
        for &(acked, events) in acks {
            for _ in 0..events {
                k += 1;
                while polls.next_if(|poll| poll.1 < k).is_some() {}
                if counts(acked) {
                    waits.extend(polls.peek().map(|poll| poll.0.saturating_duration_since(acked)));
                }
            }
        }
        waits.sort_unstable();
        let at = |q: f64| {
            let rank = (q * waits.len() as f64).ceil() as usize;
            waits.get(rank.max(1) - 1).map(|wait| wait.as_secs_f64() * 1e3)
        };
        Some(Visible { p50_ms: at(0.5)?, p99_ms: at(0.99)? })
    }
}
