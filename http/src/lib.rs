//! HTTP connections within bounds, for every process that is asked over HTTP: so many at a time, so long for a head, so
//! long for a connection. What is asked and answered is the caller's [`Router`].
//!
//! HTTP/1 alone: balancers and workerd speak it to us, and a WebSocket starts as it.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::error;

/// Bytes that a connection may have read and not yet passed on. A head that needs more is answered with 431.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Wait before a listener that failed, for want of descriptors say, is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What connections are held to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at a time; one that became a WebSocket is its owner's to count. Beyond it none is accepted: who comes
    /// waits in the system's backlog, costs us nothing there, and is served late rather than turned away.
    pub connections: usize,
    /// From a connection's start, or the last answer on it, to the end of the next head. An idle connection ends with it.
    pub head_time: Duration,
    /// How long a connection may ask again and again.
    pub age: Duration,
    /// How long the request in work may go on after that, or after the shutdown: a reader that doesn't read has no other
    /// end.
    pub end_time: Duration,
}

impl Bounds {
    /// So many connections, and times that suit anybody who means well.
    pub fn new(connections: usize) -> Bounds {
        let s = Duration::from_secs;
        Bounds { connections, head_time: s(10), age: s(300), end_time: s(60) }
    }
}

/// Serves until `shutdown`, then accepts no more, and ends when every request in work is answered or out of time.
pub async fn serve(listener: TcpListener, router: Router, bounds: Bounds, shutdown: impl Future<Output = ()>) {
    let connections = bounds.connections.min(Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let free = Arc::new(Semaphore::new(connections));
    let (stop, stopping) = watch::channel(());
    let service = TowerToHyperService::new(router);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepting = async {
            // Nobody closes it; without a permit there would be no bound.
            let permit = free.clone().acquire_owned().await.ok()?;
            Some((accept(&listener).await, permit))
        };
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            () = &mut shutdown => None,
        };
        let Some((stream, permit)) = accepted else { break };
        let (service, stopping) = (service.clone(), stopping.clone());
        tokio::spawn(async move {
            serve_one(stream, service, bounds, stopping).await;
            drop(permit);
        });
    }
    drop((listener, stop));
    // Every connection holds one.
    let _ = free.acquire_many(connections as u32).await;
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // The peer's doing, and over.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                error!(%error, "can't accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Until it is closed, or is a connection of HTTP no more.
async fn serve_one(
    stream: TcpStream,
    service: TowerToHyperService<Router>,
    bounds: Bounds,
    mut stopping: watch::Receiver<()>,
) {
    // Small messages are to be seen at once.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    // How it ended is the peer's affair: it went away, was too slow, or spoke no HTTP.
    tokio::select! {
        _ = connection.as_mut() => return,
        // Nothing is ever sent: the sender is gone.
        _ = stopping.changed() => {}
        () = sleep(bounds.age) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(bounds.end_time, connection).await;
}
