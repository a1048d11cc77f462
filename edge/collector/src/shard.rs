//! A shard: what its host does for it is storage, timers and sending; all else is decided here.
//!
//! A host takes a request with [`Shard::submit`], commits the group of those that wait with [`Shard::commit`], and answers each with its
//! outcome once the commit is durable. When [`Shard::due_at`] says so it [`cut`](Shard::cut)s, sends the [`Post`] of
//! [`Shard::post`], and hands what came back to [`Shard::judge`]. `commit`, `cut` and `judge` each run within one transaction of
//! storage; where it fails, the host drops the shard and [`load`](Shard::load)s it again, so that memory never runs ahead.

use std::time::Duration;

use catchment_cells::ack::{Ack, Status};
use catchment_cells::config::{Answer, Told};
use catchment_cells::frame::Producer;
use catchment_cells::limits::POST_BYTES_MAX;
use catchment_cells::route::is_backfill;
use catchment_cells::secret::ConfigKey;
use catchment_cells::{ClientId, Secret};
use catchment_config::Config;
use serde::Serialize;
use thiserror::Error;

use crate::collector::{Collector, Outcome};
use crate::configs::{Configs, Need};
use crate::hop::Hop;
use crate::ids::IdsBounds;
use crate::limits::{
    LOG_ROW_BYTES, LOG_ROW_EVENTS, LOG_ROWS_MAX, PARKED_MAX, POOL_HELD_MAX, POST_FRAMES_MAX, SPILLED_ROWS_PER_CUT,
};
use crate::outbox::{Outbox, Verdict};
use crate::quota::{Capacity, OverQuota, Quotas, request_cost};
use crate::request::{Claims, Request, RequestError, Visitor};
use crate::rows::{ConfigRow, IdsRow, LogRow, Meta, SpilledRow};
use crate::watching::Watching;

/// How long requests are collected for one commit, in ms, counted from the last commit: an idle shard commits at once.
pub const GROUP_MS: i64 = 50;
/// How long events wait for a cut, in ms; while the home can't be reached, when more frames would only fill the outbox, longer.
pub const CUT_MS: i64 = 200;
const CUT_MS_FAILING: i64 = 60_000;
/// The least time between two cuts while nobody watches, in ms. The first event after a quiet time doesn't wait: someone may have
/// begun to watch, which its ack tells.
pub const CUT_EVERY_MS: i64 = 5_000;
/// How long frames may be on their way, in ms, before a shard that is busy holds requests back for them: a host that runs all in one turn
/// after another gets to each step of a POST only once it has been through all that is in work.
const HOLD_AFTER_MS: i64 = 200;
/// Requests in work from which on a shard is that busy.
const HOLD_IN_WORK: usize = 8;
/// How long a request is held back at the most.
const HOLD_MAX: Duration = Duration::from_millis(200);
/// How often senders should flush, in ms: while someone watches, and while nobody does.
const FLUSH_MS_WATCHED: u32 = 500;
const FLUSH_MS: u32 = 5_000;

/// A shard's rows. What is put within one transaction of the host is kept as a whole or not at all.
pub trait Storage {
    /// Why storage can't be used.
    type Error;

    /// Says that what is stored contradicts itself.
    fn broken(&self, what: String) -> Self::Error;

    /// The shard's state as of its last cut; `None` where there never was one.
    fn meta(&self) -> Result<Option<Meta>, Self::Error>;

    /// Writes the state.
    fn put_meta(&self, meta: &Meta) -> Result<(), Self::Error>;

    /// Visits the rows of the log from number `from` on, ascending: one at a time is in memory.
    fn read_log(&self, from: u64, visit: impl FnMut(u64, LogRow) -> Result<(), Self::Error>)
    -> Result<(), Self::Error>;

    /// Writes row `n` of the log, over the one that lies the ring's size before it.
    fn put_log(&self, n: u64, row: &LogRow) -> Result<(), Self::Error>;

