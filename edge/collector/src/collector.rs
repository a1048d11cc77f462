//! The collector: log rows in, frames out.

mod remembered;
mod sealing;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::hash::Hasher;
use std::sync::Arc;

use catchment_cells::credential::Identity;
use catchment_cells::cube::{self, Cube};
use catchment_cells::frame::{CountersBlock, DeadLetter, DeadLettersBlock};
use catchment_cells::limits::{DEAD_LETTER_BYTES_MAX, VALUE_BYTES_MAX};
use catchment_cells::secret::FrameKey;
use catchment_cells::users::Coupon;
use catchment_cells::{ClientId, Secret};
use catchment_config::Config;
use serde::Serialize;
use siphasher::sip::SipHasher24;

use self::remembered::{RingRow, Round};
use crate::enrich::{Agents, Enriched};
use crate::event::{Event, Field, Rejection};
use crate::ids::{Ids, IdsBounds};
use crate::limits::{
    CUT_BYTES, CUT_CELLS, CUT_COUNTERS, CUT_EVENTS, CUT_LETTER_BYTES, CUT_ROWS, FUTURE_MS, KEYS_MAX, LATE_MS,
    REPORTS_MAX, RULES_BYTES_MAX, RULES_MAX, SKEW_MS,
};
use crate::open::{ClientEvents, Column, OpenEvents};
use crate::reason::Reason;
use crate::request::Request;
use crate::rows::{ConfigRow, IdsRow, LogRow, Meta, SpilledRow};
use crate::rules::Rules;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
/// What a request weighs beside its body's bytes, since also the number of rows makes a cut due.
const REQUEST_BYTES: usize = 2_000;

/// One shard's state between its cuts.
#[derive(Debug)]
pub struct Collector {
    secret: Secret,
    frame_key: FrameKey,
    meta: Meta,
    /// What every client's events fill.
    cubes: Vec<Cube>,
    /// Of clients without a config.
    default_rules: Arc<Rules>,
    /// Of those whose config is at hand; `None`: it has none.
    rules: HashMap<ClientId, Option<Arc<Rules>>>,
    rules_bytes: usize,
    /// Of those at hand, whose stored config can't be read: they are as clients without one.
    unreadable: BTreeSet<ClientId>,
    /// What was reported of clients' schemas since the process began.
    reported: BTreeMap<ClientId, BTreeSet<String>>,
    keys: HashMap<ClientId, Keys>,
    bounds: IdsBounds,
    ids: Ids,
    /// The ring of ids, oldest first.
    ids_rows: VecDeque<RingRow>,
    /// Ids in the ring's rows.
    ids_in_ring: usize,
    /// By when all of their events had been received, in ms.
    received_by: i64,
    /// The row that the next cut may add to.
    ids_last: Option<IdsRow>,
    round: Option<Round>,
    open: Open,
}

/// What came since the last cut.
#[derive(Debug, Default)]
struct Open {
    events: OpenEvents,
    counters: CountersBlock,
    letters: DeadLettersBlock,
    letter_bytes: usize,
    ids: Vec<u64>,
    counter_count: usize,
    rows: u64,
    body_bytes: usize,
    /// What each client's requests take of what a cut may have: bytes, and [`REQUEST_BYTES`] for each.
    weights: BTreeMap<ClientId, usize>,
    first_received_at: Option<i64>,
    last_received_at: i64,
}

/// The hash keys of a client.
#[derive(Debug, Clone, Copy)]
struct Keys {
    identity: [u8; 16],
    event_id: [u8; 16],
}

/// What became of one request's events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Counted now.
    pub accepted: u64,
    /// Counted before.
    pub duplicates: u64,
    /// Not counted.
    pub rejected: Vec<Rejected>,
}

/// An event that is not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its place in the body, from 0.
    pub index: usize,
    /// Its id, if it has one.
    pub event_id: Option<String>,
    /// Why.
    pub reason: &'static str,
}

/// What a cut changes in storage, in one transaction; only then may the frames be sent.
#[derive(Debug)]
pub struct Cut {
    /// Frames.
    pub frames: Vec<CutFrame>,
    /// Whose requests took most of it.
    pub mostly: Option<ClientId>,
    /// The row of ids to write.
    pub ids: Option<IdsRow>,
    /// The shard's new state.
    pub meta: Meta,
}

/// A frame of a cut.
#[derive(Debug)]
pub struct CutFrame {
    /// Its number.
    pub number: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whose cells it has.
    pub clients: Vec<ClientId>,
}

