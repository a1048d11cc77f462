use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use catchment_cells::ack::Status;
use catchment_cells::frame::{CHAIN_START, CellsBlock, CountersBlock, CubeCells, Kind, leave_out};

use super::kit::{Aggregator, DAY, Folder, Shard, client, event, one};
use crate::config::Limits;

#[test]
fn each_frame_counts_once() {
    let folder = Folder::new();
    let (mut aggregator, mut shard, a) = (Aggregator::open(&folder), Shard::new(1), client("a"));
    let frames: Vec<_> = (0..5).map(|minute| shard.cut(one(&a, DAY + minute))).collect();
    let acks = aggregator.take(frames.clone());
    assert!(acks.iter().all(|ack| ack.status == Status::Stored && ack.mark == 5 && ack.chain == shard.chain()));
    assert_eq!(aggregator.events(&a), 5);
    // Again, one by one and in a batch that holds each twice.
    for (seq, frame) in (1..).zip(frames.clone()) {
        let ack = aggregator.send(frame);
        assert_eq!((ack.status, ack.seq, ack.mark), (Status::Stored, seq, 5));
    }
    let twice = frames.iter().chain(&frames).cloned().collect();
    assert!(aggregator.take(twice).iter().all(|ack| ack.status == Status::Stored));
    assert_eq!(aggregator.events(&a), 5);
    // Twice in the batch that stores it.
    let next = shard.cut(one(&a, DAY));
    aggregator.take(vec![next.clone(), next]);
    assert_eq!(aggregator.events(&a), 6);
}

#[test]
fn bad_frames_are_refused_and_harm_no_other() {
    let folder = Folder::new();
    let (mut aggregator, a) = (Aggregator::open(&folder), client("a"));
    let (mut shard, mut other) = (Shard::new(1), Shard::new(2));
    aggregator.send(shard.cut(one(&a, DAY)));
    let chain = shard.chain();

    let good = shard.forge(2, chain, one(&a, DAY));
    let flipped = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        bytes.into()
    };
    let mut changed = one(&a, DAY);
    changed.0.get_mut(&a).unwrap().get_mut("page").unwrap().dimensions = vec!["country".into()];
    for (frame, status) in [
        (shard.forge(3, chain, one(&a, DAY)), Status::Gap),
        (shard.forge(2, [9; 16], one(&a, DAY)), Status::Fork),
        (shard.forge(1, CHAIN_START, one(&a, DAY + 1)), Status::Fork),
        // The version, the producer's nonce, the last byte of a block.
        (flipped(2), Status::Version),
        (flipped(9), Status::BadMac),
        (flipped(good.len() - 1), Status::BadMac),
        (good.slice(..good.len() - 1), Status::BadMac),
        (good.slice(..4), Status::Malformed),
        (shard.forge(2, chain, changed), Status::Malformed),
        (leave_out(&good, Kind::CELLS).unwrap().into(), Status::Malformed),
        (Shard::new(3).at_home("us").cut(one(&a, DAY)), Status::WrongHome),
    ] {
        let before = aggregator.events(&a);
        let acks = aggregator.take(vec![other.cut(one(&a, DAY)), frame, other.cut(one(&a, DAY))]);
        assert_eq!(acks[1].status, status, "{}", acks[1].detail);
        assert!(!acks[1].detail.is_empty());
        assert_eq!((acks[0].status, acks[2].status), (Status::Stored, Status::Stored));
        assert_eq!(aggregator.events(&a), before + 2);
        // Whatever is wrong with a frame, its producer learns what is safe.
        if acks[1].producer.nonce() == 1 {
            assert_eq!((acks[1].mark, acks[1].chain), (1, chain), "{status:?}");
        }
    }
    assert_eq!(aggregator.send(good).status, Status::Stored);
}

#[test]
fn clients_never_mix() {
    let folder = Folder::new();
    let (mut aggregator, mut shard) = (Aggregator::open(&folder), Shard::new(1));
    // Names that are prefixes of each other, in one frame.
    let mut block = CellsBlock::default();
    for (name, events) in [("a", 1), ("ab", 2), ("a-b", 3)] {
        (0..events).for_each(|n| event(&mut block, &client(name), DAY, "/", n, 1));
    }
    aggregator.send(shard.cut(block));
    for _ in 0..2 {
        for (name, events) in [("a", 1), ("ab", 2), ("a-b", 3), ("b", 0)] {
            assert_eq!(aggregator.events(&client(name)), events, "{name}");
        }
        aggregator.keep();
    }
}

