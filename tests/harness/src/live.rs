//! A reader of live views.

use std::collections::BTreeMap;
use std::time::Duration;

use catchment_cells::live::{Message, Mirror, View};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message as Sent};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::{Failure, Question, Result, Row, Value};

/// How long the server may take to let a reader in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One connection, with what it knows of its views.
#[derive(Debug)]
pub struct Live {
    socket: WebSocketStream<TcpStream>,
    subscriptions: BTreeMap<u64, Subscription>,
    received_bytes: u64,
}

/// What one subscription asked, and what it knows.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The question, as in the query string of the metrics API.
    pub question: String,
    /// Whether users come as sets.
    pub sets: bool,
    /// Its view, once it has one.
    pub view: Option<View>,
    /// What is known of the view.
    pub mirror: Option<Mirror>,
}

/// Why there are no more messages.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Ended {
    /// The server closed the connection, with a code if it said one.
    #[error("the server closed the connection with {0:?}")]
    Closed(Option<u16>),
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Live {
    /// Connects to an aggregator (`http://host:port`), and shows a read key.
    pub async fn connect(url: &str, read_key: &str) -> std::result::Result<Live, Ended> {
        let mut live = Live::open(url).await?;
        live.send(&json!({ "token": read_key }).to_string()).await?;
        let hello = async {
            loop {
                match live.next().await {
                    Ok(Message::Clock { .. }) => {}
                    other => return other,
                }
            }
        };
        let hello = timeout(CONNECT_TIMEOUT, hello).await;
        match hello {
            Ok(Ok(Message::Hello { .. })) => Ok(live),
            Ok(Ok(other)) => Err(Failure(format!("the server begins with {other:?}")).into()),
            Ok(Err(ended)) => Err(ended),
            Err(_) => Err(Failure("the server doesn't say hello".into()).into()),
        }
    }

    /// Connects, and shows nothing yet.
    pub async fn open(url: &str) -> Result<Live> {
        let socket = TcpSocket::new_v4().map_err(Failure::at("opening a socket"))?;
        Live::upgrade(url, socket).await
    }

    /// As [`open`](Live::open), for a reader that will not read: with the least receive buffer, and segments as on the internet.
    /// Those of the loopback have the server's system keep megabytes for each connection before the server notices anything.
    pub async fn open_narrow(url: &str) -> Result<Live> {
        const SEGMENT_BYTES: u32 = 536;
        const BUFFER_BYTES: usize = 2_048;
        let narrow = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
            socket.set_recv_buffer_size(BUFFER_BYTES)?;
            socket.set_tcp_mss(SEGMENT_BYTES)?;
            Ok::<_, std::io::Error>(TcpSocket::from_std_stream(socket.into()))
        };
        Live::upgrade(url, narrow().map_err(Failure::at("opening a socket"))?).await
    }

    async fn upgrade(url: &str, socket: TcpSocket) -> Result<Live> {
        let address = url.trim_start_matches("http://");
        let to = address.parse().map_err(Failure::at(address))?;
        let opening = async {
            let stream = socket.connect(to).await.map_err(Failure::at("connecting to the aggregator"))?;
            stream.set_nodelay(true).map_err(Failure::at("connecting to the aggregator"))?;
            let request = format!("ws://{address}/api/v1/live");
            let (socket, _) = client_async(request, stream).await.map_err(Failure::at("upgrading to a WebSocket"))?;
            Ok(Live { socket, subscriptions: BTreeMap::new(), received_bytes: 0 })
        };
        timeout(CONNECT_TIMEOUT, opening).await.map_err(|_| Failure("the aggregator can't be reached".into()))?
    }

    /// Asks for a view. Its answer comes with the next messages.
    pub async fn subscribe(&mut self, subscription: u64, question: &Question) -> Result<()> {
        let question = question.text();
        self.ask(subscription, Subscription { question, sets: false, view: None, mirror: None }).await
    }

    /// Asks for a view whose users come as sets.
    pub async fn subscribe_with_sets(&mut self, subscription: u64, question: &Question) -> Result<()> {
        let question = question.text();
        self.ask(subscription, Subscription { question, sets: true, view: None, mirror: None }).await
    }

    /// Gives a view up.
    pub async fn unsubscribe(&mut self, subscription: u64) -> Result<()> {
        self.subscriptions.remove(&subscription);
        self.send(&json!({ "unsubscribe": subscription }).to_string()).await
    }

    /// Asks for the views that another connection had, from where it was.
    pub async fn resume(&mut self, subscriptions: BTreeMap<u64, Subscription>) -> Result<()> {
        for (number, subscription) in subscriptions {
            self.ask(number, subscription).await?;
        }
        Ok(())
    }

    /// The subscriptions, for the next connection to resume.
    pub fn into_subscriptions(self) -> BTreeMap<u64, Subscription> {
        self.subscriptions
    }

    async fn ask(&mut self, number: u64, subscription: Subscription) -> Result<()> {
        let mut message = json!({ "subscribe": number, "question": subscription.question, "sets": subscription.sets });
        if let Some(mirror) = subscription.mirror.as_ref().filter(|mirror| mirror.version() > 0) {
            message["cursor"] = json!(mirror.cursor());
        }
        self.subscriptions.insert(number, subscription);
        self.send(&message.to_string()).await
    }

    /// Sends a text as it is.
    pub async fn send(&mut self, text: &str) -> Result<()> {
        self.send_raw(Sent::text(text)).await
    }

    /// Sends anything.
    pub async fn send_raw(&mut self, message: Sent) -> Result<()> {
        self.socket.send(message).await.map_err(Failure::at("sending to the aggregator"))
    }

    /// The next message; views and updates are taken in first.
    pub async fn next(&mut self) -> std::result::Result<Message, Ended> {
        loop {
            let bytes = match self.socket.next().await {
                None => return Err(Ended::Closed(None)),
                Some(Ok(Sent::Close(frame))) => return Err(Ended::Closed(frame.map(|frame| frame.code.into()))),
                Some(Ok(Sent::Binary(bytes))) => bytes,
                Some(Ok(Sent::Ping(_) | Sent::Pong(_))) => continue,
                Some(Ok(other)) => return Err(Failure(format!("the server sends {other:?}")).into()),
                Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed)) => {
                    return Err(Ended::Closed(None));
                }
                Some(Err(error)) => return Err(Failure::at("reading from the aggregator")(error).into()),
            };
            self.received_bytes += bytes.len() as u64;
            let message = Message::decode(&bytes).map_err(Failure::at("a live message"))?;
            self.take(&message)?;
            return Ok(message);
        }
    }

    fn take(&mut self, message: &Message) -> Result<()> {
        match message {
            Message::View(view) => {
                let subscription = self.subscriptions.get_mut(&view.subscription);
                // It may have been given up meanwhile.
                let Some(subscription) = subscription else { return Ok(()) };
                if subscription.view.as_ref().is_none_or(|known| known.view != view.view) {
                    subscription.mirror = Some(Mirror::new(view).map_err(Failure::at("a live view"))?);
                }
                subscription.view = Some(view.clone());
            }
            Message::Update(update) => {
                let shown = |subscription: &&mut Subscription| {
                    subscription.view.as_ref().is_some_and(|view| view.view == update.view)
                };
                for subscription in self.subscriptions.values_mut().filter(shown) {
                    let Some(mirror) = &mut subscription.mirror else { continue };
                    // Of two subscriptions to one view, each is told.
                    if update.from == 0 || update.to > mirror.version() {
                        mirror.apply(update.clone()).map_err(Failure::at("a live update"))?;
                    }
                }
            }
            Message::Refused { subscription, .. } => _ = self.subscriptions.remove(subscription),
            Message::Hello { .. } | Message::Clock { .. } | Message::Alive { .. } => {}
        }
        Ok(())
    }

    /// Reads until something holds of a subscription's view, or fails once it took too long.
    pub async fn until(
        &mut self,
        subscription: u64,
        patience: Duration,
        holds: impl Fn(&Mirror) -> bool,
    ) -> std::result::Result<(), Ended> {
        let reading = async {
            loop {
                if self.mirror(subscription).is_some_and(|mirror| mirror.version() > 0 && holds(mirror)) {
                    return Ok(());
                }
                if let Message::Refused { status, detail, .. } = self.next().await? {
                    return Err(Failure(format!("the server refuses with {status}: {detail}")).into());
                }
            }
        };
        let held = timeout(patience, reading).await;
        held.unwrap_or_else(
            |_| Err(Failure(format!("not so after {patience:?}: {:?}", self.rows(subscription))).into()),
        )
    }

    /// What is known of a subscription's view.
    pub fn mirror(&self, subscription: u64) -> Option<&Mirror> {
        self.subscriptions.get(&subscription)?.mirror.as_ref()
    }

    /// What is known of a subscription's view, as the metrics API would answer it.
    pub fn rows(&self, subscription: u64) -> Vec<Row> {
        self.mirror(subscription).map(rows).unwrap_or_default()
    }

    /// Bytes of messages so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }
}

/// A mirror's rows, as the metrics API would answer them.
pub fn rows(mirror: &Mirror) -> Vec<Row> {
    let row = |row: &catchment_cells::row::Row| {
        let values = mirror.metrics().iter().zip(&row.figures).map(|(metric, figure)| {
            let value = figure.map(|f| Value { value: f.value, lower: f.lower, upper: f.upper, exact: f.exact });
            (metric.name.clone(), value)
        });
        let time = jiff::Timestamp::from_millisecond(row.bucket * 60_000).unwrap_or_default();
        Row { time, group: row.group.as_deref().map(str::to_owned), values: values.collect() }
    };
    mirror.rows().iter().map(row).collect()
}
