//! Senders: they make events, and send them until they are answered, in batches of their own choice.

use std::collections::{BTreeMap, VecDeque};

use catchment_cells::ClientId;
use catchment_cells::route::Route;
use catchment_collector::Outcome;

use super::{Next, SENDER_TIMEOUT, World};
use crate::model::Event;

pub(super) struct Sender {
    pub(super) client: ClientId,
    pub(super) route: Route,
    pub(super) queue: VecDeque<usize>,
    pub(super) inflight: BTreeMap<u64, Vec<usize>>,
    pub(super) failures: u32,
}

impl World {
    /// A sender makes an event.
    pub(super) fn make(&mut self) {
        let n = self.made;
        self.made += 1;
        let sender = self.random.below(self.senders.len() as u64) as usize;
        let (kind, random) = (self.random.below(20), &mut self.random);
        let age = match kind {
            0 => random.between(0, 20 * 3_600_000),
            1 => random.between(23 * 3_600_000, 25 * 3_600_000),
            2 => -random.between(100_000, 300_000),
            _ => random.between(0, 2_000),
        };
        self.events.push(Event {
            client: self.senders[sender].client.clone(),
            id: format!("e{n}"),
            event_type: random.pick(&["page_view", "purchase", "click"]),
            page: random.pick(&["/", "/a", "/b"]),
            plan: random.pick(&[None, Some("free"), Some("pro")]),
            user: format!("u{}", random.below(12)),
            at: self.now - age,
            value: random.between(-5, 1_000),
            malformed: kind == 3,
            acked: false,
        });
        self.senders[sender].queue.push_back(n);
        self.at(0, Next::Send(sender));
        if self.made < self.weather.events {
            let most = if self.calm { 0 } else { 3 * self.weather.span / self.weather.events as i64 };
            let wait = if self.random.below(3) == 0 { 0 } else { self.random.between(0, most) };
            self.at(wait, Next::Make);
        }
    }

    /// A sender sends some of what it has, however it sent them before.
    pub(super) fn send_events(&mut self, sender: usize) {
        let Sender { queue, inflight, .. } = &self.senders[sender];
        if queue.is_empty() || inflight.len() >= 2 {
            return;
        }
        let n = 1 + self.random.below(queue.len().min(20) as u64) as usize;
        let events: Vec<usize> = queue.iter().take(n).copied().collect();
        self.requests += 1;
        let request = self.requests;
        self.senders[sender].inflight.insert(request, events.clone());
        let refused = self.random.below(200) == 0;
        let again = Next::Arrive { sender, request, events: events.clone(), refused: false };
        self.send(Next::Arrive { sender, request, events, refused }, Some(again));
        self.at(SENDER_TIMEOUT, Next::GiveUp { sender, request });
    }

    /// A sender hears of a request, or that there is no answer.
    pub(super) fn answered(&mut self, sender: usize, request: u64, outcome: Option<Outcome>) {
        let Some(events) = self.senders[sender].inflight.remove(&request) else { return };
        match outcome {
            Some(outcome) => {
                let rejected: Vec<usize> = outcome.rejected.iter().map(|rejected| rejected.index).collect();
                for (index, &event) in events.iter().enumerate() {
                    self.events[event].acked |= !rejected.contains(&index);
                }
                self.senders[sender].queue.retain(|event| !events.contains(event));
                self.senders[sender].failures = 0;
                self.at(0, Next::Send(sender));
            }
            None if self.chance(|weather| weather.give_up) => {
                self.saw("a sender gives up");
                self.senders[sender].queue.retain(|event| !events.contains(event));
                self.at(0, Next::Send(sender));
            }
            None => {
                let failures = &mut self.senders[sender].failures;
                *failures += 1;
                let wait = (1_000i64 << (*failures).min(6)).min(if self.calm { 5_000 } else { 60_000 });
                self.at(wait, Next::Send(sender));
            }
        }
    }
}
