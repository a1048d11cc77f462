//! Bodies: read within bounds.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;

use super::problem::Problem;

/// Bytes of a body that is read.
pub(crate) const BODY_BYTES_MAX: usize = 256 << 10;
/// Bytes of one that is refused and yet taken to its end: who still writes wouldn't read why.
const PASSED_OVER_BYTES_MAX: usize = 16 << 20;
/// How long a body may take.
const READ_MAX: Duration = Duration::from_secs(10);

/// Reads a body. One that is too large is passed over, without room for it.
pub(crate) async fn read(body: Body) -> Result<Vec<u8>, Problem> {
    let reading = tokio::time::timeout(READ_MAX, read_bounded(body)).await;
    reading.unwrap_or_else(|_| {
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too slow a body", "the body didn't come in time"))
    })
}

async fn read_bounded(mut body: Body) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let broken = |error| Problem::new(StatusCode::BAD_REQUEST, "no whole body", error);
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        length += data.len();
        if length <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        } else if length <= PASSED_OVER_BYTES_MAX {
            bytes = Vec::new();
        } else {
            break;
        }
    }
    if length <= BODY_BYTES_MAX {
        return Ok(bytes);
    }
    let detail = format!(
        "a body has at most {BODY_BYTES_MAX} bytes: ask fewer questions at a time, and in a filter of many values for a prefix, for the \
         complement, or for a dimension that tells these values from the others"
    );
    Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too large a body", detail))
}
