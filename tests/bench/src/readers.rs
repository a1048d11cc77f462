//! Readers of live views: what each saw, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use catchment_cells::live::Message;
use catchment_harness::{Ended, Failure, Live, Question, Result};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::load::{Ack, PAGES};

/// How long a reader that was refused waits before it tries again.
const RETRY: Duration = Duration::from_millis(100);
/// When readers that come in, or back, give up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Views of a reader that never reads, so that it leaves more than the systems' buffers hold.
pub(crate) const STALLED_VIEWS: usize = 10;

/// Where readers connect, and with what.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) url: String,
    pub(crate) read_key: String,
}

/// A view, and the events that it counts.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    question: Question,
    page: Option<usize>,
}

/// One connection with one view.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) watched: Watched,
    live: Live,
    count: u64,
    /// When it first knew of how many events.
    seen: Vec<(Instant, u64)>,
}

/// Times from the 202 to what readers know, with the number of events each stands for.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    waits: Vec<(Duration, u64)>,
}

/// Views as dashboards have them: half of one page each, half of everything, by minute and by each dimension.
pub(crate) fn views(n: usize) -> Vec<Watched> {
    let of_all = |i: usize| {
        let last = format!("{}m", 30 + i / 5);
        let by = |dimension| Question::last(&["events"], &last, "all").with("group_by", dimension);
        match i % 5 {
            0 => Question::last(&["events", "users"], &last, "1m"),
            1 => by("page"),
            2 => by("country"),
            3 => by("device"),
            _ => by("category"),
        }
    };
    let of_a_page = |i: usize| {
        let last = format!("{}m", 30 + i / PAGES);
        Question::last(&["events", "users"], &last, "1m").with("filter", format!("page:/p{}", i % PAGES))
    };
    let view = |i: usize| match i % 2 {
        0 => Watched { question: of_all(i / 2), page: None },
        _ => Watched { question: of_a_page(i / 2), page: Some(i / 2 % PAGES) },
    };
    (0..n).map(view).collect()
}

impl Watched {
    /// How many of a request's events the view counts.
    fn counts(&self, ack: &Ack) -> u64 {
        match self.page {
            Some(page) => ack.pages[page].into(),
            None => ack.pages.iter().map(|&n| u64::from(n)).sum(),
        }
    }
}

impl Reader {
    /// Connects, and waits until it knows of that many events.
    async fn enter(door: &Door, watched: Watched, known: Known, least: u64) -> Result<Reader> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Reader::try_to_enter(door, &watched, known.clone(), least).await {
                Ok(reader) => return Ok(reader),
                Err(ended) if Instant::now() > deadline => return Err(Failure(ended.to_string())),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn try_to_enter(door: &Door, watched: &Watched, known: Known, least: u64) -> Answer<Reader> {
        let mut live = Live::connect(&door.url, &door.read_key).await?;
        match known {
            None => live.subscribe(1, &watched.question).await?,
            Some(subscriptions) => live.resume(subscriptions).await?,
        }
        let mut reader = Reader { watched: watched.clone(), live, count: 0, seen: Vec::new() };
        let (mut entered, deadline) = (false, Instant::now() + PATIENCE);
        while !entered || reader.count < least {
            match timeout_at(deadline.into(), reader.live.next()).await {
                Ok(Ok(Message::View(_) | Message::Update(_))) => {
                    entered = reader.live.mirror(1).is_some_and(|mirror| mirror.version() > 0);
                    reader.count = reader.counted();
                }
                Ok(Ok(Message::Refused { status, detail, .. })) => {
                    return Err(Failure(format!("a view is refused with {status}: {detail}")).into());
                }
                Ok(Ok(_)) => {}
                Ok(Err(ended)) => return Err(ended),
                Err(_) => return Err(Failure("a reader doesn't get its view".into()).into()),
            }
        }
        Ok(reader)
    }

    /// Reads until then.
    async fn read(&mut self, until: Instant) -> Answer<()> {
        while let Ok(message) = timeout_at(until.into(), self.live.next()).await {
            if let Message::Update(_) = message? {
                let count = self.counted();
                if count != self.count {
                    self.count = count;
                    self.seen.push((Instant::now(), count));
                }
            }
        }
        Ok(())
    }

    fn counted(&self) -> u64 {
        self.live.mirror(1).and_then(|mirror| mirror.count(0)).unwrap_or(0)
    }

    /// Bytes of messages so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.live.received_bytes()
    }

