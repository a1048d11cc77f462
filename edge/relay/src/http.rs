//! The relay's HTTP, and the only place that knows status codes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use catchment_cells::codec::DecodeError;
use catchment_cells::limits::{CONFIG_QUESTION_BYTES_MAX, POST_BYTES_MAX};
use catchment_http::Bounds;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::config::{Config, Token};
use crate::forward::{BadPost, Homes};
use crate::metrics;

/// Connections at a time: a shard holds one or two. Well below the unit's LimitNOFILE.
const CONNECTIONS_MAX: usize = 16_384;
/// Bytes of bodies that may be in work at a time; beyond, a POST is told to come again.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Longest wait for a body.
const BODY_TIME_MAX: Duration = Duration::from_secs(20);
/// Longest wait, at the end, for the POSTs in work: body and answer.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(25);

/// What every request shares.
struct Relay {
    token: Token,
    homes: Homes,
    /// A permit is a byte.
    in_flight: Arc<Semaphore>,
}

/// Why a POST gets no acks, or a question no answer.
enum Refusal {
    Unauthorized,
    TooLarge(usize),
    Full,
    BodyTime,
    BodyLost,
    BadPost(BadPost),
    BadQuestion(DecodeError),
    Unreachable,
    Ours,
}

/// Serves until `shutdown`, then answers the requests in work, and ends.
pub async fn run(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
    let homes = Homes::new(config.homes, &config.tls).map_err(std::io::Error::other)?;
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX));
    let relay = Arc::new(Relay { token: config.token, homes, in_flight });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let bounds = Bounds::new(CONNECTIONS_MAX);
    let server = catchment_http::serve(listener, router(relay), bounds, async move { drop(stopped.await) });
    let drain = async {
        shutdown.await;
        info!("draining");
        drop(stop);
        sleep(DRAIN_TIME_MAX).await;
    };
    tokio::select! {
        () = server => Ok(()),
        () = drain => {
            warn!("requests were left unanswered");
            Ok(())
        }
        never = metrics::upkeep() => match never {},
    }
}

fn router(relay: Arc<Relay>) -> Router {
    Router::new()
        .route("/v1/frames", post(post_frames).layer(DefaultBodyLimit::max(POST_BYTES_MAX)))
        .route("/v1/config", post(post_config).layer(DefaultBodyLimit::max(CONFIG_QUESTION_BYTES_MAX)))
        .route("/healthz", get(|| async { "alive" }))
        .route("/readyz", get(|| async { "ready" }))
        .route("/metrics", get(get_metrics))
        .with_state(relay)
}

async fn get_metrics(State(relay): State<Arc<Relay>>) -> impl IntoResponse {
    let text = metrics::render(IN_FLIGHT_BYTES_MAX - relay.in_flight.available_permits());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

async fn post_frames(State(relay): State<Arc<Relay>>, request: Request) -> Response {
    let start = Instant::now();
    let response = match answer(relay, request).await {
        Ok(acks) => ([(CONTENT_TYPE, "application/octet-stream")], acks).into_response(),
        Err(refusal) => refusal.into_response(),
    };
    metrics::count_post(response.status(), start.elapsed());
    response
}

async fn post_config(State(relay): State<Arc<Relay>>, request: Request) -> Response {
    let answer = async {
        let (_held, question) = take(&relay, request, CONFIG_QUESTION_BYTES_MAX).await?;
        relay.homes.ask(question).await.map_err(Refusal::BadQuestion)?.ok_or(Refusal::Unreachable)
    };
    match answer.await {
        Ok(answer) => ([(CONTENT_TYPE, "application/octet-stream")], answer).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// The body of a shard's request, and what holds its place among those in work.
async fn take(
    relay: &Relay,
    request: Request<Body>,
    bytes_max: usize,
) -> Result<(OwnedSemaphorePermit, Bytes), Refusal> {
    if !bearer(request.headers()).is_some_and(|token| relay.token.matches(token)) {
        return Err(Refusal::Unauthorized);
    }
    let bytes = match request.body().size_hint().upper() {
        Some(bytes) if bytes > bytes_max as u64 => return Err(Refusal::TooLarge(bytes_max)),
        Some(bytes) => bytes as u32,
        None => bytes_max as u32,
    };
    let held = relay.in_flight.clone().try_acquire_many_owned(bytes).map_err(|_| Refusal::Full)?;
    let body = match timeout(BODY_TIME_MAX, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Err(Refusal::TooLarge(bytes_max));
        }
        Ok(Err(_)) => return Err(Refusal::BodyLost),
        Err(_) => return Err(Refusal::BodyTime),
    };
    metrics::count_received(body.len());
    Ok((held, body))
}

async fn answer(relay: Arc<Relay>, request: Request<Body>) -> Result<Vec<u8>, Refusal> {
    let (held, body) = take(&relay, request, POST_BYTES_MAX).await?;
    // A task of its own: a shard that goes away takes neither its frames nor the count of their bytes with it.
    let forwarding = tokio::spawn(async move {
        let _held = held;
        relay.homes.forward(body).await
    });
    match forwarding.await {
        Ok(forwarded) => forwarded.map_err(Refusal::BadPost),
        Err(error) => {
            error!(%error, "forwarding failed");
            Err(Refusal::Ours)
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(AUTHORIZATION)?.as_bytes().strip_prefix(b"Bearer ")
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, sentence) = match self {
            Refusal::Unauthorized => (StatusCode::UNAUTHORIZED, "the relay's bearer token is needed".to_owned()),
            Refusal::TooLarge(bytes_max) => {
                (StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {bytes_max} bytes"))
            }
            Refusal::Full => (StatusCode::SERVICE_UNAVAILABLE, "too much is in work".to_owned()),
            Refusal::BodyTime => (StatusCode::REQUEST_TIMEOUT, "the body didn't come in time".to_owned()),
            Refusal::BodyLost => (StatusCode::BAD_REQUEST, "the body broke off".to_owned()),
            Refusal::BadPost(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Refusal::BadQuestion(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Refusal::Unreachable => (StatusCode::SERVICE_UNAVAILABLE, "the home can't be asked now".to_owned()),
            Refusal::Ours => (StatusCode::INTERNAL_SERVER_ERROR, "the relay failed".to_owned()),
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return (status, [(RETRY_AFTER, "1")], sentence).into_response();
        }
        (status, sentence).into_response()
    }
}
