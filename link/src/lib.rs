//! Frames and acks over QUIC, both ends: [`Client`] sends frames and gets acks, [`serve`] takes frames and gives
//! acks. One connection, one bidirectional stream for them and one for each question about configs, mutual TLS; the bytes are in docs/FORMATS.md.
//!
//! Neither end believes a frame or knows what it says; the client reads a header only to tell whose ack is whose.

pub mod framing;

mod client;
mod server;
mod tls;

use std::time::Duration;

pub use self::client::{Client, InvalidAddress, LinkError, check_address};
pub use self::server::{Answering, Arrival, CONNECTIONS_MAX, ServeError, serve};
pub use self::tls::{ClientTls, ServerTls, Tls, TlsError};

/// What both ends speak.
const ALPN: &[u8] = b"catchment/1";
/// The name in the certificate of whoever serves.
const SERVER_NAME: &str = "aggregator";
/// How long a frame may go unanswered before its sender takes it for lost.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// How long a question may go unanswered.
pub const QUESTION_TIME_MAX: Duration = Duration::from_secs(2);
/// Questions of one connection that are answered at a time.
const QUESTIONS_MAX: u32 = 16;

/// Why a connection was closed. The numbers cross the wire: final.
mod code {
    use quinn::VarInt;

    /// Nothing is left to say.
    pub(crate) const DONE: VarInt = VarInt::from_u32(0);
    /// A length over what a frame may have.
    pub(crate) const TOO_LONG: VarInt = VarInt::from_u32(1);
    /// The peer broke the protocol, or an answer can't be had.
    pub(crate) const BROKEN: VarInt = VarInt::from_u32(2);
}
