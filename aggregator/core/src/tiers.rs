//! A client's tiers: on which clock its hours and days are cut, and from when on each tier is kept.
//!
//! A store's hours and days are made of minutes once, on the clock that the client had then. When it gets another one, they are taken away
//! and cut anew from the minutes, newest first, cube by cube; until then what is not cut yet is read from minutes. Where minutes are no
//! longer kept, hours and days stay as they are: on the clock of before, which the planner covers a question with piece by piece.
//! So no figure is made of hours or days that lie across its bounds.

use std::fmt;

use catchment_cells::codec::{DecodeError, Reader, put_iv, put_str, put_uv};
use catchment_cells::key::{Tier, is_name};
use catchment_cells::limits::NAME_BYTES_MAX;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use thiserror::Error;

use crate::limits::{EARLIER_ZONES_MAX, ZONE_RULES_BYTES_MAX};
use crate::rollup;

/// The version byte of a client's row in a store.
const ROW_VERSION: u8 = 1;
/// Where one clock follows another is a day's start in UTC: no block has buckets of both sides.
const GRID: i64 = 24 * 60;
/// The clock of whoever has set none.
pub const UTC: &str = "UTC";

/// A time zone with the rules that it had when hours were cut by it: later ones may differ.
#[derive(Clone)]
pub struct Zone {
    name: Box<str>,
    /// TZif (RFC 9636); empty for UTC.
    rules: Box<[u8]>,
    zone: TimeZone,
}

/// Days that each tier is kept for: minutes, hours, days; `None`: for ever.
pub type KeptDays = [Option<u32>; 3];

/// A client's tiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers {
    zone: Zone,
    /// The minute from which on hours and days that start there are cut on that clock, as far as nothing is being cut.
    since: i64,
    cutting: Option<Cutting>,
    /// The clocks before, each with the minute that its hours and days start before; ascending.
    earlier: Vec<(Zone, i64)>,
    /// The minute before which nothing of a tier is kept.
    kept_from: [i64; 3],
}

/// How far the change to another clock has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cutting {
    /// Hours and days of the clock before are being taken away.
    Clearing,
    /// They are being cut: all of the cubes whose names are before this one's, and of it those from a minute on.
    Cubes {
        /// The cube at hand.
        cube: Box<str>,
        /// The first minute that is done, which starts a day.
        from: i64,
    },
}

/// The time zone was changed again and again, and what was cut on each is still kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "hours and days of {EARLIER_ZONES_MAX} earlier time zones are kept, whose minutes are gone: wait until they go, too"
)]
pub struct TooManyZones;

impl Zone {
    /// A zone of the IANA database, by its rules as TZif; without rules, UTC.
    pub fn new(name: &str, rules: &[u8]) -> Result<Zone, DecodeError> {
        if !is_name(name) || rules.len() > ZONE_RULES_BYTES_MAX || rules.is_empty() != (name == UTC) {
            return Err(DecodeError::Malformed("time zone"));
        }
        let zone = match rules {
            [] => TimeZone::UTC,
            rules => TimeZone::tzif(name, rules).map_err(|_| DecodeError::Malformed("rules of a time zone"))?,
        };
        Ok(Zone { name: name.into(), rules: rules.into(), zone })
    }

    /// What the client's config calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many minutes it is ahead of UTC from which minute on, between two minutes.
    pub fn offsets(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let timestamp =
            |minute: i64| Timestamp::from_second(minute.saturating_mul(60)).unwrap_or(Timestamp::UNIX_EPOCH);
        let (start, end) = (timestamp(from), timestamp(to));
        let minutes = |offset: Offset| i64::from(offset.seconds()).div_euclid(60);
        let changes = self.zone.following(start).take_while(|change| change.timestamp() < end);
        let mut offsets = vec![(from, minutes(self.zone.to_offset(start)))];
        offsets.extend(changes.map(|change| (rollup::first_minute(change.timestamp()), minutes(change.offset()))));
        offsets.dedup_by_key(|(_, offset)| *offset);
        offsets
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_str(out, &self.name);
        put_uv(out, self.rules.len() as u64);
        out.extend_from_slice(&self.rules);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Zone, DecodeError> {
        let name = reader.str(NAME_BYTES_MAX)?;
        let bytes = reader.count(1)?;
        Zone::new(name, reader.bytes(bytes)?)
    }
}

impl Default for Zone {
    fn default() -> Self {
        TimeZone::UTC.into()
    }
}

impl From<TimeZone> for Zone {
    /// Of rules that aren't stored.
    fn from(zone: TimeZone) -> Self {
        Zone { name: zone.iana_name().unwrap_or_default().into(), rules: Box::default(), zone }
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.rules) == (&other.name, &other.rules) && (!self.rules.is_empty() || self.zone == other.zone)
    }
}

