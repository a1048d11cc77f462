//! Which groups an answer tells apart, and what is of none of them.

use std::borrow::{Borrow, Cow};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::ops::RangeInclusive;

use catchment_cells::row::OTHER;
use catchment_cells::sum::Sum;

use super::{Answer, Table};
use crate::dictionary::{self, Dictionaries};
use crate::filter::Test;
use crate::planner::{Plan, value};

/// The groups that an answer tells apart; `None` in a question without groups.
pub type TopGroups = Option<HashSet<Box<str>>>;

/// A group's value, and its sums.
pub type GroupSums<'a> = (Option<&'a str>, Cow<'a, [Sum]>);

/// A group of which values were folded.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Folded {
    /// The days that its cells are of at most, in days since 1970.
    days: RangeInclusive<i64>,
    /// Its values; `None` where one was folded.
    values: Vec<Option<Box<str>>>,
}

impl Answer {
    /// The groups that are told apart: the first in the question's order, over the whole range.
    pub fn top(&self) -> TopGroups {
        if self.plan.question.group_by.is_empty() {
            return None;
        }
        let limit = self.plan.question.limit;
        let all: HashSet<&Box<str>> =
            self.sums.values().flat_map(HashMap::keys).filter(|group| ***group != *OTHER).collect();
        if all.len() <= limit {
            // Merging a month's users of each to rank them would cost more than all the rest.
            return Some(all.into_iter().cloned().collect());
        }
        // The metrics that order groups: one, two of a ratio, or none.
        let first = self.plan.question.order.metric;
        let ranking = first.and_then(|first| Some((&self.plan.question.metrics[first], self.places().nth(first)?)));
        let ranking_metrics: Vec<usize> =
            ranking.iter().flat_map(|(_, (metric, over))| [Some(*metric), *over]).flatten().collect();
        let mut totals: HashMap<&str, Vec<Cow<'_, Sum>>> = HashMap::new();
        for (group, sums) in self.sums.values().flatten().filter(|(group, _)| ***group != *OTHER) {
            let sums = || ranking_metrics.iter().map(|metric| self.parts.sum(*metric, sums));
            totals
                .entry(group)
                .and_modify(|totals| totals.iter_mut().zip(sums()).for_each(|(total, sum)| total.to_mut().merge(sum)))
                .or_insert_with(|| sums().map(Cow::Borrowed).collect());
        }
        let figure = |totals: &[Cow<'_, Sum>]| {
            let said = |place: usize| totals.get(place)?.figure(&self.parts.metrics()[ranking_metrics[place]].stat);
            Some(ranking?.0.estimate(said(0), said(1))?.value)
        };
        let mut ranked: Vec<(&str, Option<f64>)> = totals.iter().map(|(group, sums)| (*group, figure(sums))).collect();
        ranked.select_nth_unstable_by(limit, |a, b| self.compare((a.1, a.0), (b.1, b.0)));
        ranked.truncate(limit);
        Some(ranked.into_iter().map(|(group, _)| group.into()).collect())
    }

    /// A bucket's groups with their sums; all that are not among the top ones are one.
    pub fn groups<'a>(&'a self, bucket: i64, top: &TopGroups) -> Vec<GroupSums<'a>> {
        groups_of(&self.sums, bucket, top, add_sums)
    }

    /// Whether what can't be told apart any more may be of a group.
    pub(super) fn may_be(&self, group: &str, folded: &Folded) -> bool {
        let values = self.values(group);
        let mut pairs = self.plan.question.group_by.iter().zip(values.into_iter().zip(&folded.values));
        pairs.all(|(dimension, (value, folded_value))| match folded_value {
            Some(known) => **known == *value,
            None => self.dictionaries.as_ref().is_none_or(|known| known.may_hide(dimension, &folded.days, value)),
        })
    }

    /// A group's values.
    pub(super) fn values<'a>(&self, group: &'a str) -> Vec<&'a str> {
        match self.plan.group_by.len() {
            0 => Vec::new(),
            1 => vec![group],
            n if group == OTHER => vec![OTHER; n],
            _ => split(group).collect(),
        }
    }
}

