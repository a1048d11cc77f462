//! The dashboard's files: read once, into memory, and compressed there.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use thiserror::Error;
use tracing::warn;

use super::Api;

/// Bytes of all files: what is read at a start.
const BYTES_MAX: u64 = 32 << 20;
/// No script but the dashboard's own, no inline one, and no connection but to where it came from.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The files, by their path.
#[derive(Debug, Default)]
pub(crate) struct Dashboard(HashMap<String, File>);

#[derive(Debug)]
struct File {
    content_type: &'static str,
    etag: HeaderValue,
    plain: Bytes,
    /// Where that is shorter.
    gzipped: Option<Bytes>,
}

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
                let file = File::read(&path, content_type)?;
                let name = path.strip_prefix(folder).unwrap_or(&path);
                files.insert(format!("/{}", name.display()), file);
            }
        }
        if !files.contains_key("/index.html") {
            return Err(DashboardError::NoIndex(folder.to_owned()));
        }
        Ok(Dashboard(files))
    }
}

impl File {
    fn read(path: &Path, content_type: &'static str) -> Result<File, DashboardError> {
        let failed = |error| DashboardError::Read { path: path.to_owned(), error };
        let plain = std::fs::read(path).map_err(failed)?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let gzipped = gzip.write_all(&plain).and_then(|()| gzip.finish()).map_err(failed)?;
        let mut hasher = DefaultHasher::new();
        plain.hash(&mut hasher);
        let etag = HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish()));
        Ok(File {
            content_type,
            etag: etag.expect("hexadecimal digits in quotes are a header's value"),
            gzipped: (gzipped.len() < plain.len()).then(|| gzipped.into()),
            plain: plain.into(),
        })
    }

    fn respond(&self, headers: &HeaderMap) -> Response {
        let fixed = [
            (header::ETAG, self.etag.clone()),
            // Asked about each time, so that a new version is seen at once.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::VARY, HeaderValue::from_static("accept-encoding")),
        ];
        if is_known(headers, &self.etag) {
            return (StatusCode::NOT_MODIFIED, fixed).into_response();
        }
        let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let takes_gzip =
            accepted.split(',').any(|coding| coding.split(';').next().unwrap_or_default().trim() == "gzip");
        let safety = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        match &self.gzipped {
            Some(gzipped) if takes_gzip => {
                (fixed, safety, [(header::CONTENT_ENCODING, "gzip")], gzipped.clone()).into_response()
            }
            _ => (fixed, safety, self.plain.clone()).into_response(),
        }
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

/// Whether a browser has this version: proxies that compress weaken the tag they pass on.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    known.split(',').any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == etag.as_bytes())
}

/// Any path that is nothing else: a file of the dashboard, or nothing.
pub(crate) async fn file(State(api): State<Arc<Api>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = if uri.path() == "/" { "/index.html" } else { uri.path() };
    match api.dashboard.0.get(path) {
        Some(_) if method != Method::GET && method != Method::HEAD => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        Some(file) => file.respond(&headers),
        None => (StatusCode::NOT_FOUND, "there is nothing here\n").into_response(),
    }
}
