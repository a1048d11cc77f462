//! What the aggregator answers, and where it differs from the exact figures.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{Api, Bucket, Exact, Failure, Question, Result, Row, Value};

/// Fewer buckets than one question may have.
const BUCKETS_PER_QUESTION: i64 = 40_000;
/// Pages that are asked for.
const PAGES: usize = 10;
/// Buckets that a difference is told of, each by each.
const DIFFERENCES_TOLD: usize = 5;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// Events and users of one bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answered {
    /// Events.
    pub events: u64,
    /// Users.
    pub users: Value,
}

/// Bucket's start in ms → what was answered.
pub type Series = BTreeMap<i64, Answered>;

/// All answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Of the whole span.
    pub total: Answered,
    /// By minute.
    pub per_minute: Series,
    /// By hour.
    pub per_hour: Series,
    /// By day.
    pub per_day: Series,
    /// Pages with the most events.
    pub top_pages: Vec<(String, u64)>,
    /// `0.5` → value, of the measure that was asked for.
    pub quantiles: Vec<(f64, Value)>,
}

impl Figures {
    /// Asks for everything in a span, in ms.
    pub async fn ask(api: &Api, span: (i64, i64), measure: Option<&str>) -> Result<Figures> {
        let (start, end) = widen(span, DAY_MS);
        let mut metrics = vec!["events".to_owned(), "users".to_owned()];
        metrics.extend(measure.iter().flat_map(|measure| QUANTILES.map(|(name, _)| format!("{name}:{measure}"))));
        let metrics: Vec<&str> = metrics.iter().map(String::as_str).collect();
        let total = api.ask(&Question::of(&metrics, start, end, "all")).await?.results;
        let total = total.first().ok_or_else(|| Failure("no event was counted".into()))?;
        let quantile = |(name, q): (&str, f64)| Some((q, total.get(&format!("{name}:{}", measure?))?));

        let pages = Question::of(&["events"], start, end, "all").with("group_by", "page").with("limit", PAGES);
        let pages = api.ask(&pages).await?.results;
        let page = |row: Row| Some((row.group.clone()?, row.count("events")));
        Ok(Figures {
            total: answered(total)?,
            per_minute: series(api, span, "1m", MINUTE_MS).await?,
            per_hour: series(api, span, "1h", HOUR_MS).await?,
            per_day: series(api, span, "1d", DAY_MS).await?,
            top_pages: pages.into_iter().filter_map(page).filter(|(page, _)| page != "(other)").collect(),
            quantiles: QUANTILES.into_iter().filter_map(quantile).collect(),
        })
    }

    /// Where events are not counted as often as they should be; nothing here is a matter of bounds.
    pub fn differences(&self, exact: &Exact) -> Vec<String> {
        let mut told = Vec::new();
        if self.total.events != exact.events {
            told.push(format!("{} events were counted; there are {}", self.total.events, exact.events));
        }
        let spans = [
            ("minute", &self.per_minute, &exact.per_minute),
            ("hour", &self.per_hour, &exact.per_hour),
            ("day", &self.per_day, &exact.per_day),
        ];
        for (name, answered, expected) in spans {
            let starts: BTreeSet<i64> = answered.keys().chain(expected.keys()).copied().collect();
            let mut wrong = Vec::new();
            for start in starts {
                let (has, should) =
                    (answered.get(&start).map_or(0, |a| a.events), expected.get(&start).map_or(0, |b| b.events));
                if has != should {
                    wrong.push(format!("{} has {has} events instead of {should}", time(start)));
                }
            }
            if !wrong.is_empty() {
                let more = wrong.len().saturating_sub(DIFFERENCES_TOLD);
                wrong.truncate(DIFFERENCES_TOLD);
                told.push(format!(
                    "by the {name}, {}{}",
                    wrong.join(", "),
                    if more > 0 { format!(", and {more} more") } else { String::new() }
                ));
            }
        }
        told
    }
}

/// RFC 3339 in UTC.
pub fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}

/// Buckets whose exact users lie outside the bounds.
pub fn users_outside(answered: &Series, exact: &BTreeMap<i64, Bucket>) -> usize {
    let inside = |start: &i64, bucket: &Bucket| {
        answered
            .get(start)
            .is_some_and(|a| a.users.lower <= bucket.users as f64 && bucket.users as f64 <= a.users.upper)
    };
    exact.iter().filter(|(start, bucket)| !inside(start, bucket)).count()
}

async fn series(api: &Api, span: (i64, i64), granularity: &str, bucket_ms: i64) -> Result<Series> {
    let (start, end) = widen(span, bucket_ms);
    let mut series = Series::new();
    let mut from = start;
    while from < end {
        let to = end.min(from + BUCKETS_PER_QUESTION * bucket_ms);
        for row in api.ask(&Question::of(&["events", "users"], from, to, granularity)).await?.results {
            series.insert(row.time.as_millisecond(), answered(&row)?);
        }
        from = to;
    }
    Ok(series)
}

fn answered(row: &Row) -> Result<Answered> {
    let users = row.get("users").ok_or_else(|| Failure("a bucket with events has no users".into()))?;
    Ok(Answered { events: row.count("events"), users })
}

fn widen((start, end): (i64, i64), to: i64) -> (i64, i64) {
    (start.div_euclid(to) * to, (end + to - 1).div_euclid(to) * to)
}
