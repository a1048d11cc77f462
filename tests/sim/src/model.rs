//! What must come out: computed from what was acknowledged, by code of its own.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;

use catchment_cells::key::{CellKey, Tier};
use catchment_cells::limits::DIGEST_VALUES_MAX;
use catchment_cells::route::Route;
use catchment_cells::users::Coupon;
use catchment_cells::{Cell, ClientId, Secret};
use siphasher::sip::SipHasher24;

const MINUTE_MS: i64 = 60_000;
/// Of a measure's unit.
const MICROS: i64 = 1_000_000;
/// The cubes whose measures have digests.
const DIGESTS: [&str; 3] = ["total", "event_type", "page"];

/// An event that a sender made.
#[derive(Debug, Clone)]
pub struct Event {
    /// Whose.
    pub client: ClientId,
    /// Its id, which is its product, too: so each event has a cell of its own.
    pub id: String,
    /// Its type, page, plan and user.
    pub event_type: &'static str,
    /// See `event_type`.
    pub page: &'static str,
    /// See `event_type`.
    pub plan: Option<&'static str>,
    /// See `event_type`.
    pub user: String,
    /// Its time, in ms: as it is, and by its sender's clock.
    pub truly_at: i64,
    /// See `truly_at`.
    pub at: i64,
    /// Its shard puts its time right, by what its sender's clock and its own say.
    pub is_corrected: bool,
    /// Its measure, a whole number.
    pub value: i64,
    /// It lacks what an event must have.
    pub malformed: bool,
    /// A 202 said that it counts.
    pub acked: bool,
    /// Where it goes.
    pub route: Route,
    /// A request with it had no answer.
    pub tried: bool,
    /// The shards that durably have it, and since when, in ms.
    pub kept: Vec<(usize, i64)>,
    /// The shards that it came to.
    pub shards: Vec<usize>,
}

/// What is expected beside what senders know.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// How often each event is to be counted: at least, and at most.
    pub counts: &'a [(u64, u64)],
    /// What shards said; `None` where some of them, or an aggregator, forgot what they had said.
    pub tally: Option<&'a Tally>,
    /// How far a corrected time may be off the true one, in ms.
    pub off_ms: i64,
}

