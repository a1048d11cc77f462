//! Cells: small mergeable summaries, and the bytes they travel and are stored as.
//!
//! Pure, without clock, randomness or I/O, and the same code at the edge (Wasm), in the aggregator (native)
//! and in the browser (Wasm). [`cell`], [`users`] and [`digest`] are the algebra; [`key`] and [`cube`] name cells;
//! [`frame`] and [`ack`] carry them; [`metric`] and [`sum`] read figures from them, [`live`] carries these to readers; [`config`] brings clients' configs to shards; [`secret`], [`credential`] and [`route`] say who may send what where;
//! [`limits`] bounds everything. The formats are specified in `docs/FORMATS.md`.

pub mod ack;
pub mod cell;
pub mod client;
pub mod codec;
pub mod config;
pub mod credential;
pub mod cube;
pub mod digest;
pub mod estimate;
pub mod frame;
pub mod key;
pub mod limits;
pub mod live;
pub mod merged;
pub mod metric;
pub mod route;
pub mod row;
pub mod secret;
pub mod sum;
pub mod users;

#[cfg(test)]
mod random;

pub use cell::Cell;
pub use client::ClientId;
pub use estimate::Estimate;
pub use secret::Secret;
