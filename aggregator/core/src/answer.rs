//! The answer to a question: cells in, figures with bounds out.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write;
use std::ops::RangeInclusive;

use catchment_cells::cell::Wanted;
use catchment_cells::merged::{Merged, MergedRow};
use catchment_cells::row::{self, OTHER};
use catchment_cells::sum::{Part, Parts, Sum};
use catchment_cells::{Cell, Estimate};
use thiserror::Error;

use crate::dictionary::{self, Dictionaries};
use crate::filter::{Test, Truth};
use crate::limits::{ANSWER_FIGURES_MAX, ANSWER_ROWS_MAX, ANSWER_STEPS_MAX, QUESTION_BYTES_MAX, QUESTION_CELLS_MAX};
use crate::planner::{Plan, value};
use crate::possible;
use crate::question::{Figure, Metric, Order};
use crate::slide::{Sums, Window};

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

/// The groups that an answer tells apart; `None` in a question without groups.
pub type TopGroups = Option<HashSet<Box<str>>>;

/// A group's value, and its sums.
pub type GroupSums<'a> = (Option<&'a str>, Cow<'a, [Sum]>);

/// For each metric of the question, its figure; `None` where there is nothing to say.
pub type Figures = Vec<Option<Estimate>>;

/// One bucket of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The bucket's start, as a minute.
    pub bucket: i64,
    /// The group's values, one for each dimension that tells groups apart.
    pub group: Vec<Box<str>>,
    /// What it says.
    pub figures: Figures,
    /// The same of the period before, in a question that is compared with it.
    pub before: Option<Figures>,
}

impl From<row::Row> for Row {
    /// As it is in the answer to the same question, if a live view is up to date.
    fn from(row: row::Row) -> Row {
        Row { bucket: row.bucket, group: row.group.into_iter().collect(), figures: row.figures, before: None }
    }
}

/// A group of which values were folded.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Folded {
    /// The days that its cells are of at most, in days since 1970.
    days: RangeInclusive<i64>,
    /// Its values; `None` where one was folded.
    values: Vec<Option<Box<str>>>,
}

/// A group's sums in a bucket: of the cells that surely are of it, and of those that may be.
#[derive(Default)]
struct Held<'a> {
    sure: Option<Cow<'a, [Sum]>>,
    possible: Option<Cow<'a, [Sum]>>,
}

/// What may still be made of an answer, and whether there is time for it.
struct Room<'a> {
    rows_left: usize,
    is_time: &'a dyn Fn() -> bool,
}

