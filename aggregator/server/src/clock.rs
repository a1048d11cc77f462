//! The clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in ms since 1970.
pub(crate) fn now_ms() -> i64 {
    // A clock before 1970 is not set; one after the year 292 million isn't either.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Now, in s since 1970.
pub(crate) fn now_s() -> u32 {
    u32::try_from(now_ms() / 1_000).unwrap_or(u32::MAX)
}
