//! The taking end: frames go to a channel, their acks come back in the order of arrival.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catchment_cells::limits::{CONFIG_QUESTION_BYTES_MAX, FRAME_BYTES_MAX, LINK_WINDOW};
use quinn::{Connection, ConnectionError, Endpoint, Incoming, RecvStream, SendStream, TokioRuntime, WriteError};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::framing::{PieceError, Pieces, chunks};
use crate::tls::ServerTls;
use crate::{QUESTION_TIME_MAX, code};

/// Connections at a time: the relays of a region, and those that reconnect.
pub const CONNECTIONS_MAX: usize = 64;
/// Longest wait for a new connection's handshake and stream.
const OPENING_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a client to have the last acks; one that is gone would be waited for until it is idle.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest wait, at the end, for the acks of frames that have arrived.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// A frame that has arrived.
#[derive(Debug)]
pub struct Arrival {
    /// Its bytes, at most [`FRAME_BYTES_MAX`], and not believed: see `catchment_cells::frame::open`.
    pub frame: Bytes,
    /// Where its encoded ack goes. Dropped without one, it breaks the connection that the frame came by.
    pub reply: oneshot::Sender<Bytes>,
}

/// Why a server ended before it was told to.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket can't be used.
    #[error("the link's socket can't be used: {0}")]
    Socket(#[from] io::Error),
    /// The socket failed later.
    #[error("the link's socket failed")]
    EndpointLost,
    /// Whoever took the arrivals is gone.
    #[error("nobody takes the frames that arrive")]
    NobodyTakes,
}

/// Why a connection ended.
#[derive(Debug, Error)]
enum BreakError {
    #[error("no stream in time")]
    OpeningTime,
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Piece(#[from] PieceError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("a frame got no answer")]
    NoAnswer,
}

/// Answers a question about configs; `None` for what is none.
pub type Answering = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// Takes frames until `shutdown`, then answers those that have arrived, and ends. A full `arrivals` makes the senders
/// wait; a connection that breaks the protocol is closed, and the others don't notice. Questions are answered beside.
pub async fn serve(
    socket: std::net::UdpSocket,
    tls: ServerTls,
    arrivals: mpsc::Sender<Arrival>,
    answering: Answering,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let endpoint = Endpoint::new(tls.endpoint, Some(tls.server), socket, Arc::new(TokioRuntime))?;
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let ending = loop {
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            () = arrivals.closed() => break Err(ServeError::NobodyTakes),
            Some(_) = connections.join_next() => {}
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break Err(ServeError::EndpointLost) };
                if connections.len() >= CONNECTIONS_MAX {
                    warn!(peer = %incoming.remote_address(), "too many connections");
                    incoming.refuse();
                } else if connections.len() >= CONNECTIONS_MAX / 2 && incoming.may_retry() {
                    // It shall prove that its address isn't made up before it takes one of the last places.
                    let _ = incoming.retry();
                } else {
                    connections.spawn(attend(incoming, arrivals.clone(), answering.clone(), stopping.clone()));
                }
            }
        }
    };
    endpoint.set_server_config(None);
    let _ = stop.send(true);
    let drained = async {
        while connections.join_next().await.is_some() {}
        endpoint.wait_idle().await;
    };
    if timeout(DRAIN_TIME_MAX, drained).await.is_err() {
        warn!("frames were left unanswered");
    }
    endpoint.close(code::DONE, b"");
    ending
}

