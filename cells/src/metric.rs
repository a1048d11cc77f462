//! Metrics: a question's words, and what each says of cells.

use thiserror::Error;

use crate::estimate::Estimate;
use crate::key::is_name;
use crate::limits::{NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// What cells say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Its name in the question and in the answer.
    pub name: String,
    /// What it says.
    pub stat: Stat,
    /// The one value of a dimension that it is about, beside the question's filters.
    pub only: Option<(&'static str, String)>,
}

/// A figure that is asked for: of a metric, or the ratio of two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Its name in the question and in the answer.
    pub name: String,
    /// What it is of.
    pub metric: Metric,
    /// What that is divided by, in a ratio.
    pub over: Option<Metric>,
}

/// Users: of the last five minutes, where a question says no time.
pub const ACTIVE_USERS: &str = "active_users";

/// The ratios: a name, and what is divided by what. The star is what follows the name's colon.
const RATIOS: &[(&str, &str, &str)] = &[
    ("error_rate", "count:error", "events"),
    ("conversion_rate", "users:revenue", "users"),
    ("conversion_rate:*", "users:*", "users"),
    ("revenue_per_user:*", "sum:revenue_*", "users"),
    ("views_per_user", "page_views", "users"),
    ("events_per_user", "events", "users"),
];

/// What a figure says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stat {
    /// How many events, or for `received` how many of what came in.
    Count,
    /// How many users.
    Users,
    /// The sum of a measure.
    Sum(String),
    /// Its mean.
    Avg(String),
    /// Its least value.
    Min(String),
    /// Its greatest value.
    Max(String),
    /// Its quantile, in hundredths.
    Quantile(String, u8),
}

/// A text that names no metric, said as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct UnknownMetric(String);

impl Metric {
    /// Reads a metric's name.
    pub fn parse(text: &str) -> Result<Metric, UnknownMetric> {
        let metric = |stat, only| Ok(Metric { name: text.into(), stat, only });
        // The front of a text, for an error that repeats it.
        let front = || text.chars().take(NAME_BYTES_MAX).collect::<String>();
        let unknown = || Err(UnknownMetric(format!("there is no metric {}", front())));
        match text.split_once(':') {
            None => match text {
                "events" => metric(Stat::Count, None),
                "page_views" => metric(Stat::Count, Some(("event_type", "page_view".into()))),
                "users" | ACTIVE_USERS => metric(Stat::Users, None),
                _ => unknown(),
            },
            Some(("count", value)) if is_value(value) => metric(Stat::Count, Some(("event_type", value.into()))),
            Some(("users", value)) if is_value(value) => metric(Stat::Users, Some(("event_type", value.into()))),
            Some(("received", reason)) if is_name(reason) => metric(Stat::Count, Some(("reason", reason.into()))),
            Some((stat, measure)) if is_name(measure) => {
                let measure = measure.to_owned();
                let stat = match stat {
                    "sum" => Stat::Sum(measure),
                    "avg" => Stat::Avg(measure),
                    "min" => Stat::Min(measure),
                    "max" => Stat::Max(measure),
                    _ => match stat.strip_prefix('p').and_then(hundredths) {
                        Some(hundredths) => Stat::Quantile(measure, hundredths),
                        None => return unknown(),
                    },
                };
                metric(stat, None)
            }
            Some(_) => Err(UnknownMetric(format!("{} has no name or value behind its colon", front()))),
        }
    }

    /// Whether it is about what was received, and not about events.
    pub fn is_received(&self) -> bool {
        self.only.as_ref().is_some_and(|(dimension, _)| *dimension == "reason")
    }
}

impl Figure {
    /// Reads a ratio's name, or a metric's.
    pub fn parse(text: &str) -> Result<Figure, UnknownMetric> {
        let star = |name: &str| match name.strip_suffix('*') {
            None => (text == name).then_some(""),
            Some(name) => text.strip_prefix(name).filter(|star| !star.is_empty()),
        };
        let ratio = RATIOS.iter().find_map(|(name, metric, over)| Some((star(name)?, metric, over)));
        let (metric, over) = match ratio {
            None => (Metric::parse(text)?, None),
            Some((star, metric, over)) => (Metric::parse(&metric.replace('*', star))?, Some(Metric::parse(over)?)),
        };
        Ok(Figure { name: text.into(), metric, over })
    }

    /// Its metric and, in a ratio, what that is divided by.
    pub fn metrics(&self) -> impl Iterator<Item = &Metric> {
        std::iter::once(&self.metric).chain(&self.over)
    }

    /// What it comes to, from what its metric says and, in a ratio, what that is divided by says.
    pub fn estimate(&self, said: Option<Estimate>, over: Option<Estimate>) -> Option<Estimate> {
        let Some(metric) = &self.over else { return said };
        let ratio = said?.over(over?)?;
        // Of the same kind, they are a part and its whole.
        let most = if self.metric.stat == metric.stat { 1.0 } else { f64::INFINITY };
        let Estimate { value, lower, upper, exact } = ratio;
        Some(Estimate { value: value.min(most), lower: lower.min(most), upper: upper.min(most), exact })
    }
}

/// A number from 1 to 99, written in one way.
fn hundredths(text: &str) -> Option<u8> {
    text.parse().ok().filter(|number| (1..=99).contains(number) && !text.starts_with(['0', '+']))
}

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= VALUE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_other_metrics() {
        for (name, upper, lower) in [
            ("error_rate", "count:error", "events"),
            ("conversion_rate", "users:revenue", "users"),
            ("conversion_rate:sign_up:pro", "users:sign_up:pro", "users"),
            ("revenue_per_user:EUR", "sum:revenue_EUR", "users"),
        ] {
            let metric = |name| Metric::parse(name).unwrap();
            let figure = Figure { name: name.into(), metric: metric(upper), over: Some(metric(lower)) };
            assert_eq!(Figure::parse(name), Ok(figure), "{name}");
        }
        for name in ["error_rate:", "error_rate:x", "revenue_per_user", "revenue_per_user:", "conversion_rate:"] {
            assert!(Figure::parse(name).is_err(), "{name}");
        }
        for (name, upper, lower) in RATIOS {
            assert!(Metric::parse(name).is_err(), "{name} is one word");
            assert!(Metric::parse(&upper.replace('*', "x")).is_ok() && Metric::parse(lower).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_part_is_no_more_than_its_whole() {
        let users = |value| Estimate { value, lower: value * 0.9, upper: value * 1.1, exact: false };
        let figure = |name, (of, over)| Figure::parse(name).unwrap().estimate(of, over);
        let some = |of, over| (Some(users(of)), Some(users(over)));
        assert_eq!(figure("conversion_rate", some(100.0, 100.0)).unwrap().upper, 1.0);
        assert!(figure("views_per_user", some(100.0, 50.0)).unwrap().upper > 2.0);
        assert_eq!(figure("views_per_user", (None, Some(users(1.0)))), None);
        assert_eq!(figure("views_per_user", (Some(users(1.0)), None)), None);
        assert_eq!(figure("users", (Some(users(5.0)), None)), Some(users(5.0)));
    }

    #[test]
    fn any_hundredth_is_a_quantile() {
        for n in 1..=99 {
            assert_eq!(Metric::parse(&format!("p{n}:x")).unwrap().stat, Stat::Quantile("x".into(), n));
        }
        for name in ["p0:x", "p100:x", "p05:x", "p+5:x", "p:x", "p99.9:x", "p256:x"] {
            assert!(Metric::parse(name).is_err(), "{name}");
        }
    }
}
