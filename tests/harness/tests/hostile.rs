//! What hostile senders get: an end, and no more than their share; nobody else waits for them.
//!
//! Bounds on memory are what was seen, with room for another allocator and another machine.

#![cfg(test)]

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use catchment_cells::ClientId;
use catchment_harness::{Cluster, Process, Question};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);
/// How soon an honest sender's events are taken, whatever others do.
const TAKEN: Duration = Duration::from_secs(2);
const HOUR_MS: i64 = 3_600_000;
const MIB: u64 = 1 << 20;

/// The hour before this one, and the two after its start.
fn around_now() -> (i64, i64) {
    let hour = Timestamp::now().as_millisecond().div_euclid(HOUR_MS) * HOUR_MS;
    (hour - HOUR_MS, hour + 2 * HOUR_MS)
}

fn events_url(cluster: &Cluster, client: &ClientId) -> String {
    format!("{}/v1/events?k={}", cluster.edge_url(), cluster.live_key(client))
}

fn event(id: &str, page: &str) -> Value {
    json!({"event_id": id, "event_type": "page_view", "user_id": "u", "timestamp": Timestamp::now().to_string(), "page": page})
}

/// Quotas are another matter: here every request is to be worked on.
async fn cluster() -> Cluster {
    Cluster::builder().shard_requests_per_s(1_000_000).start().await.unwrap()
}

fn address(url: &str) -> String {
    url.trim_start_matches("http://").split('/').next().unwrap_or_default().to_owned()
}

