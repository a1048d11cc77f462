//! Crash points: with the feature `crash-points`, the process aborts where `CATCHMENT_CRASH_POINT=name[:n]` says, at the
//! n-th pass. Without it, nothing is compiled.

/// Passes a named point.
#[cfg(feature = "crash-points")]
pub(crate) fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WHERE: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let at = WHERE.get_or_init(|| {
        let text = std::env::var("CATCHMENT_CRASH_POINT").ok()?;
        let (name, passes) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU64::new(passes.parse().ok()?)))
    });
    if let Some((wanted, passes_left)) = at
        && wanted == name
        && passes_left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}

/// Passes a named point.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) fn point(_name: &str) {}
