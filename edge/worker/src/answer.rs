//! What is answered over HTTP. The only place that knows status codes.

use std::cell::RefCell;
use std::collections::BTreeMap;

use catchment_cells::ack::Status;
use catchment_cells::route::Epoch;
use catchment_collector::{Outcome, RequestError};
use serde::Serialize;
use thiserror::Error;
use worker::{Headers, Response};

thread_local! {
    /// Requests that this isolate refused, by reason.
    static REFUSED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    /// Frames that shards of this isolate parked, by what their home said.
    static PARKED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts a frame that was parked.
pub(crate) fn count_parked(status: Status) {
    PARKED.with_borrow_mut(|parked| *parked.entry(status.as_str()).or_default() += 1);
}

/// Why a request is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// No such path.
    #[error("there is nothing here; events go to POST /v1/events")]
    NotFound,
    /// The path takes another method.
    #[error("events are sent with POST")]
    Method,
    /// The write key is missing, malformed, forged or revoked.
    #[error("the write key is missing or unknown, or was revoked")]
    Key,
    /// The route is none.
    #[error("the route is malformed")]
    Route,
    /// The route is of a placement that is not in force.
    #[error("the route's epoch is unknown; the present one is {present}")]
    Epoch {
        /// The epoch for new routes.
        present: Epoch,
        /// How long ago the route's map ended, if that is known.
        ended_ms_ago: Option<i64>,
    },
    /// The body is refused.
    #[error("{0}")]
    Body(#[from] RequestError),
    /// The client has used its share of a shard that others need, too: nothing was taken.
    #[error("the client has used its share of the shard; try again later, with routes of the epoch {epoch}")]
    OverQuota {
        /// When to try again.
        retry_after_s: u32,
        /// The epoch for new routes, which lead to shards of the client's own.
        epoch: Epoch,
    },
    /// The client sends more events than its operator lets it: nothing was taken.
    #[error("the client has more events a second than its config's limits.events_per_s; try again later")]
    OverLimit {
        /// When to try again.
        retry_after_s: u32,
    },
    /// Too many requests are in work: nothing was taken.
    #[error("too many requests are in work; try again later")]
    Busy,
    /// Too much is waiting, or remembered: nothing was taken.
    #[error("the shard has no room; try again later")]
    Full,
    /// No answer in time, or storage failed: whether the events were taken is not known.
    #[error("the shard does not answer; try again later")]
    Unavailable,
    /// The deployment's settings are wrong.
    #[error("the deployment is misconfigured")]
    Misconfigured,
}

#[derive(Serialize)]
struct Accepted<'a> {
    #[serde(flatten)]
    outcome: &'a Outcome,
    flush_ms: u32,
    epoch: u32,
}

#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms_ago: Option<i64>,
}

impl Refusal {
    /// The name that answers and counters carry.
    fn name(&self) -> &'static str {
        match self {
            Refusal::NotFound => "not_found",
            Refusal::Method => "method",
            Refusal::Key => "key",
            Refusal::Route => "route",
            Refusal::Epoch { .. } => "unknown_epoch",
            Refusal::Body(error) => error.as_str(),
            Refusal::OverQuota { .. } => "over_quota",
            Refusal::OverLimit { .. } => "over_limit",
            Refusal::Busy => "busy",
            Refusal::Full => "full",
            Refusal::Unavailable => "unavailable",
            Refusal::Misconfigured => "misconfigured",
        }
    }

    fn status(&self) -> u16 {
        match self {
            Refusal::NotFound => 404,
            Refusal::Method => 405,
            Refusal::Key => 401,
            Refusal::Body(RequestError::TooLarge | RequestError::TooManyEvents) => 413,
            Refusal::Route | Refusal::Epoch { .. } | Refusal::Body(_) => 400,
            Refusal::OverQuota { .. } | Refusal::OverLimit { .. } => 429,
            Refusal::Busy | Refusal::Full | Refusal::Unavailable => 503,
            Refusal::Misconfigured => 500,
        }
    }

    /// Seconds after which to try again.
    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Refusal::OverQuota { retry_after_s, .. } | Refusal::OverLimit { retry_after_s } => Some(*retry_after_s),
            Refusal::Full => Some(5),
            Refusal::Busy | Refusal::Unavailable => Some(1),
            _ => None,
        }
    }

    /// The epoch for new routes, for a sender that knows of another.
    fn epoch(&self) -> Option<u32> {
        match self {
            Refusal::Epoch { present: epoch, .. } | Refusal::OverQuota { epoch, .. } => Some(epoch.number()),
            _ => None,
        }
    }

    /// How long ago the routes of an earlier map were last taken: who sent before that may have been counted there.
    fn ended_ms_ago(&self) -> Option<i64> {
        if let Refusal::Epoch { ended_ms_ago, .. } = self { *ended_ms_ago } else { None }
    }

    /// The refusal, counted by its reason.
    pub(crate) fn counted(self) -> Self {
        REFUSED.with_borrow_mut(|refused| *refused.entry(self.name()).or_default() += 1);
        self
    }

    /// The answer.
    pub(crate) fn response(&self) -> Response {
        let retry_after = self.retry_after_s().map(|s| s.to_string());
        let headers: Vec<_> = retry_after.iter().map(|s| ("retry-after", &**s)).collect();
        let refused = Refused {
            error: self.name(),
            detail: self.to_string(),
            epoch: self.epoch(),
            ended_ms_ago: self.ended_ms_ago(),
        };
        json(self.status(), &headers, &refused)
    }
}

/// What this isolate refused and parked, by reason, for Prometheus.
pub(crate) fn metrics() -> Response {
    let mut text = String::new();
    let mut write = |name: &str, counts: &BTreeMap<&str, u64>| {
        text.push_str(&format!("# TYPE {name} counter\n"));
        for (reason, n) in counts {
            text.push_str(&format!("{name}{{reason=\"{reason}\"}} {n}\n"));
        }
    };
    REFUSED.with_borrow(|refused| write("catchment_edge_refused_total", refused));
    PARKED.with_borrow(|parked| write("catchment_edge_parked_frames_total", parked));
    respond(200, &[("content-type", "text/plain; version=0.0.4")], text.into_bytes())
}

/// 202: the events are in the shard's storage.
pub(crate) fn accepted(outcome: &Outcome, flush_ms: u32, epoch: Epoch) -> Response {
    json(202, &[], &Accepted { outcome, flush_ms, epoch: epoch.number() })
}

/// The answer to a browser that asks whether a page may send events: any page may.
pub(crate) fn preflight() -> Response {
    let headers = [
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type, x-catchment-key, x-catchment-route"),
        ("access-control-max-age", "86400"),
    ];
    respond(204, &headers, Vec::new())
}

/// JSON with a status.
pub(crate) fn json(status: u16, headers: &[(&str, &str)], value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
    respond(status, &headers, body)
}

fn respond(status: u16, given: &[(&str, &str)], body: Vec<u8>) -> Response {
    let headers = Headers::new();
    // Any page may read an answer, and when to try again.
    let open = [("access-control-allow-origin", "*"), ("access-control-expose-headers", "retry-after")];
    for (name, value) in given.iter().copied().chain(open) {
        // Fails on names and values that are no header's; these are.
        let _ = headers.set(name, value);
    }
    let builder = Response::builder().with_status(status).with_headers(headers);
    if body.is_empty() { builder.empty() } else { builder.fixed(body) }
}
