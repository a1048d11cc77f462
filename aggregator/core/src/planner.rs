//! The planner: which cube and which tiers answer a question.

use catchment_cells::cube;
use catchment_cells::key::{Tier, Values};
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::question::{Question, Stat};
use crate::rollup;

/// A cube that a client has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cube {
    /// Its name.
    pub name: Box<str>,
    /// Its dimensions, in the order of a cell's values.
    pub dimensions: Vec<Box<str>>,
    /// Whether its measures carry a digest.
    pub digest: bool,
}

/// How a question is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The question.
    pub question: Question,
    /// The cube whose cells answer it.
    pub cube: Cube,
    /// Which tier covers which time: ascending, without a gap.
    pub spans: Vec<Span>,
    /// The zone whose days and hours count.
    pub zone: TimeZone,
}

/// A stretch of time that one tier covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The tier.
    pub tier: Tier,
    /// The first bucket, as a minute.
    pub from: i64,
    /// The minute after the last bucket.
    pub to: i64,
}

/// Why no plan answers a question.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// No cube has what it takes.
    #[error("no cube covers the question: declare one with the dimensions [{}]{}", dimensions.join(", "), digest_hint(*digest))]
    NoCube {
        /// The dimensions of the cube to declare.
        dimensions: Vec<String>,
        /// Whether it needs digests.
        digest: bool,
    },
    /// What was received and what happened are kept apart.
    #[error("received metrics have a question of their own: ask them without metrics of events")]
    Mixed,
}

fn digest_hint(digest: bool) -> &'static str {
    if digest { " and digests" } else { "" }
}

impl Cube {
    /// The cubes that every client has.
    pub fn defaults() -> impl Iterator<Item = Cube> {
        cube::DEFAULT.iter().map(Cube::from)
    }

    /// Where a dimension is among a cell's values.
    pub fn index(&self, dimension: &str) -> Option<usize> {
        self.dimensions.iter().position(|name| **name == *dimension)
    }
}

impl From<&cube::Cube> for Cube {
    fn from(cube: &cube::Cube) -> Self {
        Cube {
            name: cube.name.into(),
            dimensions: cube.dimensions.iter().map(|&name| name.into()).collect(),
            digest: cube.digest,
        }
    }
}

impl Plan {
    /// Plans a question over the default cubes and those that the client has beside them.
    pub fn new(question: Question, own: &[Cube], zone: &TimeZone) -> Result<Plan, PlanError> {
        let received = question.metrics[0].is_received();
        if question.metrics.iter().any(|metric| metric.is_received() != received) {
            return Err(PlanError::Mixed);
        }
        let mut needed: Vec<&str> = Vec::new();
        let only = question.metrics.iter().filter_map(|metric| metric.only.as_ref().map(|(name, _)| *name));
        let filters = question.filters.iter().map(|(name, _)| name.as_str());
        for name in question.group_by.as_deref().into_iter().chain(filters).chain(only) {
            if !needed.contains(&name) {
                needed.push(name);
            }
        }
        let digest = question.metrics.iter().any(|metric| matches!(metric.stat, Stat::Quantile(..)));
        let candidates: Vec<Cube> = match received {
            true => vec![Cube::from(&cube::RECEIVED)],
            false => Cube::defaults().chain(own.iter().cloned()).collect(),
        };
        let covering = candidates
            .into_iter()
            .filter(|cube| (cube.digest || !digest) && needed.iter().all(|dimension| cube.index(dimension).is_some()));
        // The smallest; among equals the first, which is a default one.
        let Some(cube) = covering.min_by_key(|cube| cube.dimensions.len()) else {
            let dimensions = needed.into_iter().map(str::to_owned).collect();
            return Err(PlanError::NoCube { dimensions, digest });
        };
        let mut spans = Vec::new();
        cover(question.granularity.tier(), question.start, question.end, zone, &mut spans);
        Ok(Plan { question, cube, spans, zone: zone.clone() })
    }

    /// The coarsest tier that the answer is read from.
    pub fn tier(&self) -> Tier {
        self.spans.iter().map(|span| span.tier).max().unwrap_or(Tier::Minute)
    }

    /// Whether a cell passes the question's filters.
    pub(crate) fn lets_in(&self, values: &Values) -> bool {
        self.question.filters.iter().all(|(dimension, value)| self.value(values, dimension) == Some(value))
    }

    /// A cell's value of a dimension.
    pub(crate) fn value<'a>(&self, values: &'a Values, dimension: &str) -> Option<&'a str> {
        self.cube.index(dimension).and_then(|index| values.get(index)?.as_deref())
    }
}

/// Covers `from..to` with whole buckets of the tier, and the edges with those of finer ones.
fn cover(tier: Tier, from: i64, to: i64, zone: &TimeZone, spans: &mut Vec<Span>) {
    if from >= to {
        return;
    }
    let finer = match tier {
        Tier::Minute => return spans.push(Span { tier, from, to }),
        Tier::Hour => Tier::Minute,
        Tier::Day => Tier::Hour,
    };
    let (first, last) = (rollup::ceil(tier, from, zone), rollup::floor(tier, to, zone));
    if first < last {
        cover(finer, from, first, zone, spans);
        spans.push(Span { tier, from: first, to: last });
        cover(finer, last, to, zone, spans);
    } else {
        cover(finer, from, to, zone, spans);
    }
}
