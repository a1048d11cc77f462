//! Events in, frames out: everything that a shard decides, without storage, HTTP or a clock.
//!
//! A host (the Durable Object of `edge/worker`, a test) reads a [`Request`] and hands it to a [`Shard`], which writes it to its log
//! as a [`LogRow`], applies the row to the [`Collector`], and says the [`Outcome`]s. From time to time the shard cuts: it stores
//! what the [`Cut`] holds in one transaction, and has the frames shipped, whose acks the [`Outbox`] judges. Rebuilding a collector
//! from its [`Meta`], its [`IdsRow`]s, its [`SpilledRow`]s and the log rows since the last cut gives the same collector.

mod agent;
mod channel;
mod collector;
mod configs;
mod country;
mod enrich;
mod event;
mod hop;
mod ids;
pub mod limits;
mod open;
mod outbox;
mod quota;
mod reason;
mod request;
mod rows;
mod rules;
mod schema;
pub mod shard;
mod watching;

pub use agent::{Agent, Device, Hints};
pub use collector::{Collector, Cut, CutFrame, Outcome, Rejected};
pub use configs::Need;
pub use country::{Countries, Country, country};
pub use hop::{HOP_HEADER, Hop};
pub use ids::IdsBounds;
pub use outbox::{Outbox, Verdict};
pub use quota::{Capacity, HOT, OverQuota, request_cost};
pub use reason::Reason;
pub use request::{Claims, Request, RequestError, Visitor};
pub use rows::{ConfigRow, IdsRow, LogRow, Meta, SpilledGroup, SpilledRow};
pub use shard::Shard;
pub use watching::Watching;
