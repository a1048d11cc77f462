//! A question: which metrics of a client, over which time, cut into which buckets, for which events.

use std::borrow::Cow;

use catchment_cells::key::is_name;
use catchment_cells::limits::{NAME_BYTES_MAX, QUESTION_METRICS_MAX};
use catchment_cells::metric::ACTIVE_USERS;
pub use catchment_cells::metric::{Figure, Metric, Stat};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value;
use thiserror::Error;

use crate::filter::{Budget, Filter, Test};
use crate::granularity::before;
pub use crate::granularity::{Granularity, Last};
use crate::limits::{
    QUESTION_BUCKETS_MAX, QUESTION_FILTERS_MAX, QUESTION_GROUPS_BY_MAX, QUESTION_LIMIT_DEFAULT, QUESTION_LIMIT_MAX,
    WINDOW_STEPS_MAX,
};
use crate::rollup;

/// The years that can be asked about, far from where the calendar ends: from 0001-01-01 to before 9999-01-01, in s of 1970.
const YEARS_FROM_S: i64 = -62_135_596_800;
const YEARS_TO_S: i64 = 253_370_764_800;
/// The length of a date: `2024-01-31`.
const DATE_BYTES: usize = 10;
/// How long ago those were here who are active now.
const ACTIVE: Last = Last::minutes(5);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The figures, in the order that they were asked for.
    pub metrics: Vec<Figure>,
    /// The first minute.
    pub start: i64,
    /// The minute after the last.
    pub end: i64,
    /// What start and end were made of, if the question moves with time.
    pub last: Option<Last>,
    /// How time is cut.
    pub granularity: Granularity,
    /// How many buckets each figure is of: its own, and those before it.
    pub window: i64,
    /// The period that this one is compared with: the first minute, and the one after the last.
    pub before: Option<(i64, i64)>,
    /// The dimensions whose values are told apart.
    pub group_by: Vec<String>,
    /// Which events it is about.
    pub filter: Option<Filter>,
    /// Which groups are first.
    pub order: Order,
    /// How many groups are told apart; the rest is one.
    pub limit: usize,
}

/// How groups are ordered: over the whole range, to tell which are told apart, and in each bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The place of the metric among the question's; `None`: by the groups' values.
    pub metric: Option<usize>,
    /// The greatest first.
    pub descending: bool,
}

impl Order {
    /// Whether groups are ordered by their values, the last first.
    pub fn is_by_group_descending(self) -> bool {
        self.metric.is_none() && self.descending
    }
}

/// A question that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{parameter}: {problem}")]
pub struct QuestionError {
    /// Which parameter.
    pub parameter: String,
    /// What is wrong with it, as the rest of a sentence.
    pub problem: String,
}

fn error<T>(parameter: &str, problem: impl Into<String>) -> Result<T, QuestionError> {
    Err(QuestionError { parameter: parameter.into(), problem: problem.into() })
}

