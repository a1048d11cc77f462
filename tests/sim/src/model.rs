//! What must come out: computed from what was acknowledged, by code of its own.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;

use catchment_cells::key::{CellKey, Tier};
use catchment_cells::users::Coupon;
use catchment_cells::{Cell, ClientId, Secret};
use siphasher::sip::SipHasher24;

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
    /// Its time, in ms.
    pub at: i64,
    /// Its measure, a whole number.
    pub value: i64,
    /// It lacks what an event must have.
    pub malformed: bool,
    /// A 202 said that it counts.
    pub acked: bool,
}

/// What shards said of events once that was durable, by client and reason.
pub type Tally = BTreeMap<(ClientId, &'static str), u64>;

impl Event {
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

/// Holds the cells of a region, or of central, against the events. Says how many events are in them.
pub fn check(
    who: &str,
    secret: &Secret,
    events: &[&Event],
    tally: &Tally,
    mut cells: HashMap<CellKey, Cell>,
) -> Result<u64, String> {
    let mut expected: HashMap<CellKey, Cell> = HashMap::new();
    let (mut counted, mut by_client) = (0u64, BTreeMap::<ClientId, u64>::new());
    for event in events {
        let product: Box<str> = event.id.as_str().into();
        let minute = event.at.div_euclid(60_000);
        let key = CellKey {
            client: event.client.clone(),
            cube: "product".into(),
            tier: Tier::Minute,
            bucket: minute,
            values: vec![Some(product)],
        };
        let count = cells.get(&key).map_or(0, |cell| cell.count);
        if count > 1 {
            return Err(format!("{who}: event {} is counted {count} times", event.id));
        }
        if count == 0 && event.acked {
            return Err(format!("{who}: event {} was acknowledged, and is lost", event.id));
        }
        if count == 0 {
            continue;
        }
        if event.malformed {
            return Err(format!("{who}: event {} is malformed, and is counted", event.id));
        }
        counted += 1;
        *by_client.entry(event.client.clone()).or_default() += 1;
        let mut hash = SipHasher24::new_with_key(&secret.identity_key(&event.client));
        hash.write(b"u");
        hash.write(event.user.as_bytes());
        let user = Coupon::of(hash.finish());
        for (cube, values) in event.cells() {
            if !values.is_empty() && values.iter().all(Option::is_none) {
                continue;
            }
            for (tier, minutes) in [(Tier::Minute, 1), (Tier::Hour, 60), (Tier::Day, 1_440)] {
                let bucket = minute - minute.rem_euclid(minutes);
                let (client, values) = (event.client.clone(), values.clone());
                let cell = expected.entry(CellKey { client, cube: cube.into(), tier, bucket, values }).or_default();
                cell.count += 1;
                cell.users.insert(user);
                cell.record("value", event.value * 1_000_000, false);
            }
        }
    }
    let mut received: Tally = Tally::new();
    cells.retain(|key, cell| {
        if &*key.cube != "received" {
            return true;
        }
        if key.tier == Tier::Minute {
            let reason = key.values[0].as_deref().unwrap_or_default();
            let reason = tally.keys().map(|(_, reason)| *reason).find(|known| *known == reason).unwrap_or("other");
            *received.entry((key.client.clone(), reason)).or_default() += cell.count;
        }
        false
    });
    for cell in cells.values_mut() {
        for measure in cell.measures.values_mut() {
            // It depends on the order of merges.
            measure.digest = None;
        }
    }
    if cells != expected {
        let key = cells.iter().find(|(key, cell)| expected.get(key) != Some(cell)).map(|(key, _)| key);
        let key = key.or_else(|| expected.keys().find(|key| !cells.contains_key(key)));
        let Some(key) = key else { return Err(format!("{who}: cells differ")) };
        let (cell, expected) = (cells.get(key), expected.get(key));
        return Err(format!("{who}: {key:?} is {cell:?}, and should be {expected:?}"));
    }
    for ((client, reason), count) in tally {
        let found = received.get(&(client.clone(), *reason)).copied().unwrap_or(0);
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
    Ok(counted)
}
