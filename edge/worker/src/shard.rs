//! A shard: the Durable Object around the collector.
//!
//! A request waits for its group's commit: one row of the log, then memory, then the answers, which the platform holds until
//! the row is durable. If a commit fails after all, the platform resets the object, so that memory never runs ahead. One alarm drives the
//! rest: it is set, in the commit's own turn, whenever something waits to be cut or shipped, so that a shard that dies goes on by itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use catchment_cells::ClientId;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::frame::Producer;
use catchment_cells::limits::POST_BYTES_MAX;
use catchment_cells::route::is_backfill;
use catchment_collector::limits::{LOG_ROW_BYTES, LOG_ROW_EVENTS, LOG_ROWS_MAX, PARKED_MAX};
use catchment_collector::{
    Collector, HOP_HEADER, Hop, LogRow, Meta, Outbox, Outcome, Request as Events, RequestError, Verdict, Watching,
};
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use serde::Serialize;
use worker::{
    Date, Delay, DurableObject, Env, Method, Request, Response, Result, State, console_error, console_warn,
    durable_object,
};

use crate::answer::{Refusal, accepted, count_parked, json};
use crate::config::Config;
use crate::edge;
use crate::shipping::{ShippingError, post};
use crate::storage::{Storage, StorageError};

/// How long requests are collected for one commit, in ms, counted from the last commit: an idle shard commits at once.
const GROUP_MS: i64 = 50;
/// How long events wait for a cut, in ms; while the home can't be reached, when more frames would only fill the outbox, longer.
const CUT_MS: i64 = 200;
const CUT_MS_FAILING: i64 = 60_000;
/// The least time between two cuts while nobody watches, in ms. The first event after a quiet time doesn't wait: someone may have
/// begun to watch, which its ack tells.
const CUT_EVERY_MS: i64 = 5_000;
/// How long a shard whose storage failed waits before it is rebuilt, in ms, unless a request comes.
const REBUILD_MS: i64 = 5_000;
/// How often senders should flush, in ms: while someone watches, and while nobody does.
const FLUSH_MS_WATCHED: u32 = 500;
const FLUSH_MS: u32 = 5_000;
/// Frames in one POST.
const POST_FRAMES_MAX: u64 = 64;
/// How long one alarm may go on shipping, in ms, before it hands over to the next.
const ALARM_MS: i64 = 60_000;

/// One shard.
#[durable_object(alarm)]
pub struct Shard {
    state: State,
    env: Env,
    core: RefCell<Option<Core>>,
}

/// What a shard has in memory. Never borrowed across an await.
#[derive(Debug)]
struct Core {
    storage: Storage,
    collector: Collector,
    outbox: Outbox,
    watching: Watching,
    log_next: u64,
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    waiting_events: usize,
    committed_at: i64,
    /// 0 after a restart.
    last_cut_at: i64,
    /// When the alarm will ring, as far as is known.
    alarm_at: Option<i64>,
}

/// A request that waits for its commit.
#[derive(Debug)]
struct Waiting {
    events: Events,
    reply: oneshot::Sender<Outcome>,
}

/// How a shard is, for its operator.
#[derive(Debug, Default, Serialize)]
struct Health {
    /// Rows of the log that are not cut.
    log_rows: u64,
    /// Frames that are not acked.
    outbox_frames: u64,
    /// Frames that their home refused for good.
    parked: u64,
    /// The producer's nonce.
    nonce: u64,
    /// Clients that someone looks at.
    watched: usize,
}

impl DurableObject for Shard {
    fn new(state: State, env: Env) -> Self {
        let shard = Shard { state, env, core: RefCell::new(None) };
        // A shard without storage gets its name with its first request; one whose storage fails tries again then.
        if let Ok(config) = edge::config(&shard.env)
            && let Err(error) = shard.load(&config, None)
        {
            console_error!("a shard can't be rebuilt: {error}");
        }
        shard
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let answer = match request.method() {
            Method::Get => Ok(json(200, &[], &self.health())),
            _ => self.take(request).await,
        };
        Ok(answer.unwrap_or_else(|refusal| refusal.counted().response()))
    }

