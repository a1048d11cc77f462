//! De-duplication past memory: a shard against a set of what it accepted, on a disk that fails; and with as many ids as it is to remember.

#![cfg(test)]

use std::fmt::Write;
use std::time::Instant;

use catchment_cells::ack::{Ack, Status};
use catchment_cells::credential::Identity;
use catchment_cells::frame;
use catchment_cells::route::Placement;
use catchment_cells::{ClientId, Secret};
use catchment_collector::limits::{IDS_SPILL_FROM, LATENESS_MS};
use catchment_collector::{Capacity, Claims, Hop, IdsBounds, Request, Visitor};
use catchment_sim::random::Random;
use catchment_sim::shard::{self, Rows, RowsError};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// 2024-01-01T00:00Z, in ms.
const START: i64 = 1_704_067_200_000;
const HOUR_MS: i64 = 3_600_000;
const CAPACITY: Capacity = Capacity { requests_per_s: 1_000_000 };

/// Nobody waits for an answer.
type Core = shard::Core<()>;

/// A shard whose home takes every frame at once.
struct Host {
    rows: Rows,
    core: Option<Core>,
    hop: Hop,
    secret: Secret,
    bounds: IdsBounds,
    now: i64,
}

impl Host {
    fn new(backfill: bool, bounds: IdsBounds) -> Host {
        let shard = if backfill { "eu/backfill/shop" } else { "eu/pool/0" };
        let client = ClientId::new("shop").unwrap();
        let claims = Claims { client, identity: Identity::User, backfill, ignore_foreign_client: false };
        let placement = Placement { region: "eu".into(), shard: shard.into(), level: 0 };
        let hop = Hop { placement, claims, generation: 1, visitor: Visitor::default() };
        let secret = Secret::new(&[7; 32]).unwrap();
        let mut host = Host { rows: Rows::default(), core: None, hop, secret, bounds, now: START };
        host.rows.disk().borrow_mut().begin();
        host.load();
        host
    }

    fn load(&mut self) {
        let first = Some((&self.hop, 1));
        let loaded = Core::load_bounded(self.rows.clone(), &self.secret, CAPACITY, self.bounds, first, self.now);
        self.core = loaded.unwrap();
    }

    fn core(&self) -> &Core {
        self.core.as_ref().unwrap()
    }

