//! SIGTERM: what is in work is answered; what hangs is killed after a grace, and nothing acknowledged is lost.

#![cfg(test)]

use std::time::Duration;

use catchment_cells::ClientId;
use catchment_cells::ack::{Ack, Status};
use catchment_harness::{Cluster, Hand, Question};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR_MS: i64 = 3_600_000;
/// How long a workerd may drain here before it is killed; deploy's unit gives it longer.
const GRACE: Duration = Duration::from_secs(3);

/// The hour before this one, and the two after its start.
fn around_now() -> (i64, i64) {
    let hour = Timestamp::now().as_millisecond().div_euclid(HOUR_MS) * HOUR_MS;
    (hour - HOUR_MS, hour + 2 * HOUR_MS)
}

/// A POST of one event, as bytes.
fn post(key: &str, id: &str) -> Vec<u8> {
    let event = json!({"event_id": id, "event_type": "page_view", "user_id": "u", "timestamp": Timestamp::now().to_string(), "page": "/"});
    let body = event.to_string();
    format!("POST /v1/events?k={key} HTTP/1.1\r\nHost: edge\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Reads until a head has come, and answers it.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4_096];
    let n = timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_asked_to_stop_answers_what_is_in_work_and_one_that_hangs_is_killed() {
    let mut cluster = Cluster::builder().start().await.unwrap();
    let client = ClientId::new("shop").unwrap();
    let key = cluster.live_key(&client);
    let address = cluster.edge_url().trim_start_matches("http://").to_owned();
    let connect = async || TcpStream::connect(&address).await.unwrap();

    // Half of each request has come when it is asked to stop; the other half comes after.
    let mut senders = Vec::new();
    for i in 0..8 {
        let bytes = post(&key, &format!("slow-{i}"));
        let (first, second) = bytes.split_at(bytes.len() - 20);
        let mut stream = connect().await;
        stream.write_all(first).await.unwrap();
        senders.push((stream, second.to_vec()));
    }
    let mut idle = connect().await;
    idle.write_all(&post(&key, "idle")).await.unwrap();
    assert!(answer(&mut idle).await.contains(" 202 "));
    sleep(Duration::from_millis(500)).await;
    let rest = tokio::spawn(async move {
        sleep(Duration::from_millis(500)).await;
        for (stream, second) in &mut senders {
            stream.write_all(second).await.unwrap();
        }
        for (stream, _) in &mut senders {
            let answer = answer(stream).await;
            assert!(answer.contains(" 202 "), "{answer}");
        }
    });
    let status = cluster.edge.terminate(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}");
    rest.await.unwrap();
    cluster.edge.start().await.unwrap();

    // Who never ends a head would hold it for ever.
    let mut hung = connect().await;
    hung.write_all(b"POST /v1/ev").await.unwrap();
    let mut stream = connect().await;
    stream.write_all(&post(&key, "last")).await.unwrap();
    assert!(answer(&mut stream).await.contains(" 202 "));
    assert!(cluster.edge.terminate(GRACE).await.is_err(), "workerd ends by itself now: no supervisor is needed");
    cluster.edge.kill();
    cluster.edge.start().await.unwrap();
    cluster.api(&client).reaches("events", around_now(), 10, PATIENCE).await.unwrap();
}

/// A POST of one frame to a relay, as bytes.
fn ship(cluster: &Cluster, frame: &[u8]) -> Vec<u8> {
    let (token, length) = (cluster.relay_token(), frame.len() + 4);
    let head = format!(
        "POST /v1/frames HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &(frame.len() as u32).to_le_bytes(), frame].concat()
}

/// Reads the answer of one ack.
async fn ack(stream: &mut TcpStream) -> Ack {
    let mut bytes = vec![0; 4_096];
    let n = timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
    let head = bytes[..n].windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&bytes[..n]));
    Ack::decode(&bytes[head + 8..n]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_and_an_aggregator_that_are_asked_to_stop_answer_what_is_in_work() {
    const PAGES: usize = 5_000;
    const FRAMES: usize = 30;
    let mut cluster = Cluster::builder().start().await.unwrap();
    let client = ClientId::new("shop").unwrap();
    let mut hand = Hand::new(1, &client).unwrap();
    let relay = cluster.regions[0].relay_url.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&relay).await.unwrap();
    for n in 0..FRAMES - 1 {
        let pages: Vec<String> = (0..PAGES).map(|page| format!("/{n}/{page}")).collect();
        let frame = hand.next(cluster.secret(), PAGES as u64, &pages).unwrap();
        stream.write_all(&ship(&cluster, &frame)).await.unwrap();
        assert_eq!(ack(&mut stream).await.status, Status::Stored);
    }

    // Half of a POST has come when the relay is asked to stop.
    let last = hand.next(cluster.secret(), PAGES as u64, &["/last".into()]).unwrap();
    let post = ship(&cluster, &last);
    let (first, second) = post.split_at(post.len() / 2);
    stream.write_all(first).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let stopping = cluster.regions[0].relay.terminate(PATIENCE);
    let rest = async {
        sleep(Duration::from_millis(500)).await;
        assert!(TcpStream::connect(&relay).await.is_err(), "whoever stops accepts no more");
        stream.write_all(second).await.unwrap();
        assert_eq!(ack(&mut stream).await.status, Status::Stored);
    };
    let (status, ()) = tokio::join!(stopping, rest);
    assert!(status.unwrap().success());

    // A question that takes a while is being answered when the aggregator is asked to stop.
    let api = cluster.api(&client);
    // Over a connection that is there: the question is read as soon as it comes.
    api.count("events", around_now()).await.unwrap();
    let pages = Question::of(&["events"], around_now().0, around_now().1, "all").with("group_by", "page");
    let asking = tokio::spawn(async move { api.raw(&pages.with("limit", 1_000)).await });
    sleep(Duration::from_millis(100)).await;
    assert!(!asking.is_finished(), "the question doesn't take long enough to be in work");
    let status = cluster.regions[0].aggregator.terminate(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}");
    let (status, body) = asking.await.unwrap().unwrap();
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    // The events of the other pages are one more row.
    assert_eq!(answer["results"].as_array().unwrap().len(), 1_001);

    cluster.regions[0].relay.start().await.unwrap();
    cluster.regions[0].aggregator.start().await.unwrap();
    cluster.api(&client).reaches("events", around_now(), (FRAMES * PAGES) as u64, PATIENCE).await.unwrap();
}
