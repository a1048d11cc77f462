//! `GET /api/v1/metrics` and `GET /api/v1/measures`.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catchment_aggregator_core::question::parameters;
use catchment_aggregator_core::{Answer, Plan, Question};
use catchment_cells::credential::ReadKey;
use catchment_cells::estimate::CONFIDENCE;
use catchment_cells::key::Tier;
use catchment_cells::row::Row;
use catchment_cells::{ClientId, Estimate, Secret};
use jiff::Timestamp;
use serde_json::{Map, Number, Value, json};
use tracing::error;

use super::Api;
use super::problem::Problem;
use crate::cells::{AnswerError, Cells, zone};
use crate::clock::now_ms;
use crate::metrics;

/// How long a question may wait for its turn, and how long it may take.
const WAIT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// `GET /api/v1/metrics`.
pub(crate) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let started = Instant::now();
    let parameters = parameters(query.as_deref().unwrap_or_default());
    let answer = async {
        let client = authorize_headers(&api.secret, &headers)?;
        let plan = plan(&api.cells, &client, &parameters)?;
        api.watched.lock().unwrap_or_else(PoisonError::into_inner).watch(&client, now_ms());
        work(&api, move |cells| answer_now(cells, &client, plan)).await
    };
    let response = respond(answer.await);
    metrics::observe_question(response.status().as_u16(), started.elapsed());
    response
}

/// `GET /api/v1/measures`: the measures that events of a range have.
pub(crate) async fn measures(State(api): State<Arc<Api>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let mut parameters = parameters(query.as_deref().unwrap_or_default());
    let answer = async {
        let client = authorize_headers(&api.secret, &headers)?;
        if let Some((name, _)) = parameters.iter().find(|(name, _)| !matches!(&**name, "start" | "end" | "last")) {
            return Err(Problem::parameter(name, "there is no such parameter"));
        }
        // Every measure of an event is in the cube that any question about events is answered from.
        parameters.push(("metric".into(), "events".into()));
        let plan = plan(&api.cells, &client, &parameters)?;
        work(&api, move |cells| {
            let measures = cells.measures(&client, plan, Instant::now() + ANSWER_MAX)?;
            Ok(json!({ "measures": measures }).to_string())
        })
        .await
    };
    respond(answer.await)
}

/// Reads a read key: whose figures may be told.
pub(crate) fn authorize(secret: &Secret, token: &str) -> Result<ClientId, Problem> {
    ReadKey::parse(secret, token.trim()).map(|key| key.client).map_err(Problem::unauthorized)
}

/// Understands a question and plans it.
pub(crate) fn plan(cells: &Cells, client: &ClientId, parameters: &[(String, String)]) -> Result<Plan, Problem> {
    let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let question = Question::parse(parameters, now_ms(), &zone()).map_err(Problem::from)?;
    Plan::new(question, &cells.cubes(client), &zone())
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no cube covers the question", error))
}

/// Has a question worked on off the threads that serve others, in its turn.
async fn work(
    api: &Arc<Api>,
    work: impl FnOnce(&Cells) -> Result<String, Problem> + Send + 'static,
) -> Result<String, Problem> {
    let turn = tokio::time::timeout(WAIT_MAX, api.bounds.questions.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        return Err(Problem::busy("too many questions are being answered: ask again later"));
    };
    let cells = api.cells.clone();
    let task = move || {
        // Held to the end of the work, which goes on where whoever asked has gone.
        let _turn = turn;
        work(&cells)
    };
    tokio::task::spawn_blocking(task).await.map_err(|error| {
        error!(%error, "a question panicked");
        Problem::ours("the question could not be answered")
    })?
}

fn respond(answer: Result<String, Problem>) -> Response {
    match answer {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn authorize_headers(secret: &Secret, headers: &HeaderMap) -> Result<ClientId, Problem> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        bearer.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = token.ok_or_else(|| Problem::unauthorized("send a read key as a bearer token"))?;
    authorize(secret, token)
}

/// The answer as JSON.
fn answer_now(cells: &Cells, client: &ClientId, plan: Plan) -> Result<String, Problem> {
    let (cube, tier, question) = (plan.cube.name.clone(), plan.tier(), plan.question.clone());
    let answered = cells.answer(client, Answer::new(plan), Instant::now() + ANSWER_MAX)?;
    let rows = answered.answer.rows().map_err(AnswerError::from)?;
    let results: Vec<Value> = rows.iter().map(|row| row_json(row, &question)).collect();
    let mut body = json!({
        "meta": {
            "confidence": CONFIDENCE,
            "as_of": answered.as_of.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(|time| time.to_string()),
            "cube": cube,
            "tier": match tier { Tier::Minute => "minute", Tier::Hour => "hour", Tier::Day => "day" },
            "source": "cells",
        },
    });
    // Moved in: the macro would copy them.
    body["results"] = results.into();
    Ok(body.to_string())
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
