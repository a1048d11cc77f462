//! An answer held against the truth.

use std::collections::{BTreeMap, BTreeSet};

use catchment_cells::limits::{DIGEST_VALUES_MAX, USERS_COUPONS_MAX};
use catchment_harness::{Answer, Failure, Result, Row, Value};
use serde_json::Value as Json;

use crate::asked::{Asked, MINUTE_MS, Metric, Order, Stat};
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
    /// That of its events: another one, in the period before.
    pub(crate) events_in: i64,
    pub(crate) group: Option<String>,
    /// By metric, of a ratio both.
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
    /// Both of a ratio.
    pub(crate) first: Vec<Exact>,
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
    /// Ratios and changes that aren't of counts and measures alone.
    pub(crate) quotients: Vec<Quotient>,
}

/// A ratio, or a relative change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quotient {
    pub(crate) truth: f64,
    pub(crate) answered: Value,
}

/// What is known of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// All.
    Exactly,
    /// All, but that of few users two may share a coupon.
    Nearly,
    /// Its bounds.
    Roughly,
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
            let group = group.as_str().map(str::to_owned);
            Ok(Truth { bucket, events_in: bucket, group, figures: exacts(figures)? })
        }
        _ => Err(Failure(format!("no row of an answer: {row:?}"))),
    };
    rows.iter().map(truth).collect()
}

