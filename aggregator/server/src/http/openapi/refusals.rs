//! What is answered where a request is refused, as the API's description has it.
#![expect(dead_code, reason = "what is described is never made of these")]

use utoipa::IntoResponses;

use super::schemas::Problem;

/// Without a client's read key.
#[derive(IntoResponses)]
pub(in super::super) enum Reader {
    /// No read key of this deployment.
    #[response(
        status = 401,
        content_type = "application/problem+json",
        headers(("www-authenticate" = String, description = "`Bearer`"))
    )]
    Stranger(Problem),
}

/// Without the operator's key.
#[derive(IntoResponses)]
pub(in super::super) enum Operator {
    /// `parameter` is wrong: no client's id.
    #[response(status = 400, content_type = "application/problem+json")]
    Parameter(Problem),
    /// No operator's key of this deployment.
    #[response(
        status = 401,
        content_type = "application/problem+json",
        headers(("www-authenticate" = String, description = "`Bearer`"))
    )]
    Stranger(Problem),
}

/// Parameters that can't be understood.
#[derive(IntoResponses)]
pub(in super::super) enum Asked {
    /// `parameter` is wrong: unknown, missing, given twice, or beyond its bounds.
    #[response(status = 400, content_type = "application/problem+json")]
    Parameter(Problem),
}

/// A question that no cube covers, or that costs too much.
#[derive(IntoResponses)]
pub(in super::super) enum Planned {
    /// No cube covers the question: `detail` names the dimensions of the cube to declare. Or it reads more than 10,000,000 cells, has more than
    /// 100,000 rows (buckets times groups), 200,000 figures or 1,000,000 steps of windows, or takes more than 256 MiB.
    #[response(status = 422, content_type = "application/problem+json")]
    TooMuch(Problem),
}

/// Where the store can't be read, or other questions come first.
#[derive(IntoResponses)]
pub(in super::super) enum Worked {
    /// The store can't be read or written.
    #[response(status = 500, content_type = "application/problem+json")]
    Ours(Problem),
    /// Other questions are worked on and none ended within 5 s, or this one took more than 20 s.
    #[response(
        status = 503,
        content_type = "application/problem+json",
        headers(("retry-after" = u32, description = "When to ask again, in s."))
    )]
    Busy(Problem),
}
