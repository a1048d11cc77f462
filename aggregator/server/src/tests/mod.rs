//! The aggregator's parts together, over a real store.

mod ingesting;
mod keeping;
mod kit;
mod serving;