impl Collector {
    /// Takes up a shard's state. Hand in its rows of ids and its log since `meta.folded_through` next.
    pub fn new(secret: Secret, meta: Meta) -> Self {
        Collector::with_cubes(secret, meta, cube::DEFAULT)
    }

    /// As [`new`](Self::new), with these cubes instead of the default ones.
    pub fn with_cubes(secret: Secret, meta: Meta, cubes: &[Cube]) -> Self {
        let ids = Ids::new(meta.spilled > 0);
        Collector {
            frame_key: secret.frame_key(&meta.producer),
            secret,
            meta,
            cubes: cubes.into(),
            default_rules: Arc::new(Rules::of_cubes(cubes)),
            rules: HashMap::new(),
            rules_bytes: 0,
            unreadable: BTreeSet::new(),
            reported: BTreeMap::new(),
            keys: HashMap::new(),
            bounds: IdsBounds::default(),
            ids,
            ids_rows: VecDeque::new(),
            ids_in_ring: 0,
            received_by: i64::MIN,
            ids_last: None,
            round: None,
            open: Open::default(),
        }
    }

    /// Whether something of a client waits for a cut.
    pub(crate) fn is_open(&self, client: &ClientId) -> bool {
        self.open.weights.contains_key(client) || self.open.counters.0.contains_key(client)
    }

    /// Puts a client's config in force, or that it has none. Nothing of the client may be open, but for what came under the same config.
    /// Others are let go of where there are too many, and handed in again when they are needed.
    pub fn set_config(&mut self, client: &ClientId, row: Option<&ConfigRow>) {
        let bytes = row.map_or(0, |row| row.config.len());
        if self.rules.len() >= RULES_MAX || self.rules_bytes + bytes > RULES_BYTES_MAX {
            self.rules.clear();
            self.unreadable.clear();
            self.rules_bytes = 0;
        }
        self.rules_bytes += bytes;
        // It was read before it was stored, but maybe by another version of this code. No bytes: it has none any more.
        self.unreadable.remove(client);
        let config = row.filter(|row| !row.config.is_empty()).map(|row| {
            Config::decode(&row.config).unwrap_or_else(|_| {
                self.unreadable.insert(client.clone());
                Config::salvage(&row.config)
            })
        });
        let rules = config.map(|config| Arc::new(Rules::new(&self.cubes, config)));
        self.rules.insert(client.clone(), rules);
        self.reported.remove(client);
    }

    /// Clients, of those whose config is at hand, whose stored one can't be read.
    pub fn unreadable_configs(&self) -> usize {
        self.unreadable.len()
    }

    /// The shard's state as of the last cut.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Counts a request that was refused as a whole, but for those beyond the bound while no cut can be made. The log doesn't know
    /// of it: a crash loses what was not cut.
    pub fn count_refused(&mut self, client: &ClientId, now: i64) {
        if self.open.counter_count < CUT_COUNTERS {
            self.open.count(client, Reason::RequestRefused, now.div_euclid(MINUTE_MS), 1);
            self.open.first_received_at.get_or_insert(now);
        }
    }

    /// Applies a row of the log: the same rows after the same state always give the same. This collector has spilled nothing, and clients
    /// have the configs that were [set](Self::set_config).
    pub fn apply(&mut self, row: &LogRow) -> Vec<Outcome> {
        let Ok(outcomes) = self.apply_with(row, &mut |n| Ok::<_, Infallible>(SpilledRow::empty(n)), &mut |_| Ok(None));
        outcomes
    }

    /// Applies a row of the log, where `read` reads spilled rows, and `config` a client's config. If that fails, the
    /// collector is of no more use.
    pub fn apply_with<E>(
        &mut self,
        row: &LogRow,
        read: &mut dyn FnMut(u64) -> Result<SpilledRow, E>,
        config: &mut dyn FnMut(&ClientId) -> Result<Option<ConfigRow>, E>,
    ) -> Result<Vec<Outcome>, E> {
        let now = row.received_at;
        self.open.first_received_at.get_or_insert(now);
        self.open.last_received_at = now;
        self.open.rows += 1;
        let mut outcomes = Vec::with_capacity(row.requests.len());
        for request in &row.requests {
            let client = &request.claims.client;
            self.rules_of(client, config)?;
            outcomes.push(self.apply_request(request, now, read)?);
        }
        Ok(outcomes)
    }