/// The days of a cell's bucket, in days since 1970.
pub(super) fn days_of(plan: &Plan, bucket: i64) -> RangeInclusive<i64> {
    let (from, to) = plan.minutes_of(bucket);
    dictionary::day(from)..=dictionary::day(to - 1)
}

/// Whether a value that passes a test may have been folded.
pub(super) fn may_hide(dictionaries: &Dictionaries, dimension: &str, days: &RangeInclusive<i64>, test: &Test) -> bool {
    match test {
        Test::In(values) => values.iter().any(|value| dictionaries.may_hide(dimension, days, value)),
        Test::Prefix(_) => dictionaries.is_folding(dimension, days),
    }
}

/// The group of a cell of which values were folded, unless they were sent like this.
pub(super) fn folded_group<T: AsRef<str>>(
    plan: &Plan,
    dictionaries: Option<&Dictionaries>,
    values: &[Option<T>],
    days: &RangeInclusive<i64>,
) -> Option<Folded> {
    let known = |place: &usize| value(values, *place).filter(|value| *value != OTHER);
    let was_folded = |place: &usize| {
        known(place).is_some() || dictionaries.is_none_or(|all| all.is_folding(&plan.cube.dimensions[*place], days))
    };
    let values = || plan.group_by.iter().map(|place| known(place).map(Into::into)).collect();
    plan.group_by.iter().all(was_folded).then(|| Folded { days: days.clone(), values: values() })
}

/// A bucket's groups with what they hold; all that are not among the top ones are one.
pub(super) fn groups_of<'a, T: ToOwned + ?Sized>(
    table: &'a Table<T::Owned>,
    bucket: i64,
    top: &TopGroups,
    merge: impl Fn(&mut T::Owned, &T),
) -> Vec<(Option<&'a str>, Cow<'a, T>)> {
    let Some(groups) = table.get(&bucket) else { return Vec::new() };
    let Some(top) = top else {
        return groups.values().map(|held| (None, Cow::Borrowed(held.borrow()))).collect();
    };
    let mut rows = Vec::new();
    let mut rest: Option<Cow<'a, T>> = None;
    for (group, held) in groups {
        let held: &T = held.borrow();
        if top.contains(group) {
            rows.push((Some(&**group), Cow::Borrowed(held)));
            continue;
        }
        match &mut rest {
            Some(rest) => merge(rest.to_mut(), held),
            None => rest = Some(Cow::Borrowed(held)),
        }
    }
    rows.extend(rest.map(|held| (Some(OTHER), held)));
    rows
}

#[expect(clippy::ptr_arg, reason = "what a table holds is merged")]
pub(super) fn add_sums(ours: &mut Vec<Sum>, theirs: &[Sum]) {
    ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| ours.merge(theirs));
}

/// Joins a group's values, each after its length: `2:DE6:mobile`. A group with a folded value is none that can be told apart.
/// Says whether there are all values.
pub(super) fn join<'a>(group: &mut String, values: impl Iterator<Item = Option<&'a str>>) -> bool {
    group.clear();
    let mut is_folded = false;
    for value in values {
        let Some(value) = value else { return false };
        is_folded |= value == OTHER;
        // Writing to a string never fails.
        let _ = write!(group, "{}:{value}", value.len());
    }
    if is_folded {
        group.clear();
        group.push_str(OTHER);
    }
    true
}

/// The values that were joined.
fn split(mut group: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (length, rest) = group.split_once(':')?;
        let (value, rest) = rest.split_at_checked(length.parse().ok()?)?;
        group = rest;
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_apart_again() {
        let mut group = String::new();
        for values in [vec!["a", "b"], vec!["2:x", ""], vec!["é:", "1:a", "ü"]] {
            assert!(join(&mut group, values.iter().copied().map(Some)));
            assert_eq!(split(&group).collect::<Vec<_>>(), values);
        }
        assert!(!join(&mut group, [Some("a"), None].into_iter()));
        assert!(join(&mut group, [Some("a"), Some(OTHER)].into_iter()));
        assert_eq!(group, OTHER);
    }
}
