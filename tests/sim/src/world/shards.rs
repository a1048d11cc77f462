//! Shards: what their host does for them, on disks that fail, until they die.

use std::collections::{BTreeMap, VecDeque};

use catchment_cells::ClientId;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::credential::Identity;
use catchment_cells::route::place;
use catchment_collector::limits::{FUTURE_MS, LATENESS_MS};
use catchment_collector::shard::{Post, Refused};
use catchment_collector::{Capacity, Claims, Hop, IdsBounds, Outcome, OverQuota, Verdict, Visitor};

use super::senders::{Answer, Request, Sender};
use super::{Next, RELAY_TIMEOUT, World};
use crate::shard::{self, Rows, RowsError};

/// What a shard answers when it has committed.
#[derive(Debug)]
pub(super) struct Reply {
    request: Request,
    client: ClientId,
    level: u8,
}

type Core = shard::Core<Reply>;

pub(super) struct ShardHost {
    pub(super) hop: Hop,
    pub(super) region: usize,
    pub(super) rows: Rows,
    pub(super) core: Option<Core>,
    pub(super) life: u64,
    pub(super) skew: i64,
    /// Batches of the disk that were begun, and that are synced, in this life.
    pub(super) begun: u64,
    pub(super) synced: u64,
    /// What leaves once its batch is synced.
    pub(super) gated: VecDeque<(u64, Output)>,
    pub(super) alarm_at: Option<i64>,
    pub(super) posting: Option<(u64, u64, usize)>,
    /// When the last POST left.
    pub(super) posted_at: i64,
}

pub(super) enum Output {
    Answer(Request, Answer),
    Post(u64, Vec<u8>),
}

impl World {
    /// The shard that a route leads to, which may be new, and the client's level there; or the answer where its map has ended.
    fn shard_of(&mut self, request: &Request) -> Result<Result<(usize, u8), Answer>, String> {
        let Sender { client, backfill, .. } = &self.senders[request.sender];
        let (client, backfill) = (client.clone(), *backfill);
        let map = self.maps.iter().find(|(map, _)| map.epoch.map() == request.route.epoch.map());
        let Some((map, until)) = map else { return Err(format!("no map of {}", request.route)) };
        if self.now >= *until {
            return Ok(Err(Answer::UnknownEpoch(self.map().epoch, self.now - until)));
        }
        let placement = place(map, &client, &request.route, backfill).map_err(|error| error.to_string())?;
        let level = placement.level;
        if map.epoch != self.map().epoch {
            self.saw("a route of an earlier map");
        }
        if level > 0 {
            self.saw("a client's own shard");
        }
        if let Some(n) = self.shards.iter().position(|shard| shard.hop.placement.shard == placement.shard) {
            return Ok(Ok((n, level)));
        }
        let region = self.regions.iter().position(|region| *region == placement.region).unwrap_or(0);
        let claims = Claims { client, identity: Identity::User, backfill, ignore_foreign_client: false };
        self.shards.push(ShardHost {
            hop: Hop { placement, claims, generation: 1, visitor: Visitor::default() },
            region,
            rows: Rows::default(),
            core: None,
            life: 0,
            skew: 0,
            begun: 0,
            synced: 0,
            gated: VecDeque::new(),
            alarm_at: None,
            posting: None,
            posted_at: 0,
        });
        Ok(Ok((self.shards.len() - 1, level)))
    }

    fn clock(&self, shard: usize) -> i64 {
        self.now + self.shards[shard].skew
    }

    /// Begins a turn of a shard: its writes are one batch.
    fn turn(&mut self, shard: usize) {
        let refuse = self.chance(|weather| weather.refuse);
        let damage = self.chance(|weather| weather.damage);
        let host = &mut self.shards[shard];
        host.rows.set_fails(refuse);
        if damage {
            host.rows.set_damages();
        }
        host.rows.disk().borrow_mut().begin();
        host.begun += 1;
    }

    /// Ends a turn: what it wrote is committed after a while, and then what it said leaves. Or it dies.
    fn end(&mut self, shard: usize) {
        self.shards[shard].rows.set_fails(false);
        if self.chance(|weather| weather.reset) {
            self.saw("a shard dies");
            self.reset(shard);
            return;
        }
        let (life, batch) = (self.shards[shard].life, self.shards[shard].begun);
        let wait = self.random.between(0, self.weather.commit);
        self.at(wait, Next::Commit { shard, life, batch });
        self.set_alarm(shard);
    }