impl Room<'_> {
    /// So many rows more are made next.
    fn take(&mut self, rows: usize) -> Result<(), TooMuch> {
        self.rows_left = self.rows_left.checked_sub(rows).ok_or(TooMuch::Groups)?;
        if (self.is_time)() { Ok(()) } else { Err(TooMuch::Time) }
    }
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
    /// from here on. An answer that isn't told takes it that any may.
    pub fn know(&mut self, dictionaries: Dictionaries) {
        self.dictionaries = Some(dictionaries);
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
                    self.bytes += self.parts.iter().len() * SUM_BYTES;
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

    /// The rows: ascending by bucket; in a bucket, groups in the question's order, then by value, and the rest last.
    pub fn rows(&self) -> Result<Vec<Row>, TooMuch> {
        self.rows_beside(None, &|| true)
    }

    /// The rows, made while there is time. With `before`, the answer to the plan of the [period before](Plan::before), they have its
    /// figures, too.
    pub fn rows_beside(&self, before: Option<&Answer>, is_time: &dyn Fn() -> bool) -> Result<Vec<Row>, TooMuch> {
        let rows_left = ANSWER_ROWS_MAX.min(ANSWER_FIGURES_MAX / self.plan.question.metrics.len());
        let room = || Room { rows_left, is_time };
        let top = self.top();
        let mut buckets = self.figures(&top, room())?;
        let mut earlier = BTreeMap::new();
        if let Some(before) = before {
            // The first bucket stands beside the first one of the period before.
            let place: HashMap<i64, i64> = before.buckets_asked().into_iter().zip(self.buckets_asked()).collect();
            for (bucket, figures) in before.figures(&top, room())? {
                if let Some(bucket) = place.get(&bucket) {
                    buckets.entry(*bucket).or_default();
                    earlier.insert(*bucket, figures);
                }
            }
        }
        let zero = || self.say(|metric| self.parts.figure(metric, &self.parts.zeros()));
        let (mut rows, mut room) = (Vec::new(), room());
        for (bucket, mut groups) in buckets {
            let mut earlier = earlier.remove(&bucket).unwrap_or_default();
            for group in earlier.keys() {
                groups.entry(group).or_insert_with(zero);
            }
            room.take(groups.len())?;
            let from = rows.len();
            rows.extend(groups.into_iter().map(|(group, figures)| Row {
                bucket,
                group: self.values(group).into_iter().map(Into::into).collect(),
                figures,
                before: before.map(|_| earlier.remove(group).unwrap_or_else(zero)),
            }));
            self.sort(&mut rows[from..]);
        }
        Ok(rows)
    }

    /// The figures of each bucket of the answer and each group in it.
    fn figures<'a>(
        &'a self,
        top: &'a TopGroups,
        mut room: Room<'_>,
    ) -> Result<BTreeMap<i64, HashMap<&'a str, Figures>>, TooMuch> {
        let mut figures: BTreeMap<i64, HashMap<&str, Figures>> = BTreeMap::new();
        if self.plan.question.window == 1 {
            let filled: BTreeSet<i64> = self.sums.keys().chain(self.possible.keys()).copied().collect();
            for bucket in filled {
                let groups = self.held(bucket, top);
                room.take(groups.len())?;
                figures.insert(bucket, groups.into_iter().map(|(group, held)| (group, self.said(&held))).collect());
            }
            return Ok(figures);
        }
        let buckets = self.plan.question.buckets(&self.plan.zone);
        let mut groups: HashMap<&str, HashMap<i64, Held<'_>>> = HashMap::new();
        for bucket in &buckets {
            room.take(0)?;
            for (group, held) in self.held(*bucket, top) {
                groups.entry(group).or_default().insert(*bucket, held);
            }
            if groups.len() * buckets.len() > ANSWER_STEPS_MAX {
                return Err(TooMuch::Groups);
            }
        }
        let window = || Window::new(self.plan.question.window as usize);
        // Whole windows of before the answer are none of it.
        let first = self.plan.question.bucket(self.plan.question.start, &self.plan.zone);
        for (group, mut held) in groups {
            let (mut sure, mut possible) = (window(), window());
            for bucket in &buckets {
                let Held { sure: now, possible: more } = held.remove(bucket).unwrap_or_default();
                let own = |sums: Option<Cow<'_, [Sum]>>| -> Sums { sums.map(Cow::into_owned) };
                let (now, more) = (sure.push(own(now)), possible.push(own(more)));
                let is_row = *bucket >= first && (now.is_some() || more.is_some());
                room.take(usize::from(is_row))?;
                if is_row {
                    let held = Held { sure: now.map(Cow::Owned), possible: more.map(Cow::Owned) };
                    figures.entry(*bucket).or_default().insert(group, self.said(&held));
                }
            }
        }
        Ok(figures)
    }

    /// What a group's sums say.
    fn said(&self, held: &Held<'_>) -> Figures {
        let zeros;
        let sure = match &held.sure {
            Some(sure) => sure,
            None => {
                zeros = self.parts.zeros();
                &zeros[..]
            }
        };
        self.say(|metric| match &held.possible {
            None => self.parts.figure(metric, sure),
            Some(more) => {
                let stat = &self.parts.metrics()[metric].stat;
                possible::figure(stat, self.parts.sum(metric, sure), self.parts.sum(metric, more))
            }
        })
    }

    /// The figures that the question asks for, made of what is said of its metrics.
    fn say(&self, of: impl Fn(usize) -> Option<Estimate>) -> Figures {
        let figures = self.plan.question.metrics.iter().zip(self.places());
        figures.map(|(figure, (metric, over))| figure.estimate(of(metric), over.and_then(&of))).collect()
    }

    /// For each figure, the place of its metric and, in a ratio, that of what it is divided by.
    fn places(&self) -> impl Iterator<Item = (usize, Option<usize>)> {
        self.plan.question.metrics.iter().scan(0, |next, figure| {
            let (metric, over) = (*next, figure.over.as_ref().map(|_| *next + 1));
            *next += figure.metrics().count();
            Some((metric, over))
        })
    }

    /// The groups of a bucket, by name; all that are not among the top ones are one, and so is what can't be told apart any more.
    fn held<'a>(&'a self, bucket: i64, top: &'a TopGroups) -> HashMap<&'a str, Held<'a>> {
        let mut held: HashMap<&str, Held<'_>> = HashMap::new();
        for (group, sums) in self.groups(bucket, top) {
            held.entry(group.unwrap_or_default()).or_default().sure = Some(sums);
        }
        for (group, sums) in groups_of(&self.possible, bucket, top, add_sums) {
            held.entry(group.unwrap_or_default()).or_default().possible = Some(sums);
        }
        for (group, sums) in self.hidden_in(bucket, top) {
            match &mut held.entry(group).or_default().possible {
                Some(possible) => add_sums(possible.to_mut(), sums),
                possible => *possible = Some(Cow::Borrowed(sums)),
            }
        }
        held
    }

    /// What a bucket has that may be of some of the top groups, and of which.
    fn hidden_in<'a>(&'a self, bucket: i64, top: &'a TopGroups) -> impl Iterator<Item = (&'a str, &'a [Sum])> {
        let hidden = self.hidden.get(&bucket).into_iter().flatten();
        let of_top = move |(folded, sums): (&'a Folded, &'a Vec<Sum>)| {
            let groups = top.iter().flatten().map(|group| &**group);
            groups.filter(|group| self.may_be(group, folded)).map(move |group| (group, &**sums))
        };
        hidden.flat_map(of_top)
    }

    /// Whether what can't be told apart any more may be of a group.
    fn may_be(&self, group: &str, folded: &Folded) -> bool {
        let values = self.values(group);
        let mut pairs = self.plan.question.group_by.iter().zip(values.into_iter().zip(&folded.values));
        pairs.all(|(dimension, (value, folded_value))| match folded_value {
            Some(known) => **known == *value,
            None => self.dictionaries.as_ref().is_none_or(|known| known.may_hide(dimension, &folded.days, value)),
        })
    }

    /// The buckets that surely have anything, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = i64> {
        self.sums.keys().copied()
    }

    /// The buckets that are asked for, ascending.
    fn buckets_asked(&self) -> Vec<i64> {
        let question = &self.plan.question;
        let mut buckets = question.buckets(&self.plan.zone);
        // Those before are only windows' beginnings.
        buckets.split_off(buckets.len().min((question.window - 1) as usize))
    }

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

    /// The cells that were kept: ascending by bucket, then by value, and the rest last. `as_of` is when the newest frame was cut, in ms.
    pub fn merged(&self, as_of: Option<i64>) -> Result<Merged, TooMuch> {
        let top = self.top();
        let mut rows = Vec::new();
        for bucket in self.cells.iter().flat_map(BTreeMap::keys) {
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

    /// Orders groups, by their figures and their names.
    fn compare(&self, a: (Option<f64>, &str), b: (Option<f64>, &str)) -> Ordering {
        by_figures(self.plan.question.order, a.0, b.0).then_with(|| {
            let ordering = self.values(a.1).cmp(&self.values(b.1));
            if self.plan.question.order.is_by_group_descending() { ordering.reverse() } else { ordering }
        })
    }

    /// Orders the rows of a bucket; the rest is last.
    fn sort(&self, rows: &mut [Row]) {
        let order = self.plan.question.order;
        let figure = |row: &Row| Some(row.figures.get(order.metric?).copied().flatten()?.value);
        rows.sort_by(|a, b| {
            let by_group = || {
                let ordering = a.group.cmp(&b.group);
                if order.is_by_group_descending() { ordering.reverse() } else { ordering }
            };
            is_rest(&a.group)
                .cmp(&is_rest(&b.group))
                .then_with(|| by_figures(order, figure(a), figure(b)))
                .then_with(by_group)
        });
    }

    /// A group's values.
    fn values<'a>(&self, group: &'a str) -> Vec<&'a str> {
        match self.plan.group_by.len() {
            0 => Vec::new(),
            1 => vec![group],
            n if group == OTHER => vec![OTHER; n],
            _ => split(group).collect(),
        }
    }
}

