//! `GET` and `POST /api/v1/metrics`, and `GET /api/v1/measures`.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catchment_aggregator_core::question::parameters;
use catchment_aggregator_core::{Answer, Plan, Question, Tiers, json};
use catchment_cells::ClientId;
use catchment_cells::credential::ReadKey;
use catchment_cells::estimate::CONFIDENCE;
use catchment_cells::key::Tier;
use catchment_cells::merged;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::error;

use super::openapi::{refusals, schemas};
use super::problem::Problem;
use super::{Api, body, etag};
use crate::cells::{AnswerError, Cells};
use crate::clock::now_ms;
use crate::metrics;

/// How long a question may wait for its turn, and how long it may take.
const WAIT_MAX: Duration = Duration::from_secs(5);
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Questions of one POST, and how many bytes of answers together are enough.
const POST_QUESTIONS_MAX: usize = 32;
const ANSWERS_BYTES_MAX: usize = 32 << 20;

/// Answers a question.
///
/// Which metrics, over which time, cut into which buckets, grouped by what, of which events. Whoever asks makes the client watched for 10 s: its
/// events are then counted within a second.
///
/// With `Accept: application/vnd.catchment.cells` the answer is the merged cells themselves, which programs merge further: without `window`,
/// `compare`, metrics of one event type, ratios, and filters about values that were folded into `(other)`.
#[utoipa::path(
    get,
    path = "/api/v1/metrics",
    tag = "questions",
    params(schemas::QuestionParameters, schemas::RangeParameters, ("if-none-match" = Option<String>, Header, description = "The `ETag` of an answer that is had.")),
    responses(
        (
            status = 200,
            description = "Figures with their bounds.",
            headers(("etag" = String, description = "Of all that the answer says but `as_of`.")),
            content((schemas::Answer = "application/json"), (Vec<u8> = "application/vnd.catchment.cells"))
        ),
        (status = 304, description = "As `If-None-Match` has it."),
        refusals::Asked, refusals::Reader, refusals::Planned, refusals::Worked,
    ),
    security(("read_key" = []))
)]
pub(crate) async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let started = Instant::now();
    let parameters = parameters(query.as_deref().unwrap_or_default());
    let answer = async {
        let client = authorize_headers(&api, &headers)?;
        let plan = plan(&api.cells, &client, &parameters)?;
        let wants_cells = accepts(&headers, merged::MEDIA_TYPE);
        if wants_cells {
            plan.question.check_cells().map_err(Problem::from)?;
        }
        watch(&api, &client);
        work(&api, move |cells| {
            let deadline = Instant::now() + ANSWER_MAX;
            match wants_cells {
                true => cells_now(cells, &client, plan, deadline).map(|cells| (merged::MEDIA_TYPE, cells)),
                false => answer_now(cells, &client, plan, deadline).map(json_body),
            }
        })
        .await
    };
    let response = match answer.await {
        Ok(answer) => etag::respond(&headers, answer),
        Err(problem) => problem.into_response(),
    };
    metrics::observe_question(response.status().as_u16(), started.elapsed());
    response
}

