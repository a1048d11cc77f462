//! An answer as JSON, written row by row: there may be many, and a tree of each would cost more than its figures.

use catchment_cells::Estimate;
use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;

use crate::answer::Row;
use crate::question::Question;

/// An answer's text: what there is to say of it, and its rows.
pub fn answer(meta: &Value, rows: &[Row], question: &Question) -> serde_json::Result<String> {
    serde_json::to_string(&AnswerJson { meta, results: Results(rows, question) })
}

/// A minute as text; `None` beyond the calendar.
pub fn time(minute: i64) -> Option<String> {
    Timestamp::from_second(minute * 60).map(|time| time.to_string()).ok()
}

#[derive(serde::Serialize)]
struct AnswerJson<'a> {
    meta: &'a Value,
    results: Results<'a>,
}

struct Results<'a>(&'a [Row], &'a Question);

#[derive(serde::Serialize)]
struct ResultJson<'a> {
    time: Option<&'a str>,
    group: Group<'a>,
    values: Values<'a>,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Group<'a> {
    None,
    One(&'a str),
    Several(&'a [Box<str>]),
}

struct Values<'a>(&'a Row, &'a Question);

/// A metric's figure, and that of the period before where it is asked for.
#[derive(serde::Serialize)]
struct Figure {
    value: Option<Number>,
    lower: Option<Number>,
    upper: Option<Number>,
    exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Option<Box<Figure>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Option<Box<Figure>>>,
}

/// A whole number without a fraction, as far as it is one in every reader.
struct Number(f64);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Results(rows, question) = self;
        // Rows come bucket by bucket, and calendars are slow.
        let mut last: Option<(i64, Option<String>)> = None;
        let mut sequence = serializer.serialize_seq(Some(rows.len()))?;
        for row in *rows {
            if last.as_ref().is_none_or(|(bucket, _)| *bucket != row.bucket) {
                last = Some((row.bucket, time(row.bucket)));
            }
            let group = match &row.group[..] {
                [] => Group::None,
                [one] => Group::One(one),
                several => Group::Several(several),
            };
            let time = last.as_ref().and_then(|(_, time)| time.as_deref());
            sequence.serialize_element(&ResultJson { time, group, values: Values(row, question) })?;
        }
        sequence.end()
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Values(row, question) = self;
        let mut map = serializer.serialize_map(Some(row.figures.len()))?;
        for (index, (metric, now)) in question.metrics.iter().zip(&row.figures).enumerate() {
            let before = row.before.as_ref().map(|before| before.get(index).copied().flatten());
            let figure = match (now, before) {
                (None, None) => None,
                (now, None) => now.as_ref().map(Figure::of),
                (now, Some(before)) => Some(Figure::against(now.as_ref(), before.as_ref())),
            };
            map.serialize_entry(&metric.name, &figure)?;
        }
        map.end()
    }
}

impl Figure {
    fn of(figure: &Estimate) -> Figure {
        let number = |value| Some(Number(value));
        let (value, lower, upper) = (number(figure.value), number(figure.lower), number(figure.upper));
        Figure { value, lower, upper, exact: figure.exact, previous: None, change: None }
    }

    fn against(now: Option<&Estimate>, before: Option<&Estimate>) -> Figure {
        let change = now.zip(before).and_then(|(now, before)| now.over(*before)).map(|ratio| Estimate {
            value: ratio.value - 1.0,
            lower: ratio.lower - 1.0,
            upper: ratio.upper - 1.0,
            ..ratio
        });
        let boxed = |figure: Option<&Estimate>| Some(figure.map(|figure| Box::new(Figure::of(figure))));
        let none = Figure { value: None, lower: None, upper: None, exact: false, previous: None, change: None };
        Figure { previous: boxed(before), change: boxed(change.as_ref()), ..now.map_or(none, Figure::of) }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const WHOLE_MAX: f64 = (1u64 << 53) as f64;
        let Number(value) = *self;
        match value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
            true => serializer.serialize_i64(value as i64),
            // What is no number is null.
            false => serializer.serialize_f64(value),
        }
    }
}
