//! The relay: frames in over HTTP, out over the link to the aggregator of their home, acks back. It is the native half
//! of the edge, since a Worker can't speak QUIC.
//!
//! It keeps no state, and believes no frame: it can't check a MAC, and reads a header only to pass the frame on.

pub mod config;

mod forward;
mod http;
mod metrics;

pub use self::config::Config;
pub use self::http::{IN_FLIGHT_BYTES_MAX, run};
