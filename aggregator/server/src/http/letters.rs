//! `GET /api/v1/dead-letters`: the events of a client that were not counted.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use catchment_aggregator_core::letters::{LetterId, Letters, Page};
use catchment_aggregator_core::question::parameters;
use catchment_cells::frame::DeadLetter;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Api;
use super::openapi::{refusals, schemas};
use super::questions::{authorize_headers, work};
use crate::cells::AnswerError;

/// Lines of JSON, as an edge takes them.
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

#[derive(Serialize)]
struct Listing<'a> {
    letters: Vec<Listed<'a>>,
    /// What the page after this one comes `after`.
    next: Option<String>,
}

#[derive(Serialize)]
struct Listed<'a> {
    id: String,
    received_at: Option<String>,
    reason: &'a str,
    /// The event, where it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    /// What came in its place, where it isn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

/// Gives back events that were rejected.
///
/// With `Accept: application/x-ndjson` alone, those that are JSON objects, one a line: a body that an edge takes, as a backfill's key may send
/// it again.
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters",
    tag = "events",
    operation_id = "dead_letters",
    params(schemas::LetterParameters),
    responses(
        (
            status = 200,
            description = "A page of them.",
            headers(("link" = String, description = "Of lines, where more follow: `<?…>; rel=\"next\"` (RFC 8288).")),
            content((schemas::Letters = "application/json"), (String = "application/x-ndjson"))
        ),
        refusals::Asked, refusals::Reader, refusals::Worked,
    ),
    security(("read_key" = []))
)]
pub(crate) async fn letters(State(api): State<Arc<Api>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let answer = async {
        let client = authorize_headers(&api, &headers)?;
        let asked = Letters::parse(&parameters(query.as_deref().unwrap_or_default()))?;
        let is_lines = headers.get(header::ACCEPT) == Some(&NDJSON);
        work(&api, move |cells| {
            let mut page = Page::new(&asked);
            let letters = cells.store().letters();
            letters
                .visit(&client, asked.order, asked.after, |id, letter| page.visit(id, letter))
                .map_err(AnswerError::from)?;
            if is_lines {
                return Ok(lines(&asked, &page));
            }
            let listing = Listing {
                letters: page.letters.iter().map(listed).collect(),
                next: page.next().map(|id| id.to_string()),
            };
            // Strings and JSON that was read: neither fails.
            let body = serde_json::to_vec(&listing).unwrap_or_default();
            Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
        })
        .await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

fn listed((id, letter): &(LetterId, DeadLetter)) -> Listed<'_> {
    let event = serde_json::from_str(&letter.event).ok();
    Listed {
        id: id.to_string(),
        received_at: Timestamp::from_millisecond(letter.received_at).ok().map(|time| time.to_string()),
        reason: &letter.reason,
        event,
        text: event.is_none().then_some(&letter.event),
    }
}

/// The events that are JSON objects, one a line; where the next page is stands in the header `link` (RFC 8288).
fn lines(asked: &Letters, page: &Page) -> Response {
    let mut body = String::new();
    for (_, letter) in &page.letters {
        if letter.event.starts_with('{') && serde_json::from_str::<&RawValue>(&letter.event).is_ok() {
            // No text of JSON has a line's end in it: these are between its parts.
            body.extend(letter.event.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
            body.push('\n');
        }
    }
    let mut response = ([(header::CONTENT_TYPE, NDJSON)], body).into_response();
    let next = page.next().map(|id| format!("<?{}>; rel=\"next\"", asked.query_after(id)));
    if let Some(link) = next.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}