/// Answers several questions, each by itself.
///
/// What is refused of them stands in the answer, in its place. Together they take no longer than one question may; beyond 32 MiB of answers the
/// rest is refused.
#[utoipa::path(
    post,
    path = "/api/v1/metrics",
    tag = "questions",
    operation_id = "several_metrics",
    request_body(content = schemas::Questions, description = "At most 256 KiB."),
    responses(
        (status = 200, description = "An answer for each question, in their order.", body = schemas::Answers),
        (status = 408, description = "The body took more than 10 s.", body = schemas::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body has more than 256 KiB.", body = schemas::Problem, content_type = "application/problem+json"),
        refusals::Asked, refusals::Reader, refusals::Worked,
    ),
    security(("read_key" = []))
)]
pub(crate) async fn several(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Response {
    let started = Instant::now();
    let answer = async {
        let client = authorize_headers(&api, &headers)?;
        let body = body::read(body).await?;
        let asked: Value = serde_json::from_slice(&body)
            .map_err(|error| Problem::parameter("questions", &format!("the body is no JSON: {error}")))?;
        let Some(questions) = asked.get("questions").and_then(Value::as_array) else {
            return Err(Problem::parameter("questions", "the body is {\"questions\":[…]}"));
        };
        if !(1..=POST_QUESTIONS_MAX).contains(&questions.len()) {
            let problem = format!("1 to {POST_QUESTIONS_MAX} are asked at a time: ask the others in another POST");
            return Err(Problem::parameter("questions", &problem));
        }
        let tiers = api.cells.tiers(&client);
        let plan = |json| {
            let question = Question::from_json(json, now_ms(), tiers.time_zone()).map_err(Problem::from)?;
            plan_question(&api.cells, &client, question, &tiers)
        };
        let plans: Vec<Result<Plan, Problem>> = questions.iter().map(plan).collect();
        watch(&api, &client);
        work(&api, move |cells| {
            let answers = answer_each(cells, &client, plans).join(",");
            Ok(json_body(format!("{{\"answers\":[{answers}]}}")))
        })
        .await
    };
    let response = respond(answer.await);
    metrics::observe_question(response.status().as_u16(), started.elapsed());
    response
}

/// Names the measures that events of a range have.
#[utoipa::path(
    get,
    path = "/api/v1/measures",
    tag = "questions",
    params(schemas::RangeParameters),
    responses(
        (status = 200, description = "The names.", body = schemas::Measures),
        refusals::Asked, refusals::Reader, refusals::Planned, refusals::Worked,
    ),
    security(("read_key" = []))
)]
pub(crate) async fn measures(State(api): State<Arc<Api>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let mut parameters = parameters(query.as_deref().unwrap_or_default());
    let answer = async {
        let client = authorize_headers(&api, &headers)?;
        if let Some((name, _)) = parameters.iter().find(|(name, _)| !matches!(&**name, "start" | "end" | "last")) {
            return Err(Problem::parameter(name, "there is no such parameter"));
        }
        // Every measure of an event is in the cube that any question about events is answered from.
        parameters.push(("metric".into(), "events".into()));
        let plan = plan(&api.cells, &client, &parameters)?;
        work(&api, move |cells| {
            let measures = cells.measures(&client, plan, Instant::now() + ANSWER_MAX)?;
            Ok(json_body(json!({ "measures": measures }).to_string()))
        })
        .await
    };
    respond(answer.await)
}

/// Reads a read key: whose figures may be told, unless it was revoked.
pub(crate) fn authorize(api: &Api, token: &str) -> Result<ReadKey, Problem> {
    let key = ReadKey::parse(&api.secret, token.trim()).map_err(Problem::unauthorized)?;
    if is_revoked(api, &key) { Err(Problem::unauthorized("the read key was revoked")) } else { Ok(key) }
}

/// Whether a client's config revokes a read key.
pub(super) fn is_revoked(api: &Api, key: &ReadKey) -> bool {
    key.generation < api.configs.get(&key.client).config.keys.read_generation_min
}

/// Understands a question and plans it.
pub(crate) fn plan(cells: &Cells, client: &ClientId, parameters: &[(String, String)]) -> Result<Plan, Problem> {
    let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let tiers = cells.tiers(client);
    let question = Question::parse(parameters, now_ms(), tiers.time_zone()).map_err(Problem::from)?;
    plan_question(cells, client, question, &tiers)
}

pub(super) fn plan_question(
    cells: &Cells,
    client: &ClientId,
    question: Question,
    tiers: &Arc<Tiers>,
) -> Result<Plan, Problem> {
    Plan::of(question, &cells.cubes(client), tiers).map_err(|error| (&error).into())
}

/// Whoever is asked about is looked at.
pub(super) fn watch(api: &Api, client: &ClientId) {
    api.watched.lock().unwrap_or_else(PoisonError::into_inner).watch(client, now_ms());
}

