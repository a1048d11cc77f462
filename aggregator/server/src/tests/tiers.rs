//! Hours and days on a client's clock: cut anew when it gets another one, and right meanwhile.

use std::collections::BTreeMap;

use catchment_aggregator_core::{Plan, Question};
use catchment_cells::ClientId;
use catchment_cells::frame::CellsBlock;
use catchment_config::Config;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::kit::{Aggregator, Folder, Shard, client, event};
use crate::configs::PutError;
use crate::zones;

/// Around the ends of summer time and of winter time in Berlin, New York and on Lord Howe.
const SPANS: [(&str, &str); 3] =
    [("2024-03-08", "2024-03-13"), ("2024-03-28", "2024-04-09"), ("2024-10-04", "2024-11-05")];

fn set(aggregator: &Aggregator, client: &ClientId, json: &str) -> Result<u32, PutError> {
    aggregator.configs.put(client, Config::read(json.as_bytes()).unwrap(), None)
}

fn set_zone(aggregator: &Aggregator, client: &ClientId, name: &str) {
    set(aggregator, client, &format!("{{\"time_zone\": \"{name}\"}}")).unwrap();
}

fn minute(text: &str, zone: &TimeZone) -> i64 {
    let date: jiff::civil::Date = text.parse().unwrap();
    date.to_zoned(zone.clone()).unwrap().timestamp().as_second() / 60
}

/// Some minutes of each span, so many.
fn minutes(n: usize) -> Vec<i64> {
    let span = |(from, to): &(&str, &str)| {
        let (from, to) = (minute(from, &TimeZone::UTC), minute(to, &TimeZone::UTC));
        (0..n as i64).map(move |i| from + i * 7_919 % (to - from))
    };
    SPANS.iter().flat_map(span).collect()
}

fn frame(client: &ClientId, minutes: &[i64]) -> CellsBlock {
    let mut block = CellsBlock::default();
    for minute in minutes {
        event(&mut block, client, *minute, &format!("/{}", minute % 3), *minute as u64, 1);
    }
    block
}

/// How many of the minutes lie in which day, and in which hour, counted from the start of its day.
fn expected(minutes: &[i64], zone: &TimeZone) -> [BTreeMap<i64, u64>; 2] {
    let mut counts = [BTreeMap::new(), BTreeMap::new()];
    for minute in minutes {
        let zoned = Timestamp::from_second(minute * 60).unwrap().to_zoned(zone.clone());
        let day = zoned.start_of_day().unwrap().timestamp().as_second() / 60;
        let hour = day + (minute - day) / 60 * 60;
        for (counts, bucket) in counts.iter_mut().zip([day, hour]) {
            *counts.entry(bucket).or_default() += 1;
        }
    }
    counts
}

/// Asks for the days and hours of each span, by dates of the client's clock, and holds them against those that are expected.
fn check(aggregator: &Aggregator, client: &ClientId, minutes: &[i64], name: &str) {
    let zone = zones::find(name).unwrap();
    let zone = catchment_aggregator_core::Tiers::on(zone).time_zone().clone();
    let [days, hours] = expected(minutes, &zone);
    for (from, to) in SPANS {
        for (granularity, counts) in [("1d", &days), ("1h", &hours)] {
            let query = format!("metric=events&start={from}&end={to}&granularity={granularity}");
            let answered: BTreeMap<i64, u64> = aggregator
                .ask(client, &query)
                .iter()
                .map(|row| (row.bucket, row.figures[0].unwrap().value as u64))
                .collect();
            let range = minute(from, &zone)..minute(to, &zone);
            let expected: BTreeMap<i64, u64> = counts.range(range).map(|(bucket, n)| (*bucket, *n)).collect();
            assert_eq!(answered, expected, "{name} {query}");
        }
    }
}

