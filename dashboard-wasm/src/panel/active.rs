//! Who is there now: users of the last five minutes, as a union of minutes, made here.

use catchment_cells::Estimate;
use catchment_cells::live::Mirror;

use super::value;
use crate::calendar::rfc3339;
use crate::csv::{Field, table};

/// The window that slides, in minutes; the present one is its last.
pub const WINDOW: i64 = 5;
/// Minutes that are drawn.
pub const MINUTES: i64 = 30;
const USERS: usize = 0;

/// What is seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Users of the window.
    pub users: Estimate,
    /// Users of each minute, the present one last.
    pub minutes: Vec<f64>,
}

/// Minutes, whatever range is looked at.
pub fn question() -> String {
    format!("metric=users&metric=events&metric=page_views&granularity=1m&last={MINUTES}m")
}

/// Of the minutes' answer.
pub fn show(mirror: &Mirror) -> Shown {
    let (_, end) = mirror.range();
    let mut minutes = vec![0.0; MINUTES as usize];
    for row in mirror.rows() {
        if let Some(at) = usize::try_from(row.bucket - (end - MINUTES)).ok().and_then(|at| minutes.get_mut(at)) {
            *at = value(&row, USERS);
        }
    }
    Shown { users: mirror.users_in(end - WINDOW, end, USERS), minutes }
}

/// A record for each minute.
pub fn csv(shown: &Shown, mirror: &Mirror) -> String {
    let first = mirror.range().1 - MINUTES;
    let record = |(at, users): (usize, &f64)| [Field::Text(rfc3339(first + at as i64)), Field::Number(*users)];
    table(["time", "users"], shown.minutes.iter().enumerate().map(record))
}

#[cfg(test)]
mod tests {
    use catchment_cells::key::Tier;
    use catchment_cells::live::{Changed, RowKey, Update, View};
    use catchment_cells::sum::Sum;
    use catchment_cells::users::{Coupon, Users};

    use super::*;

    fn mirror(minutes: &[(i64, std::ops::Range<u64>)], end: i64) -> Mirror {
        let view =
            View { subscription: 1, view: 1, metrics: vec!["users".into()], cube: "total".into(), tier: Tier::Minute };
        let row = |(bucket, ids): &(i64, std::ops::Range<u64>)| {
            let mut users = Users::default();
            ids.clone().for_each(|id| users.insert(Coupon::of(id)));
            Changed { key: RowKey { bucket: *bucket, group: None }, whole: true, sums: vec![Sum::Users(users)] }
        };
        let rows = minutes.iter().map(row).collect();
        let mut mirror = Mirror::new(&view).unwrap();
        let update = Update { view: 1, from: 0, to: 1, start: end - 30, end, as_of: None, gone: Vec::new(), rows };
        mirror.apply(update).unwrap();
        mirror
    }

    #[test]
    fn users_of_five_minutes_are_a_union() {
        // 10 users in the oldest of the five minutes, 5 of them and 5 others now; 7 more just before the window.
        let mirror = mirror(&[(94, 100..107), (95, 0..10), (99, 5..15)], 100);
        let shown = show(&mirror);
        assert_eq!(shown.users.value, 15.0);
        assert!(shown.users.exact);
        assert_eq!(shown.minutes[24..], [7.0, 10.0, 0.0, 0.0, 0.0, 10.0]);
        assert!(csv(&shown, &mirror).ends_with("1970-01-01T01:39:00Z,10\r\n"));
    }
}
