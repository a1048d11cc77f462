//! What is served over HTTP: questions, live views, clients' configs, health, and the dashboard's files. The one place that knows status codes.

mod body;
mod clients;
pub(crate) mod dashboard;
mod dashboards;
mod etag;
mod file;
mod letters;
mod live;
pub(crate) mod openapi;
mod problem;
mod questions;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catchment_aggregator_core::Watched;
use catchment_aggregator_core::limits::DASHBOARD_BYTES_MAX;
use catchment_cells::Secret;
use catchment_cells::limits::CONFIG_BYTES_MAX;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{Semaphore, watch};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::cells::Cells;
use crate::configs::Configs;
use crate::health::Health;
use crate::http::dashboard::Dashboard;
use crate::http::problem::RETRY_AFTER;
use crate::live::Live;

/// Questions that are worked on at a time.
const QUESTIONS_MAX: usize = 4;
/// Connections that speak HTTP at a time. With the WebSockets, which they no longer count among once upgraded, they are
/// well below the unit's LimitNOFILE.
const CONNECTIONS_MAX: usize = 16_384;
/// WebSockets that may be open at a time, with a read key and before one has come.
const SOCKETS_MAX: usize = 10_000;
const STRANGERS_MAX: usize = 1_000;

/// What requests are answered from.
pub(crate) struct Api {
    pub cells: Arc<Cells>,
    pub configs: Arc<Configs>,
    pub secret: Secret,
    pub watched: Arc<Mutex<Watched>>,
    pub live: Live,
    pub dashboard: Dashboard,
    pub health: Arc<Health>,
    pub prometheus: PrometheusHandle,
    /// Whether the process is to end.
    pub stopping: watch::Receiver<bool>,
    pub bounds: Bounds,
}

/// How many of each may be at a time: a permit is one of them.
pub(crate) struct Bounds {
    /// Questions at work.
    pub questions: Arc<Semaphore>,
    /// Open WebSockets.
    pub sockets: Arc<Semaphore>,
    /// Those whose reader hasn't said who it is.
    pub strangers: Arc<Semaphore>,
}

impl Default for Bounds {
    fn default() -> Self {
        let bound = |n| Arc::new(Semaphore::new(n));
        Bounds { questions: bound(QUESTIONS_MAX), sockets: bound(SOCKETS_MAX), strangers: bound(STRANGERS_MAX) }
    }
}

/// What connections are held to.
pub(crate) fn connection_bounds() -> catchment_http::Bounds {
    catchment_http::Bounds::new(CONNECTIONS_MAX)
}

/// The routes, each with its description.
pub(crate) fn routes() -> OpenApiRouter<Arc<Api>> {
    let takes = DefaultBodyLimit::max;
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(questions::metrics, questions::several))
        .routes(routes!(questions::measures))
        .routes(routes!(dashboards::dashboard))
        .routes(routes!(dashboards::list))
        .routes(routes!(dashboards::realtime))
        .routes(routes!(dashboards::show, dashboards::write, dashboards::remove).layer(takes(DASHBOARD_BYTES_MAX)))
        .routes(routes!(letters::letters))
        .routes(routes!(live::upgrade))
        .routes(routes!(clients::read, clients::write).layer(takes(CONFIG_BYTES_MAX)))
        .routes(routes!(clients::schema_changes))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(prometheus))
}

/// What is served: the routes, and files.
pub(crate) fn router(api: Arc<Api>) -> Router {
    routes().split_for_parts().0.fallback(file::file).with_state(api)
}

/// The token that a request shows.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim())
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "process", responses((status = 200, description = "It does.", body = String)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether frames and questions are taken.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "process",
    responses(
        (status = 200, description = "They are.", body = String),
        (
            status = 503,
            description = "They aren't, for the reason that it says.",
            body = String,
            headers(("retry-after" = u32, description = "When to ask again, in s."))
        ),
    )
)]
async fn readyz(State(api): State<Arc<Api>>) -> Response {
    match api.health.problem() {
        None => "ready\n".into_response(),
        Some(problem) => unready(&problem),
    }
}

fn unready(problem: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)], format!("{problem}\n")).into_response()
}

/// The process' own metrics, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "process",
    operation_id = "prometheus",
    responses((status = 200, description = "In Prometheus' text format.", body = String))
)]
async fn prometheus(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], api.prometheus.render())
}

#[cfg(test)]
mod tests {
    use catchment_aggregator_core::answer::TooMuch;

    use super::problem::Problem;
    use super::*;
    use crate::cells::AnswerError;
    use crate::live::LiveError;

    #[test]
    fn whoever_may_come_again_is_told_when() {
        for (answer, again) in [
            (unready("store: the log is full"), true),
            (Problem::busy("too many questions").into_response(), true),
            (Problem::from(AnswerError::TooMuch(TooMuch::Time)).into_response(), true),
            (Problem::from(&LiveError::Busy).into_response(), true),
            (Problem::unauthorized("no key").into_response(), false),
            (Problem::parameter("metric", "is missing").into_response(), false),
            (Problem::ours("the store could not be read").into_response(), false),
        ] {
            let status = answer.status();
            assert_eq!(status == StatusCode::SERVICE_UNAVAILABLE, again, "{status}");
            let told = answer.headers().get(header::RETRY_AFTER);
            let wait_s = told.map(|told| told.to_str().unwrap().parse::<u32>().unwrap());
            assert_eq!(wait_s.is_some_and(|wait_s| wait_s > 0), again, "{status}: {wait_s:?}");
        }
    }
}
