//! Whoever follows a view, in time or late, knows what the question's answer would be: whatever came between updates, and
//! however many of these a reader missed.
#![expect(clippy::unwrap_used, reason = "these are tests, helpers and all")]

use std::collections::BTreeMap;

use catchment_aggregator_core::answer::Row;
use catchment_aggregator_core::limits::{
    GONE_MAX, UPDATE_BURST_BYTES, UPDATE_BYTES_PER_S, UPDATE_EVERY_MS, VIEW_ROWS_MAX,
};
use catchment_aggregator_core::view::ViewError;
use catchment_aggregator_core::{Answer, Plan, Question, View};
use catchment_cells::Cell;
use catchment_cells::frame::{CubeCells, Section};
use catchment_cells::key::Tier;
use catchment_cells::live::{self, Message, Mirror, Update};
use catchment_cells::users::Coupon;
use jiff::tz::TimeZone;
use proptest::prelude::*;

/// 2024-01-01T00:00Z, as a minute.
const FIRST: i64 = 28_401_120;
const NOW: i64 = FIRST * 60_000;

/// What comes between two publications: events of (minute, page, user) and a value.
type Events = Vec<(i64, u8, u64, i64)>;

fn section(events: &Events) -> Section {
    let mut pages = CubeCells { dimensions: vec!["page".into()], buckets: BTreeMap::new() };
    let mut total = CubeCells::default();
    for &(minute, page, user, value) in events {
        for (cube, values) in [(&mut pages, vec![Some(format!("/{page}").into())]), (&mut total, Vec::new())] {
            let cell: &mut Cell = cube.buckets.entry(FIRST + minute).or_default().entry(values).or_default();
            cell.count += 1;
            cell.users.insert(Coupon::of(user));
            cell.record("ms", value, true);
        }
    }
    Section::from([("page".into(), pages), ("total".into(), total)])
}

fn answer(query: &str, now: i64, sections: &[Section]) -> Answer {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
    let question = Question::parse(pairs, now, &TimeZone::UTC).unwrap();
    let (start, end) = (question.start, question.end);
    let mut answer = Answer::new(Plan::new(question, &[], &TimeZone::UTC).unwrap());
    for section in sections {
        let buckets = section[&answer.plan().cube.name].buckets.range(start..end);
        for (minute, cells) in buckets {
            cells.iter().for_each(|(values, cell)| _ = answer.add(*minute, values, cell).unwrap());
        }
    }
    answer
}

fn mirror(view: &View) -> Mirror {
    let metrics = view.answer().parts().metrics().iter().map(|metric| metric.name.clone()).collect();
    Mirror::new(&live::View { subscription: 1, view: view.id(), metrics, cube: "page".into(), tier: Tier::Minute })
        .unwrap()
}

fn update(bytes: &[u8]) -> Update {
    match Message::decode(bytes).unwrap() {
        Message::Update(update) => update,
        other => panic!("{other:?}"),
    }
}

/// Quantiles of digests that were merged in another order differ in their last bits.
fn rounded(rows: impl IntoIterator<Item: Into<Row>>) -> Vec<Row> {
    let round = |value: f64| format!("{value:.9e}").parse().unwrap();
    let figure = |mut figure: catchment_cells::Estimate| {
        for value in [&mut figure.value, &mut figure.lower, &mut figure.upper] {
            *value = round(*value);
        }
        figure
    };
    let row = |row: Row| Row { figures: row.figures.into_iter().map(|value| value.map(figure)).collect(), ..row };
    rows.into_iter().map(|known| row(known.into())).collect()
}

const QUESTIONS: [&str; 6] = [
    "metric=events&metric=users&granularity=1m&last=5m",
    "metric=users&metric=avg:ms&last=1h",
    "metric=events&metric=users&group_by=page&limit=2&last=5m",
    "metric=max:ms&metric=p95:ms&group_by=page&limit=3&granularity=3m&start=2024-01-01&end=2024-01-02",
    "metric=min:ms&group_by=page&limit=2&granularity=1m&start=2024-01-01&end=2024-01-02",
    "metric=users&filter=page:/1&last=1d&granularity=1h",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_reader_knows_the_answer(
        question in prop::sample::select(&QUESTIONS[..]),
        sets: bool,
        steps in prop::collection::vec(
            (prop::collection::vec((0..12i64, 0..6u8, 0..3_000u64, -5..50i64), 0..300), 0..3i64, any::<bool>()),
            1..12,
        ),
    ) {
        let mut now = NOW + 5 * 60_000;
        let mut sections: Vec<Section> = Vec::new();
        let mut view = View::new(9, answer(question, now, &[]), None, sets);
        let mut punctual = mirror(&view);
        let mut slow = mirror(&view);
        for (events, minutes, looks) in steps {
            let section = section(&events);
            view.add(&section, now).unwrap();
            sections.push(section);
            now += minutes * 60_000;
            if view.moves_at().is_some_and(|at| now >= at) {
                view.replace(answer(question, now, &sections), Some(now));
            }
            if view.version() > 0 {
                // Whoever asks before what is new is told gets what was told, and no more.
                let mut early = mirror(&view);
                early.apply(update(&view.since(0).unwrap())).unwrap();
                prop_assert_eq!((early.range(), early.as_of()), (punctual.range(), punctual.as_of()));
                prop_assert_eq!(early.rows(), punctual.rows());
            }
            if let Some(bytes) = view.publish(now).unwrap() {
                punctual.apply(update(&bytes)).unwrap();
            }
            let expected = rounded(answer(question, now, &sections).rows().unwrap());
            prop_assert_eq!(&rounded(punctual.rows()), &expected, "{} in time", question);
            prop_assert_eq!(punctual.version(), view.version());
            if looks {
                slow.apply(update(&view.since(slow.version()).unwrap())).unwrap();
                prop_assert_eq!(&rounded(slow.rows()), &expected, "{} late", question);
                prop_assert_eq!(slow.range(), punctual.range());
            }
        }
        let mut fresh = mirror(&view);
        fresh.apply(update(&view.since(0).unwrap())).unwrap();
        prop_assert_eq!(fresh.rows(), punctual.rows());
    }
}