    /// Cuts what is due and ships what waits. Never throws: the platform would give it up after some tries.
    async fn alarm(&self) -> Result<Response> {
        if let Some(core) = &mut *self.core.borrow_mut() {
            core.alarm_at = None;
        }
        if let Ok(config) = edge::config(&self.env) {
            match self.load(&config, None) {
                Ok(()) => self.ship(&config).await,
                Err(error) => console_error!("a shard can't be rebuilt: {error}"),
            }
        }
        self.set_alarm(now());
        Response::empty()
    }
}

impl Shard {
    /// Rebuilds memory from storage; a shard whose storage is new takes its name and its region from its first request.
    fn load(&self, config: &Config, first: Option<&Hop>) -> Result<(), StorageError> {
        let mut core = self.core.borrow_mut();
        if core.is_some() {
            return Ok(());
        }
        let storage = Storage::open(&self.state.storage())?;
        let meta = match (storage.meta()?, first) {
            (Some(meta), _) => meta,
            (None, Some(hop)) => {
                let producer = Producer::new(nonce(), &hop.placement.shard);
                let producer = producer.map_err(|error| StorageError::Sql(error.to_string()))?;
                let meta = Meta::new(producer, &hop.placement.region);
                storage.put_meta(&meta)?;
                meta
            }
            (None, None) => return Ok(()),
        };
        let mut collector = Collector::new(config.secret.clone(), meta.clone());
        storage.read_ids(meta.ids_first, meta.ids_next, |row| collector.restore_ids(row))?;
        let mut log_next = meta.folded_through;
        let mut committed_at = 0;
        storage.read_log(meta.folded_through, |n, row| {
            collector.apply(&row);
            log_next = n + 1;
            committed_at = row.received_at;
        })?;
        *core = Some(Core {
            watching: Watching::default(),
            outbox: Outbox::new(&meta),
            storage,
            collector,
            log_next,
            waiting: Vec::new(),
            waiting_bytes: 0,
            waiting_events: 0,
            committed_at,
            last_cut_at: 0,
            alarm_at: None,
        });
        drop(core);
        // An alarm may be pending, and may not: the storage knows, memory no longer does.
        self.set_alarm(now());
        Ok(())
    }

    /// `POST /v1/events`: reads the request, waits for its commit, answers.
    async fn take(&self, mut request: Request) -> Result<Response, Refusal> {
        let config = edge::config(&self.env)?;
        let hop = request.headers().get(HOP_HEADER).ok().flatten().and_then(|header| Hop::from_header(&header));
        let hop = hop.ok_or(Refusal::NotFound)?;
        let body = request.bytes().await.map_err(|_| Refusal::Body(RequestError::Malformed))?;
        self.load(&config, Some(&hop)).map_err(|error| {
            console_error!("shard {} can't be rebuilt: {error}", hop.placement.shard);
            Refusal::Unavailable
        })?;
        let client = hop.claims.client.clone();
        let events = Events::read(hop.claims, hop.visitor, body).inspect_err(|_| {
            if let Some(core) = &mut *self.core.borrow_mut() {
                core.collector.count_refused(&client, now());
            }
            self.set_alarm(now());
        })?;
        let mut committed = self.submit(events)?;
        // Whoever's time is over first commits for all, so nobody hangs on another's request.
        match self.group_ends_in(now()) {
            Some(wait) => match select(&mut committed, Delay::from(wait)).await {
                Either::Left((outcome, _)) => return self.answer(&config, &client, outcome.ok()),
                Either::Right(_) => self.commit(now()),
            },
            None => self.commit(now()),
        }
        let outcome = committed.now_or_never().and_then(Result::ok);
        self.answer(&config, &client, outcome)
    }

    fn answer(&self, config: &Config, client: &ClientId, outcome: Option<Outcome>) -> Result<Response, Refusal> {
        let watched = self.core.borrow().as_ref().is_some_and(|core| core.watching.may_be_watched(client, now()));
        let flush_ms = if watched { FLUSH_MS_WATCHED } else { FLUSH_MS };
        outcome.map(|outcome| accepted(&outcome, flush_ms, config.map.epoch)).ok_or(Refusal::Unavailable)
    }

