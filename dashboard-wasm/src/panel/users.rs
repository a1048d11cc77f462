//! How many users came in the range, and how many events there were.

use catchment_cells::Estimate;
use catchment_cells::live::Mirror;

use super::revenue;
use crate::csv::{Field, table};
use crate::range::Range;

/// The metrics, in their order; also those of the period before.
pub const METRICS: [&str; 4] = ["users", "events", "page_views", revenue::SALES];

/// What is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shown {
    /// Users.
    pub users: Estimate,
    /// Events.
    pub events: Estimate,
    /// Page views among them.
    pub page_views: Estimate,
    /// Sales among them.
    pub sales: Estimate,
}

/// The whole range in one row.
pub fn question(range: Range) -> String {
    format!("{}&{}", METRICS.map(|metric| format!("metric={metric}")).join("&"), range.when())
}

/// Of the only row; without any, nobody came.
pub fn show(mirror: &Mirror) -> Shown {
    let rows = mirror.rows();
    let figure = |metric: usize| {
        rows.first().and_then(|row| row.figures.get(metric).copied().flatten()).unwrap_or(Estimate::exact(0.0))
    };
    Shown { users: figure(0), events: figure(1), page_views: figure(2), sales: figure(3) }
}

/// A record for each figure, with its bounds.
pub fn csv(shown: &Shown) -> String {
    let record = |(name, figure): (&str, Estimate)| {
        let [value, lower, upper] = [figure.value, figure.lower, figure.upper].map(Field::Number);
        [Field::Text(name.into()), value, lower, upper]
    };
    let figures = METRICS.into_iter().zip([shown.users, shown.events, shown.page_views, shown.sales]);
    table(["metric", "value", "lower", "upper"], figures.map(record))
}
