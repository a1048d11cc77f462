//! Metrics: a question's words, and what each says of cells.

use thiserror::Error;

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
}

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
                "users" => metric(Stat::Users, None),
                _ => unknown(),
            },
            Some(("count", value)) if is_value(value) => metric(Stat::Count, Some(("event_type", value.into()))),
            Some(("received", reason)) if is_name(reason) => metric(Stat::Count, Some(("reason", reason.into()))),
            Some((stat, measure)) if is_name(measure) => {
                let measure = measure.to_owned();
                let stat = match stat {
                    "sum" => Stat::Sum(measure),
                    "avg" => Stat::Avg(measure),
                    "min" => Stat::Min(measure),
                    "max" => Stat::Max(measure),
                    "p50" => Stat::Quantile(measure, 50),
                    "p95" => Stat::Quantile(measure, 95),
                    "p99" => Stat::Quantile(measure, 99),
                    _ => return unknown(),
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

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= VALUE_BYTES_MAX
}
