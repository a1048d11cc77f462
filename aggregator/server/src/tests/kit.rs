//! A shard that makes frames of events, and an aggregator without sockets.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use catchment_aggregator_core::answer::Row;
use catchment_aggregator_core::{Answer, Plan, Question, Watched};
use catchment_cells::ack::Ack;
use catchment_cells::frame::{
    self, CHAIN_START, CellsBlock, Chain, CountersBlock, DeadLetter, DeadLettersBlock, FrameDraft, Producer, Sealed,
};
use catchment_cells::users::Coupon;
use catchment_cells::{ClientId, Secret, cube};
use catchment_config::RetentionDays;
use catchment_link::Arrival;
use tokio::sync::{Notify, oneshot};

use crate::cells::Cells;
use crate::config::Limits;
use crate::configs::Configs;
use crate::health::Health;
use crate::ingest::Writer;
use crate::keeper::Keeper;
use crate::live::{Event, Feed};
use crate::store::Store;

/// 2024-01-01T00:00Z, as a minute.
pub(crate) const DAY: i64 = 28_401_120;

pub(crate) fn secret() -> Secret {
    Secret::new(&[5; 32]).unwrap()
}

pub(crate) fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

/// A folder of its own, removed when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("catchment-aggregator-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A page view with a page, a user and a duration in seconds.
pub(crate) fn event(block: &mut CellsBlock, client: &ClientId, minute: i64, page: &str, user: u64, seconds: i64) {
    event_of(block, client, minute, &[("event_type", "page_view"), ("page", page)], user, seconds);
}

/// An event with these values, a user and a duration in seconds.
pub(crate) fn event_of(
    block: &mut CellsBlock,
    client: &ClientId,
    minute: i64,
    values: &[(&str, &str)],
    user: u64,
    seconds: i64,
) {
    let section = block.0.entry(client.clone()).or_default();
    // No bot's.
    for cube in cube::DEFAULT.iter().filter(|cube| !cube.dimensions.contains(&cube::BOT)) {
        let value =
            |dimension: &&str| values.iter().find(|(name, _)| name == dimension).map(|(_, value)| Box::from(*value));
        let values: Vec<Option<Box<str>>> = cube.dimensions.iter().map(value).collect();
        if !values.is_empty() && values.iter().all(Option::is_none) {
            continue;
        }
        let cells = section.entry(cube.name.into()).or_default();
        cells.dimensions = cube.dimensions.iter().map(|&name| name.into()).collect();
        let cell = cells.buckets.entry(minute).or_default().entry(values).or_default();
        cell.count += 1;
        cell.users.insert(Coupon::of(user));
        cell.record("duration", seconds * 1_000_000, cube.digest);
    }
}

/// One event's cells.
pub(crate) fn one(client: &ClientId, minute: i64) -> CellsBlock {
    let mut block = CellsBlock::default();
    event(&mut block, client, minute, "/", minute.unsigned_abs(), 1);
    block
}

pub(crate) struct Shard {
    producer: Producer,
    home: &'static str,
    seq: u64,
    prev: Chain,
}

impl Shard {
    pub(crate) fn new(nonce: u64) -> Shard {
        let producer = Producer::new(nonce, "eu/pool/0").unwrap();
        Shard { producer, home: "eu", seq: 0, prev: CHAIN_START }
    }

    /// A shard whose frames are for another home.
    pub(crate) fn at_home(self, home: &'static str) -> Shard {
        Shard { home, ..self }
    }

    /// The next frame.
    pub(crate) fn cut(&mut self, cells: CellsBlock) -> Bytes {
        self.cut_counted(cells, CountersBlock::default())
    }

    pub(crate) fn cut_counted(&mut self, cells: CellsBlock, counters: CountersBlock) -> Bytes {
        self.cut_blocks(cells, counters, DeadLettersBlock::default())
    }

    /// The next frame, of a client's dead letters.
    pub(crate) fn cut_letters(&mut self, client: &ClientId, letters: Vec<DeadLetter>) -> Bytes {
        let letters = DeadLettersBlock([(client.clone(), letters)].into());
        self.cut_blocks(CellsBlock::default(), CountersBlock::default(), letters)
    }

    fn cut_blocks(&mut self, cells: CellsBlock, counters: CountersBlock, letters: DeadLettersBlock) -> Bytes {
        let sealed = self.seal(self.seq + 1, self.prev, (cells, counters, letters));
        (self.seq, self.prev) = (self.seq + 1, sealed.chain);
        sealed.bytes.into()
    }

    /// A frame under any number, which changes nothing here.
    pub(crate) fn forge(&self, seq: u64, prev: Chain, cells: CellsBlock) -> Bytes {
        self.seal(seq, prev, (cells, CountersBlock::default(), DeadLettersBlock::default())).bytes.into()
    }

