//! Events in, frames out: everything that a shard decides, without storage, HTTP or a clock.
//!
//! A host (the Durable Object of `edge/worker`, a test) reads a [`Request`], writes it to its log as a [`LogRow`], hands the row
//! to [`Collector::apply`], and answers with the [`Outcome`]s. From time to time it [`cut`](Collector::cut)s, stores what the
//! [`Cut`] holds in one transaction, and ships the frames, whose acks the [`Outbox`] judges. Rebuilding a collector from its
//! [`Meta`], its [`IdsRow`]s and the log rows since the last cut gives the same collector.

mod collector;
mod event;
mod hop;
mod ids;
pub mod limits;
mod open;
mod outbox;
mod reason;
mod request;
mod rows;
mod watching;

pub use collector::{Collector, Cut, CutFrame, Outcome, Rejected};
pub use hop::{HOP_HEADER, Hop};
pub use outbox::{Outbox, Verdict};
pub use reason::Reason;
pub use request::{Claims, Device, Request, RequestError, Visitor};
pub use rows::{IdsRow, LogRow, Meta};
pub use watching::Watching;
