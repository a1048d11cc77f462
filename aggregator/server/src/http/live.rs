//! `GET /api/v1/live`: a WebSocket that follows questions. The messages are specified in docs/FORMATS.md.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use catchment_aggregator_core::question::parameters;
use catchment_aggregator_core::tiers::{UTC, Zone};
use catchment_aggregator_core::{Said, Token};
use catchment_cells::credential::ReadKey;
use catchment_cells::limits::LIVE_DETAIL_BYTES_MAX;
use catchment_cells::live::{self, parse_cursor};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Api;
use super::openapi::schemas;
use super::problem::Problem;
use super::questions::{authorize, is_revoked, plan};
use crate::cells::AnswerError;
use crate::clock::now_ms;
use crate::live::{Asked, Latest, LiveError, Reader, Shared};
use crate::metrics;

/// For how long to come a reader is told of changes of its client's clock, in minutes.
const OFFSETS_AHEAD: i64 = 2 * 366 * 24 * 60;
/// How long a read key may take to come, and one message to be sent.
const TOKEN_MAX: Duration = Duration::from_secs(5);
const SEND_MAX: Duration = Duration::from_secs(20);
/// How often the connection shows that it holds, and how often it is asked for a sign.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
const ALIVES_PER_PING: u32 = 5;
/// How long nothing may be heard.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Bytes of one message of a reader.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 32;

/// Bytes that a connection reads at a time, which it holds for good.
const READ_BYTES: usize = 4 << 10;
/// Bytes of a close frame's reason.
const REASON_BYTES_MAX: usize = 123;
/// How long a close frame may take to be sent.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Close codes: final.
const GOING_AWAY: u16 = 1001;
const TRY_AGAIN_LATER: u16 = 1013;
const PROTOCOL: u16 = 4400;
const UNAUTHORIZED: u16 = 4401;

/// A connection.
struct Connection {
    api: Arc<Api>,
    key: ReadKey,
    socket: WebSocket,
    reader: Reader,
    /// The client's clock, as its reader knows it.
    zone: Zone,
    subscriptions: BTreeMap<u64, Subscription>,
}

/// A view that the connection follows.
struct Subscription {
    view: Arc<Shared>,
    /// The version that its reader has; 0: none.
    version: u64,
}

/// Why a connection ends.
enum End {
    /// It is gone, or has been silent or stalled for too long.
    Gone,
    /// It is told why.
    Close(u16, String),
}

/// Follows questions, over a WebSocket.
///
/// The first message is `{"token":"rk_…"}`, within 5 s; then `{"subscribe":1,"question":"metric=users&last=1d"}` follows a question. What the
/// server sends is binary, and specified in docs/FORMATS.md.
#[utoipa::path(
    get,
    path = "/api/v1/live",
    tag = "questions",
    operation_id = "live",
    responses(
        (status = 101, description = "A WebSocket."),
        (status = 400, description = "No upgrade to a WebSocket is asked for.", body = String),
        (status = 426, description = "No connection that can be upgraded.", body = String),
        (
            status = 503,
            description = "1,000 connections haven't said who they are.",
            body = schemas::Problem,
            content_type = "application/problem+json",
            headers(("retry-after" = u32, description = "When to ask again, in s."))
        ),
    )
)]
pub(crate) async fn upgrade(State(api): State<Arc<Api>>, upgrade: WebSocketUpgrade) -> Response {
    // Strangers have few places, so that they can't take those of readers.
    let Ok(place) = api.bounds.strangers.clone().try_acquire_owned() else {
        return Problem::busy("too many live connections are being made: try again later").into_response();
    };
    let upgrade = upgrade.read_buffer_size(READ_BYTES).max_message_size(MESSAGE_BYTES_MAX);
    upgrade.max_frame_size(MESSAGE_BYTES_MAX).on_upgrade(async move |mut socket| {
        let key = match timeout(TOKEN_MAX, token(&api, &mut socket)).await {
            Ok(Ok(key)) => key,
            Ok(Err(end)) => return close(socket, end).await,
            Err(_) => return close(socket, End::Close(TRY_AGAIN_LATER, "no read key came".into())).await,
        };
        let Ok(_place) = api.bounds.sockets.clone().try_acquire_owned() else {
            return close(socket, End::Close(TRY_AGAIN_LATER, "too many live connections are open".into())).await;
        };
        drop(place);
        serve(api, key, socket).await;
    })
}