/// One connection, from handshake to close.
async fn attend(
    incoming: Incoming,
    arrivals: mpsc::Sender<Arrival>,
    answering: Answering,
    mut stopping: watch::Receiver<bool>,
) {
    let peer = incoming.remote_address();
    let opening = async {
        let connection = incoming.await?;
        let (answers, frames) = connection.accept_bi().await?;
        Ok::<_, ConnectionError>((connection, answers, frames))
    };
    let opened = tokio::select! {
        opened = timeout(OPENING_TIME_MAX, opening) => opened,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    let (connection, answers, frames) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return info!(%peer, %error, "connection refused"),
        Err(_) => return info!(%peer, error = %BreakError::OpeningTime, "connection refused"),
    };
    info!(%peer, "connected");
    match converse(&connection, (answers, frames), &arrivals, answering, stopping).await {
        Ok(()) => connection.close(code::DONE, b""),
        Err(BreakError::Connection(error)) => debug!(%peer, %error, "connection closed"),
        Err(error) => {
            warn!(%peer, %error, "connection broken off");
            let code =
                if matches!(error, BreakError::Piece(PieceError::TooLong(_))) { code::TOO_LONG } else { code::BROKEN };
            connection.close(code, error.to_string().as_bytes());
        }
    }
}

async fn converse(
    connection: &Connection,
    (answers, frames): (SendStream, RecvStream),
    arrivals: &mpsc::Sender<Arrival>,
    answering: Answering,
    stopping: watch::Receiver<bool>,
) -> Result<(), BreakError> {
    let (expect, expected) = mpsc::channel(LINK_WINDOW);
    let talk = async {
        tokio::try_join!(
            listen(Pieces::new(frames, FRAME_BYTES_MAX), arrivals, expect, stopping),
            speak(answers, expected)
        )
    };
    tokio::select! {
        // What has been answered is said before the end is noticed.
        biased;
        talked = talk => talked.map(|_| ()),
        never = answer(connection, answering) => match never {},
        error = connection.closed() => Err(error.into()),
    }
}

/// Answers questions, each on a stream of its own, as many at a time as the connection lets its peer open.
async fn answer(connection: &Connection, answering: Answering) -> Infallible {
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = answers.join_next() => {}
            stream = connection.accept_bi() => {
                // A connection that is closed has nothing more to ask: whoever waits for that learns it.
                let Ok((answer, question)) = stream else { std::future::pending().await };
                answers.spawn(timeout(QUESTION_TIME_MAX, answer_one(answer, question, answering.clone())));
            }
        }
    }
}

async fn answer_one(mut answer: SendStream, mut question: RecvStream, answering: Answering) {
    let read = question.read_to_end(CONFIG_QUESTION_BYTES_MAX).await.ok();
    let Some(bytes) = read.and_then(|question| answering(&question)) else {
        // Dropped, the stream would end as an empty answer.
        let _ = answer.reset(code::BROKEN);
        return;
    };
    if answer.write_chunk(bytes.into()).await.is_ok() && answer.finish().is_ok() {
        let _ = answer.stopped().await;
    }
}

async fn listen(
    mut frames: Pieces,
    arrivals: &mpsc::Sender<Arrival>,
    expect: mpsc::Sender<oneshot::Receiver<Bytes>>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), BreakError> {
    loop {
        let frame = tokio::select! {
            frame = frames.next() => frame?,
            _ = stopping.wait_for(|stop| *stop) => None,
        };
        let Some(frame) = frame else { return Ok(()) };
        let (reply, answer) = oneshot::channel();
        // First a place among the expected answers: beyond the window nothing more is read.
        if expect.send(answer).await.is_err() {
            return Ok(()); // The speaker has failed, and its error counts.
        }
        arrivals.send(Arrival { frame, reply }).await.map_err(|_| BreakError::NoAnswer)?;
    }
}

async fn speak(
    mut stream: SendStream,
    mut expected: mpsc::Receiver<oneshot::Receiver<Bytes>>,
) -> Result<(), BreakError> {
    while let Some(answer) = expected.recv().await {
        let ack = answer.await.map_err(|_| BreakError::NoAnswer)?;
        stream.write_all_chunks(&mut chunks(ack)).await?;
    }
    let _ = stream.finish();
    // Closing the connection would overtake what is still on its way.
    let _ = timeout(DELIVERY_TIME_MAX, stream.stopped()).await;
    Ok(())
}
