//! The deployment's secret, and the keys derived from it, one for each use.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::client::ClientId;
use crate::frame::Producer;

/// The fewest bytes of a secret.
pub const SECRET_BYTES_MIN: usize = 32;

/// The deployment's secret: at least 32 bytes that an attacker can't guess.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

/// A secret that is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the secret has {0} bytes; it needs at least {SECRET_BYTES_MIN}")]
pub struct SecretTooShort(usize);

/// The key of one producer's frames.
#[derive(Clone)]
pub struct FrameKey([u8; 32]);

/// The key of answers about clients' configs.
#[derive(Clone)]
pub struct ConfigKey([u8; 32]);

impl Secret {
    /// Takes the secret's bytes as they are.
    pub fn new(bytes: &[u8]) -> Result<Self, SecretTooShort> {
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(SecretTooShort(bytes.len()));
        }
        Ok(Secret(bytes.into()))
    }

    /// `HMAC-SHA-256(secret, label ‖ 0x00 ‖ context)`.
    pub fn derive(&self, label: &str, context: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.0, &[label.as_bytes(), &[0], context])
    }

    /// The SipHash-2-4 key that turns a client's users into u64.
    pub fn identity_key(&self, client: &ClientId) -> [u8; 16] {
        self.derive_sip("identity", client)
    }

    /// The SipHash-2-4 key that turns a client's event_ids into u64.
    pub fn event_id_key(&self, client: &ClientId) -> [u8; 16] {
        self.derive_sip("event-id", client)
    }

    /// The key of a producer's frames.
    pub fn frame_key(&self, producer: &Producer) -> FrameKey {
        FrameKey(self.derive("frame", &producer.encode()))
    }

    /// The key of answers about configs.
    pub fn config_key(&self) -> ConfigKey {
        ConfigKey(self.derive("config", b""))
    }

    fn derive_sip(&self, label: &str, client: &ClientId) -> [u8; 16] {
        first16(&self.derive(label, client.as_str().as_bytes()))
    }
}

impl FrameKey {
    pub(crate) fn mac(&self, header: &[u8]) -> [u8; 16] {
        first16(&hmac_sha256(&self.0, &[b"catchment frame 1", header]))
    }
}

impl ConfigKey {
    /// Of an answer to this question.
    pub(crate) fn mac(&self, question: &[u8], answer: &[u8]) -> [u8; 16] {
        let length = (question.len() as u64).to_le_bytes();
        first16(&hmac_sha256(&self.0, &[b"catchment config 1", &length, question, answer]))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Debug for FrameKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameKey(…)")
    }
}

impl fmt::Debug for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigKey(…)")
    }
}

/// HMAC-SHA-256 (RFC 2104) over the parts, one after the other.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Whether two MACs or tokens are equal, in a time that doesn't depend on where they differ.
pub fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y))) == 0
}

pub(crate) fn first16(hash: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&hash[..16]);
    out
}
