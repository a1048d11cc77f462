//! The sending end: a task that owns the connection, and handles that ask it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use catchment_cells::ack::Ack;
use catchment_cells::codec::DecodeError;
use catchment_cells::frame::{self, Producer};
use catchment_cells::limits::{CONFIG_ANSWER_BYTES_MAX, FRAME_BYTES_MAX, LINK_WINDOW};
use quinn::{ConnectError, Connection, ConnectionError, Endpoint, SendStream, WriteError};
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use crate::framing::{PieceError, Pieces, chunks};
use crate::tls::ClientTls;
use crate::{ANSWER_TIME_MAX, QUESTION_TIME_MAX, QUESTIONS_MAX, SERVER_NAME, code};

/// Calls of [`Client::send`] that may wait for the stream; further ones wait to wait.
const BATCHES_WAITING_MAX: usize = 64;
/// Longest wait for one address to answer.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 3;
/// Pause after the first failure; it doubles with each further one, up to the other.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// An ack's fields are bounded: none is longer.
const ACK_BYTES_MAX: usize = 1024;

/// A sender of frames to one address. Clones share the connection, which is made when it is first needed and again
/// after it broke; it is closed when the last clone goes.
#[derive(Debug, Clone)]
pub struct Client {
    batches: mpsc::Sender<Batch>,
    questions: mpsc::Sender<Question>,
}

/// Why a frame has no ack. It may have been stored all the same: send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LinkError {
    /// There is no connection, and the next attempt is not due or failed.
    #[error("no connection")]
    Unreachable,
    /// The connection broke before the answer came.
    #[error("the connection broke")]
    Broken,
    /// No answer came in time.
    #[error("no answer in time")]
    TimedOut,
    /// A frame of the call is too long or has no readable header; none of them was sent.
    #[error("a frame without a readable header")]
    Unreadable,
}

/// An address that isn't `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not an address: expected host:port")]
pub struct InvalidAddress(String);

/// The frames of one call, and where their acks go, in order. Dropped before all are answered, it tells the caller.
#[derive(Debug)]
struct Batch {
    frames: Vec<Outgoing>,
    answers: mpsc::Sender<Result<Ack, LinkError>>,
}

/// A question, and where its answer goes.
#[derive(Debug)]
struct Question {
    question: Bytes,
    reply: oneshot::Sender<Result<Bytes, LinkError>>,
}

/// What clients want done.
struct Work {
    batches: mpsc::Receiver<Batch>,
    questions: mpsc::Receiver<Question>,
}

/// A piece of it.
enum Wanted {
    Batch(Batch),
    Question(Question),
}

#[derive(Debug)]
struct Outgoing {
    bytes: Bytes,
    producer: Producer,
    seq: u64,
}

/// A frame on its way, of which the ack is expected.
struct Unanswered {
    producer: Producer,
    seq: u64,
    deadline: Instant,
    answers: mpsc::Sender<Result<Ack, LinkError>>,
}

/// Why no connection came about.
#[derive(Debug, Error)]
enum ReachError {
    #[error("the name has no address")]
    NoAddress,
    #[error("no answer in time")]
    TimedOut,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// Why a conversation ended early.
#[derive(Debug, Error)]
enum BreakError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Piece(#[from] PieceError),
    #[error("the server ended the stream before it answered all frames")]
    Ended,
    #[error("no answer in time")]
    TimedOut,
    #[error("an answer that is no ack: {0}")]
    NoAck(#[from] DecodeError),
    #[error("an ack of another frame than the one it should be of")]
    Mismatch,
}

/// Checks that an address is `host:port`; the name is looked up at each attempt to connect.
pub fn check_address(address: &str) -> Result<(), InvalidAddress> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        _ => Err(InvalidAddress(address.into())),
    }
}

