//! What bad input gets: a reason and a counter, and nothing else is disturbed.

#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use catchment_cells::ack::{Ack, Status};
use catchment_cells::limits::POST_BYTES_MAX;
use catchment_cells::{ClientId, Secret};
use catchment_harness::{Api, Cluster, Exact, Fault, Hand, Sender, Trace, paths};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR_MS: i64 = 3_600_000;

/// The hour before this one, and the two after its start: all that a test sends and counts.
fn around_now() -> (i64, i64) {
    let hour = Timestamp::now().as_millisecond().div_euclid(HOUR_MS) * HOUR_MS;
    (hour - HOUR_MS, hour + 2 * HOUR_MS)
}

fn event(id: &str) -> Value {
    json!({"event_id": id, "event_type": "page_view", "user_id": "u", "timestamp": Timestamp::now().to_string(), "page": "/"})
}

/// An event with one field changed.
fn with(id: &str, field: &str, value: Value) -> String {
    let mut event = event(id);
    event[field] = value;
    event.to_string()
}

fn without(id: &str, field: &str) -> String {
    let mut event = event(id);
    event.as_object_mut().unwrap().remove(field);
    event.to_string()
}

async fn post(url: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
    let answer = reqwest::Client::new().post(url).body(body).timeout(PATIENCE).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_is_rejected_with_its_reason_beside_the_good_ones() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = ClientId::new("shop").unwrap();
    let url = format!("{}/v1/events?k={}", cluster.edge_url(), cluster.live_key(&client));
    let long = "x".repeat(10_000);
    let nested = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = event("deep").to_string().replace("\"page\":\"/\"", &format!("\"properties\":{nested}"));
    let number = |number: &str| {
        event("number").to_string().replace("\"page\":\"/\"", &format!(r#""properties":{{"n":{number}}}"#))
    };
    let cases = [
        ("{\"event_id\":\"cut".to_owned(), "malformed"),
        ("5".into(), "malformed"),
        ("null".into(), "malformed"),
        (deep, "malformed"),
        (number("NaN"), "malformed"),
        (number("1e400"), "malformed"),
        (without("a", "event_id"), "missing_event_id"),
        (with("", "page", json!("/")), "missing_event_id"),
        (with(&long, "page", json!("/")), "event_id_too_long"),
        (with("a", "event_id", json!(7)), "wrong_type"),
        (without("a", "event_type"), "missing_event_type"),
        (with("a", "event_type", json!({"a": 1})), "wrong_type"),
        (with("a", "event_type", json!(long)), "field_too_long"),
        (without("a", "timestamp"), "missing_timestamp"),
        (with("a", "timestamp", json!("yesterday")), "invalid_timestamp"),
        (with("a", "timestamp", json!([])), "wrong_type"),
        (with("a", "timestamp", json!("2019-01-01T00:00:00Z")), "too_late"),
        (with("a", "timestamp", json!("2199-01-01T00:00:00Z")), "future"),
        (with("a", "timestamp", json!(1e300)), "invalid_timestamp"),
        (with("a", "page", json!(long)), "field_too_long"),
        (with("a", "user_id", json!(["u"])), "wrong_type"),
        (with("a", "client_id", json!("another")), "client_mismatch"),
    ];
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for (i, (bad, reason)) in cases.iter().enumerate() {
        let (before, after) = (event(&format!("before-{i}")), event(&format!("after-{i}")));
        let (status, answer) = post(&url, format!("{before}\n{bad}\n{after}\n")).await;
        let shown = &bad[..bad.len().min(100)];
        assert_eq!(status, 202, "{shown}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(2), &json!(0)), "{shown}: {answer}");
        let rejected = answer["rejected"].as_array().unwrap();
        assert_eq!(rejected.len(), 1, "{shown}: {answer}");
        assert_eq!((&rejected[0]["index"], &rejected[0]["reason"]), (&json!(1), &json!(reason)), "{shown}: {answer}");
        let id = rejected[0]["event_id"].as_str();
        let expected =
            serde_json::from_str::<Value>(bad).ok().and_then(|event| event["event_id"].as_str().map(String::from));
        assert!(
            id.unwrap_or_default().len() <= 128 && expected.unwrap_or_default().starts_with(id.unwrap_or_default())
        );
        *reasons.entry(reason).or_default() += 1;
    }
    let api = cluster.api(&client);
    api.reaches("events", around_now(), 2 * cases.len() as u64, PATIENCE).await.unwrap();
    for (reason, n) in reasons {
        api.reaches(&format!("received:{reason}"), around_now(), n, PATIENCE).await.unwrap();
    }
    assert_eq!(cluster.api(&ClientId::new("another").unwrap()).count("events", around_now()).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_refused_as_a_whole() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = ClientId::new("shop").unwrap();
    let key = cluster.live_key(&client);
    let edge = cluster.edge_url();
    let url = format!("{edge}/v1/events?k={key}");
    let good = event("good").to_string();
    let bodies: [(Vec<u8>, u16, &str); 8] = [
        (b"".into(), 400, "malformed"),
        (b"{".into(), 400, "malformed"),
        (b"true".into(), 400, "malformed"),
        (b"[{\"a\":NaN}]".into(), 400, "malformed"),
        ("[".repeat(500_000).into(), 400, "malformed"),
        (b"{\"event_id\":\"\xff\xfe\"}".into(), 400, "not_utf8"),
        (format!("[{}{good}]", format!("{good},").repeat(1_000)).into(), 413, "too_many_events"),
        (vec![b' '; 1_000_001], 413, "too_large"),
    ];
    // What is too long for any shard is refused before it, and counted there.
    let refused = bodies.len() as u64 - 1;
    for (body, status, error) in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = post(&url, body).await;
        let refusal: Value = serde_json::from_str(&answer.1).unwrap();
        assert_eq!((answer.0, refusal["error"].as_str()), (status, Some(error)), "{shown}: {refusal}");
        assert!(refusal["detail"].as_str().is_some_and(|detail| detail.contains(' ')), "{refusal}");
    }
    let forged = format!("{}{}", &key[..key.len() - 1], if key.ends_with('a') { 'b' } else { 'a' });
    let elsewhere = Cluster::builder().start().await.unwrap().live_key(&client);
    for (query, status) in [
        (String::new(), 401),
        ("?k=".into(), 401),
        ("?k=nonsense".into(), 401),
        (format!("?k={forged}"), 401),
        (format!("?k={elsewhere}"), 401),
        (format!("?k={key}&r=nonsense"), 400),
        (format!("?k={key}&r=2.a"), 400),
    ] {
        let answer = post(&format!("{edge}/v1/events{query}"), good.clone()).await;
        assert_eq!(answer.0, status, "{query}: {}", answer.1);
        let refusal: Value = serde_json::from_str(&answer.1).unwrap();
        assert!(refusal["error"].is_string() && refusal["detail"].is_string(), "{refusal}");
        // Who knows of another epoch is told the present one.
        let epoch = (refusal["error"] == "unknown_epoch").then_some(1);
        assert_eq!(refusal["epoch"].as_u64(), epoch, "{refusal}");
    }
    // Nothing of it was counted as an event; how much was refused, and why, is known.
    assert_eq!(post(&url, good).await.0, 202);
    let api = cluster.api(&client);
    api.reaches("events", around_now(), 1, PATIENCE).await.unwrap();
    api.reaches("received:request_refused", around_now(), refused, PATIENCE).await.unwrap();
    let metrics = reqwest::Client::new().get(format!("{edge}/metrics")).bearer_auth(cluster.relay_token());
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    for (reason, n) in [("key", 5), ("route", 1), ("unknown_epoch", 1), ("too_large", 1)] {
        assert!(metrics.contains(&format!("catchment_edge_refused_total{{reason=\"{reason}\"}} {n}\n")), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_of_an_earlier_map_are_taken_until_its_end_and_then_told_since_when_not() {
    let ended = Timestamp::now() - Duration::from_secs(3_600);
    let cluster =
        Cluster::builder().next_map(&ended.to_string()).next_map("2100-01-01T00:00:00Z").start().await.unwrap();
    let client = ClientId::new("shop").unwrap();
    let url = format!("{}/v1/events?k={}", cluster.edge_url(), cluster.live_key(&client));
    let sent = |route: &'static str| {
        let url = format!("{url}&r={route}");
        async move {
            let (status, answer) = post(&url, event(route).to_string()).await;
            (status, serde_json::from_str::<Value>(&answer).unwrap())
        }
    };
    for (route, duplicates) in [("3.a", 0), ("2.a", 0), ("2.a", 1)] {
        let (status, answer) = sent(route).await;
        assert_eq!((status, &answer["duplicates"], &answer["epoch"]), (202, &json!(duplicates), &json!(3)), "{answer}");
    }
    let (status, refusal) = sent("1.a").await;
    assert_eq!((status, &refusal["error"], &refusal["epoch"]), (400, &json!("unknown_epoch"), &json!(3)), "{refusal}");
    let ago = refusal["ended_ms_ago"].as_i64().unwrap();
    assert!((HOUR_MS - 10_000..HOUR_MS + 120_000).contains(&ago), "{refusal}");
    // Of a map that the deployment doesn't list, that isn't known.
    let (status, refusal) = sent("4.a").await;
    assert_eq!(
        (status, &refusal["error"], refusal.get("ended_ms_ago")),
        (400, &json!("unknown_epoch"), None),
        "{refusal}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_come_again_is_told_when() {
    const IN_WORK_OF_CLIENT_MAX: usize = 128;
    const RELAY_BYTES_MAX: usize = 64 << 20;
    let cluster = Cluster::builder().shard_requests_per_s(10).start().await.unwrap();
    let edge = |name: &str| {
        let key = cluster.live_key(&ClientId::new(name).unwrap());
        format!("{}/v1/events?k={key}", cluster.edge_url())
    };
    // Beyond its share; too many of it in work; too much in work.
    assert_eq!(post(&edge("greedy"), vec![b'['; 1_000_000]).await.0, 400);
    let mut held = Vec::new();
    for _ in 0..IN_WORK_OF_CLIENT_MAX {
        held.push(begin(&edge("slow"), "", 10).await);
    }
    for _ in 0..RELAY_BYTES_MAX / POST_BYTES_MAX {
        held.push(begin_frames(&cluster, POST_BYTES_MAX).await);
    }
    let frames = format!("{}/v1/frames", cluster.regions[0].relay_url);
    let good = || event("good").to_string();
    for (url, body, status, says) in [
        (edge("greedy"), good(), 429, "over_quota"),
        (edge("slow"), good(), 503, "busy"),
        (frames, "x".into(), 503, "too much is in work"),
    ] {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let request = reqwest::Client::new().post(&url).bearer_auth(cluster.relay_token()).body(body.clone());
            let answer = request.timeout(PATIENCE).send().await.unwrap();
            if answer.status().as_u16() == status {
                let wait = answer.headers().get("retry-after").and_then(|wait| wait.to_str().ok()?.parse::<u64>().ok());
                assert!(wait.is_some_and(|wait| (1..=60).contains(&wait)), "{says}: {answer:?}");
                let answer = answer.text().await.unwrap();
                assert!(answer.contains(says), "{answer}");
                break;
            }
            // The heads may still be on their way.
            assert!(std::time::Instant::now() < deadline, "{says} is never said: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_costs_its_client_too() {
    // So little that one large body is more than the client's share and what others leave.
    let cluster = Cluster::builder().shard_requests_per_s(10).start().await.unwrap();
    let url = |name: &str| {
        let client = ClientId::new(name).unwrap();
        format!("{}/v1/events?k={}", cluster.edge_url(), cluster.live_key(&client))
    };
    // Of gzip, what it might have been.
    for (client, bad) in [("large", vec![b'['; 1_000_000]), ("gzip", b"\x1f\x8bnonsense".to_vec())] {
        let answers = [post(&url(client), bad.clone()).await, post(&url(client), bad).await];
        assert_eq!(answers.each_ref().map(|(status, _)| *status), [400, 429], "{client}: {answers:?}");
    }
    let good = post(&url("good"), event("good").to_string()).await;
    assert_eq!(good.0, 202, "another client has its share: {}", good.1);
}

/// Posts frames to the relay; `Err` is a refusal of them all.
async fn ship(cluster: &Cluster, frames: &[&[u8]]) -> Result<Vec<Ack>, (u16, String)> {
    let body: Vec<u8> =
        frames.iter().flat_map(|frame| [&(frame.len() as u32).to_le_bytes()[..], frame].concat()).collect();
    ship_raw(cluster, cluster.relay_token(), body).await
}

async fn ship_raw(cluster: &Cluster, token: &str, body: Vec<u8>) -> Result<Vec<Ack>, (u16, String)> {
    let url = format!("{}/v1/frames", cluster.regions[0].relay_url);
    let answer = reqwest::Client::new().post(url).bearer_auth(token).body(body).send().await.unwrap();
    if answer.status() != 200 {
        return Err((answer.status().as_u16(), answer.text().await.unwrap()));
    }
    Ok(Ack::decode_each(&answer.bytes().await.unwrap()).unwrap())
}

/// The head of a POST whose body is still to come.
async fn begin(url: &str, headers: &str, bytes: usize) -> TcpStream {
    let (address, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!("POST /{path} HTTP/1.1\r\nhost: any\r\n{headers}content-length: {bytes}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

/// Begins to post frames to the relay.
async fn begin_frames(cluster: &Cluster, bytes: usize) -> TcpStream {
    let token = format!("authorization: Bearer {}\r\n", cluster.relay_token());
    begin(&format!("{}/v1/frames", cluster.regions[0].relay_url), &token, bytes).await
}

/// What the relay answers to the head of a POST: whoever still sent a body could miss an answer that doesn't wait for it.
async fn announce(cluster: &Cluster, bytes: usize) -> String {
    let mut connection = begin_frames(cluster, bytes).await;
    let mut answer = vec![0; 1_000];
    let n = timeout(PATIENCE, connection.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..n]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_frame_is_refused_with_its_reason_and_harms_no_other() {
    let cluster = Cluster::builder().start().await.unwrap();
    let secret = cluster.secret();
    let client = ClientId::new("shop").unwrap();
    let (mut bad, mut good) = (Hand::new(1, &client).unwrap(), Hand::new(2, &client).unwrap());
    let first = bad.next(secret, 100, &[]).unwrap();
    assert_eq!(ship(&cluster, &[&first]).await.unwrap()[0].status, Status::Stored);

    let flipped = |at: usize| {
        let mut frame = bad.frame(secret, "eu", 2, 7, &[]).unwrap().bytes;
        let at = at.min(frame.len() - 1);
        frame[at] ^= 1;
        frame
    };
    let whole = bad.frame(secret, "eu", 2, 7, &[]).unwrap().bytes;
    let mut stranger = Hand::new(1, &client).unwrap();
    (stranger.chain, stranger.seq) = (bad.chain, 1);
    let wrong_secret = stranger.next(&Secret::new(&[1; 32]).unwrap(), 7, &[]).unwrap();
    let last = usize::MAX;
    let cases = [
        ("a bit of a block", flipped(last), Status::BadMac),
        ("a bit of the seq", flipped(8 + 1 + 8 + 9 + 1 + 2), Status::BadMac),
        ("another deployment's secret", wrong_secret, Status::BadMac),
        ("another version", flipped(2), Status::Version),
        ("cut short", whole[..whole.len() - 1].to_vec(), Status::BadMac),
        ("something after it", [&whole[..], b"x"].concat(), Status::BadMac),
        ("a gap", bad.frame(secret, "eu", 3, 7, &[]).unwrap().bytes, Status::Gap),
        (
            "a known seq with another hash",
            Hand::new(1, &client).unwrap().frame(secret, "eu", 1, 7, &[]).unwrap().bytes,
            Status::Fork,
        ),
        (
            "another frame before it",
            Hand::new(1, &client).unwrap().frame(secret, "eu", 2, 7, &[]).unwrap().bytes,
            Status::Fork,
        ),
        ("another region", bad.frame(secret, "mars", 2, 7, &[]).unwrap().bytes, Status::Unreachable),
    ];
    let mut counted = 100;
    for (what, frame, status) in &cases {
        let fine = good.next(secret, 10, &[]).unwrap();
        let acks = ship(&cluster, &[frame, &fine]).await.unwrap();
        assert_eq!(acks[0].status, *status, "{what}: {:?}", acks[0]);
        assert!(!acks[0].detail.is_empty(), "{what}: a refusal says why");
        assert_eq!((acks[1].status, acks[1].mark), (Status::Stored, good.seq), "beside {what}: {:?}", acks[1]);
        counted += 10;
    }
    // What was expected all along is still taken, and once.
    let second = bad.next(secret, 1, &[]).unwrap();
    for _ in 0..3 {
        assert_eq!(ship(&cluster, &[&first, &second]).await.unwrap()[1].mark, 2);
    }
    cluster.api(&client).reaches("events", around_now(), counted + 1, PATIENCE).await.unwrap();

    // Broken framing, and what is no POST of frames at all.
    let length = |n: u32| n.to_le_bytes().to_vec();
    for (what, token, body, status) in [
        ("no token", "", length(0), 401),
        ("another token", "another", length(0), 401),
        ("a frame that never ends", cluster.relay_token(), [length(100), vec![0; 50]].concat(), 400),
        ("half a length", cluster.relay_token(), vec![0, 0], 400),
        ("a length of 4 GB", cluster.relay_token(), length(u32::MAX), 400),
        ("no frame", cluster.relay_token(), [length(50), vec![0; 50]].concat(), 400),
    ] {
        let refusal = ship_raw(&cluster, token, body).await.unwrap_err();
        assert_eq!(refusal.0, status, "{what}: {}", refusal.1);
        assert!(refusal.1.contains(' '), "{what}: {}", refusal.1);
    }
    assert!(announce(&cluster, (8 << 20) + 1).await.starts_with("HTTP/1.1 413 "));
    assert_eq!(ship(&cluster, &[&good.next(secret, 5, &[]).unwrap()]).await.unwrap()[0].status, Status::Stored);
    cluster.api(&client).reaches("events", around_now(), counted + 6, PATIENCE).await.unwrap();
}

/// Sends a few events to a shard, whatever its frames meet.
async fn send(cluster: &Cluster, api: &Api, suffix: &str, before: u64) -> u64 {
    let key = cluster.trace_key(&ClientId::new("nasa").unwrap(), true);
    let trace = Trace::open(&paths::bundled_trace()).unwrap().every(200).renamed(suffix);
    let sender = Sender::new(cluster.edge_url().into(), key);
    let outcome = sender.replay(&trace).await.unwrap();
    let span = Exact::of(&trace.lines).span().unwrap();
    assert_eq!(outcome.accepted, trace.lines.len() as u64);
    if cluster.regions[0].before_relay.as_ref().unwrap().fault() == Fault::None {
        api.reaches("events", span, before + outcome.accepted, PATIENCE).await.unwrap();
    }
    outcome.accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_changed_on_its_way_is_sent_again_until_it_arrives() {
    let cluster = Cluster::builder().proxies().start().await.unwrap();
    let api = cluster.api(&ClientId::new("nasa").unwrap());
    let proxy = cluster.regions[0].before_relay.as_ref().unwrap();
    let mut counted = send(&cluster, &api, "-calm", 0).await;
    // Each time: it waits, and nothing is missing once it gets through.
    proxy.set(Fault::FlipRequests);
    counted += send(&cluster, &api, "-flipped", counted).await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while cluster.counter("catchment_frames_total").await.unwrap() < 6.0 {
        assert!(std::time::Instant::now() < deadline, "the frame is not sent five times");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    proxy.set(Fault::None);
    counted += send(&cluster, &api, "-after", counted).await;
    assert!(counted > 0);
    let shard = cluster.shard("eu/backfill/nasa").await.unwrap();
    assert_eq!((&shard["parked"], &shard["outbox_frames"]), (&json!(0), &json!(0)), "{shard}");
}
