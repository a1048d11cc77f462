//! Dates and times of the client's clock, which the server tells. A calendar of our own: a library's would weigh more than all
//! else here, and the browser's isn't there in tests.

use std::cell::RefCell;
use std::fmt;

/// Minutes of a day.
pub const DAY: i64 = 1_440;
/// Minutes of an hour.
pub const HOUR: i64 = 60;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
/// Years that are written with four digits.
const YEARS: std::ops::RangeInclusive<i64> = 1970..=9999;

/// A clock's name, and from which minute on it is how many minutes ahead of UTC.
type Clock = (String, Vec<(i64, i64)>);

thread_local! {
    /// The clock of all that is shown: one page is of one client. UTC, unless the server says another.
    static CLOCK: RefCell<Clock> = RefCell::new(utc());
}

fn utc() -> Clock {
    ("UTC".into(), Vec::new())
}

/// All that is shown is of UTC.
pub fn reset_clock() {
    CLOCK.set(utc());
}

/// All that is shown is of this clock.
pub fn set_clock(name: String, offsets: Vec<(i64, i64)>) {
    CLOCK.set((name, offsets));
}

/// The clock's name.
pub fn clock_name() -> String {
    CLOCK.with_borrow(|clock| clock.0.clone())
}

/// What the clock shows at a minute, as a minute of UTC.
pub fn local(minute: i64) -> i64 {
    let ahead = |clock: &Clock| clock.1.iter().rev().find(|(from, _)| *from <= minute).map_or(0, |(_, ahead)| *ahead);
    minute + CLOCK.with_borrow(ahead)
}

/// The minute at which the clock shows what it does.
pub fn of_local(shown: i64) -> i64 {
    let ahead = |at: i64| local(at) - at;
    // What held a while before may not hold at that time any more.
    let first = shown - ahead(shown - DAY);
    shown - ahead(first)
}

/// A day: how many since 1970-01-01. Written `2026-01-31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub i64);

impl Date {
    /// The day that a minute lies in.
    pub fn of(minute: i64) -> Date {
        Date(local(minute).div_euclid(DAY))
    }

    /// Its first minute.
    pub fn start(self) -> i64 {
        of_local(self.0 * DAY)
    }

    /// The day so many days after it, or before it.
    pub fn plus(self, days: i64) -> Date {
        Date(self.0 + days)
    }

    /// Reads `2026-01-31`; only days that there are.
    pub fn parse(text: &str) -> Option<Date> {
        let mut parts = text.split('-');
        let mut number = |digits: usize| {
            let part = parts.next()?;
            let plain = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse::<i64>().ok().filter(|_| plain)
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        let fits =
            parts.next().is_none() && YEARS.contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        let date = fits.then(|| Date::from_civil(year, month, day))?;
        // The 31st of a month of 30 days comes back as another day.
        (date.civil() == (year, month, day)).then_some(date)
    }

    /// Its year.
    pub fn year(self) -> i64 {
        self.civil().0
    }

    /// `23 Nov`.
    pub fn brief(self) -> String {
        let (_, month, day) = self.civil();
        format!("{day} {}", MONTHS[month as usize - 1])
    }

    /// `Mon 23 Nov`.
    pub fn short(self) -> String {
        format!("{} {}", WEEKDAYS[self.0.rem_euclid(7) as usize], self.brief())
    }

    /// `23 Nov 2026`.
    pub fn long(self) -> String {
        format!("{} {}", self.brief(), self.year())
    }

    /// Howard Hinnant's `days_from_civil`: years begin in March, so that the leap day comes last.
    fn from_civil(year: i64, month: i64, day: i64) -> Date {
        let year = if month <= 2 { year - 1 } else { year };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        Date(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
    }

    /// Its inverse: year, month, day.
    fn civil(self) -> (i64, i64, i64) {
        let days = self.0 + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        (year + era * 400 + i64::from(month <= 2), month, day)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(out, "{year:04}-{month:02}-{day:02}")
    }
}

/// A minute as questions and files have it, in UTC: `2026-01-31T12:05:00Z`.
pub fn rfc3339(minute: i64) -> String {
    format!("{}T{}:00Z", Date(minute.div_euclid(DAY)), time_of_day(minute))
}

/// A minute's time of day: `12:05`.
pub fn clock(minute: i64) -> String {
    time_of_day(local(minute))
}

fn time_of_day(minute: i64) -> String {
    let of_day = minute.rem_euclid(DAY);
    format!("{:02}:{:02}", of_day / HOUR, of_day % HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_written() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("2026-11-23", 20_780),
            ("2100-03-01", 47_541),
            ("9999-12-31", 2_932_896),
        ] {
            assert_eq!(Date::parse(text), Some(Date(days)), "{text}");
            assert_eq!(Date(days).to_string(), text);
        }
    }

    #[test]
    fn every_day_of_centuries_is_read_as_it_was_written() {
        for days in 0..200_000 {
            assert_eq!(Date::parse(&Date(days).to_string()), Some(Date(days)));
        }
    }

    #[test]
    fn what_is_no_day_is_not_read() {
        for text in [
            "",
            "2026",
            "2026-2-1",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-04-31",
            "+026-01-01",
            "2026-01-01-01",
            "1969-12-31",
        ] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }

    #[test]
    fn days_and_times_are_of_the_clock() {
        // Berlin in 2024.
        let changes = ["2024-03-31", "2024-10-27"].map(|day| Date::parse(day).unwrap().start() + HOUR);
        set_clock("Europe/Berlin".into(), vec![(0, 60), (changes[0], 120), (changes[1], 60)]);
        for (day, start, hours) in
            [("2024-03-31", "2024-03-30T23:00:00Z", 23), ("2024-10-27", "2024-10-26T22:00:00Z", 25)]
        {
            let day = Date::parse(day).unwrap();
            assert_eq!(rfc3339(day.start()), start);
            assert_eq!(day.plus(1).start() - day.start(), hours * HOUR);
            assert_eq!((Date::of(day.start()), Date::of(day.start() - 1)), (day, day.plus(-1)));
            assert_eq!(clock(day.start()), "00:00");
            assert_eq!(clock(day.plus(1).start() - 1), "23:59");
        }
        reset_clock();
        assert_eq!(clock(changes[0]), "01:00");
    }

    #[test]
    fn times_are_written() {
        let minute = Date(20_780).start() + 14 * HOUR + 5;
        assert_eq!(rfc3339(minute), "2026-11-23T14:05:00Z");
        assert_eq!(Date::of(minute).short(), "Mon 23 Nov");
        assert_eq!(Date::of(minute).long(), "23 Nov 2026");
        assert_eq!(clock(-1), "23:59");
    }
}
