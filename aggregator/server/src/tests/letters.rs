use catchment_aggregator_core::letters::{LetterId, Order};
use catchment_aggregator_core::limits::DEAD_LETTERS_BYTES_MAX;
use catchment_cells::ClientId;
use catchment_cells::frame::DeadLetter;
use catchment_cells::limits::DEAD_LETTER_BYTES_MAX;

use super::kit::{Aggregator, Folder, Shard, client};

fn letter(event: impl Into<Box<str>>) -> DeadLetter {
    DeadLetter { received_at: 5, reason: "too_late".into(), event: event.into() }
}

/// All that is kept of a client, in an order, behind a letter.
fn kept(aggregator: &Aggregator, client: &ClientId, order: Order, after: Option<LetterId>) -> Vec<(LetterId, String)> {
    let mut kept = Vec::new();
    let letters = aggregator.cells.store().letters();
    letters
        .visit(client, order, after, |id, letter| {
            kept.push((id, letter.event.into()));
            true
        })
        .unwrap();
    kept
}

fn events(kept: &[(LetterId, String)]) -> Vec<&str> {
    kept.iter().map(|(_, event)| event.as_str()).collect()
}

#[test]
fn letters_are_kept_once_and_read_in_either_order_also_after_a_restart() {
    let folder = Folder::new();
    let (shop, other) = (client("shop"), client("shopping"));
    let mut aggregator = Aggregator::open(&folder);
    let mut shard = Shard::new(1);
    let frames = vec![
        shard.cut_letters(&shop, vec![letter("a"), letter("b")]),
        shard.cut_letters(&other, vec![letter("x")]),
        shard.cut_letters(&shop, vec![letter("c")]),
    ];
    aggregator.take(frames.clone());
    aggregator.take(frames);
    for _ in 0..2 {
        let oldest = kept(&aggregator, &shop, Order::Oldest, None);
        assert_eq!(events(&oldest), ["a", "b", "c"]);
        assert_eq!(events(&kept(&aggregator, &shop, Order::Newest, None)), ["c", "b", "a"]);
        let b = Some(oldest[1].0);
        assert_eq!(events(&kept(&aggregator, &shop, Order::Oldest, b)), ["c"]);
        assert_eq!(events(&kept(&aggregator, &shop, Order::Newest, b)), ["a"]);
        assert_eq!(events(&kept(&aggregator, &other, Order::Oldest, None)), ["x"]);
        aggregator.keep();
        drop(aggregator);
        aggregator = Aggregator::open(&folder);
    }
}

#[test]
fn beyond_the_bound_the_oldest_of_a_client_go() {
    const OF_FRAME: usize = 60;
    const FRAMES: usize = 80;
    let folder = Folder::new();
    let (shop, quiet) = (client("shop"), client("quiet"));
    let mut aggregator = Aggregator::open(&folder);
    let mut shard = Shard::new(1);
    aggregator.send(shard.cut_letters(&quiet, vec![letter("only")]));
    for frame in 0..FRAMES {
        let event = |n| format!("{:width$}", frame * OF_FRAME + n, width = DEAD_LETTER_BYTES_MAX);
        let letters = |from| (from..from + OF_FRAME / 2).map(|n| letter(event(n))).collect();
        // Two frames in one batch.
        aggregator.take(vec![shard.cut_letters(&shop, letters(0)), shard.cut_letters(&shop, letters(OF_FRAME / 2))]);
        if frame == FRAMES / 2 {
            // What is counted of it is counted anew after a restart.
            drop(aggregator);
            aggregator = Aggregator::open(&folder);
        }
    }
    let kept_of_shop = kept(&aggregator, &shop, Order::Oldest, None);
    let bytes: usize = kept_of_shop.iter().map(|(_, event)| event.len()).sum();
    assert!((DEAD_LETTERS_BYTES_MAX * 98 / 100..=DEAD_LETTERS_BYTES_MAX).contains(&bytes), "{bytes}");
    // The newest, without a gap.
    let first = OF_FRAME * FRAMES - kept_of_shop.len();
    assert!((first..).zip(events(&kept_of_shop)).all(|(n, event)| event.trim() == n.to_string()));
    assert_eq!(events(&kept(&aggregator, &quiet, Order::Oldest, None)), ["only"]);
}
