//! The range of time that is looked at, and the one before it.

use crate::calendar::{DAY, Date, HOUR, clock_name, local, of_local, rfc3339};

/// From so many days on, the chart has a bar for each day, else for each hour.
const DAYS_BY_DAY: i64 = 15;
/// The longest range that can be chosen: buckets of a day, well within what one question may have.
const DAYS_MAX: i64 = 1_096;

/// What is looked at. All but `Days` move on with the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Range {
    /// The last 30 minutes, by minute.
    HalfHour,
    /// The day so far.
    #[default]
    Today,
    /// Today and the six days before.
    Week,
    /// Today and the 29 days before.
    Month,
    /// From the first day to the last, both included.
    Days(Date, Date),
}

/// Minutes from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first minute.
    pub start: i64,
    /// The minute after the last.
    pub end: i64,
}

/// How time is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// By the minute.
    Minute,
    /// By the hour.
    Hour,
    /// By the day.
    Day,
}

impl Grain {
    /// In minutes.
    pub fn minutes(self) -> i64 {
        match self {
            Grain::Minute => 1,
            Grain::Hour => HOUR,
            Grain::Day => DAY,
        }
    }

    /// The start of the bucket after the one that starts here: hours count from the start of their day.
    pub fn next(self, start: i64) -> i64 {
        let tomorrow = Date::of(start).plus(1).start();
        match self {
            Grain::Minute => start + 1,
            Grain::Hour => (start + HOUR).min(tomorrow),
            Grain::Day => tomorrow,
        }
    }

    /// The question's word.
    pub fn word(self) -> &'static str {
        match self {
            Grain::Minute => "1m",
            Grain::Hour => "1h",
            Grain::Day => "1d",
        }
    }

    /// In a title: `per hour`.
    pub fn title(self) -> &'static str {
        match self {
            Grain::Minute => "per minute",
            Grain::Hour => "per hour",
            Grain::Day => "per day",
        }
    }
}

impl Range {
    /// Those with a button of their own.
    pub const FIXED: [Range; 4] = [Range::HalfHour, Range::Today, Range::Week, Range::Month];

    /// Its word in a link: `30m`, `1d`, `7d`, `30d` or `2026-01-01..2026-01-31`.
    pub fn word(self) -> String {
        match self {
            Range::HalfHour => "30m".into(),
            Range::Today => "1d".into(),
            Range::Week => "7d".into(),
            Range::Month => "30d".into(),
            Range::Days(from, to) => format!("{from}..{to}"),
        }
    }

    /// Reads a link's word.
    pub fn parse(word: &str) -> Option<Range> {
        if let Some(fixed) = Range::FIXED.into_iter().find(|range| range.word() == word) {
            return Some(fixed);
        }
        let (from, to) = word.split_once("..")?;
        Range::days(Date::parse(from)?, Date::parse(to)?)
    }

    /// From a day to a day, if there are some between them and not too many.
    pub fn days(from: Date, to: Date) -> Option<Range> {
        (from <= to && to.0 - from.0 < DAYS_MAX).then_some(Range::Days(from, to))
    }

    /// In a title: `Last 7 days`.
    pub fn title(self) -> String {
        match self {
            Range::HalfHour => "Last 30 minutes".into(),
            Range::Today => format!("Today ({})", clock_name()),
            Range::Week => "Last 7 days".into(),
            Range::Month => "Last 30 days".into(),
            Range::Days(from, to) if from == to => from.long(),
            Range::Days(from, to) if from.year() == to.year() => format!("{} – {}", from.brief(), to.long()),
            Range::Days(from, to) => format!("{} – {}", from.long(), to.long()),
        }
    }

    /// What it is compared with, after "vs": `the 30 minutes before`.
    pub fn before_title(self) -> String {
        match self {
            Range::HalfHour => "the 30 minutes before".into(),
            Range::Today => "yesterday at this time".into(),
            Range::Week => "the 7 days before, up to this time".into(),
            Range::Month => "the 30 days before, up to this time".into(),
            Range::Days(from, to) if from == to => "the day before".into(),
            Range::Days(from, to) => format!("the {} days before", to.0 - from.0 + 1),
        }
    }

