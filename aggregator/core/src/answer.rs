//! The answer to a question: cells in, figures with bounds out.

mod groups;
mod rows;

use std::collections::{BTreeMap, HashMap};

use catchment_cells::Cell;
use catchment_cells::cell::Wanted;
use catchment_cells::merged::{Merged, MergedRow};
use catchment_cells::row::OTHER;
use catchment_cells::sum::{Part, Parts, Sum};
use thiserror::Error;

use self::groups::{Folded, days_of, folded_group, groups_of, join, may_hide};
pub use self::groups::{GroupSums, TopGroups};
use self::rows::is_rest;
pub use self::rows::{Figures, Row};
use crate::dictionary::Dictionaries;
use crate::filter::{Test, Truth};
use crate::limits::{ANSWER_ROWS_MAX, QUESTION_BYTES_MAX, QUESTION_CELLS_MAX};
use crate::planner::{Plan, value};
use crate::question::{Figure, Metric};

/// What one sum costs beside what it holds: its places in trees and vectors, roughly.
const SUM_BYTES: usize = 128;

/// Adds cells up, in whatever order they come.
#[derive(Debug)]
pub struct Answer {
    plan: Plan,
    parts: Parts,
    /// For each part, the place of the one value that its cells have, and which.
    only: Vec<Option<(usize, Test)>>,
    sums: Table<Vec<Sum>>,
    /// What may be of the answer as well: its cells have folded values that matter.
    possible: Table<Vec<Sum>>,
    /// Bucket → what is of groups that can't be told any more, and may be of any that it could be folded from.
    hidden: BTreeMap<i64, HashMap<Folded, Vec<Sum>>>,
    /// Which values may have been folded; without it, any.
    dictionaries: Option<Dictionaries>,
    /// The cells themselves, where they are kept.
    cells: Option<Table<Cell>>,
    /// The bucket of the last cell's minute.
    last: Option<(i64, i64)>,
    /// The last cell's group.
    group: String,
    bytes: usize,
    bytes_max: usize,
}

/// Bucket → group → a sum for each part, or a cell. A question without groups has one, of no name; one by several dimensions has
/// groups that are [joined](join).
type Table<T> = BTreeMap<i64, HashMap<Box<str>, T>>;

/// A question that costs more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TooMuch {
    /// Too many cells.
    #[error("the question reads more than {QUESTION_CELLS_MAX} cells: narrow its range or ask for coarser buckets")]
    Cells,
    /// Too many groups and buckets.
    #[error("the question has too many groups and buckets: narrow its range or ask for coarser buckets")]
    Groups,
    /// It takes longer than whoever asks has time for.
    #[error("the question takes too long: narrow its range or ask for coarser buckets")]
    Time,
    /// Cells can't be given in part.
    #[error(
        "the question is about values that were folded into (other): ask for figures, whose bounds leave room for these"
    )]
    Folded,
}

impl Answer {
    /// An answer that no cell has been added to.
    pub fn new(plan: Plan) -> Answer {
        Answer::within(plan, QUESTION_BYTES_MAX)
    }