/// Has a question worked on off the threads that serve others, in its turn.
pub(crate) async fn work<T: Send + 'static>(
    api: &Arc<Api>,
    work: impl FnOnce(&Cells) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
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

pub(super) const JSON: &str = "application/json";

/// An answer's media type, and its body.
pub(super) type Told = (&'static str, Vec<u8>);

pub(crate) fn json_body(json: String) -> Told {
    (JSON, json.into_bytes())
}

/// Whether a media type is asked for by name.
fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(media_type)))
}

pub(crate) fn respond(answer: Result<Told, Problem>) -> Response {
    match answer {
        Ok((media_type, body)) => ([(header::CONTENT_TYPE, media_type)], body).into_response(),
        Err(problem) => problem.into_response(),
    }
}

pub(crate) fn authorize_headers(api: &Api, headers: &HeaderMap) -> Result<ClientId, Problem> {
    let token = super::bearer(headers).ok_or_else(|| Problem::unauthorized("send a read key as a bearer token"))?;
    authorize(api, token).map(|key| key.client)
}

/// Each answer as JSON, or what it is refused for, in the order of the plans.
pub(super) fn answer_each(cells: &Cells, client: &ClientId, plans: Vec<Result<Plan, Problem>>) -> Vec<String> {
    let deadline = Instant::now() + ANSWER_MAX;
    let mut bytes = 0;
    let mut answer = |plan: Result<Plan, Problem>| {
        let enough = || {
            let detail = "the answers before it are long enough: ask it by itself";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too much to answer", detail)
        };
        let plan = plan.and_then(|plan| if bytes > ANSWERS_BYTES_MAX { Err(enough()) } else { Ok(plan) });
        let answer = plan.and_then(|plan| answer_now(cells, client, plan, deadline));
        let answer = answer.unwrap_or_else(|problem| json!({ "problem": problem.json() }).to_string());
        bytes += answer.len();
        answer
    };
    plans.into_iter().map(&mut answer).collect()
}

/// The merged cells that answer.
fn cells_now(cells: &Cells, client: &ClientId, plan: Plan, deadline: Instant) -> Result<Vec<u8>, Problem> {
    let answered = cells.answer(client, Answer::new(plan).keeping_cells(), deadline)?;
    Ok(answered.answer.merged(answered.as_of).map_err(AnswerError::from)?.encode())
}

/// The answer as JSON.
fn answer_now(cells: &Cells, client: &ClientId, plan: Plan, deadline: Instant) -> Result<String, Problem> {
    let (cube, tier, question) = (plan.cube.name.clone(), plan.tier(), plan.question.clone());
    let (tiers, before) = (plan.tiers.clone(), plan.before().map_err(AnswerError::from)?);
    let answered = cells.answer(client, Answer::new(plan), deadline)?;
    let before = before.map(|before| cells.answer(client, Answer::new(before), deadline)).transpose()?;
    let before = before.as_ref().map(|before| &before.answer);
    let rows = answered.answer.rows_beside(before, &|| Instant::now() < deadline).map_err(AnswerError::from)?;
    let mut meta = json!({
        "confidence": CONFIDENCE,
        "as_of": answered.as_of.and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(|time| time.to_string()),
        "cube": cube,
        "tier": match tier { Tier::Minute => "minute", Tier::Hour => "hour", Tier::Day => "day" },
        "source": "cells",
        "time_zone": tiers.zone().name(),
    });
    let folded = answered.answer.folded_dimensions();
    if !folded.is_empty() {
        meta["folded"] = json!(folded);
    }
    if let Some((start, end)) = question.before {
        meta["before"] = json!({ "start": json::time(start), "end": json::time(end) });
    }
    json::answer(&meta, &rows, &question).map_err(|error| {
        error!(%error, "an answer can't be written");
        Problem::ours("the question could not be answered")
    })
}