    /// Puts a request into the group that waits.
    fn submit(&self, events: Events) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let overflows = |core: &Core| {
            core.waiting_bytes + events.bytes() > LOG_ROW_BYTES || core.waiting_events + events.len() > LOG_ROW_EVENTS
        };
        if self.core.borrow().as_ref().is_some_and(overflows) {
            self.commit(now());
        }
        let is_full = |core: &Core| !core.has_room_for(events.len());
        if self.core.borrow().as_ref().is_some_and(is_full) {
            // A cut, and ids that are too late by now, may make room.
            self.transact(|core| core.cut(now()).and_then(|()| core.forget_expired(now())));
        }
        let mut core = self.core.borrow_mut();
        let core = core.as_mut().ok_or(Refusal::Unavailable)?;
        if is_full(core) {
            return Err(Refusal::Full);
        }
        let (reply, committed) = oneshot::channel();
        core.waiting_bytes += events.bytes();
        core.waiting_events += events.len();
        core.waiting.push(Waiting { events, reply });
        Ok(committed)
    }

    /// How long the group may still wait; `None`: no longer.
    fn group_ends_in(&self, now: i64) -> Option<Duration> {
        let wait = self.core.borrow().as_ref().map_or(0, |core| core.committed_at + GROUP_MS - now);
        (wait > 0).then(|| Duration::from_millis(wait.min(GROUP_MS) as u64))
    }

    /// Commits the requests that wait: storage first, then memory, then the answers.
    fn commit(&self, now: i64) {
        let mut borrowed = self.core.borrow_mut();
        let Some(core) = borrowed.as_mut().filter(|core| !core.waiting.is_empty()) else { return };
        core.waiting_bytes = 0;
        core.waiting_events = 0;
        let (requests, replies): (Vec<_>, Vec<_>) =
            std::mem::take(&mut core.waiting).into_iter().map(|waiting| (waiting.events, waiting.reply)).unzip();
        // Time never goes back, whatever the clock does.
        let row = LogRow { received_at: now.max(core.committed_at), requests };
        core.committed_at = row.received_at;
        if let Err(error) = core.storage.put_log(core.log_next, &row) {
            console_error!("requests are refused: {error}");
            return;
        }
        core.log_next += 1;
        for (reply, outcome) in replies.into_iter().zip(core.collector.apply(&row)) {
            // Whoever has gone needs no answer.
            let _ = reply.send(outcome);
        }
        let due = core.collector.is_cut_due();
        drop(borrowed);
        if due {
            self.transact(move |core| core.cut(now));
        }
        self.set_alarm(now);
    }

    /// Cuts and ships until nothing is due.
    async fn ship(&self, config: &Config) {
        let started = now();
        while now() - started < ALARM_MS {
            let at = now();
            if self.core.borrow().as_ref().is_some_and(|core| core.cut_at(at).is_some_and(|cut_at| cut_at <= at)) {
                self.transact(move |core| core.cut(at));
            }
            let batch = self.core.borrow().as_ref().and_then(|core| core.batch(at));
            let Some(Batch { home, first, frames, count }) = batch else { return };
            let acks = match config.relay(&home) {
                Some(relay) => post(relay, &config.relay_token, &frames).await,
                None => Err(ShippingError::NoRelay(home)),
            };
            self.transact(move |core| core.judge(acks, first, count, now()));
        }
    }

    /// Changes memory and storage together: all or nothing. Where storage fails, memory is rebuilt from it by the next request.
    fn transact(&self, work: impl FnOnce(&mut Core) -> Result<(), StorageError> + 'static) {
        let Some(mut core) = self.core.take() else { return };
        let done = Rc::new(RefCell::new(None));
        let slot = done.clone();
        let storage = core.storage.clone();
        let result = storage.transaction(move || {
            work(&mut core)?;
            slot.replace(Some(core));
            Ok(())
        });
        match result {
            Ok(()) => {
                self.core.replace(done.take());
            }
            Err(error) => {
                console_error!("a shard is rebuilt: {error}");
                self.set_alarm(now());
            }
        }
    }

    /// Sets the alarm for what is due next, if none rings before. The call reaches the platform in this turn, together with
    /// the writes that it is for; its promise tells nothing that is needed.
    fn set_alarm(&self, now: i64) {
        let mut core = self.core.borrow_mut();
        let at = match core.as_mut() {
            Some(core) => match core.due_at(now) {
                Some(at) if core.alarm_at.is_none_or(|pending| at < pending) => {
                    core.alarm_at = Some(at);
                    at
                }
                _ => return,
            },
            // Storage failed: rebuilding is due.
            None => now + REBUILD_MS,
        };
        if let Some(Err(error)) = self.state.storage().set_alarm((at - now).max(0)).now_or_never() {
            console_error!("the alarm can't be set: {error}");
        }
    }

    fn health(&self) -> Health {
        let core = self.core.borrow();
        let Some(core) = core.as_ref() else { return Health::default() };
        let meta = core.collector.meta();
        Health {
            log_rows: core.log_next - meta.folded_through,
            outbox_frames: meta.next_frame - 1 - core.outbox.acked(),
            parked: meta.parked,
            nonce: meta.producer.nonce(),
            watched: core.watching.clients().count(),
        }
    }
}

