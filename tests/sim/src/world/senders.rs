//! Senders: they make events, and send them until they are answered, in batches of their own choice.

use std::collections::{BTreeMap, VecDeque};

use catchment_cells::ClientId;
use catchment_cells::route::{Epoch, Route};
use catchment_collector::Outcome;

use super::{HOUR, MINUTE, Next, SENDER_TIMEOUT, START, World};
use crate::model::Event;

/// A sender, as the SDK is one: an event has the route of when it was made, and keeps it.
pub(super) struct Sender {
    pub(super) client: ClientId,
    /// Its routes' name.
    pub(super) name: String,
    /// The epoch of its new routes.
    pub(super) epoch: Epoch,
    /// Its key is a backfill's.
    pub(super) backfill: bool,
    /// What its clock is ahead, in ms, which it tells by `sent_at`; `None`: it is right, and it tells nothing.
    pub(super) clock: Option<i64>,
    pub(super) queue: VecDeque<usize>,
    /// When each request was sent that isn't answered, and its events.
    pub(super) inflight: BTreeMap<u64, (i64, Vec<usize>)>,
    pub(super) failures: u32,
    /// It waits until then.
    pub(super) not_before: i64,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) sender: usize,
    pub(super) number: u64,
    /// One route for all of it.
    pub(super) route: Route,
    pub(super) events: Vec<usize>,
    /// When it was sent, by its sender's clock, if it tells that.
    pub(super) sent_at: Option<i64>,
    /// It breaks off.
    pub(super) broken: bool,
    /// It is there a second time: nobody waits for its answer.
    pub(super) again: bool,
}

/// What a sender is told.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// 202, with the epoch for new routes.
    Taken(Outcome, Epoch),
    /// 429.
    OverQuota { retry_after_ms: i64, epoch: Epoch },
    /// 400: the route's map is no longer taken, since so many ms, but this is.
    UnknownEpoch(Epoch, i64),
    /// 400 or 503.
    Refused,
}

impl World {
    /// A sender makes an event.
    pub(super) fn make(&mut self) {
        let n = self.made;
        self.made += 1;
        let sender = self.random.below(self.senders.len() as u64) as usize;
        let Sender { client, name, epoch, backfill, clock, .. } = &self.senders[sender];
        let route = Route { epoch: *epoch, name: name.clone() };
        let (client, backfill, clock) = (client.clone(), *backfill, *clock);
        let (kind, random) = (self.random.below(20), &mut self.random);
        let age = match kind {
            0 | 1 if backfill => random.between(0, 40 * 24 * HOUR),
            0 => random.between(0, 20 * HOUR),
            1 => random.between(23 * HOUR, 25 * HOUR),
            2 => -random.between(100_000, 300_000),
            _ => random.between(0, 2_000),
        };
        self.events.push(Event {
            client,
            id: format!("e{n}"),
            event_type: random.pick(&["page_view", "purchase", "click"]),
            page: random.pick(&["/", "/a", "/b"]),
            plan: random.pick(&[None, Some("free"), Some("pro")]),
            user: format!("u{}", random.below(12)),
            truly_at: self.now - age,
            at: self.now - age + clock.unwrap_or(0),
            is_corrected: clock.is_some() && !backfill,
            value: random.between(-5, 1_000),
            malformed: kind == 3,
            acked: false,
            route,
            tried: false,
            kept: Vec::new(),
            shards: Vec::new(),
        });
        if backfill {
            self.saw("a backfill");
        }
        self.senders[sender].queue.push_back(n);
        self.at(0, Next::Send(sender));
        if self.made < self.weather.events {
            // All of them before the end of what goes wrong.
            let left = (START + self.weather.span - self.now).max(0);
            let most = left.min(3 * self.weather.span / self.weather.events as i64);
            let wait = if self.random.below(3) == 0 { 0 } else { self.random.between(0, most) };
            self.at(wait, Next::Make);
        }
    }

