//! The relay between real HTTP and a real link.
#![expect(clippy::unwrap_used, reason = "these are tests, helpers and all")]

#[path = "../../../link/tests/pki/mod.rs"]
mod pki;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use catchment_cells::Secret;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::config::Question;
use catchment_cells::frame::{
    self, Address, CHAIN_START, CellsBlock, CountersBlock, DeadLettersBlock, FrameDraft, FrameError, Producer,
};
use catchment_cells::limits::{CONFIG_QUESTION_BYTES_MAX, FRAME_BYTES_MAX, POST_BYTES_MAX};
use catchment_link::framing::{put, take};
use catchment_link::{Arrival, serve};
use catchment_relay::config::Token;
use catchment_relay::{Config, IN_FLIGHT_BYTES_MAX, run};
use reqwest::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use pki::Authority;

const TOKEN: &str = "let-me-in";

/// A relay with two homes: `eu` is served, `us` is not.
struct Relay {
    http: SocketAddr,
    eu: mpsc::Receiver<Arrival>,
    stop: oneshot::Sender<()>,
    done: JoinHandle<std::io::Result<()>>,
    _authority: Authority,
}

impl Relay {
    async fn start() -> Relay {
        let authority = Authority::new();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let eu_address = socket.local_addr().unwrap().to_string();
        let (arrivals, eu) = mpsc::channel(1024);
        let tls = authority.issue("aggregator").server().unwrap();
        // Whatever is asked, it is answered with.
        let echo = |question: &[u8]| Some(question.to_vec());
        tokio::spawn(serve(socket, tls, arrivals, Arc::new(echo), std::future::pending()));

        // Bound and silent: nobody else answers there.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let homes = BTreeMap::from([
            ("eu".to_owned(), eu_address),
            ("us".to_owned(), silent.local_addr().unwrap().to_string()),
        ]);
        let config = Config {
            listen: "127.0.0.1:0".into(),
            token: Token::new(TOKEN).unwrap(),
            tls: authority.issue("relay").client().unwrap(),
            homes,
        };
        let listener = TcpListener::bind(&config.listen).await.unwrap();
        let http = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let done = tokio::spawn(async move {
            let _silent = silent;
            run(listener, config, async move { drop(stopped.await) }).await
        });
        Relay { http, eu, stop, done, _authority: authority }
    }

    /// Answers every frame of eu that can be read with `Stored` from now on.
    fn store_all(self) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<std::io::Result<()>>, Authority) {
        let mut eu = self.eu;
        tokio::spawn(async move {
            while let Some(arrival) = eu.recv().await {
                store(arrival);
            }
        });
        (self.http, self.stop, self.done, self._authority)
    }
}

fn store(arrival: Arrival) -> u64 {
    let Address { producer, seq, .. } = frame::address(&arrival.frame).unwrap();
    let status = match frame::peek(&arrival.frame) {
        Ok(_) => Status::Stored,
        Err(FrameError::Version(_)) => Status::Version,
        Err(_) => Status::Malformed,
    };
    let ack = Ack { mark: seq, ..Ack::refusal(status, producer, seq, "") };
    arrival.reply.send(ack.encode().into()).unwrap();
    seq
}

fn producer() -> Producer {
    Producer::new(1, "eu/pool/0").unwrap()
}

fn frame_to(home: &str, seq: u64) -> Vec<u8> {
    let draft = FrameDraft {
        producer: producer(),
        home: home.into(),
        seq,
        prev: CHAIN_START,
        cut_at: 0,
        first_received_at: 0,
        cells: CellsBlock::default(),
        counters: CountersBlock::default(),
        letters: DeadLettersBlock::default(),
    };
    frame::seal(&draft, &Secret::new(&[7; 32]).unwrap().frame_key(&draft.producer)).unwrap().bytes
}

fn body(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    frames.iter().for_each(|frame| put(&mut body, frame));
    body
}

async fn post(http: SocketAddr, body: Vec<u8>) -> Response {
    reqwest::Client::new().post(format!("http://{http}/v1/frames")).bearer_auth(TOKEN).body(body).send().await.unwrap()
}

