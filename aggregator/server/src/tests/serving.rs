use std::net::SocketAddr;
use std::path::Path;

use catchment_cells::ack::Status;
use catchment_cells::credential::ReadKey;
use catchment_cells::estimate::CONFIDENCE;
use catchment_link::{Client, Tls};
use metrics_exporter_prometheus::PrometheusBuilder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::kit::{DAY, Folder, Shard, client, event, one, secret};
use crate::config::Config;
use crate::server::{RunError, Server, StartError};

/// Writes a secret, an authority, and a certificate for both ends.
pub(super) fn write_files(folder: &Path) {
    std::fs::write(folder.join("secret"), [&[5; 32][..], b"\n"].concat()).unwrap();
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["aggregator".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

/// A configuration with its data in a folder beside the files.
pub(super) fn write_config(folder: &Path, data: &str, more: &str) -> Config {
    let path = folder.join(format!("{data}.toml"));
    let text = format!(
        r#"
        region = "eu"
        data = "{data}"
        http = "127.0.0.1:0"
        link = "127.0.0.1:0"
        secret_file = "secret"
        tls = {{ ca = "ca.pem", cert = "cert.pem", key = "key.pem" }}
        store = {{ flush_s = 0 }}
        {more}"#
    );
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap()
}

/// A server at work.
pub(super) struct Running {
    pub(super) http: SocketAddr,
    pub(super) link: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(super) async fn start(config: Config) -> Running {
        let server = Server::start(config, PrometheusBuilder::new().build_recorder().handle()).await.unwrap();
        let ready: Value = serde_json::from_str(&server.ready_line()).unwrap();
        assert_eq!(ready["ready"], true);
        let address = |name: &str| ready[name].as_str().unwrap().parse().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server.run(async { stopped.await.unwrap() }));
        Running { http: address("http"), link: address("link"), stop, server }
    }

    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.server.await.unwrap().unwrap();
    }

    /// Status, content type and body.
    pub(super) async fn get(&self, path: &str, key: Option<&str>) -> (u16, String, String) {
        let authorization = key.map_or(String::new(), |key| format!("Authorization: Bearer {key}\r\n"));
        let (head, body) = self.fetch(&format!("GET {path}"), &authorization).await;
        (head[9..12].parse().unwrap(), header(&head, "content-type"), String::from_utf8(body).unwrap())
    }

    /// The head and the body of an answer.
    async fn fetch(&self, request: &str, headers: &str) -> (String, Vec<u8>) {
        let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8(response[..end].to_vec()).unwrap(), response[end + 4..].to_vec())
    }

    pub(super) async fn ask(&self, name: &str, query: &str) -> Value {
        let (status, _, body) = self.get(&format!("/api/v1/metrics?{query}"), Some(&read_key(name))).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn header(head: &str, name: &str) -> String {
    let value = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.unwrap_or_default().into()
}

pub(super) fn read_key(name: &str) -> String {
    ReadKey { client: client(name), generation: 1 }.mint(&secret())
}

pub(super) fn tls(folder: &Path) -> Tls {
    Tls { ca: "ca.pem".into(), cert: "cert.pem".into(), key: "key.pem".into() }.in_folder(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_come_in_and_figures_go_out() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let relay = Client::new(server.link.to_string(), tls(folder.path()).client().unwrap()).unwrap();
    let mut shard = Shard::new(1);
    let mut block = one(&client("a"), DAY);
    event(&mut block, &client("a"), DAY + 61, "/x", 7, 3);
    let acks = relay.send(vec![shard.cut(block), shard.cut(one(&client("b"), DAY))]).await;
    assert!(acks.iter().all(|ack| ack.as_ref().unwrap().status == Status::Stored));

    let figure = |n: i64| json!({ "value": n, "lower": n, "upper": n, "exact": true });
    let range = "start=2024-01-01&end=2024-01-02&granularity=1h";
    let answer = server.ask("a", &format!("metric=page_views&metric=sum:duration&metric=count:buy&{range}")).await;
    let values = |sum| json!({ "page_views": figure(1), "sum:duration": figure(sum), "count:buy": figure(0) });
    assert_eq!(
        answer,
        json!({
            "results": [
                { "time": "2024-01-01T00:00:00Z", "group": null, "values": values(1) },
                { "time": "2024-01-01T01:00:00Z", "group": null, "values": values(3) },
            ],
            "meta": {
                "confidence": CONFIDENCE,
                "as_of": "2024-01-01T00:00:00.002Z",
                "cube": "event_type",
                "tier": "hour",
                "source": "cells",
            },
        })
    );
    // The question made its client watched, and not the other one.
    for (name, watched) in [("a", true), ("b", false)] {
        let acks = relay.send(vec![shard.cut(one(&client(name), DAY))]).await;
        assert_eq!(acks[0].as_ref().unwrap().watched, watched, "{name}");
    }
    assert_eq!(
        server.ask("b", "metric=events&start=2024-01-01&end=2024-01-02").await["results"][0]["values"]["events"],
        figure(2)
    );
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.get(path, None).await.0, 200, "{path}");
    }
    server.stop().await;

    let server = Running::start(write_config(folder.path(), "data", "")).await;
    assert_eq!(
        server.ask("a", "metric=events&start=2024-01-01&end=2024-01-02").await["results"][0]["values"]["events"],
        figure(3)
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_get_a_sentence() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let key = read_key("a");
    let day = "start=2024-01-01&end=2024-01-02";
    for (key, query, status, says) in [
        (None, format!("metric=events&{day}"), 401, "read key"),
        (Some("rk_a_1_aaaaaaaaaaaaaaaaaaaaaaaa"), format!("metric=events&{day}"), 401, "unknown"),
        (Some(&*key), day.into(), 400, "metric"),
        (Some(&key), format!("metric=visits&{day}"), 400, "visits"),
        (Some(&key), "metric=events&start=yesterday&end=2024-01-02".into(), 400, "start"),
        (Some(&key), format!("metric=events&{day}&granularity=1w"), 400, "granularity"),
        (Some(&key), format!("metric=events&{day}&colour=red"), 400, "colour"),
        (Some(&key), format!("metric=events&{day}&group_by=colour"), 422, "[colour]"),
        (Some(&key), format!("metric=page_views&{day}&group_by=page"), 422, "[page, event_type]"),
        (Some(&key), format!("metric=p95:duration&{day}&group_by=country"), 422, "[country] and digests"),
        (Some(&key), format!("metric=events&metric=received:late&{day}"), 422, "received"),
    ] {
        let (got, content_type, body) = server.get(&format!("/api/v1/metrics?{query}"), key).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((got, &*content_type), (status, "application/problem+json"), "{query}: {body}");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(says), "{query}: {body}");
        assert_eq!(problem["parameter"].is_string(), status == 400);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboards_files_are_served_and_nothing_else() {
    let folder = Folder::new();
    write_files(folder.path());
    let files = folder.path().join("dashboard/fonts");
    std::fs::create_dir_all(&files).unwrap();
    let script = "console.log('hello');\n".repeat(100);
    std::fs::write(files.with_file_name("index.html"), "<!doctype html>").unwrap();
    std::fs::write(files.join("main.js"), &script).unwrap();
    std::fs::write(files.join("LICENSE"), "not served").unwrap();
    let server = Running::start(write_config(folder.path(), "data", "dashboard = \"dashboard\"")).await;

    let (head, body) = server.fetch("GET /", "").await;
    assert_eq!((&head[9..12], &body[..]), ("200", &b"<!doctype html>"[..]));
    assert_eq!(header(&head, "content-type"), "text/html; charset=utf-8");
    let policy = header(&head, "content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe-inline"), "{policy}");
    let etag = header(&head, "etag");
    for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}")] {
        let (head, _) = server.fetch("GET /index.html", &format!("If-None-Match: {known}\r\n")).await;
        assert_eq!(&head[9..12], "304", "{known}");
    }

    let (head, body) = server.fetch("GET /fonts/main.js", "Accept-Encoding: br, gzip;q=0.5\r\n").await;
    assert_eq!(header(&head, "content-encoding"), "gzip");
    let mut plain = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut plain).unwrap();
    assert_eq!(plain, script);
    let (head, body) = server.fetch("GET /fonts/main.js", "").await;
    assert_eq!((header(&head, "content-encoding"), &body[..]), (String::new(), script.as_bytes()));

    for (request, status) in [
        ("GET /secret", "404"),
        ("GET /../secret", "404"),
        ("GET /%2e%2e/secret", "404"),
        ("GET /fonts", "404"),
        ("GET /fonts/LICENSE", "404"),
        ("GET //etc/passwd", "404"),
        ("POST /index.html", "405"),
    ] {
        assert_eq!(server.fetch(request, "").await.0[9..12], *status, "{request}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_measures_of_a_time_are_named() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let relay = Client::new(server.link.to_string(), tls(folder.path()).client().unwrap()).unwrap();
    let mut shard = Shard::new(1);
    relay.send(vec![shard.cut(one(&client("a"), DAY)), shard.cut(one(&client("b"), DAY + 24 * 60))]).await;
    let day = "/api/v1/measures?start=2024-01-01&end=2024-01-02";
    for (name, path, status, body) in [
        ("a", day, 200, r#"{"measures":["duration"]}"#),
        ("b", day, 200, r#"{"measures":[]}"#),
        ("a", "/api/v1/measures?last=1d", 200, r#"{"measures":[]}"#),
    ] {
        let (got, _, answer) = server.get(path, Some(&read_key(name))).await;
        assert_eq!((got, &*answer), (status, body), "{name} {path}");
    }
    for (query, status) in [("start=2024-01-01", 400), ("last=1d&metric=users", 400), ("last=1d&limit=1", 400)] {
        assert_eq!(server.get(&format!("/api/v1/measures?{query}"), Some(&read_key("a"))).await.0, status, "{query}");
    }
    assert_eq!(server.get(day, None).await.0, 401);
    server.stop().await;
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_one_sentence() {
    let folder = Folder::new();
    write_files(folder.path());
    let config = write_config(folder.path(), "data", "");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port_in_use = Config { http: taken.local_addr().unwrap(), ..config.clone() };
    let no_secret = Config { secret_file: folder.path().join("none"), ..config.clone() };
    let no_key = Config { tls: Tls { key: folder.path().join("ca.pem"), ..config.tls.clone() }, ..config.clone() };
    let bad_upstream = {
        let mut config = config.clone();
        config.upstream = Some(crate::config::Upstream { address: "central".into() });
        config
    };
    let no_dashboard = Config { dashboard: Some(folder.path().join("none")), ..config.clone() };
    let no_index = Config { dashboard: Some(folder.path().to_owned()), ..config.clone() };
    for (config, says) in [
        (no_dashboard, "can't be read"),
        (no_index, "no index.html"),
        (port_in_use, "can't listen on 127.0.0.1"),
        (no_secret, "can't read"),
        (no_key, "ca.pem"),
        (bad_upstream, "central"),
    ] {
        let error =
            Server::start(config, PrometheusBuilder::new().build_recorder().handle()).await.map(|_| ()).unwrap_err();
        let sentence = error.to_string();
        assert!(sentence.contains(says) && !sentence.contains('\n'), "{sentence}");
    }
    let _first = Running::start(config.clone()).await;
    let second = Server::start(config, PrometheusBuilder::new().build_recorder().handle()).await;
    assert!(matches!(second, Err(StartError::Store(error)) if error.to_string().contains("in use")));
}

#[test]
fn a_bad_configuration_names_its_line() {
    let folder = Folder::new();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, "region = \"eu\"\nportt = 1\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("portt") && !error.contains('\n'), "{error}");
}
