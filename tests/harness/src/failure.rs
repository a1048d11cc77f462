//! What ends a tool: one sentence.

use std::fmt::Display;

/// Why the harness can't go on, for a person to read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// A result whose error is a sentence.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Says what was being done when an error came up: `.map_err(Failure::at("reading x"))`.
    pub fn at<E: Display>(what: impl Display) -> impl FnOnce(E) -> Failure {
        move |error| Failure(format!("{what}: {error}"))
    }
}