    /// The frame with a number, if it is still there.
    fn frame(&self, n: u64) -> Result<Option<Vec<u8>>, Self::Error>;

    /// Writes the frame with a number, over the one that lies the ring's size before it.
    fn put_frame(&self, n: u64, frame: Vec<u8>) -> Result<(), Self::Error>;

    /// Visits the rows of ids with the numbers `from..to`, ascending: one at a time is in memory.
    fn read_ids(&self, from: u64, to: u64, visit: impl FnMut(IdsRow)) -> Result<(), Self::Error>;

    /// The row of ids with a number, if it is still there.
    fn ids(&self, n: u64) -> Result<Option<IdsRow>, Self::Error>;

    /// Writes a row of ids, over the one that lies the ring's size before it.
    fn put_ids(&self, row: &IdsRow) -> Result<(), Self::Error>;

    /// The spilled row with a number, if there is one.
    fn spilled(&self, n: u64) -> Result<Option<SpilledRow>, Self::Error>;

    /// Writes a spilled row.
    fn put_spilled(&self, row: &SpilledRow) -> Result<(), Self::Error>;

    /// The config of a client, if it ever had one.
    fn config(&self, client: &ClientId) -> Result<Option<ConfigRow>, Self::Error>;

    /// Writes the config of a client.
    fn put_config(&self, client: &ClientId, row: &ConfigRow) -> Result<(), Self::Error>;

    /// Keeps the `n`-th frame that was parked, for good.
    fn park(&self, n: u64, frame: Vec<u8>) -> Result<(), Self::Error>;
}

/// A shard in memory, over storage `S`. `R` is what the host answers a request with.
#[derive(Debug)]
pub struct Shard<S, R> {
    storage: S,
    collector: Collector,
    outbox: Outbox,
    watching: Watching,
    configs: Configs,
    config_key: ConfigKey,
    quotas: Quotas,
    log_next: u64,
    waiting: Vec<(Request, R)>,
    waiting_bytes: usize,
    waiting_events: usize,
    committed_at: i64,
    /// 0 after a restart.
    last_cut_at: i64,
}

/// Frames for one POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// The region they are for.
    pub home: String,
    /// The number of the first.
    pub first: u64,
    /// Each behind its length, a little-endian u32.
    pub frames: Vec<u8>,
    /// How many.
    pub count: usize,
}

/// A question about configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The region it is for.
    pub home: String,
    /// Its bytes.
    pub question: Vec<u8>,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// Its client has used its share.
    #[error("the client has used its share of the shard")]
    OverQuota(OverQuota),
    /// Its client sends more events a second than its config lets it.
    #[error("the client has more events a second than its config lets it")]
    OverLimit(OverQuota),
    /// Its write key is of a generation that is good no more.
    #[error("the write key was revoked")]
    Revoked,
    /// Its body can't be read.
    #[error(transparent)]
    Body(#[from] RequestError),
}

impl From<OverQuota> for Refused {
    fn from(over: OverQuota) -> Self {
        Refused::OverQuota(over)
    }
}

/// What was thought of an ack that is not simply one of a stored frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What the home said.
    pub status: Status,
    /// Why.
    pub detail: String,
    /// What was done.
    pub verdict: Verdict,
}

/// How a shard is, for its operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Groups of requests that were committed, since its storage began.
    pub commits: u64,
    /// Frames that were cut, since its storage began.
    pub frames: u64,
    /// Rows of the log that are not cut.
    pub log_rows: u64,
    /// Frames that are not acked.
    pub outbox_frames: u64,
    /// Frames that their home refused for good.
    pub parked: u64,
    /// The producer's nonce.
    pub nonce: u64,
    /// Ids of events that are remembered in memory, and in spilled rows.
    pub ids_in_memory: usize,
    /// See `ids_in_memory`.
    pub ids_spilled: u64,
    /// The version of the configs that are in force.
    pub config_version: u32,
    /// Clients, of those that came of late, whose stored config this code can't read: they count as clients without one.
    pub unreadable_configs: usize,
    /// Clients that someone looks at.
    pub watched: usize,
    /// Clients that are led to shards of their own, or to more of them.
    pub promoted: usize,
}

