//! What is asked, and how it is made up from a seed.

use catchment_cells::cube;
use catchment_harness::{Question, Random};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::sql::OTHER;

pub(crate) const MINUTE_MS: i64 = 60_000;
const HOUR: i64 = 60;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Rows of an answer, at most, roughly.
const ROWS_MAX: i64 = 1_500;
const METRICS_MAX: usize = 5;
/// Buckets of a window, at most.
const WINDOW_MAX: u64 = 30;

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    /// Each once; the first ranks the groups.
    pub(crate) metrics: Vec<Metric>,
    pub(crate) time: Time,
    pub(crate) granularity: Granularity,
    /// How many buckets each row is about: its own, and those before it.
    pub(crate) window: i64,
    /// Whether it is compared with the period before.
    pub(crate) compared: bool,
    pub(crate) group_by: Vec<String>,
    pub(crate) filters: Vec<Filter>,
    /// By default, by the first metric.
    pub(crate) order: Option<Order>,
    pub(crate) limit: Option<usize>,
}

/// In which order groups come, and which are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// The place of the metric; `None`: by their values.
    pub(crate) metric: Option<usize>,
    pub(crate) ascending: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Metric {
    Events,
    PageViews,
    Users,
    /// Events of a type.
    Count(String),
    /// Users of events of a type.
    UsersOf(String),
    /// What was received, by reason.
    Received(String),
    /// Of a measure.
    Of(Stat, String),
    /// Its name, what is divided, and by what.
    Ratio(String, Box<Metric>, Box<Metric>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stat {
    Sum,
    Avg,
    Min,
    Max,
    /// In hundredths.
    Quantile(u32),
}

/// Half-open, in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Time {
    Between(i64, i64),
    /// The last so many units, the present one included.
    Last(i64, Unit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granularity {
    All,
    Each(i64, Unit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

/// Which events are asked about. An event without a dimension equals nothing, and begins with nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    /// `dimension:value`.
    Plain(String, String),
    Is(String, String),
    In(String, Vec<String>),
    Prefix(String, String),
    Not(Box<Filter>),
    All(Vec<Filter>),
    Any(Vec<Filter>),
}

/// What is known of a table, to ask of what is there.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The table's name.
    pub(crate) table: String,
    /// The first minute with an event, and the one after the last.
    pub(crate) minutes: (i64, i64),
    /// Dimensions that occur, with some of their values: frequent ones and rare ones.
    pub(crate) dimensions: Vec<(String, Vec<String>)>,
    pub(crate) measures: Vec<String>,
    /// Whether its events are of now.
    pub(crate) live: bool,
    /// Its rows are what was received, in minutes that are not known, instead of events.
    pub(crate) received: bool,
}

impl Metric {
    pub(crate) fn name(&self) -> String {
        match self {
            Metric::Events => "events".into(),
            Metric::PageViews => "page_views".into(),
            Metric::Users => "users".into(),
            Metric::Count(event_type) => format!("count:{event_type}"),
            Metric::UsersOf(event_type) => format!("users:{event_type}"),
            Metric::Received(reason) => format!("received:{reason}"),
            Metric::Of(stat, measure) => match stat {
                Stat::Sum => format!("sum:{measure}"),
                Stat::Avg => format!("avg:{measure}"),
                Stat::Min => format!("min:{measure}"),
                Stat::Max => format!("max:{measure}"),
                Stat::Quantile(hundredths) => format!("p{hundredths}:{measure}"),
            },
            Metric::Ratio(name, ..) => name.clone(),
        }
    }

    /// Itself, or both of a ratio: what is divided, then by what.
    pub(crate) fn terms(&self) -> impl Iterator<Item = &Metric> {
        let (one, over) = match self {
            Metric::Ratio(_, of, over) => (&**of, Some(&**over)),
            metric => (metric, None),
        };
        std::iter::once(one).chain(over)
    }

    /// The one value of a dimension that it counts.
    pub(crate) fn only(&self) -> Option<(&'static str, &str)> {
        match self {
            Metric::PageViews => Some(("event_type", "page_view")),
            Metric::Count(event_type) | Metric::UsersOf(event_type) => Some(("event_type", event_type)),
            Metric::Received(reason) => Some(("reason", reason)),
            // All that divides is about all events.
            Metric::Ratio(_, of, _) => of.only(),
            _ => None,
        }
    }

    pub(crate) fn is_users(&self) -> bool {
        matches!(self, Metric::Users | Metric::UsersOf(_))
    }
}

impl Unit {
    fn suffix(self) -> &'static str {
        match self {
            Unit::Minute => "m",
            Unit::Hour => "h",
            Unit::Day => "d",
            Unit::Week => "w",
            Unit::Month => "mo",
        }
    }

    /// Its length in minutes, that of a month roughly.
    fn minutes(self) -> i64 {
        match self {
            Unit::Minute => 1,
            Unit::Hour => HOUR,
            Unit::Day => DAY,
            Unit::Week => 7 * DAY,
            Unit::Month => 30 * DAY,
        }
    }

    /// The start of the one that a minute lies in, or of the `n`th after it.
    pub(crate) fn start(self, minute: i64, n: i64) -> i64 {
        match self {
            // 1970 began on a Thursday.
            Unit::Week => {
                let monday = minute - (minute + 3 * DAY).rem_euclid(7 * DAY);
                monday + n * 7 * DAY
            }
            Unit::Month => {
                let months = month(minute) + n;
                let (year, month) = (1970 + months.div_euclid(12), 1 + months.rem_euclid(12));
                let first = DateTime::new(year as i16, month as i8, 1, 0, 0, 0, 0).unwrap_or_default();
                first.to_zoned(TimeZone::UTC).map_or(0, |zoned| zoned.timestamp().as_second() / 60)
            }
            _ => (minute.div_euclid(self.minutes()) + n) * self.minutes(),
        }
    }
}

impl Granularity {
    /// The start of the bucket that a minute lies in, of a question that starts at another. All is UTC.
    pub(crate) fn bucket(self, minute: i64, start: i64) -> i64 {
        match self {
            Granularity::All => start,
            Granularity::Each(n, Unit::Month) => {
                Unit::Month.start(minute, -(month(minute) - month(start)).rem_euclid(n))
            }
            Granularity::Each(n, unit) => {
                let length = n * unit.minutes();
                // Counted from midnight, or if longer than a day, from that of the first.
                let from = if length <= DAY { Unit::Day.start(minute, 0) } else { unit.max(Unit::Day).start(start, 0) };
                minute - (minute - from).rem_euclid(length)
            }
        }
    }

    /// The end of the bucket that starts at a minute, of a question that ends at another.
    fn end(self, bucket: i64, end: i64) -> i64 {
        match self {
            Granularity::All => end,
            Granularity::Each(n, unit) if unit < Unit::Day && n * unit.minutes() < DAY => {
                // Midnight cuts it.
                (bucket + n * unit.minutes()).min(Unit::Day.start(bucket, 1))
            }
            _ => self.after(bucket, 1),
        }
    }

    /// As it is written, so many times.
    fn text(self, times: i64) -> String {
        match self {
            Granularity::All => "all".into(),
            Granularity::Each(n, unit) => match (n * times, unit) {
                // In another unit, where there is one.
                (n, Unit::Minute) if times > 1 && n % HOUR == 0 => format!("{}h", n / HOUR),
                (n, Unit::Hour) if times > 1 && n % 24 == 0 => format!("{}d", n / 24),
                (n, Unit::Day) if times > 1 && n % 7 == 0 => format!("{}w", n / 7),
                (n, unit) => format!("{n}{}", unit.suffix()),
            },
        }
    }

    /// The start of the bucket so many after the one that starts at a minute, where all are as long.
    fn after(self, bucket: i64, buckets: i64) -> i64 {
        match self {
            Granularity::All => bucket,
            Granularity::Each(n, Unit::Month) => Unit::Month.start(bucket, n * buckets),
            Granularity::Each(n, unit) => bucket + n * unit.minutes() * buckets,
        }
    }

    /// Whether each bucket is as long as the others, but for what the calendar does to months.
    fn is_even(self) -> bool {
        match self {
            Granularity::All => false,
            Granularity::Each(n, unit) => {
                let length = n * unit.minutes();
                length >= DAY || DAY % length == 0
            }
        }
    }
}

/// Months from 1970 to the one that a minute lies in.
pub(crate) fn month(minute: i64) -> i64 {
    let zoned = Timestamp::from_second(minute * 60).unwrap_or_default().to_zoned(TimeZone::UTC);
    (i64::from(zoned.year()) - 1970) * 12 + i64::from(zoned.month()) - 1
}

/// A word in quotes.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Filter {
    fn text(&self) -> String {
        let joined = |filters: &[Filter], word: &str| {
            let filters: Vec<String> = filters.iter().map(|filter| format!("({})", filter.text())).collect();
            filters.join(word)
        };
        match self {
            Filter::Plain(dimension, value) => format!("{dimension}:{value}"),
            Filter::Is(dimension, value) => format!("{dimension} = {}", quoted(value)),
            Filter::Prefix(dimension, value) => format!("{dimension}^{}", quoted(value)),
            Filter::In(dimension, values) => {
                let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
                format!("{dimension} in ({})", values.join(", "))
            }
            Filter::Not(filter) => match &**filter {
                Filter::Is(dimension, value) => format!("{dimension} != {}", quoted(value)),
                filter => format!("not ({})", filter.text()),
            },
            Filter::All(filters) => joined(filters, " and "),
            Filter::Any(filters) => joined(filters, " or "),
        }
    }

    /// The same as it is sent in JSON.
    fn json(&self) -> Value {
        let all = |filters: &[Filter]| filters.iter().map(Filter::json).collect::<Vec<_>>();
        match self {
            Filter::Plain(dimension, value) => json!(format!("{dimension}:{value}")),
            Filter::Is(dimension, value) => json!({"dimension": dimension, "is": value}),
            Filter::Prefix(dimension, value) => json!({"dimension": dimension, "prefix": value}),
            Filter::In(dimension, values) => json!({"dimension": dimension, "in": values}),
            Filter::Not(filter) => match &**filter {
                Filter::Is(dimension, value) => json!({"dimension": dimension, "is_not": value}),
                filter => json!({"not": filter.json()}),
            },
            Filter::All(filters) => json!({"and": all(filters)}),
            Filter::Any(filters) => json!({"or": all(filters)}),
        }
    }

    /// Whether it lets in who has none of the dimensions.
    fn of_nothing(&self) -> bool {
        match self {
            Filter::Plain(..) | Filter::Is(..) | Filter::In(..) | Filter::Prefix(..) => false,
            Filter::Not(filter) => !filter.of_nothing(),
            Filter::All(filters) => filters.iter().all(Filter::of_nothing),
            Filter::Any(filters) => filters.iter().any(Filter::of_nothing),
        }
    }

    fn random(random: &mut Random, dimensions: &[&(String, Vec<String>)], depth: u64) -> Filter {
        let (dimension, values) = pick(random, dimensions);
        let value = |random: &mut Random| {
            if one_in(random, 20) { "(nobody's)".into() } else { pick(random, values).clone() }
        };
        let several = |random: &mut Random| {
            (0..random.between(1, 4)).map(|_| Filter::random(random, dimensions, depth - 1)).collect()
        };
        match random.between(0, if depth > 0 { 8 } else { 4 }) {
            0 | 1 => Filter::Is(dimension.clone(), value(random)),
            2 => Filter::In(dimension.clone(), (0..random.between(1, 5)).map(|_| value(random)).collect()),
            3 => {
                let value = value(random);
                let front = random.between(0, 1 + value.chars().count() as u64) as usize;
                Filter::Prefix(dimension.clone(), value.chars().take(front).collect())
            }
            4 | 5 => Filter::Not(Filter::random(random, dimensions, depth - 1).into()),
            6 => Filter::All(several(random)),
            _ => Filter::Any(several(random)),
        }
    }

    /// The dimensions that it is about.
    fn dimensions(&self) -> Vec<String> {
        match self {
            Filter::Plain(dimension, _)
            | Filter::Is(dimension, _)
            | Filter::In(dimension, _)
            | Filter::Prefix(dimension, _) => vec![dimension.clone()],
            Filter::Not(filter) => filter.dimensions(),
            Filter::All(filters) | Filter::Any(filters) => filters.iter().flat_map(Filter::dimensions).collect(),
        }
    }
}

impl Asked {
    /// The question as it is sent.
    pub(crate) fn question(&self) -> Question {
        let names: Vec<String> = self.metrics.iter().map(Metric::name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let granularity = self.granularity.text(1);
        let mut question = match self.time {
            Time::Between(start, end) => Question::of(&names, start * MINUTE_MS, end * MINUTE_MS, &granularity),
            Time::Last(n, unit) => Question::last(&names, &format!("{n}{}", unit.suffix()), &granularity),
        };
        for dimension in &self.group_by {
            question = question.with("group_by", dimension);
        }
        for filter in &self.filters {
            question = question.with("filter", filter.text());
        }
        for (name, value) in self.once() {
            question = question.with(name, value);
        }
        question
    }

    /// The same as it is sent in JSON, among others.
    pub(crate) fn json(&self) -> Value {
        let names: Vec<String> = self.metrics.iter().map(Metric::name).collect();
        let filters: Vec<Value> = self.filters.iter().map(Filter::json).collect();
        let mut json = json!({"metric": names, "granularity": self.granularity.text(1)});
        let time = |minute| Timestamp::from_second(minute * 60).unwrap_or_default().to_string();
        match self.time {
            Time::Between(start, end) => (json["start"], json["end"]) = (time(start).into(), time(end).into()),
            Time::Last(n, unit) => json["last"] = format!("{n}{}", unit.suffix()).into(),
        }
        // One value is a list's, or stands by itself.
        let list = |values: Vec<Value>| if let [one] = &values[..] { one.clone() } else { Value::Array(values) };
        if !self.group_by.is_empty() {
            json["group_by"] = list(self.group_by.iter().map(|name| name.as_str().into()).collect());
        }
        if !filters.is_empty() {
            json["filter"] = list(filters);
        }
        for (name, value) in self.once() {
            json[name] = value.parse::<u64>().map_or(value.into(), Value::from);
        }
        json
    }

    /// Parameters that are given once, if at all.
    fn once(&self) -> Vec<(&'static str, String)> {
        let order = self.order.map(|Order { metric, ascending }| {
            let by = metric.map_or("group".into(), |metric| self.metrics[metric].name());
            ("order", format!("{by} {}", if ascending { "asc" } else { "desc" }))
        });
        let window = (self.window > 1).then(|| ("window", self.granularity.text(self.window)));
        let compare = self.compared.then(|| ("compare", "previous".into()));
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        [order, window, compare, limit].into_iter().flatten().collect()
    }

    /// The starts of the rows' buckets, ascending, of a range of minutes; each with the minutes that the row is about.
    pub(crate) fn buckets(&self, (start, end): (i64, i64)) -> Vec<(i64, (i64, i64))> {
        // A row of a window is about all of its buckets, also where the range begins within the first.
        let from = |bucket| match self.window {
            1 => start.max(bucket),
            window => self.granularity.after(bucket, 1 - window),
        };
        let mut buckets: Vec<(i64, (i64, i64))> = Vec::new();
        let mut bucket = self.granularity.bucket(start, start);
        while bucket < end {
            let next = self.granularity.end(bucket, end);
            buckets.push((bucket, (from(bucket), next.min(end))));
            bucket = next;
        }
        buckets
    }

    /// All minutes that it is about, of a range of minutes: windows begin before it does.
    pub(crate) fn reads(&self, (start, end): (i64, i64)) -> (i64, i64) {
        match self.window {
            1 => (start, end),
            window => (self.granularity.after(self.granularity.bucket(start, start), 1 - window), end),
        }
    }

    /// The period before a range of minutes: of as many months where it is of whole months and isn't cut into weeks, else of as many
    /// minutes.
    pub(crate) fn before(&self, (start, end): (i64, i64)) -> (i64, i64) {
        let is_month = |minute| Unit::Month.start(minute, 0) == minute;
        let by_weeks = matches!(self.granularity, Granularity::Each(_, Unit::Week));
        if !by_weeks && is_month(start) && is_month(end) {
            return (Unit::Month.start(start, month(start) - month(end)), start);
        }
        (2 * start - end, start)
    }

    /// Whether a range of minutes and the one before both start with a bucket, so that they can be compared.
    fn is_comparable(&self, range: (i64, i64)) -> bool {
        [range, self.before(range)].iter().all(|(start, _)| self.granularity.bucket(*start, *start) == *start)
    }

    /// Whether merged cells answer it, which are of all events, without windows, and compared with nothing.
    pub(crate) fn is_of_cells(&self) -> bool {
        let is_of_all = |metric: &Metric| metric.only().is_none() && !matches!(metric, Metric::Ratio(..));
        self.window == 1 && !self.compared && self.metrics.iter().all(is_of_all)
    }

    /// The first minute, and the one after the last, at a time in ms.
    pub(crate) fn minutes(&self, now_ms: i64) -> (i64, i64) {
        match self.time {
            Time::Between(start, end) => (start, end),
            Time::Last(n, unit) => {
                let now = now_ms.div_euclid(MINUTE_MS);
                (unit.start(now, 1 - n), unit.start(now, 1))
            }
        }
    }

    /// How groups come.
    pub(crate) fn order(&self) -> Order {
        self.order.unwrap_or(Order { metric: Some(0), ascending: false })
    }

    /// Groups that are told apart.
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(10)
    }

    /// Makes one up that some cube answers.
    pub(crate) fn random(random: &mut Random, facts: &Facts) -> Asked {
        let mut needed: Vec<String> = Vec::new();
        let mut group_by: Vec<String> = Vec::new();
        for _ in 0..random.between(0, 4) {
            let dimension = &pick(random, &facts.dimensions).0;
            if !group_by.contains(dimension) && is_covered(&needed, Some(dimension), false) {
                group_by.push(dimension.clone());
                needed.push(dimension.clone());
            }
        }
        let mut filters: Vec<Filter> = Vec::new();
        for _ in 0..random.between(0, 3) {
            let fits = |(dimension, values): &&(String, Vec<String>)| {
                // What a value was before it became the rest, nobody knows.
                is_covered(&needed, Some(dimension), false)
                    && !values.iter().any(|value| value == OTHER)
                    // Of one dimension, two filters may be refused: no event has two values.
                    && !filters.iter().flat_map(Filter::dimensions).any(|known| known == *dimension)
            };
            let dimensions: Vec<_> = facts.dimensions.iter().filter(fits).collect();
            if dimensions.is_empty() {
                break;
            }
            let filter = match random.between(0, 3) {
                0 => {
                    let (dimension, values) = pick(random, &dimensions);
                    Filter::Plain(dimension.clone(), pick(random, values).clone())
                }
                _ => Filter::random(random, &dimensions, 3),
            };
            let mut with = [needed.clone(), filter.dimensions()].concat();
            if filter.of_nothing() && group_by.is_empty() && !facts.received {
                with.push("event_type".into());
            }
            if is_covered(&with, None, false) {
                needed = with;
                filters.push(filter);
            }
        }
        let mut metrics: Vec<Metric> = Vec::new();
        let mut digest = false;
        for _ in 0..random.between(1, 1 + METRICS_MAX as u64) {
            let metric = Metric::random(random, facts);
            let quantile = matches!(metric, Metric::Of(Stat::Quantile(_), _));
            let only = metric.only().map(|(dimension, _)| dimension);
            if !metrics.contains(&metric) && is_covered(&needed, only, digest || quantile) {
                needed.extend(only.map(str::to_owned));
                digest |= quantile;
                metrics.push(metric);
            }
        }
        if metrics.is_empty() {
            metrics.push(if facts.received { Metric::Received("accepted".into()) } else { Metric::Events });
        }
        let limit = match random.between(0, 6) {
            0..3 => None,
            3 => Some(1),
            4 => Some(random.between(2, 30) as usize),
            _ => Some(random.between(30, 1_001) as usize),
        };
        let time = Time::random(random, facts);
        let (start, end) = match time {
            Time::Between(start, end) => (start, end),
            Time::Last(n, unit) => (0, n * unit.minutes()),
        };
        let groups = if !group_by.is_empty() { limit.unwrap_or(10) as i64 + 1 } else { 1 };
        let granularity = match facts.received {
            true => Granularity::All,
            false => Granularity::random(random, end - start, ROWS_MAX / groups.min(ROWS_MAX)),
        };
        let order = one_in(random, 3).then(|| Order {
            metric: (!one_in(random, 4)).then(|| random.between(0, metrics.len() as u64) as usize),
            ascending: one_in(random, 2),
        });
        let order = order.filter(|_| !group_by.is_empty());
        let window = if one_in(random, 4) { granularity.window(random) } else { 1 };
        let asked = Asked { metrics, time, granularity, window, compared: false, group_by, filters, order, limit };
        if !facts.received && one_in(random, 4) { asked.compared() } else { asked }
    }

    /// The same, compared with the period before, if it can be: where it is about times that are told, some are moved to where buckets
    /// start.
    fn compared(self) -> Asked {
        let (is_comparable, time) = match self.time {
            Time::Between(start, end) => {
                let start = self.granularity.bucket(start, start);
                let last = self.granularity.bucket(end - 1, start);
                let end = if self.is_comparable((start, end)) { end } else { self.granularity.end(last, end) };
                (self.is_comparable((start, end)), Time::Between(start, end))
            }
            // Whenever that is: all begin together.
            Time::Last(_, unit) => {
                let starts_together = match self.granularity {
                    Granularity::All => true,
                    Granularity::Each(1, each) => each <= unit && (each, unit) != (Unit::Week, Unit::Month),
                    Granularity::Each(..) => false,
                };
                (starts_together, self.time)
            }
        };
        if is_comparable { Asked { compared: true, time, ..self } } else { self }
    }
}

impl Metric {
    fn random(random: &mut Random, facts: &Facts) -> Metric {
        let value = |random: &mut Random, name: &str| {
            let values = facts.dimensions.iter().find(|(dimension, _)| dimension == name);
            values.map(|(_, values)| pick(random, values).clone())
        };
        if facts.received {
            return Metric::Received(value(random, "reason").unwrap_or_default());
        }
        let kinds = if facts.measures.is_empty() { 7 } else { 13 };
        match random.between(0, kinds) {
            0 => Metric::Events,
            1 => Metric::PageViews,
            2 => value(random, "event_type").map_or(Metric::Events, Metric::Count),
            3 | 4 => Metric::Users,
            5 => value(random, "event_type").map_or(Metric::Users, Metric::UsersOf),
            6 => {
                let event_type = value(random, "event_type").unwrap_or_else(|| "revenue".into());
                let revenue = facts.measures.iter().find_map(|measure| measure.strip_prefix("revenue_"));
                Metric::ratio(random, event_type, revenue)
            }
            kind => {
                let stat = match kind {
                    7 => Stat::Sum,
                    8 => Stat::Avg,
                    9 => Stat::Min,
                    10 => Stat::Max,
                    _ if one_in(random, 4) => Stat::Quantile(random.between(1, 100) as u32),
                    _ => Stat::Quantile(*pick(random, &[50, 95, 99])),
                };
                Metric::Of(stat, pick(random, &facts.measures).clone())
            }
        }
    }

    /// A ratio, as docs/FORMATS.md defines them.
    fn ratio(random: &mut Random, event_type: String, revenue: Option<&str>) -> Metric {
        let (name, of, over) = match random.between(0, if revenue.is_some() { 6 } else { 5 }) {
            0 => ("error_rate".into(), Metric::Count("error".into()), Metric::Events),
            1 => ("conversion_rate".into(), Metric::UsersOf("revenue".into()), Metric::Users),
            2 => (format!("conversion_rate:{event_type}"), Metric::UsersOf(event_type), Metric::Users),
            3 => ("views_per_user".into(), Metric::PageViews, Metric::Users),
            4 => ("events_per_user".into(), Metric::Events, Metric::Users),
            _ => {
                let currency = revenue.unwrap_or("EUR");
                let sum = Metric::Of(Stat::Sum, format!("revenue_{currency}"));
                (format!("revenue_per_user:{currency}"), sum, Metric::Users)
            }
        };
        Metric::Ratio(name, of.into(), over.into())
    }
}

impl Time {
    fn random(random: &mut Random, facts: &Facts) -> Time {
        let (first, last) = facts.minutes;
        // Days around it are asked of as well.
        let (from, to) = (first.div_euclid(DAY) * DAY - DAY, last.div_euclid(DAY) * DAY + 2 * DAY);
        if facts.received {
            return Time::Between(from, to);
        }
        if facts.live && one_in(random, 2) {
            return match random.between(0, 5) {
                0 | 1 => Time::Last(random.between(1, 1_441) as i64, Unit::Minute),
                2 => Time::Last(random.between(1, 100) as i64, Unit::Hour),
                3 => Time::Last(random.between(1, 40) as i64, Unit::Day),
                _ => Time::Last(random.between(1, 5) as i64, *pick(random, &[Unit::Week, Unit::Month])),
            };
        }
        let mut edge = |from: i64, to: i64| {
            let at = random.between(0, (to - from) as u64) as i64 + from;
            match random.between(0, 3) {
                0 => at.div_euclid(DAY) * DAY,
                1 => at.div_euclid(HOUR) * HOUR,
                _ => at,
            }
        };
        let (a, b) = match edge(0, 8) {
            // A stretch of minutes; all; any.
            0 | 1 => {
                let start = edge(first, last);
                (start, start + edge(1, 180))
            }
            2 => (from, to),
            _ => (edge(from, to), edge(from, to)),
        };
        Time::Between(a.min(b), a.max(b).max(a.min(b) + 1))
    }
}

impl Granularity {
    /// One that cuts so many minutes into so many buckets at most.
    fn random(random: &mut Random, minutes: i64, buckets_max: i64) -> Granularity {
        for _ in 0..20 {
            let (unit, most) = match random.between(0, 10) {
                0 | 1 => break,
                2 => (Unit::Minute, 1),
                3 => (Unit::Minute, 1_440),
                4 => (Unit::Minute, 10_080),
                5 => (Unit::Hour, 24),
                6 => (Unit::Hour, 8_784),
                7 => (Unit::Day, *pick(random, &[1, 7, 3_660])),
                8 => (Unit::Week, *pick(random, &[1, 520])),
                _ => (Unit::Month, *pick(random, &[1, 120])),
            };
            let n = random.between(1, 1 + most) as i64;
            let (granularity, length) = (Granularity::Each(n, unit), n * unit.minutes());
            if minutes / length < buckets_max {
                return granularity;
            }
        }
        Granularity::All
    }

    /// A window of several buckets; of one, where it can't slide.
    fn window(self, random: &mut Random) -> i64 {
        let Granularity::Each(n, unit) = self else { return 1 };
        let longest = match unit {
            Unit::Minute => 10_080,
            Unit::Hour => 8_784,
            Unit::Day => 3_660,
            Unit::Week => 520,
            Unit::Month => 120,
        };
        let most = if one_in(random, 4) { WINDOW_MAX } else { 7 };
        let window = random.between(2, most + 1) as i64;
        if self.is_even() && n * window <= longest { window } else { 1 }
    }
}

/// Whether some cube has all these dimensions, and digests where they are needed.
fn is_covered(needed: &[String], and: Option<&str>, digest: bool) -> bool {
    let has = |cube: &cube::Cube, name: &str| cube.dimensions.contains(&name);
    cube::DEFAULT.iter().chain([&cube::RECEIVED]).any(|cube| {
        (cube.digest || !digest) && needed.iter().map(String::as_str).chain(and).all(|name| has(cube, name))
    })
}

fn pick<'a, T>(random: &mut Random, among: &'a [T]) -> &'a T {
    &among[random.between(0, among.len() as u64) as usize]
}