impl Eq for Zone {}

impl fmt::Debug for Zone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Zone({}, {} bytes)", self.name, self.rules.len())
    }
}

impl Default for Tiers {
    fn default() -> Self {
        Tiers::on(Zone::default())
    }
}

impl Tiers {
    /// Those of a client of which nothing is stored yet.
    pub fn on(zone: Zone) -> Tiers {
        Tiers { zone, since: i64::MIN, cutting: None, earlier: Vec::new(), kept_from: [i64::MIN; 3] }
    }

    /// The client's clock.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The same, for calendars.
    pub fn time_zone(&self) -> &TimeZone {
        &self.zone.zone
    }

    /// The minute before which nothing of a tier is kept.
    pub fn kept_from(&self, tier: Tier) -> i64 {
        self.kept_from[place(tier)]
    }

    /// The minute from which on hours and days of a cube that start there can be read on the client's clock.
    pub(crate) fn cut_from(&self, cube: &str) -> i64 {
        match &self.cutting {
            None => self.since,
            Some(Cutting::Clearing) => i64::MAX,
            Some(Cutting::Cubes { cube: at, from }) => match cube.cmp(at) {
                std::cmp::Ordering::Less => self.since,
                std::cmp::Ordering::Equal => self.since.max(*from),
                std::cmp::Ordering::Greater => i64::MAX,
            },
        }
    }

    /// The clocks before, each with the minute that its hours and days start before; ascending.
    pub(crate) fn earlier(&self) -> impl Iterator<Item = (&TimeZone, i64)> {
        self.earlier.iter().map(|(zone, until)| (&zone.zone, *until))
    }

    /// The bucket that a minute's cells of a cube are written to; `None` where none is kept, or it will be cut later.
    pub fn bucket(&self, cube: &str, tier: Tier, minute: i64) -> Option<i64> {
        let (zone, from) = if tier == Tier::Minute || minute >= self.since {
            (&self.zone, if tier == Tier::Minute { i64::MIN } else { self.cut_from(cube) })
        } else {
            let at = self.earlier.partition_point(|(_, until)| *until <= minute);
            let from = at.checked_sub(1).map_or(i64::MIN, |before| self.earlier[before].1);
            (self.earlier.get(at).map_or(&self.zone, |(zone, _)| zone), from)
        };
        let bucket = rollup::floor(tier, minute, &zone.zone);
        (bucket >= from.max(self.kept_from(tier))).then_some(bucket)
    }

    /// The same on another clock. What is kept of minutes is cut anew, beginning with [`Cutting::Clearing`].
    pub fn with_zone(&self, zone: Zone) -> Result<Tiers, TooManyZones> {
        let minutes_from = self.kept_from(Tier::Minute);
        let since = match minutes_from {
            i64::MIN => i64::MIN,
            minute => minute + (-minute).rem_euclid(GRID),
        };
        let mut earlier = self.earlier.clone();
        // While it is cut no minutes go: all that it would have is cut by the next one.
        if self.cutting.is_none() && self.since < since {
            earlier.push((self.zone.clone(), since));
        }
        earlier.retain(|(_, until)| *until > self.kept_from(Tier::Day));
        if earlier.len() > EARLIER_ZONES_MAX {
            return Err(TooManyZones);
        }
        Ok(Tiers { zone, since, cutting: Some(Cutting::Clearing), earlier, kept_from: self.kept_from })
    }

