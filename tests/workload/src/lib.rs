//! The workload that benches share, and the collector run over it: page views of one site, made from a seed, and what a shard makes
//! of them. It runs natively and, exported as a module without imports, as Wasm.

mod events;
pub mod exports;
mod shards;

pub use events::{Body, DAY_MS, Events, START_MS};
pub use shards::{BODY_EVENTS, SECRET, SHARDS, Shards, three_cubes};
