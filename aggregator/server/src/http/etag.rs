//! Answers that need not be sent again: an `ETag` of what they say, and 304 for whoever has that.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use memchr::memmem;

use super::questions::{JSON, Told};

/// Kept by whoever asked, and asked for again before each use: a late event may change any answer.
const CACHE_CONTROL: &str = "private, no-cache";
/// The one part of an answer that moves with every frame, whatever the figures. No text of JSON has it within: there its quotes are
/// escaped.
const AS_OF: &[u8] = b"\"as_of\":";

/// Drawn at random, so that nobody can have two answers with one tag; after a restart every answer is sent once more.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Responds with an answer, or with 304 where the request has it.
pub(crate) fn respond(request: &HeaderMap, (media_type, body): Told) -> Response {
    // The bytes of cells are what they are.
    let tag = if media_type == JSON { tag(&body) } else { tag_of([&body[..]]) };
    let had = is_had(request, &tag);
    let headers = [
        // Digits and quotes are a header's value.
        (header::ETAG, HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))),
        (header::CACHE_CONTROL, HeaderValue::from_static(CACHE_CONTROL)),
        (header::VARY, HeaderValue::from_static("accept, authorization")),
    ];
    match had {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, [(header::CONTENT_TYPE, media_type)], body).into_response(),
    }
}

/// Of what an answer in JSON says, but for when it was so.
fn tag(body: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut rest = body;
    while let Some(at) = memmem::find(rest, AS_OF) {
        parts.push(&rest[..at]);
        let time = &rest[at + AS_OF.len()..];
        rest = time.iter().position(|byte| b",}".contains(byte)).map_or(&[], |end| &time[end..]);
    }
    tag_of(parts.into_iter().chain([rest]))
}

/// A weak tag.
fn tag_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = HASHER.build_hasher();
    parts.into_iter().for_each(|part| hasher.write(part));
    format!("W/\"{:016x}\"", hasher.finish())
}

/// Whether `If-None-Match` names the tag: by weak comparison (RFC 9110, 13.1.2).
fn is_had(request: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let named = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|list| list.split(',')).any(|named| named.trim() == "*" || opaque(named) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "{\"meta\":{\"as_of\":\"2024-01-01T00:00:00Z\",\"cube\":\"total\"},\"results\":[1]}";

    #[test]
    fn a_tag_changes_with_all_but_the_time() {
        let other = |from, to| tag(ANSWER.replace(from, to).as_bytes());
        assert_eq!(tag(ANSWER.as_bytes()), tag(ANSWER.as_bytes()));
        assert_eq!(tag(ANSWER.as_bytes()), other("\"2024-01-01T00:00:00Z\"", "null"));
        // Of several answers, too; and a text that says the same is told apart.
        let several =
            |time: &str, value: u8| tag(format!("[{ANSWER},{{\"meta\":{{\"as_of\":{time}}}}},{value}]").as_bytes());
        assert_eq!(several("null", 1), several("\"2024-01-02T00:00:00Z\"", 1));
        assert_ne!(several("null", 1), several("null", 2));
        assert_ne!(tag(b"[\"\\\"as_of\\\":1\"]"), tag(b"[\"\\\"as_of\\\":2\"]"));
        for (from, to) in [("[1]", "[2]"), ("total", "page"), ("\"cube\"", "\"tier\"")] {
            assert_ne!(tag(ANSWER.as_bytes()), other(from, to));
        }
    }

    #[test]
    fn whoever_names_the_tag_has_the_answer() {
        let tag = tag(ANSWER.as_bytes());
        for (named, status) in [
            (None, 200),
            (Some("*".to_owned()), 304),
            (Some(tag.clone()), 304),
            (Some(tag.trim_start_matches("W/").to_owned()), 304),
            (Some(format!("\"a\", {tag}")), 304),
            (Some("\"a\", W/\"b\"".to_owned()), 200),
            (Some(tag.replace('"', "")), 200),
        ] {
            let mut request = HeaderMap::new();
            named.iter().for_each(|named| _ = request.insert(header::IF_NONE_MATCH, named.parse().unwrap()));
            let response = respond(&request, ("application/json", ANSWER.into()));
            assert_eq!(response.status(), status, "{named:?}");
            assert_eq!(response.headers()[header::ETAG], tag);
            assert_eq!(response.headers()[header::CACHE_CONTROL], CACHE_CONTROL);
        }
    }
}
