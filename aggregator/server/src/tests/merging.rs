//! Order doesn't matter: however events are grouped into frames of several shards, in whatever order these come and however often, and
//! whatever is flushed, folded and restarted meanwhile, each tier has the counts, sums and users of one frame of all of them.

use std::time::{Duration, Instant};

use catchment_aggregator_core::runs::Folder as Folds;
use catchment_aggregator_core::{Answer, Plan, Question};
use catchment_cells::ack::Status;
use catchment_cells::frame::CellsBlock;
use catchment_cells::sum::Sum;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::kit::{Aggregator, DAY, Folder, Shard, client, event};

const MINUTES: u64 = 3 * 24 * 60;
/// No quantiles: those hang on the order of merges.
const METRICS: &str =
    "metric=events&metric=users&metric=sum:duration&metric=min:duration&metric=max:duration&start=2024-01-01";
/// From minutes alone, hours alone, days alone, and all three; as a whole and by groups.
const TIMES: [&str; 6] = [
    "end=2024-01-04&granularity=7m",
    "end=2024-01-04&granularity=1h",
    "end=2024-01-04&granularity=1d",
    "end=2024-01-03T22:41:00Z",
    "end=2024-01-04&granularity=1d&group_by=page",
    "end=2024-01-03T22:41:00Z&group_by=page&limit=2",
];

/// What happens after a frame.
#[derive(Debug, Clone, Copy)]
enum After {
    Nothing,
    /// All that is due is flushed, folded and cut off.
    Keep,
    Restart,
    /// All frames of its shard come again, as where their acks were lost.
    Again,
}

/// All that is added up to answer: users as sets, not as estimates.
fn sums(aggregator: &Aggregator) -> Vec<(i64, Option<String>, Vec<Sum>)> {
    let mut all = Vec::new();
    for time in TIMES {
        let query = format!("{METRICS}&{time}");
        let question =
            Question::parse(query.split('&').filter_map(|pair| pair.split_once('=')), 0, &TimeZone::UTC).unwrap();
        let answer = Answer::new(Plan::new(question, &[], &TimeZone::UTC).unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        let answer = aggregator.cells.answer(&client("a"), answer, deadline).unwrap().answer;
        let top = answer.top();
        for bucket in answer.buckets() {
            let groups = answer.groups(bucket, &top).into_iter();
            let mut groups: Vec<_> =
                groups.map(|(group, sums)| (bucket, group.map(str::to_owned), sums.into_owned())).collect();
            groups.sort_by(|a, b| a.1.cmp(&b.1));
            all.extend(groups);
        }
    }
    all
}

/// SplitMix64 (Steele, Lea and Flood, 2014), of the n-th event.
fn mixed(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn after() -> impl Strategy<Value = After> {
    prop_oneof![3 => Just(After::Nothing), 2 => Just(After::Keep), 1 => Just(After::Restart), 2 => Just(After::Again)]
}

proptest! {
    // Each runs on a real store, which syncs.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_order_and_grouping_gives_the_same_sums_and_users(
        seed: u64,
        // Fewer users than are kept one by one, and more.
        events in prop_oneof![1..300u64, 1_500..2_500u64],
        // For each frame, its shard.
        frames in prop::collection::vec((0..3usize, after()), 1..16),
    ) {
        let mut whole = CellsBlock::default();
        let mut parts = vec![CellsBlock::default(); frames.len()];
        for n in 0..events {
            let random = mixed(seed, n);
            let (minute, page) = (DAY + (random % MINUTES) as i64, format!("/{}", random >> 16 & 3));
            let (user, seconds) = (random >> 20 & 0xfff, (random >> 40) as i64 % 100 - 50);
            for block in [&mut whole, &mut parts[(random >> 50) as usize % frames.len()]] {
                event(block, &client("a"), minute, &page, user, seconds);
            }
        }
        let (calm, restless) = (Folder::new(), Folder::new());
        let mut calm = Aggregator::open(&calm);
        prop_assert_eq!(calm.send(Shard::new(9).cut(whole)).status, Status::Stored);

        let mut aggregator = Aggregator::open(&restless);
        let mut shards: Vec<(Shard, Vec<_>)> = (0..3).map(|nonce| (Shard::new(1 + nonce), vec![])).collect();
        for (part, (shard, after)) in parts.into_iter().zip(&frames) {
            let (shard, sent) = &mut shards[*shard];
            let frame = shard.cut(part);
            sent.push(frame.clone());
            prop_assert_eq!(aggregator.send(frame).status, Status::Stored);
            match after {
                After::Nothing => {}
                After::Keep => aggregator.keep(),
                After::Restart => {
                    drop(aggregator);
                    aggregator = Aggregator::open(&restless);
                }
                After::Again => {
                    let acks = aggregator.take(sent.clone());
                    prop_assert!(acks.iter().all(|ack| ack.status == Status::Stored));
                }
            }
        }
        let expected = sums(&calm);
        prop_assert_eq!(sums(&aggregator), expected.clone());
        // And once all of it is in the store.
        aggregator.keep();
        prop_assert_eq!(sums(&aggregator), expected);
    }
}

/// Of a stretch whose busy minutes have a block each and whose quiet ones share one, in several runs and in one: what is asked of any part of it
/// is what happened then, whatever was asked before.
#[test]
fn any_part_of_a_stretch_has_its_own_cells() {
    const MINUTES: i64 = 60;
    let folder = Folder::new();
    let mut aggregator = Aggregator::open(&folder);
    let mut shard = Shard::new(1);
    let mut events = [0i64; MINUTES as usize];
    for run in 0..3 {
        for (minute, events) in (0..MINUTES).zip(&mut events).filter(|(minute, _)| minute % 3 <= run) {
            let mut block = CellsBlock::default();
            // A block takes no further bucket from 64 KiB on.
            let pages = if minute % 10 == 0 { 2_500 } else { 3 };
            for page in 0..pages {
                event(&mut block, &client("a"), DAY + minute, &format!("/{page}"), page, minute);
            }
            *events += pages as i64;
            assert_eq!(aggregator.send(shard.cut(block)).status, Status::Stored);
        }
        aggregator.cells.flush(&mut Folds::default()).unwrap();
    }
    let rows = aggregator.cells.store().cell_rows();
    let check = |aggregator: &Aggregator| {
        for n in 0..120 {
            let (a, b) = (mixed(7, n) as i64 & 63, mixed(8, n) as i64 & 63);
            let (from, to) = (a.min(b).min(MINUTES - 1), a.max(b).min(MINUTES));
            let to = to.max(from + 1);
            let time = |minute: i64| jiff::Timestamp::from_second((DAY + minute) * 60).unwrap();
            let query = format!("metric=events&group_by=page&limit=1&start={}&end={}", time(from), time(to));
            let told: f64 = aggregator.ask(&client("a"), &query).iter().map(|row| row.figures[0].unwrap().value).sum();
            let expected: i64 = events[from as usize..to as usize].iter().sum();
            assert_eq!(told as i64, expected, "{from}..{to}");
        }
    };
    check(&aggregator);
    aggregator.keep();
    assert!(aggregator.cells.store().cell_rows() < rows, "folded");
    check(&aggregator);
}
