//! Which shard an event goes to: a pure function of the client, the event's route and a map.

use std::fmt;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::client::{ClientId, is_token};
use crate::limits::ROUTE_NAME_BYTES_MAX;

/// The first epoch.
pub const EPOCH_FIRST: u32 = 1;

/// Fixed when an event is created, so that each retry finds the shard of the first attempt.
/// Text: `<epoch>.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The placement map that the route was made under.
    pub epoch: u32,
    /// Up to 32 characters of `A-Z a-z 0-9 _ -`; empty for a sender that knows of no routes.
    pub name: String,
}

/// A text that is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a route is <epoch>.<name>, the name 1 to 32 characters of A-Z a-z 0-9 _ -")]
pub struct InvalidRoute;

/// The regions there are, and how many pools of shards each has for cold clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementMap {
    /// The map's number; routes name it.
    pub epoch: u32,
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
}

/// Why a route leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// The route's epoch is not the map's.
    #[error("the route's epoch {0} is unknown")]
    UnknownEpoch(u32),
    /// The map is empty.
    #[error("the placement map has no region, or a region without pools")]
    EmptyMap,
}

impl Route {
    /// Reads a route.
    pub fn parse(text: &str) -> Result<Self, InvalidRoute> {
        let (epoch, name) = text.split_once('.').ok_or(InvalidRoute)?;
        let number: u32 = epoch.parse().map_err(|_| InvalidRoute)?;
        if number < EPOCH_FIRST
            || number.to_string() != epoch
            || name.is_empty()
            || !is_token(name, ROUTE_NAME_BYTES_MAX)
        {
            return Err(InvalidRoute);
        }
        Ok(Route { epoch: number, name: name.into() })
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
    if route.epoch != map.epoch {
        return Err(PlacementError::UnknownEpoch(route.epoch));
    }
    let client = client.as_str();
    let region = pick(&[client.as_bytes(), &[0], route.name.as_bytes()], map.regions.len())
        .and_then(|index| map.regions.get(index))
        .ok_or(PlacementError::EmptyMap)?;
    let pool = pick(&[client.as_bytes()], region.pools as usize).ok_or(PlacementError::EmptyMap)?;
    let name = &region.name;
    let shard = if backfill { format!("{name}/backfill/{client}") } else { format!("{name}/pool/{pool}") };
    Ok(Placement { region: name.clone(), shard })
}

/// Whether a text may name a region: 1 to [`ROUTE_NAME_BYTES_MAX`] characters of `A-Z a-z 0-9 _ -`.
pub fn is_region(name: &str) -> bool {
    !name.is_empty() && is_token(name, ROUTE_NAME_BYTES_MAX)
}

/// Whether a shard that [`place`] named is a backfill's.
pub fn is_backfill(shard: &str) -> bool {
    shard.split('/').nth(1) == Some("backfill")
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
        assert_eq!(Route::parse("1.aB-_9").unwrap().to_string(), "1.aB-_9");
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
            "1.123456789012345678901234567890123",
        ] {
            assert_eq!(Route::parse(text), Err(InvalidRoute), "{text}");
        }
    }

    #[test]
    fn placement_is_fixed_and_spreads_over_regions() {
        let region = |name: &str| Region { name: name.into(), pools: 4 };
        let map = PlacementMap { epoch: 1, regions: vec![region("eu"), region("us")] };
        let client = ClientId::new("shop").unwrap();
        let place =
            |name: &str, backfill| place(&map, &client, &Route { epoch: 1, name: name.into() }, backfill).unwrap();
        // Golden: a change here sends retries of one event to two shards.
        assert_eq!(place("", false).shard, "us/pool/1");
        assert_eq!(place("tab-1", true).shard, "us/backfill/shop");
        assert_eq!([false, true].map(|backfill| is_backfill(&place("", backfill).shard)), [false, true]);
        let in_eu = (0..1000).filter(|i| place(&format!("r{i}"), false).region == "eu").count();
        assert!((400..600).contains(&in_eu), "{in_eu}");
        let other = Route { epoch: 2, name: String::new() };
        assert_eq!(super::place(&map, &client, &other, false), Err(PlacementError::UnknownEpoch(2)));
    }
}
