//! The configuration file.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use catchment_aggregator_core::tables::Bounds;
use catchment_cells::Secret;
use catchment_cells::secret::SecretTooShort;
use catchment_config::RetentionDays;
use catchment_config::limits::RETENTION_DAYS_MAX;
use catchment_link::Tls;
use serde::Deserialize;
use thiserror::Error;

/// What the file says. Relative paths are taken from its folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The region whose frames are taken.
    pub region: String,
    /// Takes frames of every region.
    #[serde(default)]
    pub central: bool,
    /// The folder of the store.
    pub data: PathBuf,
    /// Where questions are answered.
    pub http: SocketAddr,
    /// Where frames arrive.
    pub link: SocketAddr,
    /// The file with the deployment's secret.
    pub secret_file: PathBuf,
    /// The certificates.
    pub tls: Tls,
    /// Whom frames are passed on to.
    pub upstream: Option<Upstream>,
    /// The folder of the built dashboard; without one, none is served.
    pub dashboard: Option<PathBuf>,
    /// A folder with a `<client>.json` for each client whose config is to be set where it never was.
    pub clients: Option<PathBuf>,
    /// How much is kept where.
    #[serde(default)]
    pub store: Limits,
    /// For how long figures of clients are kept whose configs don't say; for ever, without it.
    #[serde(default)]
    pub retention_days: RetentionDays,
}

/// The aggregator that gets every frame of this one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upstream {
    /// Its link address, `host:port`.
    pub address: String,
}

/// Bounds of memory and log.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// The memtable is flushed once it has so many bytes; at twice as many, frames are refused as busy until it is. Frames
    /// wait while a flush is committed, some 4 ms for each MiB.
    pub memtable_bytes: NonZeroUsize,
    /// The memtable is flushed once its oldest frame has waited so long, in seconds: what a restart has to replay.
    pub flush_s: u64,
    /// Bytes of frames in the log, flushed or not, at which further ones are refused as busy: what the disk must hold
    /// while the upstream is away.
    pub log_bytes: NonZeroU64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memtable_bytes: const { NonZeroUsize::new(32 << 20).expect("32 MiB aren't 0") },
            flush_s: 60,
            log_bytes: const { NonZeroU64::new(4 << 30).expect("4 GiB aren't 0") },
        }
    }
}

impl From<Limits> for Bounds {
    fn from(limits: Limits) -> Bounds {
        Bounds {
            memtable_bytes: limits.memtable_bytes.get(),
            flush_ms: i64::try_from(limits.flush_s).map_or(i64::MAX, |flush_s| flush_s.saturating_mul(1_000)),
            log_bytes: limits.log_bytes.get(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("can't read {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} is no configuration: line {line}: {message}", path.display())]
    Parse { path: PathBuf, line: usize, message: String },
    #[error(
        "{}: [retention_days] has 1 to {RETENTION_DAYS_MAX} days each, of hours no fewer than of minutes, and of days than of hours",
        .0.display()
    )]
    Retention(PathBuf),
    #[error("{}: {error}", path.display())]
    Secret { path: PathBuf, error: SecretTooShort },
}

impl Config {
    /// Reads a file.
    pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = read(path)?;
        let text = String::from_utf8_lossy(&text);
        let mut config: Config = toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            line: 1 + text[..error.span().map_or(0, |span| span.start)].matches('\n').count(),
            message: error.message().replace('\n', " "),
        })?;
        if !config.retention_days.is_sound() {
            return Err(ConfigError::Retention(path.to_owned()));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        for path in [&mut config.data, &mut config.secret_file]
            .into_iter()
            .chain(&mut config.dashboard)
            .chain(&mut config.clients)
        {
            *path = folder.join(&path);
        }
        config.tls = config.tls.in_folder(folder);
        Ok(config)
    }

    /// Reads the deployment's secret: the file's bytes without a line's end.
    pub(crate) fn secret(&self) -> Result<Secret, ConfigError> {
        let path = &self.secret_file;
        let bytes = read(path)?;
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        Secret::new(bytes).map_err(|error| ConfigError::Secret { path: path.clone(), error })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })
}
