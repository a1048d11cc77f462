//! Who takes how much of a shard. In a pool each client is sure of a share, may have what others leave, and is refused beyond; one
//! that takes more than its share is told of a higher level, whose routes lead to shards of its own.
//!
//! All of it starts anew with the process, which costs a hot client the seconds until it is noticed again.

use std::collections::BTreeMap;

use catchment_cells::ClientId;
use catchment_cells::route::{LEVEL_MAX, SLICES};

use crate::limits::QUOTA_CLIENTS_MAX;

/// Events that cost as much as receiving and committing a request: measured, 2 to 3 µs and some 50.
const EVENTS_PER_REQUEST: f64 = 20.0;
/// Bytes of a body that cost as much: those of 20 large events.
const BYTES_PER_REQUEST: f64 = 20_000.0;
/// The part of a pool that a client is sure of.
const SHARE: f64 = 1.0 / 4.0;
/// The part of a shard of its own beyond which a client is spread further. A level has eight times the shards of the one before.
pub const HOT: f64 = 1.0 / 2.0;
/// The part of a shard of its own below which a client is led back: eight times that is well below what makes it hot again.
const COLD: f64 = 1.0 / 64.0;
/// For how long a rate may be exceeded, in s.
const BURST_S: f64 = 2.0;
/// For how long a shard must have been cold, in s.
const COLD_S: f64 = 600.0;
/// How long newcomers are led to a client's shards after it was last hot here, in ms.
const PROMOTED_MS: i64 = 600_000;
/// The shortest and the longest wait that a refusal asks for, in ms.
const RETRY_AFTER_MS: (i64, i64) = (1_000, 30_000);

/// What one shard may take in. The unit is a request of few events; 20 events more, or 20 kB, cost as much as another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Requests a second; at least 1.
    pub requests_per_s: u32,
}

/// A request is refused, for its client has used its share; how long to wait, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverQuota {
    /// From now.
    pub retry_after_ms: i64,
}

/// What each client of a shard has used of late.
#[derive(Debug)]
pub(crate) struct Quotas {
    requests_per_s: f64,
    /// What is left of the whole shard.
    spare: Bucket,
    /// By level, too: one shard may serve several.
    clients: BTreeMap<(ClientId, u8), Usage>,
    /// What is left of the events a second that a client's config lets it have.
    limits: BTreeMap<(ClientId, u8), Bucket>,
}

#[derive(Debug)]
struct Usage {
    /// Empty: the client is hot.
    share: Bucket,
    /// Full: the client is cold.
    cold: Bucket,
    /// Whether it was, before its last request.
    was_cold: bool,
    promoted_until: i64,
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    per_s: f64,
    most: f64,
    at: i64,
}

impl Default for Capacity {
    /// What one object of the platform is said to take, and what one was measured to take.
    fn default() -> Self {
        Capacity { requests_per_s: 1_000 }
    }
}

impl Bucket {
    fn new(per_s: f64, for_s: f64, tokens: f64, now: i64) -> Self {
        Bucket { tokens, per_s, most: per_s * for_s, at: now }
    }

    /// What is in it now. A clock that goes back adds nothing.
    fn fill(&mut self, now: i64) -> f64 {
        let passed_s = (now - self.at).max(0) as f64 / 1e3;
        self.tokens = (self.tokens + passed_s * self.per_s).min(self.most);
        self.at = now;
        self.tokens
    }

    /// Takes from it; it owes at most what it may hold.
    fn take(&mut self, cost: f64) {
        self.tokens = (self.tokens - cost).max(-self.most);
    }

    /// Until something is in it again, in ms.
    fn empty_for_ms(&self) -> i64 {
        ((-self.tokens).max(0.0) / self.per_s * 1e3).ceil() as i64
    }
}

/// What a request of so many events, in a body of so many bytes, takes of a shard's [`Capacity`].
pub fn request_cost(events: usize, bytes: usize) -> f64 {
    1.0 + (events as f64 / EVENTS_PER_REQUEST).max(bytes as f64 / BYTES_PER_REQUEST)
}

impl Quotas {
    pub(crate) fn new(capacity: Capacity, now: i64) -> Self {
        let requests_per_s = f64::from(capacity.requests_per_s.max(1));
        let most = requests_per_s * BURST_S;
        let spare = Bucket::new(requests_per_s, BURST_S, most, now);
        Quotas { requests_per_s, spare, clients: BTreeMap::new(), limits: BTreeMap::new() }
    }

