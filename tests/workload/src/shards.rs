//! Shards that count bodies, as the edge has them: read, apply, cut when the size of what waits says so.

use catchment_cells::credential::Identity;
use catchment_cells::cube::{self, Cube};
use catchment_cells::frame::Producer;
use catchment_cells::{ClientId, Secret};
use catchment_collector::{Claims, Collector, LogRow, Meta, Request, Visitor};

/// Shards that a site of 10 M events a day is spread over. Their ids stay in memory: they have no storage to spill to.
pub const SHARDS: usize = 4;
/// Events of a body.
pub const BODY_EVENTS: usize = 500;

/// The secret of a deployment that is none.
pub const SECRET: [u8; 32] = [1; 32];

/// What is compared with others: `total`, `country` and `page`, without quantiles.
pub fn three_cubes() -> Vec<Cube> {
    let wanted = ["total", "country", "page"];
    cube::DEFAULT
        .iter()
        .filter(|cube| wanted.contains(&cube.name))
        .map(|&cube| Cube { digest: false, ..cube })
        .collect()
}

/// Collectors that take turns, each with a body.
#[derive(Debug)]
pub struct Shards {
    claims: Claims,
    shards: Vec<(Collector, u64)>,
    turn: usize,
    now: i64,
    /// Events that were counted.
    pub accepted: u64,
}

impl Shards {
    /// `n` shards of a deployment that fill these cubes.
    ///
    /// # Panics
    /// If its own literals are not what the collector takes.
    pub fn new(secret: &Secret, n: usize, cubes: &[Cube]) -> Shards {
        let claims = Claims {
            client: ClientId::new("bench").expect("a client id"),
            identity: Identity::User,
            backfill: false,
            ignore_foreign_client: false,
        };
        let shard = |nonce| {
            let producer = Producer::new(nonce, "eu/pool/0").expect("a shard's name");
            (Collector::with_cubes(secret.clone(), Meta::new(producer, "eu"), cubes), 0)
        };
        let shards = (1..=n as u64).map(shard).collect();
        Shards { claims, shards, turn: 0, now: 0, accepted: 0 }
    }

    /// Counts a body of page views, received at the last one's time, and hands out the frames that fell due.
    ///
    /// # Panics
    /// If the body is none of this crate's.
    pub fn take(&mut self, body: Vec<u8>, frame: &mut dyn FnMut(Vec<u8>)) {
        self.take_of(self.claims.client.clone(), body, frame);
    }

    /// As [`take`](Self::take), of a client that shares these shards with others.
    ///
    /// # Panics
    /// If the body is none of this crate's.
    pub fn take_of(&mut self, client: ClientId, body: Vec<u8>, frame: &mut dyn FnMut(Vec<u8>)) {
        self.now = last_time(&body);
        let claims = Claims { client, ..self.claims.clone() };
        let request = Request::read(claims, Visitor::default(), body).expect("a body of events");
        let turn = self.turn;
        self.turn = (turn + 1) % self.shards.len();
        let (collector, rows) = &mut self.shards[turn];
        let row = LogRow { received_at: self.now, requests: vec![request] };
        self.accepted += collector.apply(&row).iter().map(|outcome| outcome.accepted).sum::<u64>();
        *rows += 1;
        if collector.is_cut_due() {
            cut(collector, self.now, *rows, frame);
        }
    }

    /// Cuts what waits.
    pub fn finish(&mut self, frame: &mut dyn FnMut(Vec<u8>)) {
        for (collector, rows) in &mut self.shards {
            cut(collector, self.now, *rows, frame);
        }
    }
}

fn cut(collector: &mut Collector, now: i64, rows: u64, frame: &mut dyn FnMut(Vec<u8>)) {
    let frames = collector.cut(now, rows, 0).map(|cut| cut.frames).unwrap_or_default();
    frames.into_iter().for_each(|made| frame(made.bytes));
}

/// The time of a body's last event.
fn last_time(body: &[u8]) -> i64 {
    const BEFORE: &[u8] = b"\"timestamp\":";
    let at = body.windows(BEFORE.len()).rposition(|window| window == BEFORE).expect("events have a time");
    body[at + BEFORE.len()..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |ms, digit| ms * 10 + i64::from(digit - b'0'))
}
