//! A run: senders, shards, the relay and aggregators in one loop under virtual time, until all is drained and checked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use bytes::Bytes;
use catchment_aggregator_core::LogRow;
use catchment_aggregator_core::tables::{Blocks, Bounds};
use catchment_cells::ack::{Ack, Status};
use catchment_cells::credential::Identity;
use catchment_cells::frame;
use catchment_cells::key::{CellKey, Tier};
use catchment_cells::limits::FRAME_BYTES_MAX;
use catchment_cells::route::{Epoch, PlacementMap, Region, Route, place};
use catchment_cells::{Cell, ClientId, Secret};
use catchment_collector::shard::Post;
use catchment_collector::{Capacity, Claims, Hop, IdsBounds, Outcome, Verdict, Visitor};

use crate::aggregator::{Aggregator, Died};
use crate::model::{self, Event, Tally};
use crate::random::Random;
use crate::shard::{Core, Reply, Rows, RowsError, damage};
use crate::weather::Weather;

/// When runs begin: 2024-01-01T06:40Z, in ms.
const START: i64 = 1_704_091_200_000;
/// How long a shard waits for a relay's answer, and a sender for a shard's, in ms.
const RELAY_TIMEOUT: i64 = 10_000;
const SENDER_TIMEOUT: i64 = 15_000;
/// How long a drain may take once nothing goes wrong any more, in ms, and how many steps a run.
const DRAIN_MS: i64 = 12 * 3_600_000;
const STEPS_MAX: u64 = 1_000_000;
/// More than a run's senders use: quotas refuse nobody here.
const CAPACITY: Capacity = Capacity { requests_per_s: 10_000 };
/// Lines of a failure's trace.
const TRACE_LINES: usize = 60;

/// What was seen in a run, by name.
pub type Seen = BTreeMap<&'static str, u64>;

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// What it saw.
    pub seen: Seen,
    /// Events that were acknowledged.
    pub acked: u64,
    /// Events that are counted.
    pub counted: u64,
    /// Steps.
    pub steps: u64,
}

/// A run that failed.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong.
    pub what: String,
    /// At which step.
    pub step: u64,
    /// The last events, if these were asked for.
    pub trace: VecDeque<String>,
}

/// What happens next.
#[derive(Debug)]
enum Next {
    Make,
    Send(usize),
    GiveUp { sender: usize, request: u64 },
    Arrive { sender: usize, request: u64, events: Vec<usize>, refused: bool },
    Answer { sender: usize, request: u64, outcome: Option<Outcome> },
    Group { shard: usize, life: u64 },
    Alarm { shard: usize, life: u64, at: i64 },
    Commit { shard: usize, life: u64, batch: u64 },
    Reload(usize),
    Relay { shard: usize, life: u64, post: u64, frames: Vec<u8> },
    Parcel { aggregator: usize, parcel: Parcel },
    Take(usize),
    Acks { shard: usize, life: u64, post: u64, acks: Vec<Ack> },
    Timeout { shard: usize, life: u64, post: u64 },
    Keep { aggregator: usize, life: u64 },
    Start(usize),
    Forward { region: usize, life: u64 },
    Settle { region: usize, life: u64, rows: Vec<LogRow>, answers: Vec<Option<Ack>> },
    Skew,
    Look,
    Calm,
}

/// Frames on their way to an aggregator, and where their acks go.
#[derive(Debug, Clone)]
struct Parcel {
    frames: Vec<Bytes>,
    back: Back,
}

#[derive(Debug, Clone)]
enum Back {
    /// To the relay, for a shard's POST: each frame's place in it, and how many there are.
    Shard { shard: usize, life: u64, post: u64, places: Vec<usize>, of: Vec<Ack> },
    /// To a region's forwarder.
    Region { region: usize, life: u64, rows: Vec<LogRow> },
}

struct Sender {
    client: ClientId,
    route: Route,
    queue: VecDeque<usize>,
    inflight: BTreeMap<u64, Vec<usize>>,
    failures: u32,
}

struct ShardHost {
    hop: Hop,
    region: usize,
    rows: Rows,
    core: Option<Core>,
    life: u64,
    skew: i64,
    /// Batches of the disk that were begun, and that are synced, in this life.
    begun: u64,
    synced: u64,
    /// What leaves once its batch is synced.
    gated: VecDeque<(u64, Output)>,
    alarm_at: Option<i64>,
    posting: Option<(u64, u64, usize)>,
}