/// Reads what [`Sql::top`](crate::sql::Sql::top) gives.
pub(crate) fn ranked(rows: &[Vec<Json>]) -> Result<Vec<Ranked>> {
    let ranked = |row: &Vec<Json>| match &row[..] {
        [Json::String(group), figures @ .., place] if place.is_u64() => {
            Ok(Ranked { group: group.clone(), first: exacts(figures)?, place: place.as_u64().unwrap_or_default() })
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
        let value = figure(metric, &group.first)?;
        let off = match &group.first[..] {
            // That of a quotient, the furthest up.
            [of, over] => {
                let terms: Vec<f64> =
                    metric.terms().zip([of, over]).map(|(term, exact)| relative_bound(term, *exact)).collect();
                (1.0 + terms[0]) / (1.0 - terms[1]) - 1.0
            }
            _ => relative_bound(metric, group.first[0]),
        };
        Some((value, off * value.abs()))
    };
    match metric {
        Metric::Of(Stat::Quantile(_), _) => return Top::Unknown,
        Metric::Of(Stat::Avg, _) | Metric::Ratio(..) => {}
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

/// Half of a figure's bounds, as a share of it.
fn relative_bound(metric: &Metric, exact: Exact) -> f64 {
    let value = exact.value.unwrap_or_default() as f64;
    match metric {
        metric if metric.is_users() && value <= USERS_COUPONS_MAX as f64 => 1.0 / value.max(2.0),
        metric if metric.is_users() => USERS_BOUND,
        _ => ROUNDING,
    }
}

/// A figure in units.
fn figure(metric: &Metric, exacts: &[Exact]) -> Option<f64> {
    if let Metric::Ratio(_, of, over) = metric {
        let (of, over) = (figure(of, &exacts[..1])?, figure(over, &exacts[1..])?);
        return (over > 0.0).then(|| of / over);
    }
    let value = exacts[0].value?;
    Some(match metric {
        Metric::Of(Stat::Avg, _) => value as f64 / 1e6 / exacts[0].n as f64,
        Metric::Of(..) => value as f64 / 1e6,
        _ => value as f64,
    })
}

/// What Catchment knows of a figure.
fn known(metric: &Metric, exacts: &[Exact]) -> Known {
    let of_term = |(term, exact): (&Metric, &Exact)| match term {
        term if term.is_users() && exact.value <= Some(USERS_COUPONS_MAX as i128) => Known::Nearly,
        term if term.is_users() => Known::Roughly,
        Metric::Of(Stat::Quantile(_), _) if exact.n > DIGEST_VALUES_MAX as u64 => Known::Roughly,
        _ => Known::Exactly,
    };
    metric.terms().zip(exacts).map(of_term).max().unwrap_or(Known::Exactly)
}

/// Each metric with its exact figure, or both of a ratio.
fn by_metric<'a>(asked: &'a Asked, truth: &'a Truth) -> impl Iterator<Item = (&'a Metric, &'a [Exact])> {
    let mut left = &truth.figures[..];
    asked.metrics.iter().map(move |metric| {
        let (exacts, rest) = left.split_at(metric.terms().count());
        left = rest;
        (metric, exacts)
    })
}

/// Puts what is true of the period before beside a range of minutes: buckets are compared in their order, and what the other has none for
/// stands nowhere.
pub(crate) fn beside(asked: &Asked, minutes: (i64, i64), before: Vec<Truth>) -> Vec<Truth> {
    let starts = |range| asked.buckets(range).into_iter().map(|(bucket, _)| bucket);
    let place: BTreeMap<i64, i64> = starts(asked.before(minutes)).zip(starts(minutes)).collect();
    let moved = before.into_iter().filter_map(|truth| Some(Truth { bucket: *place.get(&truth.bucket)?, ..truth }));
    moved.collect()
}

/// Gives both periods the rows of either: where there is nothing, counts are 0.
pub(crate) fn fill(asked: &Asked, now: &mut Vec<Truth>, before: &mut Vec<Truth>) {
    let zeros = || {
        let zero = |term: &Metric| Exact { value: (!matches!(term, Metric::Of(..))).then_some(0), n: 0 };
        asked.metrics.iter().flat_map(Metric::terms).map(zero).collect()
    };
    let key = |truth: &Truth| (truth.bucket, truth.group.clone());
    let complete = |truths: &mut Vec<Truth>, others: &[Truth]| {
        let known: BTreeSet<_> = truths.iter().map(key).collect();
        let missing = others.iter().map(key).filter(|key| !known.contains(key));
        truths.extend(missing.map(|(bucket, group)| Truth { bucket, events_in: bucket, group, figures: zeros() }));
        truths.sort_by_key(key);
    };
    complete(now, before);
    complete(before, now);
}

/// Holds the rows of an answer against the truth, in which the same groups are told apart.
pub(crate) fn rows(asked: &Asked, answer: &Answer, truths: &[Truth]) -> Seen {
    let mut seen = Seen::default();
    let mut answered = by_key(answer);
    if answered.len() < answer.results.len() {
        seen.wrong("a row is there twice".into());
    }
    for (at, truth) in truths.iter().enumerate() {
        let Some(row) = answered.remove(&(truth.bucket * MINUTE_MS, truth.group.as_deref())) else {
            seen.wrong(format!("a row is missing: {truth:?}"));
            continue;
        };
        for (metric, (of, exacts)) in by_metric(asked, truth).enumerate() {
            match row.values.get(&of.name()) {
                None => seen.wrong(format!("{} isn't in a row", of.name())),
                Some(value) => seen.figure(of, metric, at, truth, exacts, *value),
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

/// Holds relative changes against the truth: those of the same rows, of which the figures of the period before are what they are divided
/// by.
pub(crate) fn changes(asked: &Asked, [changes, previous]: [&Answer; 2], [now, before]: [&[Truth]; 2]) -> Seen {
    let mut seen = Seen::default();
    let (changes, previous) = (by_key(changes), by_key(previous));
    for (now, before) in now.iter().zip(before) {
        let key = (now.bucket * MINUTE_MS, now.group.as_deref());
        let (Some(change), Some(previous)) = (changes.get(&key), previous.get(&key)) else { continue };
        for ((metric, of), (_, over)) in by_metric(asked, now).zip(by_metric(asked, before)) {
            let name = metric.name();
            let (answered, divisor) = (change.get(&name), previous.get(&name));
            let told = || {
                format!("the change of {name} is {answered:?}, of {of:?} to {over:?}, told as {divisor:?}, in {key:?}")
            };
            let truth = figure(metric, of).zip(figure(metric, over)).map(|(now, before)| now / before - 1.0);
            // Nothing is divided by what may be zero.
            match (truth, divisor.filter(|divisor| divisor.lower > 0.0), answered) {
                (Some(truth), Some(_), Some(answered)) => {
                    let known = known(metric, of).max(known(metric, over));
                    seen.quotient(truth, answered, known, 1.0, told);
                }
                (None, _, None) | (_, None, None) => seen.equal += 1,
                _ => seen.wrong(told()),
            }
        }
    }
    seen
}

/// An answer's rows by their buckets, in ms, and groups.
fn by_key(answer: &Answer) -> BTreeMap<(i64, Option<&str>), &Row> {
    answer.results.iter().map(|row| ((row.time.as_millisecond(), row.group.as_deref()), row)).collect()
}

/// Rows ascend by time; groups come in their order, then ascend by value, and the rest comes last.
pub(crate) fn order(asked: &Asked, order: Order, answer: &Answer) -> Option<String> {
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
            return Some(format!("rows are out of order: {a:?}, then {b:?}"));
        }
    }
    None
}

impl Seen {
    fn wrong(&mut self, what: String) {
        if self.wrong.len() < TOLD_MAX {
            self.wrong.push(what);
        }
    }

    /// Takes up what was seen of the same question elsewhere: but for quantiles, whose rows are others.
    pub(crate) fn add(&mut self, other: Seen) {
        other.wrong.into_iter().for_each(|wrong| self.wrong(wrong));
        self.equal += other.equal;
        self.users.extend(other.users);
        self.quotients.extend(other.quotients);
    }

    fn figure(
        &mut self,
        of: &Metric,
        metric: usize,
        row: usize,
        truth: &Truth,
        exacts: &[Exact],
        answered: Option<Value>,
    ) {
        let told =
            || format!("{} is {answered:?} instead of {exacts:?} in {:?} {:?}", of.name(), truth.bucket, truth.group);
        let (expected, answered) = match (figure(of, exacts), answered) {
            (None, None) => return self.equal += 1,
            (Some(expected), Some(answered)) => (expected, answered),
            _ => return self.wrong(told()),
        };
        let within = answered.lower <= expected && expected <= answered.upper;
        match of {
            _ if !(answered.lower <= answered.value && answered.value <= answered.upper) => self.wrong(told()),
            Metric::Ratio(..) => self.quotient(expected, answered, known(of, exacts), 0.0, told),
            of if of.is_users() && expected <= USERS_COUPONS_MAX as f64 && !answered.exact => self.wrong(told()),
            // Two may share a coupon, for which the bounds leave room.
            of if of.is_users() && answered.exact && !within => self.wrong(told()),
            of if of.is_users() => self.users.push(Users { truth: expected as u64, answered }),
            _ if known(of, exacts) == Known::Roughly => {
                self.quantiles.push(Quantile { metric, row, truth: exacts[0], answered });
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

    /// A quotient, from which something was taken.
    fn quotient(&mut self, truth: f64, answered: Value, known: Known, taken: f64, told: impl Fn() -> String) {
        // Of the quotient, before it was taken.
        let slack = 4.0 * ROUNDING * (truth + taken).abs().max(taken);
        let Value { value, lower, upper, exact } = answered;
        let within = lower - slack <= truth && truth <= upper + slack;
        match known {
            _ if !(lower <= value && value <= upper) => self.wrong(told()),
            Known::Exactly if !exact || lower != upper || !within => self.wrong(told()),
            Known::Exactly => self.equal += 1,
            Known::Nearly if !exact => self.wrong(told()),
            _ if exact && !within => self.wrong(told()),
            _ => self.quotients.push(Quotient { truth, answered }),
        }
    }
}

impl Quotient {
    /// Whether the bounds hold.
    pub(crate) fn within(&self) -> bool {
        let slack = 4.0 * ROUNDING * self.truth.abs().max(1.0);
        self.answered.lower - slack <= self.truth && self.truth <= self.answered.upper + slack
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
    use crate::asked::{Granularity, Time, Unit};

    fn asked(metrics: Vec<Metric>) -> Asked {
        Asked {
            metrics,
            time: Time::Between(0, 60),
            granularity: Granularity::All,
            window: 1,
            compared: false,
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
        Truth { bucket: 0, events_in: 0, group: Some(group.into()), figures }
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
            let answer = answer(&wrong);
            let mut seen = rows(&asked, &answer, &truths);
            seen.wrong.extend(order(&asked, asked.order(), &answer));
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
    fn ratios_and_changes_are_as_sure_as_what_they_are_of() {
        let figure = |(value, lower, upper, exact): (f64, f64, f64, bool)| json!({"value": value, "lower": lower, "upper": upper, "exact": exact});
        let views = Metric::Ratio("views_per_user".into(), Metric::PageViews.into(), Metric::Users.into());
        let ratio = asked(vec![views]);
        let seen = |views, users, told| {
            let answer = answer(&[("a", json!({"views_per_user": figure(told)}))]);
            rows(&ratio, &answer, &[truth("a", &[(views, 1), (users, 1)])])
        };
        // Of few users, two may share a coupon; nobody else may be off.
        assert_eq!(seen(200, 100, (200.0 / 99.0, 2.0, 200.0 / 99.0, true)).wrong, [""; 0]);
        assert_eq!(seen(200, 100, (2.1, 2.05, 2.1, true)).wrong.len(), 1);
        assert_eq!(seen(200, 100, (2.0, 1.9, 2.1, false)).wrong.len(), 1);
        let missed = seen(20_000, 10_000, (2.2, 2.1, 2.3, false));
        assert!(missed.wrong.is_empty() && missed.quotients.len() == 1 && !missed.quotients[0].within());

        let events = asked(vec![Metric::Events]);
        let seen = |now, before, change: Json, previous: f64| {
            let told = |figure: Json| answer(&[("a", json!({ "events": figure }))]);
            let truths = [now, before].map(|events| [truth("a", &[(events, 1)])]);
            let (changes_told, previous) = (told(change), told(exactly(previous)));
            changes(&events, [&changes_told, &previous], [&truths[0], &truths[1]])
        };
        assert_eq!((seen(11, 10, exactly(1.1 - 1.0), 10.0).equal, seen(11, 0, Json::Null, 0.0).equal), (1, 1));
        for (now, before, change, previous) in
            [(11, 10, exactly(0.11), 10.0), (11, 10, Json::Null, 10.0), (11, 0, exactly(11.0), 0.0)]
        {
            assert_eq!(seen(now, before, change.clone(), previous).wrong.len(), 1, "{change}");
        }
    }

    #[test]
    fn periods_are_compared_bucket_by_bucket() {
        let mut asked = asked(vec![Metric::Events, Metric::Of(Stat::Sum, "m".into())]);
        (asked.granularity, asked.compared) = (Granularity::Each(1, Unit::Hour), true);
        let at = |bucket, figures: &[(i128, u64)]| Truth { bucket, events_in: bucket, ..truth("a", figures) };
        // Two hours beside the two before them.
        let mut now = vec![at(120, &[(3, 3), (5, 1)])];
        let mut before = beside(&asked, (120, 240), vec![at(60, &[(2, 2), (4, 1)])]);
        assert_eq!((before[0].bucket, before[0].events_in), (180, 60));
        fill(&asked, &mut now, &mut before);
        let places =
            |truths: &[Truth]| truths.iter().map(|truth| (truth.bucket, truth.figures[0].value)).collect::<Vec<_>>();
        assert_eq!(places(&now), [(120, Some(3)), (180, Some(0))]);
        assert_eq!(places(&before), [(120, Some(0)), (180, Some(2))]);
        assert_eq!(now[1].figures[1], Exact { value: None, n: 0 });
    }

    #[test]
    fn groups_are_those_with_the_most_as_far_as_bounds_can_tell() {
        let group = |name: &str, value, place| Ranked {
            group: name.into(),
            first: vec![Exact { value: Some(value), n: 1 }],
            place,
        };
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
