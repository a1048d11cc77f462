//! The deployment's settings, from the Worker's environment.

use catchment_cells::Secret;
use catchment_cells::route::{PlacementMap, Region, is_region};
use serde::Deserialize;
use thiserror::Error;
use worker::Env;

/// The settings.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// `CATCHMENT_SECRET`: its UTF-8 bytes.
    pub(crate) secret: Secret,
    /// `RELAY_TOKEN`: what relays know us by, and operators themselves.
    pub(crate) relay_token: String,
    /// `PLACEMENT`: the regions.
    pub(crate) map: PlacementMap,
    relays: Vec<(String, String)>,
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
}

/// `{"epoch":1,"regions":[{"name":"eu","pools":1,"relay":"https://…"}]}`
#[derive(Deserialize)]
struct Placement {
    epoch: u32,
    regions: Vec<PlacedRegion>,
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
        if placement.regions.is_empty() || placement.regions.iter().any(|region| region.pools == 0) {
            return Err(ConfigError::Placement("it needs a region, and each region a pool".into()));
        }
        if let Some(region) = placement.regions.iter().find(|region| !is_region(&region.name)) {
            return Err(ConfigError::Placement(format!("{:?} is no region's name", region.name)));
        }
        let relay_token = Some(var("RELAY_TOKEN")?).filter(|token| !token.is_empty());
        let regions = placement.regions.iter().map(|r| Region { name: r.name.clone(), pools: r.pools }).collect();
        Ok(Config {
            secret: secret.map_err(|error| ConfigError::Secret(error.to_string()))?,
            relay_token: relay_token.ok_or(ConfigError::Missing("RELAY_TOKEN"))?,
            map: PlacementMap { epoch: placement.epoch, regions },
            relays: placement.regions.into_iter().map(|region| (region.name, region.relay)).collect(),
        })
    }

    /// The address of a region's relay.
    pub(crate) fn relay(&self, region: &str) -> Option<&str> {
        self.relays.iter().find(|(name, _)| name == region).map(|(_, relay)| &**relay)
    }
}