async fn get(http: SocketAddr, path: &str) -> (StatusCode, String) {
    let response = reqwest::get(format!("http://{http}{path}")).await.unwrap();
    (response.status(), response.text().await.unwrap())
}

async fn acks(response: Response) -> Vec<Ack> {
    assert_eq!(response.status(), StatusCode::OK);
    let mut rest = BytesMut::from(response.bytes().await.unwrap());
    let mut acks = Vec::new();
    while let Some(ack) = take(&mut rest, 1024).unwrap() {
        acks.push(Ack::decode(&ack).unwrap());
    }
    assert!(rest.is_empty());
    acks
}

fn said(acks: &[Ack]) -> Vec<(u64, Status)> {
    acks.iter().map(|ack| (ack.seq, ack.status)).collect()
}

#[tokio::test]
async fn frames_reach_their_home_in_order() {
    let mut relay = Relay::start().await;
    let http = relay.http;
    let posting = tokio::spawn(post(http, body(&(1..=300).map(|seq| frame_to("eu", seq)).collect::<Vec<_>>())));
    for seq in 1..=300 {
        assert_eq!(store(relay.eu.recv().await.unwrap()), seq);
    }
    let acks = acks(posting.await.unwrap()).await;
    assert_eq!(said(&acks), (1..=300).map(|seq| (seq, Status::Stored)).collect::<Vec<_>>());
    assert!(acks.iter().all(|ack| ack.producer == producer() && ack.mark == ack.seq));
    assert!(self::acks(post(http, vec![]).await).await.is_empty());
}