/// Frames for one POST.
struct Batch {
    home: String,
    /// The number of the first.
    first: u64,
    frames: Vec<u8>,
    count: usize,
}

impl Core {
    /// When what waits is to be cut; `None` while nothing waits, or the outbox has no room.
    fn cut_at(&self, now: i64) -> Option<i64> {
        let since = self.collector.waits_since()?;
        if self.outbox.is_full(self.collector.meta()) {
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

    /// When something is to be done.
    fn due_at(&self, now: i64) -> Option<i64> {
        self.cut_at(now).into_iter().chain(self.outbox.send_at(self.collector.meta())).min()
    }

    /// Whether so many more events may wait: what is due to be cut could be, and log and ids have room.
    fn has_room_for(&self, events: usize) -> bool {
        let rows = self.log_next - self.collector.meta().folded_through;
        !self.collector.is_cut_due() && rows < LOG_ROWS_MAX && self.collector.has_room_for(self.waiting_events + events)
    }

    /// Forgets the ids of events that would be too late by now.
    fn forget_expired(&mut self, now: i64) -> Result<(), StorageError> {
        let backfill = is_backfill(self.collector.meta().producer.shard());
        let mut forgotten = false;
        while let Some(n) = self.collector.expired_ids(now, backfill) {
            let row = self.storage.ids(n)?.ok_or_else(|| StorageError::Sql(format!("row {n} of ids is not there")))?;
            self.collector.forget(&row);
            forgotten = true;
        }
        if forgotten { self.storage.put_meta(self.collector.meta()) } else { Ok(()) }
    }

    /// Makes frames of what waits, in one transaction with the ids and the log's position.
    fn cut(&mut self, now: i64) -> Result<(), StorageError> {
        if self.outbox.is_full(self.collector.meta()) {
            return Ok(());
        }
        self.last_cut_at = now;
        self.forget_expired(now)?;
        let room = self.outbox.room(self.collector.meta());
        let Some(cut) = self.collector.cut(now, self.log_next, self.outbox.acked()) else { return Ok(()) };
        if cut.frames.len() as u64 > room {
            return Err(StorageError::Sql(format!("a cut of {} frames", cut.frames.len())));
        }
        for frame in cut.frames {
            self.storage.put_frame(frame.number, frame.bytes)?;
            self.watching.on_cut(frame.number, frame.clients);
        }
        if let Some(row) = &cut.ids {
            self.storage.put_ids(row)?;
        }
        self.storage.put_meta(&cut.meta)
    }

    /// The frames to send now, if any.
    fn batch(&self, now: i64) -> Option<Batch> {
        let meta = self.collector.meta();
        self.outbox.send_at(meta).filter(|&at| at <= now)?;
        let first = self.outbox.acked() + 1;
        let mut batch = Batch { home: meta.home.clone(), first, frames: Vec::new(), count: 0 };
        for n in first..meta.next_frame.min(first + POST_FRAMES_MAX) {
            let frame = match self.storage.frame(n) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    console_error!("frame {n} of {} is not there", meta.producer.shard());
                    break;
                }
                Err(error) => {
                    console_error!("frame {n} of {} can't be read: {error}", meta.producer.shard());
                    break;
                }
            };
            if batch.frames.len() + frame.len() + 4 > POST_BYTES_MAX {
                break;
            }
            batch.frames.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            batch.frames.extend_from_slice(&frame);
            batch.count += 1;
        }
        Some(batch)
    }

