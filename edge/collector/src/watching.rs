//! Whom someone looks at, as far as acks have told. Only their events, and those of clients of whom nothing was told, are worth a
//! cut of their own.

use std::collections::BTreeMap;

use catchment_cells::ClientId;

use crate::limits::{OUTBOX_FRAMES_MAX, WATCHED_MAX};

/// How long it counts that nobody looks at a client, in ms: someone may have begun to since.
const UNWATCHED_MS: i64 = 10_000;

/// Which clients of a shard are watched. It starts anew with the process, which costs a cut for each client.
#[derive(Debug, Default)]
pub struct Watching {
    told: BTreeMap<ClientId, Told>,
    /// Frames that are not acked, by number.
    sent: BTreeMap<u64, Sent>,
}

/// Whose a frame is.
#[derive(Debug)]
struct Sent {
    /// Who has cells in it.
    clients: Vec<ClientId>,
    /// Whose requests took most of its cut.
    mostly: Option<ClientId>,
}

/// What the last ack told of a client.
#[derive(Debug)]
struct Told {
    watched: bool,
    at: i64,
}

impl Watching {
    /// Notes whose cells a frame has, and whose requests took most of its cut.
    pub fn on_cut(&mut self, number: u64, clients: Vec<ClientId>, mostly: Option<ClientId>) {
        self.sent.insert(number, Sent { clients, mostly });
        while self.sent.len() as u64 > OUTBOX_FRAMES_MAX {
            self.sent.pop_first();
        }
    }

    /// Frames from number `first` on whose cuts were mostly a client's.
    pub fn held(&self, client: &ClientId, first: u64) -> u64 {
        self.sent.range(first..).filter(|(_, sent)| sent.mostly.as_ref() == Some(client)).count() as u64
    }

    /// Learns from a frame's ack: someone looks at one of its clients, or at none of them. Who else was in a frame with one
    /// that is watched counts as watched, until a frame without that one tells better.
    pub fn on_ack(&mut self, number: u64, watched: bool, now: i64) {
        for client in self.sent.remove(&number).map(|sent| sent.clients).unwrap_or_default() {
            if self.told.len() >= WATCHED_MAX {
                self.told.retain(|_, told| told.watched);
            }
            if self.told.len() < WATCHED_MAX || self.told.contains_key(&client) {
                self.told.insert(client, Told { watched, at: now });
            }
        }
    }

    /// Whether someone may look at a client: so it is until an ack tells otherwise, and again some time after.
    pub fn may_be_watched(&self, client: &ClientId, now: i64) -> bool {
        let told = self.told.get(client);
        told.is_none_or(|told| told.watched || !(0..UNWATCHED_MS).contains(&(now - told.at)))
    }

    /// Whether a client's events are worth a cut of their own: someone looks, or nothing was ever told.
    pub fn is_urgent(&self, client: &ClientId) -> bool {
        self.told.get(client).is_none_or(|told| told.watched)
    }

    /// The clients that someone looks at.
    pub fn clients(&self) -> impl Iterator<Item = &ClientId> {
        self.told.iter().filter(|(_, told)| told.watched).map(|(client, _)| client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_tell_who_is_watched() {
        let client = |name: &str| ClientId::new(name).unwrap();
        let (a, b) = (client("a"), client("b"));
        let mut watching = Watching::default();
        watching.on_cut(1, vec![a.clone(), b.clone()], None);
        watching.on_cut(2, vec![b.clone()], None);
        watching.on_cut(3, vec![a.clone()], None);
        assert!(watching.may_be_watched(&a, 0) && watching.is_urgent(&a), "nothing was told");
        watching.on_ack(1, true, 0);
        assert_eq!(watching.clients().collect::<Vec<_>>(), [&a, &b], "one of them is");
        watching.on_ack(2, false, 0);
        assert_eq!(watching.clients().collect::<Vec<_>>(), [&a], "it wasn't b");
        assert!(watching.may_be_watched(&a, 1) && !watching.may_be_watched(&b, 1));
        assert!(watching.is_urgent(&a) && !watching.is_urgent(&b));
        assert!(watching.may_be_watched(&b, UNWATCHED_MS), "someone may have begun to look");
        watching.on_ack(2, true, 0);
        assert_eq!(watching.clients().collect::<Vec<_>>(), [&a], "an ack that comes again tells nothing");
        watching.on_ack(3, false, 0);
        assert_eq!(watching.clients().count(), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut watching = Watching::default();
        for number in 0..2 * OUTBOX_FRAMES_MAX {
            watching.on_cut(number, vec![ClientId::new("a").unwrap()], None);
        }
        assert_eq!(watching.sent.len() as u64, OUTBOX_FRAMES_MAX);
        watching.on_ack(0, true, 0);
        assert_eq!(watching.clients().count(), 0, "forgotten");
        watching.on_ack(2 * OUTBOX_FRAMES_MAX - 1, true, 0);
        assert_eq!(watching.clients().count(), 1);
        let clients = (0..2 * WATCHED_MAX).map(|n| ClientId::new(&format!("c{n}")).unwrap()).collect();
        watching.on_cut(1, clients, None);
        watching.on_ack(1, false, 0);
        assert!(watching.told.len() <= WATCHED_MAX);
        assert_eq!(watching.clients().count(), 1, "who is watched stays");
    }
}
