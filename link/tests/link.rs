//! Both ends over real sockets of the loopback.
#![expect(clippy::unwrap_used, reason = "these are tests, helpers and all")]

mod pki;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use catchment_cells::Secret;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::frame::{self, CHAIN_START, CellsBlock, CountersBlock, DeadLettersBlock, FrameDraft, Producer};
use catchment_cells::limits::{CONFIG_QUESTION_BYTES_MAX, FRAME_BYTES_MAX, LINK_WINDOW};
use catchment_link::{Arrival, CONNECTIONS_MAX, Client, LinkError, ServeError, Tls, TlsError, serve};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use pki::Authority;

/// Producers and seqs of frames, in the order of arrival.
type Seen = Vec<(Producer, u64)>;

/// A server, the frames that reach it, and its ending.
struct Server {
    address: SocketAddr,
    arrivals: mpsc::Receiver<Arrival>,
    stop: oneshot::Sender<()>,
    done: JoinHandle<Result<(), ServeError>>,
}

/// Answers every question but one with what it says.
fn echo(question: &[u8]) -> Option<Vec<u8>> {
    (question != b"what?").then(|| question.to_vec())
}

impl Server {
    async fn start(tls: &Tls, address: SocketAddr) -> Server {
        let socket = UdpSocket::bind(address).unwrap();
        let address = socket.local_addr().unwrap();
        let (send, arrivals) = mpsc::channel(4 * LINK_WINDOW);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { drop(stopped.await) };
        let done = tokio::spawn(serve(socket, tls.server().unwrap(), send, Arc::new(echo), shutdown));
        Server { address, arrivals, stop, done }
    }

    /// Answers everything from now on, and gives the frames' producers and seqs in the end.
    fn answer_all(self) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<Seen>) {
        let mut arrivals = self.arrivals;
        let seen = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(arrival) = arrivals.recv().await {
                seen.push(answer(arrival));
            }
            seen
        });
        (self.address, self.stop, seen)
    }
}

fn answer(arrival: Arrival) -> (Producer, u64) {
    let header = frame::peek(&arrival.frame).unwrap();
    let ack = Ack::refusal(Status::Stored, header.producer.clone(), header.seq, "");
    let _ = arrival.reply.send(ack.encode().into());
    (header.producer, header.seq)
}

fn producer(nonce: u64) -> Producer {
    Producer::new(nonce, "eu/pool/0").unwrap()
}

/// A frame with a good header, filled up with bytes that the link has no opinion on.
fn frame_of(nonce: u64, seq: u64, bytes: usize) -> Bytes {
    let draft = FrameDraft {
        producer: producer(nonce),
        home: "eu".into(),
        seq,
        prev: CHAIN_START,
        cut_at: 0,
        first_received_at: 0,
        cells: CellsBlock::default(),
        counters: CountersBlock::default(),
        letters: DeadLettersBlock::default(),
    };
    let key = Secret::new(&[7; 32]).unwrap().frame_key(&draft.producer);
    let mut frame = frame::seal(&draft, &key).unwrap().bytes;
    frame.resize(frame.len().max(bytes), 0xab);
    frame.into()
}

fn frames(nonce: u64, seqs: std::ops::RangeInclusive<u64>) -> Vec<Bytes> {
    seqs.map(|seq| frame_of(nonce, seq, 0)).collect()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn client(address: SocketAddr, tls: &Tls) -> Client {
    Client::new(address.to_string(), tls.client().unwrap()).unwrap()
}

fn seqs(answers: &[Result<Ack, LinkError>]) -> Vec<u64> {
    answers.iter().map(|answer| answer.as_ref().unwrap().seq).collect()
}

/// Sends until there is an ack, and says how long that took.
async fn send_until_acked(client: &Client) -> Duration {
    let start = Instant::now();
    while client.send(frames(9, 1..=1)).await[0].is_err() {
        assert!(start.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

/// A bare QUIC client that may say anything, with or without a certificate.
async fn stranger(address: SocketAddr, ca: &Tls, certificate: Option<&Tls>) -> quinn::Connection {
    try_stranger(address, ca, certificate).await.unwrap()
}

async fn try_stranger(
    address: SocketAddr,
    ca: &Tls,
    certificate: Option<&Tls>,
) -> Result<quinn::Connection, ConnectionError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&ca.ca).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match certificate {
        None => builder.with_no_client_auth(),
        Some(tls) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&tls.cert).unwrap()],
                rustls::pki_types::PrivateKeyDer::from_pem_file(&tls.key).unwrap(),
            )
            .unwrap(),
    };
    tls.alpn_protocols = vec![b"catchment/1".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client(loopback()).unwrap();
    endpoint.connect_with(config, address, "aggregator").unwrap().await
}

