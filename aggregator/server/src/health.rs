//! Whether the process is well.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What is wrong, by part.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<BTreeMap<&'static str, String>>);

impl Health {
    /// A part says what is wrong with it, or that nothing is.
    pub(crate) fn set(&self, part: &'static str, problem: Option<String>) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(part, problem),
            None => problems.remove(part),
        };
    }

    /// One of the things that are wrong.
    pub(crate) fn problem(&self) -> Option<String> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.iter().next().map(|(part, problem)| format!("{part}: {problem}"))
    }
}
