//! What Catchment tells: of one question, of several at once, or the cells that answer one.

use std::fmt;

use catchment_cells::merged::Merged;
use catchment_cells::sum::Parts;
use catchment_cells::{Cell, metric};
use catchment_harness::{Answer, Api, Failure, Random, Result, Row, Value};
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::asked::{Asked, Facts, Granularity, MINUTE_MS, Order};

/// Questions of one POST, at most.
const SEVERAL_MAX: u64 = 6;

/// What is asked at a time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    /// A question.
    One(Asked),
    /// The cells that answer one: as they come, or merged further into one for each group.
    Cells(Asked, bool),
    /// Several questions; one that is none is refused by itself.
    Several(Vec<Option<Asked>>),
}

/// What is told of a question.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) asked: Asked,
    /// The minutes that it is about.
    pub(crate) minutes: (i64, i64),
    pub(crate) answer: Answer,
    /// How its groups come.
    pub(crate) order: Order,
    /// Of the period before: its figures, and the changes since, in the rows of the answer.
    pub(crate) before: Option<[Answer; 2]>,
}

impl Request {
    /// Makes one up.
    pub(crate) fn random(random: &mut Random, facts: &Facts) -> Request {
        let asked = Asked::random(random, facts);
        match random.between(0, 12) {
            0 => {
                let more = random.between(1, SEVERAL_MAX);
                let mut all = vec![Some(asked)];
                all.extend((0..more).map(|_| (random.between(0, 8) > 0).then(|| Asked::random(random, facts))));
                Request::Several(all)
            }
            1..4 if asked.is_of_cells() => Request::Cells(asked, random.between(0, 2) == 0),
            _ => Request::One(asked),
        }
    }

    /// Asks, and says what is told of each question, or why nothing is.
    pub(crate) async fn ask(&self, api: &Api) -> Result<Vec<std::result::Result<Told, String>>> {
        loop {
            let minute = || Timestamp::now().as_millisecond().div_euclid(MINUTE_MS);
            let before = minute();
            let told = self.told(api, before * MINUTE_MS).await;
            // A question of the last minutes may have been about others where one has just begun.
            if minute() == before {
                return told;
            }
        }
    }

    async fn told(&self, api: &Api, now_ms: i64) -> Result<Vec<std::result::Result<Told, String>>> {
        let read =
            |asked: &Asked, answer: Json| Told::read(asked, asked.minutes(now_ms), answer).map_err(|failure| failure.0);
        match self {
            Request::One(asked) => {
                let (status, body) = api.raw(&asked.question()).await?;
                if status != 200 {
                    return Ok(vec![Err(format!("{status}: {body}"))]);
                }
                let answer = serde_json::from_str(&body).map_err(Failure::at("reading an answer"))?;
                Ok(vec![read(asked, answer)])
            }
            Request::Cells(asked, merges) => {
                let cells = api.cells(&asked.question()).await;
                let told = cells.and_then(|bytes| Told::of_cells(asked, asked.minutes(now_ms), &bytes, *merges));
                Ok(vec![told.map_err(|failure| failure.0)])
            }
            Request::Several(all) => {
                let none = json!({"metric": "none", "last": "1d"});
                let questions: Vec<Json> =
                    all.iter().map(|asked| asked.as_ref().map_or(none.clone(), Asked::json)).collect();
                let mut told = api.several(&json!({ "questions": questions })).await?;
                let answers = told["answers"].as_array_mut().map(std::mem::take).unwrap_or_default();
                if answers.len() != all.len() {
                    return Ok(vec![Err(format!("{} answers to {} questions", answers.len(), all.len()))]);
                }
                let each =
                    all.iter().zip(answers).filter_map(|(asked, answer)| match (asked, &answer["problem"]["status"]) {
                        (Some(asked), Json::Null) => Some(read(asked, answer)),
                        (None, status) if *status == 400 => None,
                        _ => Some(Err(answer.to_string())),
                    });
                Ok(each.collect())
            }
        }
    }
}