#[tokio::test]
async fn each_frame_has_its_own_answer() {
    let (http, _stop, _, _authority) = Relay::start().await.store_all();
    let mut of_next_version = frame_to("eu", 3);
    of_next_version[2] = 2;
    // The header's length no longer fits its blocks.
    let mut malformed = frame_to("eu", 4);
    malformed[4] -= 1;
    let frames =
        [frame_to("eu", 1), frame_to("mars", 2), of_next_version, malformed, frame_to("us", 5), frame_to("eu", 6)];
    let acks = acks(post(http, body(&frames)).await).await;
    assert_eq!(
        said(&acks),
        [
            (1, Status::Stored),
            (2, Status::Unreachable),
            (3, Status::Version),
            (4, Status::Malformed),
            (5, Status::Unreachable),
            (6, Status::Stored),
        ]
    );
    assert!(acks.iter().all(|ack| ack.producer == producer()));
    assert_eq!(acks[4].retry_after_ms, 1000);
    assert!(acks[1].detail.contains("mars"));

    let (_, metrics) = get(http, "/metrics").await;
    for line in [
        "catchment_relay_frames_total{home=\"eu\",status=\"stored\"} 2",
        "catchment_relay_frames_total{home=\"us\",status=\"unreachable\"} 1",
        "catchment_relay_frames_total{home=\"(none)\",status=\"unreachable\"} 1",
        "catchment_relay_posts_total{status=\"200\"} 1",
        "catchment_relay_post_duration_seconds_bucket{le=\"20\"} 1",
        "catchment_relay_in_flight_bytes 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("mars"));
}

#[tokio::test]
async fn a_body_that_is_none_is_refused() {
    let (http, _stop, _, _authority) = Relay::start().await.store_all();
    let good = frame_to("eu", 1);
    let mut cut = body(std::slice::from_ref(&good));
    cut.pop();
    let long = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes().to_vec();
    for (bad, part) in [
        (cut, "the bytes end within a piece"),
        (vec![0], "the bytes end within a piece"),
        (long, "broken framing"),
        (body(&[good.clone(), vec![]]), "frame 1 of"),
        (body(&[good, vec![7; 100]]), "frame 1 of"),
    ] {
        let response = post(http, bad).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let sentence = response.text().await.unwrap();
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[tokio::test]
async fn only_the_token_lets_in() {
    let (http, _stop, _, _authority) = Relay::start().await.store_all();
    let url = format!("http://{http}/v1/frames");
    let client = reqwest::Client::new();
    for request in [client.post(&url), client.post(&url).bearer_auth("let-me-ix"), client.post(&url).bearer_auth("")] {
        let response = request.body(body(&[frame_to("eu", 1)])).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn the_largest_body_is_taken_and_no_larger() {
    let (http, _stop, _, _authority) = Relay::start().await.store_all();
    let mut frames = Vec::new();
    let mut bytes = 0;
    for seq in 1.. {
        let mut frame = frame_to("eu", seq);
        frame.resize(FRAME_BYTES_MAX.min(POST_BYTES_MAX - bytes - 4), 0);
        bytes += frame.len() + 4;
        frames.push(frame);
        if bytes + 200 > POST_BYTES_MAX {
            break;
        }
    }
    assert_eq!(acks(post(http, body(&frames)).await).await.len(), frames.len());

    // With a length, and without one.
    let large = vec![0; POST_BYTES_MAX + 1];
    let declared = reqwest::Client::new().post(format!("http://{http}/v1/frames")).bearer_auth(TOKEN).body(large);
    assert!(matches!(declared.send().await, Ok(response) if response.status() == StatusCode::PAYLOAD_TOO_LARGE));
    let mut stream = TcpStream::connect(http).await.unwrap();
    let head = format!(
        "POST /v1/frames HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(format!("{:x}\r\n", POST_BYTES_MAX + 1).as_bytes()).await.unwrap();
    let _ = stream.write_all(&vec![0; POST_BYTES_MAX + 1]).await;
    let mut status = [0; 12];
    timeout(Duration::from_secs(5), stream.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test]
async fn more_than_the_bound_in_work_is_put_off() {
    let (http, _stop, _, _authority) = Relay::start().await.store_all();
    let mut held = Vec::new();
    for _ in 0..IN_FLIGHT_BYTES_MAX / POST_BYTES_MAX {
        let mut stream = TcpStream::connect(http).await.unwrap();
        let head = format!(
            "POST /v1/frames HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {POST_BYTES_MAX}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let full = format!("catchment_relay_in_flight_bytes {IN_FLIGHT_BYTES_MAX}");
    until(|| async { get(http, "/metrics").await.1.contains(&full) }).await;
    let response = post(http, body(&[frame_to("eu", 1)])).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    drop(held);
    until(|| async { post(http, body(&[frame_to("eu", 1)])).await.status() == StatusCode::OK }).await;
}

#[tokio::test]
async fn a_question_goes_to_its_home_and_its_answer_back() {
    let relay = Relay::start().await;
    let url = format!("http://{}/v1/config", relay.http);
    let ask = |token: &'static str, question: Vec<u8>| {
        reqwest::Client::new().post(&url).bearer_auth(token).body(question).send()
    };
    let question = |home: &str| Question { nonce: 1, home: home.into(), clients: Vec::new() }.encode();
    let answer = ask(TOKEN, question("eu")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.bytes().await.unwrap(), question("eu"), "the home echoes it");
    for (token, question, status) in [
        ("wrong", question("eu"), StatusCode::UNAUTHORIZED),
        (TOKEN, question("us"), StatusCode::SERVICE_UNAVAILABLE),
        (TOKEN, question("mars"), StatusCode::SERVICE_UNAVAILABLE),
        (TOKEN, b"what?".to_vec(), StatusCode::BAD_REQUEST),
        (TOKEN, vec![0; CONFIG_QUESTION_BYTES_MAX + 1], StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(ask(token, question).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn a_relay_that_stops_answers_what_is_in_work() {
    let mut relay = Relay::start().await;
    let http = relay.http;
    assert_eq!(get(http, "/healthz").await.0, StatusCode::OK);
    assert_eq!(get(http, "/readyz").await.0, StatusCode::OK);
    let posting = tokio::spawn(post(http, body(&[frame_to("eu", 1)])));
    let arrival = relay.eu.recv().await.unwrap();
    relay.stop.send(()).unwrap();
    sleep(Duration::from_millis(100)).await;
    assert!(!relay.done.is_finished());
    store(arrival);
    assert_eq!(said(&acks(posting.await.unwrap()).await), [(1, Status::Stored)]);
    timeout(Duration::from_secs(5), relay.done).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(http).await.is_err());
}

async fn until<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.unwrap();
}
