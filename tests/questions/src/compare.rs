//! An answer held against the truth.

use std::collections::BTreeMap;

use catchment_cells::limits::{DIGEST_VALUES_MAX, USERS_COUPONS_MAX};
use catchment_harness::{Answer, Failure, Result, Row, Value};
use serde_json::Value as Json;

use crate::asked::{Asked, MINUTE_MS, Metric, Stat};
use crate::sql::OTHER;

/// What readers of floating point numbers may be off by, of their magnitude.
const ROUNDING: f64 = 1e-15;
/// Half of the bounds of users that aren't exact, at most, of their number.
const USERS_BOUND: f64 = 0.035;
/// Differences that are told of one question.
const TOLD_MAX: usize = 5;

/// A row of the exact answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Truth {
    /// The bucket's start, as a minute.
    pub(crate) bucket: i64,
    pub(crate) group: Option<String>,
    /// By metric.
    pub(crate) figures: Vec<Exact>,
}

/// An exact figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exact {
    /// A count; or in millionths, the sum also for a mean, and nothing where there are no values.
    pub(crate) value: Option<i128>,
    /// Values it is of.
    pub(crate) n: u64,
}

/// A group with its first metric.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) group: String,
    pub(crate) first: Exact,
    /// From 1 on.
    pub(crate) place: u64,
}

/// What was seen of one question.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What can't be right, at most some of it.
    pub(crate) wrong: Vec<String>,
    /// Counts, sums, minima, maxima, means and small quantiles that are equal.
    pub(crate) equal: u64,
    pub(crate) users: Vec<Users>,
    pub(crate) quantiles: Vec<Quantile>,
}

/// Users of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Users {
    pub(crate) truth: u64,
    pub(crate) answered: Value,
}

/// A quantile that isn't exact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quantile {
    /// Which metric.
    pub(crate) metric: usize,
    /// Which row of the truth.
    pub(crate) row: usize,
    pub(crate) truth: Exact,
    pub(crate) answered: Value,
}

/// How the groups that are told apart are those with the most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Top {
    /// Exactly.
    Equal,
    /// But for some that bounds can't tell apart.
    WithinBounds,
    /// No bounds are known to say.
    Unknown,
    Wrong(String),
}

fn integer(value: &Json) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_str()?.parse().ok())
}

/// Reads pairs of a value and the number of values.
fn exacts(columns: &[Json]) -> Result<Vec<Exact>> {
    let exact = |pair: &[Json]| Some(Exact { value: integer(&pair[0]), n: pair[1].as_u64()? });
    let exacts: Option<Vec<Exact>> = columns.as_chunks::<2>().0.iter().map(|pair| exact(pair)).collect();
    exacts.ok_or_else(|| Failure(format!("no figures of DuckDB: {columns:?}")))
}

/// Reads what [`Sql::rows`](crate::sql::Sql::rows) gives.
pub(crate) fn truths(rows: &[Vec<Json>]) -> Result<Vec<Truth>> {
    let truth = |row: &Vec<Json>| match &row[..] {
        [bucket, group, figures @ ..] => {
            let bucket = bucket.as_i64().ok_or_else(|| Failure(format!("no bucket: {row:?}")))?;
            Ok(Truth { bucket, group: group.as_str().map(str::to_owned), figures: exacts(figures)? })
        }
        _ => Err(Failure(format!("no row of an answer: {row:?}"))),
    };
    rows.iter().map(truth).collect()
}

/// Reads what [`Sql::top`](crate::sql::Sql::top) gives.
pub(crate) fn ranked(rows: &[Vec<Json>]) -> Result<Vec<Ranked>> {
    let ranked = |row: &Vec<Json>| match &row[..] {
        [Json::String(group), figure @ .., place] if figure.len() == 2 && place.is_u64() => {
            Ok(Ranked { group: group.clone(), first: exacts(figure)?[0], place: place.as_u64().unwrap_or_default() })
        }
        _ => Err(Failure(format!("no ranked group: {row:?}"))),
    };
    rows.iter().map(ranked).collect()
}

/// Whether a group is what the limit leaves over.
fn is_rest(group: &str) -> bool {
    group.split('\u{1}').all(|value| value == OTHER)
}

/// The groups that an answer tells apart.
pub(crate) fn groups(answer: &Answer) -> Vec<&str> {
    let mut groups: Vec<&str> = answer.results.iter().filter_map(|row| row.group.as_deref()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|group| !is_rest(group));
    groups
}

