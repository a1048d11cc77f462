//! Stretches of a client's time: how a question cuts it into buckets, the last so many units before now, and the period before.

use catchment_cells::key::Tier;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::rollup;

const DAY: i64 = 24 * 60;
const WEEK_DAYS: i64 = 7;

/// How time is cut into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// So many minutes, counted from the start of each day; more than a day has, from the question's first day.
    Minutes(i64),
    /// So many days, counted from the question's first day.
    Days(i64),
    /// So many weeks, which begin on Monday, counted from the question's first week.
    Weeks(i64),
    /// So many months of the calendar, counted from the question's first month.
    Months(i64),
    /// Not at all.
    All,
}

/// The last so many units of the client's clock, the present one included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    n: i64,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

impl Granularity {
    /// What a text says, as in `15m`, `1h`, `1d`, `2w`, `3mo` or `all`.
    pub(crate) fn parse(text: &str) -> Result<Granularity, String> {
        if text == "all" {
            return Ok(Granularity::All);
        }
        Ok(match parse(text, [10_080, 8_784, 3_660, 520, 120])? {
            (n, Unit::Minute) => Granularity::Minutes(n),
            (n, Unit::Hour) => Granularity::Minutes(n * 60),
            (n, Unit::Day) => Granularity::Days(n),
            (n, Unit::Week) => Granularity::Weeks(n),
            (n, Unit::Month) => Granularity::Months(n),
        })
    }

    /// The start of the bucket that a minute lies in, in a question that starts at `start`.
    pub fn bucket(self, minute: i64, start: i64, zone: &TimeZone) -> i64 {
        match self {
            Granularity::All => start,
            Granularity::Minutes(n) if n <= DAY => {
                let day = rollup::floor(Tier::Day, minute, zone);
                minute - (minute - day) % n
            }
            Granularity::Minutes(n) => minute - (minute - rollup::floor(Tier::Day, start, zone)).rem_euclid(n),
            Granularity::Days(n) => days_bucket(n, minute, rollup::floor(Tier::Day, start, zone), zone),
            Granularity::Weeks(n) => days_bucket(n * WEEK_DAYS, minute, week(start, zone), zone),
            Granularity::Months(n) => {
                let (Some(date), Some(first)) = (date(minute, zone), date(start, zone)) else { return start };
                let into = (months(date) - months(first)).rem_euclid(n);
                add_months(date, -into, zone).unwrap_or(start)
            }
        }
    }

    /// The start of the bucket after the one that starts here, in a question from `start` to `end`.
    pub fn next(self, bucket: i64, (start, end): (i64, i64), zone: &TimeZone) -> i64 {
        match self {
            Granularity::All => end,
            Granularity::Minutes(n) if n <= DAY => {
                let day = rollup::floor(Tier::Day, bucket, zone);
                (bucket + n).min(rollup::next(Tier::Day, day, zone))
            }
            Granularity::Minutes(n) => bucket + n,
            // Half a day further than the usual length lies in the next one, whatever clocks do meanwhile: but for a day that there was twice.
            Granularity::Days(n) => self.later(bucket, n, start, zone),
            Granularity::Weeks(n) => self.later(bucket, n * WEEK_DAYS, start, zone),
            Granularity::Months(n) => date(bucket, zone)
                .and_then(|date| add_months(date, n, zone))
                .filter(|next| *next > bucket)
                .unwrap_or(end),
        }
    }

    /// The bucket so many days after one that starts here.
    fn later(self, bucket: i64, days: i64, start: i64, zone: &TimeZone) -> i64 {
        let later = self.bucket(bucket + days * DAY + DAY / 2, start, zone);
        if later > bucket { later } else { rollup::next(Tier::Day, bucket, zone) }
    }

    /// The coarsest tier whose buckets lie each in one of the answer's, in a question from `start` to `end`.
    pub fn tier(self, (start, end): (i64, i64), zone: &TimeZone) -> Tier {
        match self {
            Granularity::Minutes(DAY) if has_even_days(start, end, zone) => Tier::Day,
            Granularity::Minutes(n) if n % 60 == 0 && (n <= DAY || has_whole_hours(start, end, zone)) => Tier::Hour,
            Granularity::Minutes(_) => Tier::Minute,
            _ => Tier::Day,
        }
    }

