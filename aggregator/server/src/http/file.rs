//! Files as they are served: whole in memory, compressed there, and told apart by a tag.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Api, openapi};

/// No script but our own, no inline one, and no connection but to where it came from.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// A file.
#[derive(Debug)]
pub(crate) struct File {
    content_type: &'static str,
    etag: HeaderValue,
    plain: Bytes,
    /// Where that is shorter.
    gzipped: Option<Bytes>,
}

impl File {
    pub(super) fn new(content_type: &'static str, plain: impl Into<Bytes>) -> File {
        let plain = plain.into();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        // A Vec takes all that is written.
        let gzipped = gzip.write_all(&plain).and_then(|()| gzip.finish()).ok();
        let mut hasher = DefaultHasher::new();
        plain.hash(&mut hasher);
        let etag = HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish()));
        File {
            content_type,
            etag: etag.expect("hexadecimal digits in quotes are a header's value"),
            gzipped: gzipped.filter(|gzipped| gzipped.len() < plain.len()).map(Into::into),
            plain,
        }
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

/// Whether a browser has this version: proxies that compress weaken the tag they pass on.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    known.split(',').any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == etag.as_bytes())
}

/// Any path that is nothing else: a file of the API's description or of the dashboard, or nothing.
pub(super) async fn file(State(api): State<Arc<Api>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    match openapi::file(uri.path()).or_else(|| api.dashboard.file(uri.path())) {
        Some(_) if method != Method::GET && method != Method::HEAD => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        Some(file) => file.respond(&headers),
        None => (StatusCode::NOT_FOUND, "there is nothing here\n").into_response(),
    }
}
