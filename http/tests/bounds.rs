//! Each bound, against connections made by hand.

#![cfg(test)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::routing::get;
use catchment_http::{Bounds, HEAD_BYTES_MAX, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_millis(300);

/// More than the system keeps for a reader that doesn't read.
const BIG_BYTES: usize = 64 << 20;

async fn start(bounds: Bounds) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let slow = || async {
        sleep(SLOW).await;
        "late"
    };
    let patient = |mut socket: WebSocket| async move {
        sleep(4 * SLOW).await;
        let _ = socket.send("still".into()).await;
    };
    let upgrade = async move |upgrade: WebSocketUpgrade| upgrade.on_upgrade(patient);
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/slow", get(slow))
        .route("/big", get(|| async { vec![b' '; BIG_BYTES] }))
        .route("/live", get(upgrade));
    let served = tokio::spawn(serve(listener, router, bounds, async move { drop(stopped.await) }));
    (address, stop, served)
}

/// What comes within the patience, up to the connection's end or the first bytes.
async fn read(connection: &mut TcpStream) -> String {
    let mut bytes = [0; 1_000];
    let n = timeout(PATIENCE, connection.read(&mut bytes)).await.expect("an answer or an end").unwrap_or(0);
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_its_connection() {
    let head_time = Duration::from_millis(500);
    let (address, _stop, _served) = start(Bounds { head_time, ..Bounds::new(10) }).await;
    for start in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nhost: a\r\nx: "] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(start).await.unwrap();
        let begin = Instant::now();
        let answer = read(&mut connection).await;
        assert!(!answer.contains(" 200 "), "{answer}");
        assert!(begin.elapsed() >= head_time - Duration::from_millis(50), "{:?}", begin.elapsed());
    }
    // The same holds of one that was good once, and idles now.
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(REQUEST).await.unwrap();
    assert!(read(&mut connection).await.contains(" 200 "));
    assert!(!read(&mut connection).await.contains(" 200 "));
}

#[tokio::test]
async fn beyond_the_bound_a_connection_waits_for_another_to_end() {
    let (address, _stop, _served) = start(Bounds::new(2)).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(REQUEST).await.unwrap();
        assert!(read(&mut connection).await.contains("here"));
        open.push(connection);
    }
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(REQUEST).await.unwrap();
    let mut byte = [0];
    timeout(SLOW, waiting.read(&mut byte)).await.expect_err("it was accepted");
    open.pop();
    assert!(read(&mut waiting).await.contains("here"));
}

#[tokio::test]
async fn a_head_has_a_length() {
    let (address, _stop, _served) = start(Bounds::new(2)).await;
    let long = "x".repeat(4 * HEAD_BYTES_MAX);
    let many: String = (0..1_000).map(|i| format!("x-{i}: 1\r\n")).collect();
    for headers in [format!("x: {long}\r\n"), many] {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        let _ = connection.write_all(head.as_bytes()).await;
        let answer = read(&mut connection).await;
        assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_has_an_age_and_an_end() {
    let bounds = Bounds { age: SLOW, end_time: SLOW, ..Bounds::new(2) };
    let (address, _stop, _served) = start(bounds).await;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let mut answers = 0;
    for _ in 0..100 {
        if connection.write_all(REQUEST).await.is_err() || !read(&mut connection).await.contains("here") {
            break;
        }
        answers += 1;
        sleep(SLOW / 10).await;
    }
    assert!((SLOW.as_millis() / 100..100).contains(&answers), "{answers}");
}

#[tokio::test]
async fn who_does_not_read_is_cut_off() {
    let (address, _stop, _served) = start(Bounds { age: SLOW, end_time: SLOW, ..Bounds::new(1) }).await;
    let mut stalled = TcpStream::connect(address).await.unwrap();
    stalled.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // Its place is free again.
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(REQUEST).await.unwrap();
    assert!(read(&mut other).await.contains("here"));
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stalled.read_to_end(&mut rest)).await.expect("it ends");
    assert!((1_000..BIG_BYTES).contains(&rest.len()), "{} bytes", rest.len());
}

#[tokio::test]
async fn who_reads_late_has_it_all() {
    let (address, _stop, _served) =
        start(Bounds { head_time: SLOW, age: SLOW, end_time: PATIENCE, ..Bounds::new(1) }).await;
    let mut late = TcpStream::connect(address).await.unwrap();
    late.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    sleep(2 * SLOW).await;
    let mut all = Vec::new();
    timeout(PATIENCE, late.read_to_end(&mut all)).await.expect("it ends").unwrap();
    assert!(all.len() > BIG_BYTES, "{} bytes", all.len());
}

#[tokio::test]
async fn a_shutdown_lets_the_last_answer_be_read() {
    let (address, stop, _served) = start(Bounds::new(1)).await;
    let mut late = TcpStream::connect(address).await.unwrap();
    late.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    sleep(SLOW).await;
    drop(stop);
    sleep(SLOW).await;
    let mut all = Vec::new();
    timeout(PATIENCE, late.read_to_end(&mut all)).await.expect("it ends").unwrap();
    assert!(all.len() > BIG_BYTES, "{} bytes", all.len());
}

#[tokio::test]
async fn a_websocket_is_its_owners_to_bound() {
    let bounds = Bounds { head_time: SLOW, age: SLOW, end_time: SLOW, ..Bounds::new(1) };
    let (address, _stop, _served) = start(bounds).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = "GET /live HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    assert!(read(&mut socket).await.contains(" 101 "));
    // It takes nobody's place.
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(REQUEST).await.unwrap();
    assert!(read(&mut other).await.contains("here"));
    assert!(read(&mut socket).await.contains("still"));
}

#[tokio::test]
async fn a_shutdown_answers_what_is_in_work_and_ends() {
    let (address, stop, served) = start(Bounds::new(10)).await;
    let (mut busy, mut idle) = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
    idle.write_all(REQUEST).await.unwrap();
    assert!(read(&mut idle).await.contains("here"));
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    sleep(SLOW / 3).await;
    drop(stop);
    assert!(read(&mut busy).await.contains("late"));
    assert!(read(&mut idle).await.is_empty());
    timeout(PATIENCE, served).await.expect("it ends").unwrap();
    TcpStream::connect(address).await.expect_err("nobody listens");
}
