//! Whom someone looks at: their frames are cut soon.

use std::collections::HashMap;

use catchment_cells::ClientId;

use crate::limits::{WATCHED_CLIENTS_MAX, WATCHED_MS};

/// The clients that are watched, and until when.
#[derive(Debug, Default)]
pub struct Watched {
    until: HashMap<ClientId, i64>,
}

impl Watched {
    /// A question about the client came at `now`, in ms: it is watched for [`WATCHED_MS`]. At the bound it isn't, and
    /// its figures merely come later.
    pub fn watch(&mut self, client: &ClientId, now: i64) {
        if self.until.len() >= WATCHED_CLIENTS_MAX {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() < WATCHED_CLIENTS_MAX || self.until.contains_key(client) {
            self.until.insert(client.clone(), now + WATCHED_MS);
        }
    }

    /// Whether someone looks at the client at `now`, in ms.
    pub fn is_watched(&self, client: &ClientId, now: i64) -> bool {
        self.until.get(client).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: usize) -> ClientId {
        ClientId::new(&format!("c{n}")).unwrap()
    }

    #[test]
    fn a_question_watches_its_client_for_a_while() {
        let mut watched = Watched::default();
        watched.watch(&client(1), 1_000);
        assert!(watched.is_watched(&client(1), 1_000 + WATCHED_MS - 1));
        assert!(!watched.is_watched(&client(1), 1_000 + WATCHED_MS));
        assert!(!watched.is_watched(&client(2), 1_000));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_past() {
        let mut watched = Watched::default();
        for n in 0..=WATCHED_CLIENTS_MAX {
            watched.watch(&client(n), 0);
        }
        assert!(!watched.is_watched(&client(WATCHED_CLIENTS_MAX), 1));
        assert!(watched.is_watched(&client(0), 1));
        watched.watch(&client(WATCHED_CLIENTS_MAX), WATCHED_MS);
        assert_eq!(watched.until.len(), 1);
    }
}