impl<S: Storage, R> Shard<S, R> {
    /// Rebuilds a shard from storage. One whose storage is new takes its name and its region from its first request, and a nonce that
    /// no other storage of this shard has; without a request there is none.
    pub fn load(
        storage: S,
        secret: &Secret,
        capacity: Capacity,
        first: Option<(&Hop, u64)>,
        now: i64,
    ) -> Result<Option<Self>, S::Error> {
        Shard::load_bounded(storage, secret, capacity, IdsBounds::default(), first, now)
    }

    /// As [`load`](Self::load), of a shard that remembers another number of ids.
    pub fn load_bounded(
        storage: S,
        secret: &Secret,
        capacity: Capacity,
        ids: IdsBounds,
        first: Option<(&Hop, u64)>,
        now: i64,
    ) -> Result<Option<Self>, S::Error> {
        let meta = match (storage.meta()?, first) {
            (Some(meta), _) => meta,
            (None, Some((hop, nonce))) => {
                let producer = Producer::new(nonce, &hop.placement.shard);
                let producer = producer.map_err(|error| storage.broken(error.to_string()))?;
                let meta = Meta::new(producer, &hop.placement.region);
                storage.put_meta(&meta)?;
                meta
            }
            (None, None) => return Ok(None),
        };
        let mut collector = Collector::new(secret.clone(), meta.clone());
        collector.bound_ids(ids);
        storage.read_ids(meta.ids_first, meta.ids_next, |row| collector.restore_ids(row))?;
        let mut log_next = meta.folded_through;
        let mut committed_at = 0;
        storage.read_log(meta.folded_through, |n, row| {
            collector.apply_with(&row, &mut |n| read_spilled(&storage, n), &mut |client| storage.config(client))?;
            log_next = n + 1;
            committed_at = row.received_at;
            Ok(())
        })?;
        Ok(Some(Shard {
            outbox: Outbox::new(&meta),
            storage,
            collector,
            watching: Watching::default(),
            configs: Configs::default(),
            config_key: secret.config_key(),
            quotas: Quotas::new(capacity, now),
            log_next,
            waiting: Vec::new(),
            waiting_bytes: 0,
            waiting_events: 0,
            committed_at,
            last_cut_at: 0,
        }))
    }

    /// Its rows.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// Its state as of the last cut.
    pub fn meta(&self) -> &Meta {
        self.collector.meta()
    }

    /// How long a request is to be held back before it is read, unless the POST that is under way ends before, where so many requests are
    /// in work; `None`: not at all. A home that does not answer well holds nobody back.
    pub fn hold(&self, in_work: usize, now: i64) -> Option<Duration> {
        let waits = self.outbox.posting_for_ms(now).is_some_and(|ms| ms > HOLD_AFTER_MS);
        (waits && in_work > HOLD_IN_WORK && !self.outbox.is_failing()).then_some(HOLD_MAX)
    }

    /// Holds a request by a write key of a generation against its client's config, before it is [read](Self::read).
    pub fn check(
        &mut self,
        client: &ClientId,
        generation: u32,
        level: u8,
        now: i64,
    ) -> Result<Result<(), Refused>, S::Error> {
        let storage = &self.storage;
        let rules = self.collector.rules_of(client, &mut |client| storage.config(client))?;
        if !rules.lets_in(generation) {
            return Ok(Err(Refused::Revoked));
        }
        let events_per_s = rules.events_per_s().filter(|_| !is_backfill(self.meta().producer.shard()));
        Ok(self.quotas.admit_events(client, level, events_per_s, now).map_err(Refused::OverLimit))
    }