    /// A shard dies: what is not committed is lost, and what waits for that never leaves.
    pub(super) fn reset(&mut self, shard: usize) {
        let host = &mut self.shards[shard];
        let unsynced = host.rows.disk().borrow().unsynced();
        host.rows.disk().borrow_mut().lose(unsynced);
        host.core = None;
        host.life += 1;
        (host.begun, host.synced) = (0, 0);
        host.gated.clear();
        host.alarm_at = None;
        host.posting = None;
        let wait = self.random.between(0, 5_000);
        self.at(wait, Next::Reload(shard));
    }

    pub(super) fn synced(&mut self, shard: usize, batch: u64) -> Result<(), String> {
        let host = &mut self.shards[shard];
        if batch > host.synced {
            host.rows.disk().borrow_mut().sync((batch - host.synced) as usize);
            host.synced = batch;
        }
        let (life, synced) = (host.life, host.synced);
        let leaves = host.gated.iter().take_while(|(at, _)| *at <= synced).count();
        let outputs: Vec<_> = host.gated.drain(..leaves).collect();
        for (_, output) in outputs {
            self.release(shard, life, output)?;
        }
        Ok(())
    }

    fn release(&mut self, shard: usize, life: u64, output: Output) -> Result<(), String> {
        match output {
            Output::Answer(request, answer) => {
                if let Answer::Taken(outcome, _) = &answer {
                    self.account(shard, &request, outcome)?;
                }
                let Request { sender, number, .. } = request;
                self.send(Next::Answer { sender, request: number, answer }, None);
            }
            Output::Post(post, frames) => {
                let again = Next::Relay { shard, life, post, frames: frames.clone() };
                self.shards[shard].posted_at = self.now;
                self.send(Next::Relay { shard, life, post, frames }, Some(again));
                self.at(RELAY_TIMEOUT, Next::Timeout { shard, life, post });
            }
        }
        Ok(())
    }

    /// Notes what a shard says of a request, and whether it has cause to: it leaves, and is durable.
    fn account(&mut self, shard: usize, request: &Request, outcome: &Outcome) -> Result<(), String> {
        let client = self.senders[request.sender].client.clone();
        let mut count = |reason, n| *self.tally.entry((client.clone(), reason)).or_default() += n;
        count("accepted", outcome.accepted);
        count("duplicate", outcome.duplicates);
        outcome.rejected.iter().for_each(|rejected| count(rejected.reason, 1));
        if outcome.duplicates > 0 {
            self.saw("duplicate");
        }
        let rejected: BTreeMap<usize, &str> = outcome.rejected.iter().map(|it| (it.index, it.reason)).collect();
        for (index, &n) in request.events.iter().enumerate() {
            let Some(&reason) = rejected.get(&index) else {
                self.events[n].kept.push((shard, self.now));
                continue;
            };
            // As old as it may seem to a clock that is off, or was while it never goes back.
            let age = self.now - self.events[n].time() + self.weather.skew_max;
            let (seen, has_cause) = match reason {
                "too_late" => ("too late", age > LATENESS_MS && !self.senders[request.sender].backfill),
                "future" => ("future", age - 2 * self.weather.skew_max - RELAY_TIMEOUT * 6 < -FUTURE_MS),
                _ => ("malformed", self.events[n].malformed),
            };
            if !has_cause {
                return Err(format!("event {} is rejected without cause: {reason}", self.events[n].id));
            }
            self.saw(seen);
        }
        Ok(())
    }

    /// Has a shard do something in one transaction, as its host does.
    fn transact<T>(
        &mut self,
        shard: usize,
        work: impl FnOnce(&mut Core) -> Result<T, RowsError>,
    ) -> Result<Option<T>, String> {
        let host = &mut self.shards[shard];
        let Some(mut core) = host.core.take() else { return Ok(None) };
        host.rows.disk().borrow_mut().begin();
        host.begun += 1;
        match work(&mut core) {
            Ok(value) => {
                self.shards[shard].core = Some(core);
                Ok(Some(value))
            }
            Err(RowsError::Failed) => {
                host.rows.disk().borrow_mut().lose(1);
                host.begun -= 1;
                host.posting = None;
                self.saw("a transaction fails");
                self.at(5_000, Next::Reload(shard));
                Ok(None)
            }
            Err(RowsError::Broken(what)) => Err(format!("{}: {what}", self.shards[shard].hop.placement.shard)),
        }
    }

