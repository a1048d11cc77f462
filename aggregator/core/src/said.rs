//! What a reader of live views says: texts of JSON, specified in docs/FORMATS.md.

use serde::Deserialize;

/// What a reader says, once it is known who it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Said {
    /// A question is to be followed.
    Subscribe {
        /// The reader's number for it.
        subscribe: u64,
        /// A query string.
        question: String,
        /// Where it resumes.
        cursor: Option<String>,
        /// Whether users come as sets.
        #[serde(default)]
        sets: bool,
    },
    /// It is no longer.
    Unsubscribe {
        /// Its number.
        unsubscribe: u64,
    },
}

/// What it says first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// A read key, if it is one.
    pub token: String,
}

impl Said {
    /// Reads a text; `None` if it is no such message.
    pub fn read(text: &str) -> Option<Said> {
        serde_json::from_str(text).ok()
    }
}

impl Token {
    /// Reads a text; `None` if it is no such message.
    pub fn read(text: &str) -> Option<Token> {
        serde_json::from_str(text).ok()
    }
}
