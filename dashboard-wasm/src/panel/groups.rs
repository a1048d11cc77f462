//! Users and events by the values of a dimension: pages, sources, campaigns, countries, devices, categories,
//! products.

use catchment_cells::row::{OTHER, Row};

use super::{Panel, value};
use crate::csv::{Field, table};
use crate::format::percent;
use crate::range::Range;

/// Rows of a panel, of one that is shown large, and of a file.
pub const ROWS: usize = 8;
/// See [`ROWS`].
pub const ROWS_OPEN: usize = 100;
/// See [`ROWS`].
pub const ROWS_SAVED: usize = 1_000;

/// What is seen: a row for each value, that of most users or events first, the rest last.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The rows.
    pub rows: Vec<Bar>,
    /// Events of all rows. Users have no such sum: who comes twice is counted once.
    pub events: f64,
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
    /// The length of its bar: that of the greatest is 1, and the rest is no longer.
    pub length: f64,
}

/// The values of most users, or of most events where those aren't about people.
pub fn question(dimension: &str, by_users: bool, range: Range, limit: usize) -> String {
    let metrics = if by_users { "metric=users&metric=events" } else { "metric=events&metric=users" };
    format!("{metrics}&group_by={dimension}&limit={limit}&{}", range.when())
}

/// Of the answer, which is in order.
pub fn show(rows: &[Row], by_users: bool) -> Shown {
    let greatest = rows.iter().filter(|row| row.group.as_deref() != Some(OTHER)).map(|row| value(row, 0));
    let greatest = greatest.fold(0.0, f64::max);
    let bar = |row: &Row| {
        let (first, second) = (value(row, 0), value(row, 1));
        let length = if greatest > 0.0 { (first / greatest).min(1.0) } else { 0.0 };
        let (users, events) = if by_users { (first, second) } else { (second, first) };
        Bar { value: row.group.as_deref().unwrap_or_default().into(), events, users, length }
    };
    let rows: Vec<Bar> = rows.iter().map(bar).collect();
    Shown { events: rows.iter().map(|row| row.events).sum(), rows }
}

/// What a row is a share of: `all` users of the range, or those whose country is known, as nobody is in many at once; else the
/// events of all rows. What is left over isn't a share of users: most of them are in other rows, too.
pub fn share(panel: Panel, bar: &Bar, shown: &Shown, all: f64) -> Option<String> {
    match panel {
        Panel::Countries => Some(percent(bar.users, shown.rows.iter().map(|row| row.users).sum())),
        panel if !panel.is_by_users() => Some(percent(bar.events, shown.events)),
        _ => (bar.value != OTHER).then(|| percent(bar.users, all.max(bar.users))),
    }
}

/// A record for each row; a share only where there is a whole that all have a part of.
pub fn csv(shown: &Shown, panel: Panel) -> String {
    let dimension = panel.dimension().unwrap_or_default();
    let record = |row: &Bar| (Field::Text(row.value.clone()), Field::Number(row.users), Field::Number(row.events));
    if panel.is_by_users() {
        let records = shown.rows.iter().map(record).map(|(value, users, events)| [value, users, events]);
        return table([dimension, "users", "events"], records);
    }
    let records = shown.rows.iter().map(|row| {
        let share = if shown.events > 0.0 { row.events / shown.events } else { 0.0 };
        let (value, users, events) = record(row);
        [value, events, users, Field::Number((share * 1e4).round() / 1e4)]
    });
    table([dimension, "events", "users", "share"], records)
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
    use catchment_cells::Estimate;
    use catchment_cells::live::Mirror;

    use super::*;
    use crate::panel::tests::{counts, view};

    #[test]
    fn rows_have_bars_and_shares() {
        let mut mirror = Mirror::new(&view(1, 1)).unwrap();
        mirror.apply(counts(1, 0, &[("/a", 10), ("/b,c", 30), (OTHER, 60)])).unwrap();
        let shown = show(&mirror.rows(), false);
        let rows: Vec<_> = shown.rows.iter().map(|row| (row.value.as_str(), row.events, row.length)).collect();
        assert_eq!(rows, [("/b,c", 30.0, 1.0), ("/a", 10.0, 1.0 / 3.0), (OTHER, 60.0, 1.0)]);
        let csv = csv(&shown, Panel::Products);
        assert_eq!(csv, "product,events,users,share\r\n\"/b,c\",30,0,0.3\r\n/a,10,0,0.1\r\n(other),60,0,0.6\r\n");
    }

    #[test]
    fn shares_are_of_a_whole() {
        let bar = |value: &str, users| Bar { value: value.into(), events: 10.0, users, length: 1.0 };
        let shown = Shown { rows: vec![bar("a", 30.0), bar(OTHER, 70.0)], events: 20.0 };
        for (panel, expected) in [
            (Panel::Pages, [Some("15%"), None]),
            (Panel::Countries, [Some("30%"), Some("70%")]),
            (Panel::Products, [Some("50%"), Some("50%")]),
        ] {
            let found = [0, 1].map(|at| share(panel, &shown.rows[at], &shown, 200.0));
            assert_eq!([found[0].as_deref(), found[1].as_deref()], expected, "{panel:?}");
        }
    }

    #[test]
    fn people_come_first_where_it_is_about_them() {
        let row = |group: &str, users: f64, events: f64| Row {
            bucket: 0,
            group: Some(group.into()),
            figures: vec![Some(Estimate::exact(users)), Some(Estimate::exact(events))],
        };
        let shown = show(&[row("/", 8.0, 9.0), row("/a", 4.0, 90.0), row(OTHER, 1.0, 1.0)], true);
        let rows: Vec<_> = shown.rows.iter().map(|row| (row.users, row.events, row.length)).collect();
        assert_eq!(rows, [(8.0, 9.0, 1.0), (4.0, 90.0, 0.5), (1.0, 1.0, 0.125)]);
        assert_eq!(csv(&shown, Panel::Pages), "page,users,events\r\n/,8,9\r\n/a,4,90\r\n(other),1,1\r\n");
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
