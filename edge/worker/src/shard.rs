//! A shard: the Durable Object around the collector.
//!
//! A request waits for its group's commit: one row of the log, then memory, then the answers, which the platform holds until
//! the row is durable. If a commit fails after all, the platform resets the object, so that memory never runs ahead. One alarm drives the
//! rest: it is set, in the commit's own turn, whenever something waits to be cut or shipped, so that a shard that dies goes on by itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use catchment_cells::ClientId;
use catchment_cells::ack::Ack;
use catchment_collector::shard::{Asked, Health, Judgement, Post, Refused};
use catchment_collector::{HOP_HEADER, Hop, Need, Outcome, OverQuota, Request as Events, RequestError, Verdict};
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use serde::Serialize;
use worker::{
    Delay, DurableObject, Env, Method, Request, Response, Result, State, console_error, console_warn, durable_object,
};

use crate::answer::{Refusal, accepted, count_parked, json};
use crate::config::Config;
use crate::edge::{self, SHARD_TIMEOUT, now};
use crate::shipping::{QUESTION_TIMEOUT, ShippingError, ask, post};
use crate::storage::{Storage, StorageError};

/// How long a shard whose storage failed waits before it is rebuilt, in ms, unless a request comes.
const REBUILD_MS: i64 = 5_000;
/// How long one alarm may go on shipping, in ms, before it hands over to the next.
const ALARM_MS: i64 = 60_000;

/// What a shard has in memory. Never borrowed across an await.
type Core = catchment_collector::Shard<Storage, oneshot::Sender<Outcome>>;

/// One shard.
#[durable_object(alarm)]
pub struct Shard {
    state: State,
    env: Env,
    core: RefCell<Option<Core>>,
    /// When the alarm will ring, as far as is known.
    alarm_at: Cell<Option<i64>>,
    /// When requests began that are not answered. The platform may let go of one without a word, whose place ends by itself.
    in_work: RefCell<VecDeque<i64>>,
    /// Requests that are held back until the POST that is under way has ended, which drops these.
    held: RefCell<Vec<oneshot::Sender<()>>>,
    /// Requests that wait for the answer to the question about configs that is under way, which drops these.
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    billed: Billed,
}

/// What the platform bills an object for, since it is in memory, beside its time and the rows of its storage.
#[derive(Debug, Default)]
struct Billed {
    requests: Cell<u64>,
    alarms: Cell<u64>,
    alarms_set: Cell<u64>,
}

/// What `GET /v1/shard` shows.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    health: Health,
    requests: u64,
    alarms: u64,
    alarms_set: u64,
    rows_written: u64,
}

