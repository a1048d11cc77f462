//! A row of an answer: one bucket of one group.

use std::cmp::Ordering;

use crate::estimate::Estimate;

/// The group of what a limit leaves over.
pub const OTHER: &str = "(other)";

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

/// Orders the rows of one bucket: by the first metric descending, then by value, and the rest last.
pub fn sort_bucket(rows: &mut [Row]) {
    let rest = |row: &Row| row.group.as_deref() == Some(OTHER);
    rows.sort_by(|a, b| {
        rest(a).cmp(&rest(b)).then_with(|| rank(first(b), first(a))).then_with(|| a.group.cmp(&b.group))
    });
}

/// Orders figures; none is less than any.
pub fn rank(a: Option<f64>, b: Option<f64>) -> Ordering {
    a.unwrap_or(f64::NEG_INFINITY).total_cmp(&b.unwrap_or(f64::NEG_INFINITY))
}

fn first(row: &Row) -> Option<f64> {
    row.figures.first().copied().flatten().map(|figure| figure.value)
}
