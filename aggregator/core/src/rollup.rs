//! Minutes into hours and days, on the client's own clock.

use catchment_cells::key::Tier;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The length of a tier's bucket, in minutes; a day that a clock change shortens or stretches aside.
pub fn minutes(tier: Tier) -> i64 {
    match tier {
        Tier::Minute => 1,
        Tier::Hour => 60,
        Tier::Day => 24 * 60,
    }
}

/// The start of the bucket that a minute lies in, as a minute. Hours count from the start of their day, so that they tile it also
/// where clocks change by half an hour.
pub fn floor(tier: Tier, minute: i64, zone: &TimeZone) -> i64 {
    match tier {
        Tier::Minute => minute,
        Tier::Hour => minute - (minute - floor(Tier::Day, minute, zone)) % minutes(tier),
        Tier::Day => day(minute, zone).unwrap_or(minute - minute.rem_euclid(minutes(tier))),
    }
}

/// The start of a minute's day; `None` beyond the calendar, where there are no clocks to respect: days are as long as ever.
fn day(minute: i64, zone: &TimeZone) -> Option<i64> {
    if let Ok(offset) = zone.to_fixed_offset()
        && offset.seconds() % 60 == 0
    {
        // Without clock changes no calendar is needed, and calendars are slow.
        let local = minute.checked_add(i64::from(offset.seconds() / 60))?;
        return minute.checked_sub(local.rem_euclid(minutes(Tier::Day)));
    }
    let timestamp = Timestamp::from_second(minute.checked_mul(60)?).ok()?;
    let start = timestamp.to_zoned(zone.clone()).start_of_day().ok()?;
    Some(first_minute(start.timestamp()))
}

/// The first whole minute from a time on: clocks of the 19th century were off by seconds.
pub(crate) fn first_minute(from: Timestamp) -> i64 {
    let second = from.as_second() + i64::from(from.subsec_nanosecond() > 0);
    second.div_euclid(60) + i64::from(second.rem_euclid(60) > 0)
}

/// The start of the first bucket that begins at a minute or after it.
pub fn ceil(tier: Tier, minute: i64, zone: &TimeZone) -> i64 {
    let start = floor(tier, minute, zone);
    if start == minute { minute } else { next(tier, start, zone) }
}

/// The start of the bucket after the one that starts here.
pub fn next(tier: Tier, start: i64, zone: &TimeZone) -> i64 {
    let day = minutes(Tier::Day);
    match tier {
        Tier::Minute => start + 1,
        // A day's last hour is shorter where the day's length is no whole number of hours.
        Tier::Hour => (start + minutes(tier)).min(next(Tier::Day, floor(Tier::Day, start, zone), zone)),
        Tier::Day => {
            // Half a day further than the usual length lies in the next one, even where a day has 23 or 25 hours. One had 48, when Alaska
            // came over the date line.
            let later = |days| floor(Tier::Day, start + days * day + day / 2, zone);
            let next = later(1);
            if next > start { next } else { later(2).max(start + day) }
        }
    }
}

#[cfg(test)]
mod tests {
    use catchment_cells::limits::MINUTE_MAX;
    use jiff::tz::Offset;
    use proptest::prelude::*;

    use super::*;

    fn minute(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second() / 60
    }

    #[test]
    fn buckets_start_on_the_given_clock() {
        let india = TimeZone::fixed(Offset::from_seconds(19_800).unwrap());
        for (zone, tier, at, start) in [
            (TimeZone::UTC, Tier::Hour, "1995-08-28T10:59:00Z", "1995-08-28T10:00:00Z"),
            (TimeZone::UTC, Tier::Day, "1995-08-28T10:59:00Z", "1995-08-28T00:00:00Z"),
            (TimeZone::UTC, Tier::Day, "1960-02-29T23:59:00Z", "1960-02-29T00:00:00Z"),
            (india.clone(), Tier::Hour, "1995-08-28T10:29:00Z", "1995-08-28T09:30:00Z"),
            (india, Tier::Day, "1995-08-28T18:29:00Z", "1995-08-27T18:30:00Z"),
        ] {
            assert_eq!(floor(tier, minute(at), &zone), minute(start), "{tier:?} of {at}");
        }
    }

    #[test]
    fn hours_tile_days_whatever_their_length() {
        for (zone, at, length) in [
            ("EST5EDT,M3.2.0,M11.1.0", "2024-03-10T12:00:00-04:00", 23 * 60),
            ("EST5EDT,M3.2.0,M11.1.0", "2024-11-03T12:00:00-05:00", 25 * 60),
            ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2024-04-07T12:00:00+10:30", 24 * 60 + 30),
            ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2024-10-06T12:00:00+11:00", 23 * 60 + 30),
            ("<+0545>-5:45", "2024-10-06T12:00:00+05:45", 24 * 60),
        ] {
            let zone = TimeZone::posix(zone).unwrap();
            let start = floor(Tier::Day, minute(at), &zone);
            let end = next(Tier::Day, start, &zone);
            assert_eq!(end - start, length, "{at}");
            let mut hour = start;
            for minute in start..end {
                let next = next(Tier::Hour, hour, &zone);
                hour = if minute < next { hour } else { next };
                assert_eq!(floor(Tier::Hour, minute, &zone), hour, "{at}");
                assert_eq!(ceil(Tier::Hour, hour, &zone), hour, "{at}");
            }
            assert_eq!(super::next(Tier::Hour, hour, &zone), end, "{at}");
        }
    }

    proptest! {
        #[test]
        fn buckets_tile_all_time(minute in -MINUTE_MAX..MINUTE_MAX, tier in prop_oneof![Just(Tier::Hour), Just(Tier::Day)]) {
            let start = floor(tier, minute, &TimeZone::UTC);
            prop_assert_eq!(start, minute - minute.rem_euclid(minutes(tier)));
            prop_assert_eq!(next(tier, start, &TimeZone::UTC), start + minutes(tier));
            prop_assert_eq!(floor(tier, start, &TimeZone::UTC), start);
            let end = ceil(tier, minute, &TimeZone::UTC);
            prop_assert!(end >= minute && end - minute < minutes(tier));
        }
    }
}