impl Told {
    fn read(asked: &Asked, minutes: (i64, i64), mut answer: Json) -> Result<Told> {
        let before = asked.compared.then(|| [part(&answer, "previous"), part(&answer, "change")]);
        if asked.compared {
            // A figure that there is none of stands beside that of the period before.
            each_figure(&mut answer, |figure| {
                if figure["value"].is_null() {
                    *figure = Json::Null;
                }
            });
        }
        let read = |answer| serde_json::from_value(answer).map_err(Failure::at("reading an answer"));
        let before = match before {
            Some([previous, change]) => Some([read(previous)?, read(change)?]),
            None => None,
        };
        Ok(Told { asked: asked.clone(), minutes, answer: read(answer)?, order: asked.order(), before })
    }

    /// As a program does that merges further.
    fn of_cells(asked: &Asked, minutes: (i64, i64), bytes: &[u8], merges: bool) -> Result<Told> {
        let Merged { cube, tier, start, end, dimensions, mut rows, .. } =
            Merged::decode(bytes).map_err(Failure::at("reading cells"))?;
        let of = (start, end, dimensions.iter().map(|name| &**name).collect::<Vec<_>>());
        if of != (minutes.0, minutes.1, asked.group_by.iter().map(String::as_str).collect()) {
            return Err(Failure(format!("cells of {of:?}")));
        }
        // Of groups in order, if they come with their buckets.
        let mut asked = asked.clone();
        if merges {
            asked.granularity = Granularity::All;
            rows.iter_mut().for_each(|row| row.bucket = start);
            let is_rest = |group: &[Box<str>]| group.first().is_some_and(|value| **value == *crate::sql::OTHER);
            rows.sort_by(|a, b| is_rest(&a.group).cmp(&is_rest(&b.group)).then_with(|| a.group.cmp(&b.group)));
            rows.dedup_by(|next, kept| {
                let is_same = next.group == kept.group;
                if is_same {
                    kept.cell.merge(&next.cell);
                }
                is_same
            });
        }
        let metrics = asked.metrics.iter().map(|metric| metric::Metric::parse(&metric.name()));
        let metrics: Vec<_> = metrics.collect::<std::result::Result<_, _>>().map_err(Failure::at("a metric"))?;
        let parts = Parts::new(&metrics);
        let figures = |cell: &Cell| {
            let mut sums = parts.zeros();
            parts.iter().zip(&mut sums).for_each(|(part, sum)| part.add(sum, cell));
            let is_there = parts.iter().any(|part| part.is_in(cell));
            is_there.then(|| parts.figures(&sums))
        };
        let rows = rows.into_iter().filter_map(|row| {
            let value = |estimate: catchment_cells::Estimate| {
                let catchment_cells::Estimate { value, lower, upper, exact } = estimate;
                Value { value, lower, upper, exact }
            };
            // A cell may have none of what is asked.
            let figures = figures(&row.cell)?.into_iter().map(|figure| figure.map(value));
            let time = Timestamp::from_second(row.bucket * 60).unwrap_or_default();
            let group = (!row.group.is_empty()).then(|| row.group.join("\u{1}"));
            Some(Row { time, group, values: asked.metrics.iter().map(|metric| metric.name()).zip(figures).collect() })
        });
        let answer = Answer { results: rows.collect(), meta: json!({"cube": cube, "tier": format!("{tier:?}")}) };
        Ok(Told { asked, minutes, answer, order: Order { metric: None, ascending: true }, before: None })
    }
}

/// What stands beside each figure, as an answer.
fn part(answer: &Json, name: &str) -> Json {
    let mut answer = answer.clone();
    each_figure(&mut answer, |figure| *figure = figure[name].take());
    answer
}

fn each_figure(answer: &mut Json, mut change: impl FnMut(&mut Json)) {
    let rows = answer["results"].as_array_mut().into_iter().flatten();
    let values = rows.filter_map(|row| row["values"].as_object_mut()).flat_map(|values| values.values_mut());
    values.filter(|figure| !figure.is_null()).for_each(&mut change);
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::One(asked) => f.write_str(&asked.question().text()),
            Request::Cells(asked, merges) => {
                write!(f, "cells{} of {}", if *merges { ", merged" } else { "" }, asked.question().text())
            }
            Request::Several(all) => write!(f, "{}", json!(all.iter().flatten().map(Asked::json).collect::<Vec<_>>())),
        }
    }
}