    pub(super) fn load(&mut self, shard: usize) -> Result<(), String> {
        if self.shards[shard].core.is_none() {
            self.load_for(shard, false)?;
            self.set_alarm(shard);
        }
        Ok(())
    }

    fn load_for(&mut self, shard: usize, request: bool) -> Result<(), String> {
        let (nonce, now) = (self.random.bits(), self.clock(shard));
        let host = &mut self.shards[shard];
        if host.core.is_some() {
            return Ok(());
        }
        let first = request.then_some((&host.hop, nonce));
        let capacity = Capacity { requests_per_s: self.weather.requests_per_s };
        match Core::load_bounded(host.rows.clone(), &self.secret, capacity, self.weather.ids, first, now) {
            Ok(core) => host.core = core,
            Err(RowsError::Failed) => self.at(5_000, Next::Reload(shard)),
            Err(RowsError::Broken(what)) => return Err(format!("{}: {what}", host.hop.placement.shard)),
        }
        Ok(())
    }

    /// A request reaches its shard.
    pub(super) fn arrive(&mut self, request: Request) -> Result<(), String> {
        let (shard, level) = match self.shard_of(&request)? {
            Ok(place) => place,
            Err(answer) => {
                self.saw("an unknown map");
                let Request { sender, number, again, .. } = request;
                if !again {
                    self.send(Next::Answer { sender, request: number, answer }, None);
                }
                return Ok(());
            }
        };
        request.events.iter().for_each(|&event| self.events[event].shards.push(shard));
        self.turn(shard);
        self.load_for(shard, true)?;
        if let Some(answer) = self.take_in(shard, &request, level)? {
            self.gate(shard, Output::Answer(request, answer));
        }
        self.end(shard);
        Ok(())
    }

    /// Has a request wait for its commit, or says why not.
    fn take_in(&mut self, shard: usize, request: &Request, level: u8) -> Result<Option<Answer>, String> {
        let now = self.clock(shard);
        let Sender { client, backfill, .. } = &self.senders[request.sender];
        let (client, backfill) = (client.clone(), *backfill);
        let claims =
            Claims { client: client.clone(), identity: Identity::User, backfill, ignore_foreign_client: false };
        let (body, epoch) = (self.body(request).into_bytes(), self.map().epoch);
        let Some(core) = &mut self.shards[shard].core else { return Ok(Some(Answer::Refused)) };
        let events = match core.read(claims, Visitor::default(), level, body, now) {
            Ok(events) => events,
            Err(Refused::Body(_)) => {
                self.saw("a request is refused");
                return Ok(Some(Answer::Refused));
            }
            Err(Refused::OverQuota(OverQuota { retry_after_ms })) => {
                let epoch = epoch.at_level(core.level(&client, level, now));
                self.saw("over quota");
                return Ok(Some(Answer::OverQuota { retry_after_ms, epoch }));
            }
            Err(refused @ (Refused::OverLimit(_) | Refused::Revoked)) => return Err(refused.to_string()),
        };
        if core.overflows(&events) {
            self.commit_group(shard)?;
        }
        let is_full = |core: &Core| !core.has_room_for(events.len());
        if self.shards[shard].core.as_ref().is_some_and(is_full) {
            self.transact(shard, |core| core.cut(now).and_then(|()| core.forget_expired(now)))?;
        }
        let Some(core) = &mut self.shards[shard].core else { return Ok(Some(Answer::Refused)) };
        if is_full(core) {
            self.saw("senders are turned away");
            return Ok(Some(Answer::Refused));
        }
        core.submit(events, Reply { request: request.clone(), client, level });
        match core.group_ends_in(now) {
            Some(wait) => {
                let life = self.shards[shard].life;
                self.at(wait.as_millis() as i64, Next::Group { shard, life });
            }
            None => self.commit_group(shard)?,
        }
        Ok(None)
    }