/// Whether the groups that an answer tells apart are those that it should.
pub(crate) fn top(asked: &Asked, answered: &[&str], ranked: &[Ranked]) -> Top {
    let limit = asked.limit() as u64;
    let missing: Vec<&Ranked> =
        ranked.iter().filter(|group| group.place <= limit && !answered.contains(&&*group.group)).collect();
    let extra: Vec<&Ranked> =
        ranked.iter().filter(|group| group.place > limit && answered.contains(&&*group.group)).collect();
    let unknown: Vec<&&str> =
        answered.iter().filter(|name| !ranked.iter().any(|group| group.group == **name)).collect();
    let wrong =
        || Top::Wrong(format!("groups {missing:?} are missing, {extra:?} are there instead, {unknown:?} are none"));
    if !unknown.is_empty() || missing.len() != extra.len() {
        return wrong();
    }
    if missing.is_empty() {
        return Top::Equal;
    }
    let Some(metric) = asked.order().metric.map(|metric| &asked.metrics[metric]) else { return wrong() };
    // A value and half of its bounds, where it has some.
    let bound = |group: &Ranked| {
        let value = figure(metric, group.first)?;
        match metric {
            metric if metric.is_users() && value <= USERS_COUPONS_MAX as f64 => Some((value, 1.0)),
            metric if metric.is_users() => Some((value, USERS_BOUND * value)),
            Metric::Of(Stat::Avg, _) => Some((value, ROUNDING * value.abs())),
            _ => None,
        }
    };
    match metric {
        Metric::Of(Stat::Quantile(_), _) => return Top::Unknown,
        Metric::Of(Stat::Avg, _) => {}
        metric if metric.is_users() => {}
        _ => return wrong(),
    }
    for missing in &missing {
        for extra in &extra {
            match (bound(missing), bound(extra)) {
                (Some((one, a)), Some((other, b))) if (one - other).abs() <= a + b => {}
                _ => return wrong(),
            }
        }
    }
    Top::WithinBounds
}

/// A figure in units.
fn figure(metric: &Metric, exact: Exact) -> Option<f64> {
    let value = exact.value?;
    Some(match metric {
        Metric::Of(Stat::Avg, _) => value as f64 / 1e6 / exact.n as f64,
        Metric::Of(..) => value as f64 / 1e6,
        _ => value as f64,
    })
}

/// Holds the rows of an answer against the truth, in which the same groups are told apart.
pub(crate) fn rows(asked: &Asked, answer: &Answer, truths: &[Truth]) -> Seen {
    let mut seen = Seen::default();
    order(asked, answer, &mut seen);
    let by_key = answer.results.iter().map(|row| ((row.time.as_millisecond(), row.group.as_deref()), row));
    let mut answered: BTreeMap<_, &Row> = by_key.collect();
    if answered.len() < answer.results.len() {
        seen.wrong("a row is there twice".into());
    }
    for (at, truth) in truths.iter().enumerate() {
        let Some(row) = answered.remove(&(truth.bucket * MINUTE_MS, truth.group.as_deref())) else {
            seen.wrong(format!("a row is missing: {truth:?}"));
            continue;
        };
        for (metric, exact) in truth.figures.iter().enumerate() {
            let name = asked.metrics[metric].name();
            match row.values.get(&name) {
                None => seen.wrong(format!("{name} isn't in a row")),
                Some(value) => seen.figure(asked, metric, at, truth, *exact, *value),
            }
        }
        if row.values.len() != asked.metrics.len() {
            seen.wrong(format!("a row has figures that weren't asked for: {row:?}"));
        }
    }
    for row in answered.values() {
        seen.wrong(format!("a row of nothing: {row:?}"));
    }
    seen
}

/// Rows ascend by time; groups come in the question's order, then ascend by value, and the rest comes last.
fn order(asked: &Asked, answer: &Answer, seen: &mut Seen) {
    let order = asked.order();
    let figure = |row: &Row| row.get(&asked.metrics[order.metric?].name()).map(|value| value.value);
    let rest = |row: &Row| row.group.as_deref().is_some_and(is_rest);
    for two in answer.results.windows(2) {
        let (a, b) = (&two[0], &two[1]);
        let by = match (order.metric, figure(a), figure(b)) {
            (None, ..) => a.group.cmp(&b.group),
            (_, Some(a), Some(b)) => a.total_cmp(&b),
            // Who has no figure is last, whatever the order.
            (_, a, b) if order.ascending => b.is_some().cmp(&a.is_some()),
            (_, a, b) => a.is_some().cmp(&b.is_some()),
        };
        let by = if order.ascending { by } else { by.reverse() };
        let all = a.time.cmp(&b.time).then(rest(a).cmp(&rest(b))).then(by).then_with(|| a.group.cmp(&b.group));
        if all.is_ge() {
            seen.wrong(format!("rows are out of order: {a:?}, then {b:?}"));
        }
    }
}