/// The parameters of a query string: names and values, as HTML forms send them. Any text is one.
pub fn parameters(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

impl Question {
    /// Reads the parameters of a query string at `now`, in ms. Dates are days of the zone's clock.
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        now: i64,
        zone: &TimeZone,
    ) -> Result<Question, QuestionError> {
        let mut draft = Draft::default();
        for (name, value) in parameters {
            draft.take(name, value.into())?;
        }
        draft.finish(now, zone)
    }

    /// Reads the same from JSON: an object whose fields are the parameters, each a text, a number, or a list of these; a filter can
    /// be JSON, too.
    pub fn from_json(json: &Value, now: i64, zone: &TimeZone) -> Result<Question, QuestionError> {
        let Value::Object(fields) = json else { return error("questions", "a question is an object") };
        let mut draft = Draft::default();
        for (name, value) in fields {
            match value {
                Value::Array(values) => values.iter().try_for_each(|value| draft.take_json(name, value))?,
                value => draft.take_json(name, value)?,
            }
        }
        draft.finish(now, zone)
    }

    /// The start of the bucket of the answer that a minute belongs to.
    pub fn bucket(&self, minute: i64, zone: &TimeZone) -> i64 {
        self.granularity.bucket(minute, self.start, zone)
    }

    /// The starts of all buckets, ascending: those of the answer, after those that only windows are about.
    pub fn buckets(&self, zone: &TimeZone) -> Vec<i64> {
        let range = (self.start, self.end);
        let mut bucket = self.bucket(self.reads_from(zone), zone);
        let mut buckets = Vec::new();
        while bucket < self.end {
            buckets.push(bucket);
            bucket = self.granularity.next(bucket, range, zone);
        }
        buckets
    }

    /// The first minute that is read: windows begin before the question does.
    pub fn reads_from(&self, zone: &TimeZone) -> i64 {
        if self.window == 1 {
            return self.start;
        }
        let first = self.bucket(self.start, zone);
        (1..self.window).fold(first, |bucket, _| self.bucket(bucket - 1, zone))
    }

    /// The same of the period before, which is compared with nothing.
    pub fn of_before(&self) -> Option<Question> {
        let (start, end) = self.before?;
        Some(Question { start, end, last: None, before: None, ..self.clone() })
    }

    /// Refuses what is not answered by cells.
    pub fn check_cells(&self) -> Result<(), QuestionError> {
        if self.metrics.iter().flat_map(Figure::metrics).any(|metric| metric.only.is_some()) {
            return error(
                "metric",
                "cells are of all their events: ask for one type in the filter, as in event_type=page_view",
            );
        }
        if self.window != 1 {
            return error("window", "cells have none: merge those of the buckets");
        }
        if self.before.is_some() {
            return error("compare", "cells are compared with nothing: ask for those of the period before");
        }
        Ok(())
    }

    /// Refuses what no live view follows.
    pub fn check_live(&self) -> Result<(), QuestionError> {
        let by_first = Order { metric: Some(0), descending: true };
        if self.group_by.len() > 1 {
            return error("group_by", "a live view tells groups apart by one dimension at most");
        }
        if self.order != by_first {
            return error("order", "a live view has those groups first that have most of the first metric");
        }
        if let Some(ratio) = self.metrics.iter().find(|metric| metric.over.is_some()) {
            let problem = format!("a live view has no ratios: follow both metrics of {}", ratio.name);
            return error("metric", problem);
        }
        if self.window != 1 {
            return error("window", "a live view has none: follow the buckets, whose users can be merged");
        }
        if self.before.is_some() {
            return error("compare", "a live view compares nothing: ask for the period before once");
        }
        Ok(())
    }
}

/// The parameters of a question, as far as they were read.
#[derive(Debug, Default)]
struct Draft<'a> {
    metrics: Vec<Figure>,
    filters: Vec<Filter>,
    values: Budget,
    group_by: Vec<String>,
    start: Option<Cow<'a, str>>,
    end: Option<Cow<'a, str>>,
    last: Option<Cow<'a, str>>,
    granularity: Option<Cow<'a, str>>,
    window: Option<Cow<'a, str>>,
    compare: Option<Cow<'a, str>>,
    order: Option<Cow<'a, str>>,
    limit: Option<Cow<'a, str>>,
}

impl<'a> Draft<'a> {
    fn take(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), QuestionError> {
        let once = match name {
            "metric" => {
                let metric = Figure::parse(&value).or_else(|problem| error(name, problem.to_string()))?;
                if self.metrics.iter().any(|other| other.name == metric.name) {
                    return error(name, format!("{value} is asked for twice"));
                }
                if self.metrics.len() == QUESTION_METRICS_MAX {
                    return error(name, format!("at most {QUESTION_METRICS_MAX} are asked for in one question"));
                }
                self.metrics.push(metric);
                return Ok(());
            }
            "filter" => {
                let filter = Filter::parse(&value, &mut self.values).or_else(|problem| error(name, problem))?;
                return self.add_filter(filter);
            }
            "group_by" => {
                if !is_name(&value) {
                    return error(name, "it names no dimension");
                }
                if self.group_by.iter().any(|other| *other == value) {
                    return error(name, format!("{value} is given twice"));
                }
                if self.group_by.len() == QUESTION_GROUPS_BY_MAX {
                    return error(name, format!("at most {QUESTION_GROUPS_BY_MAX} dimensions are taken"));
                }
                self.group_by.push(value.into_owned());
                return Ok(());
            }
            "start" => &mut self.start,
            "end" => &mut self.end,
            "last" => &mut self.last,
            "granularity" => &mut self.granularity,
            "window" => &mut self.window,
            "compare" => &mut self.compare,
            "order" => &mut self.order,
            "limit" => &mut self.limit,
            _ => return error(&crop(name), "there is no such parameter"),
        };
        if once.replace(value).is_some() {
            return error(name, "it is given twice");
        }
        Ok(())
    }