fn one_in(random: &mut Random, n: u64) -> bool {
    random.between(0, n) == 0
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A small table of events.
    pub(crate) fn facts() -> Facts {
        let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>();
        Facts {
            table: "t".into(),
            minutes: (28_401_120, 28_401_120 + 3 * DAY),
            dimensions: vec![
                ("event_type".into(), values(&["page_view", "a:b"])),
                ("country".into(), values(&["US", "it's"])),
                ("page".into(), values(&["/", "(other)"])),
            ],
            measures: vec!["revenue_EUR".into()],
            live: true,
            received: false,
        }
    }

    #[test]
    fn units_start_on_the_calendar() {
        let minute = |text: &str| text.parse::<Timestamp>().unwrap().as_second() / 60;
        let at = minute("2024-03-01T10:17:00Z");
        for (unit, n, start) in [
            (Unit::Hour, 0, "2024-03-01T10:00:00Z"),
            (Unit::Day, -1, "2024-02-29T00:00:00Z"),
            (Unit::Week, 0, "2024-02-26T00:00:00Z"),
            (Unit::Week, 1, "2024-03-04T00:00:00Z"),
            (Unit::Month, 0, "2024-03-01T00:00:00Z"),
            (Unit::Month, -3, "2023-12-01T00:00:00Z"),
        ] {
            assert_eq!(unit.start(at, n), minute(start), "{unit:?} {n}");
        }
    }

    #[test]
    fn rows_are_about_their_windows() {
        let mut asked = Asked::random(&mut Random::new(1), &facts());
        asked.granularity = Granularity::Each(20, Unit::Minute);
        for (window, first) in [(1, (40, (50, 60))), (3, (40, (0, 60)))] {
            asked.window = window;
            let buckets = asked.buckets((50, 90));
            assert_eq!(buckets.first(), Some(&first));
            assert_eq!(buckets.last().map(|(bucket, (_, to))| (*bucket, *to)), Some((80, 90)));
            assert_eq!(asked.reads((50, 90)).0, if window == 1 { 50 } else { 0 });
        }
        // Midnight cuts a bucket that doesn't fill the day.
        (asked.granularity, asked.window) = (Granularity::Each(1_000, Unit::Minute), 1);
        let starts = asked.buckets((0, 2 * DAY)).into_iter().map(|(bucket, _)| bucket).collect::<Vec<_>>();
        assert_eq!(starts, [0, 1_000, DAY, DAY + 1_000]);
        // 2024-02-01 and 2024-03-01, and January before them.
        let months = (19_754 * DAY, 19_783 * DAY);
        assert_eq!(asked.before(months), (19_723 * DAY, 19_754 * DAY));
        asked.granularity = Granularity::Each(1, Unit::Week);
        assert_eq!(asked.before(months), (19_725 * DAY, 19_754 * DAY));
    }

    #[test]
    fn filters_are_written_with_quotes() {
        let is = |value: &str| Filter::Is("page".into(), value.into());
        let filter = Filter::Any(vec![
            Filter::Not(is("a\\\"b").into()),
            Filter::All(vec![is("x"), Filter::Prefix("page".into(), "".into())]),
        ]);
        assert_eq!(filter.text(), r#"(page != "a\\\"b") or ((page = "x") and (page^""))"#);
        assert!(filter.of_nothing());
    }

    #[test]
    fn a_seed_repeats_its_question_and_all_kinds_are_asked() {
        let mut seen = HashSet::new();
        for seed in 0..2_000 {
            let asked = Asked::random(&mut Random::new(seed), &facts());
            assert_eq!(asked, Asked::random(&mut Random::new(seed), &facts()));
            let (start, end) = asked.minutes(1_708_000_000_000);
            assert!(start < end && !asked.metrics.is_empty());
            let mut see = |what: &str| _ = seen.insert(what.to_owned());
            asked.metrics.iter().for_each(|metric| see(metric.name().split(':').next().unwrap()));
            see(["whole", "grouped", "by two", "by three"][asked.group_by.len()]);
            for filter in &asked.filters {
                see(match filter {
                    Filter::Plain(..) => ":",
                    Filter::Is(..) => "=",
                    Filter::In(..) => "in",
                    Filter::Prefix(..) => "^",
                    Filter::Not(..) => "not",
                    Filter::All(..) => "and",
                    Filter::Any(..) => "or",
                });
            }
            if let Some(order) = asked.order {
                see(if order.metric.is_some() { "by metric" } else { "by group" });
            }
            match asked.time {
                Time::Last(_, unit) => see(&format!("last {unit:?}")),
                Time::Between(..) => {}
            }
            see(match asked.time {
                Time::Last(..) => "last",
                Time::Between(start, _) if start % HOUR != 0 => "odd start",
                Time::Between(..) => "even start",
            });
            if asked.window > 1 {
                see("window");
            }
            if asked.compared {
                see("compared");
                assert!(asked.is_comparable(asked.minutes(1_708_000_000_000)), "{asked:?}");
            }
            if asked.is_of_cells() {
                see("of cells");
            }
            see(match asked.granularity {
                Granularity::All => "all",
                Granularity::Each(1, _) => "each",
                Granularity::Each(..) => "several",
            });
            if let Granularity::Each(_, unit) = asked.granularity {
                see(unit.suffix());
            }
            let question = asked.question().text();
            assert!(question.contains("granularity=") && !question.contains(' '), "{question}");
        }
        // Metrics and ratios but for quantiles, what is done with buckets, groups, filters, orders, times, and granularities.
        let quantile = |name: &String| name[1..].parse::<u32>().is_ok();
        seen.retain(|name| !name.starts_with('p') || !quantile(name));
        assert_eq!(seen.len(), 8 + 5 + 3 + 3 + 7 + 2 + 8 + 3 + 5, "{seen:?}");
    }
}
