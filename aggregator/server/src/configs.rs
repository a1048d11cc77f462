//! Clients' configs: what the API sets, the store keeps, and shards ask for.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use catchment_aggregator_core::planner::Cube;
use catchment_aggregator_core::tables::CubeError;
use catchment_aggregator_core::tiers::{TooManyZones, Zone};
use catchment_cells::config::{Answer, Question, Told};
use catchment_cells::secret::ConfigKey;
use catchment_cells::{ClientId, Secret};
use catchment_config::{Config, Mistakes};
use thiserror::Error;
use tracing::{error, info, warn};

use crate::cells::Cells;
use crate::store::{Store, StoreError};
use crate::{metrics, zones};

/// All configs. The version is one for all of them, and rises with each change, to the present time in seconds since 1970 at least: a store that
/// was put back to an earlier state gives no version twice.
pub(crate) struct Configs {
    cells: Arc<Cells>,
    key: ConfigKey,
    /// The region whose shards are answered; `None`: those of every region.
    home: Option<String>,
    state: RwLock<State>,
    /// The present time, in seconds since 1970.
    now_s: fn() -> u32,
    /// One change at a time.
    changing: Mutex<()>,
}

#[derive(Default)]
struct State {
    version: u32,
    clients: BTreeMap<ClientId, Arc<Versioned>>,
}

/// A client's config.
#[derive(Debug, Default)]
pub(crate) struct Versioned {
    /// The version of its last change; 0: it was never set.
    pub version: u32,
    pub config: Config,
    /// Why it can't be read, if it can't: the config is that of a client without one then.
    pub unreadable: Option<String>,
    /// As it is shipped.
    bytes: Vec<u8>,
}

