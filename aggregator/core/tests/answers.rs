//! Answers equal a naive recomputation over the events, however these were grouped into frames, in whatever order frames
//! came, and whatever was flushed and folded meanwhile.
#![expect(clippy::unwrap_used, reason = "these are tests, helpers and all")]

use std::collections::{BTreeMap, BTreeSet};

use catchment_aggregator_core::answer::{Answer, TooMuch};
use catchment_aggregator_core::limits::ANSWER_ROWS_MAX;
use catchment_aggregator_core::memtable::add_counters;
use catchment_aggregator_core::{Memtable, Plan, Question};
use catchment_cells::frame::{CellsBlock, CountersBlock};
use catchment_cells::key::CellKey;
use catchment_cells::row::{OTHER, Row};
use catchment_cells::users::{Coupon, Users};
use catchment_cells::{Cell, ClientId, cube};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

/// 2023-12-30T00:00Z, as a minute; events lie in the four days from here.
const FIRST: i64 = 28_398_240;
const MINUTES: i64 = 4 * 24 * 60;

#[derive(Debug, Clone)]
struct Event {
    client: u8,
    minute: i64,
    user: u64,
    event_type: &'static str,
    page: Option<&'static str>,
    country: Option<&'static str>,
    /// In millionths.
    price: Option<i64>,
}

/// What is asked, apart from the query string that says so.
#[derive(Debug, Clone)]
struct Asked {
    start: i64,
    end: i64,
    /// Minutes of a bucket; 0: all.
    granularity: i64,
    group_by: Option<&'static str>,
    filter: Option<(&'static str, &'static str)>,
    limit: usize,
    page_views_first: bool,
}

fn client(n: u8) -> ClientId {
    ClientId::new(&format!("c{n}")).unwrap()
}

impl Event {
    fn value(&self, dimension: &str) -> Option<&'static str> {
        match dimension {
            "event_type" => Some(self.event_type),
            "page" => self.page,
            "country" => self.country,
            _ => None,
        }
    }

    fn add_to(&self, block: &mut CellsBlock) {
        let section = block.0.entry(client(self.client)).or_default();
        for cube in cube::DEFAULT {
            let values: Vec<Option<Box<str>>> =
                cube.dimensions.iter().map(|name| self.value(name).map(Box::from)).collect();
            if !values.is_empty() && values.iter().all(Option::is_none) {
                continue;
            }
            let cells = section.entry(cube.name.into()).or_default();
            cells.dimensions = cube.dimensions.iter().map(|&name| name.into()).collect();
            let cell = cells.buckets.entry(self.minute).or_default().entry(values).or_default();
            cell.count += 1;
            cell.users.insert(Coupon::of(self.user));
            if let Some(price) = self.price {
                cell.record("price", price, cube.digest);
            }
        }
    }
}

impl Asked {
    /// `page_views` and pages are in no common cube.
    fn has_page_views(&self) -> bool {
        self.group_by != Some("page") && self.filter.is_none_or(|(dimension, _)| dimension != "page")
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let time = |minute: i64| Timestamp::from_second(minute * 60).unwrap().to_string();
        let mut metrics = vec!["events", "users", "sum:price", "avg:price", "min:price", "max:price"];
        if self.has_page_views() {
            metrics.insert(if self.page_views_first { 0 } else { 6 }, "page_views");
        }
        let mut query: Vec<_> = metrics.into_iter().map(|metric| ("metric", metric.to_owned())).collect();
        query.push(("start", time(self.start)));
        query.push(("end", time(self.end)));
        query.push(("limit", self.limit.to_string()));
        query.push((
            "granularity",
            match self.granularity {
                0 => "all".into(),
                n if n >= 1_440 => format!("{}d", n / 1_440),
                n if n % 60 == 0 => format!("{}h", n / 60),
                n => format!("{n}m"),
            },
        ));
        query.extend(self.group_by.map(|name| ("group_by", name.to_owned())));
        query.extend(self.filter.map(|(name, value)| ("filter", format!("{name}:{value}"))));
        query
    }

