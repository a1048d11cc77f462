//! Whom someone looks at, as far as acks have told: only their events are worth a cut of their own.

use std::collections::{BTreeMap, BTreeSet};

use catchment_cells::ClientId;

use crate::limits::{OUTBOX_FRAMES_MAX, WATCHED_MAX};

/// The clients of a shard that are watched. It starts anew with the process: all that it costs is that a figure comes later.
#[derive(Debug, Default)]
pub struct Watching {
    watched: BTreeSet<ClientId>,
    /// The clients of frames that are not acked, by number.
    sent: BTreeMap<u64, Vec<ClientId>>,
}

impl Watching {
    /// Notes whose cells a frame has.
    pub fn on_cut(&mut self, number: u64, clients: Vec<ClientId>) {
        self.sent.insert(number, clients);
        while self.sent.len() as u64 > OUTBOX_FRAMES_MAX {
            self.sent.pop_first();
        }
    }

    /// Learns from a frame's ack: someone looks at one of its clients, or at none of them. Who else was in a frame with one
    /// that is watched counts as watched, until a frame without that one tells better.
    pub fn on_ack(&mut self, number: u64, watched: bool) {
        let Some(clients) = self.sent.remove(&number) else { return };
        for client in clients {
            if !watched {
                self.watched.remove(&client);
            } else if self.watched.len() < WATCHED_MAX {
                self.watched.insert(client);
            }
        }
    }

    /// Whether someone looks at a client.
    pub fn is_watched(&self, client: &ClientId) -> bool {
        self.watched.contains(client)
    }

    /// The clients that someone looks at.
    pub fn clients(&self) -> impl Iterator<Item = &ClientId> {
        self.watched.iter()
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
        watching.on_cut(1, vec![a.clone(), b.clone()]);
        watching.on_cut(2, vec![b.clone()]);
        watching.on_cut(3, vec![a.clone()]);
        watching.on_ack(1, true);
        assert_eq!(watching.clients().collect::<Vec<_>>(), [&a, &b], "one of them is");
        watching.on_ack(2, false);
        assert!(watching.is_watched(&a) && !watching.is_watched(&b), "it wasn't b");
        watching.on_ack(2, true);
        assert!(!watching.is_watched(&b), "an ack that comes again tells nothing");
        watching.on_ack(3, false);
        assert!(!watching.is_watched(&a));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut watching = Watching::default();
        for number in 0..2 * OUTBOX_FRAMES_MAX {
            watching.on_cut(number, vec![ClientId::new("a").unwrap()]);
        }
        assert_eq!(watching.sent.len() as u64, OUTBOX_FRAMES_MAX);
        watching.on_ack(0, true);
        assert_eq!(watching.clients().count(), 0, "forgotten");
        watching.on_ack(2 * OUTBOX_FRAMES_MAX - 1, true);
        assert_eq!(watching.clients().count(), 1);
    }
}