    /// Does what the acks of a POST of `count` frames from number `first` on ask for.
    fn judge(
        &mut self,
        acks: Result<Vec<Ack>, ShippingError>,
        first: u64,
        count: usize,
        now: i64,
    ) -> Result<(), StorageError> {
        let shard = self.collector.meta().producer.shard().to_owned();
        let acks = match acks {
            Ok(acks) if acks.len() == count && count > 0 => acks,
            other => {
                console_warn!("frames of {shard} wait: {}", other.err().unwrap_or(ShippingError::Answer));
                self.outbox.on_failure(self.collector.meta(), now);
                return Ok(());
            }
        };
        for (number, ack) in (first..).zip(acks) {
            let verdict = self.outbox.on_ack(self.collector.meta(), number, &ack, now);
            if ack.status != Status::Stored {
                console_warn!("a frame of {shard}: {} ({}): {verdict:?}", ack.status.as_str(), ack.detail);
            }
            match verdict {
                Verdict::Next if ack.status == Status::Stored => self.watching.on_ack(number, ack.watched, now),
                Verdict::Next => {}
                Verdict::Resend => return Ok(()),
                Verdict::Restart => return self.restart_producer(0, now),
                Verdict::Park(status) => return self.park(status, now),
            }
        }
        Ok(())
    }

    /// Keeps the oldest frame that is not acked aside.
    fn park(&mut self, status: Status, now: i64) -> Result<(), StorageError> {
        let parked = self.collector.meta().parked;
        match self.storage.frame(self.outbox.acked() + 1)? {
            Some(frame) if parked < PARKED_MAX => {
                self.storage.park(parked, frame)?;
                count_parked(status);
                self.restart_producer(1, now)
            }
            // Nothing is thrown away: the backlog grows to its bound, and says so.
            _ => {
                console_error!("{} can't park a frame", self.collector.meta().producer.shard());
                self.outbox.on_failure(self.collector.meta(), now);
                Ok(())
            }
        }
    }

    /// Goes on as a new producer with the frames that are not acked, after the `parked` oldest of them.
    fn restart_producer(&mut self, parked: u64, now: i64) -> Result<(), StorageError> {
        let base = self.outbox.acked() + parked;
        let producer = Producer::new(nonce(), self.collector.meta().producer.shard());
        let producer = producer.map_err(|error| StorageError::Sql(error.to_string()))?;
        self.collector.restart_producer(producer, base, parked);
        for n in base + 1..self.collector.meta().next_frame {
            let frame = self.storage.frame(n)?.ok_or_else(|| StorageError::Sql(format!("frame {n} is not there")))?;
            let frame = self.collector.readopt(n, &frame).map_err(|error| StorageError::Sql(error.to_string()))?;
            self.storage.put_frame(n, frame)?;
        }
        self.outbox.on_restart(base, now);
        self.storage.put_meta(self.collector.meta())
    }
}

/// Now, in ms. The platform holds it still between I/O.
fn now() -> i64 {
    Date::now().as_millis() as i64
}

/// A number that no other storage of this shard has: 64 random bits.
fn nonce() -> u64 {
    let half = || (worker::js_sys::Math::random() * f64::from(u32::MAX)) as u64;
    half() << 32 | half()
}