/// What shards said of events once that was durable, by client and reason.
pub type Tally = BTreeMap<(ClientId, &'static str), u64>;

impl Event {
    /// The time that it is to be counted at, in ms.
    pub fn time(&self) -> i64 {
        if self.is_corrected { self.truly_at } else { self.at }
    }

    /// Its JSON.
    pub fn json(&self) -> String {
        let event_type = if self.malformed { String::new() } else { format!(r#","event_type":"{}""#, self.event_type) };
        let plan = self.plan.map_or(String::new(), |plan| format!(r#","plan":"{plan}""#));
        format!(
            r#"{{"event_id":"{id}"{event_type},"timestamp":{},"user_id":"{}","page":"{}"{plan},"product":"{id}","properties":{{"value":{}}}}}"#,
            self.at,
            self.user,
            self.page,
            self.value,
            id = self.id,
        )
    }

    /// The cubes that it is in, with its values there.
    fn cells(&self) -> [(&'static str, Vec<Option<Box<str>>>); 6] {
        let some = |text: &str| Some(Box::from(text));
        let plan = self.plan.map(Box::from);
        [
            ("total", vec![]),
            ("event_type", vec![some(self.event_type)]),
            ("page", vec![some(self.page)]),
            ("plan", vec![plan.clone()]),
            ("audience", vec![some(self.event_type), None, None, plan]),
            ("product", vec![some(&self.id)]),
        ]
    }
}

/// Holds the cells of a region, or of central, against the events. Says how many events are in them, and how many quantiles were
/// estimated.
pub fn check(
    who: &str,
    secret: &Secret,
    events: &[Event],
    expected: &Expected<'_>,
    mut cells: HashMap<CellKey, Cell>,
) -> Result<(u64, u64), String> {
    let found = products(&cells);
    let mut model: HashMap<CellKey, (Cell, Vec<i64>)> = HashMap::new();
    let (mut counted, mut by_client) = (0u64, BTreeMap::<ClientId, u64>::new());
    for (event, &(least, most)) in events.iter().zip(expected.counts) {
        let minutes = found.get(&(event.client.as_str(), event.id.as_str())).map_or(&[][..], Vec::as_slice);
        let count: u64 = minutes.iter().map(|(_, count)| count).sum();
        if count > most {
            return Err(format!("{who}: event {} is counted {count} times: {event:?}", event.id));
        }
        if count < least {
            return Err(format!("{who}: event {} was acknowledged, and is lost: {event:?}", event.id));
        }
        if count == 0 {
            continue;
        }
        if event.malformed {
            return Err(format!("{who}: event {} is malformed, and is counted", event.id));
        }
        counted += count;
        *by_client.entry(event.client.clone()).or_default() += count;
        let mut hash = SipHasher24::new_with_key(&secret.identity_key(&event.client));
        hash.write(b"u");
        hash.write(event.user.as_bytes());
        let user = Coupon::of(hash.finish());
        for &(minute, count) in minutes {
            let at = event.time();
            let off_ms = if event.is_corrected { expected.off_ms } else { 0 };
            if minute < (at - off_ms).div_euclid(MINUTE_MS) || minute > (at + off_ms).div_euclid(MINUTE_MS) {
                return Err(format!("{who}: event {} of {at} is counted in minute {minute}", event.id));
            }
            for (cube, values) in event.cells() {
                if !values.is_empty() && values.iter().all(Option::is_none) {
                    continue;
                }
                for (tier, minutes) in [(Tier::Minute, 1), (Tier::Hour, 60), (Tier::Day, 1_440)] {
                    let bucket = minute - minute.rem_euclid(minutes);
                    let (client, values) = (event.client.clone(), values.clone());
                    let key = CellKey { client, cube: cube.into(), tier, bucket, values };
                    let (cell, all) = model.entry(key).or_default();
                    for _ in 0..count {
                        cell.count += 1;
                        cell.users.insert(user);
                        cell.record("value", event.value * MICROS, false);
                        all.push(event.value * MICROS);
                    }
                }
            }
        }
    }
    let mut received: HashMap<(ClientId, Box<str>), u64> = HashMap::new();
    cells.retain(|key, cell| {
        if &*key.cube != "received" {
            return true;
        }
        if key.tier == Tier::Minute {
            let reason = key.values[0].clone().unwrap_or_default();
            *received.entry((key.client.clone(), reason)).or_default() += cell.count;
        }
        false
    });
    let quantiles = quantiles(who, &mut cells, &mut model)?;
    let model: HashMap<CellKey, Cell> = model.into_iter().map(|(key, (cell, _))| (key, cell)).collect();
    if cells != model {
        let key = cells.iter().find(|(key, cell)| model.get(key) != Some(cell)).map(|(key, _)| key);
        let key = key.or_else(|| model.keys().find(|key| !cells.contains_key(key)));
        let Some(key) = key else { return Err(format!("{who}: cells differ")) };
        let (cell, expected) = (cells.get(key), model.get(key));
        return Err(format!("{who}: {key:?} is {cell:?}, and should be {expected:?}"));
    }
    let Some(tally) = expected.tally else { return Ok((counted, quantiles)) };
    for ((client, reason), count) in tally {
        let found = received.get(&(client.clone(), (*reason).into())).copied().unwrap_or(0);
        if found != *count {
            return Err(format!("{who}: {found} of {client} are {reason} by its counters, and {count} by its answers"));
        }
    }
    for (client, count) in by_client {
        let accepted = tally.get(&(client.clone(), "accepted")).copied().unwrap_or(0);
        if accepted != count {
            return Err(format!("{who}: {accepted} events of {client} were accepted, and {count} are counted"));
        }
    }
    Ok((counted, quantiles))
}

/// The minutes that each event's own cells are in, and how often it is counted there, by client and product.
pub fn products(cells: &HashMap<CellKey, Cell>) -> HashMap<(&str, &str), Vec<(i64, u64)>> {
    let mut found: HashMap<(&str, &str), Vec<(i64, u64)>> = HashMap::new();
    for (key, cell) in cells {
        if let (true, Tier::Minute, [Some(product)]) = (&*key.cube == "product", key.tier, &key.values[..]) {
            found.entry((key.client.as_str(), product)).or_default().push((key.bucket, cell.count));
        }
    }
    found
}

/// Takes the digests, which hang on the order of merges, out of cells, and holds each against its values: of few the quantiles are
/// exact; of more they have bounds, which hold in all but some of a thousand cases, and miss by little.
fn quantiles(
    who: &str,
    cells: &mut HashMap<CellKey, Cell>,
    model: &mut HashMap<CellKey, (Cell, Vec<i64>)>,
) -> Result<u64, String> {
    let mut estimated = 0;
    for (key, cell) in cells {
        let has_digest = DIGESTS.contains(&&*key.cube);
        for measure in cell.measures.values_mut() {
            let digest = measure.digest.take();
            if digest.is_some() != has_digest {
                return Err(format!("{who}: {key:?} has a digest, or has none"));
            }
            let (Some(digest), Some((_, values))) = (digest, model.get_mut(key)) else { continue };
            values.sort_unstable();
            for q in [0.5, 0.95, 0.99] {
                let rank = (q * values.len() as f64).ceil() as usize;
                let value = |rank: usize| values[rank.clamp(1, values.len()) - 1] as f64 / MICROS as f64;
                let figure = digest.quantile(q).ok_or_else(|| format!("{who}: {key:?} has no quantiles"))?;
                let off = 1 + values.len() / 50;
                let (low, high) = (value(rank.saturating_sub(off)), value(rank + off));
                let holds = match figure.exact {
                    true => figure.value == value(rank),
                    false => figure.lower <= high && figure.upper >= low,
                };
                if !holds || figure.exact != (values.len() <= DIGEST_VALUES_MAX) {
                    return Err(format!("{who}: {key:?} has {figure:?} for {}", value(rank)));
                }
                estimated += u64::from(!figure.exact);
            }
        }
    }
    Ok(estimated)
}