    fn take_json(&mut self, name: &str, value: &'a Value) -> Result<(), QuestionError> {
        match value {
            Value::String(text) => self.take(name, text.into()),
            Value::Number(number) => self.take(name, number.to_string().into()),
            value if name == "filter" => {
                let filter = Filter::from_json(value, &mut self.values).or_else(|problem| error(name, problem))?;
                self.add_filter(filter)
            }
            _ => error(&crop(name), "it is a text, a number, or a list of these"),
        }
    }

    fn add_filter(&mut self, filter: Filter) -> Result<(), QuestionError> {
        let is_one = |filter: &Filter| matches!(filter, Filter::Is(_, Test::In(values)) if values.len() == 1);
        if let Filter::Is(dimension, _) = &filter
            && is_one(&filter)
            && self.filters.iter().any(|other| is_one(other) && other.dimensions() == [dimension])
        {
            let problem =
                format!("{dimension} is filtered twice: several values are asked for as {dimension} in (a,b)");
            return error("filter", problem);
        }
        if self.filters.len() == QUESTION_FILTERS_MAX {
            return error("filter", format!("at most {QUESTION_FILTERS_MAX} are taken: join them with and"));
        }
        self.filters.push(filter);
        Ok(())
    }

    fn finish(self, now: i64, zone: &TimeZone) -> Result<Question, QuestionError> {
        if self.metrics.is_empty() {
            return error("metric", format!("1 to {QUESTION_METRICS_MAX} are asked for"));
        }
        let last = self.last.map(|text| Last::parse(&text).or_else(|problem| error("last", problem))).transpose()?;
        let (start, end) = (self.start.as_deref(), self.end.as_deref());
        let has_range = start.is_some() || end.is_some();
        let is_now = !has_range && self.metrics.iter().all(|metric| metric.name == ACTIVE_USERS);
        let last = last.or(is_now.then_some(ACTIVE));
        let (start, end) = match last {
            Some(last) if !has_range => last.range(now, zone),
            Some(_) => return error("last", "it takes the place of start and end"),
            None => (parse_time("start", start, zone)?, parse_time("end", end, zone)?),
        };
        if start >= end {
            return error("end", "it must come after the start");
        }
        let parse_granularity = |parameter: &str, text: Cow<'_, str>| {
            let granularity = Granularity::parse(&text);
            granularity.or_else(|problem| error(parameter, format!("{problem}, or all")))
        };
        let granularity =
            self.granularity.map_or(Ok(Granularity::All), |text| parse_granularity("granularity", text))?;
        let window = match self.window {
            None => 1,
            Some(text) => {
                let Some(steps) = granularity.steps(parse_granularity("window", text)?) else {
                    return error("window", "it must be a whole number of the granularity's buckets, as in 7d by 1d");
                };
                if steps > WINDOW_STEPS_MAX {
                    return error(
                        "window",
                        format!("it has more than {WINDOW_STEPS_MAX} buckets: ask for coarser ones"),
                    );
                }
                steps
            }
        };
        if granularity.buckets_max(start, end) + window > QUESTION_BUCKETS_MAX {
            let problem = format!(
                "it cuts the range into more than {QUESTION_BUCKETS_MAX} buckets: ask for coarser ones or for a shorter range"
            );
            return error("granularity", problem);
        }
        let before = match self.compare.as_deref() {
            None => None,
            Some("previous") => Some(before(start, end, !matches!(granularity, Granularity::Weeks(_)), zone)),
            Some(_) => return error("compare", "it is previous, for the period before"),
        };
        let question = Question {
            order: parse_order(self.order.as_deref(), &self.metrics)?,
            metrics: self.metrics,
            start,
            end,
            last,
            granularity,
            window,
            before,
            group_by: self.group_by,
            filter: match self.filters.len() {
                0 | 1 => self.filters.into_iter().next(),
                _ => Some(Filter::All(self.filters)),
            },
            limit: self.limit.map_or(Ok(QUESTION_LIMIT_DEFAULT), |text| parse_limit(&text))?,
        };
        for compared in question.of_before().iter().flat_map(|before| [&question, before]) {
            if compared.bucket(compared.start, zone) != compared.start {
                let problem =
                    "the range and the one before must both start with a bucket: ask for another granularity or range";
                return error("compare", problem);
            }
        }
        Ok(question)
    }
}