    /// The rules of a client's config, which `config` reads where it isn't at hand.
    pub(crate) fn rules_of<E>(
        &mut self,
        client: &ClientId,
        config: &mut dyn FnMut(&ClientId) -> Result<Option<ConfigRow>, E>,
    ) -> Result<&Rules, E> {
        if !self.rules.contains_key(client) {
            let config = config(client)?;
            self.set_config(client, config.as_ref());
        }
        Ok(self.rules.get(client).and_then(Option::as_ref).unwrap_or(&self.default_rules))
    }

    /// When the first event since the last cut came, in ms; `None` if there is nothing to cut.
    pub fn waits_since(&self) -> Option<i64> {
        self.open.first_received_at
    }

    /// The clients that have events that wait.
    pub fn clients(&self) -> impl Iterator<Item = &ClientId> {
        self.open.events.clients()
    }

    /// Whether a cut is due for the size of what waits.
    pub fn is_cut_due(&self) -> bool {
        self.open.rows >= CUT_ROWS
            || self.open.body_bytes.max(self.open.events.text_bytes()) >= CUT_BYTES
            || self.open.events.len() >= CUT_EVENTS
            || self.open.events.cells() >= CUT_CELLS
            || self.open.counter_count >= CUT_COUNTERS
            || self.open.letter_bytes >= CUT_LETTER_BYTES
    }

    fn keys_of(&mut self, client: &ClientId) -> Keys {
        if let Some(keys) = self.keys.get(client) {
            return *keys;
        }
        if self.keys.len() >= KEYS_MAX {
            self.keys.clear();
        }
        let keys = Keys { identity: self.secret.identity_key(client), event_id: self.secret.event_id_key(client) };
        self.keys.insert(client.clone(), keys);
        keys
    }

    fn apply_request<E>(
        &mut self,
        request: &Request,
        now: i64,
        read: &mut dyn FnMut(u64) -> Result<SpilledRow, E>,
    ) -> Result<Outcome, E> {
        let client = &request.claims.client;
        let keys = self.keys_of(client);
        let minute_received = now.div_euclid(MINUTE_MS);
        self.open.body_bytes += request.bytes();
        let weight = REQUEST_BYTES + request.bytes();
        match self.open.weights.get_mut(client) {
            Some(of_client) => *of_client += weight,
            None => _ = self.open.weights.insert(client.clone(), weight),
        }
        let mut outcome = Outcome::default();
        let rules = self.rules.get(client).and_then(Option::as_ref).unwrap_or(&self.default_rules).clone();
        let mut counts: BTreeMap<Reason, u64> = BTreeMap::new();
        let mut events = self.open.events.take(client, rules.filling());
        let mut agents = Agents::default();
        for (index, json) in request.events().enumerate() {
            match self.apply_event(
                (request, keys, (&rules, &mut agents)),
                json,
                now,
                (&mut events, &mut counts),
                read,
            )? {
                Ok(Reason::Duplicate) => {
                    outcome.duplicates += 1;
                    *counts.entry(Reason::Duplicate).or_default() += 1;
                }
                Ok(_) => {
                    outcome.accepted += 1;
                    *counts.entry(Reason::Accepted).or_default() += 1;
                }
                Err((event_id, reason)) => {
                    outcome.rejected.push(Rejected { index, event_id, reason: reason.as_str() });
                    *counts.entry(reason).or_default() += 1;
                    if !self.open.keep(client, reason, json, now) {
                        *counts.entry(Reason::DeadLetterDropped).or_default() += 1;
                    }
                }
            }
        }
        self.open.events.put_back(client, events);
        for (reason, n) in counts {
            self.open.count(client, reason, minute_received, n);
        }
        Ok(outcome)
    }

    /// Tells, once, of what no schema of a client knows: as a counter, which travels as all do.
    fn report(&mut self, client: &ClientId, report: String, now: i64) {
        if self.reported.len() >= RULES_MAX {
            self.reported.clear();
        }
        let reported = self.reported.entry(client.clone()).or_default();
        if reported.len() < REPORTS_MAX && reported.insert(report.clone()) {
            self.open.counters.add(client, &report, now.div_euclid(MINUTE_MS), 1);
            self.open.counter_count += 1;
        }
    }