async fn serve(api: Arc<Api>, key: ReadKey, socket: WebSocket) {
    static READERS: AtomicU64 = AtomicU64::new(0);
    let reader = Reader { id: READERS.fetch_add(1, Ordering::Relaxed), news: Arc::new(Notify::new()) };
    let zone = api.cells.tiers(&key.client).zone().clone();
    let mut connection = Connection { api, key, socket, reader, zone, subscriptions: BTreeMap::new() };
    let end = match connection.run().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    for subscription in connection.subscriptions.values() {
        connection.api.live.unsubscribe(subscription.view.view, connection.reader.id);
    }
    close(connection.socket, end).await;
}

/// The first message: who reads.
async fn token(api: &Api, socket: &mut WebSocket) -> Result<ReadKey, End> {
    loop {
        match socket.recv().await {
            Some(Ok(Message::Text(text))) => {
                let token = Token::read(&text)
                    .ok_or_else(|| End::Close(PROTOCOL, "the first message is {\"token\":\"rk_…\"}".into()))?;
                return authorize(api, &token.token).map_err(|problem| End::Close(UNAUTHORIZED, problem.detail));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_))) => return Err(End::Close(PROTOCOL, "messages are texts".into())),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
        }
    }
}

async fn close(mut socket: WebSocket, end: End) {
    if let End::Close(code, reason) = end {
        let reason = reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned();
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = timeout(CLOSE_MAX, socket.send(Message::Close(Some(frame)))).await;
    }
}

/// Whoever was told of another clock comes again, and is told of the present one.
fn changed() -> End {
    End::Close(TRY_AGAIN_LATER, "the client's time zone has changed".into())
}

