//! The figures of a trace, counted one by one.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::Event;
use crate::trace::Line;

const MINUTE_MS: i64 = 60_000;

/// What happened in a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Events.
    pub events: u64,
    /// Different users.
    pub users: u64,
}

/// Exact figures.
#[derive(Debug, Clone, Default)]
pub struct Exact {
    /// Distinct events.
    pub events: u64,
    /// Distinct users.
    pub users: u64,
    /// Bucket's start in ms → figures; only buckets with events.
    pub per_minute: BTreeMap<i64, Bucket>,
    /// As `per_minute`.
    pub per_hour: BTreeMap<i64, Bucket>,
    /// As `per_minute`, of UTC days.
    pub per_day: BTreeMap<i64, Bucket>,
    /// Events by page.
    pub pages: HashMap<String, u64>,
    /// Events by type.
    pub types: HashMap<String, u64>,
    /// The values of each measure, ascending.
    pub measures: BTreeMap<String, Vec<f64>>,
}

impl Exact {
    /// Counts each event_id once, by the first line that has it.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Exact {
        let mut exact = Exact::default();
        let mut ids = HashSet::new();
        let mut users: HashMap<String, u32> = HashMap::new();
        let mut spans =
            [60, 3_600, 86_400].map(|seconds| (seconds * 1_000, BTreeMap::<i64, (u64, HashSet<u32>)>::new()));
        for event in lines.into_iter().filter_map(|line| Event::read(&line.text)) {
            if !ids.insert(event.id) {
                continue;
            }
            exact.events += 1;
            let next = users.len() as u32;
            let user = *users.entry(event.user).or_insert(next);
            for (span, buckets) in &mut spans {
                let bucket = buckets.entry(event.time_ms.div_euclid(*span) * *span).or_default();
                bucket.0 += 1;
                bucket.1.insert(user);
            }
            *exact.types.entry(event.event_type).or_default() += 1;
            if let Some(page) = event.page {
                *exact.pages.entry(page).or_default() += 1;
            }
            for (name, value) in event.measures {
                exact.measures.entry(name).or_default().push(value);
            }
        }
        exact.users = users.len() as u64;
        [exact.per_minute, exact.per_hour, exact.per_day] = spans.map(|(_, buckets)| {
            let figures = |(events, users): (u64, HashSet<u32>)| Bucket { events, users: users.len() as u64 };
            buckets.into_iter().map(|(start, bucket)| (start, figures(bucket))).collect()
        });
        for values in exact.measures.values_mut() {
            values.sort_by(f64::total_cmp);
        }
        exact
    }

    /// The span that holds every event, in ms: from a minute's start to, not including, a minute's end.
    pub fn span(&self) -> Option<(i64, i64)> {
        let first = self.per_minute.first_key_value()?.0;
        let last = self.per_minute.last_key_value()?.0;
        Some((*first, last + MINUTE_MS))
    }

    /// The measure that most events have; among several, the one with most different values: a price rather than a status.
    pub fn main_measure(&self) -> Option<&str> {
        let different = |values: &[f64]| values.chunk_by(|a, b| a == b).count();
        let rank = |values: &[f64]| (values.len(), different(values));
        self.measures.iter().max_by_key(|(_, values)| rank(values)).map(|(name, _)| name.as_str())
    }

    /// The value at rank ceil(q·n) of a measure.
    pub fn quantile(&self, measure: &str, q: f64) -> Option<f64> {
        let values = self.measures.get(measure)?;
        let rank = (q * values.len() as f64).ceil() as usize;
        values.get(rank.clamp(1, values.len()) - 1).copied()
    }

    /// Pages with most events, descending, then by name.
    pub fn top_pages(&self, n: usize) -> Vec<(&str, u64)> {
        let mut pages: Vec<(&str, u64)> = self.pages.iter().map(|(page, events)| (page.as_str(), *events)).collect();
        pages.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        pages.truncate(n);
        pages
    }
}
