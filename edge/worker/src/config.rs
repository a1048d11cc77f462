//! The deployment's settings, from the Worker's environment.

use std::rc::Rc;

use catchment_cells::Secret;
use catchment_cells::route::{Epoch, PlacementMap, Region, is_region};
use catchment_collector::{Capacity, Countries};
use serde::Deserialize;
use thiserror::Error;
use worker::js_sys::{Reflect, Uint8Array};
use worker::wasm_bindgen::JsValue;
use worker::{Date, DateInit, Env};

/// The settings.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// `CATCHMENT_SECRET`: its UTF-8 bytes.
    pub(crate) secret: Secret,
    /// `RELAY_TOKEN`: what relays know us by, and operators themselves.
    pub(crate) relay_token: String,
    /// `PLACEMENT`: what one shard takes.
    pub(crate) capacity: Capacity,
    /// `PLACEMENT`: the regions.
    pub(crate) map: PlacementMap,
    /// Maps that were in force, and until when their routes are taken, in ms.
    earlier: Vec<(PlacementMap, i64)>,
    relays: Vec<(String, String)>,
    /// `COUNTRY_HEADER`: the header by which the proxy in front says a visitor's country.
    pub(crate) country_header: Option<String>,
    /// `GEOIP`: a file that knows the countries of addresses.
    pub(crate) countries: Option<Rc<Countries>>,
}

/// Why the settings can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ConfigError {
    /// A binding isn't there.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// The secret is too short.
    #[error("CATCHMENT_SECRET: {0}")]
    Secret(String),
    /// The placement is no JSON of its shape, or empty.
    #[error("PLACEMENT: {0}")]
    Placement(String),
    /// The file of countries can't be read.
    #[error("GEOIP: {0}")]
    GeoIp(String),
}

/// What the clocks of two edges may differ by.
const CLOCKS_MS: i64 = 5_000;

/// `{"epoch":1,"regions":[{"name":"eu","pools":1,"relay":"https://…"}]}`, and if wanted `"shard":{"requests_per_s":1000}` and
/// `"earlier":[{"epoch":…,"regions":[…],"until":"2026-01-31T12:00:00Z"}]`.
#[derive(Deserialize)]
struct Placement {
    epoch: u32,
    regions: Vec<PlacedRegion>,
    #[serde(default)]
    earlier: Vec<Earlier>,
    #[serde(default)]
    shard: PlacedShard,
}

/// A map whose routes are still under way: those of an event are as old as the event, so that the lateness bounds how long.
#[derive(Deserialize)]
struct Earlier {
    epoch: u32,
    regions: Vec<PlacedRegion>,
    until: String,
}

#[derive(Deserialize)]
#[serde(default)]
struct PlacedShard {
    requests_per_s: u32,
}

impl Default for PlacedShard {
    fn default() -> Self {
        PlacedShard { requests_per_s: Capacity::default().requests_per_s }
    }
}

#[derive(Deserialize)]
struct PlacedRegion {
    name: String,
    pools: u32,
    relay: String,
}

impl Config {
    /// Reads the settings.
    pub(crate) fn read(env: &Env) -> Result<Self, ConfigError> {
        let var = |name| env.var(name).map(|var| var.to_string()).map_err(|_| ConfigError::Missing(name));
        let secret = Secret::new(var("CATCHMENT_SECRET")?.as_bytes());
        let placement: Placement =
            serde_json::from_str(&var("PLACEMENT")?).map_err(|error| ConfigError::Placement(error.to_string()))?;
        let map = map_of(placement.epoch, &placement.regions)?;
        let mut relays: Vec<_> = placement.regions.into_iter().map(|region| (region.name, region.relay)).collect();
        let mut earlier = Vec::new();
        for old in placement.earlier {
            if old.epoch >= placement.epoch {
                return Err(ConfigError::Placement(format!("epoch {} is not earlier", old.epoch)));
            }
            let until = Date::new(DateInit::String(old.until.clone())).as_millis();
            if until == 0 {
                return Err(ConfigError::Placement(format!("{:?} is no time", old.until)));
            }
            earlier.push((map_of(old.epoch, &old.regions)?, until as i64));
            // What waits in a shard of a region that is no more still has to get there; the present address of others counts.
            relays.extend(old.regions.into_iter().map(|region| (region.name, region.relay)));
        }
        if placement.shard.requests_per_s == 0 {
            return Err(ConfigError::Placement("a shard takes at least one request a second".into()));
        }
        let relay_token = Some(var("RELAY_TOKEN")?).filter(|token| !token.is_empty());
        Ok(Config {
            secret: secret.map_err(|error| ConfigError::Secret(error.to_string()))?,
            relay_token: relay_token.ok_or(ConfigError::Missing("RELAY_TOKEN"))?,
            capacity: Capacity { requests_per_s: placement.shard.requests_per_s },
            map,
            earlier,
            relays,
            country_header: optional(env, "COUNTRY_HEADER")
                .and_then(|var| var.as_string())
                .filter(|name| !name.is_empty()),
            countries: countries(env)?.map(Rc::new),
        })
    }

    /// The map of an epoch, if its routes are taken now, at `now_ms`; else how long ago they last were by any edge's clock, in ms, if
    /// that is known.
    pub(crate) fn map_of(&self, epoch: Epoch, now_ms: i64) -> Result<&PlacementMap, Option<i64>> {
        if self.map.epoch.map() == epoch.map() {
            return Ok(&self.map);
        }
        match self.earlier.iter().find(|(map, _)| map.epoch.map() == epoch.map()) {
            Some((map, until_ms)) if now_ms < *until_ms => Ok(map),
            Some((_, until_ms)) => Err(Some((now_ms - until_ms - CLOCKS_MS).max(0))),
            None => Err(None),
        }
    }

    /// The address of a region's relay.
    pub(crate) fn relay(&self, region: &str) -> Option<&str> {
        self.relays.iter().find(|(name, _)| name == region).map(|(_, relay)| &**relay)
    }
}

/// A binding that may be missing, or null where it is a variable that isn't set: which the crate would trip over.
fn optional(env: &Env, name: &str) -> Option<JsValue> {
    Reflect::get(env, &name.into()).ok().filter(|bound| !bound.is_null() && !bound.is_undefined())
}

/// The file that is bound, if one is.
fn countries(env: &Env) -> Result<Option<Countries>, ConfigError> {
    let file = optional(env, "GEOIP").map(|bound| Uint8Array::new(&bound).to_vec());
    file.map(Countries::open).transpose().map_err(|error| ConfigError::GeoIp(error.to_string()))
}

fn map_of(epoch: u32, regions: &[PlacedRegion]) -> Result<PlacementMap, ConfigError> {
    let epoch = Epoch::of_map(epoch).map_err(|error| ConfigError::Placement(error.to_string()))?;
    if regions.is_empty() || regions.iter().any(|region| region.pools == 0) {
        return Err(ConfigError::Placement("it needs a region, and each region a pool".into()));
    }
    if let Some(region) = regions.iter().find(|region| !is_region(&region.name)) {
        return Err(ConfigError::Placement(format!("{:?} is no region's name", region.name)));
    }
    let regions = regions.iter().map(|region| Region { name: region.name.clone(), pools: region.pools }).collect();
    Ok(PlacementMap { epoch, regions })
}