    pub(crate) fn chain(&self) -> Chain {
        self.prev
    }

    fn seal(
        &self,
        seq: u64,
        prev: Chain,
        (cells, counters, letters): (CellsBlock, CountersBlock, DeadLettersBlock),
    ) -> Sealed {
        let draft = FrameDraft {
            producer: self.producer.clone(),
            home: self.home.into(),
            seq,
            prev,
            cut_at: DAY * 60_000 + seq as i64,
            first_received_at: DAY * 60_000,
            cells,
            counters,
            letters,
        };
        frame::seal(&draft, &secret().frame_key(&self.producer)).unwrap()
    }
}

/// Writer, keeper and cells over a folder.
pub(crate) struct Aggregator {
    pub(crate) cells: Arc<Cells>,
    pub(crate) configs: Arc<Configs>,
    pub(crate) watched: Arc<Mutex<Watched>>,
    pub(crate) keeper: Keeper,
    pub(crate) feed: Arc<Feed>,
    writer: Writer,
}

impl Aggregator {
    pub(crate) fn open(folder: impl AsRef<Path>) -> Aggregator {
        Aggregator::with(folder, Limits { flush_s: 0, ..Limits::default() }, None)
    }

    /// With bounds, and a cursor of what central has.
    pub(crate) fn with(folder: impl AsRef<Path>, limits: Limits, forwarded: Option<Arc<AtomicU64>>) -> Aggregator {
        Aggregator::fed(folder, limits, forwarded, Feed::new().0)
    }

    /// With what its feed tells.
    pub(crate) fn with_feed(folder: impl AsRef<Path>) -> (Aggregator, Receiver<Event>) {
        let (feed, events) = Feed::new();
        (Aggregator::fed(folder, Limits::default(), None, feed), events)
    }

    fn fed(folder: impl AsRef<Path>, limits: Limits, forwarded: Option<Arc<AtomicU64>>, feed: Arc<Feed>) -> Aggregator {
        let store = Store::open(folder.as_ref()).unwrap();
        let cells = Arc::new(Cells::open(store, limits, &secret(), forwarded.is_some(), feed.clone()).unwrap());
        let watched = Arc::new(Mutex::new(Watched::default()));
        let (home, appended) = (Some("eu".to_owned()), Arc::new(Notify::new()));
        let configs = Arc::new(Configs::open(cells.clone(), &secret(), None, || 0).unwrap());
        let writer = Writer::new(cells.clone(), configs.clone(), secret(), home, watched.clone(), appended).unwrap();
        let (health, kept) = (Arc::new(Health::default()), RetentionDays::default());
        let keeper = Keeper::new(cells.clone(), configs.clone(), kept, forwarded, health);
        Aggregator { cells, configs, watched, keeper, feed, writer }
    }

    /// Sends frames as one batch.
    pub(crate) fn take(&mut self, frames: Vec<Bytes>) -> Vec<Ack> {
        let (arrivals, acks): (Vec<_>, Vec<_>) = frames
            .into_iter()
            .map(|frame| {
                let (reply, ack) = oneshot::channel();
                (Arrival { frame, reply }, ack)
            })
            .unzip();
        self.writer.take(arrivals, 0).unwrap();
        acks.into_iter().map(|mut ack| Ack::decode(&ack.try_recv().unwrap()).unwrap()).collect()
    }

    /// Sends one frame.
    pub(crate) fn send(&mut self, frame: Bytes) -> Ack {
        self.take(vec![frame]).remove(0)
    }

    /// Flushes, truncates and folds all that is due.
    pub(crate) fn keep(&mut self) {
        while self.keeper.tick().unwrap() {}
    }

    /// See [`ask`].
    pub(crate) fn ask(&self, client: &ClientId, query: &str) -> Vec<Row> {
        ask(&self.cells, client, query)
    }

    /// See [`events`].
    pub(crate) fn events(&self, client: &ClientId) -> u64 {
        events(&self.cells, client)
    }
}

/// The rows that answer a question, written as a query string without escapes.
pub(crate) fn ask(cells: &Cells, client: &ClientId, query: &str) -> Vec<Row> {
    let parameters = query.split('&').map(|pair| pair.split_once('=').unwrap());
    let tiers = cells.tiers(client);
    let question = Question::parse(parameters, 0, tiers.time_zone()).unwrap();
    let plan = Plan::of(question, &cells.cubes(client), &tiers).unwrap();
    cells.answer(client, Answer::new(plan), Instant::now() + Duration::from_secs(60)).unwrap().answer.rows().unwrap()
}

/// The client's events near [`DAY`].
pub(crate) fn events(cells: &Cells, client: &ClientId) -> u64 {
    let rows = ask(cells, client, "metric=events&start=2023-01-01&end=2025-01-01");
    rows.first().map_or(0, |row| row.figures[0].unwrap().value as u64)
}