#[tokio::test]
async fn frames_are_answered_in_order() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let (address, stop, seen) = server.answer_all();
    let client = client(address, &authority.issue("relay"));
    assert_eq!(client.send(vec![]).await, []);
    assert_eq!(seqs(&client.send(frames(1, 1..=3)).await), [1, 2, 3]);
    let largest = vec![frame_of(1, 4, FRAME_BYTES_MAX), frame_of(1, 5, FRAME_BYTES_MAX)];
    assert_eq!(seqs(&client.send(largest).await), [4, 5]);
    stop.send(()).unwrap();
    let expected: Vec<_> = (1..=5).map(|seq| (producer(1), seq)).collect();
    assert_eq!(seen.await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_the_same_time_keep_their_own_order() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let (address, stop, seen) = server.answer_all();
    let client = client(address, &authority.issue("relay"));
    let callers: Vec<_> = (0..40)
        .map(|nonce| {
            let client = client.clone();
            tokio::spawn(async move {
                for start in [1, 11, 21] {
                    let answers = client.send(frames(nonce, start..=start + 9)).await;
                    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().producer == producer(nonce)));
                    assert_eq!(seqs(&answers), (start..=start + 9).collect::<Vec<_>>());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    stop.send(()).unwrap();
    let seen = seen.await.unwrap();
    for nonce in 0..40 {
        let of_one: Vec<_> = seen.iter().filter(|(one, _)| *one == producer(nonce)).map(|(_, seq)| *seq).collect();
        assert_eq!(of_one, (1..=30).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn no_more_than_the_window_is_unanswered() {
    let authority = Authority::new();
    let mut server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let client = client(server.address, &authority.issue("relay"));
    let sending = tokio::spawn(async move { client.send(frames(1, 1..=600)).await });
    let mut waiting = Vec::new();
    for _ in 0..LINK_WINDOW {
        waiting.push(timeout(Duration::from_secs(5), server.arrivals.recv()).await.unwrap().unwrap());
    }
    assert!(timeout(Duration::from_millis(300), server.arrivals.recv()).await.is_err());
    answer(waiting.remove(0));
    waiting.push(timeout(Duration::from_secs(5), server.arrivals.recv()).await.unwrap().unwrap());
    assert!(timeout(Duration::from_millis(300), server.arrivals.recv()).await.is_err());
    waiting.into_iter().for_each(|arrival| drop(answer(arrival)));
    let (_, _stop, _) = server.answer_all();
    assert_eq!(seqs(&sending.await.unwrap()), (1..=600).collect::<Vec<_>>());
}

#[tokio::test]
async fn answers_may_be_given_out_of_order_and_arrive_in_order() {
    let authority = Authority::new();
    let mut server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let client = client(server.address, &authority.issue("relay"));
    let sending = tokio::spawn(async move { client.send(frames(1, 1..=3)).await });
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(server.arrivals.recv().await.unwrap());
    }
    waiting.into_iter().rev().for_each(|arrival| drop(answer(arrival)));
    assert_eq!(seqs(&sending.await.unwrap()), [1, 2, 3]);
}

#[tokio::test]
async fn a_client_finds_a_server_that_was_stopped_and_started_again() {
    let authority = Authority::new();
    let (server_tls, client_tls) = (authority.issue("aggregator"), authority.issue("relay"));
    let server = Server::start(&server_tls, loopback()).await;
    let (address, stop, seen) = server.answer_all();
    let client = client(address, &client_tls);
    assert!(client.send(frames(1, 1..=1)).await[0].is_ok());
    stop.send(()).unwrap();
    seen.await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let (_, _stop, _) = Server::start(&server_tls, address).await.answer_all();
    assert!(send_until_acked(&client).await < Duration::from_secs(5));
}

#[test]
fn a_client_notices_soon_that_the_server_was_killed_and_started_again() {
    let authority = Authority::new();
    let (server_tls, client_tls) = (authority.issue("aggregator"), authority.issue("relay"));
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (first, second, ours) = (runtime(), runtime(), runtime());
    let (address, _stop, _) = first.block_on(async { Server::start(&server_tls, loopback()).await.answer_all() });
    ours.block_on(async {
        let client = client(address, &client_tls);
        assert!(client.send(frames(1, 1..=1)).await[0].is_ok());
        // As kill -9 does: nothing is said to anyone.
        first.shutdown_background();
        let start = Instant::now();
        let socket = loop {
            match UdpSocket::bind(address) {
                Ok(socket) => break socket,
                Err(_) => assert!(start.elapsed() < Duration::from_secs(5)),
            }
        };
        drop(socket);
        let _server = second.spawn(async move { Server::start(&server_tls, address).await.answer_all() });
        let took = send_until_acked(&client).await;
        assert!(took < Duration::from_secs(4), "{took:?}");
    });
}

#[tokio::test]
async fn frames_of_a_broken_connection_fail_and_may_be_sent_again() {
    let authority = Authority::new();
    let mut server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let client = client(server.address, &authority.issue("relay"));
    let other = client.clone();
    let sending = tokio::spawn(async move { client.send(frames(1, 1..=3)).await });
    let first = server.arrivals.recv().await.unwrap();
    let second = server.arrivals.recv().await.unwrap();
    answer(first);
    sleep(Duration::from_millis(100)).await;
    drop(second.reply);
    let answers = sending.await.unwrap();
    assert_eq!(answers[0].as_ref().unwrap().seq, 1);
    assert_eq!(answers[1..], [Err(LinkError::Broken), Err(LinkError::Broken)]);
    let (_, _stop, _) = server.answer_all();
    assert!(send_until_acked(&other).await < Duration::from_secs(5));
}

#[tokio::test]
async fn an_ack_of_another_frame_is_not_believed() {
    let authority = Authority::new();
    let mut server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let client = client(server.address, &authority.issue("relay"));
    for lie in [Ack::refusal(Status::Stored, producer(1), 2, ""), Ack::refusal(Status::Stored, producer(2), 1, "")] {
        let other = client.clone();
        let sending = tokio::spawn(async move {
            loop {
                let answers = other.send(frames(1, 1..=1)).await;
                if answers != [Err(LinkError::Unreachable)] {
                    return answers;
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        server.arrivals.recv().await.unwrap().reply.send(lie.encode().into()).unwrap();
        assert_eq!(sending.await.unwrap(), [Err(LinkError::Broken)]);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_harms_no_other() {
    let authority = Authority::new();
    let mut server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let client = client(server.address, &authority.issue("relay"));
    let other = client.clone();
    let going = tokio::spawn(async move { other.send(frames(1, 1..=500)).await });
    let first = server.arrivals.recv().await.unwrap();
    going.abort();
    answer(first);
    let (_, _stop, _) = server.answer_all();
    assert_eq!(seqs(&client.send(frames(2, 1..=3)).await), [1, 2, 3]);
}

#[tokio::test]
async fn frames_without_a_readable_header_are_not_sent() {
    let authority = Authority::new();
    let client = client("127.0.0.1:9".parse().unwrap(), &authority.issue("relay"));
    for bad in [Bytes::from_static(b"CF"), frame_of(1, 2, FRAME_BYTES_MAX + 1)] {
        let answers = client.send(vec![frame_of(1, 1, 0), bad]).await;
        assert_eq!(answers, [Err(LinkError::Unreadable), Err(LinkError::Unreadable)]);
    }
}

#[tokio::test]
async fn only_certificates_of_the_authority_are_welcome() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::start(&ours.issue("aggregator"), loopback()).await;
    let (address, _stop, seen) = server.answer_all();
    let (known, unknown) = (ours.issue("relay"), theirs.issue("relay"));

    // It trusts our server, and shows a certificate of another authority: the handshake seems to succeed.
    let foreign = client(address, &Tls { ca: known.ca.clone(), ..unknown.clone() });
    assert_eq!(foreign.send(frames(1, 1..=2)).await, [Err(LinkError::Broken), Err(LinkError::Broken)]);

    let absent = stranger(address, &known, None).await;
    let (mut send, mut receive) = absent.open_bi().await.unwrap();
    let _ = send.write_all(&[0; 8]).await;
    assert!(receive.read_chunk(8, true).await.is_err());

    // Our server is not of their authority.
    let mistrusting = client(address, &unknown);
    assert_eq!(mistrusting.send(frames(1, 1..=1)).await, [Err(LinkError::Unreachable)]);

    // A server of our authority, by another name.
    let (impostor, _stop_impostor, _) = Server::start(&ours.issue("relay2"), loopback()).await.answer_all();
    assert_eq!(client(impostor, &known).send(frames(1, 1..=1)).await, [Err(LinkError::Unreachable)]);

    assert!(client(address, &known).send(frames(1, 1..=1)).await[0].is_ok());
    drop(_stop);
    assert_eq!(seen.await.unwrap(), [(producer(1), 1)]);
}

#[tokio::test]
async fn a_length_over_the_limit_closes_its_own_connection_only() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let (address, _stop, _) = server.answer_all();
    let tls = authority.issue("relay");
    let good = client(address, &tls);
    assert!(good.send(frames(1, 1..=1)).await[0].is_ok());

    let bad = stranger(address, &tls, Some(&tls)).await;
    let (mut send, _receive) = bad.open_bi().await.unwrap();
    send.write_all(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes()).await.unwrap();
    match timeout(Duration::from_secs(5), bad.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, VarInt::from_u32(1)),
        other => panic!("{other}"),
    }
    // The connection of before, not a new one: no send fails.
    assert!(good.send(frames(1, 2..=2)).await[0].is_ok());
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let authority = Authority::new();
    let mut server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let address = server.address;
    // As an aggregator does with a frame whose producer it can't read: no answer.
    let answering = tokio::spawn(async move {
        while let Some(arrival) = server.arrivals.recv().await {
            if frame::peek(&arrival.frame).is_ok() {
                answer(arrival);
            }
        }
    });
    let tls = authority.issue("relay");
    let good = client(address, &tls);
    assert!(good.send(frames(1, 1..=1)).await[0].is_ok());

    let socket = UdpSocket::bind(loopback()).unwrap();
    let mut state = 42u64;
    let mut garbage = |bytes: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        };
        (0..bytes).map(|_| next()).collect()
    };
    for round in 0..40usize {
        socket.send_to(&garbage(1200), address).unwrap();
        let bad = stranger(address, &tls, Some(&tls)).await;
        let (mut send, _receive) = bad.open_bi().await.unwrap();
        // With a length that is allowed it gets further.
        let mut bytes = garbage(200 + round);
        if round % 2 == 0 {
            bytes.splice(..4, 100u32.to_le_bytes());
        }
        let _ = send.write_all(&bytes).await;
        let _ = send.finish();
        timeout(Duration::from_secs(5), bad.closed()).await.unwrap();
    }
    assert!(good.send(frames(1, 2..=2)).await[0].is_ok());
    answering.abort();
}

#[tokio::test]
async fn a_server_refuses_connections_beyond_its_bound() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let (address, _stop, _) = server.answer_all();
    let tls = authority.issue("relay");
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let connection = stranger(address, &tls, Some(&tls)).await;
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(&[0]).await.unwrap();
        held.push((connection, send, receive));
    }
    let refused = try_stranger(address, &tls, Some(&tls)).await;
    assert!(matches!(refused, Err(ConnectionError::ConnectionClosed(_))), "{refused:?}");
    held.pop();
    assert!(send_until_acked(&client(address, &tls)).await < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_that_stops_answers_what_has_arrived() {
    let authority = Authority::new();
    let mut server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let client = client(server.address, &authority.issue("relay"));
    let sending = tokio::spawn(async move { client.send(frames(1, 1..=2)).await });
    let waiting = [server.arrivals.recv().await.unwrap(), server.arrivals.recv().await.unwrap()];
    server.stop.send(()).unwrap();
    sleep(Duration::from_millis(100)).await;
    waiting.into_iter().for_each(|arrival| drop(answer(arrival)));
    assert_eq!(seqs(&sending.await.unwrap()), [1, 2]);
    timeout(Duration::from_secs(5), server.done).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_a_client_that_was_killed() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let client_tls = authority.issue("relay");
    let theirs = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let done = server.done;
    let mut arrivals = server.arrivals;
    let sending = theirs.spawn(async move {
        let client = client(server.address, &client_tls);
        let answers = client.send(frames(1, 1..=1)).await;
        (client, answers)
    });
    answer(arrivals.recv().await.unwrap());
    let (_client, answers) = sending.await.unwrap();
    assert_eq!(seqs(&answers), [1]);
    theirs.shutdown_background();
    server.stop.send(()).unwrap();
    timeout(Duration::from_secs(4), done).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_server_ends_when_nobody_takes_its_frames() {
    let authority = Authority::new();
    let Server { arrivals, done, stop: _stop, .. } = Server::start(&authority.issue("aggregator"), loopback()).await;
    drop(arrivals);
    let ending = timeout(Duration::from_secs(5), done).await.unwrap().unwrap();
    assert!(matches!(ending, Err(ServeError::NobodyTakes)));
}

#[tokio::test]
#[ignore = "takes the 20 s that it is about"]
async fn a_server_that_never_answers_is_given_up() {
    let authority = Authority::new();
    let server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let client = client(server.address, &authority.issue("relay"));
    let start = Instant::now();
    assert!(client.send(frames(1, 1..=1)).await[0].is_err());
    assert!((19..23).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let (_, _stop, _) = server.answer_all();
    assert!(send_until_acked(&client).await < Duration::from_secs(5));
}

#[test]
fn bad_files_are_named() {
    let authority = Authority::new();
    let good = authority.issue("relay");
    let absent = authority.folder.join("absent.pem");
    let sentence = |tls: Tls| match (tls.client().err(), tls.server().err()) {
        (Some(client), Some(server)) => {
            assert_eq!(client.to_string(), server.to_string());
            client
        }
        _ => panic!("taken"),
    };
    let error = sentence(Tls { cert: absent, ..good.clone() });
    assert!(error.to_string().contains("absent.pem"), "{error}");
    let error = sentence(Tls { key: good.cert.clone(), ..good.clone() });
    assert!(error.to_string().contains("relay.pem"), "{error}");
    let other = authority.issue("other");
    let error = sentence(Tls { key: other.key, ..good });
    assert!(matches!(error, TlsError::Unusable { .. }), "{error}");
}

#[tokio::test]
async fn questions_are_answered_beside_frames() {
    let authority = Authority::new();
    let mut server = Server::start(&authority.issue("aggregator"), loopback()).await;
    let client = client(server.address, &authority.issue("relay"));
    // The first thing that is said, and before any frame.
    let long = Bytes::from(vec![7; CONFIG_QUESTION_BYTES_MAX]);
    assert_eq!(client.ask(long.clone()).await, Ok(long.clone()));
    // While a frame has no answer, and more at a time than the server answers at a time.
    let other = client.clone();
    let sending = tokio::spawn(async move { other.send(frames(1, 1..=1)).await });
    let first = server.arrivals.recv().await.unwrap();
    let asking = (0..50u8).map(|n| (client.clone(), Bytes::from(vec![n; 100])));
    let asking = asking.map(|(client, question)| tokio::spawn(async move { client.ask(question).await }));
    let asking: Vec<_> = asking.collect();
    for (n, asked) in asking.into_iter().enumerate() {
        assert_eq!(asked.await.unwrap(), Ok(Bytes::from(vec![n as u8; 100])));
    }
    answer(first);
    assert_eq!(seqs(&sending.await.unwrap()), [1]);
    // What is none, and what is too long, gets no answer, and harms no other.
    let too_long = Bytes::from(vec![7; CONFIG_QUESTION_BYTES_MAX + 1]);
    for bad in [Bytes::from_static(b"what?"), too_long] {
        assert_eq!(client.ask(bad).await, Err(LinkError::Broken));
    }
    assert_eq!(client.ask(long.clone()).await, Ok(long));
}