#[test]
fn counters_are_answered_by_reason() {
    let folder = Folder::new();
    let (mut aggregator, mut shard, a) = (Aggregator::open(&folder), Shard::new(1), client("a"));
    let mut counters = CountersBlock::default();
    counters.add(&a, "duplicate", DAY, 3);
    counters.add(&a, "late", DAY + 60, 4);
    aggregator.send(shard.cut_counted(CellsBlock::default(), counters));
    for _ in 0..2 {
        let rows = aggregator.ask(&a, "metric=received:duplicate&metric=received:late&start=2024-01-01&end=2024-01-02");
        let values: Vec<f64> = rows[0].figures.iter().map(|figure| figure.unwrap().value).collect();
        assert_eq!(values, [3.0, 4.0]);
        aggregator.keep();
    }
}

#[test]
fn a_client_may_have_cubes_of_its_own_and_they_survive() {
    let folder = Folder::new();
    let (mut shard, a) = (Shard::new(1), client("a"));
    let mut block = one(&a, DAY);
    let mut cube = CubeCells { dimensions: vec!["colour".into()], ..CubeCells::default() };
    cube.buckets.entry(DAY).or_default().entry(vec![Some("red".into())]).or_default().count = 7;
    block.0.get_mut(&a).unwrap().insert("colour".into(), cube);
    let query = "metric=events&group_by=colour&start=2024-01-01&end=2024-01-02";
    {
        let mut aggregator = Aggregator::open(&folder);
        assert_eq!(aggregator.send(shard.cut(block.clone())).status, Status::Stored);
        assert_eq!(aggregator.ask(&a, query)[0].figures[0].unwrap().value, 7.0);
        aggregator.keep();
    }
    let mut aggregator = Aggregator::open(&folder);
    assert_eq!(aggregator.ask(&a, query)[0].figures[0].unwrap().value, 7.0);
    // Another client's cube of that name may be another one; this client's may not.
    block.0.get_mut(&a).unwrap().get_mut("colour").unwrap().dimensions = vec!["shade".into()];
    assert_eq!(aggregator.send(shard.forge(2, shard.chain(), block.clone())).status, Status::Malformed);
    let section = block.0.remove(&a).unwrap();
    let theirs = CellsBlock([(client("b"), section)].into());
    assert_eq!(aggregator.send(shard.cut(theirs)).status, Status::Stored);
}

#[test]
fn a_question_makes_its_client_watched() {
    let folder = Folder::new();
    let (mut aggregator, mut shard) = (Aggregator::open(&folder), Shard::new(1));
    aggregator.watched.lock().unwrap().watch(&client("a"), 0);
    assert!(!aggregator.send(shard.cut(one(&client("b"), DAY))).watched);
    assert!(aggregator.send(shard.cut(one(&client("a"), DAY))).watched);
}

#[test]
fn without_room_frames_wait_and_nothing_is_lost() {
    let folder = Folder::new();
    let (mut shard, a) = (Shard::new(1), client("a"));
    let limits = Limits { memtable_bytes: 20_000.try_into().unwrap(), flush_s: 3_600, ..Limits::default() };
    let mut aggregator = Aggregator::with(&folder, limits, None);
    let (mut stored, mut busy) = (0, 0);
    for minute in 0..60 {
        let frame = shard.cut(one(&a, DAY + minute));
        let mut ack = aggregator.send(frame.clone());
        if ack.status == Status::Busy {
            assert!(ack.retry_after_ms > 0);
            busy += 1;
            aggregator.keep();
            ack = aggregator.send(frame);
        }
        assert_eq!(ack.status, Status::Stored);
        stored += 1;
    }
    assert!(busy > 0);
    assert_eq!(aggregator.events(&a), stored);
}

#[test]
fn a_full_log_waits_for_central() {
    let folder = Folder::new();
    let (mut shard, a) = (Shard::new(1), client("a"));
    let forwarded = Arc::new(AtomicU64::new(1));
    let limits = Limits { log_bytes: 200_000.try_into().unwrap(), flush_s: 0, ..Limits::default() };
    let mut aggregator = Aggregator::with(&folder, limits, Some(forwarded.clone()));
    let mut stored = 0;
    let refused = loop {
        let frame = shard.cut(one(&a, DAY));
        match aggregator.send(frame.clone()).status {
            Status::Stored => stored += 1,
            Status::Busy => break frame,
            status => panic!("{status:?}"),
        }
    };
    aggregator.keep();
    assert_eq!(aggregator.send(refused.clone()).status, Status::Busy, "a flush alone makes no room");
    forwarded.store(stored + 1, Ordering::Relaxed);
    aggregator.keep();
    assert_eq!(aggregator.send(refused).status, Status::Stored);
    assert_eq!(aggregator.events(&a), stored + 1);
}
