//! The events that are asked about: real ones and made ones, sent to a cluster and loaded into DuckDB.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use catchment_cells::ClientId;
use catchment_harness::{Api, Cluster, Event, Exact, Failure, Line, Outcome, Result, Sender, Trace, paths};
use catchment_workload::Events;
use jiff::Timestamp;
use serde_json::Value;

use crate::asked::{DAY, Facts, MINUTE_MS};
use crate::dirty::{Dirty, Fate};
use crate::duckdb::DuckDb;
use crate::sql;

/// Events that are made and sent at a time.
const CHUNK: usize = 20_000;
/// Events of one request.
const BATCH: (usize, usize) = (100, 900);
/// How long a count may stand still: of a million events in as many minutes nearly each is a cell of its own, which fill the aggregator's
/// memtable, and the shard waits up to 22 s until it asks again for room.
const PATIENCE: Duration = Duration::from_secs(300);
/// 2024-02-11, so that a leap day is among the days after it.
const DIRTY_FROM_MS: i64 = 1_707_609_600_000;
const DIRTY_DAYS: i64 = 45;
/// Routes that events are spread over.
const ROUTES: u64 = 16;
/// The measures of made events.
const DIRTY_MEASURES: [&str; 5] = ["Zeit auf Seite", "large", "revenue_EUR", "ties", "tiny"];

/// A client's events.
pub(crate) struct Set {
    client: ClientId,
    live: bool,
    measures: Vec<String>,
    source: Source,
}

enum Source {
    /// As they are.
    Real(PathBuf),
    /// Page views by a million users, which benches share.
    Plain(Events),
    Dirty(Box<Dirty>, u64),
}

/// What can be asked of a client.
pub(crate) struct Asking {
    pub(crate) api: Api,
    pub(crate) facts: Facts,
}

/// Lines to send, and what must become of them.
#[derive(Default)]
struct Chunk {
    lines: Vec<Line>,
    /// Those that are events, as NDJSON.
    events: Vec<u8>,
    /// By reason.
    received: BTreeMap<&'static str, u64>,
}

impl Chunk {
    fn receive(&mut self, reason: &'static str, n: u64) {
        *self.received.entry(reason).or_default() += n;
    }

    fn put(&mut self, line: Line) {
        self.events.extend_from_slice(&line.text);
        self.events.push(b'\n');
        self.receive(if line.repeated { "duplicate" } else { "accepted" }, 1);
        self.lines.push(line);
    }
}

impl Set {
    /// The bundled trace and those of a folder, and made ones: so many plain events, half as many dirty ones, and a quarter that are live.
    pub(crate) fn all(folder: Option<&Path>, seed: u64, events: u64) -> Result<Vec<Set>> {
        let mut files = vec![paths::bundled_trace()];
        if let Some(folder) = folder {
            for entry in std::fs::read_dir(folder).map_err(Failure::at(folder.display()))? {
                let path = entry.map_err(Failure::at(folder.display()))?.path();
                let is_bundled = path.file_name() == files[0].file_name();
                if path.to_string_lossy().ends_with(".ndjson.gz") && !is_bundled {
                    files.push(path);
                }
            }
            files[1..].sort();
        }
        let mut sets = files.into_iter().map(Set::real).collect::<Result<Vec<_>>>()?;
        let now_ms = Timestamp::now().as_millisecond();
        let dirty = |name, live, dirty, events| {
            let source = Source::Dirty(Box::new(dirty), events);
            Ok(Set { client: client(name)?, live, measures: DIRTY_MEASURES.map(str::to_owned).into(), source })
        };
        let source = Source::Plain(Events::new(seed, events));
        sets.push(Set { client: client("plain")?, live: false, measures: vec!["duration_ms".into()], source });
        sets.push(dirty("dirty", false, Dirty::of_days(seed, DIRTY_FROM_MS, DIRTY_DAYS), events / 2)?);
        sets.push(dirty("live", true, Dirty::live(seed, now_ms), events / 4)?);
        Ok(sets)
    }

