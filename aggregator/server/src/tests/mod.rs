//! The aggregator's parts together, over a real store.

mod configs;
#[cfg(feature = "crash-points")]
mod crashing;
mod describing;
mod dictionaries;
mod forwarding;
mod ingesting;
mod keeping;
pub(crate) mod kit;
mod letters;
mod logging;
mod merging;
mod serving;
mod tiers;
