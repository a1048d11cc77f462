//! Which shard an event goes to: a pure function of the client, the event's route and a map.

use std::fmt;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::client::{ClientId, is_token};
use crate::limits::ROUTE_NAME_BYTES_MAX;

/// The first epoch of a map, and the last.
pub const MAP_EPOCH_FIRST: u32 = 1;
/// See [`MAP_EPOCH_FIRST`].
pub const MAP_EPOCH_LAST: u32 = (1 << LEVEL_SHIFT) - 1;
/// The highest level.
pub const LEVEL_MAX: u8 = 3;
/// Slices of a client at the levels from 1 on. A power of each other, so that a step up is felt and tabs need few of them. Final.
pub const SLICES: [usize; LEVEL_MAX as usize] = [1, 8, 64];
const LEVEL_SHIFT: u32 = 24;

/// Under what a route was made: a placement map, and the client's level, which says how far its events are spread: 0 in a pool
/// that it shares, from 1 on over 1, 8 or 64 slices of its own. Since a route says it all, nobody has to agree on when a client
/// became hot.
///
/// One number, `level · 2²⁴ + map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u32);

/// Fixed when an event is created, so that each retry finds the shard of the first attempt.
/// Text: `<epoch>.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The placement map and the level that the route was made under.
    pub epoch: Epoch,
    /// Up to 32 characters of `A-Z a-z 0-9 _ -`; empty for a sender that knows of no routes.
    pub name: String,
}

/// A text that is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a route is <epoch>.<name>, the name 1 to 32 characters of A-Z a-z 0-9 _ -")]
pub struct InvalidRoute;

/// A map's number that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a map's epoch is a number from {MAP_EPOCH_FIRST} to {MAP_EPOCH_LAST}")]
pub struct InvalidEpoch;

/// The regions there are, and how many pools of shards each has for cold clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementMap {
    /// The map's number; routes name it.
    pub epoch: Epoch,
    /// At least one.
    pub regions: Vec<Region>,
}

/// One region of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The region's name, which is its aggregator's too.
    pub name: String,
    /// Pools, at least one.
    pub pools: u32,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The home region.
    pub region: String,
    /// The shard's name.
    pub shard: String,
    /// The client's level there; 0 in a backfill's shard, too.
    pub level: u8,
}

/// Why a route leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// The route's epoch is not the map's.
    #[error("the route's epoch {0} is unknown")]
    UnknownEpoch(Epoch),
    /// The map is empty.
    #[error("the placement map has no region, or a region without pools")]
    EmptyMap,
}

impl Epoch {
    /// A map's epoch, for clients in pools.
    pub fn of_map(map: u32) -> Result<Self, InvalidEpoch> {
        if (MAP_EPOCH_FIRST..=MAP_EPOCH_LAST).contains(&map) { Ok(Epoch(map)) } else { Err(InvalidEpoch) }
    }