    fn body(&self, request: &Request) -> String {
        let events: Vec<String> = request.events.iter().map(|&event| self.events[event].json()).collect();
        let events = format!("[{}]", events.join(","));
        let mut body = match request.sent_at {
            Some(at) => format!(r#"{{"sent_at":{at},"events":{events}}}"#),
            None => events,
        };
        if request.broken {
            body.truncate(body.len() / 2);
        }
        body
    }

    fn gate(&mut self, shard: usize, output: Output) {
        let host = &mut self.shards[shard];
        host.gated.push_back((host.begun, output));
    }

    pub(super) fn commit(&mut self, shard: usize) -> Result<(), String> {
        self.turn(shard);
        self.commit_group(shard)?;
        self.end(shard);
        Ok(())
    }

    fn commit_group(&mut self, shard: usize) -> Result<(), String> {
        let now = self.clock(shard);
        if self.shards[shard].core.is_none() {
            return Ok(());
        }
        let looked_up = self.shards[shard].rows.used().spilled_read;
        let committed = self.transact(shard, |core| Ok((core.commit(now)?, core.is_cut_due())))?;
        if self.shards[shard].rows.used().spilled_read > looked_up {
            self.saw("spilled ids are looked up");
        }
        let Some((outcomes, due)) = committed else {
            self.saw("a commit fails");
            return Ok(());
        };
        let epoch = self.map().epoch;
        for (Reply { request, client, level }, outcome) in outcomes {
            let Some(core) = &self.shards[shard].core else { continue };
            let epoch = epoch.at_level(core.level(&client, level, now));
            self.gate(shard, Output::Answer(request, Answer::Taken(outcome, epoch)));
        }
        if due {
            self.transact(shard, |core| core.cut(now))?;
        }
        Ok(())
    }

    fn set_alarm(&mut self, shard: usize) {
        let now = self.clock(shard);
        let host = &self.shards[shard];
        let Some(at) = host.core.as_ref().and_then(|core| core.due_at(now)) else { return };
        if host.alarm_at.is_none_or(|pending| at < pending) {
            let life = host.life;
            self.shards[shard].alarm_at = Some(at);
            self.at(at - now, Next::Alarm { shard, life, at });
        }
    }

    /// Cuts what is due and ships what waits.
    pub(super) fn ship(&mut self, shard: usize) -> Result<(), String> {
        self.turn(shard);
        self.load_for(shard, false)?;
        let now = self.clock(shard);
        if self.shards[shard].core.as_ref().is_some_and(|core| core.cut_at(now).is_some_and(|at| at <= now)) {
            let ids = |host: &ShardHost| host.core.as_ref().map(|core| (core.meta().ids_first, core.meta().spilled));
            let before = ids(&self.shards[shard]);
            self.transact(shard, |core| core.cut(now))?;
            if let (Some((first, spilled)), Some((first_before, spilled_before))) = (ids(&self.shards[shard]), before) {
                // A shard that never spills forgets what is no longer in its ring.
                if first > first_before && self.weather.ids == IdsBounds::default() {
                    self.saw("ids are forgotten");
                }
                if spilled < spilled_before {
                    self.saw("spilled ids are forgotten");
                }
            }
        }
        if self.shards[shard]
            .core
            .as_ref()
            .is_some_and(|core| core.health(now).log_rows > 0 && core.cut_at(now).is_none())
        {
            self.saw("an outbox is full");
        }
        if let Some(core) = &mut self.shards[shard].core {
            match core.post(now) {
                Ok(Some(Post { first, frames, count, .. })) => {
                    self.requests += 1;
                    let post = self.requests;
                    self.shards[shard].posting = Some((post, first, count));
                    self.gate(shard, Output::Post(post, frames));
                }
                Ok(None) => {}
                Err(RowsError::Failed) => {}
                Err(RowsError::Broken(what)) => return Err(what),
            }
        }
        self.end(shard);
        Ok(())
    }

    /// Acks come back to a shard, or none do.
    pub(super) fn judge(&mut self, shard: usize, life: u64, post: u64, acks: Vec<Ack>) -> Result<(), String> {
        let host = &self.shards[shard];
        let Some((at, first, count)) = host.posting else { return Ok(()) };
        if host.life != life || at != post {
            return Ok(());
        }
        self.turn(shard);
        self.shards[shard].posting = None;
        let (nonce, now) = (self.random.bits(), self.clock(shard));
        let judged = self.transact(shard, |core| core.judge(acks, first, count, nonce, now))?;
        for judgement in judged.unwrap_or_default() {
            match judgement.verdict {
                Verdict::Park(Status::Fork) => self.saw("a fork is parked"),
                Verdict::Park(_) => self.saw("a frame is parked"),
                Verdict::Restart => self.saw("a producer restarts"),
                Verdict::Next | Verdict::Resend => {}
            }
        }
        self.end(shard);
        Ok(())
    }
}
