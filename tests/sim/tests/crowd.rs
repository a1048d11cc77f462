//! What a shard lets in while it is crowded: the shard's own code, on virtual time.

#![cfg(test)]

use catchment_cells::ack::{Ack, Status};
use catchment_cells::credential::Identity;
use catchment_cells::route::Placement;
use catchment_cells::{ClientId, Secret};
use catchment_collector::limits::{CUT_FRAMES_MAX, OUTBOX_FRAMES_MAX, POOL_HELD_MAX};
use catchment_collector::shard::Refused;
use catchment_collector::{Capacity, Claims, Hop, Visitor};
use catchment_sim::shard::{self, Rows};

/// Nobody waits for an answer.
type Core = shard::Core<()>;

/// 2024-01-01T00:00Z, in ms.
const START: i64 = 1_704_067_200_000;

fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

fn claims(client: &ClientId) -> Claims {
    Claims { client: client.clone(), identity: Identity::User, backfill: false, ignore_foreign_client: false }
}

fn pool() -> Core {
    let placement = Placement { region: "eu".into(), shard: "eu/pool/0".into(), level: 0 };
    let hop = Hop { placement, claims: claims(&client("first")), generation: 1, visitor: Visitor::default() };
    let secret = Secret::new(&[7; 32]).unwrap();
    Core::load(Rows::default(), &secret, Capacity { requests_per_s: 10_000 }, Some((&hop, 1)), START).unwrap().unwrap()
}

/// Has a pool take an event and cut it, if it does take it.
fn take(core: &mut Core, client: &ClientId, n: i64) -> Result<bool, Refused> {
    let now = START + n;
    let body = format!(r#"{{"event_id":"e{n}","event_type":"page_view","timestamp":{now},"page":"/"}}"#);
    let request = core.read(claims(client), Visitor::default(), 0, body.into_bytes(), now)?;
    if !core.has_room_for(1) || core.cut_at(now).is_none() && core.health(now).log_rows > 0 {
        return Ok(false);
    }
    core.submit(request, ());
    core.commit(now).unwrap();
    core.cut(now).unwrap();
    Ok(true)
}

/// Has all that waits stored.
fn drain(core: &mut Core, now: i64) {
    while let Some(post) = core.post(now).unwrap() {
        let producer = core.meta().producer.clone();
        let stored = |seq| Ack { mark: seq, ..Ack::refusal(Status::Stored, producer.clone(), seq, "") };
        let acks = (post.first..).take(post.count).map(stored).collect();
        core.judge(acks, post.first, post.count, 2, now).unwrap();
    }
}

#[test]
fn while_the_home_is_away_one_client_leaves_room_for_others() {
    let (mut core, hot, small) = (pool(), client("hot"), client("small"));
    let mut n = 0;
    let over = loop {
        n += 1;
        match take(&mut core, &hot, n) {
            Ok(taken) => assert!(taken, "full after {n}"),
            Err(over) => break over,
        }
    };
    assert!(matches!(over, Refused::OverQuota(over) if over.retry_after_ms >= 1_000), "{over:?}");
    assert_eq!(core.health(START).outbox_frames, POOL_HELD_MAX + 1);
    assert_eq!(core.level(&hot, 0, START + n), 1, "it is led to a shard of its own");
    let mut taken = 0;
    while take(&mut core, &small, n + taken + 1).unwrap() {
        taken += 1;
    }
    assert!(taken as u64 >= OUTBOX_FRAMES_MAX - POOL_HELD_MAX - CUT_FRAMES_MAX, "{taken} of the other client");
    n += taken + 2;
    drain(&mut core, START + n);
    assert_eq!(core.health(START).outbox_frames, 0);
    assert_eq!(take(&mut core, &hot, n), Ok(true));
}

#[test]
fn a_client_whose_events_are_all_rejected_is_not_taken_for_another() {
    let (mut core, hostile, small) = (pool(), client("hostile"), client("small"));
    let rejected = format!("[{}]", vec![r#"{"event_id":"e","event_type":"page_view"}"#; 500].join(","));
    let mut n = 0;
    let over = loop {
        n += 1;
        assert!(n < 1_000, "nobody is turned away");
        match core.read(claims(&hostile), Visitor::default(), 0, rejected.clone().into_bytes(), START + n) {
            Ok(request) => core.submit(request, ()),
            Err(over) => break over,
        }
        assert_eq!(take(&mut core, &small, n), Ok(true), "after {n}");
    };
    assert!(matches!(over, Refused::OverQuota(_)), "{over:?}");
    assert_eq!(core.health(START).outbox_frames, POOL_HELD_MAX + 1);
    assert_eq!(take(&mut core, &small, n), Ok(true));
}

#[test]
fn a_busy_shard_holds_requests_back_for_frames_that_are_long_on_their_way() {
    let mut core = pool();
    assert_eq!(take(&mut core, &client("a"), 0), Ok(true));
    assert_eq!(core.hold(1_000, START), None, "nothing is on its way");
    let post = core.post(START).unwrap().unwrap();
    assert_eq!(core.post(START).unwrap(), None, "one at a time");
    assert_eq!(core.hold(1_000, START + 100), None, "not for long");
    assert_eq!(core.hold(3, START + 300), None, "not busy");
    let wait = core.hold(1_000, START + 300).unwrap();
    assert!((50..=500).contains(&wait.as_millis()), "{wait:?}");
    // A home that is away holds nobody back.
    core.judge(Vec::new(), post.first, post.count, 2, START + 400).unwrap();
    assert_eq!(core.hold(1_000, START + 500), None);
    assert!(core.post(START + 10_000).unwrap().is_some());
    assert_eq!(core.hold(1_000, START + 11_000), None);
}
