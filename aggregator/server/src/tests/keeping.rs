use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use catchment_cells::ClientId;
use catchment_cells::frame::CellsBlock;

use super::kit::{Aggregator, DAY, Folder, Shard, client, event, events, one};
use crate::config::Limits;

/// All that is asked in these tests, of cells in every place and tier.
const QUERIES: [&str; 4] = [
    "metric=events&metric=users&metric=sum:duration&metric=p95:duration&start=2024-01-01&end=2024-01-04&granularity=1d",
    "metric=page_views&metric=max:duration&start=2024-01-01T00:30:00Z&end=2024-01-03T10:17:00Z&granularity=1h",
    "metric=events&start=2024-01-01&end=2024-01-02&granularity=7m",
    "metric=events&metric=users&group_by=page&limit=3&start=2024-01-01&end=2024-01-04",
];

fn busy_frame(shard: &mut Shard, client: &ClientId, n: i64) -> Bytes {
    let mut block = CellsBlock::default();
    for i in 0..40 {
        let minute = DAY + (n * 977 + i * 131) % (3 * 24 * 60);
        let page = format!("/{}", (n + i) % 7);
        event(&mut block, client, minute, &page, (n * i % 50) as u64, i);
    }
    shard.cut(block)
}

#[test]
fn answers_don_t_depend_on_flushes_folds_and_restarts() {
    let (calm, restless) = (Folder::new(), Folder::new());
    let (mut calm, mut shard, a) = (Aggregator::open(&calm), Shard::new(1), client("a"));
    let mut open = Aggregator::open(&restless);
    for n in 0..30 {
        let frame = busy_frame(&mut shard, &a, n);
        calm.send(frame.clone());
        open.send(frame);
        if n % 2 == 0 {
            open.keep();
        }
        if n % 7 == 0 {
            drop(open);
            open = Aggregator::open(&restless);
        }
        for query in QUERIES {
            assert_eq!(open.ask(&a, query), calm.ask(&a, query), "after frame {n}: {query}");
        }
    }
}

#[test]
fn a_restart_replays_what_was_not_flushed() {
    let folder = Folder::new();
    let (mut shard, a) = (Shard::new(1), client("a"));
    for n in 0..4 {
        let mut aggregator = Aggregator::open(&folder);
        assert_eq!(aggregator.events(&a), n * 2);
        aggregator.send(shard.cut(one(&a, DAY)));
        if n % 2 == 0 {
            aggregator.keep();
        }
        aggregator.send(shard.cut(one(&a, DAY + 1)));
    }
    assert_eq!(Aggregator::open(&folder).events(&a), 8);
}

#[test]
fn runs_are_folded_into_one() {
    let folder = Folder::new();
    let (mut aggregator, mut shard, a) = (Aggregator::open(&folder), Shard::new(1), client("a"));
    let mut most = 0;
    for n in 0..40u64 {
        aggregator.send(shard.cut(one(&a, DAY)));
        aggregator.keep();
        assert_eq!(aggregator.events(&a), n + 1);
        most = most.max(aggregator.cells.store().cell_rows());
    }
    // total, event_type, page and audience in three tiers, with never more than 8 runs each.
    assert!(most <= 4 * 3 * 8, "{most} rows");
    assert!(most > 4 * 3, "nothing was ever there to fold");
}

#[test]
fn a_question_during_flushes_and_folds_counts_each_cell_once() {
    let folder = Folder::new();
    let (mut aggregator, mut shard, a) = (Aggregator::open(&folder), Shard::new(1), client("a"));
    let mut other = Shard::new(2);
    let mut sent = 0;
    for round in 0..20 {
        // What is asked for moves from the open memtable through the frozen one to the store, and is folded there.
        for n in 0..5 {
            aggregator.send(shard.cut(one(&a, DAY + n)));
            sent += 1;
        }
        aggregator.send(busy_frame(&mut other, &client("b"), round));
        let cells = aggregator.cells.clone();
        std::thread::scope(|scope| {
            let keeper = &mut aggregator.keeper;
            let keeping = scope.spawn(move || while keeper.tick().unwrap() {});
            let mut questions = 0;
            while !keeping.is_finished() || questions == 0 {
                assert_eq!(events(&cells, &a), sent, "round {round}");
                questions += 1;
            }
        });
    }
}