    /// Its parameters in a question.
    pub fn when(self) -> String {
        match self {
            Range::Days(from, to) => format!("start={from}&end={}", to.plus(1)),
            moving => format!("last={}", moving.word()),
        }
    }

    /// How the chart cuts it.
    pub fn grain(self) -> Grain {
        match self {
            Range::HalfHour => Grain::Minute,
            Range::Today | Range::Week => Grain::Hour,
            Range::Month => Grain::Day,
            Range::Days(from, to) if to.0 - from.0 + 1 >= DAYS_BY_DAY => Grain::Day,
            Range::Days(..) => Grain::Hour,
        }
    }

    /// All of it, also what is still to come of today. `now` is a minute.
    pub fn span(self, now: i64) -> Span {
        match self.dates(now) {
            None => Span { start: now - 29, end: now + 1 },
            Some((from, to)) => Span { start: from.start(), end: to.plus(1).start() },
        }
    }

    /// The first day and the last one, where it is of days.
    fn dates(self, now: i64) -> Option<(Date, Date)> {
        let today = Date::of(now);
        match self {
            Range::HalfHour => None,
            Range::Today => Some((today, today)),
            Range::Week => Some((today.plus(-6), today)),
            Range::Month => Some((today.plus(-29), today)),
            Range::Days(from, to) => Some((from, to)),
        }
    }

    /// The period before: as long, and as far into it as now is into this one. Nothing where that hasn't begun to matter.
    pub fn before(self, now: i64) -> Option<Span> {
        let Span { start, end } = self.span(now);
        let elapsed_end = end.min(now + 1);
        let before = match self.dates(now) {
            None => Span { start: start - (end - start), end: elapsed_end - (end - start) },
            Some((from, to)) => {
                // At the same time of day, whatever clocks did between.
                let days = to.0 - from.0 + 1;
                Span { start: from.plus(-days).start(), end: of_local(local(elapsed_end) - days * DAY) }
            }
        };
        (before.start < before.end).then_some(before)
    }
}

impl Span {
    /// Its parameters in a question.
    pub fn when(self) -> String {
        format!("start={}&end={}", rfc3339(self.start), rfc3339(self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        Date::parse(text).unwrap()
    }

    #[test]
    fn words_come_back() {
        let days = Range::days(day("2026-01-01"), day("2026-01-31")).unwrap();
        for range in Range::FIXED.into_iter().chain([days]) {
            assert_eq!(Range::parse(&range.word()), Some(range));
        }
        for word in ["", "2d", "2026-01-02..2026-01-01", "2026-01-01..", "1970-01-01..9999-12-31", "2026-01-01"] {
            assert_eq!(Range::parse(word), None, "{word}");
        }
    }

    #[test]
    fn titles_say_no_year_twice() {
        let title = |from, to| Range::days(day(from), day(to)).unwrap().title();
        assert_eq!(title("2026-01-31", "2026-01-31"), "31 Jan 2026");
        assert_eq!(title("2026-01-31", "2026-02-01"), "31 Jan – 1 Feb 2026");
        assert_eq!(title("2025-12-31", "2026-01-01"), "31 Dec 2025 – 1 Jan 2026");
    }

    #[test]
    fn questions_have_its_time() {
        assert_eq!(Range::Week.when(), "last=7d");
        let days = Range::days(day("2026-01-01"), day("2026-01-31")).unwrap();
        assert_eq!(days.when(), "start=2026-01-01&end=2026-02-01");
    }

    #[test]
    fn today_is_compared_with_the_same_part_of_yesterday() {
        let now = day("2026-11-23").start() + 10 * HOUR;
        let before = Range::Today.before(now).unwrap();
        assert_eq!(before.when(), "start=2026-11-22T00:00:00Z&end=2026-11-22T10:01:00Z");
    }

    #[test]
    fn a_past_range_is_compared_with_all_of_the_one_before() {
        let now = day("2026-11-23").start();
        let before = Range::days(day("2026-11-10"), day("2026-11-12")).unwrap().before(now).unwrap();
        assert_eq!(before, Span { start: day("2026-11-07").start(), end: day("2026-11-10").start() });
    }

    #[test]
    fn a_range_to_come_has_nothing_to_compare() {
        let now = day("2026-11-23").start();
        assert_eq!(Range::days(day("2027-01-01"), day("2027-01-01")).unwrap().before(now), None);
    }
}
