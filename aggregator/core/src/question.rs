//! A question: which metrics of a client, over which time, cut into which buckets, for which events.

use catchment_cells::key::{Tier, is_name};
use catchment_cells::limits::{MINUTE_MAX, NAME_BYTES_MAX, QUESTION_METRICS_MAX, VALUE_BYTES_MAX};
pub use catchment_cells::metric::{Metric, Stat};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::limits::{QUESTION_BUCKETS_MAX, QUESTION_FILTERS_MAX, QUESTION_LIMIT_DEFAULT, QUESTION_LIMIT_MAX};
use crate::rollup;

/// The length of a date: `2024-01-31`.
const DATE_BYTES: usize = 10;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The figures, in the order that they were asked for; the first one ranks the groups.
    pub metrics: Vec<Metric>,
    /// The first minute.
    pub start: i64,
    /// The minute after the last.
    pub end: i64,
    /// What start and end were made of, if the question moves with time.
    pub last: Option<Last>,
    /// How time is cut.
    pub granularity: Granularity,
    /// The dimension whose values are told apart.
    pub group_by: Option<String>,
    /// Dimensions and the value each must have.
    pub filters: Vec<(String, String)>,
    /// How many groups are told apart; the rest is one.
    pub limit: usize,
}

/// How time is cut into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// So many minutes, counted from the start of each day.
    Minutes(i64),
    /// So many days, counted from the question's first day.
    Days(i64),
    /// Not at all.
    All,
}

/// The last so many minutes, hours or days of the client's clock, the present one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    n: i64,
    unit: Tier,
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
        let (mut start, mut end, mut last, mut granularity) = (None, None, None, None);
        let (mut group_by, mut limit) = (None, None);
        let mut metrics: Vec<Metric> = Vec::new();
        let mut filters: Vec<(String, String)> = Vec::new();
        for (name, value) in parameters {
            let once = match name {
                "metric" => {
                    let metric = Metric::parse(value).or_else(|problem| error(name, problem.to_string()))?;
                    if metrics.iter().any(|other| other.name == metric.name) {
                        return error(name, format!("{value} is asked for twice"));
                    }
                    metrics.push(metric);
                    continue;
                }
                "filter" => {
                    let filter = parse_filter(value)?;
                    if filters.iter().any(|(dimension, _)| *dimension == filter.0) {
                        return error(name, format!("{} is filtered twice", filter.0));
                    }
                    filters.push(filter);
                    continue;
                }
                "start" => &mut start,
                "end" => &mut end,
                "last" => &mut last,
                "granularity" => &mut granularity,
                "group_by" => &mut group_by,
                "limit" => &mut limit,
                _ => return error(&crop(name), "there is no such parameter"),
            };
            if once.replace(value).is_some() {
                return error(name, "it is given twice");
            }
        }
        if metrics.is_empty() || metrics.len() > QUESTION_METRICS_MAX {
            return error("metric", format!("1 to {QUESTION_METRICS_MAX} are asked for"));
        }
        if filters.len() > QUESTION_FILTERS_MAX {
            return error("filter", format!("at most {QUESTION_FILTERS_MAX} are taken"));
        }
        let last = last.map(parse_last).transpose()?;
        let (start, end) = match last {
            Some(last) if start.is_none() && end.is_none() => last.range(now, zone),
            Some(_) => return error("last", "it takes the place of start and end"),
            None => (parse_time("start", start, zone)?, parse_time("end", end, zone)?),
        };
        let question = Question {
            metrics,
            start,
            end,
            last,
            granularity: granularity.map_or(Ok(Granularity::All), parse_granularity)?,
            group_by: group_by.map(|name| parse_name("group_by", name)).transpose()?,
            filters,
            limit: limit.map_or(Ok(QUESTION_LIMIT_DEFAULT), parse_limit)?,
        };
        if question.start >= question.end {
            return error("end", "it must come after the start");
        }
        if question.granularity.buckets(question.start, question.end) > QUESTION_BUCKETS_MAX {
            return error("granularity", format!("it cuts the range into more than {QUESTION_BUCKETS_MAX} buckets"));
        }
        Ok(question)
    }

    /// The start of the bucket of the answer that a minute belongs to.
    pub fn bucket(&self, minute: i64, zone: &TimeZone) -> i64 {
        match self.granularity {
            Granularity::All => self.start,
            Granularity::Minutes(n) => {
                let day = rollup::floor(Tier::Day, minute, zone);
                minute - (minute - day) % n
            }
            Granularity::Days(n) => {
                let first = rollup::floor(Tier::Day, self.start, zone);
                // Noons, since clock changes make days an hour shorter or longer.
                let noon = rollup::floor(Tier::Day, minute, zone) + 12 * 60;
                let into = (noon - first).div_euclid(24 * 60) % n;
                rollup::floor(Tier::Day, noon - into * 24 * 60, zone)
            }
        }
    }
}

