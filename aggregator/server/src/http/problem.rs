//! Refusals: RFC 9457.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catchment_aggregator_core::answer::TooMuch;
use catchment_aggregator_core::planner::PlanError;
use catchment_aggregator_core::question::QuestionError;
use catchment_cells::limits::NAME_BYTES_MAX;
use serde_json::{Value, json};
use tracing::error;

use crate::cells::AnswerError;
use crate::configs::PutError;
use crate::live::LiveError;

/// When to come again to whoever can't answer for now, in s.
pub(crate) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A refusal: RFC 9457.
#[derive(Debug)]
pub(crate) struct Problem {
    pub status: StatusCode,
    pub title: &'static str,
    pub detail: String,
    /// The parameter that is wrong.
    pub parameter: Option<String>,
}

impl Problem {
    /// A refusal that no one parameter is at fault for.
    pub(crate) fn new(status: StatusCode, title: &'static str, detail: impl ToString) -> Problem {
        Problem { status, title, detail: detail.to_string(), parameter: None }
    }

    /// A parameter that is wrong.
    pub(crate) fn parameter(name: &str, problem: &str) -> Problem {
        QuestionError { parameter: name.chars().take(NAME_BYTES_MAX).collect(), problem: problem.into() }.into()
    }

    /// No read key, or not this deployment's.
    pub(crate) fn unauthorized(detail: impl ToString) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "no valid read key", detail)
    }

    /// No operator's key, or not this deployment's.
    pub(crate) fn not_an_operator(detail: impl ToString) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "no valid operator's key", detail)
    }

    /// Too much else is going on.
    pub(crate) fn busy(detail: &str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    }

    /// As RFC 9457 writes it.
    pub(crate) fn json(&self) -> Value {
        let mut json = json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(parameter) = &self.parameter {
            json["parameter"] = parameter.as_str().into();
        }
        json
    }

    /// Whoever asked is not at fault.
    pub(crate) fn ours(detail: &str) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "it's our fault", detail)
    }
}

impl From<QuestionError> for Problem {
    fn from(error: QuestionError) -> Self {
        let title = "the question can't be understood";
        Problem { status: StatusCode::BAD_REQUEST, title, detail: error.to_string(), parameter: Some(error.parameter) }
    }
}

impl From<AnswerError> for Problem {
    fn from(error: AnswerError) -> Self {
        Problem::from(&error)
    }
}

impl From<&AnswerError> for Problem {
    fn from(error: &AnswerError) -> Self {
        match error {
            AnswerError::TooMuch(TooMuch::Time) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too slow to answer", error)
            }
            AnswerError::TooMuch(error) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too much to answer", error),
            AnswerError::Plan(error) => error.into(),
            AnswerError::Changed => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "changed meanwhile", error),
            AnswerError::Store(error) => {
                error!(%error, "a question failed");
                Problem::ours("the store could not be read")
            }
        }
    }
}

impl From<&PlanError> for Problem {
    fn from(error: &PlanError) -> Self {
        let title = match error {
            PlanError::NotKept { .. } => "not kept any more",
            _ => "no cube covers the question",
        };
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, title, error)
    }
}

impl From<PutError> for Problem {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Changed(_) => {
                Problem::new(StatusCode::PRECONDITION_FAILED, "the config has changed since", error)
            }
            PutError::Cube(_) | PutError::Versions | PutError::TimeZone(_) | PutError::TimeZones(_) => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the config can't be taken", error)
            }
            PutError::Store(error) => {
                error!(%error, "a config could not be stored");
                Problem::ours("the config could not be stored")
            }
        }
    }
}

impl From<&LiveError> for Problem {
    fn from(error: &LiveError) -> Self {
        match error {
            LiveError::Answer(error) => error.into(),
            LiveError::View(error) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too much for a live view", error),
            LiveError::Busy => Problem::busy(&error.to_string()),
            LiveError::Died => Problem::ours(&error.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.json().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            _ => {}
        }
        response
    }
}