enum Output {
    Answer(Reply, Option<Outcome>, ClientId),
    Post(u64, Vec<u8>),
}

/// A run.
pub struct World {
    now: i64,
    step: u64,
    order: u64,
    random: Random,
    weather: Weather,
    calm: bool,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    next: HashMap<u64, Next>,
    secret: Secret,
    senders: Vec<Sender>,
    events: Vec<Event>,
    made: usize,
    shards: Vec<ShardHost>,
    /// The regions', then central.
    aggregators: Vec<Aggregator>,
    inbox: Vec<Vec<Parcel>>,
    lives: Vec<u64>,
    /// Starts, so that each has one keeper.
    lives_kept: Vec<u64>,
    forwarding: Vec<bool>,
    requests: u64,
    tally: Tally,
    seen: Seen,
    trace: Option<VecDeque<String>>,
    map: PlacementMap,
}

/// Runs a seed; with `traced`, a failure tells what happened last.
pub fn run(seed: u64, traced: bool) -> Result<Report, Failure> {
    let mut world = World::new(seed);
    world.trace = traced.then(VecDeque::new);
    let outcome = world.run();
    let (seen, steps) = (std::mem::take(&mut world.seen), world.step);
    match outcome {
        Ok((acked, counted)) => Ok(Report { seen, acked, counted, steps }),
        Err(what) => Err(Failure { what, step: world.step, trace: world.trace.take().unwrap_or_default() }),
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let weather = Weather::of(&mut random);
        let secret = Secret::new(&[7; 32]).expect("32 bytes are enough");
        let names: Vec<String> = (0..weather.regions).map(|n| format!("r{n}")).collect();
        let regions = names.iter().map(|name| Region { name: name.clone(), pools: weather.pools }).collect();
        let map = PlacementMap { epoch: first_epoch(), regions };
        let bounds = Bounds {
            memtable_bytes: weather.memtable_bytes,
            flush_ms: random.pick(&[100, 60_000]),
            log_bytes: weather.log_bytes,
        };
        let mut aggregators: Vec<Aggregator> =
            names.iter().map(|name| Aggregator::new(Some(name.clone()), true, bounds, secret.clone())).collect();
        aggregators.push(Aggregator::new(None, false, bounds, secret.clone()));
        let senders = (0..random.between(2, 6))
            .map(|n| Sender {
                client: ClientId::new(["shop", "blog", "app"][random.below(3) as usize]).expect("a client's name"),
                route: Route { epoch: first_epoch(), name: format!("tab{n}") },
                queue: VecDeque::new(),
                inflight: BTreeMap::new(),
                failures: 0,
            })
            .collect();
        let n = aggregators.len();
        World {
            now: START,
            step: 0,
            order: 0,
            random,
            weather,
            calm: false,
            queue: BinaryHeap::new(),
            next: HashMap::new(),
            secret,
            senders,
            events: Vec::new(),
            made: 0,
            shards: Vec::new(),
            aggregators,
            inbox: vec![Vec::new(); n],
            lives: vec![0; n],
            lives_kept: vec![0; n],
            forwarding: vec![false; n],
            requests: 0,
            tally: Tally::new(),
            seen: Seen::new(),
            trace: None,
            map,
        }
    }

    fn run(&mut self) -> Result<(u64, u64), String> {
        for n in 0..self.aggregators.len() {
            self.at(0, Next::Start(n));
        }
        self.at(0, Next::Make);
        self.at(self.weather.span, Next::Calm);
        if self.weather.skew > 0 {
            self.at(0, Next::Skew);
        }
        if self.weather.watched {
            self.at(0, Next::Look);
        }
        let end = START + self.weather.span + DRAIN_MS;
        while let Some(Reverse((at, order))) = self.queue.pop() {
            let Some(next) = self.next.remove(&order) else { continue };
            self.now = self.now.max(at);
            self.step += 1;
            if self.step > STEPS_MAX || self.now > end {
                return Err(format!("no end after {} steps: {}", self.step, self.waits()));
            }
            if self.trace.is_some() {
                let mut line = format!("{:>6} +{:<9} {next:?}", self.step, self.now - START);
                line.truncate(240);
                self.say(line);
            }
            self.act(next)?;
            if self.calm && self.step.is_multiple_of(16) && self.made == self.weather.events && self.is_drained() {
                return self.check();
            }
        }
        Err(format!("nothing happens any more: {}", self.waits()))
    }

    fn say(&mut self, line: String) {
        if let Some(trace) = &mut self.trace {
            trace.push_back(line);
            if trace.len() > TRACE_LINES {
                trace.pop_front();
            }
        }
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn at(&mut self, wait: i64, next: Next) {
        self.order += 1;
        self.queue.push(Reverse((self.now + wait.max(0), self.order)));
        self.next.insert(self.order, next);
    }

    fn chance(&mut self, rate: impl Fn(&Weather) -> u64) -> bool {
        let rate = rate(&self.weather);
        self.random.happens(rate)
    }

    fn delay(&mut self) -> i64 {
        let most = self.weather.delay;
        // Most are quick.
        if self.random.below(4) == 0 { self.random.between(0, most) } else { self.random.between(0, most / 20 + 1) }
    }

    /// Whether the way to an aggregator is broken.
    fn is_out(&self, aggregator: usize) -> bool {
        let at = self.now - START;
        self.weather.outages.iter().any(|&(from, length, of)| of == aggregator && (from..from + length).contains(&at))
    }

    /// Sends something that may be lost, or come twice.
    fn send(&mut self, next: Next, again: Option<Next>) {
        if self.chance(|weather| weather.loss) {
            self.saw("loss");
        } else {
            let delay = self.delay();
            self.at(delay, next);
        }
        if let Some(again) = again
            && self.chance(|weather| weather.repeat)
        {
            self.saw("repeat");
            let delay = self.delay() * 3;
            self.at(delay, again);
        }
    }

    fn act(&mut self, next: Next) -> Result<(), String> {
        match next {
            Next::Make => self.make(),
            Next::Send(sender) => self.send_events(sender),
            Next::GiveUp { sender, request } => self.answered(sender, request, None),
            Next::Arrive { sender, request, events, refused } => return self.arrive(sender, request, events, refused),
            Next::Answer { sender, request, outcome } => self.answered(sender, request, outcome),
            Next::Group { shard, life } if self.shards[shard].life == life => return self.commit(shard),
            // Of several that were set, only the last rings.
            Next::Alarm { shard, life, at }
                if self.shards[shard].life == life && self.shards[shard].alarm_at == Some(at) =>
            {
                self.shards[shard].alarm_at = None;
                return self.ship(shard);
            }
            Next::Commit { shard, life, batch } if self.shards[shard].life == life => self.synced(shard, batch),
            Next::Reload(shard) => return self.load(shard),
            Next::Relay { shard, life, post, frames } => self.relay(shard, life, post, &frames),
            Next::Parcel { aggregator, parcel } => {
                // Whoever died has no connection any more.
                if self.aggregators[aggregator].memory.is_some() {
                    self.inbox[aggregator].push(parcel);
                    let wait = self.random.between(0, 3);
                    self.at(wait, Next::Take(aggregator));
                }
            }
            Next::Take(aggregator) => return self.take(aggregator),
            Next::Acks { shard, life, post, acks } => return self.judge(shard, life, post, acks),
            Next::Timeout { shard, life, post } => return self.judge(shard, life, post, Vec::new()),
            Next::Keep { aggregator, life } if self.lives_kept[aggregator] == life => self.keep(aggregator),
            Next::Start(aggregator) => {
                let uptime = self.now;
                self.aggregators[aggregator].start(uptime)?;
                let forwards = self.aggregators[aggregator].forwards;
                self.lives_kept[aggregator] += 1;
                let life = self.lives_kept[aggregator];
                self.at(100, Next::Keep { aggregator, life });
                if forwards {
                    self.forwarding[aggregator] = true;
                    self.at(0, Next::Forward { region: aggregator, life: self.lives[aggregator] });
                }
            }
            Next::Forward { region, life } if self.lives[region] == life => self.forward(region),
            Next::Settle { region, life, rows, answers } if self.lives[region] == life => {
                self.settle(region, &rows, &answers);
            }
            Next::Skew => {
                for n in 0..self.shards.len() {
                    let most = if self.calm { 0 } else { self.weather.skew };
                    self.shards[n].skew = self.random.between(-most, most);
                    self.saw("a clock jump");
                }
                if !self.calm {
                    self.at(self.weather.span / 7 + 1, Next::Skew);
                }
            }
            Next::Look => {
                let client = self.senders[0].client.clone();
                let n = self.random.below(self.aggregators.len() as u64) as usize;
                let now = self.now;
                if let Some(memory) = &mut self.aggregators[n].memory {
                    memory.watched.watch(&client, now);
                }
                if !self.calm {
                    self.at(self.weather.span / 20 + 1_000, Next::Look);
                }
            }
            Next::Calm => {
                self.calm = true;
                self.weather.calm();
                self.act(Next::Skew)?;
            }
            Next::Group { .. } | Next::Alarm { .. } | Next::Commit { .. } => {}
            Next::Forward { .. } | Next::Settle { .. } | Next::Keep { .. } => {}
        }
        Ok(())
    }

    /// A sender makes an event.
    fn make(&mut self) {
        let n = self.made;
        self.made += 1;
        let sender = self.random.below(self.senders.len() as u64) as usize;
        let (kind, random) = (self.random.below(20), &mut self.random);
        let age = match kind {
            0 => random.between(0, 20 * 3_600_000),
            1 => random.between(23 * 3_600_000, 25 * 3_600_000),
            2 => -random.between(100_000, 300_000),
            _ => random.between(0, 2_000),
        };
        self.events.push(Event {
            client: self.senders[sender].client.clone(),
            id: format!("e{n}"),
            event_type: random.pick(&["page_view", "purchase", "click"]),
            page: random.pick(&["/", "/a", "/b"]),
            plan: random.pick(&[None, Some("free"), Some("pro")]),
            user: format!("u{}", random.below(12)),
            at: self.now - age,
            value: random.between(-5, 1_000),
            malformed: kind == 3,
            acked: false,
        });
        self.senders[sender].queue.push_back(n);
        self.at(0, Next::Send(sender));
        if self.made < self.weather.events {
            let most = if self.calm { 0 } else { 3 * self.weather.span / self.weather.events as i64 };
            let wait = if self.random.below(3) == 0 { 0 } else { self.random.between(0, most) };
            self.at(wait, Next::Make);
        }
    }

    /// A sender sends some of what it has, however it sent them before.
    fn send_events(&mut self, sender: usize) {
        let Sender { queue, inflight, .. } = &self.senders[sender];
        if queue.is_empty() || inflight.len() >= 2 {
            return;
        }
        let n = 1 + self.random.below(queue.len().min(20) as u64) as usize;
        let events: Vec<usize> = queue.iter().take(n).copied().collect();
        self.requests += 1;
        let request = self.requests;
        self.senders[sender].inflight.insert(request, events.clone());
        let refused = self.random.below(200) == 0;
        let again = Next::Arrive { sender, request, events: events.clone(), refused: false };
        self.send(Next::Arrive { sender, request, events, refused }, Some(again));
        self.at(SENDER_TIMEOUT, Next::GiveUp { sender, request });
    }

    /// A sender hears of a request, or that there is no answer.
    fn answered(&mut self, sender: usize, request: u64, outcome: Option<Outcome>) {
        let Some(events) = self.senders[sender].inflight.remove(&request) else { return };
        match outcome {
            Some(outcome) => {
                let rejected: Vec<usize> = outcome.rejected.iter().map(|rejected| rejected.index).collect();
                for (index, &event) in events.iter().enumerate() {
                    self.events[event].acked |= !rejected.contains(&index);
                }
                self.senders[sender].queue.retain(|event| !events.contains(event));
                self.senders[sender].failures = 0;
                self.at(0, Next::Send(sender));
            }
            None if self.chance(|weather| weather.give_up) => {
                self.saw("a sender gives up");
                self.senders[sender].queue.retain(|event| !events.contains(event));
                self.at(0, Next::Send(sender));
            }
            None => {
                let failures = &mut self.senders[sender].failures;
                *failures += 1;
                let wait = (1_000i64 << (*failures).min(6)).min(if self.calm { 5_000 } else { 60_000 });
                self.at(wait, Next::Send(sender));
            }
        }
    }

    /// The shard of a sender's route, which may be new.
    fn shard_of(&mut self, sender: usize) -> Result<usize, String> {
        let Sender { client, route, .. } = &self.senders[sender];
        let placement = place(&self.map, client, route, false).map_err(|error| error.to_string())?;
        if let Some(n) = self.shards.iter().position(|shard| shard.hop.placement == placement) {
            return Ok(n);
        }
        let region = self.map.regions.iter().position(|region| region.name == placement.region).unwrap_or(0);
        let claims =
            Claims { client: client.clone(), identity: Identity::User, backfill: false, ignore_foreign_client: false };
        self.shards.push(ShardHost {
            hop: Hop { placement, claims, visitor: Visitor::default() },
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
        });
        Ok(self.shards.len() - 1)
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
    fn reset(&mut self, shard: usize) {
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

    fn synced(&mut self, shard: usize, batch: u64) {
        let host = &mut self.shards[shard];
        if batch > host.synced {
            host.rows.disk().borrow_mut().sync((batch - host.synced) as usize);
            host.synced = batch;
        }
        let (life, synced) = (host.life, host.synced);
        let leaves = host.gated.iter().take_while(|(at, _)| *at <= synced).count();
        let outputs: Vec<_> = host.gated.drain(..leaves).collect();
        for (_, output) in outputs {
            self.release(shard, life, output);
        }
    }

    fn release(&mut self, shard: usize, life: u64, output: Output) {
        match output {
            Output::Answer((sender, request), outcome, client) => {
                if let Some(outcome) = &outcome {
                    let mut count = |reason, n| *self.tally.entry((client.clone(), reason)).or_default() += n;
                    count("accepted", outcome.accepted);
                    count("duplicate", outcome.duplicates);
                    for rejected in &outcome.rejected {
                        count(rejected.reason, 1);
                    }
                    let reasons: Vec<_> = outcome.rejected.iter().map(|rejected| rejected.reason).collect();
                    for reason in reasons {
                        self.saw(match reason {
                            "too_late" => "too late",
                            "future" => "future",
                            _ => "malformed",
                        });
                    }
                    if outcome.duplicates > 0 {
                        self.saw("duplicate");
                    }
                }
                self.send(Next::Answer { sender, request, outcome }, None);
            }
            Output::Post(post, frames) => {
                let again = Next::Relay { shard, life, post, frames: frames.clone() };
                self.send(Next::Relay { shard, life, post, frames }, Some(again));
                self.at(RELAY_TIMEOUT, Next::Timeout { shard, life, post });
            }
        }
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

    fn load(&mut self, shard: usize) -> Result<(), String> {
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
        match Core::load_bounded(host.rows.clone(), &self.secret, CAPACITY, self.weather.ids, first, now) {
            Ok(core) => host.core = core,
            Err(RowsError::Failed) => self.at(5_000, Next::Reload(shard)),
            Err(RowsError::Broken(what)) => return Err(format!("{}: {what}", host.hop.placement.shard)),
        }
        Ok(())
    }

    /// A request reaches its shard.
    fn arrive(&mut self, sender: usize, request: u64, events: Vec<usize>, refused: bool) -> Result<(), String> {
        let shard = self.shard_of(sender)?;
        self.turn(shard);
        self.load_for(shard, true)?;
        let now = self.clock(shard);
        let client = self.senders[sender].client.clone();
        let body: Vec<String> = events.iter().map(|&event| self.events[event].json()).collect();
        let mut body = format!("[{}]", body.join(","));
        if refused {
            body.truncate(body.len() / 2);
        }
        let claims = Claims { client: client.clone(), ..self.shards[shard].hop.claims.clone() };
        let reply = (sender, request);
        let level = self.shards[shard].hop.placement.level;
        let core = self.shards[shard].core.as_mut();
        match core.map(|core| core.read(claims, Visitor::default(), level, body.into_bytes(), now)) {
            None => self.gate(shard, Output::Answer(reply, None, client)),
            Some(Err(_)) => {
                self.saw("a request is refused");
                self.gate(shard, Output::Answer(reply, None, client));
            }
            Some(Ok(events)) => {
                if self.shards[shard].core.as_ref().is_some_and(|core| core.overflows(&events)) {
                    self.commit_group(shard)?;
                }
                let is_full = |core: &Core| !core.has_room_for(events.len());
                if self.shards[shard].core.as_ref().is_some_and(is_full) {
                    self.transact(shard, |core| core.cut(now).and_then(|()| core.forget_expired(now)))?;
                }
                match &mut self.shards[shard].core {
                    Some(core) if core.has_room_for(events.len()) => {
                        core.submit(events, reply);
                        match core.group_ends_in(now) {
                            Some(wait) => {
                                let life = self.shards[shard].life;
                                self.at(wait.as_millis() as i64, Next::Group { shard, life });
                            }
                            None => self.commit_group(shard)?,
                        }
                    }
                    full => {
                        let full = full.is_some();
                        if full {
                            self.saw("senders are turned away");
                        }
                        self.gate(shard, Output::Answer(reply, None, client));
                    }
                }
            }
        }
        self.end(shard);
        Ok(())
    }

    fn gate(&mut self, shard: usize, output: Output) {
        let host = &mut self.shards[shard];
        host.gated.push_back((host.begun, output));
    }

    fn commit(&mut self, shard: usize) -> Result<(), String> {
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
        for (reply, outcome) in outcomes {
            let client = self.senders[reply.0].client.clone();
            self.gate(shard, Output::Answer(reply, Some(outcome), client));
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
    fn ship(&mut self, shard: usize) -> Result<(), String> {
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

    /// The relay sends frames on, each to its home, as `edge/relay` does.
    fn relay(&mut self, shard: usize, life: u64, post: u64, frames: &[u8]) {
        let mut parcels: BTreeMap<usize, Vec<(usize, Bytes)>> = BTreeMap::new();
        let mut acks = Vec::new();
        let mut rest = frames;
        while let Some((length, body)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((frame, after)) = body.split_at_checked(length.min(FRAME_BYTES_MAX)) else { return };
            rest = after;
            let mut frame = frame.to_vec();
            if self.chance(|weather| weather.flip) {
                self.saw("a bit flips");
                let bit = self.random.below(8 * frame.len() as u64) as usize;
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            // The whole POST is refused.
            let Ok(address) = frame::address(&frame) else { return };
            let place = acks.len();
            acks.push(Ack::refusal(Status::Unreachable, address.producer, address.seq, ""));
            if let Some(home) = self.map.regions.iter().position(|region| region.name == address.home) {
                parcels.entry(home).or_default().push((place, frame.into()));
            }
        }
        // Frames of one POST have one home, but for a flipped bit: who has none of them is not waited for.
        let Some((&home, _)) = parcels.iter().max_by_key(|(_, frames)| frames.len()) else { return };
        let mut parcel = parcels.remove(&home).unwrap_or_default();
        if self.is_out(home) || self.aggregators[home].memory.is_none() {
            self.saw("unreachable");
            return self.send(Next::Acks { shard, life, post, acks }, None);
        }
        if self.chance(|weather| weather.cut) {
            self.saw("a connection is cut");
            let kept = self.random.below(parcel.len() as u64 + 1) as usize;
            parcel.truncate(kept);
        }
        if parcel.len() > 1 && self.chance(|weather| weather.reorder) {
            self.saw("reordered");
            let n = self.random.below(parcel.len() as u64 - 1) as usize;
            parcel.swap(n, n + 1);
        }
        let (places, frames) = parcel.into_iter().unzip();
        let parcel = Parcel { frames, back: Back::Shard { shard, life, post, places, of: acks } };
        let again = Next::Parcel { aggregator: home, parcel: parcel.clone() };
        self.send(Next::Parcel { aggregator: home, parcel }, Some(again));
    }

    /// An aggregator's writer takes what has arrived.
    fn take(&mut self, n: usize) -> Result<(), String> {
        let parcels = std::mem::take(&mut self.inbox[n]);
        if parcels.is_empty() {
            return Ok(());
        }
        let frames: Vec<Bytes> = parcels.iter().flat_map(|parcel| parcel.frames.iter().cloned()).collect();
        let rate = self.weather.die;
        let acks = self.aggregators[n].take(&frames, self.now, self.now, &mut self.random, rate);
        let Ok(acks) = acks else {
            self.died(n);
            return Ok(());
        };
        let mut acks = acks.into_iter();
        for ack in acks.clone() {
            self.saw(match ack.status {
                Status::Stored => "stored",
                Status::Gap => "a gap",
                Status::Fork => "a fork",
                Status::BadMac => "a bad MAC",
                Status::Version => "an unknown version",
                Status::Malformed => "a malformed frame",
                Status::Busy => "busy",
                Status::WrongHome => "a wrong home",
                Status::Unreachable => "unreachable",
            });
        }
        for Parcel { frames, back } in parcels {
            // They cross the wire.
            let parsed: Result<Vec<Ack>, _> =
                acks.by_ref().take(frames.len()).map(|ack| Ack::decode(&ack.encode())).collect();
            let acks = parsed.map_err(|error| error.to_string())?;
            match back {
                Back::Shard { shard, life, post, places, mut of } => {
                    for (place, ack) in places.into_iter().zip(acks) {
                        of[place] = ack;
                    }
                    self.send(Next::Acks { shard, life, post, acks: of }, None);
                }
                Back::Region { region, life, rows } => {
                    let mut answers: Vec<Option<Ack>> = acks.into_iter().map(Some).collect();
                    if self.chance(|weather| weather.cut) {
                        let kept = self.random.below(answers.len() as u64 + 1) as usize;
                        answers.truncate(kept);
                    }
                    answers.resize(rows.len(), None);
                    let delay = self.delay();
                    self.at(delay, Next::Settle { region, life, rows, answers });
                }
            }
        }
        if self.aggregators[n].forwards && !self.forwarding[n] {
            self.forwarding[n] = true;
            self.at(0, Next::Forward { region: n, life: self.lives[n] });
        }
        Ok(())
    }

    fn died(&mut self, n: usize) {
        self.saw("an aggregator dies");
        self.aggregators[n].die(&mut self.random);
        self.inbox[n].clear();
        self.lives[n] += 1;
        self.forwarding[n] = false;
        let wait = self.random.pick(&[100, 5_000, 120_000]);
        self.at(wait, Next::Start(n));
    }

    fn keep(&mut self, n: usize) {
        let rate = self.weather.die;
        match self.aggregators[n].keep(self.now, false, &mut self.random, rate) {
            Ok(()) => {
                let wait = if self.calm { 1_000 } else { (self.weather.span / 300).max(100) };
                if self.aggregators[n].memory.is_some() {
                    let life = self.lives_kept[n];
                    self.at(wait, Next::Keep { aggregator: n, life });
                }
            }
            Err(Died) => self.died(n),
        }
    }

    fn forward(&mut self, region: usize) {
        let rows = self.aggregators[region].to_forward();
        if rows.is_empty() {
            self.forwarding[region] = false;
            return;
        }
        let central = self.aggregators.len() - 1;
        let life = self.lives[region];
        let none = vec![None; rows.len()];
        if self.is_out(central) || self.aggregators[central].memory.is_none() || self.chance(|weather| weather.loss) {
            return self.at(1_000, Next::Settle { region, life, rows, answers: none });
        }
        let frames = rows.iter().map(|row| row.frame.clone()).collect();
        let parcel = Parcel { frames, back: Back::Region { region, life, rows: rows.clone() } };
        if self.chance(|weather| weather.repeat) {
            // An earlier attempt's frames come late, and nobody waits for their acks.
            let back = Back::Region { region, life: u64::MAX, rows: rows.clone() };
            let delay = self.delay() * 3;
            let parcel = Parcel { back, ..parcel.clone() };
            self.at(delay, Next::Parcel { aggregator: central, parcel });
        }
        let delay = self.delay();
        self.at(delay, Next::Parcel { aggregator: central, parcel });
        // A connection that breaks answers none.
        self.at(2 * RELAY_TIMEOUT + delay, Next::Settle { region, life, rows, answers: none });
    }

    fn settle(&mut self, region: usize, rows: &[LogRow], answers: &[Option<Ack>]) {
        // One batch at a time: a second answer to one is none.
        let current = self.aggregators[region].to_forward();
        if current.first().map(|row| row.position) != rows.first().map(|row| row.position) {
            return;
        }
        let (now, rate) = (self.now, self.weather.die);
        match self.aggregators[region].settle(rows, answers, now, &mut self.random, rate) {
            Ok(done) => {
                self.saw("passed on");
                let wait = if done { 0 } else { self.random.between(100, 5_000) };
                self.lives[region] += 1;
                self.at(wait, Next::Forward { region, life: self.lives[region] });
            }
            Err(Died) => self.died(region),
        }
    }

    /// Acks come back to a shard, or none do.
    fn judge(&mut self, shard: usize, life: u64, post: u64, acks: Vec<Ack>) -> Result<(), String> {
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
                Verdict::Park(_) => self.saw("a frame is parked"),
                Verdict::Restart => self.saw("a producer restarts"),
                Verdict::Next | Verdict::Resend => {}
            }
        }
        self.end(shard);
        Ok(())
    }

    fn is_drained(&self) -> bool {
        let senders = self.senders.iter().all(|sender| sender.queue.is_empty() && sender.inflight.is_empty());
        senders
            && self.inbox.iter().all(Vec::is_empty)
            && self.aggregators.iter().all(|aggregator| aggregator.memory.is_some())
            && self.shards.iter().all(|shard| {
                let core = shard.core.as_ref();
                let idle = core.map_or_else(
                    || shard.rows.is_new(),
                    |core| {
                        core.health(self.now).log_rows == 0
                            && core.health(self.now).outbox_frames == 0
                            && core.due_at(self.now).is_none()
                    },
                );
                idle && shard.gated.is_empty()
            })
            && self.aggregators.iter().all(Aggregator::has_forwarded)
            && !self.next.values().any(|next| matches!(next, Next::Arrive { .. } | Next::Parcel { .. }))
    }

    fn waits(&self) -> String {
        let queued: usize = self.senders.iter().map(|sender| sender.queue.len()).sum();
        let shard = |shard: &ShardHost| {
            let core = shard.core.as_ref().map(|core| (core.health(self.now), core.due_at(self.now)));
            (core, shard.gated.len(), shard.alarm_at, shard.posting)
        };
        let shards: Vec<_> = self.shards.iter().map(shard).collect();
        let forwards: Vec<_> = self.aggregators.iter().map(|aggregator| aggregator.to_forward().len()).collect();
        let inflight: usize = self.senders.iter().map(|sender| sender.inflight.len()).sum();
        let running: Vec<_> = self.aggregators.iter().map(|aggregator| aggregator.memory.is_some()).collect();
        let inbox: Vec<_> = self.inbox.iter().map(Vec::len).collect();
        format!(
            "{} events made, {queued} queued, {inflight} requests out, shards {shards:?}, aggregators {running:?} with {inbox:?} \
             parcels, {forwards:?} rows to forward",
            self.made
        )
    }

    /// All is drained: holds every figure against what was acknowledged.
    fn check(&mut self) -> Result<(u64, u64), String> {
        let central = self.aggregators.len() - 1;
        for n in 0..=central {
            self.aggregators[n].keep(self.now, true, &mut self.random, 0).map_err(|Died| "died in calm".to_owned())?;
            if self.aggregators[n].parked() > 0 {
                return Err("central refused a frame for good".into());
            }
        }
        let mut all = self.aggregators[central].cells()?;
        let mut regions: HashMap<CellKey, Cell> = HashMap::new();
        for n in 0..central {
            for (key, cell) in self.aggregators[n].cells()? {
                regions.entry(key).or_default().merge(&cell);
            }
        }
        let mut parked = 0;
        for n in 0..self.shards.len() {
            let shard = &self.shards[n];
            if !shard.rows.is_bounded() {
                return Err("a ring has more rows than slots".into());
            }
            if shard.rows.used().spilled > 0 {
                self.seen.entry("ids are spilled").and_modify(|n| *n += 1).or_insert(1);
            }
            for frame in shard.rows.parked() {
                parked += 1;
                let header = frame::peek(&frame).map_err(|error| error.to_string())?;
                let mark = self.aggregators[shard.region].mark(&header.producer);
                if mark.is_some_and(|mark| mark.seq >= header.seq) {
                    self.seen.entry("parked, and stored").and_modify(|n| *n += 1).or_insert(1);
                    continue;
                }
                let mut whole = frame.clone();
                damage(&mut whole);
                let read = |frame: Vec<u8>| {
                    let row = LogRow { position: 0, received_at: 0, frame: frame.into() };
                    Blocks::of(&row, &self.secret)
                };
                let blocks = read(frame).or_else(|_| read(whole)).map_err(|error| error.to_string())?;
                add(&mut all, &blocks);
                add(&mut regions, &blocks);
            }
        }
        if parked > 0 {
            self.saw("parked frames in the end");
        }
        let events: Vec<&Event> = self.events.iter().collect();
        let counted = model::check("the regions", &self.secret, &events, &self.tally, regions)?;
        if counted != model::check("central", &self.secret, &events, &self.tally, all)? {
            return Err("the regions and central differ".into());
        }
        Ok((self.events.iter().filter(|event| event.acked).count() as u64, counted))
    }
}

fn first_epoch() -> Epoch {
    Epoch::of_map(1).expect("maps are numbered from 1")
}

/// Adds a frame's cells and counters, as a flush would.
fn add(cells: &mut HashMap<CellKey, Cell>, blocks: &Blocks) {
    let mut block = blocks.cells.clone();
    catchment_aggregator_core::memtable::add_counters(&mut block, blocks.counters.clone());
    for (client, section) in &block.0 {
        for (name, cube) in section {
            for (&minute, bucket) in &cube.buckets {
                for (values, cell) in bucket {
                    for (tier, minutes) in [(Tier::Minute, 1), (Tier::Hour, 60), (Tier::Day, 1_440)] {
                        let (client, cube, values) = (client.clone(), name.clone(), values.clone());
                        let bucket = minute - minute.rem_euclid(minutes);
                        cells.entry(CellKey { client, cube, tier, bucket, values }).or_default().merge(cell);
                    }
                }
            }
        }
    }
}
