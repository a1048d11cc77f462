//! Who an event belongs to.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::limits::CLIENT_BYTES_MAX;

/// The id of a client: 1 to 64 characters of `A-Z a-z 0-9 _ -`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

/// A text that is no client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a client id is 1 to 64 characters of A-Z a-z 0-9 _ -")]
pub struct InvalidClient;

impl ClientId {
    /// Checks the text.
    pub fn new(text: &str) -> Result<Self, InvalidClient> {
        if is_token(text, CLIENT_BYTES_MAX) && !text.is_empty() {
            Ok(ClientId(text.into()))
        } else {
            Err(InvalidClient)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is at most `max` characters of `A-Z a-z 0-9 _ -`.
pub(crate) fn is_token(text: &str, max: usize) -> bool {
    text.len() <= max && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