impl Client {
    /// A client of `address` (`host:port`), not connected yet. Call it within a tokio runtime: it starts a task.
    pub fn new(address: String, tls: ClientTls) -> Result<Client, InvalidAddress> {
        check_address(&address)?;
        let (batches, waiting) = mpsc::channel(BATCHES_WAITING_MAX);
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX as usize);
        tokio::spawn(drive(address, tls, Work { batches: waiting, questions: asked }));
        Ok(Client { batches, questions })
    }

    /// Sends frames in order, and answers the ack or error of each, in order. After an error there are only errors:
    /// the frames from there on are to be sent again, which is safe also where they had arrived.
    ///
    /// Ends within [`ANSWER_TIME_MAX`]. Calls at the same time share the stream; each keeps its own order. The client
    /// holds the frames of every call in progress: the caller bounds how many those are.
    pub async fn send(&self, frames: Vec<Bytes>) -> Vec<Result<Ack, LinkError>> {
        let count = frames.len();
        let Some(frames) = frames.into_iter().map(Outgoing::new).collect() else {
            return vec![Err(LinkError::Unreadable); count];
        };
        let (answers, mut answered) = mpsc::channel(count.max(1));
        let mut results = Vec::with_capacity(count);
        let asking = async {
            if self.batches.send(Batch { frames, answers }).await.is_ok() {
                while let Some(answer) = answered.recv().await {
                    results.push(Ok(answer?));
                }
            }
            Err(LinkError::Broken)
        };
        let ending: Result<(), LinkError> = timeout(ANSWER_TIME_MAX, asking).await.unwrap_or(Err(LinkError::TimedOut));
        if let Err(error) = ending {
            results.resize(count, Err(error));
        }
        results
    }
}

impl Client {
    /// Asks about configs: the answer's bytes, which the link knows nothing of.
    ///
    /// Ends within [`QUESTION_TIME_MAX`].
    pub async fn ask(&self, question: Bytes) -> Result<Bytes, LinkError> {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.questions.send(Question { question, reply }).await.map_err(|_| LinkError::Broken)?;
            answer.await.map_err(|_| LinkError::Broken)?
        };
        timeout(QUESTION_TIME_MAX, asking).await.unwrap_or(Err(LinkError::TimedOut))
    }
}

impl Outgoing {
    fn new(bytes: Bytes) -> Option<Self> {
        let address = frame::address(&bytes).ok().filter(|_| bytes.len() <= FRAME_BYTES_MAX)?;
        Some(Outgoing { bytes, producer: address.producer, seq: address.seq })
    }
}

impl Batch {
    fn fail(self, error: LinkError) {
        // There is room: nothing of it was answered. A caller that is gone needs no answer.
        let _ = self.answers.try_send(Err(error));
    }
}

impl Work {
    /// The next piece; `None` once the last client is gone.
    async fn next(&mut self) -> Option<Wanted> {
        tokio::select! {
            batch = self.batches.recv() => batch.map(Wanted::Batch),
            Some(question) = self.questions.recv() => Some(Wanted::Question(question)),
        }
    }
}

impl Wanted {
    fn fail(self, error: LinkError) {
        match self {
            Wanted::Batch(batch) => batch.fail(error),
            Wanted::Question(Question { reply, .. }) => _ = reply.send(Err(error)),
        }
    }
}