/// The days of a cell's bucket, in days since 1970.
fn days_of(plan: &Plan, bucket: i64) -> RangeInclusive<i64> {
    let (from, to) = plan.minutes_of(bucket);
    dictionary::day(from)..=dictionary::day(to - 1)
}

/// Whether a value that passes a test may have been folded.
fn may_hide(dictionaries: &Dictionaries, dimension: &str, days: &RangeInclusive<i64>, test: &Test) -> bool {
    match test {
        Test::In(values) => values.iter().any(|value| dictionaries.may_hide(dimension, days, value)),
        Test::Prefix(_) => dictionaries.is_folding(dimension, days),
    }
}

/// The group of a cell of which values were folded, unless they were sent like this.
fn folded_group<T: AsRef<str>>(
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
fn groups_of<'a, T: ToOwned + ?Sized>(
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
fn add_sums(ours: &mut Vec<Sum>, theirs: &[Sum]) {
    ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| ours.merge(theirs));
}

/// Whether a group is what a limit leaves over.
fn is_rest(group: &[Box<str>]) -> bool {
    group.first().is_some_and(|value| **value == *OTHER)
}

/// Orders by figures, where these are asked for; those that have none are last.
fn by_figures(order: Order, a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if order.descending => b.total_cmp(&a),
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// Joins a group's values, each after its length: `2:DE6:mobile`. A group with a folded value is none that can be told apart.
/// Says whether there are all values.
fn join<'a>(group: &mut String, values: impl Iterator<Item = Option<&'a str>>) -> bool {
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
