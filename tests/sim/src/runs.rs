//! Many runs, on all processors.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::{Failure, Report, run};

/// What every long series of runs must have seen.
pub const KINDS: &[&str] = &[
    "a backfill",
    "a bad MAC",
    "a bit flips",
    "a client is led back",
    "a client is spread",
    "a client's own shard",
    "a clock jump",
    "a commit fails",
    "a connection is cut",
    "a fork is parked",
    "a frame is parked",
    "a gap",
    "a map changes",
    "a producer restarts",
    "a request is refused",
    "a route of an earlier map",
    "a sender gives up",
    "a sender learns a map",
    "a sender sleeps",
    "a shard dies",
    "a shard is set back",
    "a transaction fails",
    "an aggregator dies",
    "an aggregator is set back",
    "an event is moved",
    "an event stays behind",
    "an outbox is full",
    "an unknown map",
    "busy",
    "duplicate",
    "estimated quantiles",
    "future",
    "ids are forgotten",
    "ids are spilled",
    "loss",
    "malformed",
    "over quota",
    "reordered",
    "repeat",
    "senders are turned away",
    "spilled ids are forgotten",
    "spilled ids are looked up",
    "too late",
    "unreachable",
];

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Total {
    /// Runs without a failure.
    pub runs: u64,
    /// Events that were acknowledged, and that are counted.
    pub acked: u64,
    /// See `acked`.
    pub counted: u64,
    /// Steps of all runs.
    pub steps: u64,
    /// In how many runs each kind of thing was seen.
    pub seen: BTreeMap<&'static str, u64>,
    /// The first seed that failed, and why.
    pub failed: Option<(u64, String)>,
}

/// Runs the seeds from one on, until one fails.
pub fn runs(first: u64, count: u64) -> Total {
    let total = Mutex::new(Total::default());
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let seed = first.wrapping_add(n);
                    let outcome = guarded(seed, false);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    match outcome {
                        Ok(Report { seen, acked, counted, steps }) => {
                            total.runs += 1;
                            total.acked += acked;
                            total.counted += counted;
                            total.steps += steps;
                            for kind in seen.into_keys() {
                                *total.seen.entry(kind).or_default() += 1;
                            }
                        }
                        Err(failure) => {
                            next.store(count, Ordering::Relaxed);
                            if total.failed.as_ref().is_none_or(|(known, _)| seed < *known) {
                                total.failed = Some((seed, failure.what));
                            }
                        }
                    }
                }
            });
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A run whose panics are failures.
pub fn guarded(seed: u64, traced: bool) -> Result<Report, Failure> {
    catch_unwind(|| run(seed, traced)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.into()));
        Err(Failure { what: format!("panic: {}", what.unwrap_or_default()), step: 0, trace: Default::default() })
    })
}
