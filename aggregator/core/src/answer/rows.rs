//! What an answer says: rows of figures, in the question's order.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use catchment_cells::Estimate;
use catchment_cells::row::{self, OTHER};
use catchment_cells::sum::Sum;

use super::groups::{Folded, add_sums, groups_of};
use super::{Answer, TooMuch, TopGroups};
use crate::limits::{ANSWER_FIGURES_MAX, ANSWER_ROWS_MAX, ANSWER_STEPS_MAX};
use crate::possible;
use crate::question::Order;
use crate::slide::{Sums, Window};

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

impl Answer {
    /// The rows: ascending by bucket; in a bucket, groups in the question's order, then by value, and the rest last.
    pub fn rows(&self) -> Result<Vec<Row>, TooMuch> {
        self.rows_beside(None, &|| true)
    }

    /// The rows, made while there is time. With `before`, the answer to the plan of the [period before](crate::Plan::before), they have its
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
                self.check_hidden(bucket, top)?;
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
            self.check_hidden(*bucket, top)?;
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
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, Option<usize>)> {
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

    /// Whether what can't be told apart any more in a bucket may be held against each of the top groups.
    pub(super) fn check_hidden(&self, bucket: i64, top: &TopGroups) -> Result<(), TooMuch> {
        let hidden = self.hidden.get(&bucket).map_or(0, HashMap::len);
        if hidden * top.as_ref().map_or(0, HashSet::len) > ANSWER_STEPS_MAX { Err(TooMuch::Groups) } else { Ok(()) }
    }

    /// What a bucket has that may be of some of the top groups, and of which.
    pub(super) fn hidden_in<'a>(
        &'a self,
        bucket: i64,
        top: &'a TopGroups,
    ) -> impl Iterator<Item = (&'a str, &'a [Sum])> {
        let hidden = self.hidden.get(&bucket).into_iter().flatten();
        let of_top = move |(folded, sums): (&'a Folded, &'a Vec<Sum>)| {
            let groups = top.iter().flatten().map(|group| &**group);
            groups.filter(|group| self.may_be(group, folded)).map(move |group| (group, &**sums))
        };
        hidden.flat_map(of_top)
    }

    /// The buckets that are asked for, ascending.
    fn buckets_asked(&self) -> Vec<i64> {
        let question = &self.plan.question;
        let mut buckets = question.buckets(&self.plan.zone);
        // Those before are only windows' beginnings.
        buckets.split_off(buckets.len().min((question.window - 1) as usize))
    }

    /// Orders groups, by their figures and their names.
    pub(super) fn compare(&self, a: (Option<f64>, &str), b: (Option<f64>, &str)) -> Ordering {
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
}

/// Whether a group is what a limit leaves over.
pub(super) fn is_rest(group: &[Box<str>]) -> bool {
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