    fn question(&self) -> Question {
        let query = self.query();
        Question::parse(query.iter().map(|(name, value)| (*name, value.as_str())), 0, &TimeZone::UTC).unwrap()
    }

    /// Days count from the first day; minutes and hours from midnight.
    fn bucket(&self, minute: i64) -> i64 {
        let day = |minute: i64| minute - minute.rem_euclid(1_440);
        match self.granularity {
            0 => self.start,
            n if n >= 1_440 => day(minute) - (day(minute) - day(self.start)).rem_euclid(n),
            n => minute - (minute - day(minute)) % n,
        }
    }

    /// The answer, straight from the events.
    fn naive(&self, events: &[Event]) -> Vec<Row> {
        let counted = |event: &&Event| {
            event.client == 0
                && (self.start..self.end).contains(&event.minute)
                && self.filter.is_none_or(|(name, value)| event.value(name) == Some(value))
                && self.group_by.is_none_or(|name| event.value(name).is_some())
        };
        let group = |event: &Event| self.group_by.and_then(|name| event.value(name));
        let rank = |event: &Event| u64::from(!self.ranks_page_views() || event.event_type == "page_view");
        let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
        for event in events.iter().filter(counted) {
            if let Some(group) = group(event) {
                *totals.entry(group).or_default() += rank(event);
            }
        }
        let mut ranked: Vec<_> = totals.into_iter().collect();
        ranked.sort_by_key(|(value, count)| (std::cmp::Reverse(*count), *value));
        let kept: BTreeSet<&str> = ranked.into_iter().take(self.limit).map(|(value, _)| value).collect();

        let mut buckets: BTreeMap<(i64, Option<&str>), Vec<&Event>> = BTreeMap::new();
        for event in events.iter().filter(counted) {
            let group = group(event).map(|group| if kept.contains(group) { group } else { OTHER });
            buckets.entry((self.bucket(event.minute), group)).or_default().push(event);
        }
        let mut rows: Vec<(u64, Row)> = buckets
            .into_iter()
            .map(|((bucket, group), events)| {
                let rank = events.iter().map(|event| rank(event)).sum();
                (rank, Row { bucket, group: group.map(Box::from), figures: self.figures(&events) })
            })
            .collect();
        rows.sort_by_key(|(rank, row)| {
            (row.bucket, row.group.as_deref() == Some(OTHER), std::cmp::Reverse(*rank), row.group.clone())
        });
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn ranks_page_views(&self) -> bool {
        self.has_page_views() && self.page_views_first
    }

    fn figures(&self, events: &[&Event]) -> Vec<Option<catchment_cells::Estimate>> {
        let exact = catchment_cells::Estimate::exact;
        let mut users = Users::default();
        events.iter().for_each(|event| users.insert(Coupon::of(event.user)));
        let prices: Vec<i64> = events.iter().filter_map(|event| event.price).collect();
        let sum = prices.iter().map(|price| i128::from(*price)).sum::<i128>() as f64 / 1e6;
        let some = |value: Option<i64>| value.map(|micros| exact(micros as f64 / 1e6));
        let mut figures = vec![
            Some(exact(events.len() as f64)),
            Some(users.estimate()),
            (!prices.is_empty()).then(|| exact(sum)),
            (!prices.is_empty()).then(|| exact(sum / prices.len() as f64)),
            some(prices.iter().min().copied()),
            some(prices.iter().max().copied()),
        ];
        if self.has_page_views() {
            let views = events.iter().filter(|event| event.event_type == "page_view").count();
            figures.insert(if self.page_views_first { 0 } else { 6 }, Some(exact(views as f64)));
        }
        figures
    }
}

/// Rows as a store keeps them: a key may have several.
#[derive(Default)]
struct Rows(BTreeMap<CellKey, Vec<Cell>>);

impl Rows {
    fn flush(&mut self, memtable: &mut Memtable) {
        std::mem::take(memtable).for_each_tier(&TimeZone::UTC, |place, cells| {
            for (values, cell) in cells {
                self.0.entry(place.key(values)).or_default().push(cell.into_owned());
            }
        });
    }