impl DurableObject for Shard {
    fn new(state: State, env: Env) -> Self {
        let shard = Shard {
            state,
            env,
            core: RefCell::new(None),
            alarm_at: Cell::new(None),
            in_work: RefCell::default(),
            held: RefCell::new(Vec::new()),
            waiting: RefCell::new(Vec::new()),
            billed: Billed::default(),
        };
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
            Method::Get => Ok(json(200, &[], &self.show())),
            _ => {
                count(&self.billed.requests);
                self.in_work.borrow_mut().push_back(now());
                let answer = self.take(request).await;
                self.in_work.borrow_mut().pop_front();
                answer
            }
        };
        Ok(answer.unwrap_or_else(|refusal| refusal.counted().response()))
    }

    /// Cuts what is due and ships what waits. Never throws: the platform would give it up after some tries.
    async fn alarm(&self) -> Result<Response> {
        self.alarm_at.set(None);
        count(&self.billed.alarms);
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
    /// How it is, and what it is billed for.
    fn show(&self) -> Shown {
        let core = self.core.borrow();
        Shown {
            health: core.as_ref().map(|core| core.health(now())).unwrap_or_default(),
            requests: self.billed.requests.get(),
            alarms: self.billed.alarms.get(),
            alarms_set: self.billed.alarms_set.get(),
            rows_written: core.as_ref().map_or(0, |core| core.storage().rows_written()),
        }
    }

    /// Rebuilds memory from storage; a shard whose storage is new takes its name and its region from its first request.
    fn load(&self, config: &Config, first: Option<&Hop>) -> Result<(), StorageError> {
        if self.core.borrow().is_some() {
            return Ok(());
        }
        let storage = Storage::open(&self.state.storage())?;
        let first = first.map(|hop| (hop, nonce()));
        let Some(core) = Core::load(storage, &config.secret, config.capacity, first, now())? else { return Ok(()) };
        self.core.replace(Some(core));
        // An alarm may be pending, and may not: the storage knows, memory no longer does.
        self.alarm_at.set(None);
        self.set_alarm(now());
        Ok(())
    }

    /// `POST /v1/events`: reads the request, waits for its commit, answers.
    async fn take(&self, mut request: Request) -> Result<Response, Refusal> {
        let config = edge::config(&self.env)?;
        let hop = request.headers().get(HOP_HEADER).ok().flatten().and_then(|header| Hop::from_header(&header));
        // None, while a Worker of another version passes it on: that one will follow, or we will.
        let hop = hop.ok_or(Refusal::Unavailable)?;
        self.hold().await;
        let body = request.bytes().await.map_err(|_| Refusal::Body(RequestError::Malformed))?;
        self.load(&config, Some(&hop)).map_err(|error| {
            console_error!("shard {} can't be rebuilt: {error}", hop.placement.shard);
            Refusal::Unavailable
        })?;
        let (client, level) = (hop.claims.client.clone(), hop.placement.level);
        self.have_config(&config, &client).await;
        let events = self.read(&config, hop, body).inspect_err(|_| self.set_alarm(now()))?;
        let mut committed = self.submit(events)?;
        // Whoever's time is over first commits for all, so nobody hangs on another's request.
        match self.group_ends_in(now()) {
            Some(wait) => match select(&mut committed, Delay::from(wait)).await {
                Either::Left((outcome, _)) => return self.answer(&config, &client, level, outcome.ok()),
                Either::Right(_) => self.commit(now()),
            },
            None => self.commit(now()),
        }
        let outcome = committed.now_or_never().and_then(Result::ok);
        self.answer(&config, &client, level, outcome)
    }

    /// Holds a request back, while shipping needs the turns.
    async fn hold(&self) {
        let in_work = {
            let mut in_work = self.in_work.borrow_mut();
            while in_work.front().is_some_and(|began| now() - began > SHARD_TIMEOUT.as_millis() as i64) {
                in_work.pop_front();
            }
            in_work.len()
        };
        let hold = self.core.borrow().as_ref().and_then(|core| core.hold(in_work, now()));
        let Some(wait) = hold else { return };
        let (go_on, held) = oneshot::channel();
        self.held.borrow_mut().push(go_on);
        select(held, Delay::from(wait)).await;
    }

    /// Has the present configs be in force for a request of a client. A home that is away holds it up for a while at most: then what is
    /// stored counts, or that nothing is.
    async fn have_config(&self, config: &Config, client: &ClientId) {
        let began = now();
        while now() - began < QUESTION_TIMEOUT.as_millis() as i64 {
            let need = self.core.borrow_mut().as_mut().map_or(Need::Nothing, |core| core.need_config(client, now()));
            match need {
                Need::Nothing => return,
                Need::Ask => self.ask_config(config).await,
                Need::Wait => {
                    let (go_on, answered) = oneshot::channel();
                    self.waiting.borrow_mut().push(go_on);
                    select(answered, Delay::from(QUESTION_TIMEOUT)).await;
                }
            }
        }
    }

    /// Asks the home about configs, and puts what it answers in force.
    async fn ask_config(&self, config: &Config) {
        let asked = self.core.borrow_mut().as_mut().map(|core| core.ask_config(nonce(), now()));
        let answer = match asked {
            None => return,
            Some(Err(error)) => {
                console_error!("configs can't be read: {error}");
                None
            }
            Some(Ok(Asked { home, question })) => {
                let answer = match config.relay(&home) {
                    Some(relay) => ask(relay, &config.relay_token, &question).await,
                    None => Err(ShippingError::NoRelay(home)),
                };
                answer.inspect_err(|error| console_warn!("configs aren't told: {error}")).ok()
            }
        };
        let wrong = self.transact(move |core| core.configure(answer.as_deref(), now()));
        if let Some(Some(wrong)) = wrong {
            console_error!("configs aren't taken: {wrong}");
        }
        self.waiting.take();
        // What was cut for them is to be sent.
        self.set_alarm(now());
    }

    /// Reads a request, if its client may have more of the shard.
    fn read(&self, config: &Config, hop: Hop, body: Vec<u8>) -> Result<Events, Refusal> {
        let mut core = self.core.borrow_mut();
        let core = core.as_mut().ok_or(Refusal::Unavailable)?;
        let (client, level) = (hop.claims.client.clone(), hop.placement.level);
        let checked = core.check(&client, hop.generation, level, now()).map_err(|error| {
            console_error!("a config can't be read: {error}");
            Refusal::Unavailable
        })?;
        // No sooner than it would be taken.
        let retry_after_s = |over: OverQuota| (over.retry_after_ms.max(1) + 999) as u32 / 1_000;
        let read = checked.and_then(|()| core.read(hop.claims, hop.visitor, level, body, now()));
        read.map_err(|refused| match refused {
            Refused::Body(error) => error.into(),
            Refused::Revoked => Refusal::Key,
            Refused::OverLimit(over) => Refusal::OverLimit { retry_after_s: retry_after_s(over) },
            Refused::OverQuota(over) => Refusal::OverQuota {
                retry_after_s: retry_after_s(over),
                epoch: config.map.epoch.at_level(core.level(&client, level, now())),
            },
        })
    }

    fn answer(
        &self,
        config: &Config,
        client: &ClientId,
        level: u8,
        outcome: Option<Outcome>,
    ) -> Result<Response, Refusal> {
        let mut core = self.core.borrow_mut();
        let (core, outcome) = core.as_mut().zip(outcome).ok_or(Refusal::Unavailable)?;
        let epoch = config.map.epoch.at_level(core.level(client, level, now()));
        Ok(accepted(&outcome, core.flush_ms(client, now()), epoch))
    }

    /// Puts a request into the group that waits.
    fn submit(&self, events: Events) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        if self.core.borrow().as_ref().is_some_and(|core| core.overflows(&events)) {
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
        core.submit(events, reply);
        Ok(committed)
    }

    /// How long the group may still wait; `None`: no longer.
    fn group_ends_in(&self, now: i64) -> Option<Duration> {
        self.core.borrow().as_ref().and_then(|core| core.group_ends_in(now))
    }

    /// Commits the requests that wait: storage first, then memory, then the answers.
    fn commit(&self, now: i64) {
        let committed = self.transact(move |core| Ok((core.commit(now)?, core.is_cut_due())));
        let Some((outcomes, due)) = committed else { return };
        for (reply, outcome) in outcomes {
            // Whoever has gone needs no answer.
            let _ = reply.send(outcome);
        }
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
            let next = self.core.borrow_mut().as_mut().map(|core| core.post(at));
            let Post { home, first, frames, count } = match next {
                None | Some(Ok(None)) => return,
                Some(Ok(Some(post))) => post,
                Some(Err(error)) => {
                    console_error!("frames can't be read: {error}");
                    self.judge(Vec::new(), 0, 0);
                    return;
                }
            };
            let acks = match config.relay(&home) {
                Some(relay) => post(relay, &config.relay_token, &frames).await,
                None => Err(ShippingError::NoRelay(home)),
            };
            let acks = acks.unwrap_or_else(|error| {
                console_warn!("frames wait: {error}");
                Vec::new()
            });
            self.judge(acks, first, count);
        }
    }

    /// Does what the acks of a POST ask for, and says what was out of the ordinary.
    fn judge(&self, acks: Vec<Ack>, first: u64, count: usize) {
        self.held.take();
        let judged = self.transact(move |core| {
            let parked = core.meta().parked;
            let judgements = core.judge(acks, first, count, nonce(), now())?;
            Ok((core.meta().producer.shard().to_owned(), judgements, core.meta().parked > parked))
        });
        let Some((shard, judgements, parked)) = judged else { return };
        for Judgement { status, detail, verdict } in judgements {
            console_warn!("a frame of {shard}: {} ({detail}): {verdict:?}", status.as_str());
            match verdict {
                Verdict::Park(status) if parked => count_parked(status),
                Verdict::Park(_) => console_error!("{shard} can't park a frame"),
                _ => {}
            }
        }
    }

    /// Changes memory and storage together: all or nothing. Where storage fails, memory is rebuilt from it by the next request.
    fn transact<T: 'static>(&self, work: impl FnOnce(&mut Core) -> Result<T, StorageError> + 'static) -> Option<T> {
        let mut core = self.core.take()?;
        let done = Rc::new(RefCell::new(None));
        let slot = done.clone();
        let storage = core.storage().clone();
        let result = storage.transaction(move || {
            let value = work(&mut core)?;
            slot.replace(Some((core, value)));
            Ok(())
        });
        match result {
            Ok(()) => {
                let (core, value) = done.take()?;
                self.core.replace(Some(core));
                Some(value)
            }
            Err(error) => {
                console_error!("a shard is rebuilt: {error}");
                self.set_alarm(now());
                None
            }
        }
    }

    /// Sets the alarm for what is due next, if none rings before. The call reaches the platform in this turn, together with
    /// the writes that it is for; its promise tells nothing that is needed.
    fn set_alarm(&self, now: i64) {
        let at = match &*self.core.borrow() {
            Some(core) => core.due_at(now),
            // Storage failed: rebuilding is due.
            None => Some(now + REBUILD_MS),
        };
        let Some(at) = at.filter(|at| self.alarm_at.get().is_none_or(|pending| *at < pending)) else { return };
        self.alarm_at.set(Some(at));
        count(&self.billed.alarms_set);
        if let Some(Err(error)) = self.state.storage().set_alarm((at - now).max(0)).now_or_never() {
            console_error!("the alarm can't be set: {error}");
        }
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// A number that no other storage of this shard has: 64 random bits.
fn nonce() -> u64 {
    let half = || (worker::js_sys::Math::random() * f64::from(u32::MAX)) as u64;
    half() << 32 | half()
}