impl Seen {
    fn wrong(&mut self, what: String) {
        if self.wrong.len() < TOLD_MAX {
            self.wrong.push(what);
        }
    }

    fn figure(
        &mut self,
        asked: &Asked,
        metric: usize,
        row: usize,
        truth: &Truth,
        exact: Exact,
        answered: Option<Value>,
    ) {
        let asked = &asked.metrics[metric];
        let told =
            || format!("{} is {answered:?} instead of {exact:?} in {:?} {:?}", asked.name(), truth.bucket, truth.group);
        let (expected, answered) = match (figure(asked, exact), answered) {
            (None, None) => return self.equal += 1,
            (Some(expected), Some(answered)) => (expected, answered),
            _ => return self.wrong(told()),
        };
        let within = answered.lower <= expected && expected <= answered.upper;
        match asked {
            _ if !(answered.lower <= answered.value && answered.value <= answered.upper) => self.wrong(told()),
            asked if asked.is_users() && expected <= USERS_COUPONS_MAX as f64 && !answered.exact => self.wrong(told()),
            // Two may share a coupon, for which the bounds leave room.
            asked if asked.is_users() && answered.exact && !within => self.wrong(told()),
            asked if asked.is_users() => self.users.push(Users { truth: expected as u64, answered }),
            Metric::Of(Stat::Quantile(_), _) if exact.n > DIGEST_VALUES_MAX as u64 => {
                self.quantiles.push(Quantile { metric, row, truth: exact, answered });
            }
            _ => {
                let off = (answered.value - expected).abs() > ROUNDING * expected.abs();
                if off || !answered.exact || answered.lower != answered.value || answered.upper != answered.value {
                    return self.wrong(told());
                }
                self.equal += 1;
            }
        }
    }
}

impl Quantile {
    /// A value surely below the answered one, and one surely above, in millionths.
    pub(crate) fn around(&self) -> (f64, f64) {
        let micros = self.answered.value * 1e6;
        let slack = 4.0 * ROUNDING * micros.abs();
        (micros - slack, micros + slack)
    }

    /// Whether the bounds hold.
    pub(crate) fn within(&self) -> bool {
        let truth = self.truth.value.unwrap_or_default() as f64 / 1e6;
        let slack = ROUNDING * truth.abs();
        self.answered.lower - slack <= truth && truth <= self.answered.upper + slack
    }
}