    /// A sender sends some of what it has, however it sent them before.
    pub(super) fn send_events(&mut self, sender: usize) {
        let Sender { queue, inflight, not_before, .. } = &self.senders[sender];
        if inflight.len() >= 2 || self.now < *not_before {
            return;
        }
        let Some(&first) = queue.front() else { return };
        let route = self.events[first].route.clone();
        let n = 1 + self.random.below(queue.len().min(20) as u64) as usize;
        let of_route = queue.iter().filter(|&&event| self.events[event].route == route);
        let events: Vec<usize> = of_route.take(n).copied().collect();
        self.requests += 1;
        let number = self.requests;
        self.senders[sender].inflight.insert(number, (self.now, events.clone()));
        let sent_at = self.senders[sender].clock.map(|ahead| self.now + ahead);
        let broken = self.random.below(200) == 0;
        let request = Request { sender, number, route, events, sent_at, broken, again: false };
        let again = Request { broken: false, again: true, ..request.clone() };
        self.send(Next::Arrive(request), Some(Next::Arrive(again)));
        self.at(SENDER_TIMEOUT, Next::GiveUp { sender, request: number });
    }

    /// A sender hears of a request, or that there is no answer.
    pub(super) fn answered(&mut self, sender: usize, request: u64, answer: Option<Answer>) {
        let Some((sent_at, events)) = self.senders[sender].inflight.remove(&request) else { return };
        let learned = match &answer {
            Some(Answer::Taken(_, epoch) | Answer::OverQuota { epoch, .. } | Answer::UnknownEpoch(epoch, _)) => {
                Some(*epoch)
            }
            Some(Answer::Refused) | None => None,
        };
        if let Some(epoch) = learned {
            let known = std::mem::replace(&mut self.senders[sender].epoch, epoch);
            if known.map() != epoch.map() {
                self.saw("a sender learns a map");
            } else if known.level() < epoch.level() {
                self.saw("a client is spread");
            } else if known.level() > epoch.level() {
                self.saw("a client is led back");
            }
        }
        match answer {
            Some(Answer::Taken(outcome, _)) => {
                let rejected: Vec<usize> = outcome.rejected.iter().map(|rejected| rejected.index).collect();
                for (index, &event) in events.iter().enumerate() {
                    self.events[event].acked |= !rejected.contains(&index);
                }
                self.senders[sender].queue.retain(|event| !events.contains(event));
                (self.senders[sender].failures, self.senders[sender].not_before) = (0, self.now);
                self.at(0, Next::Send(sender));
            }
            Some(Answer::OverQuota { retry_after_ms, .. }) => {
                // Some don't listen.
                let wait = if self.random.below(4) == 0 { 500 } else { retry_after_ms };
                self.pause(sender, wait);
            }
            Some(Answer::UnknownEpoch(epoch, ended_ms_ago)) => {
                if ended_ms_ago < self.now - sent_at {
                    self.saw("a map ends while a request is out");
                    events.iter().for_each(|&event| self.events[event].tried = true);
                }
                self.move_events(sender, &events, epoch);
                self.at(1_000, Next::Send(sender));
            }
            Some(Answer::Refused) | None if self.chance(|weather| weather.give_up) => {
                self.saw("a sender gives up");
                self.senders[sender].queue.retain(|event| !events.contains(event));
                self.at(0, Next::Send(sender));
            }
            Some(Answer::Refused) | None => {
                events.iter().for_each(|&event| self.events[event].tried = true);
                let failures = &mut self.senders[sender].failures;
                *failures += 1;
                let mut wait = (1_000i64 << (*failures).min(6)).min(if self.calm { 5_000 } else { MINUTE });
                if self.chance(|weather| weather.sleep) {
                    self.saw("a sender sleeps");
                    let calm_at = START + self.weather.span;
                    wait = self.random.between(HOUR, 12 * HOUR).min(calm_at - self.now).max(wait);
                }
                self.pause(sender, wait);
            }
        }
    }

    fn pause(&mut self, sender: usize, wait: i64) {
        self.senders[sender].not_before = self.now + wait;
        self.at(wait, Next::Send(sender));
    }

    /// Events of a route that leads nowhere any more go where it leads by another map; but for those that may have been counted
    /// where it led before, which are given up.
    fn move_events(&mut self, sender: usize, events: &[usize], epoch: Epoch) {
        for &n in events {
            let is_out = self.senders[sender].inflight.values().any(|(_, others)| others.contains(&n));
            let event = &mut self.events[n];
            if event.tried || is_out {
                self.saw("an event stays behind");
                self.senders[sender].queue.retain(|other| *other != n);
            } else {
                event.route.epoch = epoch;
                self.saw("an event is moved");
            }
        }
    }
}