impl Connection {
    async fn run(&mut self) -> Result<std::convert::Infallible, End> {
        if self.zone.name() != UTC {
            let (time_zone, to) = (self.zone.name().to_owned(), now_ms().div_euclid(60_000) + OFFSETS_AHEAD);
            let clock = live::Message::Clock { time_zone, offsets: self.zone.offsets(0, to) };
            self.send(clock.encode().into()).await?;
        }
        let hello = live::Message::Hello { now: now_ms(), client: self.key.client.to_string() };
        self.send(hello.encode().into()).await?;
        let mut alive = interval(ALIVE_EVERY);
        // After a stall one sign of life is enough.
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alives = 0u32;
        let mut heard_at = Instant::now();
        let mut stopping = self.api.stopping.clone();
        let news = self.reader.news.clone();
        loop {
            tokio::select! {
                said = self.socket.recv() => {
                    heard_at = Instant::now();
                    match said {
                        Some(Ok(Message::Text(text))) => self.hear(&text).await?,
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Binary(_))) => return Err(End::Close(PROTOCOL, "messages are texts".into())),
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(End::Gone),
                    }
                }
                () = news.notified() => self.tell().await?,
                _ = alive.tick() => {
                    if heard_at.elapsed() > SILENCE_MAX {
                        return Err(End::Gone);
                    }
                    if is_revoked(&self.api, &self.key) {
                        return Err(End::Close(UNAUTHORIZED, "the read key was revoked".into()));
                    }
                    self.send(live::Message::Alive { now: now_ms() }.encode().into()).await?;
                    alives = alives.wrapping_add(1);
                    if alives.is_multiple_of(ALIVES_PER_PING) {
                        self.send_message(Message::Ping(Bytes::new())).await?;
                    }
                }
                () = async { _ = stopping.wait_for(|stop| *stop).await } => {
                    return Err(End::Close(GOING_AWAY, "the aggregator stops".into()));
                }
            }
        }
    }

    async fn hear(&mut self, text: &str) -> Result<(), End> {
        match Said::read(text).ok_or_else(|| End::Close(PROTOCOL, "no such message".into()))? {
            Said::Subscribe { subscribe, question, cursor, sets } => {
                self.subscribe(subscribe, question, cursor, sets).await
            }
            Said::Unsubscribe { unsubscribe } => {
                if let Some(subscription) = self.subscriptions.remove(&unsubscribe) {
                    self.leave(subscription.view.view);
                }
                Ok(())
            }
        }
    }

    async fn subscribe(
        &mut self,
        number: u64,
        question: String,
        cursor: Option<String>,
        sets: bool,
    ) -> Result<(), End> {
        if self.subscriptions.contains_key(&number) {
            return Err(End::Close(PROTOCOL, "a number is used twice".into()));
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            let detail = format!("a connection follows at most {SUBSCRIPTIONS_MAX} questions");
            return self.refuse(number, Problem::busy(&detail)).await;
        }
        let plan = plan(&self.api.cells, &self.key.client, &parameters(&question));
        if plan.as_ref().is_ok_and(|plan| *plan.tiers.zone() != self.zone) {
            return Err(changed());
        }
        let plan = plan.and_then(|plan| plan.question.check_live().map(|()| plan).map_err(Problem::from));
        let plan = match plan {
            Ok(plan) => plan,
            Err(problem) => return self.refuse(number, problem).await,
        };
        let metrics = plan.question.metrics.iter().map(|metric| metric.name.clone()).collect();
        let (cube, tier) = (plan.cube.name.to_string(), plan.tier());
        let asked = Asked { client: self.key.client.clone(), question, sets };
        let view = match self.api.live.subscribe(asked, plan, &self.reader).await {
            Some(Ok(view)) => view,
            Some(Err(error)) => return self.refuse(number, Problem::from(&error)).await,
            None => return Err(End::Close(GOING_AWAY, "the aggregator stops".into())),
        };
        let known = cursor.as_deref().and_then(parse_cursor).filter(|(id, _)| *id == view.view);
        let message = live::View { subscription: number, view: view.view, metrics, cube, tier };
        self.subscriptions.insert(number, Subscription { view, version: known.map_or(0, |(_, version)| version) });
        self.send(live::Message::View(message).encode().into()).await?;
        self.tell_of(number).await
    }

    /// Tells what is new in every view.
    async fn tell(&mut self) -> Result<(), End> {
        let numbers: Vec<u64> = self.subscriptions.keys().copied().collect();
        for number in numbers {
            self.tell_of(number).await?;
        }
        Ok(())
    }

    async fn tell_of(&mut self, number: u64) -> Result<(), End> {
        let Some(Subscription { view, version }) = self.subscriptions.get(&number) else { return Ok(()) };
        let (id, version) = (view.view, *version);
        let (to, message) = match view.latest() {
            Latest::Nothing => return Ok(()),
            Latest::Failed(error) if matches!(*error, LiveError::Answer(AnswerError::Changed)) => return Err(changed()),
            Latest::Failed(error) => {
                self.subscriptions.remove(&number);
                return self.refuse(number, Problem::from(&*error)).await;
            }
            Latest::Update { to, .. } if to == version => return Ok(()),
            Latest::Update { from, to, message } if from == version => (to, message),
            // It missed some, or has none yet.
            Latest::Update { .. } => match self.api.live.since(id, version).await {
                Some(missed) => missed,
                // Why is the next that it is told.
                None => return Ok(()),
            },
        };
        if let Some(subscription) = self.subscriptions.get_mut(&number) {
            subscription.version = to;
        }
        self.send(message).await
    }

    /// A view that another of its subscriptions follows, too, is not left.
    fn leave(&self, view: u64) {
        if !self.subscriptions.values().any(|other| other.view.view == view) {
            self.api.live.unsubscribe(view, self.reader.id);
        }
    }

    async fn refuse(&mut self, subscription: u64, problem: Problem) -> Result<(), End> {
        let mut detail = problem.detail;
        detail.truncate(detail.floor_char_boundary(LIVE_DETAIL_BYTES_MAX));
        let status = problem.status.as_u16();
        self.send(live::Message::Refused { subscription, status, detail }.encode().into()).await
    }

    async fn send(&mut self, message: Bytes) -> Result<(), End> {
        metrics::count_live_bytes(message.len());
        self.send_message(Message::Binary(message)).await
    }

    /// A reader that takes nothing for long is gone.
    async fn send_message(&mut self, message: Message) -> Result<(), End> {
        match timeout(SEND_MAX, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }
}
