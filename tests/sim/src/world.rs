//! A run: senders, shards, the relay and aggregators in one loop under virtual time, until all is drained and checked.

mod aggregators;
mod check;
mod relay;
mod senders;
mod shards;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use bytes::Bytes;
use catchment_aggregator_core::LogRow;
use catchment_aggregator_core::tables::Bounds;
use catchment_cells::ack::Ack;
use catchment_cells::route::{Epoch, PlacementMap, Region};
use catchment_cells::{ClientId, Secret};

use crate::aggregator::Aggregator;
use crate::disk::Disk;
use crate::model::{Event, Tally};
use crate::random::Random;
use crate::weather::{HOUR, MINUTE, SetBack, Weather};

use senders::{Answer, Request, Sender};
use shards::ShardHost;

/// When runs begin: 2024-01-01T06:40Z, in ms.
const START: i64 = 1_704_091_200_000;
/// How long a shard waits for a relay's answer, and a sender for a shard's, in ms.
const RELAY_TIMEOUT: i64 = 10_000;
const SENDER_TIMEOUT: i64 = 15_000;
/// How long a drain may take once nothing goes wrong any more, in ms, and how many steps a run.
const DRAIN_MS: i64 = 4 * HOUR;
const STEPS_MAX: u64 = 1_000_000;
/// Lines of a failure's trace.
const TRACE_LINES: usize = 60;

/// What was seen in a run, by name.
pub type Seen = BTreeMap<&'static str, u64>;

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// What it saw.
    pub seen: Seen,
    /// Events that were acknowledged, but for those that storage forgot which was set back.
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
    Arrive(Request),
    Answer { sender: usize, request: u64, answer: Answer },
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
    NewMap,
    Copy,
    SetBack,
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
    /// Placement maps, the present one last, and until when the routes of each are taken.
    maps: Vec<(PlacementMap, i64)>,
    /// The regions' names, in the order of their aggregators.
    regions: Vec<String>,
    copy: Option<Copy>,
}

/// A copy of somebody's storage.
struct Copy {
    /// A shard, or an aggregator.
    of: usize,
    disk: Disk,
    at: i64,
    /// It knows of frames that it doesn't know to be safe, or is an aggregator's.
    waited: bool,
    /// When it came back.
    back_at: Option<i64>,
}

/// Runs a seed; with `traced`, a failure tells what happened last.
pub fn run(seed: u64, traced: bool) -> Result<Report, Failure> {
    let mut world = World::new(seed);
    world.trace = traced.then(VecDeque::new);
    let weather = format!("{:?}", world.weather);
    let outcome = world.run();
    let (seen, steps) = (std::mem::take(&mut world.seen), world.step);
    match outcome {
        Ok((acked, counted)) => Ok(Report { seen, acked, counted, steps }),
        Err(what) => {
            world.say(weather);
            Err(Failure { what, step: world.step, trace: world.trace.take().unwrap_or_default() })
        }
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let weather = Weather::of(&mut random);
        let secret = Secret::new(&[7; 32]).expect("32 bytes are enough");
        let names: Vec<String> = (0..weather.regions).map(|n| format!("r{n}")).collect();
        let map = map_of(1, &names, weather.pools);
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
                name: format!("tab{n}"),
                epoch: map.epoch,
                backfill: !weather.is_alone() && random.below(8) == 0,
                clock: (random.below(4) == 0).then(|| random.between(-9 * HOUR, 9 * HOUR)),
                queue: VecDeque::new(),
                inflight: BTreeMap::new(),
                failures: 0,
                not_before: 0,
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
            maps: vec![(map, i64::MAX)],
            regions: names,
            copy: None,
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
        if let Some((at, _)) = self.weather.map_change {
            self.at(at, Next::NewMap);
        }
        if let Some(SetBack { copied_at, at, .. }) = self.weather.set_back {
            self.at(copied_at, Next::Copy);
            self.at(at, Next::SetBack);
        }
        let end = START + self.weather.span + DRAIN_MS;
        while let Some(Reverse((at, order))) = self.queue.pop() {
            let Some(next) = self.next.remove(&order) else { continue };
            self.now = self.now.max(at);
            self.step += 1;
            if self.step > STEPS_MAX || self.now > end {
                return Err(format!("no end after {} steps: {}", self.step, self.waits()));
            }
            // An aggregator looks whether something is to be done all the time.
            if self.trace.is_some() && !matches!(next, Next::Keep { .. }) {
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
            Next::Arrive(request) => return self.arrive(request),
            Next::Answer { sender, request, answer } => self.answered(sender, request, Some(answer)),
            Next::Group { shard, life } if self.shards[shard].life == life => return self.commit(shard),
            // Of several that were set, only the last rings.
            Next::Alarm { shard, life, at }
                if self.shards[shard].life == life && self.shards[shard].alarm_at == Some(at) =>
            {
                self.shards[shard].alarm_at = None;
                return self.ship(shard);
            }
            Next::Commit { shard, life, batch } if self.shards[shard].life == life => return self.synced(shard, batch),
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
            Next::NewMap => self.change_map(),
            Next::Copy => self.copy_storage(),
            Next::SetBack => self.set_back(),
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

    /// The regions change places, one may go, and the pools are others; routes of the map before are still taken for a while.
    fn change_map(&mut self) {
        let Some((_, kept)) = self.weather.map_change else { return };
        let mut names: Vec<String> = self.regions.iter().rev().cloned().collect();
        names.truncate(1 + self.random.below(names.len() as u64) as usize);
        let pools = 3 - self.weather.pools;
        if let Some((_, until)) = self.maps.last_mut() {
            *until = self.now + kept;
        }
        self.maps.push((map_of(1 + self.maps.len() as u32, &names, pools), i64::MAX));
        self.saw("a map changes");
    }

    /// The map that is in force.
    fn map(&self) -> &PlacementMap {
        let (map, _) = self.maps.last().expect("there always is one");
        map
    }

    /// Copies a shard's storage, or an aggregator's: as it would be found after a crash.
    fn copy_storage(&mut self) {
        let Some(SetBack { aggregator, .. }) = self.weather.set_back else { return };
        let n = if aggregator { self.regions.len() } else { self.shards.len() };
        if n == 0 {
            return;
        }
        let of = self.random.below(n as u64) as usize;
        let mut disk =
            if aggregator { self.aggregators[of].disk.clone() } else { self.shards[of].rows.disk().borrow().clone() };
        disk.lose(disk.unsynced());
        let waits =
            |shard: &ShardHost| shard.core.as_ref().is_none_or(|core| core.meta().acked + 1 < core.meta().next_frame);
        let waited = aggregator || waits(&self.shards[of]);
        self.copy = Some(Copy { of, disk, at: self.now, waited, back_at: None });
    }

    /// Sets it back.
    fn set_back(&mut self) {
        let (Some(SetBack { aggregator, .. }), Some(copy)) = (self.weather.set_back, &mut self.copy) else { return };
        copy.back_at = Some(self.now);
        let (of, disk) = (copy.of, copy.disk.clone());
        if aggregator {
            self.saw("an aggregator is set back");
            self.died(of);
            self.aggregators[of].disk = disk;
        } else {
            self.saw("a shard is set back");
            self.reset(of);
            self.shards[of].rows.disk().replace(disk);
        }
    }
}

fn map_of(number: u32, names: &[String], pools: u32) -> PlacementMap {
    let epoch = Epoch::of_map(number).expect("maps are numbered from 1");
    PlacementMap { epoch, regions: names.iter().map(|name| Region { name: name.clone(), pools }).collect() }
}
