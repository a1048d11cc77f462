//! The aggregator is away for an hour at 100 events/s: the shard's own code, on virtual time.

#![cfg(test)]

use std::time::Instant;

use bytes::Bytes;
use catchment_aggregator_core::tables::Bounds;
use catchment_cells::credential::Identity;
use catchment_cells::route::Placement;
use catchment_cells::{ClientId, Secret};
use catchment_collector::shard::Post;
use catchment_collector::{Capacity, Claims, Hop, Request, Visitor};
use catchment_sim::aggregator::Aggregator;
use catchment_sim::random::Random;
use catchment_sim::shard::{Core, Rows};

/// 2024-01-01T00:00Z, in ms.
const START: i64 = 1_704_067_200_000;
const HOUR_MS: i64 = 3_600_000;
/// Requests of one event each, so that groups and log rows are as many as they can be.
const EVENTS_PER_S: i64 = 100;
/// How long a POST to an aggregator that answers takes, in ms.
const ROUND_TRIP_MS: i64 = 20;

fn request(n: i64, at: i64, client: &ClientId, random: &mut Random) -> Request {
    // Pages by Zipf's law, 10,000 of them; a user in ten minutes or so comes again.
    let page = (10_000f64.powf(random.below(1 << 32) as f64 / (1u64 << 32) as f64)) as u64;
    let body = format!(
        r#"{{"event_id":"e{n}","event_type":"page_view","timestamp":{at},"user_id":"u{}","page":"/p/{page}","country":"{}","device":"{}","properties":{{"duration_ms":{}}}}}"#,
        random.below(60_000),
        random.pick(&["DE", "FR", "US", "IN", "BR", "JP"]),
        random.pick(&["desktop", "mobile"]),
        random.below(30_000),
    );
    let claims =
        Claims { client: client.clone(), identity: Identity::User, backfill: false, ignore_foreign_client: false };
    Request::read(claims, Visitor::default(), body.into_bytes()).unwrap()
}

#[test]
fn an_hour_without_an_aggregator_loses_nothing() {
    let (secret, client, mut random) = (Secret::new(&[7; 32]).unwrap(), ClientId::new("shop").unwrap(), Random::new(1));
    let placement = Placement { region: "eu".into(), shard: "eu/pool/0".into(), level: 0 };
    let claims =
        Claims { client: client.clone(), identity: Identity::User, backfill: false, ignore_foreign_client: false };
    let hop = Hop { placement, claims, generation: 1, visitor: Visitor::default() };
    let rows = Rows::default();
    let mut core = Core::load(rows.clone(), &secret, Capacity { requests_per_s: 10_000 }, Some((&hop, 1)), START)
        .unwrap()
        .unwrap();
    let bounds = Bounds { memtable_bytes: 32 << 20, flush_ms: 60_000, log_bytes: 4 << 30 };
    let mut aggregator = Aggregator::new(Some("eu".into()), false, bounds, secret);
    aggregator.start(0).unwrap();

    let (mut acked, mut turned_away, mut frames_most, mut caught_up) = (0u64, 0u64, 0, None);
    let (mut now, mut n, mut back_cpu) = (START, 0, None);
    // An answer is on its way until then, for the POST of these frames.
    let mut posting: Option<(i64, Post)> = None;
    while caught_up.is_none() {
        now += 1_000 / EVENTS_PER_S;
        assert!(now < START + 2 * HOUR_MS, "it never catches up");
        rows.disk().borrow_mut().begin();
        let event = request(n, now, &client, &mut random);
        if !core.has_room_for(1) {
            core.cut(now).unwrap();
        }
        if core.has_room_for(1) {
            n += 1;
            core.submit(event, ());
        } else {
            turned_away += 1;
        }
        if core.group_ends_in(now).is_none() {
            acked += core.commit(now).unwrap().iter().map(|(_, outcome)| outcome.accepted).sum::<u64>();
            if core.is_cut_due() {
                core.cut(now).unwrap();
            }
        }
        if core.cut_at(now).is_some_and(|at| at <= now) {
            core.cut(now).unwrap();
        }
        frames_most = frames_most.max(core.health(now).outbox_frames);
        let away = now < START + HOUR_MS;
        if let Some((at, post)) = posting.take_if(|(at, _)| *at <= now) {
            let mut acks = Vec::new();
            if !away {
                back_cpu.get_or_insert_with(Instant::now);
                let frames = split(&post.frames);
                acks = aggregator.take(&frames, at, at, &mut random, 0).unwrap();
            }
            core.judge(acks, post.first, post.count, 2, now).unwrap();
            if !away && core.health(now).outbox_frames == 0 {
                caught_up = Some(now - START - HOUR_MS);
            }
        }
        if posting.is_none()
            && let Some(post) = core.post(now).unwrap()
        {
            posting = Some((now + ROUND_TRIP_MS, post));
        }
        if now == START + HOUR_MS {
            let (outbox, log, frames) = rows.size();
            println!("after an hour: {acked} events acknowledged, {turned_away} turned away");
            println!(
                "on disk: {frames} frames, {outbox} bytes of outbox, {log} bytes of log; at most {frames_most} frames waited"
            );
            assert!(outbox < 64 << 20 && log < 64 << 20, "{outbox} bytes of outbox, {log} of log");
        }
        rows.disk().borrow_mut().sync(usize::MAX);
    }
    println!(
        "caught up {} ms after it came back; {:?} of CPU for storing, and for the events that came meanwhile",
        caught_up.unwrap(),
        back_cpu.unwrap().elapsed(),
    );
    assert!(rows.is_bounded());
    assert_eq!(turned_away, 0, "senders were turned away");
    // What is not in a frame yet.
    acked += core.commit(now + 100).unwrap().iter().map(|(_, outcome)| outcome.accepted).sum::<u64>();
    while let Some(at) = core.due_at(now) {
        now = now.max(at);
        core.cut(now).unwrap();
        let Some(post) = core.post(now).unwrap() else { continue };
        // Its memtable may be full.
        aggregator.keep(now, true, &mut random, 0).unwrap();
        let frames: Vec<_> = split(&post.frames);
        let acks = aggregator.take(&frames, now, now, &mut random, 0).unwrap();
        core.judge(acks, post.first, post.count, 2, now).unwrap();
    }
    aggregator.keep(now, true, &mut random, 0).unwrap();
    let cells = aggregator.cells().unwrap();
    let counted: u64 = cells
        .iter()
        .filter(|(key, _)| &*key.cube == "total" && key.tier == catchment_cells::key::Tier::Minute)
        .map(|(_, cell)| cell.count)
        .sum();
    assert_eq!(counted, acked);
}

/// The frames of a POST.
fn split(mut rest: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some((length, body)) = rest.split_first_chunk::<4>() {
        let (frame, after) = body.split_at(u32::from_le_bytes(*length) as usize);
        frames.push(Bytes::copy_from_slice(frame));
        rest = after;
    }
    frames
}
