//! Serves the example shop, as any web server would.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::{Failure, Result};

/// Bytes of all files; a folder with more is no example.
const BYTES_MAX: u64 = 16 << 20;

/// A web server on a free loopback port. Ends when dropped.
#[derive(Debug)]
pub struct Shop {
    url: String,
    task: JoinHandle<()>,
}

/// Path from the folder, with slashes → content.
type Files = HashMap<String, Bytes>;

impl Shop {
    /// Reads a folder's files, puts the edge's address and the write key where they say `{{EDGE}}` and `{{KEY}}`, and serves them.
    pub async fn start(folder: &Path, edge: &str, key: &str) -> Result<Shop> {
        let mut files = Files::new();
        read(folder, folder, &mut files).map_err(Failure::at(folder.display()))?;
        for content in files.values_mut() {
            if let Ok(text) = std::str::from_utf8(content) {
                *content = text.replace("{{EDGE}}", edge).replace("{{KEY}}", key).into();
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Failure::at("opening the shop"))?;
        let url = format!("http://{}", listener.local_addr().map_err(Failure::at("opening the shop"))?);
        let router = Router::new().fallback(answer).with_state(Arc::new(files));
        // Serving ends only with the task: what fails is one connection.
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap_or_default() });
        Ok(Shop { url, task })
    }

    /// Its address: `http://host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn read(folder: &Path, root: &Path, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, root, files)?;
            continue;
        }
        let held: u64 = files.values().map(|content| content.len() as u64).sum();
        if held + fs::metadata(&path)?.len() > BYTES_MAX {
            return Err(io::Error::other(format!("more than {BYTES_MAX} bytes of files")));
        }
        let name = path.strip_prefix(root).map(Path::to_string_lossy).unwrap_or_default().into_owned();
        files.insert(name, fs::read(&path)?.into());
    }
    Ok(())
}

/// A path is a file, a page without its `.html`, or a folder; any other is a page that the shop's script draws.
async fn answer(State(files): State<Arc<Files>>, uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/').trim_end_matches('/');
    let names = [path.to_owned(), format!("{path}.html"), PathBuf::from(path).join("index.html").display().to_string()];
    let found = names.iter().find_map(|name| files.get_key_value(name));
    let page = || files.get_key_value("index.html").filter(|_| !path.contains('.'));
    let Some((name, content)) = found.or_else(page) else { return StatusCode::NOT_FOUND.into_response() };
    let content_type = match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("ico") => "image/x-icon",
        _ => "application/octet-stream",
    };
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")], content.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_carry_the_address_and_the_key() {
        let folder = std::env::temp_dir().join(format!("catchment-shop-{}", std::process::id()));
        fs::create_dir_all(folder.join("img")).unwrap();
        fs::write(folder.join("index.html"), "<script src={{EDGE}}/catchment.js data-key={{KEY}}>").unwrap();
        fs::write(folder.join("cart.html"), "cart").unwrap();
        fs::write(folder.join("img/tea.svg"), "<svg/>").unwrap();
        let shop = Shop::start(&folder, "http://edge", "wk_x").await.unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let get = async |path: &str| {
            let answer = reqwest::get(format!("{}{path}", shop.url())).await.unwrap();
            let content_type = answer.headers().get("content-type").map(|text| text.to_str().unwrap().to_owned());
            (answer.status().as_u16(), content_type.unwrap_or_default(), answer.text().await.unwrap())
        };
        let html = "text/html; charset=utf-8".to_owned();
        let index = (200, html.clone(), "<script src=http://edge/catchment.js data-key=wk_x>".to_owned());
        assert_eq!(get("/").await, index);
        assert_eq!(get("/product/tea?utm_source=x").await, index);
        assert_eq!(get("/cart").await, (200, html, "cart".into()));
        assert_eq!(get("/img/tea.svg").await, (200, "image/svg+xml".into(), "<svg/>".into()));
        assert_eq!(get("/missing.png").await.0, 404);
        assert_eq!(get("/../shop.rs").await.0, 404);
    }
}
