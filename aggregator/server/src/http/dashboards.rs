//! `GET /api/v1/dashboard`, `/api/v1/dashboards` and `/api/v1/realtime`: stored questions, answered together; and how operators store them.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use catchment_aggregator_core::dashboard::Dashboard;
use catchment_aggregator_core::limits::CLIENT_DASHBOARDS_MAX;
use catchment_aggregator_core::question::parameters;
use catchment_cells::ClientId;
use catchment_cells::limits::NAME_BYTES_MAX;
use serde_json::{Value, json};

use super::openapi::{refusals, schemas};
use super::problem::Problem;
use super::questions::{Told, answer_each, authorize_headers, json_body, plan_question, respond, watch, work};
use super::{Api, clients, etag};
use crate::cells::{AnswerError, Cells};
use crate::clock::now_ms;
use crate::metrics;

/// Answers the questions of a dashboard together.
///
/// Every client has `homepage` and `realtime`, unless it has others of these names.
#[utoipa::path(
    get,
    path = "/api/v1/dashboard",
    tag = "dashboards",
    params(
        ("dashboard_id" = String, Query, description = "Its id.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "homepage"),
        ("if-none-match" = Option<String>, Header, description = "The `ETag` of an answer that is had."),
    ),
    responses(
        (
            status = 200,
            description = "An answer for each question, by its name.",
            body = schemas::NamedAnswers,
            headers(("etag" = String, description = "Of all that the answer says but `as_of`."))
        ),
        (status = 304, description = "As `If-None-Match` has it."),
        (status = 404, description = "There is no such dashboard.", body = schemas::Problem, content_type = "application/problem+json"),
        refusals::Asked, refusals::Reader, refusals::Worked,
    ),
    security(("read_key" = []))
)]
pub(crate) async fn dashboard(State(api): State<Arc<Api>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let parameters = parameters(query.as_deref().unwrap_or_default());
    match &parameters[..] {
        [(name, id)] if name == "dashboard_id" => answer(api, headers, id.clone()).await,
        [] => Problem::parameter("dashboard_id", "it is missing: it names a dashboard, as in homepage").into_response(),
        [(name, _)] if name != "dashboard_id" => Problem::parameter(name, "there is no such parameter").into_response(),
        [_, (name, _), ..] | [(name, _)] => {
            Problem::parameter(name, "dashboard_id is all that is taken, once").into_response()
        }
    }
}

/// Answers what is going on right now.
///
/// The dashboard of the name `realtime`: who is active, and of the last 30 minutes the events by minute, pages, categories, products, channels,
/// countries and devices.
#[utoipa::path(
    get,
    path = "/api/v1/realtime",
    tag = "dashboards",
    params(("if-none-match" = Option<String>, Header, description = "The `ETag` of an answer that is had.")),
    responses(
        (
            status = 200,
            description = "An answer for each question, by its name.",
            body = schemas::NamedAnswers,
            headers(("etag" = String, description = "Of all that the answer says but `as_of`."))
        ),
        (status = 304, description = "As `If-None-Match` has it."),
        refusals::Reader, refusals::Worked,
    ),
    security(("read_key" = []))
)]
pub(crate) async fn realtime(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    answer(api, headers, "realtime".into()).await
}

/// Lists the dashboards that a client has.
#[utoipa::path(
    get,
    path = "/api/v1/dashboards",
    tag = "dashboards",
    operation_id = "dashboards",
    responses((status = 200, description = "Their ids.", body = schemas::Dashboards), refusals::Reader, refusals::Worked),
    security(("read_key" = []))
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let answer = async {
        let client = authorize_headers(&api, &headers)?;
        work(&api, move |cells| {
            let mut ids = cells.store().dashboard_ids(&client).map_err(AnswerError::from)?;
            ids.extend(Dashboard::built_in_ids().map(str::to_owned));
            ids.sort();
            ids.dedup();
            Ok(json_body(json!({ "dashboards": ids }).to_string()))
        })
        .await
    };
    respond(answer.await)
}

/// The answers to a dashboard's questions, by their names.
async fn answer(api: Arc<Api>, headers: HeaderMap, id: String) -> Response {
    let started = Instant::now();
    let answer = async {
        let client = authorize_headers(&api, &headers)?;
        watch(&api, &client);
        work(&api, move |cells| answers(cells, &client, &id)).await
    };
    let response = match answer.await {
        Ok(answer) => etag::respond(&headers, answer),
        Err(problem) => problem.into_response(),
    };
    metrics::observe_question(response.status().as_u16(), started.elapsed());
    response
}

fn answers(cells: &Cells, client: &ClientId, id: &str) -> Result<Told, Problem> {
    let dashboard = find(cells, client, id)?;
    let tiers = cells.tiers(client);
    let plan = |question| plan_question(cells, client, question, &tiers);
    let (names, plans): (Vec<&str>, Vec<_>) = dashboard
        .questions(now_ms(), tiers.time_zone())
        .map(|(name, question)| (name, question.map_err(Problem::from).and_then(plan)))
        .unzip();
    let answers = answer_each(cells, client, plans);
    let named = names.iter().zip(answers).map(|(name, answer)| format!("{}:{answer}", Value::from(*name)));
    Ok(json_body(format!("{{\"answers\":{{{}}}}}", named.collect::<Vec<_>>().join(","))))
}

