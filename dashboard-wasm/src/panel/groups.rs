//! Events by the values of a dimension: pages, sources, countries, devices, categories, products.

use catchment_cells::live::Mirror;
use catchment_cells::row::{OTHER, Row};

use super::{Panel, value};
use crate::csv::{Field, table};
use crate::range::Range;

/// Rows of a panel, and of one that is shown large.
pub const ROWS: usize = 8;
/// See [`ROWS`].
pub const ROWS_OPEN: usize = 100;

/// What is seen: a row for each value, the most frequent first, the rest last.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The rows.
    pub rows: Vec<Bar>,
    /// Events of all rows.
    pub total: f64,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// The dimension's value, or that of the rest.
    pub value: String,
    /// Its events.
    pub events: f64,
    /// Its users.
    pub users: f64,
    /// The length of its bar: that of the greatest is 1.
    pub length: f64,
}

/// The most frequent values.
pub fn question(dimension: &str, range: Range, open: bool) -> String {
    let limit = if open { ROWS_OPEN } else { ROWS };
    format!("metric=events&metric=users&group_by={dimension}&limit={limit}&{}", range.when())
}

/// Of the answer, which is in order.
pub fn show(mirror: &Mirror) -> Shown {
    let rows = mirror.rows();
    let greatest = rows.iter().map(|row| value(row, 0)).fold(0.0, f64::max);
    let bar = |row: &Row| {
        let events = value(row, 0);
        let length = if greatest > 0.0 { events / greatest } else { 0.0 };
        Bar { value: row.group.as_deref().unwrap_or_default().into(), events, users: value(row, 1), length }
    };
    let rows: Vec<Bar> = rows.iter().map(bar).collect();
    Shown { total: rows.iter().map(|row| row.events).sum(), rows }
}

/// A record for each row.
pub fn csv(shown: &Shown, panel: Panel) -> String {
    let record = |row: &Bar| {
        let share = if shown.total > 0.0 { row.events / shown.total } else { 0.0 };
        let [events, users, share] = [row.events, row.users, (share * 1e4).round() / 1e4].map(Field::Number);
        [Field::Text(row.value.clone()), events, users, share]
    };
    table([panel.dimension().unwrap_or_default(), "events", "users", "share"], shown.rows.iter().map(record))
}

/// How a value is written for people; `country` names a country by its code, as the browser knows it.
pub fn name(panel: Panel, value: &str, country: impl Fn(&str) -> Option<String>) -> String {
    match (panel, value) {
        (_, OTHER) => "Everything else".into(),
        (Panel::Devices, "desktop") => "Desktop".into(),
        (Panel::Devices, "mobile") => "Phone".into(),
        (Panel::Devices, "tablet") => "Tablet".into(),
        (Panel::Countries, code) => country(code).unwrap_or_else(|| code.into()),
        (_, value) => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::tests::{counts, view};

    #[test]
    fn rows_have_bars_and_shares() {
        let mut mirror = Mirror::new(&view(1, 1)).unwrap();
        mirror.apply(counts(1, 0, &[("/a", 10), ("/b,c", 30), (OTHER, 60)])).unwrap();
        let shown = show(&mirror);
        let rows: Vec<_> = shown.rows.iter().map(|row| (row.value.as_str(), row.events, row.length)).collect();
        assert_eq!(rows, [("/b,c", 30.0, 0.5), ("/a", 10.0, 1.0 / 6.0), (OTHER, 60.0, 1.0)]);
        let csv = csv(&shown, Panel::Pages);
        assert_eq!(csv, "page,events,users,share\r\n\"/b,c\",30,0,0.3\r\n/a,10,0,0.1\r\n(other),60,0,0.6\r\n");
    }

    #[test]
    fn values_are_named() {
        let country = |code: &str| (code == "DE").then(|| "Germany".to_owned());
        for (panel, value, expected) in [
            (Panel::Countries, "DE", "Germany"),
            (Panel::Countries, "??", "??"),
            (Panel::Devices, "mobile", "Phone"),
            (Panel::Pages, "mobile", "mobile"),
            (Panel::Pages, OTHER, "Everything else"),
        ] {
            assert_eq!(name(panel, value, country), expected);
        }
    }
}
