//! The answer to a question: cells in, figures with bounds out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use catchment_cells::Cell;
use catchment_cells::row::{OTHER, Row, rank, sort_bucket};
use catchment_cells::sum::{Parts, Sum};
use thiserror::Error;

use crate::limits::{ANSWER_FIGURES_MAX, ANSWER_ROWS_MAX, QUESTION_BYTES_MAX, QUESTION_CELLS_MAX};
use crate::planner::Plan;

/// What one sum costs beside what it holds: its places in trees and vectors, roughly.
const SUM_BYTES: usize = 128;

/// Adds cells up, in whatever order they come.
#[derive(Debug)]
pub struct Answer {
    plan: Plan,
    parts: Parts,
    /// Bucket → group → a sum for each part. A question without groups has one, of no name.
    sums: BTreeMap<i64, HashMap<Box<str>, Vec<Sum>>>,
    /// The bucket of the last cell's minute.
    last: Option<(i64, i64)>,
    bytes: usize,
    bytes_max: usize,
}

/// The groups that an answer tells apart; `None` in a question without groups.
pub type TopGroups = Option<HashSet<Box<str>>>;

/// A group's value, and its sums.
pub type GroupSums<'a> = (Option<&'a str>, Cow<'a, [Sum]>);

/// A question that costs more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TooMuch {
    /// Too many cells.
    #[error("the question reads more than {QUESTION_CELLS_MAX} cells: narrow its range or ask for coarser buckets")]
    Cells,
    /// Too many groups and buckets.
    #[error("the question has too many groups and buckets: narrow its range or ask for coarser buckets")]
    Groups,
}

impl Answer {
    /// An answer that no cell has been added to.
    pub fn new(plan: Plan) -> Answer {
        Answer::within(plan, QUESTION_BYTES_MAX)
    }

    /// One that may take so many bytes while it is added up.
    pub fn within(plan: Plan, bytes_max: usize) -> Answer {
        let parts = Parts::new(&plan.question.metrics);
        Answer { plan, parts, sums: BTreeMap::new(), last: None, bytes: 0, bytes_max }
    }

    /// The plan that the cells must be read by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What is added up.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Bytes that it takes, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds one cell of the plan's cube, of a bucket that starts at this minute, and says whether it is any part of the answer.
    pub fn add<T: AsRef<str>>(&mut self, minute: i64, values: &[Option<T>], cell: &Cell) -> Result<bool, TooMuch> {
        if !self.plan.lets_in(values) {
            return Ok(false);
        }
        let group = match &self.plan.question.group_by {
            None => "",
            Some(dimension) => match self.plan.value(values, dimension) {
                // An event without the dimension is in no group, whichever cube answers.
                None => return Ok(false),
                Some(value) => value,
            },
        };
        let bucket = match self.last {
            // Cells come bucket by bucket, and calendars are slow.
            Some((last, bucket)) if last == minute => bucket,
            _ => self.plan.question.bucket(minute, &self.plan.zone),
        };
        self.last = Some((minute, bucket));
        let mut is_part = false;
        for (index, part) in self.parts.iter().enumerate() {
            let wanted = part.only.as_ref().is_none_or(|(name, value)| self.plan.value(values, name) == Some(value));
            if !wanted || !part.is_in(cell) {
                continue;
            }
            is_part = true;
            let groups = self.sums.entry(bucket).or_default();
            let sums = match groups.get_mut(group) {
                Some(sums) => sums,
                None => {
                    self.bytes += self.parts.iter().len() * SUM_BYTES + group.len();
                    groups.entry(group.into()).or_insert(self.parts.zeros())
                }
            };
            let before = sums[index].memory_bytes();
            part.add(&mut sums[index], cell);
            self.bytes += sums[index].memory_bytes().saturating_sub(before);
        }
        if self.bytes > self.bytes_max { Err(TooMuch::Groups) } else { Ok(is_part) }
    }

    /// The rows: ascending by bucket; in a bucket, groups by the first metric descending, then by value, and the rest last.
    pub fn rows(&self) -> Result<Vec<Row>, TooMuch> {
        let top = self.top();
        let mut rows = Vec::new();
        for bucket in self.buckets() {
            let from = rows.len();
            for (group, sums) in self.groups(bucket, &top) {
                rows.push(Row { bucket, group: group.map(Into::into), figures: self.parts.figures(&sums) });
            }
            if rows.len() > ANSWER_ROWS_MAX || rows.len() * self.parts.metrics().len() > ANSWER_FIGURES_MAX {
                return Err(TooMuch::Groups);
            }
            sort_bucket(&mut rows[from..]);
        }
        Ok(rows)
    }

    /// The buckets that have anything, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = i64> {
        self.sums.keys().copied()
    }

    /// The groups that are told apart: those with the most of the first metric over the whole range.
    pub fn top(&self) -> TopGroups {
        self.plan.question.group_by.as_ref()?;
        let mut totals: HashMap<&str, Cow<'_, Sum>> = HashMap::new();
        for (group, sums) in self.sums.values().flatten() {
            if **group == *OTHER {
                continue;
            }
            let sum = self.parts.sum(0, sums);
            totals.entry(group).and_modify(|total| total.to_mut().merge(sum)).or_insert(Cow::Borrowed(sum));
        }
        let stat = &self.plan.question.metrics[0].stat;
        let mut ranked: Vec<(&str, Option<f64>)> =
            totals.into_iter().map(|(group, sum)| (group, sum.figure(stat).map(|figure| figure.value))).collect();
        let limit = self.plan.question.limit;
        if ranked.len() > limit {
            ranked.select_nth_unstable_by(limit, |a, b| rank(b.1, a.1).then_with(|| a.0.cmp(b.0)));
            ranked.truncate(limit);
        }
        Some(ranked.into_iter().map(|(group, _)| group.into()).collect())
    }

    /// A bucket's groups with their sums; all that are not among the top ones are one.
    pub fn groups<'a>(&'a self, bucket: i64, top: &TopGroups) -> Vec<GroupSums<'a>> {
        let Some(groups) = self.sums.get(&bucket) else { return Vec::new() };
        let Some(top) = top else {
            return groups.values().map(|sums| (None, Cow::Borrowed(&sums[..]))).collect();
        };
        let mut rows = Vec::new();
        let mut rest: Option<Cow<'a, [Sum]>> = None;
        for (group, sums) in groups {
            if top.contains(group) {
                rows.push((Some(&**group), Cow::Borrowed(&sums[..])));
                continue;
            }
            match &mut rest {
                Some(rest) => rest.to_mut().iter_mut().zip(sums).for_each(|(rest, sum)| rest.merge(sum)),
                None => rest = Some(Cow::Borrowed(&sums[..])),
            }
        }
        rows.extend(rest.map(|sums| (Some(OTHER), sums)));
        rows
    }
}