    /// Does something in a transaction. One that fails, or whose commit the shard doesn't live to see, leaves nothing behind.
    fn transact<T>(&mut self, dies: bool, work: impl FnOnce(&mut Core, i64) -> Result<T, RowsError>) -> Option<T> {
        self.rows.disk().borrow_mut().begin();
        let result = work(self.core.as_mut().unwrap(), self.now);
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

    fn request(&self, events: impl Iterator<Item = (u64, i64)>) -> Request {
        let mut body = String::new();
        for (id, at) in events {
            writeln!(body, r#"{{"event_id":"{id}","event_type":"t","timestamp":{at}}}"#).unwrap();
        }
        Request::read(self.hop.claims.clone(), Visitor::default(), body.into_bytes()).unwrap()
    }

    /// Counts events: so many are accepted, and so many duplicates. `None`: nothing was taken.
    fn send(&mut self, dies: bool, events: impl Iterator<Item = (u64, i64)>) -> Option<(u64, u64)> {
        let request = self.request(events);
        let outcomes = self.transact(dies, |core, now| {
            core.submit(request, ());
            core.commit(now)
        })?;
        Some((outcomes[0].1.accepted, outcomes[0].1.duplicates))
    }

    /// Cuts, and has the home take what was cut.
    fn cut(&mut self, dies: bool) {
        self.transact(dies, |core, now| core.cut(now).and_then(|()| core.forget_expired(now)));
        while let Some(post) = self.core.as_mut().unwrap().post(self.now).unwrap() {
            let mut acks = Vec::new();
            let mut rest = &post.frames[..];
            while let Some((length, body)) = rest.split_first_chunk::<4>() {
                let (frame, after) = body.split_at(u32::from_le_bytes(*length) as usize);
                let header = frame::peek(frame).unwrap();
                let ack = Ack::refusal(Status::Stored, header.producer, header.seq, "");
                acks.push(Ack { mark: header.seq, ..ack });
                rest = after;
            }
            self.transact(false, |core, now| core.judge(acks, post.first, post.count, 2, now)).unwrap();
        }
    }
}

/// What some runs must have seen.
#[derive(Debug, Default)]
struct Seen {
    spilled: bool,
    looked_up: bool,
    swept: bool,
    full: bool,
    failed: bool,
}

/// Holds a shard against the set of what it accepted.
fn check(seed: u64, seen: &mut Seen) {
    let mut random = Random::new(seed);
    let backfill = random.below(4) == 0;
    let spilled_max = if random.below(3) == 0 { 150 } else { 1 << 20 };
    let spill_from = random.between(1, 60) as usize;
    let spill_within = random.between(1, 60) as usize;
    let mut host = Host::new(backfill, IdsBounds { ring_max: 300, spilled_max, spill_from, spill_within });
    // When each was made, and whether it was accepted.
    let mut events: Vec<(i64, bool)> = Vec::new();
    for _ in 0..200 {
        let (fails, dies) = (random.below(20) == 0, random.below(20) == 0);
        host.rows.set_fails(fails);
        match random.below(10) {
            0 => host.now += random.pick(&[1_000, 10 * 60_000, HOUR_MS, 9 * HOUR_MS]),
            1 => {
                host.rows.set_fails(false);
                host.load();
            }
            2..=4 => {
                let spilled = host.core().meta().spilled;
                host.cut(dies);
                seen.swept |= host.core().meta().spilled < spilled;
                seen.spilled |= host.core().meta().spilled > 0;
            }
            _ => {
                let n = 1 + random.below(40) as usize;
                if !host.core().has_room_for(n) {
                    host.cut(dies);
                }
                if !host.core().has_room_for(n) {
                    seen.full = true;
                    continue;
                }
                let new = random.below(n as u64 + 1) as usize;
                events.resize(events.len() + new, (host.now, false));
                let last = events.len();
                let mut ids: Vec<usize> = (last - new..last).collect();
                // Of late, or of long ago.
                let from = if random.below(2) == 0 { 0 } else { last.saturating_sub(100) };
                ids.extend(
                    (new..n)
                        .filter_map(|_| Some(random.between(from as i64, last as i64 - 1)).filter(|_| last > 0))
                        .map(|id| id as usize),
                );
                if ids.is_empty() {
                    continue;
                }
                let read = host.rows.used().spilled_read;
                let sent = ids.iter().map(|&id| (id as u64, events[id].0));
                let answer = host.send(dies, sent);
                seen.looked_up |= host.rows.used().spilled_read > read;
                let Some((accepted, duplicates)) = answer else {
                    seen.failed |= fails;
                    continue;
                };
                let (mut expected, mut known) = (0, 0);
                for &id in &ids {
                    let (at, counted) = &mut events[id];
                    let too_late = !backfill && host.now - *at > LATENESS_MS;
                    expected += u64::from(!*counted && !too_late);
                    known += u64::from(*counted && !too_late);
                    *counted |= !too_late;
                }
                assert_eq!(accepted, expected, "seed {seed}: what is new is accepted, once");
                // An event that is too late may be remembered, or not.
                assert!(duplicates >= known, "seed {seed}: {duplicates} duplicates, where {known} are known");
            }
        }
        host.rows.set_fails(false);
    }
    assert!(host.rows.is_bounded());
}

#[test]
fn what_is_new_is_accepted_once_whatever_was_spilled() {
    let mut seen = Seen::default();
    for seed in 0..500 {
        check(seed, &mut seen);
    }
    let Seen { spilled, looked_up, swept, full, failed } = seen;
    assert!(spilled && looked_up && swept && full && failed, "{seen:?}");
}

/// Under the bounds that shards have: `CATCHMENT_IDS` says how many ids, up to 21,000,000.
#[test]
fn a_shard_remembers_more_ids_than_it_has_in_memory() {
    const BODY: u64 = 500;
    let n: u64 = std::env::var("CATCHMENT_IDS").map_or(1_600_000, |n| n.parse().unwrap());
    let mut host = Host::new(false, IdsBounds::default());
    let mut random = Random::new(1);
    let (mut sent, mut looked_up) = (0, 0);
    let began = Instant::now();
    let mut cut_ms = 0u128;
    let time = |id: u64| START + (id * 1_000 / 240) as i64;
    while sent < n {
        let ids = sent..sent + BODY;
        host.now = time(ids.end);
        if !host.core().has_room_for(BODY as usize) {
            host.cut(false);
            assert!(host.core().has_room_for(BODY as usize), "{sent} ids are all that are remembered");
        }
        let read = host.rows.used().spilled_read;
        assert_eq!(host.send(false, ids.clone().map(|id| (id, time(id)))), Some((BODY, 0)), "at {sent}");
        looked_up += host.rows.used().spilled_read - read;
        sent = ids.end;
        if host.core().is_cut_due() {
            let cut = Instant::now();
            host.cut(false);
            cut_ms = cut_ms.max(cut.elapsed().as_millis());
        }
        if sent.is_multiple_of(100_000) {
            again(&mut host, &mut random, sent, time);
        }
    }
    let took = began.elapsed();
    let (used, health) = (host.rows.used(), host.core().health(host.now));
    let (bytes, rows) = host.rows.spilled_size();
    println!("{sent} events in {took:?}, the longest cut {cut_ms} ms, without sync");
    println!("{} ids in memory, {} spilled in {rows} rows of {bytes} bytes", health.ids_in_memory, health.ids_spilled);
    println!("rows written: {}, of which spilled {}; read for new events: {looked_up}", used.written, used.spilled);
    let with = MEMORY.current_usage();
    host.core = None;
    let bytes = with - MEMORY.current_usage();
    println!("bytes of memory: {bytes}");
    assert!(bytes < 57_000_000, "{bytes} bytes of memory");
    assert_eq!(health.ids_spilled > 0, sent > IDS_SPILL_FROM as u64 + 100_000);
    let began = Instant::now();
    host.load();
    println!("loaded in {:?}", began.elapsed());
    let began = Instant::now();
    (0..20).for_each(|_| again(&mut host, &mut random, sent, time));
    println!("10,000 duplicates after that in {:?}", began.elapsed());
}

/// Any 500 of what was sent are duplicates.
fn again(host: &mut Host, random: &mut Random, sent: u64, time: impl Fn(u64) -> i64) {
    // What is not too late by now.
    let first = sent.saturating_sub(24 * 3_600 * 240);
    let ids: Vec<u64> = (0..500).map(|_| first + random.below(sent - first)).collect();
    let answer = host.send(false, ids.iter().map(|&id| (id, time(id))));
    assert_eq!(answer, Some((0, 500)));
}
