//! The answer to a question: cells in, figures with bounds out.

use std::collections::{BTreeMap, HashMap, HashSet};

use catchment_cells::cell::Measure;
use catchment_cells::key::Values;
use catchment_cells::users::Users;
use catchment_cells::{Cell, Estimate};
use thiserror::Error;

use crate::limits::{ANSWER_FIGURES_MAX, ANSWER_ROWS_MAX, QUESTION_BYTES_MAX, QUESTION_CELLS_MAX};
use crate::planner::Plan;
use crate::question::Stat;

/// The group of what the limit leaves over.
pub const OTHER: &str = "(other)";
/// What one sum costs beside what it holds: its places in trees and vectors, roughly.
const SUM_BYTES: usize = 128;

/// Adds cells up, in whatever order they come.
#[derive(Debug)]
pub struct Answer {
    plan: Plan,
    parts: Vec<Part>,
    /// For each metric of the question, its part.
    metric_parts: Vec<usize>,
    /// Bucket → group → a sum for each part. A question without groups has one, of no name.
    sums: BTreeMap<i64, HashMap<Box<str>, Vec<Sum>>>,
    cells: u64,
    bytes: usize,
}

/// What is added up for one or several metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    only: Option<(&'static str, String)>,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Count,
    Users,
    Measure { name: String, digest: bool },
}

/// A part's sum.
#[derive(Debug, Clone)]
enum Sum {
    Count(u64),
    Users(Users),
    Measure(Option<Measure>),
}

/// One bucket of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The bucket's start, as a minute.
    pub bucket: i64,
    /// The group's value; `None` in a question without groups.
    pub group: Option<Box<str>>,
    /// For each metric of the question, its figure; `None` where there is nothing to say.
    pub figures: Vec<Option<Estimate>>,
}

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
        let mut parts: Vec<Part> = Vec::new();
        let mut metric_parts = Vec::new();
        let digests: Vec<&String> = plan
            .question
            .metrics
            .iter()
            .filter_map(|metric| match &metric.stat {
                Stat::Quantile(name, _) => Some(name),
                _ => None,
            })
            .collect();
        for metric in &plan.question.metrics {
            let what = match &metric.stat {
                Stat::Count => What::Count,
                Stat::Users => What::Users,
                Stat::Sum(name) | Stat::Avg(name) | Stat::Min(name) | Stat::Max(name) | Stat::Quantile(name, _) => {
                    What::Measure { name: name.clone(), digest: digests.contains(&name) }
                }
            };
            let part = Part { only: metric.only.clone(), what };
            let index = parts.iter().position(|other| *other == part).unwrap_or_else(|| {
                parts.push(part);
                parts.len() - 1
            });
            metric_parts.push(index);
        }
        Answer { plan, parts, metric_parts, sums: BTreeMap::new(), cells: 0, bytes: 0 }
    }

    /// The plan that the cells must be read by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Adds one cell of the plan's cube, of a bucket that starts at this minute.
    pub fn add(&mut self, minute: i64, values: &Values, cell: &Cell) -> Result<(), TooMuch> {
        self.cells += 1;
        if self.cells > QUESTION_CELLS_MAX {
            return Err(TooMuch::Cells);
        }
        if !self.plan.lets_in(values) {
            return Ok(());
        }
        let group = match &self.plan.question.group_by {
            None => "",
            Some(dimension) => match self.plan.value(values, dimension) {
                // An event without the dimension is in no group, whichever cube answers.
                None => return Ok(()),
                Some(value) => value,
            },
        };
        let bucket = self.plan.question.bucket(minute, &self.plan.zone);
        for (index, part) in self.parts.iter().enumerate() {
            let wanted = part.only.as_ref().is_none_or(|(name, value)| self.plan.value(values, name) == Some(value));
            if !wanted || !part.is_in(cell) {
                continue;
            }
            let groups = self.sums.entry(bucket).or_default();
            let sums = match groups.get_mut(group) {
                Some(sums) => sums,
                None => {
                    self.bytes += self.parts.len() * SUM_BYTES + group.len();
                    groups.entry(group.into()).or_insert(self.parts.iter().map(Part::zero).collect())
                }
            };
            let before = sums[index].bytes();
            part.add(&mut sums[index], cell);
            self.bytes += sums[index].bytes().saturating_sub(before);
        }
        if self.bytes > QUESTION_BYTES_MAX { Err(TooMuch::Groups) } else { Ok(()) }
    }

    /// The rows: ascending by bucket; in a bucket, groups by the first metric descending, then by value, and the rest last.
    pub fn rows(mut self) -> Result<Vec<Row>, TooMuch> {
        let grouped = self.plan.question.group_by.is_some();
        if grouped {
            self.keep_top_groups();
        }
        let rows = self.sums.values().map(HashMap::len).sum::<usize>();
        if rows > ANSWER_ROWS_MAX || rows * self.metric_parts.len() > ANSWER_FIGURES_MAX {
            return Err(TooMuch::Groups);
        }
        let mut rows = Vec::new();
        for (bucket, groups) in std::mem::take(&mut self.sums) {
            let mut bucket: Vec<Row> = groups
                .into_iter()
                .map(|(group, sums)| Row { bucket, group: grouped.then_some(group), figures: self.figures(&sums) })
                .collect();
            bucket.sort_by(|a, b| {
                let rest = |row: &Row| row.group.as_deref() == Some(OTHER);
                rest(a).cmp(&rest(b)).then_with(|| rank(first(b), first(a))).then_with(|| a.group.cmp(&b.group))
            });
            rows.append(&mut bucket);
        }
        Ok(rows)
    }

    /// Merges all groups beyond the limit into one; the first metric over the whole range ranks them.
    fn keep_top_groups(&mut self) {
        let mut totals: HashMap<&str, Sum> = HashMap::new();
        let part = &self.parts[self.metric_parts[0]];
        for (group, sums) in self.sums.values().flatten() {
            if **group == *OTHER {
                continue;
            }
            totals.entry(group).or_insert_with(|| part.zero()).merge(&sums[self.metric_parts[0]]);
        }
        let stat = &self.plan.question.metrics[0].stat;
        let mut ranked: Vec<(&str, Option<f64>)> =
            totals.into_iter().map(|(group, sum)| (group, sum.figure(stat).map(|figure| figure.value))).collect();
        ranked.sort_by(|a, b| rank(b.1, a.1).then_with(|| a.0.cmp(b.0)));
        ranked.truncate(self.plan.question.limit);
        let kept: HashSet<Box<str>> = ranked.into_iter().map(|(group, _)| group.into()).collect();
        for groups in self.sums.values_mut() {
            let mut rest: Option<Vec<Sum>> = None;
            groups.retain(|group, sums| {
                if kept.contains(group) {
                    return true;
                }
                match &mut rest {
                    Some(rest) => rest.iter_mut().zip(sums).for_each(|(rest, sum)| rest.merge(sum)),
                    None => rest = Some(std::mem::take(sums)),
                }
                false
            });
            if let Some(rest) = rest {
                groups.insert(OTHER.into(), rest);
            }
        }
    }

    fn figures(&self, sums: &[Sum]) -> Vec<Option<Estimate>> {
        let metrics = self.plan.question.metrics.iter().zip(&self.metric_parts);
        metrics.map(|(metric, part)| sums[*part].figure(&metric.stat)).collect()
    }
}

