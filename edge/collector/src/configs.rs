//! Whether a shard has the present configs of its clients: what it was told, when, and what to ask.
//!
//! Each ack bears the version of its home's configs. A request that comes when that is too old, or another than the one that the shard
//! has, or whose client the shard has never asked about, has the home asked first. So a shard at rest asks nothing, and one that is
//! shipping mostly knows from its acks.

use std::collections::{BTreeMap, BTreeSet};

use catchment_cells::ClientId;
use catchment_cells::config::{Answer, Question};

use crate::limits::RULES_MAX;

/// What was told counts as present for so long, in ms, from when it was asked for: with the time of a question it is below the 5 s in
/// which a change is in force.
const PRESENT_MS: i64 = 3_500;
/// From then on the next request asks again, in ms, though others needn't wait for it: half of what lies between two cuts, so that one
/// question goes with an ack.
const ASK_AFTER_MS: i64 = 2_500;
/// A question that has been under way for so long, in ms, is lost with whoever asked it.
const LOST_MS: i64 = 5_000;
/// How long a home that did not answer isn't asked again, in ms, unless it takes frames meanwhile: at first, and at the most.
const FAILED_MS: i64 = 2_000;
const FAILED_MS_MAX: i64 = 32_000;

/// What a request is to do before its events are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Go on.
    Nothing,
    /// Wait until the question that is under way has been answered, and look again.
    Wait,
    /// Ask the home, and look again.
    Ask,
}

/// What a shard knows of its home's configs. It starts anew with the process.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    /// Clients that were asked about, and the version of the config that is in force.
    known: BTreeMap<ClientId, u32>,
    /// Those that wait for the next question.
    wanted: BTreeSet<ClientId>,
    /// The home's version that `known` is as of.
    current: u32,
    /// The home's version, as last told, and when that was asked for, in ms.
    told: Option<(u32, i64)>,
    asking: Option<Asking>,
    failures: u32,
    not_before: i64,
}

/// A question under way.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    at: i64,
    /// Its clients are all that were known.
    of_all: bool,
    pub(crate) question: Question,
}

impl Configs {
    /// What a request of a client is to do; `ships`: an ack is on its way.
    pub(crate) fn need(&mut self, client: &ClientId, ships: bool, now: i64) -> Need {
        if (1..=FAILED_MS_MAX).contains(&(self.not_before - now)) {
            return Need::Nothing;
        }
        // After a clock that went back there is no telling how old anything is.
        let age = |at: i64| if at > now { i64::MAX } else { now - at };
        let is_known = self.known.contains_key(client);
        let told_ms = self.told.map_or(i64::MAX, |(_, at)| age(at));
        let is_behind = self.told.is_none_or(|(version, _)| version != self.current);
        let must = !is_known || is_behind || told_ms > PRESENT_MS;
        if must && !is_known {
            self.wanted.insert(client.clone());
        }
        match &self.asking {
            Some(asking) if age(asking.at) <= LOST_MS && must => Need::Wait,
            Some(asking) if age(asking.at) <= LOST_MS => Need::Nothing,
            _ if must || (told_ms > ASK_AFTER_MS && !ships) => Need::Ask,
            _ => Need::Nothing,
        }
    }

    /// The question to ask now; `stored` says the version of a client's stored config.
    pub(crate) fn ask<E>(
        &mut self,
        home: &str,
        nonce: u64,
        now: i64,
        mut stored: impl FnMut(&ClientId) -> Result<u32, E>,
    ) -> Result<Question, E> {
        if self.known.len() + self.wanted.len() > RULES_MAX {
            // More than one question may ask about: each is asked about again with its next event.
            self.known.clear();
            while self.wanted.len() > RULES_MAX {
                self.wanted.pop_last();
            }
        }
        let mut clients = BTreeMap::new();
        for client in std::mem::take(&mut self.wanted) {
            let version = stored(&client)?;
            clients.insert(client, version);
        }
        let of_all = self.known.is_empty() || self.told.is_some_and(|(version, _)| version != self.current);
        if of_all {
            clients.extend(self.known.iter().map(|(client, version)| (client.clone(), *version)));
        }
        let question = Question { nonce, home: home.into(), clients: clients.into_iter().collect() };
        self.asking = Some(Asking { at: now, of_all, question: question.clone() });
        Ok(question)
    }

    /// The question whose answer came, or came not.
    pub(crate) fn take_asking(&mut self) -> Option<Asking> {
        self.asking.take()
    }

    /// Nothing came of a question.
    pub(crate) fn on_failure(&mut self, now: i64) {
        self.not_before = now + (FAILED_MS << self.failures.min(16)).min(FAILED_MS_MAX);
        self.failures += 1;
    }

    /// Learns an answer, whose configs are in force from here on.
    pub(crate) fn on_answer(&mut self, Asking { at, of_all, question }: Asking, answer: &Answer) {
        if !answer.more {
            self.known.extend(question.clients);
            if of_all {
                self.current = answer.version;
            }
        }
        self.known.extend(answer.configs.iter().map(|told| (told.client.clone(), told.version)));
        self.hear(answer.version, at);
    }

    /// Hears the home's version, as of a time.
    pub(crate) fn hear(&mut self, version: u32, at: i64) {
        (self.failures, self.not_before) = (0, 0);
        if self.told.is_none_or(|(_, told_at)| told_at <= at) {
            self.told = Some((version, at));
        }
    }

    /// The version that is in force.
    pub(crate) fn version(&self) -> u32 {
        self.current
    }
}