    /// What is cut now; `None`: all is.
    pub fn cutting(&self) -> Option<&Cutting> {
        self.cutting.as_ref()
    }

    /// The same, with the change to its clock further on.
    pub fn with_cutting(&self, cutting: Option<Cutting>) -> Tiers {
        Tiers { cutting, ..self.clone() }
    }

    /// The first minute that is cut on the client's clock.
    pub fn since(&self) -> i64 {
        self.since
    }

    /// The same where tiers are kept for so many days and the present one, at `now`, in ms; `None`: nothing changes. What is being cut needs its
    /// minutes.
    pub fn with_kept(&self, days: KeptDays, now: i64) -> Option<Tiers> {
        let minute = now.div_euclid(60_000);
        let mut kept_from = self.kept_from;
        for (from, days) in kept_from.iter_mut().zip(days) {
            if let Some(days) = days {
                // A noon, since clock changes make days an hour shorter or longer.
                let noon = rollup::floor(Tier::Day, minute, self.time_zone()) + GRID / 2;
                *from = rollup::floor(Tier::Day, noon - i64::from(days) * GRID, self.time_zone()).max(*from);
            }
        }
        (self.cutting.is_none() && kept_from != self.kept_from).then(|| {
            let mut earlier = self.earlier.clone();
            earlier.retain(|(_, until)| *until > kept_from[place(Tier::Day)]);
            Tiers { kept_from, earlier, ..self.clone() }
        })
    }

    /// Whether anything is not kept any more.
    pub fn is_kept_in_part(&self) -> bool {
        self.kept_from != [i64::MIN; 3]
    }

    /// Whether others keep the same.
    pub fn has_kept_as(&self, other: &Tiers) -> bool {
        self.kept_from == other.kept_from
    }

    /// What is kept from when on, as a sentence.
    pub(crate) fn kept(&self) -> String {
        let mut kept: Vec<String> = Vec::new();
        for (name, from) in ["minutes", "hours", "days"].iter().zip(self.kept_from) {
            kept.push(match from {
                i64::MIN => format!("{name} are all kept"),
                from => format!("{name} are kept from {} on", time(from)),
            });
        }
        if let Some((zone, until)) = self.earlier.last() {
            kept.push(format!("before {} hours and days were cut on the clock of {}", time(*until), zone.name));
        }
        kept.join(", ")
    }

    /// A client's row in a store: the key is the client, the value `u8 version = 1 ‖ zone ‖ iv since ‖ cutting ‖ uv n ‖ n × (zone ‖ iv until)
    /// ‖ 3 × iv kept_from`, with
    /// - zone: `str name ‖ uv bytes ‖ TZif`, without bytes for UTC;
    /// - cutting: `0` none, `1` clearing, `2 ‖ str cube ‖ iv from`.
    pub fn encode_row(&self) -> Vec<u8> {
        let mut out = vec![ROW_VERSION];
        self.zone.encode(&mut out);
        put_iv(&mut out, self.since);
        match &self.cutting {
            None => out.push(0),
            Some(Cutting::Clearing) => out.push(1),
            Some(Cutting::Cubes { cube, from }) => {
                out.push(2);
                put_str(&mut out, cube);
                put_iv(&mut out, *from);
            }
        }
        put_uv(&mut out, self.earlier.len() as u64);
        for (zone, until) in &self.earlier {
            zone.encode(&mut out);
            put_iv(&mut out, *until);
        }
        self.kept_from.iter().for_each(|from| put_iv(&mut out, *from));
        out
    }