    /// Reads a request by a route of a level, if its client may have more of the shard; a backfill waits for nobody. Reading costs: what is
    /// refused for its body is counted, and charged for the bytes that were looked at.
    pub fn read(
        &mut self,
        claims: Claims,
        visitor: Visitor,
        level: u8,
        body: Vec<u8>,
        now: i64,
    ) -> Result<Request, Refused> {
        let client = claims.client.clone();
        let has_quota = !is_backfill(self.meta().producer.shard());
        if has_quota {
            if level == 0 && self.holds_too_much(&client) {
                return Err(self.quotas.turn_away(&client, now).into());
            }
            self.quotas.admit(&client, level, now)?;
        }
        let bytes = Request::bytes_to_read(&body);
        let read = Request::read(claims, visitor, body);
        if has_quota {
            let (events, bytes) = read.as_ref().map_or((0, bytes), |request| (request.len(), request.bytes()));
            self.quotas.charge(&client, level, request_cost(events, bytes));
            self.quotas.charge_events(&client, level, events);
        }
        if read.is_err() {
            self.collector.count_refused(&client, now);
        }
        Ok(read?)
    }

    /// Whether most of what waits for the home is one client's, so much that others would soon have no room.
    fn holds_too_much(&self, client: &ClientId) -> bool {
        let acked = self.outbox.acked();
        self.meta().next_frame - 1 - acked > POOL_HELD_MAX && self.watching.held(client, acked + 1) > POOL_HELD_MAX
    }

    /// The level that a client's new routes are to have, after a request by one of `level`.
    pub fn level(&self, client: &ClientId, level: u8, now: i64) -> u8 {
        self.quotas.level(client, level, now)
    }

    /// Whether a request would make the group that waits too large: commit that first.
    pub fn overflows(&self, request: &Request) -> bool {
        self.waiting_bytes + request.bytes() > LOG_ROW_BYTES || self.waiting_events + request.len() > LOG_ROW_EVENTS
    }

    /// Whether so many more events may wait: what is due to be cut could be, and log and ids have room. A cut may make some.
    pub fn has_room_for(&self, events: usize) -> bool {
        let rows = self.log_next - self.meta().folded_through;
        !self.collector.is_cut_due() && rows < LOG_ROWS_MAX && self.collector.has_room_for(self.waiting_events + events)
    }

    /// Puts a request into the group that waits.
    pub fn submit(&mut self, request: Request, reply: R) {
        self.waiting_bytes += request.bytes();
        self.waiting_events += request.len();
        self.waiting.push((request, reply));
    }

    /// How long the group may still wait; `None`: no longer.
    pub fn group_ends_in(&self, now: i64) -> Option<Duration> {
        let wait = self.committed_at + GROUP_MS - now;
        (wait > 0).then(|| Duration::from_millis(wait.min(GROUP_MS) as u64))
    }

    /// Commits the group that waits: storage first, then memory. What is answered may leave once the transaction is durable; where it
    /// failed, nothing was taken and the group is gone.
    pub fn commit(&mut self, now: i64) -> Result<Vec<(R, Outcome)>, S::Error> {
        if self.waiting.is_empty() {
            return Ok(Vec::new());
        }
        self.waiting_bytes = 0;
        self.waiting_events = 0;
        let (requests, replies): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        // Time never goes back, whatever the clock does.
        let row = LogRow { received_at: now.max(self.committed_at), requests };
        self.committed_at = row.received_at;
        self.storage.put_log(self.log_next, &row)?;
        self.log_next += 1;
        let storage = &self.storage;
        let config = &mut |client: &_| storage.config(client);
        let outcomes = self.collector.apply_with(&row, &mut |n| read_spilled(storage, n), config)?;
        Ok(replies.into_iter().zip(outcomes).collect())
    }

