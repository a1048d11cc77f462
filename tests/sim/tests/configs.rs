//! Configs that change while events come, on a disk that fails: each event is counted under the config that was in force when it was
//! taken, also where a restart applied it again.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use catchment_cells::ack::{Ack, Status};
use catchment_cells::config::{Answer, Question, Told};
use catchment_cells::credential::Identity;
use catchment_cells::frame::{self, CellsBlock};
use catchment_cells::route::Placement;
use catchment_cells::{ClientId, Secret};
use catchment_collector::{Capacity, Claims, Hop, Need, Request, Visitor};
use catchment_sim::random::Random;
use catchment_sim::shard::{self, Rows, RowsError};

/// 2024-01-01T00:00Z, in ms.
const START: i64 = 1_704_067_200_000;
const CAPACITY: Capacity = Capacity { requests_per_s: 1_000_000 };
const CLIENTS: [&str; 3] = ["a", "b", "c"];

/// Nobody waits for an answer.
type Core = shard::Core<()>;

/// Client and cube → events. Under version n of a config, a client's events fill the cube `c<n>`; under none, no such cube.
type Counts = BTreeMap<(String, String), u64>;

/// A shard, its home's configs, and what it was told.
struct Host {
    rows: Rows,
    core: Option<Core>,
    secret: Secret,
    now: i64,
    /// The version of each client's config at home, and of all.
    home: BTreeMap<ClientId, u32>,
    version: u32,
    /// What each client's events are to be counted under.
    in_force: BTreeMap<ClientId, u32>,
    expected: Counts,
    counted: Counts,
    /// Seqs of the frames that the home has: one that comes again is counted once.
    stored: BTreeSet<u64>,
}

fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

fn claims(client: ClientId) -> Claims {
    Claims { client, identity: Identity::User, backfill: false, ignore_foreign_client: false }
}

impl Host {
    fn new() -> Host {
        let secret = Secret::new(&[7; 32]).unwrap();
        let mut host = Host {
            rows: Rows::default(),
            core: None,
            secret,
            now: START,
            home: BTreeMap::new(),
            version: 0,
            in_force: BTreeMap::new(),
            expected: Counts::new(),
            counted: Counts::new(),
            stored: BTreeSet::new(),
        };
        host.rows.disk().borrow_mut().begin();
        host.load();
        host.rows.disk().borrow_mut().sync(usize::MAX);
        host
    }

    fn load(&mut self) {
        let placement = Placement { region: "eu".into(), shard: "eu/pool/0".into(), level: 0 };
        let hop = Hop { placement, claims: claims(client("a")), generation: 1, visitor: Visitor::default() };
        self.core = Core::load(self.rows.clone(), &self.secret, CAPACITY, Some((&hop, 1)), self.now).unwrap();
    }

    fn core(&mut self) -> &mut Core {
        self.core.as_mut().unwrap()
    }

    /// Does something in a transaction. One that fails, or whose commit the shard doesn't live to see, leaves nothing behind.
    fn transact<T>(&mut self, dies: bool, work: impl FnOnce(&mut Core, i64) -> Result<T, RowsError>) -> Option<T> {
        self.rows.disk().borrow_mut().begin();
        let now = self.now;
        let result = work(self.core(), now);
        if let Err(RowsError::Broken(what)) = &result {
            panic!("{what}");
        }
        self.rows.set_fails(false);
        if dies || result.is_err() {
            self.rows.disk().borrow_mut().lose(1);
            self.load();
            return None;
        }
        self.rows.disk().borrow_mut().sync(usize::MAX);
        result.ok()
    }

    /// Asks the home, which may be away, as often as a request of a client is to.
    fn have_config(&mut self, of: &ClientId, away: bool, fails: bool, dies: bool) {
        for _ in 0..3 {
            let now = self.now;
            if self.core().need_config(of, now) != Need::Ask {
                return;
            }
            let asked = self.core().ask_config(5, now).unwrap();
            let question = Question::decode(&asked.question).unwrap();
            let differs = |(client, version): &(ClientId, u32)| {
                let present = self.home.get(client).copied().unwrap_or_default();
                let config = if present == 0 { Vec::new() } else { config(present) };
                (present != *version).then(|| Told { client: client.clone(), version: present, config })
            };
            let configs: Vec<Told> = question.clients.iter().filter_map(differs).collect();
            let answer = Answer { version: self.version, more: false, configs: configs.clone() };
            let answer = answer.encode(&asked.question, &self.secret.config_key());
            self.rows.set_fails(fails);
            let told = self.transact(dies, |core, now| core.configure((!away).then_some(&answer[..]), now));
            if let Some(wrong) = told {
                assert_eq!(wrong, None);
                let configs = configs.into_iter().filter(|_| !away);
                self.in_force.extend(configs.map(|told| (told.client, told.version)));
            }
        }
    }

