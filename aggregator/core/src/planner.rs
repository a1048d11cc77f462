//! The planner: which cube and which tiers answer a question.

use std::collections::BTreeSet;
use std::sync::Arc;

use catchment_cells::codec::{DecodeError, Reader, put_str, put_uv};
use catchment_cells::key::{Tier, is_name};
use catchment_cells::limits::{CUBE_DIMENSIONS_MAX, NAME_BYTES_MAX};
use catchment_cells::{ClientId, cube};
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::filter::{Filter, Test, Truth};
use crate::question::{Figure, Question, Stat};
use crate::rollup;
use crate::tiers::{Tiers, Zone};

/// The version byte of a cube's row in a store.
const ROW_VERSION: u8 = 1;
/// A day that has more minutes than any that clock changes stretch.
const DAY_MINUTES_MAX: i64 = 27 * 60;
/// The dimension that every event has.
const OF_ALL: &str = "event_type";

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
    /// The question's filter, by places of a cell's values.
    filter: Option<Filter<usize>>,
    /// The places of the values that tell groups apart.
    pub(crate) group_by: Vec<usize>,
    /// Which tier covers which time: ascending, without a gap.
    pub spans: Vec<Span>,
    /// The zone whose days and hours count.
    pub zone: TimeZone,
    /// What there is of the client's tiers.
    pub tiers: Arc<Tiers>,
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
    /// No cube could.
    #[error("the question is about more than {CUBE_DIMENSIONS_MAX} dimensions, which no cube has: leave some out")]
    TooManyDimensions,
    /// What was received is told apart by its reason alone.
    #[error("received metrics have no dimension but reason")]
    OfReceived,
    /// What it takes is no longer there.
    #[error(
        "the question is about time of which {tier}s are not kept any more, and needs them: {kept}. Ask for coarser buckets, or from the start of one that is kept on"
    )]
    NotKept {
        /// The tier that is needed.
        tier: &'static str,
        /// What is kept.
        kept: String,
    },
}

fn digest_hint(digest: bool) -> &'static str {
    if digest { " and digests" } else { "" }
}

impl Cube {
    /// The cubes that every client has.
    pub fn defaults() -> impl Iterator<Item = Cube> {
        cube::DEFAULT.iter().map(Cube::from)
    }

    /// A client's row of it in a store: the key `client ‖ 0x00 ‖ name`, the value `u8 version = 1 ‖ uv n ‖ n × str dimension`.
    /// Whether there are digests isn't in it: a cube beside the default ones is known without.
    pub fn encode_row(&self, client: &ClientId) -> (Vec<u8>, Vec<u8>) {
        let mut value = vec![ROW_VERSION];
        put_uv(&mut value, self.dimensions.len() as u64);
        self.dimensions.iter().for_each(|dimension| put_str(&mut value, dimension));
        ([client.as_str(), &self.name].join("\0").into(), value)
    }