    fn real(file: PathBuf) -> Result<Set> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or_default();
        let client = client(&name.replace(|char: char| !char.is_ascii_alphanumeric(), "-"))?;
        let measures = Exact::of(&Trace::open(&file)?.lines).measures.into_keys().collect();
        Ok(Set { client, live: false, measures, source: Source::Real(file) })
    }

    /// Sends all events, loads them into DuckDB, waits until they are counted, and says what to ask.
    pub(crate) async fn load(mut self, cluster: &Cluster, duckdb: &mut DuckDb) -> Result<[Asking; 2]> {
        let name = self.client.to_string();
        let key = if self.live { cluster.live_key(&self.client) } else { cluster.trace_key(&self.client, true) };
        let sender = Sender { batch_events: BATCH, ..Sender::new(cluster.edge_url().into(), key) };
        let path = cluster.folder().join(format!("{name}.ndjson"));
        let mut file = File::create(&path).map_err(Failure::at(path.display()))?;
        let mut received = BTreeMap::new();
        let api = cluster.api(&self.client);
        while let Some(chunk) = self.next_chunk()? {
            // Whose client is looked at, ships what it has at once.
            api.count("events", (0, DAY * MINUTE_MS)).await?;
            file.write_all(&chunk.events).map_err(Failure::at(path.display()))?;
            let outcome = sender.replay(&Trace { lines: chunk.lines }).await?;
            check(&name, &outcome, &chunk.received)?;
            chunk.received.into_iter().for_each(|(reason, n)| *received.entry(reason).or_default() += n);
        }
        received.retain(|_, n| *n > 0);
        duckdb.rows(&sql::load(&name, &path.display().to_string(), &self.measures)).await?;
        std::fs::remove_file(&path).map_err(Failure::at(path.display()))?;

        let extent = duckdb.rows(&sql::extent(&name)).await?;
        let [first, last, events] = [0, 1, 2].map(|column| extent[0][column].as_i64().unwrap_or_default());
        api.reaches("events", (first * MINUTE_MS, last * MINUTE_MS), events as u64, PATIENCE).await?;
        let mut dimensions = Vec::new();
        for dimension in sql::dimensions() {
            let values = strings(duckdb.rows(&sql::values(&name, dimension)).await?);
            // Addresses count as something else: as their hosts.
            let addresses = dimension == "referrer" && values.iter().any(|value| value.contains("://"));
            if !values.is_empty() && !addresses {
                dimensions.push((dimension.to_owned(), values));
            }
        }
        let table = name.clone();
        let facts = Facts {
            table,
            minutes: (first, last),
            dimensions,
            measures: self.measures,
            live: self.live,
            received: false,
        };

        // Each of what was received is a row, as each event is.
        let now = Timestamp::now().as_millisecond().div_euclid(MINUTE_MS);
        let table = format!("{name} received");
        for (reason, n) in &received {
            let span = ((now - DAY) * MINUTE_MS, (now + DAY) * MINUTE_MS);
            api.reaches(&format!("received:{reason}"), span, *n, PATIENCE).await?;
        }
        duckdb.rows(&sql::received(&table, &received)).await?;
        let reasons = received.keys().map(|reason| (*reason).to_owned()).collect();
        let of_received = Facts {
            table,
            minutes: (now, now + 1),
            dimensions: vec![("reason".into(), reasons)],
            measures: vec![],
            live: false,
            received: true,
        };
        Ok([Asking { api: api.clone(), facts }, Asking { api, facts: of_received }])
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let mut chunk = Chunk::default();
        match &mut self.source {
            Source::Real(file) => {
                let trace = if file.as_os_str().is_empty() { Trace::default() } else { Trace::open(file)? };
                *file = PathBuf::new();
                trace
                    .lines
                    .into_iter()
                    .filter(|line| Event::read(&line.text).is_some())
                    .for_each(|line| chunk.put(line));
            }
            Source::Plain(events) => {
                let body = events.body(CHUNK);
                let lines = body.iter().flat_map(|body| body.bytes().split(|byte| *byte == b'\n'));
                for (number, line) in lines.filter(|line| !line.is_empty()).enumerate() {
                    let text = bytes::Bytes::copy_from_slice(line);
                    chunk.put(Line { number, text, route: route(number as u64), repeated: false });
                }
            }
            Source::Dirty(dirty, left) => {
                dirty.is_now(Timestamp::now().as_millisecond());
                for number in 0..CHUNK.min(*left as usize) {
                    let made = dirty.next();
                    let (text, repeated) = (made.text.into(), made.fate == Fate::Repeated);
                    let line = Line { number, text, route: route(made.id), repeated };
                    match made.fate {
                        Fate::Rejected(reason) => {
                            chunk.receive(reason, 1);
                            chunk.lines.push(line);
                        }
                        Fate::Repeated => chunk.put(line),
                        Fate::Counted { late, out_of_range } => {
                            chunk.put(line);
                            chunk.receive("late", late.into());
                            chunk.receive("measure_out_of_range", out_of_range.into());
                        }
                    }
                }
                *left -= chunk.lines.len() as u64;
            }
        }
        Ok((!chunk.lines.is_empty()).then_some(chunk))
    }
}

/// The answers of the edge hold against what must become of a chunk's events.
fn check(name: &str, outcome: &Outcome, expected: &BTreeMap<&str, u64>) -> Result<()> {
    let mut answered: BTreeMap<&str, u64> = [("accepted", outcome.accepted), ("duplicate", outcome.duplicates)]
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .collect();
    outcome.rejected.iter().for_each(|rejected| *answered.entry(&rejected.reason).or_default() += 1);
    // Which of them are late, and what they measure, isn't answered.
    let mut expected = expected.clone();
    expected.retain(|reason, n| !["late", "measure_out_of_range"].contains(reason) && *n > 0);
    if answered == expected {
        return Ok(());
    }
    Err(Failure(format!("the edge answers {answered:?} to events of {name} of which {expected:?}")))
}

fn client(name: &str) -> Result<ClientId> {
    ClientId::new(name).map_err(Failure::at("a client"))
}

fn route(id: u64) -> std::sync::Arc<str> {
    format!("1.{}", id % ROUTES).into()
}

/// The texts of a column.
fn strings(rows: Vec<Vec<Value>>) -> Vec<String> {
    rows.iter().filter_map(|row| row.first()?.as_str()).map(str::to_owned).collect()
}