    /// Admits a request of a client at a level, or says when to come again. Only in a pool is anything refused: in a shard of its
    /// own a client takes from nobody. What it costs, once that is known, is to be [charged](Self::charge).
    pub(crate) fn admit(&mut self, client: &ClientId, level: u8, now: i64) -> Result<(), OverQuota> {
        let spare = self.spare.fill(now);
        let part = if level == 0 { SHARE } else { HOT };
        let Some(usage) = self.usage(client, level, part, now) else {
            // Too many to tell them apart: whoever is not among them has what these leave.
            return if spare > 0.0 { Ok(()) } else { Err(OverQuota::after(0)) };
        };
        usage.was_cold = usage.cold.fill(now) >= usage.cold.most;
        if usage.share.fill(now) <= 0.0 {
            usage.promoted_until = now + PROMOTED_MS;
            if level == 0 && spare <= 0.0 {
                return Err(OverQuota::after(usage.share.empty_for_ms()));
            }
        }
        Ok(())
    }

    /// Admits a request of a client whose config lets it have so many events a second in a region, or says when to come again. A pool takes as many; of the
    /// shards that a level leads to, each an even part. Its events, once they are known, are to be [charged](Self::charge_events): what is taken
    /// beyond the limit is owed, so that over time no shard takes more.
    pub(crate) fn admit_events(
        &mut self,
        client: &ClientId,
        level: u8,
        events_per_s: Option<u32>,
        now: i64,
    ) -> Result<(), OverQuota> {
        let key = (client.clone(), level);
        let Some(events_per_s) = events_per_s else {
            self.limits.remove(&key);
            return Ok(());
        };
        let shards = usize::from(level).checked_sub(1).and_then(|place| SLICES.get(place)).map_or(1, |shards| *shards);
        let per_s = f64::from(events_per_s.max(1)) / shards as f64;
        if !self.limits.contains_key(&key) && self.limits.len() >= QUOTA_CLIENTS_MAX {
            self.limits.retain(|_, bucket| bucket.fill(now) < bucket.most);
            if self.limits.len() >= QUOTA_CLIENTS_MAX {
                return Err(OverQuota::after(RETRY_AFTER_MS.0));
            }
        }
        let most = per_s * BURST_S;
        let bucket = self.limits.entry(key).or_insert_with(|| Bucket::new(per_s, BURST_S, most, now));
        bucket.fill(now);
        if bucket.per_s != per_s {
            // Another limit: what is owed is not asked for.
            *bucket = Bucket::new(per_s, BURST_S, bucket.tokens.clamp(0.0, most), now);
        }
        if bucket.tokens > 0.0 { Ok(()) } else { Err(OverQuota::after(bucket.empty_for_ms())) }
    }

    /// Charges a client for the events of a request that was just admitted.
    pub(crate) fn charge_events(&mut self, client: &ClientId, level: u8, events: usize) {
        if let Some(bucket) = self.limits.get_mut(&(client.clone(), level)) {
            bucket.tokens -= events as f64;
        }
    }

    /// Turns a client of a pool away that holds too much of what waits there for its home: its new routes lead to shards of its own.
    pub(crate) fn turn_away(&mut self, client: &ClientId, now: i64) -> OverQuota {
        if let Some(usage) = self.usage(client, 0, SHARE, now) {
            usage.promoted_until = now + PROMOTED_MS;
        }
        OverQuota::after(RETRY_AFTER_MS.1)
    }

    /// Charges a client for a request that was just admitted.
    pub(crate) fn charge(&mut self, client: &ClientId, level: u8, cost: f64) {
        self.spare.take(cost);
        if let Some(usage) = self.clients.get_mut(&(client.clone(), level)) {
            usage.cold.take(cost);
            if usage.share.tokens > 0.0 {
                usage.share.take(cost);
            }
        }
    }

    /// The level that new routes of a client are to have, after a request of one at `level`.
    pub(crate) fn level(&self, client: &ClientId, level: u8, now: i64) -> u8 {
        let Some(usage) = self.clients.get(&(client.clone(), level)) else { return level };
        if usage.promoted_until > now {
            (level + 1).min(LEVEL_MAX)
        } else if usage.was_cold {
            level.saturating_sub(1)
        } else {
            level
        }
    }

    /// Clients that are led to shards of their own, or to more of them.
    pub(crate) fn promoted(&self, now: i64) -> usize {
        self.clients.values().filter(|usage| usage.promoted_until > now).count()
    }