    /// One that may take so many bytes while it is added up.
    pub fn within(plan: Plan, bytes_max: usize) -> Answer {
        let metrics: Vec<Metric> = plan.question.metrics.iter().flat_map(Figure::metrics).cloned().collect();
        let parts = Parts::new(&metrics);
        let only = |part: &Part| {
            let (name, value) = part.only.as_ref()?;
            Some((plan.cube.index(name)?, Test::In(vec![value.as_str().into()])))
        };
        let only = parts.iter().map(only).collect();
        Answer {
            plan,
            parts,
            only,
            sums: Table::new(),
            possible: Table::new(),
            hidden: BTreeMap::new(),
            dictionaries: None,
            cells: None,
            last: None,
            group: String::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Says which values may have been folded, of all dimensions that the plan [tells apart](Plan::told_apart) and of the cells that are added
    /// from here on, and by which plan of the same question these are read. An answer that isn't told takes it that any may.
    pub fn know(&mut self, dictionaries: Dictionaries, plan: &Plan) {
        self.bytes += dictionaries.memory_bytes();
        self.dictionaries = Some(dictionaries);
        self.plan.clone_from(plan);
    }

    /// The dimensions of which values were folded that matter here, as far as is known.
    pub fn folded_dimensions(&self) -> Vec<&str> {
        self.dictionaries.iter().flat_map(Dictionaries::dimensions).collect()
    }

    /// One that keeps the cells themselves, too, merged for each bucket and group; the question must [let it](crate::Question::check_cells).
    pub fn keeping_cells(self) -> Answer {
        Answer { cells: Some(Table::new()), ..self }
    }

    /// The plan that the cells must be read by.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What is added up.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What of cells it must be given.
    pub fn wanted(&self) -> Wanted {
        if self.cells.is_some() { Wanted { users: true, measures: true } } else { self.parts.wanted() }
    }

    /// Bytes that it takes, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds one cell of the plan's cube, of a bucket that starts at this minute, and says whether it surely is any part of the answer.
    pub fn add<T: AsRef<str>>(&mut self, minute: i64, values: &[Option<T>], cell: &Cell) -> Result<bool, TooMuch> {
        let (plan, dictionaries) = (&self.plan, self.dictionaries.as_ref());
        let is_folded = |value: &Option<T>| value.as_ref().is_some_and(|value| value.as_ref() == OTHER);
        let days = values.iter().any(is_folded).then(|| days_of(plan, minute));
        let is = |place: usize, test: &Test| match (test.of(value(values, place)), &days, dictionaries) {
            (Truth::Maybe, Some(days), Some(dictionaries))
                if !may_hide(dictionaries, &plan.cube.dimensions[place], days, test) =>
            {
                Truth::No
            }
            (truth, ..) => truth,
        };
        let is_let_in = plan.lets_in(is);
        if is_let_in == Truth::No {
            return Ok(false);
        }
        let group = match self.plan.group_by[..] {
            [] => "",
            // An event without the dimension is in no group, whichever cube answers.
            [one] => match value(values, one) {
                None => return Ok(false),
                Some(value) => value,
            },
            ref several => match join(&mut self.group, several.iter().map(|index| value(values, *index))) {
                false => return Ok(false),
                true => &self.group,
            },
        };
        let bucket = match self.last {
            // Cells come bucket by bucket, and calendars are slow.
            Some((last, bucket)) if last == minute => bucket,
            _ => self.plan.question.bucket(minute, &self.plan.zone),
        };
        self.last = Some((minute, bucket));
        let mut hidden = match &days {
            Some(days) if group == OTHER => folded_group(plan, dictionaries, values, days).map(|folded| {
                let groups = self.hidden.entry(bucket).or_default();
                groups.entry(folded).or_insert_with(|| {
                    let values: usize = values.iter().flatten().map(|value| value.as_ref().len()).sum();
                    self.bytes += self.parts.iter().len() * SUM_BYTES + values;
                    self.parts.zeros()
                })
            }),
            _ => None,
        };
        if let Some(cells) = &mut self.cells {
            if is_let_in == Truth::Maybe {
                return Err(TooMuch::Folded);
            }
            let groups = cells.entry(bucket).or_default();
            if !groups.contains_key(group) {
                groups.insert(group.into(), Cell::default());
                self.bytes += SUM_BYTES + group.len();
            }
            if let Some(ours) = groups.get_mut(group) {
                let before = ours.memory_bytes();
                ours.merge(cell);
                self.bytes += ours.memory_bytes().saturating_sub(before);
            }
        }
        let mut is_part = false;
        for (index, (part, only)) in self.parts.iter().zip(&self.only).enumerate() {
            let is_only = only.as_ref().map_or(Truth::Yes, |(place, test)| is(*place, test));
            let table = match is_let_in.min(is_only) {
                Truth::Yes if part.is_in(cell) => &mut self.sums,
                Truth::Maybe if part.is_in(cell) => &mut self.possible,
                _ => continue,
            };
            is_part |= is_let_in.min(is_only) == Truth::Yes;
            if let Some(hidden) = &mut hidden {
                let before = hidden[index].memory_bytes();
                part.add(&mut hidden[index], cell);
                self.bytes += hidden[index].memory_bytes().saturating_sub(before);
            }
            let groups = table.entry(bucket).or_default();
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

    /// The buckets that surely have anything, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = i64> {
        self.sums.keys().copied()
    }

    /// The cells that were kept: ascending by bucket, then by value, and the rest last. `as_of` is when the newest frame was cut, in ms.
    pub fn merged(&self, as_of: Option<i64>) -> Result<Merged, TooMuch> {
        let top = self.top();
        let mut rows = Vec::new();
        for bucket in self.cells.iter().flat_map(BTreeMap::keys) {
            self.check_hidden(*bucket, &top)?;
            if self.hidden_in(*bucket, &top).next().is_some() {
                return Err(TooMuch::Folded);
            }
            let groups = self.cells.iter().flat_map(|cells| groups_of(cells, *bucket, &top, Cell::merge));
            let from = rows.len();
            rows.extend(groups.map(|(group, cell)| MergedRow {
                bucket: *bucket,
                group: self.values(group.unwrap_or_default()).into_iter().map(Into::into).collect(),
                cell: cell.into_owned(),
            }));
            if rows.len() > ANSWER_ROWS_MAX {
                return Err(TooMuch::Groups);
            }
            rows[from..].sort_by(|a, b| is_rest(&a.group).cmp(&is_rest(&b.group)).then_with(|| a.group.cmp(&b.group)));
        }
        let question = &self.plan.question;
        Ok(Merged {
            cube: self.plan.cube.name.clone(),
            tier: self.plan.tier(),
            start: question.start,
            end: question.end,
            as_of,
            dimensions: question.group_by.iter().map(|name| name.as_str().into()).collect(),
            rows,
        })
    }
}
