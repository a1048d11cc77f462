//! Metrics: a question's words, and what each says of cells.

use thiserror::Error;

use crate::estimate::Estimate;
use crate::key::is_name;
use crate::limits::{NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// A figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Its name in the question and in the answer.
    pub name: String,
    /// What it says.
    pub stat: Stat,
    /// The one value of a dimension that it is about, beside the question's filters.
    pub only: Option<(&'static str, String)>,
    /// What it is divided by, in a ratio.
    pub over: Option<Box<Metric>>,
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
        let metric = |stat, only| Ok(Metric { name: text.into(), stat, only, over: None });
        // The front of a text, for an error that repeats it.
        let front = || text.chars().take(NAME_BYTES_MAX).collect::<String>();
        let unknown = || Err(UnknownMetric(format!("there is no metric {}", front())));
        let star = |name: &str| match name.strip_suffix('*') {
            None => (text == name).then_some(""),
            Some(name) => text.strip_prefix(name).filter(|star| !star.is_empty()),
        };
        let ratio = RATIOS.iter().find_map(|(name, upper, lower)| Some((star(name)?, upper, lower)));
        if let Some((star, upper, lower)) = ratio {
            let upper = Metric::parse(&upper.replace('*', star))?;
            return Ok(Metric { name: text.into(), over: Some(Metric::parse(lower)?.into()), ..upper });
        }
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

    /// Itself and, in a ratio, what it is divided by.
    pub fn terms(&self) -> impl Iterator<Item = &Metric> {
        std::iter::once(self).chain(self.over.as_deref())
    }

    /// Its figure, from that of what is divided and, in a ratio, that of what it is divided by.
    pub fn ratio(&self, figure: Estimate, over: Option<Option<Estimate>>) -> Option<Estimate> {
        let (Some(over), Some(metric)) = (over, &self.over) else { return Some(figure) };
        let ratio = figure.over(over?)?;
        // Of the same kind, they are a part and its whole.
        let most = if self.stat == metric.stat { 1.0 } else { f64::INFINITY };
        let Estimate { value, lower, upper, exact } = ratio;
        Some(Estimate { value: value.min(most), lower: lower.min(most), upper: upper.min(most), exact })
    }

    /// Whether it is about what was received, and not about events.
    pub fn is_received(&self) -> bool {
        self.only.as_ref().is_some_and(|(dimension, _)| *dimension == "reason")
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
            let metric = Metric::parse(name).unwrap();
            let (upper, lower) = (Metric::parse(upper).unwrap(), Metric::parse(lower).unwrap());
            assert_eq!(metric, Metric { name: name.into(), over: Some(lower.into()), ..upper }, "{name}");
            assert_eq!(metric.terms().count(), 2);
        }
        for name in ["error_rate:", "error_rate:x", "revenue_per_user", "revenue_per_user:", "conversion_rate:"] {
            assert!(Metric::parse(name).is_err(), "{name}");
        }
        for (_, upper, lower) in RATIOS {
            let parse = |name: &str| Metric::parse(&name.replace('*', "x")).unwrap();
            assert_eq!((parse(upper).over, parse(lower).over), (None, None), "{upper} / {lower}");
        }
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
