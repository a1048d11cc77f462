//! `GET` and `PUT /api/v1/clients/{client}/config`, and `GET …/schema-changes`, for operators.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catchment_aggregator_core::{json, rollup};
use catchment_cells::credential::OperatorKey;
use catchment_cells::key::Tier;
use catchment_cells::{ClientId, Secret};
use catchment_config::{Config, NEW_FIELD, NEW_TYPE};
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{error, info};

use super::openapi::{refusals, schemas};
use super::problem::Problem;
use super::{Api, questions};
use crate::clock::now_ms;
use crate::configs::Versioned;

/// Of how long ago schema changes are told, in minutes, as far as hours are kept.
const CHANGES_KEPT: i64 = 30 * 24 * 60;

/// Shows a client's config.
#[utoipa::path(
    get,
    path = "/api/v1/clients/{client}/config",
    tag = "clients",
    operation_id = "show_config",
    params(("client" = String, Path, description = "Its id.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "shop")),
    responses(
        (
            status = 200,
            description = "The config, also of a client of which nothing was ever set.",
            body = schemas::ClientConfig,
            headers(("etag" = String, description = "The config's version, for `If-Match`."))
        ),
        refusals::Operator,
    ),
    security(("operator_key" = []))
)]
pub(super) async fn read(State(api): State<Arc<Api>>, Path(client): Path<String>, headers: HeaderMap) -> Response {
    let answer = authorize(&api.secret, &headers).and_then(|()| client_of(&client));
    match answer {
        Ok(client) => show(&client, &api.configs.get(&client)),
        Err(problem) => problem.into_response(),
    }
}

/// Sets a client's config.
///
/// In place of the whole former one. It is on disk once this answers, and in force within 5 s at every shard that reaches its home.
#[utoipa::path(
    put,
    path = "/api/v1/clients/{client}/config",
    tag = "clients",
    operation_id = "write_config",
    params(
        ("client" = String, Path, description = "Its id.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "shop"),
        ("if-match" = Option<String>, Header, description = "The `ETag` of the config that is to be changed, so that nobody undoes what another has just set."),
    ),
    request_body(content = Config, description = "At most 256 KiB; what is left out is as by default. Bounds are in docs/FORMATS.md."),
    responses(
        (
            status = 200,
            description = "What is set.",
            body = schemas::ClientConfig,
            headers(("etag" = String, description = "The config's version, for `If-Match`."))
        ),
        (status = 412, description = "The config has another version than `If-Match` says.", body = schemas::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body has more than 256 KiB.", body = schemas::Problem, content_type = "application/problem+json"),
        (
            status = 422,
            description = "The config has mistakes: `detail` names each field and says what to do. Or a cube contradicts an earlier one of its name.",
            body = schemas::Problem,
            content_type = "application/problem+json"
        ),
        (status = 500, description = "The store can't be written.", body = schemas::Problem, content_type = "application/problem+json"),
        refusals::Operator,
    ),
    security(("operator_key" = []))
)]
pub(super) async fn write(
    State(api): State<Arc<Api>>,
    Path(client): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answer = async {
        authorize(&api.secret, &headers)?;
        let client = client_of(&client)?;
        let expected = expected(&headers)?;
        let body = body
            .map_err(|rejection| Problem::new(rejection.status(), "the config can't be read", rejection.body_text()))?;
        let config = Config::read(&body).map_err(|mistakes| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the config can't be taken", mistakes)
        })?;
        let configs = api.configs.clone();
        let put = move || {
            let version = configs.put(&client, config, expected)?;
            info!(%client, version, "config set");
            Ok::<_, Problem>(show(&client, &configs.get(&client)))
        };
        // It waits for the disk.
        tokio::task::spawn_blocking(put).await.map_err(|error| {
            error!(%error, "setting a config panicked");
            Problem::ours("the config could not be stored")
        })?
    };
    answer.await.unwrap_or_else(Problem::into_response)
}

/// Lists what events have that no schema knows.
///
/// Types and fields of the last 30 days, as shards reported them.
#[utoipa::path(
    get,
    path = "/api/v1/clients/{client}/schema-changes",
    tag = "clients",
    params(("client" = String, Path, description = "Its id.", pattern = "^[A-Za-z0-9_-]{1,64}$", example = "shop")),
    responses(
        (status = 200, description = "Each with when it was first seen.", body = schemas::SchemaChanges),
        refusals::Operator, refusals::Planned, refusals::Worked,
    ),
    security(("operator_key" = []))
)]
pub(crate) async fn schema_changes(
    State(api): State<Arc<Api>>,
    Path(client): Path<String>,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        authorize(&api.secret, &headers)?;
        let client = client_of(&client)?;
        let (tiers, now) = (api.cells.tiers(&client), now_ms().div_euclid(60_000));
        // Hours of an earlier clock don't fit this one's.
        let from = (now - CHANGES_KEPT).max(tiers.kept_from(Tier::Hour)).max(tiers.since());
        let start = rollup::ceil(Tier::Hour, from.min(now), tiers.time_zone()).min(now);
        let [start, end] = [start, now + 1].map(|minute| json::time(minute).unwrap_or_default());
        let of = [("metric", "received:accepted"), ("start", &start), ("end", &end), ("granularity", "1h")];
        let plan = questions::plan(&api.cells, &client, &of.map(|(name, value)| (name.into(), value.into())))?;
        questions::work(&api, move |cells| {
            let reported = cells.reported(&client, &plan, Instant::now() + questions::ANSWER_MAX)?;
            let changes: Vec<Value> = reported.iter().map(|(reason, first)| change(reason, *first)).collect();
            Ok(questions::json_body(json!({ "changes": changes }).to_string()))
        })
        .await
    };
    questions::respond(answer.await)
}

fn change(reason: &str, first: i64) -> Value {
    let first_seen = Timestamp::from_second(first * 60).map(|time| time.to_string()).ok();
    match (reason.strip_prefix(NEW_TYPE), reason.strip_prefix(NEW_FIELD)) {
        (Some(event_type), _) => json!({ "kind": "type", "name": event_type, "first_seen": first_seen }),
        (_, field) => json!({ "kind": "field", "name": field, "first_seen": first_seen }),
    }
}

fn show(client: &ClientId, Versioned { version, config, unreadable, .. }: &Versioned) -> Response {
    let mut body = json!({ "client": client.as_str(), "version": version, "config": config });
    if let Some(reason) = unreadable {
        body["unreadable"] = reason.as_str().into();
    }
    let etag = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits in quotes are a header's value");
    ([(header::ETAG, etag), (header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string())
        .into_response()
}

/// Lets operators in.
pub(super) fn authorize(secret: &Secret, headers: &HeaderMap) -> Result<(), Problem> {
    let token = super::bearer(headers);
    let token = token.ok_or_else(|| Problem::not_an_operator("send the operator's key as a bearer token"))?;
    OperatorKey::parse(secret, token).map(drop).map_err(Problem::not_an_operator)
}

pub(super) fn client_of(text: &str) -> Result<ClientId, Problem> {
    ClientId::new(text).map_err(|error| Problem::parameter("client", &error.to_string()))
}

/// The version that the config is to have, so that nobody undoes what another has just set.
fn expected(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let version = tag.to_str().ok().and_then(|tag| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    version.map(Some).ok_or_else(|| Problem::parameter("If-Match", "is the ETag of an earlier answer, such as \"7\""))
}
