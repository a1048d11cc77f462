//! What is said to a relay: frames, and questions about configs.

use std::time::Duration;

use catchment_cells::ack::Ack;
use catchment_cells::codec::DecodeError;
use futures_util::future::{Either, select};
use thiserror::Error;
use worker::js_sys::Uint8Array;
use worker::{AbortController, Delay, Fetch, Headers, Method, Request, RequestInit};

/// How long a relay may take to answer.
const RELAY_TIMEOUT: Duration = Duration::from_secs(10);

/// And to a question about configs, which events wait for.
pub(crate) const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a POST came to nothing. Whether the frames were stored is not known: they are sent again.
#[derive(Debug, Error)]
pub(crate) enum ShippingError {
    /// No answer in time.
    #[error("the relay did not answer in {0:?}")]
    Timeout(Duration),
    /// No connection, or one that broke.
    #[error("the relay is not reached: {0}")]
    Fetch(#[from] worker::Error),
    /// The relay refused the POST.
    #[error("the relay answered {0}")]
    Status(u16),
    /// The placement names no relay for the region.
    #[error("region {0} has no relay")]
    NoRelay(String),
    /// The answer is no list of one ack for each frame.
    #[error("the relay's answer can't be read: {0}")]
    Answer(#[from] DecodeError),
}

/// Posts frames, each behind its length, and reads their acks.
pub(crate) async fn post(relay: &str, token: &str, frames: &[u8]) -> Result<Vec<Ack>, ShippingError> {
    Ok(Ack::decode_each(&exchange(&format!("{relay}/v1/frames"), token, frames, RELAY_TIMEOUT).await?)?)
}

/// Asks about configs; the answer is for the shard to read.
pub(crate) async fn ask(relay: &str, token: &str, question: &[u8]) -> Result<Vec<u8>, ShippingError> {
    exchange(&format!("{relay}/v1/config"), token, question, QUESTION_TIMEOUT).await
}

async fn exchange(url: &str, token: &str, body: &[u8], timeout: Duration) -> Result<Vec<u8>, ShippingError> {
    let headers = Headers::new();
    headers.set("authorization", &format!("Bearer {token}"))?;
    let mut init = RequestInit::new();
    init.with_method(Method::Post).with_headers(headers).with_body(Some(Uint8Array::from(body).into()));
    let request = Request::new_with_init(url, &init)?;
    let abort = AbortController::default();
    let signal = abort.signal();
    let exchange = Box::pin(async move {
        let mut response = Fetch::Request(request).send_with_signal(&signal).await?;
        if response.status_code() != 200 {
            return Err(ShippingError::Status(response.status_code()));
        }
        Ok(response.bytes().await?)
    });
    match select(exchange, Delay::from(timeout)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => {
            abort.abort();
            Err(ShippingError::Timeout(timeout))
        }
    }
}
