use std::net::SocketAddr;
use std::path::Path;

use catchment_cells::ack::Status;
use catchment_cells::credential::{OperatorKey, ReadKey};
use catchment_cells::estimate::CONFIDENCE;
use catchment_cells::frame::CellsBlock;
use catchment_cells::key::Tier;
use catchment_cells::merged::{self, Merged, MergedRow};
use catchment_cells::metric::{Metric, Stat};
use catchment_cells::sum::Parts;
use catchment_cells::{Cell, Estimate};
use catchment_link::{Client, Tls};
use metrics_exporter_prometheus::PrometheusBuilder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::describing;
use super::kit::{DAY, Folder, Shard, client, event, event_of, one, secret};
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

    /// Asks several questions; status and body.
    pub(super) async fn post(&self, key: Option<&str>, body: &str) -> (u16, Value) {
        let authorization = key.map_or(String::new(), |key| format!("Authorization: Bearer {key}\r\n"));
        let headers = format!("{authorization}Content-Length: {}\r\n", body.len());
        let (head, body) = self.send("POST /api/v1/metrics", &headers, body).await;
        (head[9..12].parse().unwrap(), serde_json::from_slice(&body).unwrap())
    }

    /// The head and the body of an answer.
    pub(super) async fn fetch(&self, request: &str, headers: &str) -> (String, Vec<u8>) {
        self.send(request, headers, "").await
    }

    pub(super) async fn send(&self, request: &str, headers: &str, body: &str) -> (String, Vec<u8>) {
        let sent = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n{body}");
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        let end = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let (head, body) = (String::from_utf8(response[..end].to_vec()).unwrap(), response[end + 4..].to_vec());
        describing::check(request, &head, &body);
        (head, body)
    }

    pub(super) async fn ask(&self, name: &str, query: &str) -> Value {
        let (status, _, body) = self.get(&format!("/api/v1/metrics?{query}"), Some(&read_key(name))).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

pub(super) fn header(head: &str, name: &str) -> String {
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
                "time_zone": "UTC",
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
async fn an_answer_that_is_had_is_not_sent_again_until_it_changes() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let relay = Client::new(server.link.to_string(), tls(folder.path()).client().unwrap()).unwrap();
    let mut shard = Shard::new(1);
    let mut send = async |name, minute| {
        let acks = relay.send(vec![shard.cut(one(&client(name), minute))]).await;
        assert_eq!(acks[0].as_ref().unwrap().status, Status::Stored);
    };
    let ask = async |tag: &str| {
        let headers = format!("Authorization: Bearer {}\r\nIf-None-Match: {tag}\r\n", read_key("a"));
        let path = "GET /api/v1/metrics?metric=events&start=2024-01-01&end=2024-01-02&granularity=1h";
        let (head, body) = server.fetch(path, &headers).await;
        assert_eq!(header(&head, "cache-control"), "private, no-cache");
        (head[9..12].to_owned(), header(&head, "etag"), String::from_utf8(body).unwrap())
    };
    send("a", DAY).await;
    let (status, first, body) = ask("\"another\"").await;
    assert!(status == "200" && body.contains("\"value\":1"), "{status} {body}");
    assert_eq!(ask(&first).await, ("304".into(), first.clone(), String::new()));
    // What isn't asked about changes nothing but the time up to which frames are there.
    send("b", DAY).await;
    send("a", DAY + 24 * 60).await;
    assert_eq!(ask(&first).await, ("304".into(), first.clone(), String::new()));
    // A late event does, in the memtable and in the store.
    send("a", DAY + 61).await;
    let (status, second, _) = ask(&first).await;
    assert!(status == "200" && second != first);
    // Nor does it change anything when that is flushed, which is done within a tenth of a second.
    for _ in 0..10 {
        assert_eq!(ask(&second).await.0, "304");
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_get_a_sentence() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let key = read_key("a");
    let day = "start=2024-01-01&end=2024-01-02";
    let values = format!("page+in+({})", (0..1_001).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    for (key, query, status, says) in [
        (None, format!("metric=events&{day}"), 401, "read key"),
        (Some("rk_a_1_aaaaaaaaaaaaaaaaaaaaaaaa"), format!("metric=events&{day}"), 401, "unknown"),
        (Some(&*key), day.into(), 400, "metric"),
        (Some(&key), format!("metric=visits&{day}"), 400, "visits"),
        (Some(&key), "metric=events&start=yesterday&end=2024-01-02".into(), 400, "start"),
        (Some(&key), format!("metric=events&{day}&granularity=1y"), 400, "granularity"),
        (Some(&key), "metric=events&start=2024-01-02&end=2024-01-01".into(), 400, "must come after"),
        (
            Some(&key),
            "metric=events&start=2014-01-01&end=2024-01-01&granularity=1m".into(),
            400,
            "ask for coarser ones",
        ),
        (Some(&key), format!("metric=events&{day}&filter={values}"), 400, "more than 1000 values: ask for a prefix"),
        (Some(&key), format!("metric=events&{day}&filter=country+US"), 400, "it should have ="),
        (Some(&key), format!("metric=events&{day}&window=7d&granularity=1mo"), 400, "whole number"),
        (Some(&key), format!("metric=events&{day}&compare=next"), 400, "previous"),
        (Some(&key), format!("metric=events&{day}&granularity=1mo&start=2024-01-02&compare=previous"), 400, "twice"),
        (Some(&key), format!("metric=events&{day}&order=users"), 400, "a metric of the question"),
        (Some(&key), format!("metric=events&{day}&filter=page!%3D/"), 422, "[page, event_type]"),
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
async fn a_filter_of_a_million_values_is_refused_unread() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let key = read_key("a");
    let values: Vec<String> = (0..1_000_000).map(|n| format!("/{n}")).collect();
    let filter = json!({ "dimension": "page", "in": values });
    let body = json!({ "questions": [{ "metric": "events", "last": "1d", "filter": filter }] }).to_string();
    let (status, problem) = server.post(Some(&key), &body).await;
    assert_eq!((status, &problem["status"]), (413, &json!(413)));
    assert!(problem["detail"].as_str().unwrap().contains("in a filter of many values for a prefix"), "{problem}");
    // In a query string it is more than a head may have.
    let query = format!("GET /api/v1/metrics?metric=events&last=1d&filter=page+in+({})", values[..20_000].join(","));
    let (head, _) = server.fetch(&query, &format!("Authorization: Bearer {key}\r\n")).await;
    assert!(["414", "431"].contains(&&head[9..12]), "{head}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_questions_are_answered_each_by_itself() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let relay = Client::new(server.link.to_string(), tls(folder.path()).client().unwrap()).unwrap();
    let mut block = CellsBlock::default();
    // Of two days: the first has half as many, of which every fifth is an error.
    for n in 0..30u64 {
        let minute = DAY + if n < 10 { 0 } else { 24 * 60 };
        let country = ["DE", "US", "US"][n as usize % 3];
        let mut values = vec![("event_type", if n % 5 == 0 { "error" } else { "page_view" }), ("country", country)];
        values.extend((n % 2 == 0).then_some(("device", "mobile")));
        event_of(&mut block, &client("a"), minute, &values, n % 6, 1);
    }
    let mut shard = Shard::new(1);
    relay.send(vec![shard.cut(block)]).await;
    let key = read_key("a");
    let days = json!({ "start": "2024-01-01", "end": "2024-01-03" });
    let question = |more: Value| {
        let mut question = days.clone();
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        question
    };
    let not_mobile = json!({ "not": { "dimension": "device", "is": "mobile" } });
    let questions = [
        question(json!({ "metric": ["events", "users"], "group_by": "country", "limit": 1 })),
        question(json!({ "metric": "events", "group_by": ["country", "device"], "order": "group" })),
        question(json!({ "metric": "events", "filter": not_mobile })),
        question(
            json!({ "metric": "events", "filter": ["country in (DE,\"US\")", { "dimension": "device", "prefix": "mob" }] }),
        ),
        question(json!({ "metric": "nonsense" })),
        question(json!({ "metric": "events", "group_by": "colour" })),
        question(json!({ "metric": ["error_rate", "users"], "granularity": "1d", "window": "2d" })),
        json!({ "metric": ["events", "max:duration"], "start": "2024-01-02", "end": "2024-01-03", "compare": "previous" }),
    ];
    let (status, answer) = server.post(Some(&key), &json!({ "questions": questions }).to_string()).await;
    assert_eq!(status, 200, "{answer}");
    let answers = answer["answers"].as_array().unwrap();
    assert_eq!(answers.len(), questions.len());
    let value = |answer: &Value, row: usize, metric: &str| answer["results"][row]["values"][metric]["value"].clone();
    let groups = |answer: &Value| {
        answer["results"].as_array().unwrap().iter().map(|row| row["group"].clone()).collect::<Value>()
    };
    let counts = |answer: &Value| (0..4).map(|row| value(answer, row, "events")).collect::<Value>();
    assert_eq!(groups(&answers[0]), json!(["US", "(other)"]));
    assert_eq!(counts(&answers[0]), json!([20, 10, null, null]));
    assert_eq!(value(&answers[0], 0, "users"), json!(4));
    assert_eq!(groups(&answers[1]), json!([["DE", "mobile"], ["US", "mobile"]]));
    assert_eq!(counts(&answers[1]), json!([5, 10, null, null]));
    assert_eq!(counts(&answers[2]), json!([15, null, null, null]), "also those without a device");
    assert_eq!(answers[2]["meta"]["cube"], "audience");
    assert_eq!(counts(&answers[3]), json!([15, null, null, null]));
    assert_eq!(
        (&answers[4]["problem"]["status"], &answers[4]["problem"]["parameter"]),
        (&json!(400), &json!("metric"))
    );
    assert_eq!(answers[5]["problem"]["status"], 422);
    let rate = json!({ "value": 0.2, "lower": 0.2, "upper": 0.2, "exact": true });
    assert_eq!((&answers[6]["results"][1]["values"]["error_rate"], value(&answers[6], 1, "users")), (&rate, json!(6)));
    let events = &answers[7]["results"][0]["values"]["events"];
    assert_eq!(
        (&events["value"], &events["previous"]["value"], &events["change"]["value"]),
        (&json!(20), &json!(10), &json!(1))
    );
    assert_eq!(answers[7]["meta"]["before"], json!({ "start": "2024-01-01T00:00:00Z", "end": "2024-01-02T00:00:00Z" }));
    assert_eq!(answers[7]["results"][0]["values"]["max:duration"]["change"]["value"], 0);

    // The same in query strings.
    for (query, n) in [
        ("metric=events&metric=users&group_by=country&limit=1&start=2024-01-01&end=2024-01-03", 0),
        ("metric=events&group_by=country&group_by=device&order=group&start=2024-01-01&end=2024-01-03", 1),
        ("metric=events&filter=not+device:mobile&filter=device!=mobile&start=2024-01-01&end=2024-01-03", 2),
        ("metric=error_rate&metric=users&granularity=1d&window=2d&start=2024-01-01&end=2024-01-03", 6),
        ("metric=events&metric=max:duration&start=2024-01-02&end=2024-01-03&compare=previous", 7),
    ] {
        let query = query.replace("not+device:mobile", "not+device=mobile");
        assert_eq!(server.ask("a", &query).await, answers[n], "{query}");
    }
    for (key, body, status, says) in [
        (None, "{}".to_owned(), 401, "read key"),
        (Some(&*key), "{".into(), 400, "JSON"),
        (Some(&key), "{}".into(), 400, "questions"),
        (Some(&key), json!({ "questions": [] }).to_string(), 400, "1 to 32"),
        (Some(&key), json!({ "questions": vec![&questions[0]; 33] }).to_string(), 400, "1 to 32"),
        (Some(&key), format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)), 400, "JSON"),
    ] {
        let (got, problem) = server.post(key, &body).await;
        assert_eq!((got, &problem["status"]), (status, &json!(status)), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
    let (_, answer) =
        server.post(Some(&key), r#"{"questions":[1,{"metric":{}},{"metric":"events","last":"1d","limit":5}]}"#).await;
    assert_eq!(answer["answers"][0]["problem"]["parameter"], "questions");
    assert_eq!(answer["answers"][1]["problem"]["parameter"], "metric");
    assert_eq!(answer["answers"][2]["results"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_are_handed_out_and_merge_to_the_same_figures() {
    let folder = Folder::new();
    write_files(folder.path());
    let server = Running::start(write_config(folder.path(), "data", "")).await;
    let relay = Client::new(server.link.to_string(), tls(folder.path()).client().unwrap()).unwrap();
    let mut block = CellsBlock::default();
    for n in 0..3_000i64 {
        event(&mut block, &client("a"), DAY + n / 10, &format!("/{}", n % 7), n as u64 % 1_700, n);
    }
    relay.send(vec![Shard::new(1).cut(block)]).await;
    let metrics = ["events", "users", "sum:duration", "max:duration", "p90:duration"];
    let metrics: Vec<Metric> = metrics.iter().map(|name| Metric::parse(name).unwrap()).collect();
    let asked: String = metrics.iter().map(|metric| format!("metric={}&", metric.name)).collect();
    let range = "start=2024-01-01&end=2024-01-02";
    let ask = async |query: &str| {
        let headers = format!("Authorization: Bearer {}\r\nAccept: {}\r\n", read_key("a"), merged::MEDIA_TYPE);
        server.fetch(&format!("GET /api/v1/metrics?{query}"), &headers).await
    };
    let (head, bytes) = ask(&format!("{asked}{range}&granularity=1h&group_by=page&limit=3")).await;
    assert_eq!(header(&head, "content-type"), merged::MEDIA_TYPE);
    let told = Merged::decode(&bytes).unwrap();
    assert_eq!((&*told.cube, told.tier, &told.dimensions[..]), ("page", Tier::Hour, &["page".into()][..]));
    assert_eq!(told.rows.len(), 5 * 4, "five hours of three pages and the rest");

    // Merged by group, and all of it, they say what the questions for these say.
    let say = |cells: &mut dyn Iterator<Item = &Cell>| {
        let parts = Parts::new(&metrics);
        let mut sums = parts.zeros();
        cells.for_each(|cell| parts.iter().zip(&mut sums).for_each(|(part, sum)| part.add(sum, cell)));
        parts.figures(&sums)
    };
    let near = |figures: Vec<Option<Estimate>>, values: &Value| {
        for (metric, figure) in metrics.iter().zip(figures) {
            let (figure, value) = (figure.unwrap(), &values[&metric.name]);
            for (ours, name) in [(figure.value, "value"), (figure.lower, "lower"), (figure.upper, "upper")] {
                let theirs = value[name].as_f64().unwrap();
                // A digest depends in its last bits on the order of merges.
                assert!((ours - theirs).abs() <= theirs.abs() * 1e-2, "{} {name}: {ours} {theirs}", metric.name);
                let is_quantile = matches!(metric.stat, Stat::Quantile(..));
                assert!(is_quantile || ours == theirs, "{} {name}: {ours} {theirs}", metric.name);
            }
        }
    };
    let groups = server.ask("a", &format!("{asked}{range}&group_by=page&limit=3")).await;
    assert_eq!(groups["results"].as_array().unwrap().len(), 4);
    for row in groups["results"].as_array().unwrap() {
        let of_group = |row_told: &&MergedRow| row_told.group[0] == row["group"].as_str().unwrap().into();
        near(say(&mut told.rows.iter().filter(of_group).map(|row| &row.cell)), &row["values"]);
    }
    let all = server.ask("a", &format!("{asked}{range}")).await;
    near(say(&mut told.rows.iter().map(|row| &row.cell)), &all["results"][0]["values"]);

    for (query, parameter) in [
        ("metric=page_views&last=1d", "metric"),
        ("metric=error_rate&last=1d", "metric"),
        ("metric=events&last=3d&granularity=1d&window=2d", "window"),
        ("metric=events&last=3d&compare=previous", "compare"),
    ] {
        let (head, body) = ask(query).await;
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&head[9..12], &problem["parameter"]), ("400", &json!(parameter)), "{query}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_questions_are_answered_together() {
    let folder = Folder::new();
    write_files(folder.path());
    let config = write_config(folder.path(), "data", "");
    let server = Running::start(config.clone()).await;
    let relay = Client::new(server.link.to_string(), tls(folder.path()).client().unwrap()).unwrap();
    let minute = jiff::Timestamp::now().as_second() / 60;
    let mut block = CellsBlock::default();
    for n in 0..6 {
        let page = ["/", "/a"][n as usize % 2];
        event_of(&mut block, &client("a"), minute, &[("event_type", "page_view"), ("page", page)], n, 1);
    }
    relay.send(vec![Shard::new(1).cut(block)]).await;

    // What every client has.
    let key = read_key("a");
    let get = async |server: &Running, path: &str| {
        let (status, _, body) = server.get(path, Some(&key)).await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, realtime) = get(&server, "/api/v1/realtime").await;
    assert_eq!(
        (status, &realtime["answers"]["active_users"]["results"][0]["values"]["active_users"]["value"]),
        (200, &json!(6))
    );
    let pages = realtime["answers"]["pages"]["results"].as_array().unwrap();
    assert_eq!((pages.len(), &pages[0]["group"], &pages[0]["values"]["events"]["value"]), (2, &json!("/"), &json!(3)));
    assert_eq!(
        get(&server, "/api/v1/dashboard?dashboard_id=realtime").await.1["answers"]["pages"],
        realtime["answers"]["pages"]
    );
    let (status, homepage) = get(&server, "/api/v1/dashboard?dashboard_id=homepage").await;
    assert_eq!(
        (status, &homepage["answers"]["today"]["results"][0]["values"]["page_views"]["value"]),
        (200, &json!(6))
    );

    // One of the client's own, which only an operator stores. A question that no cube covers is refused by itself.
    let operator = OperatorKey { generation: 1 }.mint(&secret());
    let own = json!({ "questions": {
        "views": { "metric": "page_views", "last": "1d" },
        "colours": { "metric": "events", "last": "1d", "group_by": "colour" },
    }});
    let store = async |server: &Running, method: &str, id: &str, key: &str, body: &str| {
        let headers = format!("Authorization: Bearer {key}\r\nContent-Length: {}\r\n", body.len());
        let request = format!("{method} /api/v1/clients/a/dashboards/{id}");
        let (head, body) = server.send(&request, &headers, body).await;
        (head[9..12].parse::<u16>().unwrap(), String::from_utf8(body).unwrap())
    };
    assert_eq!(store(&server, "PUT", "mine", &key, &own.to_string()).await.0, 401);
    assert_eq!(store(&server, "PUT", "mine", &operator, &own.to_string()).await.0, 200);
    assert_eq!(store(&server, "PUT", "homepage", &operator, &own.to_string()).await.0, 200);
    for (id, body, named) in [
        ("mine", "{\"questions\":{\"a\":{\"metric\":\"nonsense\",\"last\":\"1d\"}}}", "of the question a"),
        ("m%20ne", &*own.to_string(), "characters of"),
    ] {
        let (status, said) = store(&server, "PUT", id, &operator, body).await;
        assert!(status == 400 && said.contains(named), "{status} {said}");
    }
    server.stop().await;

    let server = Running::start(config).await;
    for id in ["mine", "homepage"] {
        let (status, answered) = get(&server, &format!("/api/v1/dashboard?dashboard_id={id}")).await;
        let answers = &answered["answers"];
        assert_eq!(
            (status, &answers["views"]["results"][0]["values"]["page_views"]["value"]),
            (200, &json!(6)),
            "{answered}"
        );
        assert_eq!(answers["colours"]["problem"]["status"], 422, "{answered}");
    }
    let (_, listed) = get(&server, "/api/v1/dashboards").await;
    assert_eq!(listed["dashboards"], json!(["homepage", "mine", "realtime"]));
    let (status, _, _) = server.get("/api/v1/dashboard?dashboard_id=mine", Some(&read_key("b"))).await;
    assert_eq!(status, 404);
    assert_eq!(store(&server, "DELETE", "homepage", &operator, "").await.0, 204);
    assert!(get(&server, "/api/v1/dashboard?dashboard_id=homepage").await.1["answers"]["today"].is_object());
    for (path, status) in [
        ("/api/v1/dashboard", 400),
        ("/api/v1/dashboard?dashboard_id=a&dashboard_id=b", 400),
        ("/api/v1/dashboard?colour=red", 400),
        ("/api/v1/dashboard?dashboard_id=none", 404),
    ] {
        assert_eq!(get(&server, path).await.0, status, "{path}");
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