    /// Reads the row.
    pub fn decode_row(bytes: &[u8]) -> Result<Tiers, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            ROW_VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let (zone, since) = (Zone::decode(&mut reader)?, reader.iv()?);
        let cutting = match reader.u8()? {
            0 => None,
            1 => Some(Cutting::Clearing),
            2 => Some(Cutting::Cubes { cube: reader.str(NAME_BYTES_MAX)?.into(), from: reader.iv()? }),
            _ => return Err(DecodeError::Malformed("cutting")),
        };
        let n = reader.count(4)?;
        if n > EARLIER_ZONES_MAX {
            return Err(DecodeError::Malformed("too many zones"));
        }
        let earlier = (0..n).map(|_| Ok((Zone::decode(&mut reader)?, reader.iv()?))).collect::<Result<Vec<_>, _>>()?;
        let kept_from = [reader.iv()?, reader.iv()?, reader.iv()?];
        reader.finish()?;
        if !earlier.is_sorted_by(|a, b| a.1 < b.1) || earlier.last().is_some_and(|(_, until)| *until > since) {
            return Err(DecodeError::Malformed("zones not ascending"));
        }
        Ok(Tiers { zone, since, cutting, earlier, kept_from })
    }
}

fn place(tier: Tier) -> usize {
    match tier {
        Tier::Minute => 0,
        Tier::Hour => 1,
        Tier::Day => 2,
    }
}