/// Edge, relay, aggregator: what each is called, and where it takes requests.
fn addresses(cluster: &Cluster) -> [(&'static str, String); 3] {
    let region = &cluster.regions[0];
    [
        ("edge", address(cluster.edge_url())),
        ("relay", address(&region.relay_url)),
        ("aggregator", address(&region.aggregator_url)),
    ]
}

fn processes(cluster: &Cluster) -> [(&'static str, &Process); 3] {
    let region = &cluster.regions[0];
    [("edge", &cluster.edge), ("relay", &region.relay), ("aggregator", &region.aggregator)]
}

/// Resident bytes of edge, relay, aggregator.
fn resident(cluster: &Cluster) -> [u64; 3] {
    processes(cluster).map(|(name, process)| {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid().unwrap()));
        let status = status.unwrap_or_else(|error| panic!("the {name} is gone: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    })
}

fn mib(bytes: [u64; 3]) -> [u64; 3] {
    bytes.map(|bytes| bytes / MIB)
}

/// Asserts how much edge, relay and aggregator grew at most, in MiB.
fn assert_growth(what: &str, before: [u64; 3], after: [u64; 3], mib_max: u64) {
    println!("{what}: MiB resident of edge, relay, aggregator from {:?} to {:?}", mib(before), mib(after));
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + mib_max * MIB, "{what}: from {} to {} MiB", before / MIB, after / MIB);
    }
}

/// Sends one event after another, by connections of their own; each has to be taken in time, and all to be seen.
async fn honest(cluster: &Cluster, name: &str, events: u64, pause: Duration) {
    let client = ClientId::new(name).unwrap();
    let url = events_url(cluster, &client);
    let mut slowest = Duration::ZERO;
    for i in 0..events {
        let start = Instant::now();
        let answer = reqwest::Client::new().post(&url).body(event(&format!("e{i}"), "/").to_string());
        let answer = answer.timeout(TAKEN).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 202);
        slowest = slowest.max(start.elapsed());
        sleep(pause).await;
    }
    cluster.api(&client).reaches("events", around_now(), events, PATIENCE).await.unwrap();
    println!("{name}: slowest of {events} took {slowest:?}");
}

/// The status of an answer that comes before the connection ends; `None` if it just ends.
async fn status(connection: &mut TcpStream) -> Option<u16> {
    let mut bytes = [0; 1_000];
    let n = timeout(PATIENCE, connection.read(&mut bytes)).await.expect("neither answered nor cut").unwrap_or(0);
    String::from_utf8_lossy(&bytes[..n]).split(' ').nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_senders_hold_up_nobody() {
    const SENDERS: usize = 50;
    const DRIPS: usize = 40;
    let cluster = cluster().await;
    let path = events_url(&cluster, &ClientId::new("slow").unwrap());
    let path = path.trim_start_matches(cluster.edge_url()).to_owned();
    let mut slow = JoinSet::new();
    for (name, address) in addresses(&cluster) {
        let head = match name {
            "edge" => format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n"),
            "relay" => format!(
                "POST /v1/frames HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 1000\r\n\r\n",
                cluster.relay_token()
            ),
            _ => "GET /api/v1/metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n".to_owned(),
        };
        for i in 0..2 * SENDERS {
            let (address, head) = (address.clone(), head.clone());
            slow.spawn(async move {
                let mut connection = TcpStream::connect(address).await.unwrap();
                let start = if i < SENDERS { head.as_str() } else { "POST /v1/events HTTP/1.1\r\nho" };
                connection.write_all(start.as_bytes()).await.unwrap();
                for _ in 0..DRIPS {
                    sleep(Duration::from_millis(200)).await;
                    if connection.write_all(b"x").await.is_err() {
                        break;
                    }
                }
                connection
            });
        }
    }
    let before = resident(&cluster);
    honest(&cluster, "beside-slow", 20, Duration::from_millis(200)).await;
    let mut held = Vec::new();
    while let Some(connection) = slow.join_next().await {
        held.push(connection.unwrap());
    }
    // Whoever is left has had its time: a new one is served all the same.
    honest(&cluster, "after-slow", 5, Duration::ZERO).await;
    assert_growth("slow senders", before, resident(&cluster), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_cut() {
    const BODY_BYTES_MAX: u64 = 256 * MIB;
    let cluster = cluster().await;
    let before = resident(&cluster);
    let edge = events_url(&cluster, &ClientId::new("endless").unwrap());
    let relay = format!("{}/v1/frames", cluster.regions[0].relay_url);
    for (name, url) in [("edge", edge), ("relay", relay)] {
        let (authority, path) = (address(&url), &url[7 + address(&url).len()..]);
        let mut connection = TcpStream::connect(&authority).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
            cluster.relay_token()
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = connection.split();
        let chunk = [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat();
        let sending = async {
            let mut sent = 0;
            while sent < BODY_BYTES_MAX && to.write_all(&chunk).await.is_ok() {
                sent += 0x10000;
            }
            sent
        };
        let answering = async {
            let mut bytes = [0; 1_000];
            let n = timeout(PATIENCE, from.read(&mut bytes)).await.expect("neither answered nor cut").unwrap_or(0);
            String::from_utf8_lossy(&bytes[..n]).into_owned()
        };
        let begin = Instant::now();
        let mut sending = std::pin::pin!(sending);
        let (sent, answer) = tokio::select! {
            answer = answering => (None, answer),
            sent = &mut sending => (Some(sent), String::new()),
        };
        println!("{name}: {sent:?} bytes, {:?}, {:?}", answer.lines().next(), begin.elapsed());
        assert!(sent.is_none_or(|sent| sent < BODY_BYTES_MAX), "the {name} takes it all");
        assert!(answer.is_empty() || answer.contains(" 413 "), "{name}: {answer}");
    }
    assert_growth("bodies without end", before, resident(&cluster), 64);
    honest(&cluster, "after-endless", 5, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_a_size() {
    let cluster = cluster().await;
    let before = resident(&cluster);
    let many: String = (0..10_000).map(|i| format!("x-{i}: {i}\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(1_000_000));
    for (name, address) in addresses(&cluster) {
        for (what, headers) in [("many", &many), ("long", &long)] {
            for _ in 0..20 {
                let mut connection = TcpStream::connect(&address).await.unwrap();
                let head = format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
                // What refuses need not read to the end.
                let _ = timeout(PATIENCE, connection.write_all(head.as_bytes())).await.expect("it isn't read");
                // workerd has a bound of bytes, and none of headers.
                let refused = |status| (400..500).contains(&status) || (name, what, status) == ("edge", "many", 200);
                let status = status(&mut connection).await;
                assert!(status.is_none_or(refused), "{name}, {what}: {status:?}");
            }
        }
    }
    // workerd takes thousands of small headers, and keeps them until its next collection of garbage: docs/RELIABILITY.md.
    assert_growth("large heads", before, resident(&cluster), 256);
    honest(&cluster, "after-heads", 5, Duration::ZERO).await;
}

/// The most descriptors that a process may have open here.
fn descriptors_max() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_crowd_nobody_out() {
    let each = ((descriptors_max() - 500) / 3).min(5_000);
    assert!(each >= 500, "too few descriptors for a flood");
    let cluster = cluster().await;
    let before = resident(&cluster);
    let mut held = Vec::with_capacity(3 * each);
    let begin = Instant::now();
    for (name, address) in addresses(&cluster) {
        for i in 0..each {
            let connection = timeout(PATIENCE, TcpStream::connect(&address)).await;
            held.push(connection.unwrap_or_else(|_| panic!("the {name} takes no connection after {i}")).unwrap());
        }
    }
    println!("{each} connections to each took {:?}", begin.elapsed());
    let metrics = format!("{}/healthz", cluster.regions[0].aggregator_url);
    assert_eq!(reqwest::Client::new().get(metrics).timeout(TAKEN).send().await.unwrap().status().as_u16(), 200);
    honest(&cluster, "beside-idle", 10, Duration::ZERO).await;
    assert_growth("idle connections", before, resident(&cluster), 256);
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_taken_whoever_declares_it_and_a_bomb_is_not() {
    let cluster = cluster().await;
    let client = ClientId::new("zip").unwrap();
    let url = events_url(&cluster, &client);
    let bomb = spawn_blocking(move || zip(&vec![b' '; 256 << 20])).await.unwrap();
    assert!(bomb.len() < 1_000_000, "{}", bomb.len());
    let before = resident(&cluster);
    for (id, declared, body, expected) in [
        ("a", true, zip(event("a", "/").to_string().as_bytes()), 202),
        ("b", false, zip(event("b", "/").to_string().as_bytes()), 202),
        ("bomb", false, bomb.clone(), 413),
        ("declared bomb", true, bomb, 413),
    ] {
        let mut request = reqwest::Client::new().post(&url).body(body).timeout(PATIENCE);
        if declared {
            request = request.header("content-encoding", "gzip");
        }
        assert_eq!(request.send().await.unwrap().status().as_u16(), expected, "{id}");
    }
    assert_growth("bombs", before, resident(&cluster), 64);
    cluster.api(&client).reaches("events", around_now(), 2, PATIENCE).await.unwrap();
}

fn zip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Pages by the hundred thousand, each seen once, and ten that many see.
///
/// `CATCHMENT_PAGES` says how many; a million takes minutes.
#[tokio::test(flavor = "multi_thread")]
async fn countless_pages_do_not_drown_the_top_ten() {
    const TOP: u64 = 10;
    const SENDERS: u64 = 4;
    const RESIDENT_MAX_MIB: u64 = 512;
    let pages = std::env::var("CATCHMENT_PAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000_u64);
    // Flushed as they come, most of the tail is folded.
    let cluster = Cluster::builder().shard_requests_per_s(1_000_000).flush_s(1).start().await.unwrap();
    let client = ClientId::new("bomber").unwrap();
    let url = events_url(&cluster, &client);
    let http = reqwest::Client::new();
    let span = around_now();
    let before = resident(&cluster);
    // Of a thousand events, page t of the top has 30 - 2t: 210 of them, so that the order is known.
    let of_top = |t: u64| 30 - 2 * t;
    let of_tail = 1_000 - (0..TOP).map(of_top).sum::<u64>();
    let requests = pages.div_ceil(of_tail);
    let begin = Instant::now();
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (http, url) = (http.clone(), url.clone());
        senders.spawn(async move {
            for request in (sender..requests).step_by(SENDERS as usize) {
                let now = Timestamp::now().to_string();
                let mut body = String::new();
                let mut add = |id: String, page: String| {
                    body += &format!(
                        "{{\"event_id\":\"{id}\",\"event_type\":\"page_view\",\"user_id\":\"u\",\"timestamp\":\"{now}\",\"page\":\"{page}\"}}\n"
                    );
                };
                for i in 0..of_tail {
                    add(format!("{request}-{i}"), format!("/tail/{request}/{i}"));
                }
                for t in 0..TOP {
                    (0..of_top(t)).for_each(|i| add(format!("{request}-top-{t}-{i}"), format!("/top/{t}")));
                }
                // A shard that is full says so, and is to be asked again.
                for attempt in 0.. {
                    let answer = http.post(&url).body(body.clone()).timeout(PATIENCE).send().await.unwrap();
                    match answer.status().as_u16() {
                        202 => break,
                        429 | 503 if attempt < 30 => sleep(Duration::from_secs(1)).await,
                        other => panic!("{other}: {}", answer.text().await.unwrap()),
                    }
                }
            }
        });
    }
    let mut peak = before;
    while !senders.is_empty() {
        if let Ok(Some(sent)) = timeout(Duration::from_millis(200), senders.join_next()).await {
            sent.unwrap();
        }
        let now = resident(&cluster);
        peak = std::array::from_fn(|i| peak[i].max(now[i]));
    }
    let sent = begin.elapsed();
    let api = cluster.api(&client);
    api.reaches("events", span, requests * 1_000, PATIENCE).await.unwrap();
    let question = Question::of(&["events"], span.0, span.1, "all").with("group_by", "page").with("limit", TOP);
    let seen = begin.elapsed();
    let (answer, asked) = loop {
        let asked = Instant::now();
        let answer = api.ask(&question).await.unwrap();
        if answer.meta["folded"] == json!(["page"]) {
            break (answer, asked.elapsed());
        }
        assert!(begin.elapsed() < seen + PATIENCE, "nothing was folded: {}", answer.meta);
        sleep(Duration::from_millis(200)).await;
    };
    let now = resident(&cluster);
    peak = std::array::from_fn(|i| peak[i].max(now[i]));
    println!(
        "{pages} pages: sent in {sent:?}, seen in {:?}, answered in {asked:?}, MiB resident of edge, relay, aggregator {:?}, peak {:?}",
        seen,
        mib(before),
        mib(peak)
    );
    let found: Vec<(String, u64)> =
        answer.results.iter().map(|row| (row.group.clone().unwrap_or_default(), row.count("events"))).collect();
    let expected: Vec<(String, u64)> = (0..TOP).map(|t| (format!("/top/{t}"), requests * of_top(t))).collect();
    println!("{found:?}");
    assert_eq!(found[..TOP as usize], expected);
    assert_eq!(found.iter().map(|(_, n)| n).sum::<u64>(), requests * 1_000, "the rest is in (other)");
    assert!(peak.iter().all(|bytes| *bytes < RESIDENT_MAX_MIB * MIB), "{:?} MiB", mib(peak));
}