/// Connects when there is something to send, until the last client is gone.
async fn drive(address: String, tls: ClientTls, mut work: Work) {
    let mut pause = PAUSE_MIN;
    while let Some(first) = work.next().await {
        match connect(&address, &tls).await {
            Ok(connection) => {
                info!(address, "connected");
                let mut acks = 0u64;
                match converse(&connection, first, &mut work, &mut acks).await {
                    Ok(()) => connection.close(code::DONE, b""),
                    Err(error) => {
                        warn!(address, %error, acks, "the link broke");
                        connection.close(code::BROKEN, error.to_string().as_bytes());
                    }
                }
                // A server that doesn't accept our certificate says so only after the handshake: an ack is what
                // proves that we are welcome.
                if acks > 0 {
                    pause = PAUSE_MIN;
                }
            }
            Err(error) => {
                warn!(address, %error, "can't connect");
                first.fail(LinkError::Unreachable);
            }
        }
        let refuse = async {
            while let Some(wanted) = work.next().await {
                wanted.fail(LinkError::Unreachable);
            }
        };
        let _ = timeout(jittered(pause), refuse).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connect(address: &str, tls: &ClientTls) -> Result<Connection, ReachError> {
    let mut failure = ReachError::NoAddress;
    for peer in lookup_host(address).await?.take(ADDRESSES_MAX) {
        let any: SocketAddr = match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let connecting = Endpoint::client(any)?.connect_with(tls.0.clone(), peer, SERVER_NAME)?;
        failure = match timeout(CONNECT_TIME_MAX, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error.into(),
            Err(_) => ReachError::TimedOut,
        };
    }
    Err(failure)
}

/// Sends and hears until the connection breaks or the last client is gone.
async fn converse(connection: &Connection, first: Wanted, work: &mut Work, acks: &mut u64) -> Result<(), BreakError> {
    let (stream, answers) = connection.open_bi().await?;
    // The listener holds one and the channel the others: together they are the window.
    let (sent, unanswered) = mpsc::channel(LINK_WINDOW - 1);
    let talk = async {
        tokio::try_join!(
            speak(connection, stream, first, work, sent),
            listen(Pieces::new(answers, ACK_BYTES_MAX), unanswered, acks)
        )
    };
    tokio::select! {
        // What has arrived is heard before the end is.
        biased;
        talked = talk => talked.map(|_| ()),
        error = connection.closed() => Err(error.into()),
    }
}

async fn speak(
    connection: &Connection,
    mut stream: SendStream,
    first: Wanted,
    work: &mut Work,
    sent: mpsc::Sender<Unanswered>,
) -> Result<(), BreakError> {
    let mut next = Some(first);
    while let Some(wanted) = next {
        match wanted {
            Wanted::Question(question) => _ = tokio::spawn(ask(connection.clone(), question)),
            Wanted::Batch(Batch { frames, answers }) => {
                for Outgoing { bytes, producer, seq } in frames {
                    // Whoever no longer waits sends again.
                    if answers.is_closed() {
                        break;
                    }
                    let deadline = Instant::now() + ANSWER_TIME_MAX;
                    let expected = Unanswered { producer, seq, deadline, answers: answers.clone() };
                    if sent.send(expected).await.is_err() {
                        return Ok(()); // The listener has failed, and its error counts.
                    }
                    stream.write_all_chunks(&mut chunks(bytes)).await?;
                }
            }
        }
        next = work.next().await;
    }
    let _ = stream.finish();
    Ok(())
}

/// Asks on a stream of its own. Whoever asked waits no longer than for as long.
async fn ask(connection: Connection, Question { question, mut reply }: Question) {
    let exchange = async {
        let (mut asking, mut answer) = connection.open_bi().await.ok()?;
        asking.write_chunk(question).await.ok()?;
        asking.finish().ok()?;
        answer.read_to_end(CONFIG_ANSWER_BYTES_MAX).await.ok().map(Bytes::from)
    };
    let answer = tokio::select! {
        answer = exchange => answer.ok_or(LinkError::Broken),
        () = reply.closed() => return,
    };
    let _ = reply.send(answer);
}

async fn listen(
    mut answers: Pieces,
    mut unanswered: mpsc::Receiver<Unanswered>,
    acks: &mut u64,
) -> Result<(), BreakError> {
    while let Some(expected) = unanswered.recv().await {
        let answer = timeout_at(expected.deadline, answers.next()).await.map_err(|_| BreakError::TimedOut)??;
        let ack = Ack::decode(&answer.ok_or(BreakError::Ended)?)?;
        if (&ack.producer, ack.seq) != (&expected.producer, expected.seq) {
            return Err(BreakError::Mismatch);
        }
        *acks += 1;
        // There is room for an answer to each frame; a caller that is gone needs none.
        let _ = expected.answers.try_send(Ok(ack));
    }
    Ok(())
}

/// Between a half and all of it, so that many clients of one server don't come back at once. A hasher's seed is
/// random enough for that.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause.mul_f64(RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:7101", "[::1]:7101", "aggregator.eu.example:7101"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["", "7101", ":7101", "host", "host:", "host:0", "host:70000"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