/// The client's own of this name, or else what every client has.
fn find(cells: &Cells, client: &ClientId, id: &str) -> Result<Dashboard, Problem> {
    let own = cells.store().dashboard(client, id).map_err(AnswerError::from)?;
    own.or_else(|| Dashboard::built_in(id)).ok_or_else(|| {
        let detail = "there is no dashboard of this name: /api/v1/dashboards lists those that there are";
        Problem::new(StatusCode::NOT_FOUND, "no such dashboard", detail)
    })
}

/// Shows a client's dashboard.
#[utoipa::path(
    get,
    path = "/api/v1/clients/{client}/dashboards/{id}",
    tag = "dashboards",
    operation_id = "show_dashboard",
    params(
        ("client" = String, Path, description = "The client's id.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "shop"),
        ("id" = String, Path, description = "The dashboard's.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "homepage"),
    ),
    responses(
        (status = 200, description = "Its questions.", body = schemas::Dashboard),
        (status = 404, description = "There is no such dashboard.", body = schemas::Problem, content_type = "application/problem+json"),
        refusals::Operator, refusals::Worked,
    ),
    security(("operator_key" = []))
)]
pub(super) async fn show(State(api): State<Arc<Api>>, path: Path<(String, String)>, headers: HeaderMap) -> Response {
    let answer = async {
        let (client, id) = authorize(&api, &headers, &path)?;
        work(&api, move |cells| Ok(json_body(json!(find(cells, &client, &id)?).to_string()))).await
    };
    respond(answer.await)
}

/// Stores a client's dashboard.
///
/// In place of the one of this id, if there is one.
#[utoipa::path(
    put,
    path = "/api/v1/clients/{client}/dashboards/{id}",
    tag = "dashboards",
    operation_id = "write_dashboard",
    params(
        ("client" = String, Path, description = "The client's id.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "shop"),
        ("id" = String, Path, description = "The dashboard's.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "homepage"),
    ),
    request_body(content = schemas::Dashboard, description = "At most 64 KiB. Each question must be one that can be understood."),
    responses(
        (status = 200, description = "What is stored.", body = schemas::Dashboard),
        (status = 413, description = "The body has more than 64 KiB.", body = schemas::Problem, content_type = "application/problem+json"),
        (status = 422, description = "The client has 100 dashboards.", body = schemas::Problem, content_type = "application/problem+json"),
        refusals::Operator, refusals::Worked,
    ),
    security(("operator_key" = []))
)]
pub(super) async fn write(
    State(api): State<Arc<Api>>,
    path: Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answer = async {
        let (client, id) = authorize(&api, &headers, &path)?;
        let body = body.map_err(|rejection| {
            Problem::new(rejection.status(), "the dashboard can't be read", rejection.body_text())
        })?;
        let dashboard =
            Dashboard::read(&body, now_ms(), api.cells.tiers(&client).time_zone()).map_err(Problem::from)?;
        work(&api, move |cells| {
            let ids = cells.store().dashboard_ids(&client).map_err(AnswerError::from)?;
            if ids.len() >= CLIENT_DASHBOARDS_MAX && !ids.contains(&id) {
                let detail = format!("a client has at most {CLIENT_DASHBOARDS_MAX} dashboards: remove one");
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too many dashboards", detail));
            }
            cells.store().set_dashboard(&client, &id, Some(&dashboard)).map_err(AnswerError::from)?;
            Ok(json_body(json!(dashboard).to_string()))
        })
        .await
    };
    respond(answer.await)
}

/// Removes a client's dashboard.
///
/// Also where there is none. Where every client has one of this id, the client has that again.
#[utoipa::path(
    delete,
    path = "/api/v1/clients/{client}/dashboards/{id}",
    tag = "dashboards",
    operation_id = "remove_dashboard",
    params(
        ("client" = String, Path, description = "The client's id.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "shop"),
        ("id" = String, Path, description = "The dashboard's.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "homepage"),
    ),
    responses((status = 204, description = "The client has none of its own."), refusals::Operator, refusals::Worked),
    security(("operator_key" = []))
)]
pub(super) async fn remove(State(api): State<Arc<Api>>, path: Path<(String, String)>, headers: HeaderMap) -> Response {
    let answer = async {
        let (client, id) = authorize(&api, &headers, &path)?;
        work(&api, move |cells| Ok(cells.store().set_dashboard(&client, &id, None).map_err(AnswerError::from)?)).await
    };
    match answer.await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Lets operators in, to a dashboard whose name can be one.
fn authorize(
    api: &Api,
    headers: &HeaderMap,
    Path((client, id)): &Path<(String, String)>,
) -> Result<(ClientId, String), Problem> {
    clients::authorize(&api.secret, headers)?;
    let client = clients::client_of(client)?;
    if id.is_empty()
        || id.len() > NAME_BYTES_MAX
        || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    {
        return Err(Problem::parameter("dashboard_id", "it has 1 to 64 characters of A-Z a-z 0-9 _ -"));
    }
    Ok((client, id.clone()))
}
