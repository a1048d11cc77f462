//! Questions and health over HTTP: the one place that knows status codes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use catchment_aggregator_core::{Plan, Question, Watched};
use catchment_cells::credential::ReadKey;
use catchment_cells::estimate::CONFIDENCE;
use catchment_cells::key::Tier;
use catchment_cells::row::Row;
use catchment_cells::{ClientId, Estimate, Secret};
use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Map, Number, Value, json};
use tokio::sync::Semaphore;
use tracing::error;

use crate::cells::{AnswerError, Cells, zone};
use crate::clock::now_ms;
use crate::health::Health;
use crate::metrics;

/// Questions that are worked on at a time.
const QUESTIONS_MAX: usize = 4;
/// How long a question may wait for its turn, and how long it may take.
const WAIT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What requests are answered from.
pub(crate) struct Api {
    pub cells: Arc<Cells>,
    pub secret: Secret,
    pub watched: Arc<Mutex<Watched>>,
    pub health: Arc<Health>,
    pub prometheus: PrometheusHandle,
    /// A permit is a question at work.
    pub questions: Arc<Semaphore>,
}

/// A refusal: RFC 9457.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    /// The parameter that is wrong.
    parameter: Option<String>,
}

impl Api {
    /// An API over the cells.
    pub(crate) fn new(
        cells: Arc<Cells>,
        secret: Secret,
        watched: Arc<Mutex<Watched>>,
        health: Arc<Health>,
        prometheus: PrometheusHandle,
    ) -> Api {
        Api { cells, secret, watched, health, prometheus, questions: Arc::new(Semaphore::new(QUESTIONS_MAX)) }
    }
}

/// The routes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/v1/metrics", get(metrics_question))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .with_state(api)
}

async fn readyz(State(api): State<Arc<Api>>) -> Response {
    match api.health.problem() {
        None => "ready\n".into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}

async fn prometheus(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], api.prometheus.render())
}

async fn metrics_question(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Response {
    let started = Instant::now();
    let response = match answer(&api, &headers, &parameters).await {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(problem) => problem.into_response(),
    };
    metrics::observe_question(response.status().as_u16(), started.elapsed());
    response
}

async fn answer(api: &Arc<Api>, headers: &HeaderMap, parameters: &[(String, String)]) -> Result<String, Problem> {
    let client = authorize(&api.secret, headers)?;
    let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let question = Question::parse(parameters, now_ms(), &zone()).map_err(|error| Problem {
        status: StatusCode::BAD_REQUEST,
        title: "the question can't be understood",
        detail: error.to_string(),
        parameter: Some(error.parameter),
    })?;
    let plan = Plan::new(question, &api.cells.cubes(&client), &zone())
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no cube covers the question", error))?;
    api.watched.lock().unwrap_or_else(PoisonError::into_inner).watch(&client, now_ms());
    let turn = tokio::time::timeout(WAIT_MAX, api.questions.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        let detail = "too many questions are being answered: ask again later";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail));
    };
    let task = {
        let api = api.clone();
        move || {
            // Held to the end of the work, which goes on where whoever asked has gone.
            let _turn = turn;
            answer_now(&api.cells, &client, plan)
        }
    };
    tokio::task::spawn_blocking(task).await.map_err(|error| {
        error!(%error, "a question panicked");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "it's our fault", "the question could not be answered")
    })?
}

/// The answer as JSON, all of it off the threads that serve others.
fn answer_now(cells: &Cells, client: &ClientId, plan: Plan) -> Result<String, Problem> {
    let (cube, tier, question) = (plan.cube.name.clone(), plan.tier(), plan.question.clone());
    let (answer, as_of) = cells.answer(client, plan, Instant::now() + ANSWER_MAX).map_err(Problem::from)?;
    let rows = answer.rows().map_err(|error| Problem::from(AnswerError::from(error)))?;
    let results: Vec<Value> = rows.iter().map(|row| row_json(row, &question)).collect();
    let mut body = json!({
        "meta": {
            "confidence": CONFIDENCE,
            "as_of": as_of.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(|time| time.to_string()),
            "cube": cube,
            "tier": match tier { Tier::Minute => "minute", Tier::Hour => "hour", Tier::Day => "day" },
            "source": "cells",
        },
    });
    // Moved in: the macro would copy them.
    body["results"] = results.into();
    Ok(body.to_string())
}

fn authorize(secret: &Secret, headers: &HeaderMap) -> Result<ClientId, Problem> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        bearer.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let refused = |detail: String| Problem::new(StatusCode::UNAUTHORIZED, "no valid read key", detail);
    let (_, token) = token.ok_or_else(|| refused("send a read key as a bearer token".into()))?;
    ReadKey::parse(secret, token.trim()).map(|key| key.client).map_err(|error| refused(error.to_string()))
}

fn row_json(row: &Row, question: &Question) -> Value {
    let values = question.metrics.iter().zip(&row.figures);
    let values: Map<String, Value> = values
        .map(|(metric, figure)| (metric.name.clone(), figure.as_ref().map_or(Value::Null, figure_json)))
        .collect();
    // Buckets lie between a question's start and end, which came from the calendar.
    let time = Timestamp::from_second(row.bucket * 60).map(|time| time.to_string()).ok();
    json!({ "time": time, "group": row.group, "values": values })
}

fn figure_json(figure: &Estimate) -> Value {
    json!({
        "value": number(figure.value),
        "lower": number(figure.lower),
        "upper": number(figure.upper),
        "exact": figure.exact,
    })
}

/// A whole number without a fraction, as far as it is one in every reader.
fn number(value: f64) -> Value {
    const WHOLE_MAX: f64 = (1u64 << 53) as f64;
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
        Value::from(value as i64)
    } else {
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl ToString) -> Problem {
        Problem { status, title, detail: detail.to_string(), parameter: None }
    }
}

impl From<AnswerError> for Problem {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::TooMuch(error) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too much to answer", error),
            AnswerError::TooLong => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too slow to answer", error),
            AnswerError::Store(error) => {
                error!(%error, "a question failed");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "it's our fault", "the store could not be read")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(parameter) = self.parameter {
            body["parameter"] = parameter.into();
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