    /// Sends an event; counts it where it is to be counted, if it was taken.
    fn send(&mut self, id: u64, of: ClientId, dies: bool) {
        let body = format!(r#"{{"event_id":"{id}","event_type":"t","timestamp":{}}}"#, self.now);
        let request = Request::read(claims(of.clone()), Visitor::default(), body.into_bytes()).unwrap();
        let taken = self.transact(dies, |core, now| {
            core.submit(request, ());
            core.commit(now)
        });
        if let Some(outcomes) = taken {
            assert_eq!(outcomes[0].1.accepted, 1);
            let own = self.in_force.get(&of).map(|version| format!("c{version}"));
            for cube in ["total".to_owned()].into_iter().chain(own) {
                *self.expected.entry((of.to_string(), cube)).or_default() += 1;
            }
        }
    }

    /// Cuts, and has the home take what was cut.
    fn cut(&mut self, dies: bool) {
        self.transact(dies, |core, now| core.cut(now));
        let now = self.now;
        while let Some(post) = self.core().post(now).unwrap() {
            let mut acks = Vec::new();
            let mut rest = &post.frames[..];
            while let Some((length, body)) = rest.split_first_chunk::<4>() {
                let (bytes, after) = body.split_at(u32::from_le_bytes(*length) as usize);
                let header = frame::peek(bytes).unwrap();
                let opened = frame::open(bytes, &self.secret.frame_key(&header.producer)).unwrap();
                let cells =
                    if self.stored.insert(header.seq) { opened.cells().unwrap() } else { CellsBlock::default() };
                for (client, section) in cells.0 {
                    for (cube, cells) in
                        section.into_iter().filter(|(cube, _)| **cube == *"total" || cube.starts_with('c'))
                    {
                        let n: u64 = cells.buckets.values().flat_map(BTreeMap::values).map(|cell| cell.count).sum();
                        *self.counted.entry((client.to_string(), cube.to_string())).or_default() += n;
                    }
                }
                let ack = Ack::refusal(Status::Stored, header.producer, header.seq, "");
                acks.push(Ack { mark: header.seq, config_version: self.version, ..ack });
                rest = after;
            }
            self.transact(false, |core, now| core.judge(acks, post.first, post.count, 2, now)).unwrap();
        }
    }
}

/// A config with a cube of the version's own.
fn config(version: u32) -> Vec<u8> {
    [&[1], format!(r#"{{"cubes":[{{"name":"c{version}","dimensions":["event_type"]}}]}}"#).as_bytes()].concat()
}

/// Whether configs changed while something of their client waited for a cut.
fn check(seed: u64) -> bool {
    let mut random = Random::new(seed);
    let mut host = Host::new();
    let mut changed_open = false;
    for id in 0..300 {
        let (fails, dies) = (random.below(20) == 0, random.below(20) == 0);
        let of = client(random.pick(&CLIENTS));
        host.now += random.pick(&[1, 50, 400, 3_000, 10_000]);
        match random.below(12) {
            0 => {
                host.version += 1;
                host.home.insert(of, host.version);
            }
            1 => host.load(),
            2 => host.cut(dies),
            _ => {
                let before = host.in_force.clone();
                let frames = host.core().meta().next_frame;
                host.have_config(&of, random.below(4) == 0, fails, dies);
                changed_open |= before != host.in_force && host.core().meta().next_frame > frames;
                host.send(id, of, random.below(20) == 0);
            }
        }
    }
    host.cut(false);
    assert_eq!(host.counted, host.expected);
    changed_open
}

#[test]
fn each_event_is_counted_under_the_config_that_it_was_taken_under() {
    let first = std::env::var("CATCHMENT_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("CATCHMENT_SEED={first}");
    let mut changed_open = 0;
    for seed in first..first + 100 {
        let checked = std::panic::catch_unwind(|| check(seed));
        changed_open += usize::from(checked.unwrap_or_else(|_| panic!("CATCHMENT_SEED={seed}")));
    }
    assert!(changed_open > 30, "{changed_open} of the runs cut for a config");
}
