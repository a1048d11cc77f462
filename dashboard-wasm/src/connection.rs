//! Whether what is seen is live.

use crate::format;

/// A server says something every 2 s: silent for so long, it is gone, though nobody said so.
const SILENT_MS: i64 = 7_000;

/// The connection, as a reader has to know of it. Times are of the browser's clock, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connection {
    /// Nobody is signed in.
    #[default]
    None,
    /// Being made, after so many failed attempts since it last held.
    Connecting(u32),
    /// It holds.
    Live,
    /// It broke; it will be made again.
    Waiting {
        /// Failed attempts, this one included.
        attempt: u32,
        /// When.
        until: i64,
    },
    /// The browser has no network.
    Offline,
}

impl Connection {
    /// Its word for tests and styles.
    pub fn word(self) -> &'static str {
        match self {
            Connection::None => "none",
            Connection::Connecting(0) => "connecting",
            Connection::Connecting(_) | Connection::Waiting { .. } => "reconnecting",
            Connection::Live => "live",
            Connection::Offline => "offline",
        }
    }

    /// Its sentence, in two parts; `newest` is how long ago the newest event came. That the connection holds says nothing about
    /// the figures.
    pub fn text(self, now: i64, newest: Option<i64>) -> (&'static str, String) {
        match self {
            Connection::None => ("Signed out", String::new()),
            Connection::Connecting(0) => ("Connecting…", String::new()),
            Connection::Connecting(_) => ("Reconnecting…", String::new()),
            Connection::Live => ("Live", newest.map(format::ago).unwrap_or_default()),
            Connection::Waiting { until, .. } => {
                let left_s = (until - now).max(0) / 1_000 + 1;
                ("Reconnecting", format!("in {left_s} s"))
            }
            Connection::Offline => ("Offline", newest.map(format::ago).unwrap_or_default()),
        }
    }

    /// Whether its sentence ends with when the newest event came.
    pub fn has_newest(self, newest: Option<i64>) -> bool {
        newest.is_some() && matches!(self, Connection::Live | Connection::Offline)
    }

    /// Whether it says it holds, but can't.
    pub fn is_silent(self, now: i64, heard: i64) -> bool {
        self == Connection::Live && now - heard > SILENT_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_said() {
        for (connection, word, text) in [
            (Connection::Connecting(0), "connecting", ("Connecting…", "")),
            (Connection::Live, "live", ("Live", "0.4 s ago")),
            (Connection::Waiting { attempt: 1, until: 12_100 }, "reconnecting", ("Reconnecting", "in 3 s")),
            (Connection::Connecting(2), "reconnecting", ("Reconnecting…", "")),
            (Connection::Offline, "offline", ("Offline", "0.4 s ago")),
        ] {
            assert_eq!(connection.word(), word);
            assert_eq!(connection.text(10_000, Some(400)), (text.0, text.1.to_owned()));
        }
        assert_eq!(Connection::Live.text(10_000, None), ("Live", String::new()), "nothing came yet");
    }

    #[test]
    fn only_a_connection_that_holds_can_be_silent() {
        assert!(Connection::Live.is_silent(10_001, 3_000));
        assert!(!Connection::Live.is_silent(10_000, 3_000));
        assert!(!Connection::Offline.is_silent(99_000, 3_000));
    }
}