/// How far a value is from rank ⌈q·n⌉ of n values, as a share of them: so many are less than it, and so many not more.
pub(crate) fn rank_error(hundredths: u32, n: u64, less: u64, not_more: u64) -> f64 {
    let rank = (u64::from(hundredths) * n).div_ceil(100).max(1);
    // Between two values, it has the ranks of both.
    let (from, to) = if not_more > less { (less + 1, not_more) } else { (less, less + 1) };
    let off = from.saturating_sub(rank) + rank.saturating_sub(to);
    off as f64 / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::asked::{Granularity, Time};

    fn asked(metrics: Vec<Metric>) -> Asked {
        Asked {
            metrics,
            time: Time::Between(0, 60),
            granularity: Granularity::All,
            group_by: vec!["page".into()],
            filters: vec![],
            order: None,
            limit: Some(2),
        }
    }

    fn answer(rows: &[(&str, Json)]) -> Answer {
        let row =
            |(group, values): &(&str, Json)| json!({"time": "1970-01-01T00:00:00Z", "group": group, "values": values});
        serde_json::from_value(json!({"results": rows.iter().map(row).collect::<Vec<_>>(), "meta": {}})).unwrap()
    }

    fn exactly(value: f64) -> Json {
        json!({"value": value, "lower": value, "upper": value, "exact": true})
    }

    fn truth(group: &str, figures: &[(i128, u64)]) -> Truth {
        let figures = figures.iter().map(|&(value, n)| Exact { value: Some(value), n }).collect();
        Truth { bucket: 0, group: Some(group.into()), figures }
    }

    #[test]
    fn what_differs_is_wrong() {
        let asked = asked(vec![Metric::Events, Metric::Of(Stat::Avg, "m".into())]);
        let row = |events, avg| json!({"events": exactly(events), "avg:m": exactly(avg)});
        let truths = [truth("a", &[(3, 3), (3_000_000, 2)]), truth("b", &[(1, 1), (-500_000, 1)])];
        let right = [("a", row(3.0, 1.5)), ("b", row(1.0, -0.5))];
        let seen = rows(&asked, &answer(&right), &truths);
        assert_eq!((seen.wrong, seen.equal), (vec![], 4));
        let mut inexact = right.clone();
        inexact[0].1["events"]["exact"] = json!(false);
        let mut null = right.clone();
        null[1].1["avg:m"] = json!(null);
        for (wrong, says) in [
            (vec![right[1].clone(), right[0].clone()], "out of order"),
            (vec![right[0].clone()], "missing"),
            (vec![right[0].clone(), right[0].clone(), right[1].clone()], "twice"),
            (vec![right[0].clone(), right[1].clone(), ("c", row(0.0, 1.0))], "a row of nothing"),
            (vec![("a", row(4.0, 1.5)), right[1].clone()], "events is"),
            (vec![("a", row(3.0, 1.500001)), right[1].clone()], "avg:m is"),
            (inexact.into(), "events is"),
            (null.into(), "avg:m is"),
        ] {
            let seen = rows(&asked, &answer(&wrong), &truths);
            assert!(seen.wrong.iter().any(|wrong| wrong.contains(says)), "{says}: {:?}", seen.wrong);
        }
    }

    #[test]
    fn users_have_bounds() {
        let asked = asked(vec![Metric::Users]);
        let users = |value: f64, lower: f64, upper: f64, exact| {
            let users = json!({"users": {"value": value, "lower": lower, "upper": upper, "exact": exact}});
            answer(&[("a", users)])
        };
        let seen = |answer, truth_is: i128| rows(&asked, &answer, &[truth("a", &[(truth_is, 1)])]);
        assert_eq!(seen(users(1_000.0, 1_000.0, 1_001.0, true), 1_001).wrong, [""; 0]);
        assert_eq!(seen(users(1_000.0, 1_000.0, 1_001.0, true), 1_002).wrong.len(), 1);
        assert_eq!(seen(users(1_000.0, 950.0, 1_050.0, false), 1_000).wrong.len(), 1);
        let missed = seen(users(2_000.0, 1_950.0, 2_050.0, false), 2_060);
        assert_eq!((missed.wrong.len(), missed.users.len()), (0, 1));
    }

    #[test]
    fn groups_are_those_with_the_most_as_far_as_bounds_can_tell() {
        let group =
            |name: &str, value, place| Ranked { group: name.into(), first: Exact { value: Some(value), n: 1 }, place };
        let of = |metric, groups: &[(&str, i128)]| {
            let ranked: Vec<_> =
                groups.iter().zip(1..).map(|(&(name, value), place)| group(name, value, place)).collect();
            top(&asked(vec![metric]), &["a", "c"], &ranked)
        };
        assert_eq!(of(Metric::Events, &[("c", 5), ("a", 4), ("b", 3)]), Top::Equal);
        // A tie goes to the lesser name.
        assert!(matches!(of(Metric::Events, &[("a", 5), ("b", 4), ("c", 4)]), Top::Wrong(_)));
        assert_eq!(of(Metric::Users, &[("a", 9_000), ("b", 4_000), ("c", 3_900)]), Top::WithinBounds);
        assert!(matches!(of(Metric::Users, &[("a", 9_000), ("b", 4_000), ("c", 3_000)]), Top::Wrong(_)));
        assert!(matches!(of(Metric::Users, &[("a", 9_000)]), Top::Wrong(_)));
    }

    #[test]
    fn a_rank_is_off_by_the_values_between() {
        // Of 100 values, the one at rank 50, and those beside it.
        for (less, not_more, off) in
            [(49, 50, 0.0), (49, 49, 0.0), (50, 50, 0.0), (50, 51, 0.01), (51, 51, 0.01), (40, 45, 0.05), (0, 100, 0.0)]
        {
            assert_eq!(rank_error(50, 100, less, not_more), off, "{less} {not_more}");
        }
    }
}