#[test]
fn beside_a_writer_no_answer_tells_less_than_was_acked_or_told_before() {
    const FRAMES: u64 = 400;
    let folder = Folder::new();
    let (mut aggregator, mut shard, a) = (Aggregator::open(&folder), Shard::new(1), client("a"));
    let (sent, acked, cells) = (AtomicU64::new(0), AtomicU64::new(0), aggregator.cells.clone());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while last < FRAMES {
                    let least = acked.load(Ordering::SeqCst).max(last);
                    last = events(&cells, &a);
                    assert!((least..=sent.load(Ordering::SeqCst)).contains(&last), "{last} after {least}");
                }
            });
        }
        for n in 0..FRAMES {
            sent.store(n + 1, Ordering::SeqCst);
            // Of three days in turn, so that stretches that were read and kept are written to again.
            aggregator.send(shard.cut(one(&a, DAY + (n % 3) as i64 * 24 * 60)));
            acked.store(n + 1, Ordering::SeqCst);
            if n % 4 == 0 {
                aggregator.keep();
            }
        }
    });
    assert!(aggregator.cells.kept_bytes() > 0, "nothing was kept");
}

#[test]
fn a_question_that_meets_several_runs_has_them_folded() {
    let folder = Folder::new();
    let (mut shard, a) = (Shard::new(1), client("a"));
    for _ in 0..3 {
        let mut aggregator = Aggregator::open(&folder);
        aggregator.send(shard.cut(one(&a, DAY)));
        aggregator.keep();
    }
    let mut aggregator = Aggregator::open(&folder);
    let rows = aggregator.cells.store().cell_rows();
    assert_eq!(
        aggregator.ask(&a, "metric=events&start=2024-01-01&end=2024-01-02"),
        aggregator.ask(&a, "metric=events&start=2024-01-01&end=2024-01-02&granularity=1d")
    );
    aggregator.keep();
    // Two runs of the day's cells of all events.
    assert_eq!(aggregator.cells.store().cell_rows(), rows - 2);
    assert_eq!(aggregator.events(&a), 3);
}

#[test]
fn the_log_keeps_what_neither_a_restart_nor_central_needs() {
    let folder = Folder::new();
    let forwarded = Arc::new(AtomicU64::new(1));
    let limits = Limits { flush_s: 0, ..Limits::default() };
    let mut aggregator = Aggregator::with(&folder, limits, Some(forwarded.clone()));
    let (mut shard, a) = (Shard::new(1), client("a"));
    for _ in 0..20 {
        let frames = (0..100).map(|n| shard.cut(one(&a, DAY + n % 60))).collect();
        aggregator.take(frames);
    }
    let (_, full) = aggregator.cells.bytes();
    aggregator.keep();
    assert_eq!(aggregator.cells.bytes(), (0, full), "central has nothing yet");
    forwarded.store(1_500, Ordering::Relaxed);
    aggregator.send(shard.cut(one(&a, DAY)));
    aggregator.keep();
    let (_, rest) = aggregator.cells.bytes();
    assert!(rest < full && rest > 0, "{rest} of {full} bytes");
    forwarded.store(2_002, Ordering::Relaxed);
    aggregator.send(shard.cut(one(&a, DAY)));
    aggregator.keep();
    assert!(aggregator.cells.bytes().1 < rest);
    // What the log lost is in the cells.
    drop(aggregator);
    let aggregator = Aggregator::with(&folder, limits, Some(forwarded));
    assert_eq!(aggregator.events(&a), 2_002);
}
