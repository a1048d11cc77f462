//! What is asked, and how it is made up from a seed.

use catchment_cells::cube;
use catchment_harness::{Question, Random};

pub(crate) const MINUTE_MS: i64 = 60_000;
const HOUR: i64 = 60;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Rows of an answer, at most, roughly.
const ROWS_MAX: i64 = 1_500;
const METRICS_MAX: usize = 5;

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    /// Each once; the first ranks the groups.
    pub(crate) metrics: Vec<Metric>,
    pub(crate) time: Time,
    pub(crate) granularity: Granularity,
    pub(crate) group_by: Option<String>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Metric {
    Events,
    PageViews,
    Users,
    /// Events of a type.
    Count(String),
    /// What was received, by reason.
    Received(String),
    /// Of a measure.
    Of(Stat, String),
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
    /// The last so many units of so many minutes, the present one included.
    Last(i64, i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granularity {
    All,
    Minutes(i64),
    Days(i64),
}

/// A dimension that must have a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) dimension: String,
    pub(crate) value: String,
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
            Metric::Received(reason) => format!("received:{reason}"),
            Metric::Of(stat, measure) => match stat {
                Stat::Sum => format!("sum:{measure}"),
                Stat::Avg => format!("avg:{measure}"),
                Stat::Min => format!("min:{measure}"),
                Stat::Max => format!("max:{measure}"),
                Stat::Quantile(hundredths) => format!("p{hundredths}:{measure}"),
            },
        }
    }

    /// The one value of a dimension that it counts.
    pub(crate) fn only(&self) -> Option<(&'static str, &str)> {
        match self {
            Metric::PageViews => Some(("event_type", "page_view")),
            Metric::Count(event_type) => Some(("event_type", event_type)),
            Metric::Received(reason) => Some(("reason", reason)),
            _ => None,
        }
    }
}

impl Asked {
    /// The question as it is sent.
    pub(crate) fn question(&self) -> Question {
        let names: Vec<String> = self.metrics.iter().map(Metric::name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let granularity = match self.granularity {
            Granularity::All => "all".into(),
            Granularity::Minutes(n) if n % HOUR == 0 => format!("{}h", n / HOUR),
            Granularity::Minutes(n) => format!("{n}m"),
            Granularity::Days(n) => format!("{n}d"),
        };
        let mut question = match self.time {
            Time::Between(start, end) => Question::of(&names, start * MINUTE_MS, end * MINUTE_MS, &granularity),
            Time::Last(n, unit) => {
                let unit = match unit {
                    DAY => "d",
                    HOUR => "h",
                    _ => "m",
                };
                Question::last(&names, &format!("{n}{unit}"), &granularity)
            }
        };
        if let Some(dimension) = &self.group_by {
            question = question.with("group_by", dimension);
        }
        for Filter { dimension, value } in &self.filters {
            question = question.with("filter", format!("{dimension}:{value}"));
        }
        match self.limit {
            Some(limit) => question.with("limit", limit),
            None => question,
        }
    }

    /// The first minute, and the one after the last, at a time in ms.
    pub(crate) fn minutes(&self, now_ms: i64) -> (i64, i64) {
        match self.time {
            Time::Between(start, end) => (start, end),
            Time::Last(n, unit) => {
                let end = now_ms.div_euclid(MINUTE_MS).div_euclid(unit) * unit + unit;
                (end - n * unit, end)
            }
        }
    }

    /// Groups that are told apart.
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(10)
    }

    /// Makes one up that some cube answers.
    pub(crate) fn random(random: &mut Random, facts: &Facts) -> Asked {
        let mut needed = Vec::new();
        let group_by = one_in(random, 2).then(|| pick(random, &facts.dimensions).0.clone());
        needed.extend(group_by.clone());
        let mut filters: Vec<Filter> = Vec::new();
        for _ in 0..random.between(0, 4) {
            let (dimension, values) = pick(random, &facts.dimensions);
            let known = filters.iter().any(|filter| filter.dimension == *dimension);
            if !known && is_covered(&needed, Some(dimension), false) {
                let value = if one_in(random, 20) { "(nobody's)".into() } else { pick(random, values).clone() };
                filters.push(Filter { dimension: dimension.clone(), value });
                needed.push(dimension.clone());
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
            Time::Last(n, unit) => (0, n * unit),
        };
        let groups = if group_by.is_some() { limit.unwrap_or(10) as i64 + 1 } else { 1 };
        let granularity = match facts.received {
            true => Granularity::All,
            false => Granularity::random(random, end - start, ROWS_MAX / groups.min(ROWS_MAX)),
        };
        Asked { metrics, time, granularity, group_by, filters, limit }
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
        let kinds = if facts.measures.is_empty() { 5 } else { 11 };
        match random.between(0, kinds) {
            0 => Metric::Events,
            1 => Metric::PageViews,
            2 => value(random, "event_type").map_or(Metric::Events, Metric::Count),
            3 | 4 => Metric::Users,
            kind => {
                let stat = match kind {
                    5 => Stat::Sum,
                    6 => Stat::Avg,
                    7 => Stat::Min,
                    8 => Stat::Max,
                    _ => Stat::Quantile(*pick(random, &[50, 95, 99])),
                };
                Metric::Of(stat, pick(random, &facts.measures).clone())
            }
        }
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
            return match random.between(0, 3) {
                0 => Time::Last(random.between(1, 1_441) as i64, 1),
                1 => Time::Last(random.between(1, 100) as i64, HOUR),
                _ => Time::Last(random.between(1, 40) as i64, DAY),
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
            let n = |random: &mut Random, to: u64| random.between(1, to) as i64;
            let (granularity, length) = match random.between(0, 8) {
                0 | 1 => break,
                2 => (Granularity::Minutes(1), 1),
                3 => {
                    let n = n(random, 1_441);
                    (Granularity::Minutes(n), n)
                }
                4 | 5 => {
                    let n = n(random, 25);
                    (Granularity::Minutes(n * HOUR), n * HOUR)
                }
                6 => (Granularity::Days(1), DAY),
                _ => {
                    let n = n(random, 367);
                    (Granularity::Days(n), n * DAY)
                }
            };
            if minutes / length < buckets_max {
                return granularity;
            }
        }
        Granularity::All
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
            measures: vec!["price".into()],
            live: true,
            received: false,
        }
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
            see(if asked.group_by.is_some() { "grouped" } else { "whole" });
            asked.filters.iter().for_each(|filter| see(&filter.dimension));
            see(match asked.time {
                Time::Last(_, 1) => "last minutes",
                Time::Last(_, HOUR) => "last hours",
                Time::Last(..) => "last days",
                Time::Between(start, _) if start % HOUR != 0 => "odd start",
                Time::Between(..) => "even start",
            });
            see(match asked.granularity {
                Granularity::All => "all",
                Granularity::Minutes(1) => "each minute",
                Granularity::Minutes(n) if n % HOUR != 0 => "minutes",
                Granularity::Minutes(_) => "hours",
                Granularity::Days(_) => "days",
            });
            let question = asked.question().text();
            assert!(question.contains("granularity=") && !question.contains(' '), "{question}");
        }
        assert_eq!(seen.len(), 11 + 2 + 3 + 5 + 5, "{seen:?}");
    }
}