    /// Whether a cut is due for the size of what waits.
    pub fn is_cut_due(&self) -> bool {
        self.collector.is_cut_due()
    }

    /// How often a client's senders should flush, in ms.
    pub fn flush_ms(&self, client: &ClientId, now: i64) -> u32 {
        if self.watching.may_be_watched(client, now) { FLUSH_MS_WATCHED } else { FLUSH_MS }
    }

    /// When what waits is to be cut; `None` while nothing waits, or the outbox has no room.
    pub fn cut_at(&self, now: i64) -> Option<i64> {
        let since = self.collector.waits_since()?;
        if self.outbox.is_full(self.meta()) {
            return None;
        }
        // The log's times never go back: after the clock was, there is no telling how long events have waited.
        if since > now {
            return Some(now);
        }
        Some(if self.outbox.is_failing() {
            since + CUT_MS_FAILING
        } else if self.collector.clients().any(|client| self.watching.is_urgent(client)) {
            since + CUT_MS
        } else {
            (since + CUT_MS).max(self.last_cut_at + CUT_EVERY_MS).min(since + CUT_EVERY_MS)
        })
    }

    /// When something is to be done: a cut, or a POST.
    pub fn due_at(&self, now: i64) -> Option<i64> {
        self.cut_at(now).into_iter().chain(self.outbox.send_at(self.meta(), now)).min()
    }

    /// Makes frames of what waits, with the ids and the log's position, and forgets ids of events that would be too late by now. Does
    /// nothing while the outbox has no room.
    pub fn cut(&mut self, now: i64) -> Result<(), S::Error> {
        if self.outbox.is_full(self.meta()) {
            return Ok(());
        }
        self.last_cut_at = now;
        let before = self.meta().clone();
        self.forget(now)?;
        let room = self.outbox.room(self.meta());
        if let Some(cut) = self.collector.cut(now, self.log_next, self.outbox.acked()) {
            if cut.frames.len() as u64 > room {
                return Err(self.storage.broken(format!("a cut of {} frames", cut.frames.len())));
            }
            for frame in cut.frames {
                self.storage.put_frame(frame.number, frame.bytes)?;
                self.watching.on_cut(frame.number, frame.clients, cut.mostly.clone());
            }
            if let Some(row) = &cut.ids {
                self.storage.put_ids(row)?;
            }
        }
        for _ in 0..SPILLED_ROWS_PER_CUT {
            let Some(n) = self.collector.next_to_spill() else { break };
            let mut row = read_spilled(&self.storage, n)?;
            self.collector.spill(&mut row, now);
            self.storage.put_spilled(&row)?;
        }
        self.put_changed_meta(&before)
    }

    /// Forgets the ids of events that would be too late by now.
    pub fn forget_expired(&mut self, now: i64) -> Result<(), S::Error> {
        let before = self.meta().clone();
        self.forget(now)?;
        self.put_changed_meta(&before)
    }

    fn forget(&mut self, now: i64) -> Result<(), S::Error> {
        while let Some(n) = self.collector.expired_ids(now) {
            let row =
                self.storage.ids(n)?.ok_or_else(|| self.storage.broken(format!("row {n} of ids is not there")))?;
            self.collector.forget(&row);
        }
        for n in self.collector.to_sweep(now) {
            let mut row = read_spilled(&self.storage, n)?;
            if self.collector.sweep(&mut row, now) {
                self.storage.put_spilled(&row)?;
            }
        }
        Ok(())
    }

    fn put_changed_meta(&self, before: &Meta) -> Result<(), S::Error> {
        if self.meta() == before { Ok(()) } else { self.storage.put_meta(self.meta()) }
    }

