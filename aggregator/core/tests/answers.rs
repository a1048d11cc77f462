//! Answers equal a naive recomputation over the events, however these were grouped into frames, in whatever order frames
//! came, and whatever was flushed and folded meanwhile.
#![expect(clippy::unwrap_used, reason = "these are tests, helpers and all")]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use catchment_aggregator_core::answer::{Answer, Row, TooMuch};
use catchment_aggregator_core::dictionary::{self, Admission, Dictionaries, Dictionary};
use catchment_aggregator_core::limits::{ANSWER_FIGURES_MAX, ANSWER_ROWS_MAX};
use catchment_aggregator_core::memtable::add_counters;
use catchment_aggregator_core::planner::Cube;
use catchment_aggregator_core::{Memtable, Plan, Question};
use catchment_cells::frame::{CellsBlock, CountersBlock};
use catchment_cells::key::CellKey;
use catchment_cells::row::OTHER;
use catchment_cells::users::{Coupon, Users};
use catchment_cells::{Cell, ClientId, Estimate, cube};
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
    /// Buckets of a window.
    window: i64,
    group_by: Vec<&'static str>,
    filter: Option<Filter>,
    order: Order,
    limit: usize,
    page_views_first: bool,
}

/// As text, the dimensions that it needs, and what it means.
type Filter = (&'static str, &'static [&'static str], fn(&Event) -> bool);

const FILTERS: &[Filter] = &[
    ("country:US", &["country"], |event| event.country == Some("US")),
    ("event_type = buy", &["event_type"], |event| event.event_type == "buy"),
    ("page=/a", &["page"], |event| event.page == Some("/a")),
    ("page^\"/\" and page != /b", &["page"], |event| event.page.is_some_and(|page| page != "/b")),
    ("page in (/c, /a)", &["page"], |event| matches!(event.page, Some("/a" | "/c"))),
    ("country!=US", &["country", "event_type"], |event| event.country != Some("US")),
    ("not country^\"\"", &["country", "event_type"], |event| event.country.is_none()),
    ("country=DE or event_type=buy", &["country", "event_type"], |event| {
        event.country == Some("DE") || event.event_type == "buy"
    }),
    ("not (country=DE and event_type=buy)", &["country", "event_type"], |event| {
        !(event.country == Some("DE") && event.event_type == "buy")
    }),
];

/// As text, the metric's place among the figures, and whether the greatest are first.
type Order = (&'static str, Option<usize>, bool);

const ORDERS: &[Order] = &[
    ("", Some(0), true),
    ("events asc", None, false),
    ("users", None, true),
    ("sum:price desc", None, true),
    ("min:price asc", None, false),
    ("group", None, false),
    ("group desc", None, true),
];

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
    fn dimensions(&self) -> BTreeSet<&str> {
        self.group_by.iter().copied().chain(self.filter.iter().flat_map(|filter| filter.1.iter().copied())).collect()
    }

    /// `page_views` and pages are in no common cube.
    fn has_page_views(&self) -> bool {
        !self.dimensions().contains("page")
    }

    fn metrics(&self) -> Vec<&'static str> {
        let mut metrics = vec!["events", "users", "sum:price", "avg:price", "min:price", "max:price"];
        if self.has_page_views() {
            metrics.insert(if self.page_views_first { 0 } else { 6 }, "page_views");
        }
        metrics
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let time = |minute: i64| Timestamp::from_second(minute * 60).unwrap().to_string();
        let length = |minutes: i64| match minutes {
            0 => "all".into(),
            n if n % 1_440 == 0 => format!("{}d", n / 1_440),
            n if n % 60 == 0 => format!("{}h", n / 60),
            n => format!("{n}m"),
        };
        let mut query: Vec<_> = self.metrics().into_iter().map(|metric| ("metric", metric.to_owned())).collect();
        query.push(("start", time(self.start)));
        query.push(("end", time(self.end)));
        query.push(("limit", self.limit.to_string()));
        query.push(("granularity", length(self.granularity)));
        if self.window > 1 {
            query.push(("window", length(self.window * self.granularity)));
        }
        if !self.order.0.is_empty() {
            query.push(("order", self.order.0.to_owned()));
        }
        query.extend(self.group_by.iter().map(|name| ("group_by", (*name).to_owned())));
        query.extend(self.filter.map(|filter| ("filter", filter.0.to_owned())));
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
        let earlier = (self.window - 1) * self.granularity;
        let from = if self.window > 1 { self.bucket(self.start) - earlier } else { self.start };
        let events: Vec<(&Event, Vec<&str>)> = events
            .iter()
            .filter(|event| {
                event.client == 0
                    && (from..self.end).contains(&event.minute)
                    && self.filter.is_none_or(|filter| filter.2(event))
            })
            .filter_map(|event| {
                Some((event, self.group_by.iter().map(|name| event.value(name)).collect::<Option<_>>()?))
            })
            .collect();
        let mut totals: BTreeMap<&Vec<&str>, Vec<&Event>> = BTreeMap::new();
        events.iter().for_each(|(event, group)| totals.entry(group).or_default().push(event));
        let mut ranked: Vec<(Vec<&str>, Option<f64>)> =
            totals.into_iter().map(|(group, events)| (group.clone(), self.rank(&self.figures(&events)))).collect();
        ranked.sort_by(|a, b| self.compare(a, b));
        let kept: BTreeSet<Vec<&str>> = ranked.into_iter().take(self.limit).map(|(group, _)| group).collect();

        let mut buckets: BTreeMap<(i64, Vec<&str>), Vec<&Event>> = BTreeMap::new();
        for (event, group) in &events {
            let group = if kept.contains(group) { group.clone() } else { vec![OTHER; group.len()] };
            for step in 0..self.window {
                let bucket = self.bucket(event.minute) + step * self.granularity;
                if (self.bucket(self.start)..self.end).contains(&bucket) {
                    buckets.entry((bucket, group.clone())).or_default().push(event);
                }
            }
        }
        let row = |((bucket, group), events): ((i64, Vec<&str>), Vec<&Event>)| Row {
            bucket,
            group: group.into_iter().map(Box::from).collect(),
            figures: self.figures(&events),
            before: None,
        };
        let mut rows: Vec<Row> = buckets.into_iter().map(row).collect();
        let is_rest = |row: &Row| row.group.first().is_some_and(|group| **group == *OTHER);
        rows.sort_by(|a, b| {
            let ranks = || self.compare(&(&a.group, self.rank(&a.figures)), &(&b.group, self.rank(&b.figures)));
            a.bucket.cmp(&b.bucket).then(is_rest(a).cmp(&is_rest(b))).then_with(ranks)
        });
        rows
    }

    /// The figure that groups are ordered by.
    fn rank(&self, figures: &[Option<Estimate>]) -> Option<f64> {
        let name = self.order.0.split(' ').next().unwrap();
        let index = self.order.1.or_else(|| self.metrics().iter().position(|metric| *metric == name))?;
        Some(figures[index]?.value)
    }

    fn compare<G: Ord>(&self, a: &(G, Option<f64>), b: &(G, Option<f64>)) -> Ordering {
        let descending = self.order.2;
        let turn = |ordering: Ordering| if descending { ordering.reverse() } else { ordering };
        if self.order.0.starts_with("group") {
            return turn(a.0.cmp(&b.0));
        }
        let by_figure = match (a.1, b.1) {
            (Some(a), Some(b)) => turn(a.total_cmp(&b)),
            (a, b) => a.is_none().cmp(&b.is_none()),
        };
        by_figure.then_with(|| a.0.cmp(&b.0))
    }

    fn figures(&self, events: &[&Event]) -> Vec<Option<Estimate>> {
        let exact = Estimate::exact;
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
struct Rows {
    cells: BTreeMap<CellKey, Vec<Cell>>,
    dictionaries: BTreeMap<Vec<u8>, Dictionary>,
    values_max: usize,
    run: u64,
}

impl Default for Rows {
    fn default() -> Self {
        Rows { cells: BTreeMap::new(), dictionaries: BTreeMap::new(), values_max: 100, run: 0 }
    }
}

impl Rows {
    fn flush(&mut self, memtable: &mut Memtable) {
        self.run += 1;
        let memtable = std::mem::take(memtable);
        let read = |key: dictionary::Key<'_>| -> Result<_, ()> {
            Ok(self.dictionaries.get(&key.encode(false)).cloned().unwrap_or_default())
        };
        let admission = Admission::of(&memtable, (self.run, 0), |_| self.values_max, read).unwrap();
        for (key, dictionary) in &admission.changed {
            self.dictionaries.insert(key.encode(false), dictionary.clone());
        }
        memtable.for_each_tier(
            &admission.fold(&memtable),
            |_| Default::default(),
            |place, cells| {
                for (values, cell) in cells {
                    self.cells.entry(place.key(values)).or_default().push(cell.into_owned());
                }
            },
        );
    }

    fn known(&self, plan: &Plan) -> Dictionaries {
        let mut known = Dictionaries::default();
        for dimension in plan.told_apart() {
            for day in dictionary::day(FIRST)..=dictionary::day(FIRST + MINUTES) {
                let key = dictionary::Key { client: &client(0), dimension, day }.encode(false);
                if let Some(dictionary) = self.dictionaries.get(&key).filter(|dictionary| dictionary.is_folding()) {
                    known.insert(dimension, day, dictionary.clone());
                }
            }
        }
        known
    }

    fn fold(&mut self) {
        for cells in self.cells.values_mut() {
            let mut folded = cells.remove(0);
            cells.drain(..).for_each(|cell| folded.merge(&cell));
            cells.push(folded);
        }
    }

    fn answer(&self, memtable: &Memtable, question: Question) -> Vec<Row> {
        let plan = Plan::new(question, &[], &TimeZone::UTC).unwrap();
        let answer = self.read(memtable, plan.clone());
        match plan.before().unwrap() {
            None => answer.rows().unwrap(),
            Some(before) => answer.rows_beside(Some(&self.read(memtable, before)), &|| true).unwrap(),
        }
    }

    fn read(&self, memtable: &Memtable, plan: Plan) -> Answer {
        let mut answer = Answer::new(plan.clone());
        let (start, end) = plan.range();
        for (minute, values, cell) in memtable.scan(&client(0), &plan.cube.name, start, end) {
            answer.add(minute, values, cell).unwrap();
        }
        answer.know(self.known(&plan), &plan);
        for (key, cells) in &self.cells {
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
        answer
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
    let window = 1i64..6;
    let group_by = prop::sample::subsequence(vec!["page", "country", "event_type"], 0..=2).prop_shuffle();
    let filter = prop::option::of(prop::sample::select(FILTERS));
    let order = prop::sample::select(ORDERS);
    (edge(), edge(), (granularity, window), group_by, filter, order, 1usize..5, any::<bool>())
        .prop_filter("an empty range is refused", |(a, b, ..)| a != b)
        .prop_map(|(a, b, (granularity, window), group_by, filter, order, limit, page_views_first)| Asked {
            start: FIRST + a.min(b),
            end: FIRST + a.max(b),
            granularity,
            // Of whole buckets, all of one length.
            window: if granularity > 0 && 1_440 % granularity == 0 { window } else { 1 },
            group_by,
            filter,
            order,
            limit,
            page_views_first,
        })
        .prop_filter("page and another dimension are in no common cube", |asked| {
            asked.has_page_views() || asked.dimensions().len() == 1
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

proptest! {
    #[test]
    fn the_period_before_stands_beside(
        events in prop::collection::vec(event(), 0..120),
        days in 1i64..=2,
        granularity in prop::sample::select(vec![0, 60, 360, 1_440]),
        flushed: bool,
    ) {
        let length = days * 1_440;
        let start = FIRST + length;
        let asked = Asked {
            start,
            end: start + length,
            granularity,
            window: 1,
            group_by: Vec::new(),
            filter: None,
            order: ORDERS[0],
            limit: 10,
            page_views_first: false,
        };
        let (mut memtable, mut rows) = (Memtable::default(), Rows::default());
        let mut block = CellsBlock::default();
        events.iter().for_each(|event| event.add_to(&mut block));
        memtable.merge(block);
        if flushed {
            rows.flush(&mut memtable);
        }
        let mut query = asked.query();
        query.push(("compare", "previous".into()));
        let question = Question::parse(query.iter().map(|(name, value)| (*name, value.as_str())), 0, &TimeZone::UTC);
        let mut expected: BTreeMap<i64, Row> = BTreeMap::new();
        let none = |bucket| {
            let zeros = asked.figures(&[]);
            Row { bucket, group: Vec::new(), figures: zeros.clone(), before: Some(zeros) }
        };
        for row in asked.naive(&events) {
            expected.entry(row.bucket).or_insert_with(|| none(row.bucket)).figures = row.figures;
        }
        for row in (Asked { start: FIRST, end: start, ..asked.clone() }).naive(&events) {
            let bucket = row.bucket + length;
            expected.entry(bucket).or_insert_with(|| none(bucket)).before = Some(row.figures);
        }
        prop_assert_eq!(rows.answer(&memtable, question.unwrap()), expected.into_values().collect::<Vec<_>>());
    }

    /// Two pages are one value in the cells: what the events say is within the bounds.
    #[test]
    fn folded_values_widen_bounds(
        events in prop::collection::vec(event(), 0..60),
        filter in prop::sample::select(&["page=/a", "page=/b", "page!=/a", "page^\"/\"", "page in (/, /c)", "not page in (/b, /c)"][..]),
        event_type in prop::option::of(prop::sample::select(vec!["page_view", "buy"])),
    ) {
        let passes = |event: &&Event| {
            let page = event.page.unwrap_or_default();
            event.client == 0 && event.page.is_some() && event_type.is_none_or(|name| event.event_type == name) && match filter {
                "page=/a" => page == "/a",
                "page=/b" => page == "/b",
                "page!=/a" => page != "/a",
                "page^\"/\"" => true,
                "page in (/, /c)" => ["/", "/c"].contains(&page),
                _ => !["/b", "/c"].contains(&page),
            }
        };
        let mut memtable = Memtable::default();
        let mut block = CellsBlock::default();
        for event in &events {
            let page = event.page.map(|page| if ["/b", "/c"].contains(&page) { OTHER } else { page });
            let event = Event { page, ..event.clone() };
            let section = block.0.entry(client(event.client)).or_default();
            let cells = section.entry("views".into()).or_default();
            cells.dimensions = ["page", "event_type"].map(Box::from).into();
            let values = vec![page.map(Box::from), Some(event.event_type.into())];
            let cell = cells.buckets.entry(event.minute).or_default().entry(values).or_default();
            cell.count += 1;
            cell.users.insert(Coupon::of(event.user));
            if let Some(price) = event.price {
                cell.record("price", price, false);
            }
        }
        memtable.merge(block);
        let own = Cube { name: "views".into(), dimensions: ["page", "event_type"].map(Box::from).into(), digest: false };
        let mut query = vec![("start", "2023-12-30"), ("end", "2024-01-03"), ("filter", filter), ("filter", "page^\"\"")];
        let metrics = ["events", "users", "sum:price", "avg:price", "min:price", "max:price"];
        query.extend(metrics.map(|metric| ("metric", metric)));
        let only = event_type.map(|name| format!("event_type={name}"));
        query.extend(only.as_deref().map(|only| ("filter", only)));
        let question = Question::parse(query, 0, &TimeZone::UTC).unwrap();
        let mut answer = Answer::new(Plan::new(question, &[own], &TimeZone::UTC).unwrap());
        for (minute, values, cell) in memtable.scan(&client(0), "views", FIRST, FIRST + MINUTES) {
            answer.add(minute, values, cell).unwrap();
        }
        let rows = answer.rows().unwrap();
        let truth: Vec<&Event> = events.iter().filter(passes).collect();
        let Some(row) = rows.first() else {
            prop_assert!(truth.is_empty());
            return Ok(());
        };
        let of_all = Asked {
            start: 0, end: 1, granularity: 0, window: 1, group_by: vec!["page"], filter: None, order: ORDERS[0], limit: 1,
            page_views_first: false,
        };
        within(&row.figures, &of_all.figures(&truth))?;
    }

    /// Dictionaries have room for few: what the events say is within the bounds, and what is told apart whole is exact.
    #[test]
    fn values_beyond_a_dictionary_widen_bounds(
        frames in prop::collection::vec((prop::collection::vec(event(), 1..30), any::<bool>()), 1..10),
        asked in prop::collection::vec(asked(), 1..6),
        values_max in 1usize..5,
    ) {
        let (mut memtable, mut rows) = (Memtable::default(), Rows { values_max, ..Rows::default() });
        for (frame, is_flushed) in &frames {
            let mut block = CellsBlock::default();
            frame.iter().for_each(|event| event.add_to(&mut block));
            memtable.merge(block);
            if *is_flushed {
                rows.flush(&mut memtable);
            }
        }
        let events: Vec<Event> = frames.into_iter().flat_map(|(frame, _)| frame).collect();
        for asked in asked {
            let asked = Asked { limit: 100, ..asked };
            let told = rows.answer(&memtable, asked.question());
            let by_key = |rows: Vec<Row>| rows.into_iter().map(|row| ((row.bucket, row.group.clone()), row));
            let told: BTreeMap<_, _> = by_key(told).collect();
            let truth: BTreeMap<_, _> = by_key(asked.naive(&events)).collect();
            let is_other = |group: &[Box<str>]| group.first().is_some_and(|value| **value == *OTHER);
            let groups: BTreeSet<_> = told.keys().map(|(_, group)| group).collect();
            for (key, row) in told.iter().filter(|((_, group), _)| !is_other(group)) {
                match truth.get(key) {
                    Some(truth) => within(&row.figures, &truth.figures)?,
                    None => within(&row.figures, &asked.figures(&[]))?,
                }
            }
            for key in truth.keys().filter(|(_, group)| groups.contains(group)) {
                prop_assert!(told.contains_key(key), "{key:?} of {asked:?}");
            }
            if asked.filter.is_none() {
                let events = asked.metrics().iter().position(|name| *name == "events").unwrap();
                let total = |rows: &BTreeMap<_, Row>| -> f64 {
                    rows.values().map(|row| row.figures[events].unwrap().value).sum()
                };
                prop_assert_eq!(total(&told), total(&truth), "what is folded is in (other)");
            }
        }
    }
}

/// Whether figures have the truth within their bounds, and are it where they are said to be exact.
fn within(figures: &[Option<Estimate>], truth: &[Option<Estimate>]) -> Result<(), TestCaseError> {
    for (figure, truth) in figures.iter().zip(truth) {
        if let (Some(figure), Some(truth)) = (figure, truth) {
            let slack = truth.value.abs() * 1e-9;
            let is_within = figure.lower - slack <= truth.value && truth.value <= figure.upper + slack;
            prop_assert!(is_within, "{figure:?} {truth:?}");
            prop_assert!(!figure.exact || figure.value == truth.value, "{figure:?} {truth:?}");
        }
    }
    Ok(())
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
            window: 1,
            group_by: vec!["page"],
            filter: None,
            order: ORDERS[0],
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

    // Nothing beyond the bound is made first, and nothing beyond the time that there is.
    let looks = |metrics: usize, window: &str, looks_max: usize| {
        let metrics: String = (0..metrics).map(|n| format!("metric=sum:m{n}&")).collect();
        let time = |minute: i64| jiff::Timestamp::from_second(minute * 60).unwrap();
        let (start, end) = (time(FIRST), time(FIRST + minutes));
        let query = format!("{metrics}start={start}&end={end}&granularity=1m&group_by=page&limit=99&window={window}");
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let question = Question::parse(pairs, 0, &TimeZone::UTC).unwrap();
        let mut answer = Answer::new(Plan::new(question, &[], &TimeZone::UTC).unwrap());
        for (minute, values, _) in memtable.scan(&client(0), "page", FIRST, FIRST + MINUTES) {
            let mut cell = Cell { count: 1, ..Cell::default() };
            cell.record("m0", 1_000_000, false);
            answer.add(minute, values, &cell).unwrap();
        }
        let looks = std::cell::Cell::new(0);
        let rows = answer.rows_beside(None, &|| {
            looks.set(looks.get() + 1);
            looks.get() < looks_max
        });
        (rows.map(|rows| rows.len()), looks.get())
    };
    for window in ["1m", "5m"] {
        assert_eq!(looks(1, window, 500), (Err(TooMuch::Time), 500));
        let (rows, looks) = looks(16, window, usize::MAX);
        assert_eq!(rows, Err(TooMuch::Groups));
        assert!(looks < 2 * ANSWER_FIGURES_MAX / 16, "{window}: {looks} looks at the time");
    }
}
