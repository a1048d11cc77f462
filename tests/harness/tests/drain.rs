//! SIGTERM: what is in work is answered; what hangs is killed after a grace, and nothing acknowledged is lost.

#![cfg(test)]

use std::time::Duration;

use catchment_cells::ClientId;
use catchment_cells::credential::{Identity, WriteKey};
use catchment_harness::Cluster;
use jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR_MS: i64 = 3_600_000;
/// How long a workerd may drain here before it is killed; deploy's unit gives it longer.
const GRACE: Duration = Duration::from_secs(3);

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
    let key = WriteKey {
        client: client.clone(),
        identity: Identity::User,
        backfill: false,
        ignore_foreign_client: false,
        generation: 1,
    };
    let key = cluster.write_key(&key);
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
    let hour = Timestamp::now().as_millisecond().div_euclid(HOUR_MS) * HOUR_MS;
    cluster.api(&client).reaches("events", (hour - HOUR_MS, hour + 2 * HOUR_MS), 10, PATIENCE).await.unwrap();
}
