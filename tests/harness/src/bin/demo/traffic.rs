//! A trace as a site's traffic: a history up to now, and an hour that is played again and again.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use catchment_harness::{Event, Failure, Line, Result, Trace};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Days of history that one day's log is repeated for.
const DAYS: usize = 14;
/// Of 100 users of the log, how many come on each day before; today all do.
const USERS_OF_100: [u64; 7] = [100, 93, 84, 71, 66, 88, 97];

/// Events by time.
#[derive(Debug)]
pub(crate) struct Traffic {
    visits: Vec<Visit>,
    days: usize,
}

/// One event, without the id and the time that sending gives it.
#[derive(Debug)]
struct Visit {
    time_ms: i64,
    route: Arc<str>,
    user: u64,
    event: Map<String, Value>,
}

impl Traffic {
    /// Any file's events, as they are.
    pub(crate) fn of(trace: &Trace) -> Result<Traffic> {
        Traffic::select(trace, 1, |_| true)
    }

    /// The bundled log as a script on its pages would have told it: without the requests for images. What the script and the edge
    /// would have added, and can be had from the log: a host's country from its domain, a page's category from its folder. The
    /// log says nothing of devices: every user is given one.
    pub(crate) fn of_the_bundled_log(trace: &Trace) -> Result<Traffic> {
        let mut traffic = Traffic::select(trace, DAYS, |event| event.event_type == "page_view")?;
        for visit in &mut traffic.visits {
            let country = visit.event["properties"]["tld"].as_str().and_then(country);
            let category = visit.event["page"].as_str().and_then(category).map(str::to_owned);
            let device = match visit.user % 100 {
                0..58 => "desktop",
                58..94 => "mobile",
                _ => "tablet",
            };
            visit.event.extend([("country".into(), json!(country)), ("category".into(), json!(category))]);
            visit.event.insert("device".into(), json!(device));
        }
        Ok(traffic)
    }

    fn select(trace: &Trace, days: usize, wanted: impl Fn(&Event) -> bool) -> Result<Traffic> {
        let mut users = HashMap::new();
        let mut visits = Vec::new();
        for line in trace.lines.iter().filter(|line| !line.repeated) {
            let Some(event) = Event::read(&line.text).filter(&wanted) else { continue };
            let Ok(Value::Object(mut object)) = serde_json::from_slice(&line.text) else { continue };
            for name in ["event_id", "eventId", "client_id", "clientId"] {
                object.remove(name);
            }
            let next = users.len() as u64;
            // Neighbours in the log get numbers that lie apart.
            let user = users.entry(event.user).or_insert(next).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            visits.push(Visit { time_ms: event.time_ms, route: line.route.clone(), user, event: object });
        }
        if visits.is_empty() {
            return Err(Failure("the file has no line with event_id, event_type and timestamp.".into()));
        }
        visits.sort_by_key(|visit| visit.time_ms);
        Ok(Traffic { visits, days })
    }

    /// The events moved in time so that the last happens at `last_ms`; those of the days before happen a day earlier each, with
    /// some of the users left out.
    pub(crate) fn history(&self, last_ms: i64) -> Result<Trace> {
        let shift = last_ms - self.visits.last().map_or(0, |visit| visit.time_ms);
        let mut lines = Vec::new();
        for day in (0..self.days).rev() {
            let present = USERS_OF_100[day % USERS_OF_100.len()];
            for (n, visit) in self.visits.iter().enumerate().filter(|(_, visit)| visit.user / 100 % 100 < present) {
                let time_ms = visit.time_ms + shift - day as i64 * DAY_MS;
                lines.push(visit.line(lines.len(), format!("history-{day}-{n}"), time_ms)?);
            }
        }
        Ok(Trace { lines })
    }

    /// The hour with the most events.
    pub(crate) fn busiest_hour(&self) -> Hour<'_> {
        let mut best = 0..0;
        let mut start = 0;
        for (n, visit) in self.visits.iter().enumerate() {
            while visit.time_ms - self.visits[start].time_ms >= HOUR_MS {
                start += 1;
            }
            if n + 1 - start > best.len() {
                best = start..n + 1;
            }
        }
        let visits = &self.visits[best];
        Hour { visits, first_ms: visits.first().map_or(0, |visit| visit.time_ms), next: 0, round: 0 }
    }

    /// Events of the log itself.
    pub(crate) fn len(&self) -> usize {
        self.visits.len()
    }

    /// Days that the history has.
    pub(crate) fn days(&self) -> usize {
        self.days
    }
}

