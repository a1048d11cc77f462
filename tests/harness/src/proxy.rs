//! A TCP proxy between two parts, which withholds what passes at a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::{Failure, Result};

/// What the proxy does to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing.
    None,
    /// Requests are swallowed: events or frames don't arrive.
    WithholdRequests,
    /// Answers are swallowed: what was asked is done, but the 202 or the ack doesn't arrive.
    WithholdAnswers,
    /// A bit of what is sent is turned over on the way; HTTP's own lines are left alone.
    FlipRequests,
    /// Every connection is closed, and new ones are closed at once.
    Cut,
}

/// Listens on an address of its own and passes on to another. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    fault: watch::Sender<Fault>,
    withheld_bytes: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts to pass on to `to` (host:port).
    pub async fn start(to: String) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Failure::at("binding a proxy"))?;
        let address = listener.local_addr().map_err(Failure::at("binding a proxy"))?.to_string();
        let (fault, watched) = watch::channel(Fault::None);
        let withheld_bytes = Arc::new(AtomicU64::new(0));
        tokio::spawn(accept(listener, to, watched, withheld_bytes.clone()));
        Ok(Proxy { address, fault, withheld_bytes })
    }

    /// Where it listens: host:port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Changes what it does, for open connections too. A connection that lost bytes can't be healed: it is closed.
    pub fn set(&self, fault: Fault) {
        self.withheld_bytes.store(0, Ordering::SeqCst);
        self.fault.send_replace(fault);
    }

    /// What it does now.
    pub fn fault(&self) -> Fault {
        *self.fault.borrow()
    }

    /// Waits until something was withheld since the last [`set`](Self::set).
    pub async fn withheld(&self, patience: Duration) -> Result<()> {
        let seen = async {
            while self.withheld_bytes.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(patience, seen).await.map_err(|_| Failure(format!("nothing to withhold came by within {patience:?}")))
    }
}

async fn accept(listener: TcpListener, to: String, mut fault: watch::Receiver<Fault>, withheld: Arc<AtomicU64>) {
    loop {
        let of_connection = fault.clone();
        tokio::select! {
            // An error says that the proxy was dropped.
            changed = fault.changed() => if changed.is_err() { return },
            Ok((client, _)) = listener.accept() => {
                tokio::spawn(pass_both(client, to.clone(), of_connection, withheld.clone()));
            }
        }
    }
}

async fn pass_both(client: TcpStream, to: String, fault: watch::Receiver<Fault>, withheld: Arc<AtomicU64>) {
    if *fault.borrow() == Fault::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Either direction's end is the end of both: halves that are dropped close the connection.
    tokio::select! {
        () = pass(from_client, to_server, Fault::WithholdRequests, fault.clone(), &withheld) => {}
        () = pass(from_server, to_client, Fault::WithholdAnswers, fault.clone(), &withheld) => {}
    }
}

/// Copies until the end, a cut, or the end of a fault that swallowed bytes.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mine: Fault,
    mut fault: watch::Receiver<Fault>,
    withheld: &AtomicU64,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut lossy = false;
    loop {
        let now = *fault.borrow_and_update();
        if now == Fault::Cut || (lossy && now != mine) {
            return;
        }
        tokio::select! {
            changed = fault.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer) => {
                let n = match read {
                    Ok(n) if n > 0 => n,
                    _ => return,
                };
                let now = *fault.borrow();
                if now == Fault::FlipRequests && mine == Fault::WithholdRequests && !buffer[..n].ends_with(b"\r\n") {
                    buffer[n - 1] ^= 1;
                }
                if now == mine {
                    lossy = true;
                    withheld.fetch_add(n as u64, Ordering::SeqCst);
                } else if to.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}
