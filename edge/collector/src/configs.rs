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
/// How long a home that did not answer isn't asked again, in ms, unless it takes frames again meanwhile: at first, and at the most.
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
    /// Since the last answer an ack had the home asked sooner: further ones don't, until frames have failed, too.
    is_hurried: bool,
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
            // While the home doesn't answer it holds up no more than the request that asks.
            Some(asking) if age(asking.at) <= LOST_MS && must && self.failures == 0 => Need::Wait,
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
        self.settle(now);
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
        (self.failures, self.not_before, self.is_hurried) = (0, 0, false);
        self.hear(answer.version, at);
    }

    /// An ack bore the home's version, as of when its frame was sent: who takes frames again may answer again.
    pub(crate) fn on_ack(&mut self, version: u32, at: i64) {
        if self.failures > 0 && !std::mem::replace(&mut self.is_hurried, true) {
            self.not_before = 0;
        }
        self.hear(version, at);
    }

    /// The home is out of reach of frames, too.
    pub(crate) fn on_away(&mut self) {
        self.is_hurried = false;
    }

    /// Hears the home's version, as of a time.
    fn hear(&mut self, version: u32, at: i64) {
        if self.told.is_none_or(|(_, told_at)| told_at <= at) {
            self.told = Some((version, at));
        }
    }

    /// Holds nothing for newer than now: clocks go back.
    fn settle(&mut self, now: i64) {
        if let Some((_, at)) = &mut self.told {
            *at = now.min(*at);
        }
    }

    /// The version that is in force.
    pub(crate) fn version(&self) -> u32 {
        self.current
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use catchment_cells::config::Told;

    use super::*;

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    fn need(configs: &mut Configs, name: &str, now: i64) -> Need {
        configs.need(&client(name), false, now)
    }

    /// The clients of the next question, and their versions; what is stored has version 3.
    fn ask(configs: &mut Configs, now: i64) -> Vec<(String, u32)> {
        let Ok(question) = configs.ask("eu", 1, now, |_| Ok::<_, Infallible>(3));
        question.clients.iter().map(|(client, version)| (client.to_string(), *version)).collect()
    }

    fn answer(configs: &mut Configs, version: u32, more: bool, told_of: &[(&str, u32)]) {
        let told = |&(name, version): &(&str, u32)| Told { client: client(name), version, config: Vec::new() };
        let asking = configs.take_asking().unwrap();
        let told = told_of.iter().map(told).collect();
        configs.on_answer(asking, &Answer { version, more, configs: told });
    }

    #[test]
    fn each_client_is_asked_about_once_and_all_again_with_a_new_version() {
        let mut configs = Configs::default();
        assert_eq!(need(&mut configs, "a", 0), Need::Ask);
        assert_eq!(ask(&mut configs, 0), [("a".into(), 3)]);
        assert_eq!(need(&mut configs, "b", 1), Need::Wait);
        answer(&mut configs, 5, false, &[]);
        assert_eq!((need(&mut configs, "a", 2), need(&mut configs, "b", 2)), (Need::Nothing, Need::Ask));
        assert_eq!(ask(&mut configs, 2), [("b".into(), 3)]);
        answer(&mut configs, 5, false, &[("b", 4)]);
        assert_eq!((need(&mut configs, "a", 3), need(&mut configs, "b", 3)), (Need::Nothing, Need::Nothing));
        configs.on_ack(6, 3);
        assert_eq!(need(&mut configs, "a", 4), Need::Ask);
        assert_eq!(ask(&mut configs, 4), [("a".into(), 3), ("b".into(), 4)]);
        answer(&mut configs, 6, true, &[("a", 6)]);
        assert_eq!((need(&mut configs, "a", 5), configs.version()), (Need::Ask, 5), "there is more");
        assert_eq!(ask(&mut configs, 5), [("a".into(), 6), ("b".into(), 4)]);
        answer(&mut configs, 6, false, &[]);
        assert_eq!((need(&mut configs, "a", 6), configs.version()), (Need::Nothing, 6));
        // A home whose store was lost begins anew.
        configs.on_ack(1, 6);
        assert_eq!(need(&mut configs, "b", 7), Need::Ask);
    }

    #[test]
    fn what_was_told_gets_old() {
        let mut configs = Configs::default();
        need(&mut configs, "a", 0);
        ask(&mut configs, 0);
        answer(&mut configs, 5, false, &[]);
        assert_eq!(need(&mut configs, "a", ASK_AFTER_MS), Need::Nothing);
        assert_eq!(configs.need(&client("a"), true, ASK_AFTER_MS + 1), Need::Nothing, "an ack is on its way");
        assert_eq!(need(&mut configs, "a", ASK_AFTER_MS + 1), Need::Ask);
        assert_eq!(ask(&mut configs, ASK_AFTER_MS + 1), [], "the version alone");
        assert_eq!(need(&mut configs, "a", PRESENT_MS), Need::Nothing, "others don't wait for it");
        assert_eq!(need(&mut configs, "a", PRESENT_MS + 1), Need::Wait);
        assert_eq!(need(&mut configs, "a", ASK_AFTER_MS + 2 + LOST_MS), Need::Ask, "it is lost with whoever asked");
        // An ack tells as much, as of when its frame was sent; one that was sent before tells nothing new.
        configs.on_ack(5, 10_000);
        configs.on_ack(9, 9_000);
        assert_eq!(need(&mut configs, "a", 10_000 + ASK_AFTER_MS), Need::Nothing);
        assert_eq!(need(&mut configs, "a", 9_999), Need::Ask, "a clock that went back");
    }

    #[test]
    fn a_home_that_is_away_is_asked_ever_more_rarely_until_it_answers() {
        let mut configs = Configs::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(need(&mut configs, "a", now), Need::Ask);
            ask(&mut configs, now);
            configs.take_asking();
            configs.on_failure(now);
            let failed = now;
            while need(&mut configs, "a", now) == Need::Nothing {
                now += 500;
            }
            waits.push(now - failed);
        }
        assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 32_000, 32_000, 32_000]);
        configs.on_failure(now);
        configs.on_ack(0, now);
        assert_eq!(need(&mut configs, "a", now), Need::Ask, "it takes frames");

        // One that takes frames and answers no question isn't asked with each of its acks.
        let fail = |configs: &mut Configs| {
            ask(configs, now);
            configs.take_asking();
            configs.on_failure(now);
        };
        fail(&mut configs);
        configs.on_ack(1, now);
        assert_eq!(need(&mut configs, "a", now), Need::Nothing);
        configs.on_away();
        configs.on_ack(1, now);
        assert_eq!(need(&mut configs, "a", now), Need::Ask, "frames had failed, too");
        // Nor does it hold up who doesn't ask.
        ask(&mut configs, now);
        assert_eq!(need(&mut configs, "b", now), Need::Nothing);
        answer(&mut configs, 2, false, &[]);
        assert_eq!(need(&mut configs, "b", now), Need::Ask);
        ask(&mut configs, now);
        assert_eq!(need(&mut configs, "c", now), Need::Wait, "it answers");
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut configs = Configs::default();
        for n in 0..3 * RULES_MAX {
            need(&mut configs, &format!("c{n}"), 0);
            if n % 1_000 == 0 {
                assert!(ask(&mut configs, 0).len() <= RULES_MAX);
                answer(&mut configs, 5, false, &[]);
            }
        }
        assert!(ask(&mut configs, 0).len() <= RULES_MAX && configs.known.len() <= RULES_MAX);
    }
}