    /// The frames to send now, if any; none more until [`judge`](Self::judge) is told what became of them.
    pub fn post(&mut self, now: i64) -> Result<Option<Post>, S::Error> {
        let meta = self.meta();
        if self.outbox.send_at(meta, now).is_none_or(|at| at > now) {
            return Ok(None);
        }
        let first = self.outbox.acked() + 1;
        let mut post = Post { home: meta.home.clone(), first, frames: Vec::new(), count: 0 };
        for n in first..meta.next_frame.min(first + POST_FRAMES_MAX) {
            let frame = self.storage.frame(n)?.ok_or_else(|| self.storage.broken(format!("frame {n} is not there")))?;
            if post.frames.len() + frame.len() + 4 > POST_BYTES_MAX {
                break;
            }
            post.frames.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            post.frames.extend_from_slice(&frame);
            post.count += 1;
        }
        self.outbox.on_post(now);
        Ok(Some(post))
    }

    /// Does what the acks of a POST of `count` frames from number `first` on ask for; fewer or more acks than that are none. The nonce
    /// is for the producer that may have to begin.
    pub fn judge(
        &mut self,
        acks: Vec<Ack>,
        first: u64,
        count: usize,
        nonce: u64,
        now: i64,
    ) -> Result<Vec<Judgement>, S::Error> {
        let mut judgements = Vec::new();
        let posted_at = self.outbox.posting_for_ms(now).map_or(now, |ms| now - ms);
        self.outbox.on_end();
        if acks.len() != count || count == 0 {
            self.outbox.on_failure(self.collector.meta(), now);
            self.configs.on_away();
            return Ok(judgements);
        }
        for (number, ack) in (first..).zip(acks) {
            let mut verdict = self.outbox.on_ack(self.collector.meta(), number, &ack, now);
            if matches!(verdict, Verdict::Park(Status::BadMac | Status::Version)) && self.is_sealed(number)? {
                // It is the way that damages it, or a home that is set up differently. A whole copy may still arrive, with those after
                // it: under a new producer these would be counted again.
                verdict = Verdict::Resend;
            }
            if ack.status == Status::Stored {
                self.configs.on_ack(ack.config_version, posted_at);
                if verdict == Verdict::Next {
                    self.watching.on_ack(number, ack.watched, now);
                }
            } else {
                if ack.status == Status::Unreachable {
                    self.configs.on_away();
                }
                judgements.push(Judgement { status: ack.status, detail: ack.detail, verdict });
            }
            match verdict {
                Verdict::Next => continue,
                Verdict::Resend => {}
                Verdict::Restart => self.restart_producer(0, nonce, now)?,
                Verdict::Park(_) => self.park(nonce, now)?,
            }
            break;
        }
        Ok(judgements)
    }

    /// What a request of a client is to do before it is submitted, so that what it holds is applied under the present config. Whoever
    /// waits is to look again after a while: a home that is away holds nobody up for long, and what is stored of a config counts.
    pub fn need_config(&mut self, client: &ClientId, now: i64) -> Need {
        let ships = self.outbox.posting_for_ms(now).is_some_and(|ms| ms < CUT_MS);
        self.configs.need(client, ships, now)
    }

    /// What to ask the home about configs, and which region that is; [`configure`](Self::configure) is to be told what came of it.
    pub fn ask_config(&mut self, nonce: u64, now: i64) -> Result<Asked, S::Error> {
        let home = self.meta().home.clone();
        let stored = |client: &_| Ok(self.storage.config(client)?.map_or(0, |row| row.version));
        match self.configs.ask(&home, nonce, now, stored) {
            Ok(question) => Ok(Asked { home, question: question.encode() }),
            Err(error) => {
                // Or it would be asked again at once, for ever.
                self.configs.on_failure(now);
                Err(error)
            }
        }
    }