impl Part {
    /// Whether a cell has any of it.
    fn is_in(&self, cell: &Cell) -> bool {
        match &self.what {
            What::Count => cell.count > 0,
            What::Users => !cell.users.is_empty(),
            What::Measure { name, .. } => cell.measures.contains_key(name.as_str()),
        }
    }

    fn zero(&self) -> Sum {
        match &self.what {
            What::Count => Sum::Count(0),
            What::Users => Sum::Users(Users::default()),
            What::Measure { .. } => Sum::Measure(None),
        }
    }

    fn add(&self, sum: &mut Sum, cell: &Cell) {
        match (&self.what, sum) {
            (What::Count, Sum::Count(sum)) => *sum = sum.saturating_add(cell.count),
            (What::Users, Sum::Users(sum)) => sum.merge(&cell.users),
            (What::Measure { name, digest }, Sum::Measure(sum)) => {
                let Some(measure) = cell.measures.get(name.as_str()) else { return };
                match sum {
                    Some(sum) => sum.merge(measure),
                    // Merging keeps a digest only where both have one: without one here, none is merged.
                    None if *digest => *sum = Some(measure.clone()),
                    None => *sum = Some(Measure { digest: None, ..*measure }),
                }
            }
            _ => {}
        }
    }
}

impl Sum {
    fn merge(&mut self, other: &Sum) {
        match (self, other) {
            (Sum::Count(ours), Sum::Count(theirs)) => *ours = ours.saturating_add(*theirs),
            (Sum::Users(ours), Sum::Users(theirs)) => ours.merge(theirs),
            (Sum::Measure(Some(ours)), Sum::Measure(Some(theirs))) => ours.merge(theirs),
            (Sum::Measure(ours @ None), Sum::Measure(theirs)) => *ours = theirs.clone(),
            _ => {}
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Sum::Users(users) => users.memory_bytes(),
            Sum::Measure(Some(Measure { digest: Some(digest), .. })) => digest.memory_bytes(),
            _ => 0,
        }
    }

    fn figure(&self, stat: &Stat) -> Option<Estimate> {
        let measure = match self {
            Sum::Count(count) => return Some(Estimate::exact(*count as f64)),
            Sum::Users(users) => return Some(users.estimate()),
            Sum::Measure(measure) => measure.as_ref()?,
        };
        match stat {
            Stat::Sum(_) => Some(Estimate::exact(units(measure.sum))),
            Stat::Avg(_) => Some(Estimate::exact(units(measure.sum) / measure.n as f64)),
            Stat::Min(_) => Some(Estimate::exact(units(measure.min.into()))),
            Stat::Max(_) => Some(Estimate::exact(units(measure.max.into()))),
            Stat::Quantile(_, hundredths) => measure.digest.as_ref()?.quantile(f64::from(*hundredths) / 100.0),
            Stat::Count | Stat::Users => None,
        }
    }
}

/// Millionths in units.
fn units(micros: i128) -> f64 {
    micros as f64 / 1e6
}

fn first(row: &Row) -> Option<f64> {
    row.figures.first().copied().flatten().map(|figure| figure.value)
}

/// Orders figures; none is less than any.
fn rank(a: Option<f64>, b: Option<f64>) -> std::cmp::Ordering {
    a.unwrap_or(f64::NEG_INFINITY).total_cmp(&b.unwrap_or(f64::NEG_INFINITY))
}