/// An hour of traffic, over and over.
#[derive(Debug)]
pub(crate) struct Hour<'a> {
    visits: &'a [Visit],
    first_ms: i64,
    next: usize,
    round: i64,
}

impl Hour<'_> {
    /// What has fallen due since the last call, `played_ms` after the first round's start: under fresh ids, at the present time.
    pub(crate) fn due(&mut self, played_ms: i64, now_ms: i64) -> Result<Trace> {
        let mut lines = Vec::new();
        while let Some(visit) = self.visits.get(self.next) {
            if self.round * HOUR_MS + visit.time_ms - self.first_ms > played_ms {
                break;
            }
            let id = format!("live-{}-{}", self.round, self.next);
            lines.push(visit.line(lines.len(), id, now_ms)?);
            self.next += 1;
            if self.next == self.visits.len() {
                (self.round, self.next) = (self.round + 1, 0);
            }
        }
        Ok(Trace { lines })
    }

    /// Events of one round.
    pub(crate) fn len(&self) -> usize {
        self.visits.len()
    }
}

impl Visit {
    fn line(&self, number: usize, id: String, time_ms: i64) -> Result<Line> {
        let time = Timestamp::from_millisecond(time_ms).map_err(Failure::at("moving an event in time"))?;
        let mut event = self.event.clone();
        event.insert("event_id".into(), id.into());
        event.insert("timestamp".into(), time.to_string().into());
        let text = serde_json::to_vec(&event).map_err(Failure::at("writing an event"))?;
        Ok(Line { number, text: Bytes::from(text), route: self.route.clone(), repeated: false })
    }
}

/// The country of a host's domain: its last label, where that is a country's. `ip` stands for hosts without a name, and
/// Britain's domain isn't its code.
fn country(domain: &str) -> Option<String> {
    match domain {
        "ip" | "su" => None,
        "uk" => Some("GB".into()),
        _ => (domain.len() == 2).then(|| domain.to_ascii_uppercase()),
    }
}

/// The first folder of a page's path.
fn category(page: &str) -> Option<&str> {
    page.trim_start_matches('/').split_once('/').map(|(folder, _)| folder).filter(|folder| !folder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(minutes: &[i64]) -> Traffic {
        let line = |(n, minute): (usize, &i64)| {
            let seconds = minute * 60;
            format!(r#"{{"event_id":"e{n}","client_id":"c","event_type":"t","user_id":"u{n}","timestamp":{seconds}}}"#)
        };
        let text: Vec<String> = minutes.iter().enumerate().map(line).collect();
        Traffic::of(&Trace::of(text.join("\n").into())).unwrap()
    }

    #[test]
    fn history_ends_when_it_should_and_keeps_its_distances() {
        let trace = traffic(&[1_000, 1_010, 1_100]).history(1_700_000_000_000).unwrap();
        let times: Vec<i64> = trace.lines.iter().map(|line| Event::read(&line.text).unwrap().time_ms).collect();
        assert_eq!(times, [1_699_994_000_000, 1_699_994_600_000, 1_700_000_000_000]);
        assert!(!String::from_utf8_lossy(&trace.lines[0].text).contains("client_id"));
    }

    #[test]
    fn the_busiest_hour_plays_in_rounds_under_fresh_ids() {
        let traffic = traffic(&[1_000, 2_000, 2_010, 2_059, 2_061, 3_000]);
        let mut hour = traffic.busiest_hour();
        assert_eq!(hour.len(), 3);
        let minute = 60_000;
        let ids = |trace: Trace| -> Vec<String> {
            trace.lines.iter().map(|line| Event::read(&line.text).unwrap().id).collect()
        };
        assert_eq!(ids(hour.due(0, 5).unwrap()), ["live-0-0"]);
        assert_eq!(ids(hour.due(0, 5).unwrap()), [""; 0]);
        assert_eq!(ids(hour.due(59 * minute, 5).unwrap()), ["live-0-1", "live-0-2"]);
        assert_eq!(ids(hour.due(71 * minute, 5).unwrap()), ["live-1-0", "live-1-1"]);
    }

    #[test]
    fn the_log_tells_countries_and_categories() {
        assert_eq!(["ca", "uk", "ip", "edu"].map(country), [Some("CA".into()), Some("GB".into()), None, None]);
        assert_eq!(["/shuttle/missions/", "/ksc.html", "//x"].map(category), [Some("shuttle"), None, None]);
    }
}
