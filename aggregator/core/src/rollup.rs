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

/// The start of the bucket that a minute lies in, as a minute.
pub fn floor(tier: Tier, minute: i64, zone: &TimeZone) -> i64 {
    let zoned = minute.checked_mul(60).and_then(|second| Timestamp::from_second(second).ok());
    let Some(zoned) = zoned.map(|timestamp| timestamp.to_zoned(zone.clone())) else {
        // Beyond the calendar there are no clocks to respect: buckets are as long as ever.
        return minute - minute.rem_euclid(minutes(tier));
    };
    match tier {
        Tier::Minute => minute,
        Tier::Hour => minute - i64::from(zoned.minute()),
        Tier::Day => match zoned.start_of_day() {
            Ok(start) => start.timestamp().as_second().div_euclid(60),
            Err(_) => minute - minute.rem_euclid(minutes(tier)),
        },
    }
}

/// The start of the first bucket that begins at a minute or after it.
pub fn ceil(tier: Tier, minute: i64, zone: &TimeZone) -> i64 {
    let start = floor(tier, minute, zone);
    if start == minute { minute } else { next(tier, start, zone) }
}

/// The start of the bucket after the one that starts here.
pub fn next(tier: Tier, start: i64, zone: &TimeZone) -> i64 {
    // Half a bucket further than its usual length lies in the next one, even where a day has 23 or 25 hours.
    let length = minutes(tier);
    floor(tier, start + length + length / 2, zone)
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