    /// Counts one event: accepted, or a duplicate.
    fn apply_event<E>(
        &mut self,
        (request, keys, (rules, agents)): (&Request, Keys, (&Rules, &mut Agents)),
        json: &str,
        now: i64,
        (events, counts): (&mut ClientEvents, &mut BTreeMap<Reason, u64>),
        read: &mut dyn FnMut(u64) -> Result<SpilledRow, E>,
    ) -> Result<Result<Reason, Rejection>, E> {
        let event = match Event::read(json, rules.measures()) {
            Ok(event) => event,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let claims = &request.claims;
        let reject = |reason| Ok(Err((Some(event.id().to_owned()), reason)));
        let foreign = event.text(Field::ClientId).is_some_and(|client| client != claims.client.as_str());
        if foreign && !claims.ignore_foreign_client {
            return reject(Reason::ClientMismatch);
        }
        let mut at = event.timestamp_ms;
        if let Some(skew) = request.sent_at().map(|sent_at| now - sent_at)
            && !claims.backfill
            && skew.abs() > SKEW_MS
        {
            at += skew;
        }
        let id = hash(keys.event_id, &[event.id().as_bytes()]);
        if self.ids.contains(id, read)? {
            return Ok(Ok(Reason::Duplicate));
        }
        if at - now > FUTURE_MS {
            return reject(Reason::Future);
        }
        if !claims.backfill && now - at > rules.lateness_ms() {
            return reject(Reason::TooLate);
        }
        let members = rules.members(json);
        let own = rules.own_values(&members);
        if own.iter().flatten().any(|value| value.len() > VALUE_BYTES_MAX) {
            return reject(Reason::FieldTooLong);
        }
        let event_type = event.text(Field::EventType).unwrap_or_default();
        match rules.check(event_type, &members, |report| self.report(&claims.client, report, now)) {
            Ok(true) => *counts.entry(Reason::SchemaWarned).or_default() += 1,
            Ok(false) => {}
            Err(reason) => return reject(reason),
        }
        let minute = at.div_euclid(MINUTE_MS);
        if !claims.backfill && now > (minute + 1) * MINUTE_MS + LATE_MS {
            *counts.entry(Reason::Late).or_default() += 1;
        }
        self.ids.insert(id);
        self.open.ids.push(id);
        let user = identity(&event, request, keys.identity, at);
        if event.measures_left > 0 {
            *counts.entry(Reason::MeasuresOverLimit).or_default() += event.measures_left;
        }
        let enriched = Enriched::of(&event, request, agents);
        if enriched.value(Field::Bot).is_some() {
            *counts.entry(Reason::Bot).or_default() += 1;
        }
        let given = |column| match column {
            Column::Field(field) => enriched.value(field),
            Column::Own(n) => own[n],
        };
        let value = |column| rules.value(column, given);
        let count = |reason, n| *counts.entry(reason).or_default() += n;
        events.add(keys.event_id, (minute, Coupon::of(user)), value, event.measures(), count);
        Ok(Ok(Reason::Accepted))
    }
}

impl Open {
    fn count(&mut self, client: &ClientId, reason: Reason, minute: i64, n: u64) {
        self.counters.add(client, reason.as_str(), minute, n);
        // At the most: the counter may have been there.
        self.counter_count += 1;
    }

    /// Keeps an event that is not counted, unless it is too long.
    fn keep(&mut self, client: &ClientId, reason: Reason, json: &str, received_at: i64) -> bool {
        if json.len() > DEAD_LETTER_BYTES_MAX {
            return false;
        }
        self.letter_bytes += json.len();
        let letter = DeadLetter { received_at, reason: reason.as_str().into(), event: json.into() };
        match self.letters.0.get_mut(client) {
            Some(letters) => letters.push(letter),
            None => _ = self.letters.0.insert(client.clone(), vec![letter]),
        }
        true
    }
}

/// Whom the event's user is counted as: a keyed hash, so that nobody can choose registers.
fn identity(event: &Event<'_>, request: &Request, key: [u8; 16], at: i64) -> u64 {
    let mode = request.claims.identity;
    let given = |field, tag: &[u8]| event.text(field).map(|id| hash(key, &[tag, id.as_bytes()]));
    let user = if mode == Identity::User { given(Field::User, b"u") } else { None };
    let device = || {
        if mode == Identity::Daily {
            return None;
        }
        given(Field::DeviceId, b"d").or_else(|| given(Field::Session, b"s"))
    };
    user.or_else(device).unwrap_or_else(|| {
        let day = at.div_euclid(DAY_MS);
        hash(key, &[b"v", &request.visitor.hash.to_le_bytes(), &day.to_le_bytes()])
    })
}

fn hash(key: [u8; 16], parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&key);
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
