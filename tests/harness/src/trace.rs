//! A file of events, and what can be done to it before it is sent.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Event, Failure, Random, Result};

/// How many routes users are spread over.
const ROUTES: u64 = 16;

/// One line, with where it goes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its number in the file, from 0.
    pub number: usize,
    /// The JSON.
    pub text: Bytes,
    /// `r` of the request: the same for all lines of one event_id, and for all events of one user.
    pub route: Arc<str>,
    /// An event_id that an earlier line has.
    pub repeated: bool,
}

/// Lines in the order in which they are sent.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// The lines; none is empty.
    pub lines: Vec<Line>,
}

impl Trace {
    /// Reads NDJSON, gzipped or not.
    pub fn open(path: &Path) -> Result<Trace> {
        let mut bytes = fs::read(path).map_err(Failure::at(path.display()))?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut text = Vec::new();
            MultiGzDecoder::new(&bytes[..]).read_to_end(&mut text).map_err(Failure::at(path.display()))?;
            bytes = text;
        }
        Ok(Trace::of(Bytes::from(bytes)))
    }

    /// Reads NDJSON.
    pub fn of(ndjson: Bytes) -> Trace {
        let mut routes: HashMap<String, Arc<str>> = HashMap::new();
        let mut lines = Vec::new();
        for line in ndjson.split(|&byte| byte == b'\n') {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let fresh = |user: &str| -> Arc<str> { format!("1.{}", hash(user) % ROUTES).into() };
            let (route, repeated) = match Event::read(line) {
                None => (fresh(""), false),
                Some(event) => match routes.get(&event.id) {
                    Some(route) => (route.clone(), true),
                    None => {
                        let route = fresh(&event.user);
                        routes.insert(event.id, route.clone());
                        (route, false)
                    }
                },
            };
            lines.push(Line { number: lines.len(), text: ndjson.slice_ref(line), route, repeated });
        }
        Trace { lines }
    }

    /// Every `n`th line: a smaller trace over the same time.
    pub fn every(&self, n: usize) -> Trace {
        Trace { lines: self.lines.iter().step_by(n.max(1)).cloned().collect() }
    }

    /// Each line twice, the second time after all the first.
    pub fn doubled(&self) -> Trace {
        Trace { lines: [&self.lines[..], &self.lines[..]].concat() }
    }

    /// The lines in a random order.
    pub fn shuffled(mut self, random: &mut Random) -> Trace {
        random.shuffle(&mut self.lines);
        self
    }

    /// The events moved in time, so that the last happens at `last_ms`; lines that are no events are left out.
    pub fn ending_at(&self, last_ms: i64) -> Result<Trace> {
        let times = self.lines.iter().filter_map(|line| Some(Event::read(&line.text)?.time_ms));
        let shift = last_ms - times.max().ok_or_else(|| Failure("the trace has no event".into()))?;
        let mut lines = Vec::with_capacity(self.lines.len());
        for line in &self.lines {
            let Some(event) = Event::read(&line.text) else { continue };
            let time = Timestamp::from_millisecond(event.time_ms + shift).map_err(Failure::at("shifting a trace"))?;
            let mut object: Value = serde_json::from_slice(&line.text).map_err(Failure::at("shifting a trace"))?;
            object["timestamp"] = json!(time.to_string());
            lines.push(Line { text: object.to_string().into(), ..line.clone() });
        }
        Ok(Trace { lines })
    }

    /// The same events as others: every event_id gets a suffix. Lines that are no events are left out.
    pub fn renamed(&self, suffix: &str) -> Trace {
        let rename = |line: &Line| {
            let mut object: Value = serde_json::from_slice(&line.text).ok()?;
            object["event_id"] = json!(Event::read(&line.text)?.id + suffix);
            Some(Line { text: object.to_string().into(), ..line.clone() })
        };
        Trace { lines: self.lines.iter().filter_map(rename).collect() }
    }

    /// Cuts into requests of at most `events` lines of one route, in the trace's order as far as routes allow.
    pub fn batches(&self, mut events: impl FnMut() -> usize) -> Vec<Vec<Line>> {
        let mut open: HashMap<Arc<str>, (Vec<Line>, usize)> = HashMap::new();
        let mut batches = Vec::new();
        for line in &self.lines {
            let (batch, room) = open.entry(line.route.clone()).or_insert_with(|| (Vec::new(), events().max(1)));
            batch.push(line.clone());
            if batch.len() >= *room {
                batches.push(std::mem::take(batch));
                open.remove(&line.route);
            }
        }
        let mut rest: Vec<_> = open.into_values().map(|(batch, _)| batch).collect();
        rest.sort_by_key(|batch| batch.first().map(|line| line.number));
        batches.extend(rest);
        batches
    }

    /// Bytes as NDJSON.
    pub fn bytes(&self) -> u64 {
        self.lines.iter().map(|line| line.text.len() as u64 + 1).sum()
    }

    /// Bytes as gzipped NDJSON.
    pub fn gzip_bytes(&self) -> Result<u64> {
        use std::io::Write;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        for line in &self.lines {
            gzip.write_all(&line.text).and_then(|()| gzip.write_all(b"\n")).map_err(Failure::at("gzipping"))?;
        }
        Ok(gzip.finish().map_err(Failure::at("gzipping"))?.len() as u64)
    }
}

/// The same in every run: `DefaultHasher::new` has fixed keys.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_every_line_and_one_route_each() {
        let line = |i: usize| format!(r#"{{"event_id":"{i}","event_type":"t","timestamp":1,"user_id":"{}"}}"#, i % 7);
        let text: String = (0..100).map(|i| line(i % 90) + "\n").collect();
        let trace = Trace::of(text.into());
        assert_eq!(trace.lines.iter().filter(|line| line.repeated).count(), 10);
        let batches = trace.batches(|| 3);
        assert!(batches.iter().all(|batch| batch.len() <= 3 && batch.iter().all(|l| l.route == batch[0].route)));
        let mut numbers: Vec<usize> = batches.iter().flatten().map(|line| line.number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }
}