fn time(minute: i64) -> String {
    Timestamp::from_second(minute.saturating_mul(60)).map_or_else(|_| "ever".into(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Question;
    use crate::planner::{Plan, PlanError};

    /// 2024-01-01T00:00Z, as a minute.
    const START: i64 = 28_401_120;
    const ZONES: [&str; 5] = [
        "UTC0",
        "EST5EDT,M3.2.0,M11.1.0",
        "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
        "<+0545>-5:45",
        "CET-1CEST,M3.5.0,M10.5.0/3",
    ];
    const CUBE: &str = "total";

    fn zone(n: usize) -> Zone {
        TimeZone::posix(ZONES[n]).unwrap().into()
    }

    /// What may happen to a client's tiers.
    #[derive(Debug, Clone)]
    enum Change {
        Zone(usize),
        Kept([Option<u32>; 3], i64),
        Cut(Option<(bool, i64)>),
    }

    fn change() -> impl Strategy<Value = Change> {
        let days = (1u32..40, 0u32..40, 0u32..40)
            .prop_map(|(minute, hour, day)| [Some(minute), Some(minute + hour), Some(minute + hour + day)]);
        prop_oneof![
            (0..ZONES.len()).prop_map(Change::Zone),
            (days, 0i64..200).prop_map(|(days, day)| Change::Kept(days, (START + day * GRID + 700) * 60_000)),
            prop::option::of((any::<bool>(), 0i64..200)).prop_map(Change::Cut),
        ]
    }

    fn changed(changes: &[Change]) -> Tiers {
        let mut tiers = Tiers::on(zone(0));
        for change in changes {
            tiers = match change {
                Change::Zone(n) => tiers.with_zone(zone(*n)).unwrap_or(tiers),
                Change::Kept(days, now) => tiers.with_kept(*days, *now).unwrap_or(tiers),
                // Only what is being cut can be cut.
                Change::Cut(_) if tiers.cutting.is_none() => tiers,
                Change::Cut(None) => tiers.with_cutting(None),
                Change::Cut(Some((is_other, day))) => {
                    let cube = if *is_other { "audience" } else { CUBE }.into();
                    let from = rollup::floor(Tier::Day, START + day * GRID, tiers.time_zone());
                    tiers.with_cutting(Some(Cutting::Cubes { cube, from }))
                }
            };
        }
        tiers
    }

    proptest! {
        #[test]
        fn what_is_planned_is_what_is_written(
            changes in prop::collection::vec(change(), 0..8),
            start in 0i64..250_000,
            length in 1i64..30_000,
            is_whole in any::<bool>(),
            granularity in prop::sample::select(vec!["1d", "1h", "7m", "24h", "6h", "36h", "1w", "all"]),
        ) {
            let tiers = std::sync::Arc::new(changed(&changes));
            let day = |minute| rollup::floor(Tier::Day, minute, tiers.time_zone());
            let (start, end) = (START + start, START + start + length);
            let (start, end) = if is_whole { (day(start), day(end + GRID)) } else { (start, end) };
            let (from, to) = (time(start), time(end));
            let parameters = [("metric", "events"), ("start", &*from), ("end", &*to), ("granularity", granularity)];
            let question = Question::parse(parameters, 0, tiers.time_zone());
            prop_assume!(question.is_ok());
            let plan = match Plan::of(question.unwrap(), &[], &tiers) {
                Ok(plan) => plan,
                // Nothing is refused that is there in minutes.
                Err(error) => {
                    prop_assert!(matches!(error, PlanError::NotKept { .. }) && start < tiers.kept_from(Tier::Minute), "{error}");
                    return Ok(());
                }
            };
            let mut at = start;
            for span in &plan.spans {
                prop_assert_eq!(span.from, at);
                at = span.to;
                let mut minute = span.from;
                while minute < span.to {
                    let bucket = tiers.bucket(CUBE, span.tier, minute);
                    prop_assert!(bucket.is_some_and(|bucket| bucket >= span.from), "{span:?} {minute} {bucket:?}");
                    let answered = |minute| plan.question.bucket(minute, &plan.zone);
                    prop_assert_eq!(answered(bucket.unwrap()), answered(minute), "{:?} {}", span, minute);
                    // A bucket that begins in a span ends there.
                    if minute + 1 == span.to {
                        let next = tiers.bucket(CUBE, span.tier, span.to);
                        prop_assert!(next.is_none_or(|next| next >= span.to), "{span:?} {next:?}");
                    }
                    minute += 1;
                }
            }
            prop_assert_eq!(at, end);
        }

        #[test]
        fn any_bytes_are_tiers_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), from in any::<[i64; 4]>()) {
            let _ = Tiers::decode_row(&[&[1], &bytes[..]].concat());
            let [since, minute, hour, day] = from;
            for cutting in [None, Some(Cutting::Clearing), Some(Cutting::Cubes { cube: "a".into(), from: day })] {
                let tiers = Tiers { since, cutting, kept_from: [minute, hour, day], ..Tiers::default() };
                prop_assert_eq!(Tiers::decode_row(&tiers.encode_row()), Ok(tiers));
            }
        }
    }

    #[test]
    fn a_zone_says_how_far_it_is_ahead() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_second() / 60;
        let offsets = zone(4).offsets(START, at("2024-12-31T00:00:00Z"));
        assert_eq!(offsets, [(START, 60), (at("2024-03-31T01:00:00Z"), 120), (at("2024-10-27T01:00:00Z"), 60)]);
        assert_eq!(zone(3).offsets(START, START + 1), [(START, 345)]);
    }

    #[test]
    fn the_bytes_are_fixed() {
        let cutting = Some(Cutting::Cubes { cube: "page".into(), from: 1_440 });
        let tiers = Tiers {
            since: -1,
            cutting,
            earlier: vec![(Zone::default(), -2)],
            kept_from: [3, 2, 1],
            ..Tiers::default()
        };
        let bytes = tiers.encode_row();
        let expected: &[u8] = b"\x01\x03UTC\x00\x01\x02\x04page\xc0\x16\x01\x03UTC\x00\x03\x06\x04\x02";
        assert_eq!(bytes, expected);
        assert_eq!(Tiers::decode_row(expected), Ok(tiers));
    }

    #[test]
    fn what_is_kept_is_said() {
        let days = |minute, hour| [Some(minute), Some(hour), None];
        let tiers = Tiers::default().with_kept(days(2, 10), (START + 20 * GRID) * 60_000).unwrap();
        assert!(tiers.with_kept(days(3, 12), (START + 20 * GRID) * 60_000).is_none(), "what is gone is gone");
        let parameters = [("metric", "events"), ("start", "2024-01-15"), ("end", "2024-01-16"), ("granularity", "5m")];
        let question = Question::parse(parameters, 0, tiers.time_zone()).unwrap();
        let error = Plan::of(question, &[], &std::sync::Arc::new(tiers)).unwrap_err();
        let said = "minutes are kept from 2024-01-19T00:00:00Z on, hours are kept from 2024-01-11T00:00:00Z on, days are all kept";
        assert!(error.to_string().contains(said), "{error}");
    }
}