    /// Puts the configs of an answer in force. What came before is cut under the old ones first, so that what is stored of the log is always
    /// applied under the configs that it was taken under; where no cut can be made, nothing changes yet. Says what was wrong, if anything.
    pub fn configure(&mut self, answer: Option<&[u8]>, now: i64) -> Result<Option<String>, S::Error> {
        let Some(asking) = self.configs.take_asking() else { return Ok(None) };
        let read = |bytes| Answer::decode(bytes, &asking.question.encode(), &self.config_key);
        let answer = match answer.map(read) {
            Some(Ok(answer)) => answer,
            other => {
                self.configs.on_failure(now);
                return Ok(other.and_then(Result::err).map(|error| error.to_string()));
            }
        };
        let mut wrong = None;
        if answer.configs.iter().any(|told| self.collector.is_open(&told.client)) {
            self.cut(now)?;
        }
        if answer.configs.iter().any(|told| self.collector.is_open(&told.client)) {
            self.configs.on_failure(now);
            return Ok(Some("the outbox has no room for a cut".into()));
        }
        for Told { client, version, config } in &answer.configs {
            // Whatever another version of this code may have written: the config before stays, and is not asked for again.
            if !config.is_empty()
                && let Err(error) = Config::decode(config)
            {
                wrong = Some(format!("the config of {client}: {error}"));
                continue;
            }
            let row = ConfigRow { version: *version, config: config.clone() };
            self.storage.put_config(client, &row)?;
            self.collector.set_config(client, Some(&row));
        }
        self.configs.on_answer(asking, &answer);
        Ok(wrong)
    }

    /// Whether a frame is still as it was sealed.
    fn is_sealed(&self, number: u64) -> Result<bool, S::Error> {
        Ok(self.storage.frame(number)?.is_some_and(|frame| self.collector.has_sealed(&frame)))
    }

    /// Keeps the oldest frame that is not acked aside. Where there is no place for it nothing is thrown away: the backlog grows to
    /// its bound, and says so.
    fn park(&mut self, nonce: u64, now: i64) -> Result<(), S::Error> {
        let parked = self.meta().parked;
        match self.storage.frame(self.outbox.acked() + 1)? {
            Some(frame) if parked < PARKED_MAX => {
                self.storage.park(parked, frame)?;
                self.restart_producer(1, nonce, now)
            }
            _ => {
                self.outbox.on_failure(self.collector.meta(), now);
                Ok(())
            }
        }
    }

    /// Goes on as a new producer with the frames that are not acked, after the `parked` oldest of them.
    fn restart_producer(&mut self, parked: u64, nonce: u64, now: i64) -> Result<(), S::Error> {
        let base = self.outbox.acked() + parked;
        let producer = Producer::new(nonce, self.meta().producer.shard());
        let producer = producer.map_err(|error| self.storage.broken(error.to_string()))?;
        self.collector.restart_producer(producer, base, parked);
        for n in base + 1..self.meta().next_frame {
            let frame = self.storage.frame(n)?.ok_or_else(|| self.storage.broken(format!("frame {n} is not there")))?;
            let frame = self.collector.readopt(n, &frame).map_err(|error| self.storage.broken(error.to_string()))?;
            self.storage.put_frame(n, frame)?;
        }
        self.outbox.on_restart(base, now);
        self.storage.put_meta(self.meta())
    }

    /// How it is.
    pub fn health(&self, now: i64) -> Health {
        let meta = self.meta();
        Health {
            commits: self.log_next,
            frames: meta.next_frame - 1,
            log_rows: self.log_next - meta.folded_through,
            outbox_frames: meta.next_frame - 1 - self.outbox.acked(),
            parked: meta.parked,
            nonce: meta.producer.nonce(),
            ids_in_memory: self.collector.ids_in_memory(),
            ids_spilled: meta.spilled,
            config_version: self.configs.version(),
            unreadable_configs: self.collector.unreadable_configs(),
            watched: self.watching.clients().count(),
            promoted: self.quotas.promoted(now),
        }
    }
}

fn read_spilled<S: Storage>(storage: &S, n: u64) -> Result<SpilledRow, S::Error> {
    Ok(storage.spilled(n)?.unwrap_or_else(|| SpilledRow::empty(n)))
}
