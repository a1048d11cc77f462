//! Dictionaries: a day that brings more values than they have room for takes no more of the store, and answers know what they don't.

use catchment_cells::Estimate;
use catchment_cells::frame::CellsBlock;
use catchment_config::Config;

use super::kit::{Aggregator, DAY, Folder, Shard, client, event};

const PAGES: u64 = 3_000;
const RANGE: &str = "start=2024-01-01&end=2024-01-02";

/// A frame of views, each with a user of its own.
fn views(pages: impl Iterator<Item = (String, u64)>) -> CellsBlock {
    let mut block = CellsBlock::default();
    for (page, views) in pages {
        (0..views).for_each(|view| event(&mut block, &client("a"), DAY + view as i64 % 60, &page, view, 1));
    }
    block
}

fn views_of(aggregator: &Aggregator, filter: &str) -> Option<Estimate> {
    let rows = aggregator.ask(&client("a"), &format!("metric=events&filter={filter}&{RANGE}"));
    rows.first().and_then(|row| row.figures[0])
}

fn between(lower: f64, upper: f64) -> impl Fn(Option<Estimate>) -> bool {
    move |figure| figure.is_some_and(|figure| (figure.lower, figure.upper) == (lower, upper) && !figure.exact)
}

#[test]
fn a_flood_of_values_is_folded_and_hides_nothing() {
    let folder = Folder::new();
    let mut aggregator = Aggregator::open(&folder);
    let config = Config::read(br#"{"limits": {"values_per_dimension": 100}}"#).unwrap();
    aggregator.configs.put(&client("a"), config, None).unwrap();
    let mut shard = Shard::new(1);
    let frame = shard.cut(views((0..20).map(|n| (format!("/{n}"), 50))));
    aggregator.send(frame);
    aggregator.keep();
    assert_eq!(views_of(&aggregator, "page:/none"), None, "where nothing is folded, what isn't there isn't");
    let frame = shard.cut(views((0..PAGES).map(|n| (format!("/flood/{n}"), 1))));
    aggregator.send(frame);
    assert_eq!(views_of(&aggregator, "page:/flood/1").unwrap(), Estimate::exact(1.0), "until it is flushed");
    aggregator.keep();

    let all = PAGES as f64 + 1_000.0;
    for restarted in [false, true] {
        if restarted {
            drop(aggregator);
            aggregator = Aggregator::open(&folder);
        }
        let rows =
            aggregator.ask(&client("a"), &format!("metric=events&metric=users&group_by=page&limit=1000&{RANGE}"));
        assert!((50..=101).contains(&rows.len()), "{} pages", rows.len());
        let total: f64 = rows.iter().map(|row| row.figures[0].unwrap().value).sum();
        assert_eq!(total, all);
        assert_eq!(rows.iter().filter(|row| row.figures[0] == Some(Estimate::exact(50.0))).count(), 20);
        let other = rows.last().filter(|row| *row.group[0] == *"(other)").unwrap().figures[0].unwrap().value;
        assert_eq!(views_of(&aggregator, "page:/3"), Some(Estimate::exact(50.0)));
        assert_eq!(views_of(&aggregator, "page in (/3, /4)"), Some(Estimate::exact(100.0)));
        assert!(between(0.0, other)(views_of(&aggregator, "page:/none")));
        assert!(between(50.0, 50.0 + other)(views_of(&aggregator, "page in (/3, /none)")));
        let floods = rows.iter().filter(|row| row.group[0].starts_with("/flood/")).count() as f64;
        assert!(between(floods, floods + other)(views_of(&aggregator, "page^/flood/")));
        let total = aggregator.ask(&client("a"), &format!("metric=events&metric=users&{RANGE}"));
        assert_eq!(total[0].figures, [50.0, all].map(Estimate::exact).map(Some).into_iter().rev().collect::<Vec<_>>());
        // Another day is another dictionary, and another client has its own.
        assert_eq!(aggregator.ask(&client("a"), "metric=events&filter=page:/&start=2024-01-02&end=2024-01-03"), []);
        assert_eq!(aggregator.ask(&client("b"), &format!("metric=events&filter=page:/&{RANGE}")), []);
    }

    // What was told apart from the beginning still is; what comes often is let in, and may have been folded before.
    let frame = shard.cut(views([("/3".to_owned(), 10), ("/news".to_owned(), 40_000)].into_iter()));
    aggregator.send(frame);
    aggregator.keep();
    assert_eq!(views_of(&aggregator, "page:/3"), Some(Estimate::exact(60.0)));
    let news = views_of(&aggregator, "page:/news").unwrap();
    assert!(news.value == 40_000.0 && news.lower == 40_000.0 && news.upper > 40_000.0, "{news:?}");
}

#[test]
fn dictionaries_that_folded_nothing_go() {
    let folder = Folder::new();
    let mut aggregator = Aggregator::open(&folder);
    let config = Config::read(br#"{"limits": {"values_per_dimension": 100}}"#).unwrap();
    aggregator.configs.put(&client("a"), config, None).unwrap();
    let mut shard = Shard::new(1);
    let frame = shard.cut(views((0..PAGES).map(|n| (format!("/{n}"), 1))));
    aggregator.send(frame);
    aggregator.keep();
    let store = aggregator.cells.store();
    assert_eq!(store.dictionary_rows(), 2, "of event_type and of page");
    let today = catchment_aggregator_core::dictionary::day(crate::clock::now_ms() / 60_000);
    assert!(!store.sweep_dictionaries(today + 2).unwrap());
    assert_eq!(store.dictionary_rows(), 2);
    assert!(!store.sweep_dictionaries(today + 5).unwrap());
    assert_eq!(store.dictionary_rows(), 1, "that of page has folded");
    assert!(views_of(&aggregator, "page:/none").is_some_and(|figure| figure.upper > 0.0));
    // But not for longer than the day's cells.
    let config = br#"{"retention_days": {"minute": 1, "hour": 1, "day": 3}}"#;
    aggregator.configs.put(&client("a"), Config::read(config).unwrap(), None).unwrap();
    for (days, rows) in [(3, 1), (4, 0)] {
        while aggregator.keeper.expire((DAY + days * 1_440) * 60_000).unwrap() {}
        assert_eq!(aggregator.cells.store().dictionary_rows(), rows, "after {days} days");
        // A round for each client, a day later at the earliest.
        drop(aggregator);
        aggregator = Aggregator::open(&folder);
    }
}