    /// The most buckets between two minutes.
    pub fn buckets_max(self, start: i64, end: i64) -> i64 {
        let length = match self {
            Granularity::All => return 1,
            Granularity::Minutes(n) => n,
            Granularity::Days(n) => n * DAY,
            Granularity::Weeks(n) => n * WEEK_DAYS * DAY,
            Granularity::Months(n) => n * 28 * DAY,
        };
        // One more for each day whose last bucket is a short one.
        let short = if length < DAY && DAY % length != 0 { (end - start) / DAY } else { 0 };
        (end - start) / length + short
    }

    /// Whether each bucket is as long as the others, but for what calendars and clock changes do.
    pub fn is_even(self) -> bool {
        match self {
            Granularity::Minutes(n) => n >= DAY || DAY % n == 0,
            _ => true,
        }
    }

    /// How many buckets a length of time has, as in `7d` for one of 1d; `None` if they don't fill it.
    pub(crate) fn steps(self, window: Granularity) -> Option<i64> {
        let (window, step) = match (window, self) {
            (Granularity::Months(window), Granularity::Months(step)) => (window, step),
            (Granularity::Minutes(window), Granularity::Minutes(step)) => (window, step),
            (window, Granularity::Minutes(step)) => (window.days()? * DAY, step),
            (window, step) => (window.days()?, step.days()?),
        };
        (window % step == 0 && self.is_even()).then_some(window / step)
    }

    fn days(self) -> Option<i64> {
        match self {
            Granularity::Minutes(n) if n % DAY == 0 => Some(n / DAY),
            Granularity::Days(n) => Some(n),
            Granularity::Weeks(n) => Some(n * WEEK_DAYS),
            _ => None,
        }
    }
}

impl Last {
    /// The last minutes.
    pub(crate) const fn minutes(n: i64) -> Last {
        Last { n, unit: Unit::Minute }
    }

    /// What a text says, as in `30m`, `24h`, `7d`, `4w` or `12mo`.
    pub(crate) fn parse(text: &str) -> Result<Last, String> {
        let (n, unit) = parse(text, [1_440, 1_440, 3_660, 520, 120])?;
        Ok(Last { n, unit })
    }

    /// The first minute, and the one after the last, at `now`, in ms.
    pub fn range(self, now: i64, zone: &TimeZone) -> (i64, i64) {
        let minute = now.div_euclid(60_000);
        let days = |present: i64, days: i64| {
            // Noons, since clock changes make days an hour shorter or longer.
            let at = |days: i64| rollup::floor(Tier::Day, present + DAY / 2 + days * DAY, zone);
            (at(days - self.n * days), at(days))
        };
        match self.unit {
            Unit::Day => days(rollup::floor(Tier::Day, minute, zone), 1),
            Unit::Week => days(week(minute, zone), WEEK_DAYS),
            Unit::Month => {
                let at = |months| date(minute, zone).and_then(|date| add_months(date, months, zone));
                (at(1 - self.n).unwrap_or(minute), at(1).unwrap_or(minute + 1))
            }
            unit => {
                let (tier, length) = if unit == Unit::Hour { (Tier::Hour, 60) } else { (Tier::Minute, 1) };
                let end = rollup::next(tier, rollup::floor(tier, minute, zone), zone);
                (end - self.n * length, end)
            }
        }
    }
}

/// The period before `start..end`: the same number of months where these are months of the calendar, of days where they are days,
/// else of minutes.
pub(crate) fn before(start: i64, end: i64, by_months: bool, zone: &TimeZone) -> (i64, i64) {
    let month = |minute| date(minute, zone).filter(|date| add_months(*date, 0, zone) == Some(minute));
    if by_months
        && let (Some(from), Some(to)) = (month(start), month(end))
        && let Some(earlier) = add_months(from, months(from) - months(to), zone)
    {
        return (earlier, start);
    }
    let day = |minute| rollup::floor(Tier::Day, minute, zone) == minute;
    if day(start) && day(end) {
        // Noons, since clock changes make days an hour shorter or longer.
        let days = (end + DAY / 2 - start) / DAY;
        return (rollup::floor(Tier::Day, start + DAY / 2 - days * DAY, zone), start);
    }
    (start - (end - start), start)
}