#[test]
fn a_first_change_is_told_at_once_and_the_next_after_a_pause() {
    let mut view = View::new(9, answer(QUESTIONS[0], NOW + 4 * 60_000, &[]), None, true);
    let first = view.publish(NOW).unwrap();
    assert!(first.is_some(), "an empty snapshot says that there is nothing");
    assert_eq!(view.next_at(), None);
    view.add(&section(&vec![(0, 1, 1, 1)]), NOW).unwrap();
    assert!(view.next_at().unwrap() <= NOW, "nothing was told lately");
    let small = view.publish(NOW).unwrap().unwrap();
    assert_eq!(view.publish(NOW).unwrap(), None, "nothing has changed");
    view.add(&section(&vec![(0, 1, 2, 1)]), NOW).unwrap();
    assert!(small.len() < 100);
    assert_eq!(view.next_at(), Some(NOW + UPDATE_EVERY_MS));
    // Much at once is let through, until the burst is used up.
    let mut sent = small.len() as i64;
    let mut n = 0u64;
    while sent <= UPDATE_BURST_BYTES {
        n += 1;
        view.add(&section(&(n * 700..n * 700 + 700).map(|user| (n as i64 % 5, 1, user, 1)).collect()), NOW).unwrap();
        sent += view.publish(NOW).unwrap().unwrap().len() as i64;
    }
    assert!(n > 3, "{n}");
    view.add(&section(&vec![(0, 1, 801, 1)]), NOW).unwrap();
    assert_eq!(
        view.next_at(),
        Some(NOW + ((sent - UPDATE_BURST_BYTES) * 1_000 / UPDATE_BYTES_PER_S).max(UPDATE_EVERY_MS))
    );
    assert!(!view.add(&section(&vec![(99, 1, 1, 1)]), NOW).unwrap(), "beyond its window");
}

#[test]
fn users_travel_as_what_is_new() {
    let mut view = View::new(9, answer("metric=users&last=1d", NOW, &[]), None, true);
    let grow = |view: &mut View, users: std::ops::Range<u64>| {
        view.add(&section(&users.map(|user| (0, 1, user, 1)).collect()), NOW).unwrap();
        view.publish(NOW).unwrap().unwrap().len()
    };
    assert!(grow(&mut view, 0..1_000) > 2_000);
    assert!(grow(&mut view, 1_000..1_001) < 60, "one user");
    assert!(grow(&mut view, 1_001..20_000) > 2_000, "registers take over");
    assert!(grow(&mut view, 20_000..20_010) < 120, "a few registers");
}

#[test]
fn a_view_is_bounded_and_forgets_what_is_long_gone() {
    let rows = VIEW_ROWS_MAX as i64 + 1;
    let many = section(&(0..rows).map(|minute| (minute, 1, 1, 1)).collect());
    let question = "metric=events&granularity=1m&start=2024-01-01&end=2024-02-01";
    let mut view = View::new(9, answer(question, NOW, std::slice::from_ref(&many)), None, true);
    assert_eq!(view.publish(NOW), Err(ViewError::TooMuch));

    // Each minute takes a page's row away and brings another.
    let question = "metric=events&group_by=page&granularity=1m&last=1m";
    let mut view = View::new(9, answer(question, NOW, &[]), None, true);
    view.publish(NOW).unwrap();
    let mut reader = mirror(&view);
    reader.apply(update(&view.since(0).unwrap())).unwrap();
    for minute in 0..GONE_MAX as i64 + 20 {
        let section = section(&vec![(minute, (minute % 7) as u8, 1, 1)]);
        view.replace(answer(question, NOW + minute * 60_000, &[section]), None);
        view.publish(NOW).unwrap().unwrap();
        if minute == GONE_MAX as i64 / 2 {
            reader.apply(update(&view.since(reader.version()).unwrap())).unwrap();
        }
    }
    let resumed = update(&view.since(reader.version()).unwrap());
    assert_ne!(resumed.from, 0, "not so long gone");
    reader.apply(resumed).unwrap();
    assert_eq!(reader.rows().len(), 1);
    assert_eq!(update(&view.since(1).unwrap()).from, 0, "a snapshot for who missed too much");
    assert_eq!(update(&view.since(u64::MAX).unwrap()).from, 0, "and for who knows what never was");
}