    /// Reads the row.
    pub fn decode_row(key: &[u8], value: &[u8]) -> Result<(ClientId, Cube), DecodeError> {
        let key = str::from_utf8(key).map_err(|_| DecodeError::Malformed("key not UTF-8"))?;
        let (client, name) = key.split_once('\0').ok_or(DecodeError::Malformed("key"))?;
        let client = ClientId::new(client).map_err(|_| DecodeError::Malformed("client id"))?;
        let mut reader = Reader::new(value);
        match reader.u8()? {
            ROW_VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let n = reader.count(1)?;
        if n > CUBE_DIMENSIONS_MAX {
            return Err(DecodeError::Malformed("too many dimensions"));
        }
        let dimensions: Vec<Box<str>> =
            (0..n).map(|_| Ok(reader.str(NAME_BYTES_MAX)?.into())).collect::<Result<_, DecodeError>>()?;
        reader.finish()?;
        if !is_name(name) || !dimensions.iter().all(|dimension| is_name(dimension)) {
            return Err(DecodeError::Malformed("a cube's or a dimension's name"));
        }
        Ok((client, Cube { name: name.into(), dimensions, digest: false }))
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
    /// Plans a question of a client all of whose hours and days are cut on a clock, and kept.
    pub fn new(question: Question, own: &[Cube], zone: &TimeZone) -> Result<Plan, PlanError> {
        Plan::of(question, own, &Arc::new(Tiers::on(Zone::from(zone.clone()))))
    }

    /// Plans a question over the default cubes and those that the client has beside them.
    pub fn of(question: Question, own: &[Cube], tiers: &Arc<Tiers>) -> Result<Plan, PlanError> {
        let received = question.metrics[0].metric.is_received();
        let terms = || question.metrics.iter().flat_map(Figure::metrics);
        if terms().any(|metric| metric.is_received() != received) {
            return Err(PlanError::Mixed);
        }
        let only = terms().filter_map(|metric| metric.only.as_ref().map(|(name, _)| *name));
        let filtered = question.filter.iter().flat_map(Filter::dimensions).map(|name| &**name);
        // An event with none of a cube's dimensions is not in it: to count those that lack what is filtered, a cube must have one
        // that no event lacks.
        let lets_any_in =
            question.filter.as_ref().is_some_and(|filter| filter.of(&|_, test| test.of(None)) != Truth::No);
        let of_all = (lets_any_in && question.group_by.is_empty() && !received).then_some(OF_ALL);
        let mut needed: Vec<&str> = Vec::new();
        for name in question.group_by.iter().map(String::as_str).chain(filtered).chain(only).chain(of_all) {
            if !needed.contains(&name) {
                needed.push(name);
            }
        }
        let digest = terms().any(|metric| matches!(metric.stat, Stat::Quantile(..)));
        let candidates: Vec<Cube> = match received {
            true => vec![Cube::from(&cube::RECEIVED)],
            false => Cube::defaults().chain(own.iter().cloned()).collect(),
        };
        let covering = candidates.into_iter().filter(|cube| {
            // What bots do is in cubes of their own.
            (cube.digest || !digest)
                && cube.index(cube::BOT).is_some() == needed.contains(&cube::BOT)
                && needed.iter().all(|dimension| cube.index(dimension).is_some())
        });
        // The smallest of those that every client has, since what a client declared has nothing of the time before.
        let is_own = |cube: &Cube| !cube::DEFAULT.iter().any(|default| *default.name == *cube.name);
        let Some(cube) = covering.min_by_key(|cube| (is_own(cube), cube.dimensions.len())) else {
            if received {
                return Err(PlanError::OfReceived);
            }
            if needed.len() > CUBE_DIMENSIONS_MAX {
                return Err(PlanError::TooManyDimensions);
            }
            let dimensions = needed.into_iter().map(str::to_owned).collect();
            return Err(PlanError::NoCube { dimensions, digest });
        };
        let group_by = question.group_by.iter().filter_map(|name| cube.index(name)).collect();
        let filter = question.filter.as_ref().and_then(|filter| filter.named(&|name| cube.index(name)));
        let spans = cover_question(&question, &cube.name, tiers)?;
        Ok(Plan { question, cube, filter, group_by, spans, zone: tiers.time_zone().clone(), tiers: tiers.clone() })
    }

    /// The plan of the same question where the client's tiers are others by now; its clock must be the same.
    pub fn over(&self, tiers: &Arc<Tiers>) -> Result<Plan, PlanError> {
        let spans = cover_question(&self.question, &self.cube.name, tiers)?;
        Ok(Plan { spans, tiers: tiers.clone(), ..self.clone() })
    }

    /// The plan of the same question at another time: a question of the last so many units has moved.
    pub fn at(&self, now: i64) -> Result<Plan, PlanError> {
        let mut plan = self.clone();
        if let Some(last) = plan.question.last {
            (plan.question.start, plan.question.end) = last.range(now, &self.zone);
        }
        plan.over(&self.tiers)
    }

    /// The plan of the same question about the period before, where it is compared with that.
    pub fn before(&self) -> Result<Option<Plan>, PlanError> {
        let Some(question) = self.question.of_before() else { return Ok(None) };
        Plan { question, ..self.clone() }.over(&self.tiers).map(Some)
    }

    /// The first minute that is read, and the one after the last.
    pub fn range(&self) -> (i64, i64) {
        (self.spans.first().map_or(self.question.start, |span| span.from), self.question.end)
    }

    /// The coarsest tier that the answer is read from.
    pub fn tier(&self) -> Tier {
        self.spans.iter().map(|span| span.tier).max().unwrap_or(Tier::Minute)
    }

    /// Whether a cell passes the question's filter, of which this says whether its value at a place is what a test asks for.
    pub(crate) fn lets_in(&self, is: impl Fn(usize, &Test) -> Truth) -> Truth {
        self.filter.as_ref().map_or(Truth::Yes, |filter| filter.of(&|place, test| is(*place, test)))
    }

    /// The dimensions that the answer tells apart: those of its groups, its filter and its metrics.
    pub fn told_apart(&self) -> BTreeSet<&str> {
        let question = &self.question;
        let only = question.metrics.iter().flat_map(Figure::metrics).filter_map(|metric| metric.only.as_ref());
        let filtered = question.filter.iter().flat_map(Filter::dimensions).map(|name| &**name);
        question.group_by.iter().map(String::as_str).chain(filtered).chain(only.map(|(name, _)| *name)).collect()
    }

    /// The minutes, half-open, that a cell of this bucket is of at most.
    pub(crate) fn minutes_of(&self, bucket: i64) -> (i64, i64) {
        let span = self.spans.iter().find(|span| (span.from..span.to).contains(&bucket));
        let end = match span.map_or(Tier::Minute, |span| span.tier) {
            // Of the clocks before, any day is shorter.
            Tier::Day if bucket < self.tiers.since() => bucket + DAY_MINUTES_MAX,
            Tier::Hour => bucket + rollup::minutes(Tier::Hour),
            tier => rollup::next(tier, bucket, &self.zone),
        };
        (bucket, end)
    }
}

/// A cell's value of a dimension, by its place.
pub(crate) fn value<T: AsRef<str>>(values: &[Option<T>], index: usize) -> Option<&str> {
    values.get(index)?.as_ref().map(AsRef::as_ref)
}

/// Covers all that a question reads: each of its buckets with whole ones of the tiers, on the clocks that these were cut on.
fn cover_question(question: &Question, cube: &str, tiers: &Tiers) -> Result<Vec<Span>, PlanError> {
    let zone = tiers.time_zone();
    let (mut from, to) = (question.reads_from(zone), question.end);
    let coarsest = question.granularity.tier((from, to), zone);
    let mut spans = Vec::new();
    for (earlier, until) in tiers.earlier() {
        let until = until.min(to);
        while from < until {
            let end = match coarsest {
                Tier::Minute => until,
                _ => {
                    let bucket = question.bucket(from, zone);
                    question.granularity.next(bucket, (question.start, to), zone).clamp(from + 1, until)
                }
            };
            cover(if coarsest == Tier::Minute { coarsest } else { Tier::Day }, from, end, earlier, &mut spans);
            from = end;
        }
    }
    let cut_from = tiers.cut_from(cube).clamp(from, to);
    cover(Tier::Minute, from, cut_from, zone, &mut spans);
    cover(coarsest, cut_from, to, zone, &mut spans);
    match spans.iter().find(|span| span.from < tiers.kept_from(span.tier)) {
        Some(span) => Err(PlanError::NotKept { tier: span.tier.name(), kept: tiers.kept() }),
        None => Ok(spans),
    }
}

/// Covers `from..to` with whole buckets of the tier, and the edges with those of finer ones.
fn cover(tier: Tier, from: i64, to: i64, zone: &TimeZone, spans: &mut Vec<Span>) {
    if from >= to {
        return;
    }
    let finer = match tier {
        Tier::Minute => return push(spans, Span { tier, from, to }),
        Tier::Hour => Tier::Minute,
        Tier::Day => Tier::Hour,
    };
    let (first, last) = (rollup::ceil(tier, from, zone), rollup::floor(tier, to, zone));
    if first < last {
        cover(finer, from, first, zone, spans);
        push(spans, Span { tier, from: first, to: last });
        cover(finer, last, to, zone, spans);
    } else {
        cover(finer, from, to, zone, spans);
    }
}

/// Adds a span, to the one before where that goes on.
fn push(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if (last.tier, last.to) == (span.tier, span.from) => last.to = span.to,
        _ => spans.push(span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(query: &str, own: &[Cube]) -> Result<Plan, PlanError> {
        let query = format!("{query}&start=2024-01-01&end=2024-01-02");
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        Plan::new(Question::parse(pairs, 0, &TimeZone::UTC).unwrap(), own, &TimeZone::UTC)
    }

    #[test]
    fn the_smallest_cube_answers() {
        for (query, cube) in [
            ("metric=events&metric=users&metric=p95:x", "total"),
            ("metric=page_views", "event_type"),
            ("metric=page_views&metric=p95:x", "event_type"),
            ("metric=events&group_by=page", "page"),
            ("metric=events&group_by=country", "country"),
            ("metric=events&group_by=utm_source", "source"),
            ("metric=page_views&group_by=country", "audience"),
            ("metric=events&group_by=country&filter=device:mobile", "audience"),
            ("metric=events&filter=event_type:buy", "event_type"),
            ("metric=events&group_by=os&filter=browser:Edge", "agent"),
            ("metric=users&group_by=channel", "channel"),
            ("metric=events&group_by=bot", "bot"),
            ("metric=page_views&filter=bot:Googlebot", "bot"),
            ("metric=error_rate", "event_type"),
            ("metric=events&group_by=country&group_by=device", "audience"),
            ("metric=events&filter=utm_source^x and referrer=y", "source"),
            // Events without a country are in no cube of countries.
            ("metric=events&filter=country=US", "country"),
            ("metric=events&filter=country!=US", "audience"),
            ("metric=events&filter=country!=US&group_by=country", "country"),
            ("metric=received:late", "received"),
            ("metric=received:late&group_by=reason", "received"),
        ] {
            assert_eq!(&*plan(query, &[]).unwrap().cube.name, cube, "{query}");
        }
    }

    #[test]
    fn what_no_cube_covers_names_the_one_to_declare() {
        for (query, dimensions, digest) in [
            ("metric=page_views&group_by=page", vec!["page", "event_type"], false),
            ("metric=events&group_by=colour&filter=page:/", vec!["colour", "page"], false),
            ("metric=p95:x&group_by=country", vec!["country"], true),
            ("metric=events&filter=page!=/", vec!["page", "event_type"], false),
            ("metric=events&filter=not (page=/ or plan=pro)", vec!["page", "plan", "event_type"], false),
        ] {
            let dimensions = dimensions.into_iter().map(str::to_owned).collect();
            assert_eq!(plan(query, &[]), Err(PlanError::NoCube { dimensions, digest }), "{query}");
        }
        assert_eq!(plan("metric=events&metric=received:late", &[]), Err(PlanError::Mixed));
        assert_eq!(plan("metric=received:late&group_by=page", &[]), Err(PlanError::OfReceived));
        let filters = (0..8).map(|n| format!("&filter=d{n}:x")).collect::<String>();
        assert_eq!(plan(&format!("metric=events&group_by=d9{filters}"), &[]), Err(PlanError::TooManyDimensions));
        let own = Cube { name: "views".into(), dimensions: vec!["page".into(), "event_type".into()], digest: false };
        assert_eq!(&*plan("metric=page_views&group_by=page", &[own]).unwrap().cube.name, "views");
    }

    #[test]
    fn a_question_of_people_has_no_cube_of_bots() {
        let cube = |name: &str, dimensions: &[&str]| {
            let dimensions = dimensions.iter().map(|&name| name.into()).collect();
            Cube { name: name.into(), dimensions, digest: false }
        };
        let own = [
            cube("bot_pages", &["bot", "page", "event_type"]),
            cube("views", &["page", "event_type", "country", "os"]),
        ];
        for (query, cube) in [
            ("metric=page_views&group_by=page", "views"),
            ("metric=page_views&group_by=page&filter=bot:Googlebot", "bot_pages"),
            ("metric=events&group_by=event_type", "event_type"),
        ] {
            assert_eq!(&*plan(query, &own).unwrap().cube.name, cube, "{query}");
        }
        assert!(plan("metric=page_views&group_by=page", &own[..1]).is_err());
    }

    #[test]
    fn tiers_are_as_coarse_as_edges_and_buckets_let_them() {
        let day = 24 * 60;
        for (granularity, from, to, expected) in [
            (Tier::Day, 0, 2 * day, vec![(Tier::Day, 0, 2 * day)]),
            (Tier::Hour, 0, 2 * day, vec![(Tier::Hour, 0, 2 * day)]),
            (Tier::Minute, 0, day, vec![(Tier::Minute, 0, day)]),
            (
                Tier::Day,
                day - 90,
                2 * day + 61,
                vec![
                    (Tier::Minute, day - 90, day - 60),
                    (Tier::Hour, day - 60, day),
                    (Tier::Day, day, 2 * day),
                    (Tier::Hour, 2 * day, 2 * day + 60),
                    (Tier::Minute, 2 * day + 60, 2 * day + 61),
                ],
            ),
            (
                Tier::Day,
                30,
                day - 30,
                vec![(Tier::Minute, 30, 60), (Tier::Hour, 60, day - 60), (Tier::Minute, day - 60, day - 30)],
            ),
            (Tier::Day, -30, -10, vec![(Tier::Minute, -30, -10)]),
        ] {
            let mut spans = Vec::new();
            cover(granularity, from, to, &TimeZone::UTC, &mut spans);
            let spans: Vec<_> = spans.into_iter().map(|span| (span.tier, span.from, span.to)).collect();
            assert_eq!(spans, expected, "{granularity:?} {from}..{to}");
        }
    }
}