impl Last {
    /// The first minute, and the one after the last, at `now`, in ms.
    pub fn range(self, now: i64, zone: &TimeZone) -> (i64, i64) {
        let present = rollup::floor(self.unit, now.div_euclid(60_000), zone);
        let end = rollup::next(self.unit, present, zone);
        let start = match self.unit {
            // Noons, since clock changes make days an hour shorter or longer.
            Tier::Day => rollup::floor(Tier::Day, present + 12 * 60 - (self.n - 1) * 24 * 60, zone),
            unit => end - self.n * rollup::minutes(unit),
        };
        (start, end)
    }
}

impl Granularity {
    /// The coarsest tier whose buckets lie each in one of the answer's.
    pub fn tier(self) -> Tier {
        match self {
            Granularity::All | Granularity::Days(_) => Tier::Day,
            Granularity::Minutes(n) if n % (24 * 60) == 0 => Tier::Day,
            Granularity::Minutes(n) if n % 60 == 0 => Tier::Hour,
            Granularity::Minutes(_) => Tier::Minute,
        }
    }

    /// The most buckets between two minutes.
    fn buckets(self, start: i64, end: i64) -> i64 {
        match self {
            Granularity::All => 1,
            Granularity::Minutes(n) => (end - start) / n,
            Granularity::Days(n) => (end - start) / (n * 24 * 60),
        }
    }
}

/// The front of a text, for an error that repeats it.
fn crop(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

fn parse_name(parameter: &str, text: &str) -> Result<String, QuestionError> {
    if is_name(text) { Ok(text.into()) } else { error(parameter, "it names no dimension") }
}

fn parse_filter(text: &str) -> Result<(String, String), QuestionError> {
    match text.split_once(':') {
        Some((dimension, value)) if is_name(dimension) && value.len() <= VALUE_BYTES_MAX => {
            Ok((dimension.into(), value.into()))
        }
        _ => error("filter", "it is a dimension, a colon and a value, as in country:US"),
    }
}

fn parse_limit(text: &str) -> Result<usize, QuestionError> {
    match text.parse() {
        Ok(limit) if (1..=QUESTION_LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => error("limit", format!("it is a number from 1 to {QUESTION_LIMIT_MAX}")),
    }
}

fn parse_granularity(text: &str) -> Result<Granularity, QuestionError> {
    if text == "all" {
        return Ok(Granularity::All);
    }
    let split = text.len().saturating_sub(1);
    let (number, unit) = text.split_at_checked(split).unwrap_or((text, ""));
    match (number.parse::<u16>().map(i64::from), unit) {
        (Ok(n @ 1..=1440), "m") => Ok(Granularity::Minutes(n)),
        (Ok(n @ 1..=24), "h") => Ok(Granularity::Minutes(n * 60)),
        (Ok(n @ 1..=366), "d") => Ok(Granularity::Days(n)),
        _ => error("granularity", "it is 1m to 1440m, 1h to 24h, 1d to 366d, or all"),
    }
}

fn parse_last(text: &str) -> Result<Last, QuestionError> {
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or((text, ""));
    let (unit, most) = match unit {
        "m" => (Tier::Minute, 1_440),
        "h" => (Tier::Hour, 1_440),
        _ => (Tier::Day, 3_660),
    };
    match (number.parse::<u16>().map(i64::from), text.ends_with(['m', 'h', 'd'])) {
        (Ok(n), true) if (1..=most).contains(&n) => Ok(Last { n, unit }),
        _ => error("last", "it is 1m to 1440m, 1h to 1440h, or 1d to 3660d"),
    }
}

/// A date or an RFC 3339 time, as a minute.
fn parse_time(parameter: &str, text: Option<&str>, zone: &TimeZone) -> Result<i64, QuestionError> {
    let Some(text) = text else { return error(parameter, "it is missing") };
    // A date's parser passes over a time that follows; a time without a zone is no instant, and is refused.
    let timestamp = if text.len() == DATE_BYTES {
        text.parse::<Date>().and_then(|date| date.to_zoned(zone.clone())).map(|zoned| zoned.timestamp())
    } else {
        text.parse::<Timestamp>()
    };
    let Ok(timestamp) = timestamp else {
        return error(parameter, "it is a date, as in 2024-01-31, or a time, as in 2024-01-31T12:00:00Z");
    };
    let second = timestamp.as_second();
    if second.rem_euclid(60) != 0 || timestamp.subsec_nanosecond() != 0 {
        return error(parameter, "it must be a whole minute");
    }
    // The calendar ends before MINUTE_MAX.
    Ok((second / 60).clamp(-MINUTE_MAX, MINUTE_MAX))
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
        let metric = |name: &str, stat, only| Metric { name: name.into(), stat, only };
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
                group_by: Some("country".into()),
                filters: vec![("plan".into(), "pro:x".into())],
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
            (&format!("{day}&metric=p42:x"), "metric"),
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
            ("metric=events&last=9w", "last"),
            ("metric=events&last=d", "last"),
            ("metric=events&last=é", "last"),
            ("metric=events&last=1441m", "last"),
        ] {
            assert_eq!(parse(query).map_err(|error| error.parameter), Err(parameter.to_owned()), "{query}");
        }
    }
}