#[test]
fn a_clients_days_are_cut_on_its_clock() {
    let (folder, a, b) = (Folder::new(), client("a"), client("b"));
    let (mut aggregator, mut shard) = (Aggregator::open(&folder), Shard::new(1));
    set_zone(&aggregator, &a, "Australia/Lord_Howe");
    let minutes = minutes(40);
    let mut block = frame(&a, &minutes);
    block.0.extend(frame(&b, &minutes).0);
    aggregator.send(shard.cut(block));
    for _ in 0..2 {
        check(&aggregator, &a, &minutes, "Australia/Lord_Howe");
        check(&aggregator, &b, &minutes, "UTC");
        aggregator.keep();
    }
    drop(aggregator);
    let aggregator = Aggregator::open(&folder);
    check(&aggregator, &a, &minutes, "Australia/Lord_Howe");
    check(&aggregator, &b, &minutes, "UTC");
    let refused = set(&aggregator, &a, r#"{"time_zone": "Europe/Bielefeld"}"#);
    assert!(matches!(refused, Err(PutError::TimeZone(_))), "{refused:?}");
}

#[test]
fn another_clock_cuts_all_anew_and_no_answer_is_wrong_meanwhile() {
    for (i, names) in [
        ["UTC", "Europe/Berlin", "America/New_York"],
        ["Asia/Kathmandu", "Australia/Lord_Howe", "UTC"],
        ["America/New_York", "Asia/Kathmandu", "Europe/Berlin"],
    ]
    .iter()
    .enumerate()
    {
        let (folder, a) = (Folder::new(), client("a"));
        let (mut aggregator, mut shard) = (Aggregator::open(&folder), Shard::new(1));
        let all = minutes(60);
        let (first, rest) = all.split_at(120);
        let mut sent = first.to_vec();
        set_zone(&aggregator, &a, names[0]);
        aggregator.send(shard.cut(frame(&a, first)));
        aggregator.keep();
        check(&aggregator, &a, &sent, names[0]);
        let mut rest = rest.chunks(4);
        let mut steps = 0;
        for (n, name) in [names[1], names[2], names[0], names[1]].into_iter().enumerate() {
            set_zone(&aggregator, &a, name);
            loop {
                check(&aggregator, &a, &sent, name);
                if steps % 5 == i
                    && let Some(more) = rest.next()
                {
                    aggregator.send(shard.cut(frame(&a, more)));
                    sent.extend(more);
                }
                if steps % 17 == i {
                    drop(aggregator);
                    aggregator = Aggregator::open(&folder);
                }
                steps += 1;
                // The second change comes while the first is under way.
                if !aggregator.keeper.tick().unwrap() || (n == 0 && steps > 20) {
                    break;
                }
            }
        }
        assert!(steps > 100, "{steps} steps");
        aggregator.keep();
        check(&aggregator, &a, &sent, names[1]);
        // What was taken away and written again is all there is: as if it had always been so.
        let (other, mut shard) = (Folder::new(), Shard::new(2));
        let mut other = Aggregator::open(&other);
        set_zone(&other, &a, names[1]);
        other.send(shard.cut(frame(&a, &sent)));
        other.keep();
        let query = "metric=events&metric=users&metric=sum:duration&metric=p95:duration&start=2024-03-01&end=2024-12-01&granularity=1d";
        assert_eq!(aggregator.ask(&a, query), other.ask(&a, query));
        assert!(aggregator.cells.tiers(&a).cutting().is_none());
    }
}

/// Removes all that is not kept any more at a time.
fn expire(aggregator: &mut Aggregator, at: i64) {
    while aggregator.keeper.expire(at * 60_000).unwrap() {}
}

/// Why a question isn't answered.
fn refused(aggregator: &Aggregator, client: &ClientId, query: &str) -> String {
    let tiers = aggregator.cells.tiers(client);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let question = Question::parse(pairs, 0, tiers.time_zone()).unwrap();
    Plan::of(question, &[], &tiers).expect_err(query).to_string()
}

#[test]
fn what_is_not_kept_any_more_goes_and_is_told() {
    let (folder, a) = (Folder::new(), client("a"));
    let (mut aggregator, mut shard) = (Aggregator::open(&folder), Shard::new(1));
    set(&aggregator, &a, r#"{"retention_days": {"minute": 2, "hour": 10, "day": 40}}"#).unwrap();
    let mut sent = minutes(40);
    let other = client("b");
    let mut block = frame(&a, &sent);
    block.0.extend(frame(&other, &sent).0);
    aggregator.send(shard.cut(block));
    aggregator.keep();
    let rows = aggregator.cells.store().cell_rows();
    let now = minute("2024-04-05", &TimeZone::UTC) + 700;
    expire(&mut aggregator, now);
    let fewer = aggregator.cells.store().cell_rows();
    assert!(fewer < rows, "{fewer} of {rows}");
    let days = |from: &str| format!("metric=events&start={from}&end=2024-11-10&granularity=1d");
    let count = |sent: &[i64], from: &str| sent.iter().filter(|at| **at >= minute(from, &TimeZone::UTC)).count() as u64;
    let answered = |aggregator: &Aggregator, from: &str| {
        let rows = aggregator.ask(&a, &days(from));
        rows.iter().map(|row| row.figures[0].unwrap().value as u64).sum::<u64>()
    };
    // What came late, and what comes of a time that isn't kept.
    let late = ["2024-02-01", "2024-03-09", "2024-03-30", "2024-04-04"].map(|day| minute(day, &TimeZone::UTC) + 77);
    aggregator.send(shard.cut(frame(&a, &late)));
    sent.extend(late);
    for _ in 0..3 {
        aggregator.keep();
        expire(&mut aggregator, now);
        assert_eq!(answered(&aggregator, "2024-02-25"), count(&sent, "2024-02-25"));
        let hours = aggregator.ask(&a, "metric=events&start=2024-03-26&end=2024-04-09&granularity=1h");
        let [_, expected] = expected(&sent, &TimeZone::UTC);
        let range = minute("2024-03-26", &TimeZone::UTC)..minute("2024-04-09", &TimeZone::UTC);
        assert_eq!(hours.len(), expected.range(range).count());
        for query in [
            days("2024-02-24"),
            "metric=events&start=2024-03-25&end=2024-04-09&granularity=1h".into(),
            "metric=events&start=2024-04-02&end=2024-04-09&granularity=5m".into(),
            "metric=events&start=2024-03-20T00:30:00Z&end=2024-04-09".into(),
        ] {
            let told = "minutes are kept from 2024-04-03T00:00:00Z on, hours are kept from 2024-03-26T00:00:00Z on, days are kept from 2024-02-25T00:00:00Z on";
            assert!(refused(&aggregator, &a, &query).contains(told), "{query}");
        }
        assert_eq!(aggregator.ask(&other, &days("2024-02-24")).len(), expected_days(&minutes(40)));
        drop(aggregator);
        aggregator = Aggregator::open(&folder);
    }
    // Longer from now on: what is gone is gone.
    set(&aggregator, &a, r#"{"retention_days": {"minute": 9}}"#).unwrap();
    expire(&mut aggregator, now);
    assert!(refused(&aggregator, &a, &days("2024-02-24")).contains("minutes are kept from 2024-04-03"));
    // All that is not kept is gone, once its turn has come.
    set(&aggregator, &a, r#"{"retention_days": {"minute": 1, "hour": 1, "day": 1}}"#).unwrap();
    expire(&mut aggregator, minute("2025-04-05", &TimeZone::UTC));
    aggregator
        .configs
        .put(&other, Config::read(br#"{"retention_days": {"day": 1, "hour": 1, "minute": 1}}"#).unwrap(), None)
        .unwrap();
    drop(aggregator);
    let mut aggregator = Aggregator::open(&folder);
    expire(&mut aggregator, minute("2025-04-05", &TimeZone::UTC));
    assert_eq!(aggregator.cells.store().cell_rows(), 0);
}

fn expected_days(minutes: &[i64]) -> usize {
    expected(minutes, &TimeZone::UTC)[0].len()
}

#[test]
fn where_minutes_are_gone_the_clock_before_answers_or_nobody() {
    let (folder, a) = (Folder::new(), client("a"));
    let (mut aggregator, mut shard) = (Aggregator::open(&folder), Shard::new(1));
    let kept = r#""retention_days": {"minute": 2}"#;
    set(&aggregator, &a, &format!("{{{kept}}}")).unwrap();
    let sent = minutes(200);
    aggregator.send(shard.cut(frame(&a, &sent)));
    aggregator.keep();
    expire(&mut aggregator, minute("2024-04-05", &TimeZone::UTC) + 700);
    for name in ["Europe/Berlin", "America/New_York", "Europe/Berlin"] {
        set(&aggregator, &a, &format!("{{{kept}, \"time_zone\": \"{name}\"}}")).unwrap();
        loop {
            check(&aggregator, &a, &sent, name);
            if !aggregator.keeper.tick().unwrap() {
                break;
            }
        }
        drop(aggregator);
        aggregator = Aggregator::open(&folder);
    }
    // Minutes go on to go, and take with them what days of today's clock could be made of where the one before met it.
    expire(&mut aggregator, minute("2024-06-05", &TimeZone::UTC));
    check(&aggregator, &a, &sent, "Europe/Berlin");
    set(&aggregator, &a, &format!("{{{kept}, \"time_zone\": \"Asia/Kathmandu\"}}")).unwrap();
    aggregator.keep();
    let query = "metric=events&start=2024-03-28&end=2024-04-09&granularity=1d";
    let told = "before 2024-06-03T00:00:00Z hours and days were cut on the clock of Europe/Berlin";
    assert!(refused(&aggregator, &a, query).contains(told), "{}", refused(&aggregator, &a, query));
    let later = "metric=events&start=2024-10-04&end=2024-11-05";
    let zone = zones::find("Asia/Kathmandu").unwrap();
    let zone = catchment_aggregator_core::Tiers::on(zone).time_zone().clone();
    let range = minute("2024-10-04", &zone)..minute("2024-11-05", &zone);
    let expected = sent.iter().filter(|at| range.contains(at)).count() as f64;
    assert_eq!(aggregator.ask(&a, later)[0].figures[0].unwrap().value, expected);
    // As a whole, what was before is still told.
    set(&aggregator, &a, &format!("{{{kept}, \"time_zone\": \"Europe/Berlin\"}}")).unwrap();
    aggregator.keep();
    check(&aggregator, &a, &sent, "Europe/Berlin");
}