/// A number and a unit; each has a greatest number, from minutes to months.
fn parse(text: &str, most: [i64; 5]) -> Result<(i64, Unit), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let units = [Unit::Minute, Unit::Hour, Unit::Day, Unit::Week, Unit::Month];
    let unit = ["m", "h", "d", "w", "mo"].iter().position(|name| *name == unit);
    match (number.parse::<i64>(), unit) {
        (Ok(n), Some(unit)) if (1..=most[unit]).contains(&n) => Ok((n, units[unit])),
        _ => {
            let [minutes, hours, days, weeks, months] = most;
            Err(format!(
                "it is 1m to {minutes}m (minutes), 1h to {hours}h, 1d to {days}d, 1w to {weeks}w, or 1mo to {months}mo (months)"
            ))
        }
    }
}

/// The bucket of so many days that a minute lies in; `first` starts one.
fn days_bucket(n: i64, minute: i64, first: i64, zone: &TimeZone) -> i64 {
    // Noons, since clock changes make days an hour shorter or longer.
    let noon = rollup::floor(Tier::Day, minute, zone) + DAY / 2;
    let into = (noon - first).div_euclid(DAY).rem_euclid(n);
    rollup::floor(Tier::Day, noon - into * DAY, zone)
}

/// The start of a minute's week.
fn week(minute: i64, zone: &TimeZone) -> i64 {
    let noon = rollup::floor(Tier::Day, minute, zone) + DAY / 2;
    let into = date(minute, zone).map_or(0, |date| i64::from(date.weekday().to_monday_zero_offset()));
    rollup::floor(Tier::Day, noon - into * DAY, zone)
}

/// The client's date at a minute; `None` beyond the calendar.
fn date(minute: i64, zone: &TimeZone) -> Option<Date> {
    let timestamp = Timestamp::from_second(minute.checked_mul(60)?).ok()?;
    Some(timestamp.to_zoned(zone.clone()).date())
}

/// Months since the year 0.
fn months(date: Date) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month())
}

/// The start of the month that is so many months after a date's.
fn add_months(date: Date, months: i64, zone: &TimeZone) -> Option<i64> {
    let date = date.first_of_month().checked_add(Span::new().try_months(months).ok()?).ok()?;
    Some(rollup::first_minute(date.to_zoned(zone.clone()).ok()?.timestamp()))
}

/// Whether clocks change by whole hours, if at all, from a day's start to an end.
fn has_whole_hours(start: i64, end: i64, zone: &TimeZone) -> bool {
    changes(start, end, zone, |seconds| seconds % 3_600 == 0)
}

/// Whether clocks don't change at all.
fn has_even_days(start: i64, end: i64, zone: &TimeZone) -> bool {
    changes(start, end, zone, |seconds| seconds == 0)
}