    /// What a client has used; `None` for one that there is no room for.
    fn usage(&mut self, client: &ClientId, level: u8, part: f64, now: i64) -> Option<&mut Usage> {
        let key = (client.clone(), level);
        if !self.clients.contains_key(&key) {
            if self.clients.len() >= QUOTA_CLIENTS_MAX {
                // Who has all of its share again is as one that never came.
                self.clients.retain(|_, usage| usage.promoted_until > now || usage.share.fill(now) < usage.share.most);
            }
            if self.clients.len() >= QUOTA_CLIENTS_MAX {
                return None;
            }
            let per_s = self.requests_per_s * part;
            let usage = Usage {
                share: Bucket::new(per_s, BURST_S, per_s * BURST_S, now),
                // Whether it was cold before isn't known: so it has to be for as long again.
                cold: Bucket::new(self.requests_per_s * COLD, COLD_S, 0.0, now),
                was_cold: false,
                promoted_until: i64::MIN,
            };
            self.clients.insert(key.clone(), usage);
        }
        self.clients.get_mut(&key)
    }
}

impl OverQuota {
    fn after(ms: i64) -> Self {
        OverQuota { retry_after_ms: ms.clamp(RETRY_AFTER_MS.0, RETRY_AFTER_MS.1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: usize) -> ClientId {
        ClientId::new(&format!("c{n}")).unwrap()
    }

    fn quotas() -> Quotas {
        Quotas::new(Capacity { requests_per_s: 100 }, 0)
    }

    /// Has a request admitted and charged.
    fn take(
        quotas: &mut Quotas,
        client: &ClientId,
        level: u8,
        size: (usize, usize),
        now: i64,
    ) -> Result<(), OverQuota> {
        quotas.admit(client, level, now)?;
        quotas.charge(client, level, request_cost(size.0, size.1));
        Ok(())
    }

    /// Requests of one client, one each `every_ms`, and how many are admitted.
    fn admitted(quotas: &mut Quotas, client: &ClientId, level: u8, (from, to): (i64, i64), every_ms: f64) -> usize {
        let requests = ((to - from) as f64 / every_ms) as usize;
        let at = |i: usize| from + (i as f64 * every_ms) as i64;
        (0..requests).filter(|&i| take(quotas, client, level, (0, 0), at(i)).is_ok()).count()
    }

    #[test]
    fn a_client_alone_in_a_pool_has_all_of_it_and_is_promoted() {
        let mut quotas = quotas();
        // Ten times what the pool takes, for 20 s: the rate, and what it may be exceeded by.
        let n = admitted(&mut quotas, &client(0), 0, (0, 20_000), 1.0);
        assert!((2_000..=2_400).contains(&n), "{n}");
        assert_eq!(quotas.level(&client(0), 0, 20_000), 1);
        assert_eq!(quotas.promoted(20_000), 1);
        let over = (0..5).find_map(|_| take(&mut quotas, &client(0), 0, (0, 0), 20_000).err()).unwrap();
        assert!((1_000..=30_000).contains(&over.retry_after_ms), "{over:?}");
    }

    #[test]
    fn others_have_their_share_whatever_one_takes() {
        let mut quotas = quotas();
        let (hot, small) = (client(0), client(1));
        let (mut hot_n, mut small_n) = (0, 0);
        for ms in 0..20_000 {
            hot_n += usize::from(take(&mut quotas, &hot, 0, (0, 0), ms).is_ok());
            // 20 a second: below a quarter of 100.
            small_n += usize::from(ms % 50 == 0 && take(&mut quotas, &small, 0, (0, 0), ms).is_ok());
        }
        assert_eq!(small_n, 400, "all of its requests");
        assert!((1_500..=2_100).contains(&hot_n), "what the other leaves: {hot_n}");
        assert_eq!(quotas.level(&small, 0, 20_000), 0, "only one was hot");
    }

    #[test]
    fn in_its_own_shards_a_client_is_never_refused_but_spread_and_led_back() {
        let mut quotas = quotas();
        let hot = client(0);
        for level in 1..=LEVEL_MAX {
            let from = i64::from(level) * 100_000_000;
            assert_eq!(admitted(&mut quotas, &hot, level, (from, from + 10_000), 10.0), 1_000);
            assert_eq!(quotas.level(&hot, level, from + 10_000), (level + 1).min(LEVEL_MAX));
            // Then one request every two seconds, a third of what counts as cold.
            let to = from + 10_000 + 3 * PROMOTED_MS;
            assert_eq!(admitted(&mut quotas, &hot, level, (from + 10_000, to), 2_000.0), 900);
            // As it is answered, that is in the turn of a request.
            for ms in 0..10 {
                assert!(take(&mut quotas, &hot, level, (1, 300), to + ms).is_ok());
                if ms == 0 {
                    assert_eq!(quotas.level(&hot, level, to), level - 1);
                }
            }
            assert_eq!(quotas.level(&hot, level, to + 9), level, "ten at once are more than cold");
        }
        assert_eq!(quotas.level(&client(1), 2, 0), 2, "of whom nothing is known stays");
    }

    #[test]
    fn levels_of_one_shard_are_told_apart() {
        let mut quotas = quotas();
        admitted(&mut quotas, &client(0), 1, (0, 10_000), 10.0);
        assert!(take(&mut quotas, &client(0), 2, (0, 0), 10_000).is_ok());
        assert_eq!([1, 2].map(|level| quotas.level(&client(0), level, 10_000)), [2, 2]);
    }

    #[test]
    fn events_and_bytes_cost_too() {
        let mut quotas = quotas();
        // 6 requests of 1,000 events are 306 of the 200 + 50 that there are at first.
        let taken = (0..6).filter(|_| take(&mut quotas, &client(0), 0, (1_000, 0), 0).is_ok()).count();
        assert!((4..=5).contains(&taken), "{taken}");
        let mut quotas = self::quotas();
        let taken = (0..6).filter(|_| take(&mut quotas, &client(0), 0, (1, 1_000_000), 0).is_ok()).count();
        assert!((4..=5).contains(&taken), "{taken}");
    }

    #[test]
    fn clients_are_bounded_and_the_rest_has_what_is_left() {
        let mut quotas = quotas();
        for n in 0..2 * QUOTA_CLIENTS_MAX {
            let _ = take(&mut quotas, &client(n), 0, (0, 0), 0);
        }
        assert!(quotas.clients.len() <= QUOTA_CLIENTS_MAX);
        assert!(take(&mut quotas, &client(2 * QUOTA_CLIENTS_MAX), 0, (0, 0), 0).is_err(), "nothing is left");
        assert!(take(&mut quotas, &client(2 * QUOTA_CLIENTS_MAX), 0, (0, 0), 1_000_000).is_ok());
        assert_eq!(quotas.clients.len(), 1, "the others have their share again");
    }

    #[test]
    fn no_more_events_are_taken_than_a_limit_lets_in() {
        let (limited, other) = (client(0), client(1));
        for (level, shards, events) in [(0, 1.0, 7), (1, 1.0, 300), (3, 64.0, 1)] {
            let mut quotas = quotas();
            let mut taken = 0;
            for ms in (0..600_000).step_by(100) {
                if quotas.admit_events(&limited, level, Some(20), ms).is_ok() {
                    quotas.charge_events(&limited, level, events);
                    taken += events;
                }
                assert_eq!(quotas.admit_events(&other, level, None, ms), Ok(()));
            }
            // The rate over ten minutes, what may be taken at once, and the one request that goes beyond.
            let most = 20.0 / shards * 602.0 + events as f64;
            assert!((most * 0.9..=most).contains(&(taken as f64)), "{taken} of {most} at level {level}");
        }
    }

    #[test]
    fn a_limit_says_when_to_come_again_and_another_holds_at_once() {
        let mut quotas = quotas();
        let mut admit = |events_per_s, now| {
            let admitted = quotas.admit_events(&client(0), 0, events_per_s, now);
            quotas.charge_events(&client(0), 0, 60);
            admitted.map_err(|over| over.retry_after_ms)
        };
        assert_eq!(admit(Some(10), 0), Ok(()));
        assert_eq!(admit(Some(10), 0), Err(4_000));
        assert_eq!(admit(Some(1_000), 1), Err(1_000));
        assert_eq!(admit(None, 1), Ok(()));
        assert_eq!(admit(Some(10), 2), Ok(()), "as one that never came");
    }

    #[test]
    fn a_clock_that_jumps_refuses_nobody_for_long() {
        let mut quotas = quotas();
        for now in [0, i64::MAX / 4, -1_000_000_000_000, 5, 1_700_000_000_000, 6] {
            assert!(take(&mut quotas, &client(0), 0, (0, 0), now).is_ok(), "{now}");
        }
    }
}