/// The front of a text, for an error that repeats it.
fn crop(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

/// A metric of the question, or `group`, and `asc` or `desc`.
fn parse_order(text: Option<&str>, metrics: &[Figure]) -> Result<Order, QuestionError> {
    let Some(text) = text else { return Ok(Order { metric: Some(0), descending: true }) };
    let (name, descending) = match text.rsplit_once(' ') {
        // An event type may end so.
        _ if metrics.iter().any(|metric| metric.name == text) => (text, None),
        Some((name, "asc")) => (name, Some(false)),
        Some((name, "desc")) => (name, Some(true)),
        _ => (text, None),
    };
    let metric = metrics.iter().position(|metric| metric.name == name);
    match metric {
        None if name != "group" => error("order", "it is a metric of the question or group, and asc or desc"),
        // The greatest figures first, but groups by the alphabet.
        metric => Ok(Order { metric, descending: descending.unwrap_or(metric.is_some()) }),
    }
}

fn parse_limit(text: &str) -> Result<usize, QuestionError> {
    match text.parse() {
        Ok(limit) if (1..=QUESTION_LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => error("limit", format!("it is a number from 1 to {QUESTION_LIMIT_MAX}")),
    }
}

/// A date or an RFC 3339 time, as a minute.
fn parse_time(parameter: &str, text: Option<&str>, zone: &TimeZone) -> Result<i64, QuestionError> {
    let Some(text) = text else { return error(parameter, "it is missing") };
    // A date's parser passes over a time that follows; a time without a zone is no instant, and is refused.
    if text.len() == DATE_BYTES
        && let Ok(start) = text.parse::<Date>().and_then(|date| date.to_zoned(zone.clone()))
    {
        return in_years(parameter, rollup::first_minute(start.timestamp()));
    }
    let Ok(timestamp) = text.parse::<Timestamp>() else {
        return error(parameter, "it is a date, as in 2024-01-31, or a time, as in 2024-01-31T12:00:00Z");
    };
    let second = timestamp.as_second();
    if second.rem_euclid(60) != 0 || timestamp.subsec_nanosecond() != 0 {
        return error(parameter, "it must be a whole minute");
    }
    in_years(parameter, second / 60)
}

fn in_years(parameter: &str, minute: i64) -> Result<i64, QuestionError> {
    if !(YEARS_FROM_S / 60..YEARS_TO_S / 60).contains(&minute) {
        return error(parameter, "it must lie in the years 1 to 9998");
    }
    Ok(minute)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2024-01-31T23:59:30Z.
    const NOW: i64 = 1_706_745_570_000;

    /// Reads a query string without escapes.
    fn parse(query: &str) -> Result<Question, QuestionError> {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Question::parse(pairs, NOW, &TimeZone::UTC)
    }

    proptest! {
        #[test]
        fn any_text_is_a_question_or_refused(
            pairs in prop::collection::vec(
                ("metric|start|end|granularity|group_by|limit|filter|.{0,4}", "[-0-9a-zT:+Z.]{0,24}|.{0,8}|events|all"),
                0..8,
            ),
            start in "[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:00:00(Z|[+-][0-9]{2}:00))?",
            minute in any::<i64>(),
        ) {
            let range = [("metric", "users"), ("start", &start), ("end", "9999-12-30"), ("granularity", "200d")];
            let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let _ = Question::parse(pairs.clone(), NOW, &TimeZone::UTC);
            let _ = Question::parse(range.into_iter().chain(pairs), NOW, &TimeZone::UTC);
            if let Ok(question) = Question::parse(range, NOW, &TimeZone::UTC) {
                let minute = minute.rem_euclid(question.end - question.start) + question.start;
                let bucket = question.bucket(minute, &TimeZone::UTC);
                prop_assert!(bucket <= minute && minute < bucket + 200 * 24 * 60);
            }
        }
    }

    #[test]
    fn a_question_is_read() {
        let question = parse(
            "metric=page_views&metric=p95:duration&start=2024-01-01&end=2024-01-02T12:30:00+02:00\
             &granularity=6h&group_by=country&filter=plan:pro:x&limit=3",
        );
        let metric = |name: &str, stat, only| {
            let metric = Metric { name: name.into(), stat, only };
            Figure { name: name.into(), metric, over: None }
        };
        assert_eq!(
            question,
            Ok(Question {
                metrics: vec![
                    metric("page_views", Stat::Count, Some(("event_type", "page_view".into()))),
                    metric("p95:duration", Stat::Quantile("duration".into(), 95), None),
                ],
                start: 28_401_120,
                end: 28_401_120 + 24 * 60 + 10 * 60 + 30,
                last: None,
                granularity: Granularity::Minutes(360),
                window: 1,
                before: None,
                group_by: vec!["country".into()],
                filter: Some(Filter::Is("plan".into(), Test::In(vec!["pro:x".into()]))),
                order: Order { metric: Some(0), descending: true },
                limit: 3,
            })
        );
    }

    #[test]
    fn the_last_units_include_the_present_one() {
        let minute = |text: &str| text.parse::<Timestamp>().unwrap().as_second() / 60;
        for (last, start, end) in [
            ("1m", "2024-01-31T23:59:00Z", "2024-02-01T00:00:00Z"),
            ("30m", "2024-01-31T23:30:00Z", "2024-02-01T00:00:00Z"),
            ("24h", "2024-01-31T00:00:00Z", "2024-02-01T00:00:00Z"),
            ("1d", "2024-01-31T00:00:00Z", "2024-02-01T00:00:00Z"),
            ("31d", "2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"),
        ] {
            let question = parse(&format!("metric=events&last={last}")).unwrap();
            assert_eq!((question.start, question.end), (minute(start), minute(end)), "{last}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let day = "metric=events&start=2024-01-01&end=2024-01-02";
        let many =
            format!("{day}{}", (0..QUESTION_METRICS_MAX).map(|n| format!("&metric=sum:m{n}")).collect::<String>());
        for (query, parameter) in [
            ("", "metric"),
            ("metric=events&end=2024-01-02", "start"),
            ("metric=events&start=2024-01-01", "end"),
            ("metric=events&start=2024-01-02&end=2024-01-02", "end"),
            // A time without a zone, half a minute, no day of the calendar, and years that aren't.
            ("metric=events&start=2024-01-01T10:30:00&end=2024-01-02", "start"),
            ("metric=events&start=2024-01-01T10:30:30Z&end=2024-01-02", "start"),
            ("metric=events&start=2024-02-30&end=2024-03-02", "start"),
            ("metric=events&start=2024-01-01&end=99999-01-01", "end"),
            (&format!("{day}&start=2024-01-01"), "start"),
            (&format!("{day}&metric=events"), "metric"),
            (&format!("{day}&metric=sum:"), "metric"),
            (&format!("{day}&metric=p100:x"), "metric"),
            (&format!("{day}&metric=é"), "metric"),
            (&many, "metric"),
            (&format!("{day}&granularity="), "granularity"),
            (&format!("{day}&granularity=0m"), "granularity"),
            (&format!("{day}&granularity=é"), "granularity"),
            (&format!("{day}&granularity=99999999999999999999d"), "granularity"),
            ("metric=events&start=1024-01-01&end=2024-01-02&granularity=1m", "granularity"),
            (&format!("{day}&limit=0"), "limit"),
            (&format!("{day}&limit=ten"), "limit"),
            (&format!("{day}&group_by="), "group_by"),
            (&format!("{day}&filter=US"), "filter"),
            (&format!("{day}&filter=a:1&filter=a:2"), "filter"),
            (&format!("{day}&colour=red"), "colour"),
            (&format!("{day}&last=1d"), "last"),
            ("metric=events&last=1d&end=2024-01-02", "last"),
            ("metric=events&last=0d", "last"),
            ("metric=events&last=9y", "last"),
            ("metric=events&last=d", "last"),
            ("metric=events&last=é", "last"),
            ("metric=events&last=1441m", "last"),
        ] {
            assert_eq!(parse(query).map_err(|error| error.parameter), Err(parameter.to_owned()), "{query}");
        }
    }
}