    /// Reads the number.
    pub fn of_number(number: u32) -> Option<Self> {
        let epoch = Epoch(number);
        (epoch.map() >= MAP_EPOCH_FIRST && number >> LEVEL_SHIFT <= LEVEL_MAX.into()).then_some(epoch)
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The map's number.
    pub fn map(self) -> u32 {
        self.0 & MAP_EPOCH_LAST
    }

    /// The level.
    pub fn level(self) -> u8 {
        (self.0 >> LEVEL_SHIFT) as u8
    }

    /// The same map's at a level, or at the highest.
    pub fn at_level(self, level: u8) -> Self {
        Epoch(u32::from(level.min(LEVEL_MAX)) << LEVEL_SHIFT | self.map())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Route {
    /// Reads a route.
    pub fn parse(text: &str) -> Result<Self, InvalidRoute> {
        let (epoch, name) = text.split_once('.').ok_or(InvalidRoute)?;
        let number: u32 = epoch.parse().map_err(|_| InvalidRoute)?;
        if number.to_string() != epoch || name.is_empty() || !is_token(name, ROUTE_NAME_BYTES_MAX) {
            return Err(InvalidRoute);
        }
        Ok(Route { epoch: Epoch::of_number(number).ok_or(InvalidRoute)?, name: name.into() })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.name)
    }
}

/// Names the shard of a route. The home region hangs on client and route alone, never on where a request came in.
pub fn place(
    map: &PlacementMap,
    client: &ClientId,
    route: &Route,
    backfill: bool,
) -> Result<Placement, PlacementError> {
    if route.epoch.map() != map.epoch.map() {
        return Err(PlacementError::UnknownEpoch(route.epoch));
    }
    let client = client.as_str();
    let level = if backfill { 0 } else { route.epoch.level() };
    let region = pick(&[client.as_bytes(), &[0], route.name.as_bytes()], map.regions.len())
        .and_then(|index| map.regions.get(index))
        .ok_or(PlacementError::EmptyMap)?;
    let pool = pick(&[client.as_bytes()], region.pools as usize).ok_or(PlacementError::EmptyMap)?;
    // Another hash than the region's: with as many slices as regions, one would fix the other.
    let slice = level.checked_sub(1).and_then(|level| SLICES.get(usize::from(level)));
    let slice =
        slice.and_then(|&slices| pick(&[b"slice", &[0], client.as_bytes(), &[0], route.name.as_bytes()], slices));
    let name = &region.name;
    let shard = match slice {
        _ if backfill => format!("{name}/backfill/{client}"),
        None => format!("{name}/pool/{pool}"),
        Some(slice) => format!("{name}/slice/{client}/{slice}"),
    };
    Ok(Placement { region: name.clone(), shard, level })
}

/// Whether a text may name a region: 1 to [`ROUTE_NAME_BYTES_MAX`] characters of `A-Z a-z 0-9 _ -`.
pub fn is_region(name: &str) -> bool {
    !name.is_empty() && is_token(name, ROUTE_NAME_BYTES_MAX)
}

/// Whether a shard that [`place`] named is a backfill's.
pub fn is_backfill(shard: &str) -> bool {
    shard.split('/').nth(1) == Some("backfill")
}

/// Whether a shard that [`place`] named is a pool, which clients share.
pub fn is_pool(shard: &str) -> bool {
    shard.split('/').nth(1) == Some("pool")
}

/// The first 8 bytes of SHA-256 over the parts, as a little-endian u64, modulo `n`.
fn pick(parts: &[&[u8]], n: usize) -> Option<usize> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first).checked_rem(n as u64).map(|index| index as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_round_trip_and_others_are_refused() {
        for text in ["1.aB-_9", "16777217.a", "67108863.a"] {
            assert_eq!(Route::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "1",
            "1.",
            "0.a",
            "01.a",
            "+1.a",
            "1.a b",
            "1.é",
            "4294967296.a",
            // No map, and a level beyond the last.
            "16777216.a",
            "67108865.a",
            "1.123456789012345678901234567890123",
        ] {
            assert_eq!(Route::parse(text), Err(InvalidRoute), "{text}");
        }
    }

    const GOLDEN_SLICES: [&str; 3] = ["us/slice/shop/0", "us/slice/shop/2", "us/slice/shop/42"];

    #[test]
    fn placement_is_fixed_and_spreads_over_regions() {
        let region = |name: &str| Region { name: name.into(), pools: 4 };
        let epoch = Epoch::of_map(1).unwrap();
        let map = PlacementMap { epoch, regions: vec![region("eu"), region("us")] };
        let client = ClientId::new("shop").unwrap();
        let at = |level, name: &str| Route { epoch: epoch.at_level(level), name: name.into() };
        let place = |name: &str, backfill| place(&map, &client, &at(0, name), backfill).unwrap();
        // Golden: a change here sends retries of one event to two shards.
        assert_eq!(place("", false).shard, "us/pool/1");
        assert_eq!(place("tab-1", true).shard, "us/backfill/shop");
        assert_eq!([false, true].map(|backfill| is_backfill(&place("", backfill).shard)), [false, true]);
        let in_eu = (0..1000).filter(|i| place(&format!("r{i}"), false).region == "eu").count();
        assert!((400..600).contains(&in_eu), "{in_eu}");
        // A hot client's, in its own slices: the region stays what it was, and so does the shard of a backfill.
        let sliced = |level, name: &str, backfill| super::place(&map, &client, &at(level, name), backfill).unwrap();
        assert_eq!([1, 2, 3].map(|level| sliced(level, "tab-1", false).shard), GOLDEN_SLICES);
        assert_eq!(sliced(3, "tab-1", true), place("tab-1", true));
        for (level, slices) in [(1, 1), (2, 8), (3, 64)] {
            let mut events = std::collections::BTreeMap::new();
            for i in 0..64_000 {
                let name = format!("r{i}");
                let placed = sliced(level, &name, false);
                assert_eq!((&placed.region, placed.level), (&place(&name, false).region, level));
                *events.entry(placed.shard).or_insert(0) += 1;
            }
            assert_eq!(events.len(), 2 * slices, "in both regions");
            let mean = 32_000 / slices as i32;
            // Six times the standard deviation of a binomial count.
            let within = 6.0 * f64::from(mean).sqrt() + 0.02 * f64::from(mean);
            assert!(events.values().all(|&n| f64::from((n - mean).abs()) < within), "{events:?}");
        }
        let other = Route { epoch: Epoch::of_map(2).unwrap().at_level(1), name: String::new() };
        assert_eq!(super::place(&map, &client, &other, false), Err(PlacementError::UnknownEpoch(other.epoch)));
    }
}