/// Why a config isn't changed.
#[derive(Debug, Error)]
pub(crate) enum PutError {
    #[error("the config has version {0}")]
    Changed(u32),
    #[error("{0}: take another name")]
    Cube(#[from] CubeError),
    #[error(
        "time_zone: there is no time zone {0:?} in the IANA database that this aggregator has, as it is spelled there"
    )]
    TimeZone(String),
    #[error("time_zone: {0}")]
    TimeZones(#[from] TooManyZones),
    #[error("no more than {} changes can be told apart", u32::MAX)]
    Versions,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the files of a folder aren't taken.
#[derive(Debug, Error)]
pub(crate) enum SeedError {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: its name is no client's: <client>.json is expected", .0.display())]
    Name(PathBuf),
    #[error("{}: {mistakes}", path.display())]
    Mistakes { path: PathBuf, mistakes: Mistakes },
    #[error("{}: {error}", path.display())]
    Put { path: PathBuf, error: PutError },
}

impl Configs {
    /// Reads what the store has, and declares the clients' cubes.
    pub(crate) fn open(
        cells: Arc<Cells>,
        secret: &Secret,
        home: Option<String>,
        now_s: fn() -> u32,
    ) -> Result<Configs, StoreError> {
        let mut state = State::default();
        for (client, version, bytes) in cells.store().configs()? {
            state.version = state.version.max(version);
            // It was taken when it was set, but maybe by another version of this program. Shards are told it as it is. Keys that it revokes stay so,
            // and nothing of the client goes.
            let config = match Config::decode(&bytes) {
                Ok(config) => config,
                Err(reason) => {
                    error!(%client, version, %reason, "a config can't be read: set it anew");
                    let (config, unreadable) = (Config::salvage(&bytes), Some(reason.to_string()));
                    state.clients.insert(client, Arc::new(Versioned { version, config, unreadable, bytes }));
                    continue;
                }
            };
            // They were checked when they were set; a cube that doesn't fit any more is not answered from.
            if let Err(error) = cells.declare(&client, cubes(&config), config.limits) {
                info!(%client, %error, "cubes of a config aren't declared");
            }
            // Its rules may be others than they were, of which another version of this program knows.
            match zones::find(&config.time_zone).map(|zone| set_zone(&cells, &client, zone)) {
                Some(Err(PutError::Store(error))) => return Err(error),
                Some(Ok(())) => {}
                Some(Err(error)) => warn!(%client, %error, "hours and days stay on the clock that they are cut on"),
                None => warn!(%client, time_zone = config.time_zone, "there is no such time zone any more"),
            }
            state.clients.insert(client, Arc::new(Versioned { version, bytes, config, unreadable: None }));
        }
        metrics::set_unreadable_configs(state.clients.values().filter(|config| config.unreadable.is_some()).count());
        let (key, state, changing) = (secret.config_key(), RwLock::new(state), Mutex::new(()));
        Ok(Configs { cells, key, home, state, now_s, changing })
    }

    /// Takes each `<client>.json` of a folder whose client has no config yet: what was set since goes before.
    pub(crate) fn seed(&self, folder: &Path) -> Result<(), SeedError> {
        let failed = |error| SeedError::Read { path: folder.to_owned(), error };
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let client = path.file_stem().and_then(|stem| ClientId::new(stem.to_str()?).ok());
            let client = client.ok_or_else(|| SeedError::Name(path.clone()))?;
            let json = std::fs::read(&path).map_err(|error| SeedError::Read { path: path.clone(), error })?;
            let config =
                Config::read(&json).map_err(|mistakes| SeedError::Mistakes { path: path.clone(), mistakes })?;
            match self.put(&client, config, Some(0)) {
                Ok(version) => info!(%client, version, "config taken from its file"),
                Err(PutError::Changed(_)) => {}
                Err(error) => return Err(SeedError::Put { path, error }),
            }
        }
        Ok(())
    }

    /// The version of the last change of any.
    pub(crate) fn version(&self) -> u32 {
        self.read().version
    }

    /// A client's config.
    pub(crate) fn get(&self, client: &ClientId) -> Arc<Versioned> {
        self.read().clients.get(client).cloned().unwrap_or_default()
    }

    /// Sets a client's config, if it has the expected version, and returns the new one: synced, and told to shards from here on.
    pub(crate) fn put(&self, client: &ClientId, config: Config, expected: Option<u32>) -> Result<u32, PutError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.get(client);
        if expected.is_some_and(|expected| expected != present.version) {
            return Err(PutError::Changed(present.version));
        }
        if present.version > 0 && present.unreadable.is_none() && present.config == config {
            return Ok(present.version);
        }
        let version = self.version().checked_add(1).ok_or(PutError::Versions)?.max((self.now_s)());
        let zone = zones::find(&config.time_zone).ok_or_else(|| PutError::TimeZone(config.time_zone.clone()))?;
        let bytes = config.encode();
        let new = self.cells.new_cubes(client, &cubes(&config))?;
        let put = |store: &Store, tiers: Option<&_>| store.put_config(client, version, &bytes, &new, tiers);
        self.cells.set_zone::<PutError>(client, zone, put)?;
        // Not before it is stored: what is refused changes nothing.
        self.cells.declare(client, cubes(&config), config.limits)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.version = version;
        state.clients.insert(client.clone(), Arc::new(Versioned { version, config, unreadable: None, bytes }));
        metrics::set_unreadable_configs(state.clients.values().filter(|config| config.unreadable.is_some()).count());
        Ok(version)
    }

    /// Answers a shard's question; `None`: it is none, or for another home.
    pub(crate) fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let asked = Question::decode(question).ok()?;
        if self.home.as_ref().is_some_and(|home| **home != *asked.home) {
            return None;
        }
        let state = self.read();
        let mut answer = Answer { version: state.version, more: false, configs: Vec::new() };
        for (client, version) in asked.clients {
            let told = match state.clients.get(&client) {
                Some(stored) if stored.version != version => {
                    Told { client, version: stored.version, config: stored.bytes.clone() }
                }
                // It has one from before this store was.
                None if version != 0 => Told { client, version: 0, config: Vec::new() },
                _ => continue,
            };
            if !answer.has_room_for(&told.config) {
                answer.more = true;
                break;
            }
            answer.configs.push(told);
        }
        Some(answer.encode(question, &self.key))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has what is stored of a client cut on a clock.
fn set_zone(cells: &Cells, client: &ClientId, zone: Zone) -> Result<(), PutError> {
    cells.set_zone(client, zone, |store, tiers| tiers.map_or(Ok(()), |tiers| store.put_tiers(client, tiers)))
}

/// The cubes of a config, as the planner knows them.
fn cubes(config: &Config) -> Vec<Cube> {
    let cube = |cube: &catchment_config::Cube| Cube {
        name: (*cube.name).into(),
        dimensions: cube.dimensions.iter().map(|name| (**name).into()).collect(),
        digest: cube.digest,
    };
    config.cubes.iter().map(cube).collect()
}