/// Whether all changes of the clock, from the day that one minute is in to the one that another is in, are so, in seconds from the first.
fn changes(start: i64, end: i64, zone: &TimeZone, are: impl Fn(i32) -> bool) -> bool {
    let timestamp = |minute: i64| Timestamp::from_second(minute.saturating_mul(60));
    let (first, end) = (rollup::floor(Tier::Day, start, zone), end.saturating_add(2 * DAY));
    let (Ok(start), Ok(end)) = (timestamp(first), timestamp(end)) else { return false };
    let offset = zone.to_offset(start).seconds();
    let mut changes = zone.following(start).take_while(|change| change.timestamp() < end);
    changes.all(|change| are(change.offset().seconds() - offset))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minute(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second() / 60
    }

    fn zones() -> [TimeZone; 5] {
        [
            "UTC0",
            "EST5EDT,M3.2.0,M11.1.0",
            "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            "<+0545>-5:45",
            "CET-1CEST,M3.5.0,M10.5.0/3",
        ]
        .map(|zone| TimeZone::posix(zone).unwrap())
    }

    fn granularity() -> impl Strategy<Value = Granularity> {
        prop_oneof![
            (1i64..=10_080).prop_map(Granularity::Minutes),
            prop::sample::select(vec![60, 90, 360, 1_440, 2_160, 2_880]).prop_map(Granularity::Minutes),
            (1i64..100).prop_map(Granularity::Days),
            (1i64..20).prop_map(Granularity::Weeks),
            (1i64..20).prop_map(Granularity::Months),
        ]
    }

    proptest! {
        #[test]
        fn buckets_tile_time_on_any_clock(
            granularity in granularity(),
            zone in 0usize..5,
            start in 28_000_000i64..28_600_000,
            length in 1i64..600_000,
            at in any::<prop::sample::Index>(),
        ) {
            let zone = &zones()[zone];
            let range = (start, start + length);
            let at = start + at.index(length as usize) as i64;
            let bucket = granularity.bucket(at, start, zone);
            let next = granularity.next(bucket, range, zone);
            prop_assert!(bucket <= at && at < next, "{bucket} {at} {next}");
            prop_assert_eq!(granularity.bucket(bucket, start, zone), bucket);
            prop_assert_eq!(granularity.bucket(next - 1, start, zone), bucket);
            prop_assert_eq!(granularity.bucket(next, start, zone), next);
            // A window begins before the question does.
            let earlier = granularity.bucket(bucket - 1, start, zone);
            prop_assert_eq!(granularity.next(earlier, range, zone), bucket);
            // No bucket of the tier lies in two of the answer's.
            let tier = granularity.tier(range, zone);
            prop_assert_eq!(rollup::floor(tier, bucket, zone), bucket, "{:?}", tier);
            let mut bucket = granularity.bucket(start, start, zone);
            for _ in 0..2_000 {
                prop_assert_eq!(rollup::floor(tier, bucket, zone), bucket, "{:?}", tier);
                bucket = granularity.next(bucket, range, zone);
                if bucket >= range.1 {
                    break;
                }
            }
        }

        #[test]
        fn no_more_buckets_than_said(granularity in granularity(), zone in 0usize..5, start in 28_000_000i64..28_600_000, length in 1i64..20_000) {
            let zone = &zones()[zone];
            let range = (start, start + length);
            let mut bucket = granularity.bucket(start, start, zone);
            let mut count = 0;
            while bucket < range.1 {
                bucket = granularity.next(bucket, range, zone);
                count += 1;
            }
            // The first and the last may be cut, and a day may be an hour longer.
            let most = granularity.buckets_max(range.0, range.1);
            prop_assert!(count <= most + most / 20 + 3, "{count} {most}");
        }
    }

    #[test]
    fn buckets_start_with_days_weeks_and_months() {
        let cet = &zones()[4];
        let start = minute("2024-02-14T10:00:00+01:00");
        for (granularity, at, bucket) in [
            ("15m", "2024-02-14T10:59:00+01:00", "2024-02-14T10:45:00+01:00"),
            ("36h", "2024-02-15T12:00:00+01:00", "2024-02-15T12:00:00+01:00"),
            ("36h", "2024-02-15T11:59:00+01:00", "2024-02-14T00:00:00+01:00"),
            ("2d", "2024-04-01T12:00:00+02:00", "2024-03-31T00:00:00+01:00"),
            ("1w", "2024-02-14T10:00:00+01:00", "2024-02-12T00:00:00+01:00"),
            ("1w", "2024-04-07T23:59:00+02:00", "2024-04-01T00:00:00+02:00"),
            ("2w", "2024-03-08T12:00:00+01:00", "2024-02-26T00:00:00+01:00"),
            ("1mo", "2024-03-31T23:59:00+02:00", "2024-03-01T00:00:00+01:00"),
            ("3mo", "2024-05-20T00:00:00+02:00", "2024-05-01T00:00:00+02:00"),
            ("3mo", "2024-04-30T23:59:00+02:00", "2024-02-01T00:00:00+01:00"),
        ] {
            let bucketed = Granularity::parse(granularity).unwrap().bucket(minute(at), start, cet);
            assert_eq!(bucketed, minute(bucket), "{granularity} {at}");
        }
    }

    #[test]
    fn a_day_of_25_hours_has_one_bucket_of_24_and_one_of_1() {
        let cet = &zones()[4];
        let range = (minute("2024-10-27T00:00:00+02:00"), minute("2024-10-29T00:00:00+01:00"));
        let granularity = Granularity::parse("24h").unwrap();
        assert_eq!(granularity.tier(range, cet), Tier::Hour);
        assert_eq!(granularity.tier((range.1, range.1 + DAY), cet), Tier::Day);
        let late = minute("2024-10-27T23:30:00+01:00");
        assert_eq!(granularity.bucket(late, range.0, cet), minute("2024-10-27T23:00:00+01:00"));
    }

    #[test]
    fn the_last_units_include_the_present_one() {
        let cet = &zones()[4];
        // A Wednesday.
        let now = minute("2024-04-03T10:29:00+02:00") * 60_000 + 59_999;
        for (last, start, end) in [
            ("1m", "2024-04-03T10:29:00+02:00", "2024-04-03T10:30:00+02:00"),
            ("24h", "2024-04-02T11:00:00+02:00", "2024-04-03T11:00:00+02:00"),
            ("1d", "2024-04-03T00:00:00+02:00", "2024-04-04T00:00:00+02:00"),
            ("4d", "2024-03-31T00:00:00+01:00", "2024-04-04T00:00:00+02:00"),
            ("1w", "2024-04-01T00:00:00+02:00", "2024-04-08T00:00:00+02:00"),
            ("2w", "2024-03-25T00:00:00+01:00", "2024-04-08T00:00:00+02:00"),
            ("1mo", "2024-04-01T00:00:00+02:00", "2024-05-01T00:00:00+02:00"),
            ("15mo", "2023-02-01T00:00:00+01:00", "2024-05-01T00:00:00+02:00"),
        ] {
            assert_eq!(Last::parse(last).unwrap().range(now, cet), (minute(start), minute(end)), "{last}");
        }
    }

    #[test]
    fn the_period_before_is_as_long() {
        let cet = &zones()[4];
        for (start, end, by_months, earlier) in [
            ("2024-03-01T00:00:00+01:00", "2024-04-01T00:00:00+02:00", true, "2024-02-01T00:00:00+01:00"),
            ("2024-03-01T00:00:00+01:00", "2024-04-01T00:00:00+02:00", false, "2024-01-30T00:00:00+01:00"),
            ("2024-01-01T00:00:00+01:00", "2024-04-01T00:00:00+02:00", true, "2023-10-01T00:00:00+02:00"),
            ("2024-03-31T00:00:00+01:00", "2024-04-01T00:00:00+02:00", true, "2024-03-30T00:00:00+01:00"),
            ("2024-04-01T00:00:00+02:00", "2024-04-08T00:00:00+02:00", true, "2024-03-25T00:00:00+01:00"),
            ("2024-04-01T10:00:00+02:00", "2024-04-01T10:30:00+02:00", true, "2024-04-01T09:30:00+02:00"),
        ] {
            let expected = (minute(earlier), minute(start));
            assert_eq!(before(minute(start), minute(end), by_months, cet), expected, "{start} {end}");
        }
    }

    #[test]
    fn windows_are_of_whole_steps() {
        let parse = |text| Granularity::parse(text).unwrap();
        for (step, window, steps) in [
            ("1d", "7d", Some(7)),
            ("1d", "1w", Some(7)),
            ("1w", "4w", Some(4)),
            ("5m", "1h", Some(12)),
            ("1h", "1d", Some(24)),
            ("1mo", "12mo", Some(12)),
            ("7m", "14m", None),
            ("1d", "12h", None),
            ("2d", "7d", None),
            ("1d", "1mo", None),
            ("1mo", "30d", None),
            ("all", "7d", None),
            ("1d", "all", None),
        ] {
            assert_eq!(parse(step).steps(parse(window)), steps, "{window} by {step}");
        }
    }
}
