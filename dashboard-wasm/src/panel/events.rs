//! Events and page views over time.

use catchment_cells::live::Mirror;

use super::{active, value};
use crate::calendar::{Date, clock, clock_name, rfc3339};
use crate::csv::{Field, table};
use crate::range::{Grain, Range, Span};

/// More buckets than any range has: a server that says otherwise is not followed.
const BUCKETS_MAX: usize = 2_000;

/// What is seen: a bucket each, those without events included, from the range's start to now.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// How time is cut.
    pub grain: Grain,
    /// When each begins, as a minute.
    pub starts: Vec<i64>,
    /// Users of each.
    pub users: Vec<f64>,
    /// Events of each.
    pub events: Vec<f64>,
    /// Page views of each.
    pub page_views: Vec<f64>,
}

/// By minute, hour or day.
pub fn question(range: Range) -> String {
    match range.grain() {
        Grain::Minute => active::question(),
        grain => {
            format!("metric=users&metric=events&metric=page_views&granularity={}&{}", grain.word(), range.when())
        }
    }
}

/// Of the answer's rows; `now` is the present minute.
pub fn show(mirror: &Mirror, range: Range, now: i64) -> Shown {
    let grain = range.grain();
    let (start, end) = mirror.range();
    let Span { start, end } = Span { start, end: end.min(now.max(start) + 1) };
    let next = |at: &i64| Some(grain.next(*at)).filter(|next| *next < end);
    let starts: Vec<i64> = std::iter::successors((start < end).then_some(start), next).take(BUCKETS_MAX).collect();
    let nothing = vec![0.0; starts.len()];
    let mut shown = Shown { grain, starts, users: nothing.clone(), events: nothing.clone(), page_views: nothing };
    for row in mirror.rows() {
        if let Ok(at) = shown.starts.binary_search(&row.bucket) {
            (shown.users[at], shown.events[at], shown.page_views[at]) =
                (value(&row, 0), value(&row, 1), value(&row, 2));
        }
    }
    shown
}

/// A record for each bucket.
pub fn csv(shown: &Shown) -> String {
    let record = |at: usize| {
        let [users, events, page_views] =
            [&shown.users, &shown.events, &shown.page_views].map(|series| Field::Number(series[at]));
        [Field::Text(rfc3339(shown.starts[at])), users, events, page_views]
    };
    table(["time", "users", "events", "page_views"], (0..shown.starts.len()).map(record))
}

impl Shown {
    /// A bucket's name: `14:05`, `Mon 23 Nov, 14:00`, `Mon 23 Nov`.
    pub fn name(&self, at: usize) -> String {
        let start = self.starts.get(at).copied().unwrap_or_default();
        match self.grain {
            Grain::Minute => format!("{} {}", clock(start), clock_name()),
            Grain::Hour => {
                let end = clock(Grain::Hour.next(start));
                format!("{}, {}–{end} {}", Date::of(start).short(), clock(start), clock_name())
            }
            Grain::Day => Date::of(start).short(),
        }
    }
}

#[cfg(test)]
mod tests {
    use catchment_cells::key::Tier;
    use catchment_cells::limits::MINUTE_MAX;
    use catchment_cells::live::{Changed, RowKey, Update, View};
    use catchment_cells::sum::Sum;
    use catchment_cells::users::{Coupon, Users};

    use super::*;
    use crate::calendar::{DAY, HOUR};

    #[test]
    fn empty_buckets_are_shown_and_coming_ones_are_not() {
        let day = 20_780 * DAY;
        let metrics = ["users", "events", "page_views"].map(str::to_owned).to_vec();
        let view = View { subscription: 1, view: 1, metrics, cube: "event_type".into(), tier: Tier::Hour };
        let mut users = Users::default();
        users.insert(Coupon::of(1));
        let row = Changed {
            key: RowKey { bucket: day + HOUR, group: None },
            whole: true,
            sums: vec![Sum::Users(users), Sum::Count(7), Sum::Count(4)],
        };
        let mut mirror = Mirror::new(&view).unwrap();
        let rows = vec![row];
        let update = Update { view: 1, from: 0, to: 1, start: day, end: day + DAY, as_of: None, gone: vec![], rows };
        mirror.apply(update).unwrap();
        let shown = show(&mirror, Range::Today, day + 3 * HOUR + 5);
        assert_eq!(shown.starts, [day, day + HOUR, day + 2 * HOUR, day + 3 * HOUR]);
        assert_eq!(shown.events, [0.0, 7.0, 0.0, 0.0]);
        assert_eq!(shown.name(1), "Mon 23 Nov, 01:00–02:00 UTC");
        let lines: Vec<String> = csv(&shown).lines().map(str::to_owned).collect();
        assert_eq!(lines[2], "2026-11-23T01:00:00Z,1,7,4");
    }

    #[test]
    fn a_server_chooses_no_allocation() {
        let metrics = ["users", "events", "page_views"].map(str::to_owned).to_vec();
        let view = View { subscription: 1, view: 1, metrics, cube: "event_type".into(), tier: Tier::Hour };
        let mut mirror = Mirror::new(&view).unwrap();
        let (start, end) = (-MINUTE_MAX, MINUTE_MAX);
        mirror.apply(Update { view: 1, from: 0, to: 1, start, end, as_of: None, gone: vec![], rows: vec![] }).unwrap();
        assert_eq!(show(&mirror, Range::HalfHour, MINUTE_MAX).starts.len(), BUCKETS_MAX);
    }
}