    /// Adds how long each event took that was acknowledged in a span; `acks` are all there ever were.
    pub(crate) fn judge(&self, acks: &[Ack], (from, to): (Instant, Instant), freshness: &mut Freshness) {
        let mut seen = self.seen.iter().peekable();
        let mut k = 0;
        for ack in acks {
            let events = self.watched.counts(ack);
            k += events;
            if events == 0 || !(from..to).contains(&ack.at) {
                continue;
            }
            while seen.next_if(|(_, count)| *count < k).is_some() {}
            // What was never seen took at least as long as was looked.
            let at = seen.peek().map_or_else(Instant::now, |(at, _)| *at);
            freshness.waits.push((at.saturating_duration_since(ack.at), events));
        }
    }
}

/// Subscriptions of an earlier connection.
type Known = Option<BTreeMap<u64, catchment_harness::live::Subscription>>;
type Answer<T> = std::result::Result<T, Ended>;

/// All at once: connects `n` readers, spread over the views.
pub(crate) async fn enter(door: &Door, views: &[Watched], n: usize) -> Result<Vec<Reader>> {
    let mut entering = JoinSet::new();
    for watched in views.iter().cycle().take(n).cloned() {
        let door = door.clone();
        entering.spawn(async move { Reader::enter(&door, watched, None, 0).await });
    }
    together(entering).await
}

/// All read until then.
pub(crate) async fn read(readers: Vec<Reader>, until: Instant) -> Result<Vec<Reader>> {
    let mut reading = JoinSet::new();
    for mut reader in readers {
        reading.spawn(async move {
            let read = reader.read(until).await;
            read.map(|()| reader).map_err(|ended| Failure(format!("a reader's connection ended: {ended}")))
        });
    }
    together(reading).await
}

/// All drop their connection and come back at once, with cursors. How long each took until it knew of all that had been
/// acknowledged by then.
pub(crate) async fn storm(door: &Door, readers: Vec<Reader>, acks: &[Ack]) -> Result<(Vec<Reader>, Vec<Duration>)> {
    let left: Vec<_> = readers
        .into_iter()
        .map(|reader| {
            let least = acks.iter().map(|ack| reader.watched.counts(ack)).sum();
            (reader.watched, reader.live.into_subscriptions(), least)
        })
        .collect();
    let began = Instant::now();
    let mut entering = JoinSet::new();
    for (watched, known, least) in left {
        let door = door.clone();
        entering.spawn(async move {
            let reader = Reader::enter(&door, watched, Some(known), least).await?;
            Ok((reader, began.elapsed()))
        });
    }
    Ok(together(entering).await?.into_iter().unzip())
}

/// Connects readers that never read.
pub(crate) async fn stall(door: &Door, views: &[Watched], n: usize) -> Result<Vec<Live>> {
    let mut stalled = Vec::with_capacity(n);
    for first in 0..n {
        let mut live = Live::open_narrow(&door.url).await?;
        live.send(&serde_json::json!({ "token": door.read_key }).to_string()).await?;
        for (number, watched) in views.iter().cycle().skip(first).take(STALLED_VIEWS.min(views.len())).enumerate() {
            live.subscribe(number as u64, &watched.question).await?;
        }
        stalled.push(live);
    }
    Ok(stalled)
}

async fn together<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut done = Vec::with_capacity(tasks.len());
    while let Some(result) = tasks.join_next().await {
        done.push(result.map_err(Failure::at("a reader"))??);
    }
    Ok(done)
}

impl Freshness {
    /// A quantile over events and readers, in ms.
    pub(crate) fn quantile_ms(&mut self, q: f64) -> f64 {
        self.waits.sort_unstable();
        let total: u64 = self.waits.iter().map(|(_, events)| events).sum();
        let rank = (q * total as f64).ceil() as u64;
        let mut passed = 0;
        let at_rank = self.waits.iter().find(|(_, events)| {
            passed += events;
            passed >= rank
        });
        at_rank.map_or(f64::NAN, |(wait, _)| wait.as_secs_f64() * 1e3)
    }

    /// Events times readers.
    pub(crate) fn samples(&self) -> u64 {
        self.waits.iter().map(|(_, events)| events).sum()
    }
}