    fn fold(&mut self) {
        for cells in self.0.values_mut() {
            let mut folded = cells.remove(0);
            cells.drain(..).for_each(|cell| folded.merge(&cell));
            cells.push(folded);
        }
    }

    fn answer(&self, memtable: &Memtable, question: Question) -> Vec<Row> {
        let plan = Plan::new(question, &[], &TimeZone::UTC).unwrap();
        let mut answer = Answer::new(plan.clone());
        let (start, end) = (plan.question.start, plan.question.end);
        for (minute, values, cell) in memtable.scan(&client(0), &plan.cube.name, start, end) {
            answer.add(minute, values, cell).unwrap();
        }
        for (key, cells) in &self.0 {
            let is_asked = plan.spans.iter().any(|span| {
                key.client == client(0)
                    && key.cube == plan.cube.name
                    && key.tier == span.tier
                    && (span.from..span.to).contains(&key.bucket)
            });
            if is_asked {
                cells.iter().for_each(|cell| _ = answer.add(key.bucket, &key.values, cell).unwrap());
            }
        }
        answer.rows().unwrap()
    }
}

fn event() -> impl Strategy<Value = Event> {
    let page = prop::option::of(prop::sample::select(vec!["/", "/a", "/b", "/c"]));
    let country = prop::option::of(prop::sample::select(vec!["DE", "US"]));
    let event_type = prop::sample::select(vec!["page_view", "buy"]);
    let price = prop::option::of(-2_000_000_000i64..2_000_000_000);
    (0u8..2, 0..MINUTES, 0u64..40, event_type, page, country, price).prop_map(
        |(client, minute, user, event_type, page, country, price)| Event {
            client,
            minute: FIRST + minute,
            user,
            event_type,
            page,
            country,
            price,
        },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    // Edges on days, on hours and on none.
    let edge = || {
        prop_oneof![
            (0..MINUTES),
            (0..MINUTES).prop_map(|minute| minute - minute % 60),
            (0..MINUTES).prop_map(|minute| minute - minute % 1_440)
        ]
    };
    let granularity = prop::sample::select(vec![0, 1, 7, 60, 90, 300, 1_440, 2_880]);
    let group_by = prop::option::of(prop::sample::select(vec!["page", "country", "event_type"]));
    let filter = prop::option::of(prop::sample::select(vec![("country", "US"), ("event_type", "buy"), ("page", "/a")]));
    (edge(), edge(), granularity, group_by, filter, 1usize..5, any::<bool>())
        .prop_filter("an empty range is refused", |(a, b, ..)| a != b)
        .prop_map(|(a, b, granularity, group_by, filter, limit, page_views_first)| Asked {
            start: FIRST + a.min(b),
            end: FIRST + a.max(b),
            granularity,
            group_by,
            filter,
            limit,
            page_views_first,
        })
        .prop_filter("page and another dimension are in no common cube", |asked| {
            let dimensions = [asked.group_by, asked.filter.map(|(name, _)| name)];
            !dimensions.contains(&Some("page")) || dimensions.iter().flatten().all(|name| *name == "page")
        })
}

proptest! {
    #[test]
    fn answers_equal_a_recount(
        events in prop::collection::vec(event(), 0..120),
        asked in prop::collection::vec(asked(), 1..6),
        // For each frame: how many events it takes, and what happens after it.
        frames in prop::collection::vec((1usize..30, 0u8..4), 1..20),
        order in any::<prop::sample::Index>(),
    ) {
        let mut rest = events.as_slice();
        let mut blocks = Vec::new();
        for (size, after) in frames.iter().chain([&(events.len(), 0)]) {
            let (now, later) = rest.split_at((*size).min(rest.len()));
            let mut block = CellsBlock::default();
            now.iter().for_each(|event| event.add_to(&mut block));
            blocks.push((block, *after));
            rest = later;
        }
        let middle = order.index(blocks.len());
        blocks.rotate_left(middle);

        let (mut memtable, mut rows) = (Memtable::default(), Rows::default());
        for (block, after) in blocks {
            memtable.merge(block);
            if after == 1 {
                rows.flush(&mut memtable);
            }
            if after == 2 {
                rows.fold();
            }
        }
        for asked in asked {
            let answered = rows.answer(&memtable, asked.question());
            prop_assert_eq!(answered, asked.naive(&events), "{:?}", asked.query());
        }
    }
}

#[test]
fn counters_become_cells_of_received() {
    let mut counters = CountersBlock::default();
    counters.add(&client(0), "late", FIRST, 2);
    counters.add(&client(0), "late", FIRST + 61, 3);
    counters.add(&client(0), "duplicate", FIRST, 5);
    let (mut memtable, mut rows) = (Memtable::default(), Rows::default());
    let mut block = CellsBlock::default();
    add_counters(&mut block, counters);
    memtable.merge(block.clone());
    rows.flush(&mut memtable);
    memtable.merge(block);
    let ask = |query: &str| {
        let query = query.split('&').map(|pair| pair.split_once('=').unwrap());
        let question = Question::parse(query, 0, &TimeZone::UTC).unwrap();
        let figure =
            |row: Row| (row.bucket - FIRST, row.figures.iter().map(|figure| figure.unwrap().value as u64).collect());
        rows.answer(&memtable, question).into_iter().map(figure).collect::<Vec<(i64, Vec<u64>)>>()
    };
    let range = "metric=received:late&metric=received:duplicate&start=2023-12-30&end=2023-12-31";
    assert_eq!(ask(range), [(0, vec![10, 10])]);
    assert_eq!(ask(&format!("{range}&granularity=1h")), [(0, vec![4, 10]), (60, vec![6, 0])]);
}

#[test]
fn quantiles_come_from_cubes_with_digests() {
    let mut memtable = Memtable::default();
    let mut block = CellsBlock::default();
    for n in 0..21i64 {
        let (page, price) = (Some("/a"), Some(n * 1_000_000));
        Event { client: 0, minute: FIRST + n, user: 1, event_type: "buy", page, country: None, price }
            .add_to(&mut block);
    }
    memtable.merge(block);
    let mut rows = Rows::default();
    rows.flush(&mut memtable);
    let query = "metric=p50:price&metric=avg:price&metric=p95:weight&start=2023-12-30&end=2023-12-31&group_by=page";
    let question =
        Question::parse(query.split('&').map(|pair| pair.split_once('=').unwrap()), 0, &TimeZone::UTC).unwrap();
    let answer = rows.answer(&memtable, question);
    assert_eq!(answer.len(), 1);
    let [median, mean, missing] = answer[0].figures[..] else { panic!("three figures") };
    let median = median.unwrap();
    assert!(median.lower <= 10.0 && 10.0 <= median.upper, "{median:?}");
    assert_eq!(mean.unwrap().value, 10.0);
    assert_eq!(missing, None);
}

#[test]
fn an_answer_is_bounded() {
    let mut memtable = Memtable::default();
    let mut block = CellsBlock::default();
    let cells = block.0.entry(client(0)).or_default().entry("page".into()).or_default();
    cells.dimensions = vec!["page".into()];
    let minutes = 1 + ANSWER_ROWS_MAX as i64 / 100;
    for (minute, page) in (0..minutes).flat_map(|minute| (0..100).map(move |page| (minute, page))) {
        let cell = Cell { count: 1, ..Cell::default() };
        cells.buckets.entry(FIRST + minute).or_default().insert(vec![Some(format!("/{page}").into())], cell);
    }
    memtable.merge(block);
    let rows = |limit: usize| {
        let asked = Asked {
            start: FIRST,
            end: FIRST + MINUTES,
            granularity: 1,
            group_by: Some("page"),
            filter: None,
            limit,
            page_views_first: false,
        };
        let plan = Plan::new(asked.question(), &[], &TimeZone::UTC).unwrap();
        let mut answer = Answer::new(plan);
        for (minute, values, cell) in memtable.scan(&client(0), "page", FIRST, FIRST + MINUTES) {
            answer.add(minute, values, cell).unwrap();
        }
        answer.rows().map(|rows| rows.len())
    };
    assert_eq!(rows(100), Err(TooMuch::Groups));
    assert_eq!(rows(2), Ok(3 * minutes as usize), "two groups and the rest");
}
