//! The dashboard's files: read once, into memory.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::warn;

use super::file::File;

/// Bytes of all files: what is read at a start.
const BYTES_MAX: u64 = 32 << 20;

/// The files, by their path.
#[derive(Debug, Default)]
pub(crate) struct Dashboard(HashMap<String, File>);

/// Why the files can't be served.
#[derive(Debug, Error)]
pub(crate) enum DashboardError {
    #[error("the dashboard's {} can't be read: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("the dashboard has more than {BYTES_MAX} bytes")]
    TooLarge,
    #[error("{} has no index.html: it is not a dashboard's folder", .0.display())]
    NoIndex(PathBuf),
}

impl Dashboard {
    /// Reads all files of a folder.
    pub(crate) fn read(folder: &Path) -> Result<Dashboard, DashboardError> {
        let mut files = HashMap::new();
        let mut bytes = 0;
        let mut folders = vec![folder.to_owned()];
        while let Some(at) = folders.pop() {
            let failed = |error| DashboardError::Read { path: at.clone(), error };
            for entry in std::fs::read_dir(&at).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                bytes += path.metadata().map_err(failed)?.len();
                if bytes > BYTES_MAX {
                    return Err(DashboardError::TooLarge);
                }
                let Some(content_type) = content_type(&path) else {
                    warn!(path = %path.display(), "not served: no kind of file that a dashboard has");
                    continue;
                };
                let failed = |error| DashboardError::Read { path: path.clone(), error };
                let file = File::new(content_type, std::fs::read(&path).map_err(failed)?);
                let name = path.strip_prefix(folder).unwrap_or(&path);
                files.insert(format!("/{}", name.display()), file);
            }
        }
        if !files.contains_key("/index.html") {
            return Err(DashboardError::NoIndex(folder.to_owned()));
        }
        Ok(Dashboard(files))
    }

    /// What is at a path.
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.0.get(if path == "/" { "/index.html" } else { path })
    }
}

fn content_type(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()? {
        "html" => Some("text/html; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "js" | "mjs" => Some("text/javascript; charset=utf-8"),
        "wasm" => Some("application/wasm"),
        "svg" => Some("image/svg+xml"),
        "png" => Some("image/png"),
        "ico" => Some("image/x-icon"),
        "woff2" => Some("font/woff2"),
        "json" | "map" | "webmanifest" => Some("application/json"),
        "txt" => Some("text/plain; charset=utf-8"),
        _ => None,
    }
}
