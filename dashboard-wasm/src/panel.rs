//! The panels. Each sibling says in `question` what it asks, in `show` what is seen of the answer, and in `csv` what is taken along.

pub mod active;
pub mod events;
pub mod groups;
pub mod revenue;
pub mod users;

use catchment_cells::live::Mirror;
use catchment_cells::row::Row;

use crate::range::Range;

/// A panel; its name is in links, in the page's markup and in files' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    /// Users of the last five minutes.
    Active,
    /// Events and page views over time.
    Events,
    /// Users of the range.
    Users,
    /// Users by page.
    Pages,
    /// Users by the site that a visit came from.
    Sources,
    /// Users by the source that a campaign's links name.
    Campaigns,
    /// Users by country.
    Countries,
    /// Users by kind of device.
    Devices,
    /// Events by category.
    Categories,
    /// Events by product.
    Products,
    /// Sums of money.
    Revenue,
}

impl Panel {
    /// In the page's order.
    pub const ALL: [Panel; 11] = [
        Panel::Active,
        Panel::Users,
        Panel::Events,
        Panel::Pages,
        Panel::Sources,
        Panel::Countries,
        Panel::Devices,
        Panel::Revenue,
        Panel::Campaigns,
        Panel::Categories,
        Panel::Products,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Panel::Active => "active",
            Panel::Events => "events",
            Panel::Users => "users",
            Panel::Pages => "pages",
            Panel::Sources => "sources",
            Panel::Campaigns => "campaigns",
            Panel::Countries => "countries",
            Panel::Devices => "devices",
            Panel::Categories => "categories",
            Panel::Products => "products",
            Panel::Revenue => "revenue",
        }
    }

    /// The panel of a name.
    pub fn parse(name: &str) -> Option<Panel> {
        Panel::ALL.into_iter().find(|panel| panel.name() == name)
    }

    /// The dimension whose values it lists, if it lists any.
    pub fn dimension(self) -> Option<&'static str> {
        Some(match self {
            Panel::Pages => "page",
            Panel::Sources => "referrer",
            Panel::Campaigns => "utm_source",
            Panel::Countries => "country",
            Panel::Devices => "device",
            Panel::Categories => "category",
            Panel::Products => "product",
            Panel::Active | Panel::Events | Panel::Users | Panel::Revenue => return None,
        })
    }

    /// Whether its rows are about people first, and then about what they did.
    pub fn is_by_users(self) -> bool {
        matches!(self, Panel::Pages | Panel::Sources | Panel::Campaigns | Panel::Countries | Panel::Devices)
    }

    /// Whether it can be shown large, with more rows.
    pub fn opens(self) -> bool {
        self.dimension().is_some()
    }

    /// What it asks; nothing where there is nothing to ask about yet.
    pub fn question(self, range: Range, open: Option<Panel>, currencies: &[String]) -> Option<String> {
        Some(match self {
            Panel::Active => active::question(),
            Panel::Events => events::question(range),
            Panel::Users => users::question(range),
            Panel::Revenue => return revenue::question(range, currencies),
            group => {
                let limit = if open == Some(group) { groups::ROWS_OPEN } else { groups::ROWS };
                groups::question(group.dimension()?, group.is_by_users(), range, limit)
            }
        })
    }

    /// What its file asks, where that is more than what is shown.
    pub fn question_of_file(self, range: Range) -> Option<String> {
        Some(groups::question(self.dimension()?, self.is_by_users(), range, groups::ROWS_SAVED))
    }

    /// Whether its answer has nothing to show; where it is a number, 0 is something.
    pub fn is_empty(self, mirror: &Mirror) -> bool {
        !matches!(self, Panel::Active | Panel::Events | Panel::Users) && mirror.rows().is_empty()
    }

    /// What is taken along of its answer; `now` is the present minute.
    pub fn csv(self, mirror: &Mirror, range: Range, now: i64, currencies: &[String]) -> String {
        match self {
            Panel::Active => active::csv(&active::show(mirror), mirror),
            Panel::Events => events::csv(&events::show(mirror, range, now)),
            Panel::Users => users::csv(&users::show(mirror)),
            Panel::Revenue => revenue::csv(&revenue::show(mirror, currencies)),
            group => groups::csv(&groups::show(&mirror.rows(), group.is_by_users()), group),
        }
    }

    /// The name of that file; a client's is of letters, digits, `_` and `-`.
    pub fn file_name(self, client: &str, range: Range) -> String {
        let range = if self == Panel::Active { Range::HalfHour } else { range };
        format!("{client}-{}-{}.csv", self.name(), range.word().replace("..", "_"))
    }
}

/// The figure of a metric in a row of an answer: 0 where there is nothing to say.
fn value(row: &Row, metric: usize) -> f64 {
    row.figures.get(metric).copied().flatten().map_or(0.0, |figure| figure.value)
}

#[cfg(test)]
pub(crate) mod tests {
    use catchment_cells::key::Tier;
    use catchment_cells::live::{Changed, RowKey, Update, View};
    use catchment_cells::sum::Sum;

    use super::*;

    #[test]
    fn names_come_back() {
        for panel in Panel::ALL {
            assert_eq!(Panel::parse(panel.name()), Some(panel));
        }
    }

    #[test]
    fn questions_are_the_metrics_apis() {
        let currencies = ["EUR".to_owned()];
        for (panel, expected) in [
            (Panel::Active, Some("metric=users&metric=events&metric=page_views&granularity=1m&last=30m")),
            (Panel::Events, Some("metric=users&metric=events&metric=page_views&granularity=1h&last=7d")),
            (Panel::Users, Some("metric=users&metric=events&metric=page_views&metric=count:revenue&last=7d")),
            (Panel::Sources, Some("metric=users&metric=events&group_by=referrer&limit=8&last=7d")),
            (Panel::Pages, Some("metric=users&metric=events&group_by=page&limit=100&last=7d")),
            (Panel::Products, Some("metric=events&metric=users&group_by=product&limit=8&last=7d")),
            (Panel::Revenue, Some("metric=sum:revenue_EUR&metric=avg:revenue_EUR&last=7d")),
        ] {
            assert_eq!(panel.question(Range::Week, Some(Panel::Pages), &currencies).as_deref(), expected);
        }
        assert_eq!(Panel::Revenue.question(Range::Week, None, &[]), None);
    }

    #[test]
    fn the_minutes_of_the_half_hour_are_asked_for_once() {
        assert_eq!(events::question(Range::HalfHour), active::question());
    }

    /// A view of events by group.
    pub(crate) fn view(subscription: u64, view: u64) -> View {
        let metrics = vec!["events".into(), "sum:revenue_EUR".into(), "avg:revenue_EUR".into()];
        View { subscription, view, metrics, cube: "page".into(), tier: Tier::Minute }
    }

    /// An update of that view from a version to the next.
    pub(crate) fn counts(view: u64, from: u64, counts: &[(&str, u64)]) -> Update {
        let row = |&(group, count): &(&str, u64)| Changed {
            key: RowKey { bucket: 0, group: Some(group.into()) },
            whole: true,
            sums: vec![Sum::Count(count), Sum::Measure(None)],
        };
        let rows = counts.iter().map(row).collect();
        Update { view, from, to: from + 1, start: 0, end: 30, as_of: None, gone: Vec::new(), rows }
    }
}
