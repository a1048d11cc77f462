//! Frames and keys made by hand, as docs/FORMATS.md has them: so that what is inside gets past MAC and digests.

use std::sync::LazyLock;

use catchment_cells::Secret;
use catchment_cells::frame::Producer;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The deployment's secret.
pub(crate) static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::new(&[9; 32]).expect("32 bytes are a secret"));

/// A block of a frame.
pub(crate) struct Block<'a> {
    pub(crate) kind: u8,
    pub(crate) codec: u8,
    pub(crate) raw_bytes: u32,
    pub(crate) stored: &'a [u8],
}

/// The producer of frames made by hand.
pub(crate) fn producer() -> Producer {
    Producer::new(0xfeed, "eu/pool/0").expect("a shard's name")
}

/// A frame of these blocks.
pub(crate) fn frame(blocks: &[Block<'_>]) -> Vec<u8> {
    let producer = producer().encode();
    let mut header = vec![producer.len() as u8];
    header.extend_from_slice(&producer);
    header.extend_from_slice(b"\x02eu");
    header.extend_from_slice(&1u64.to_le_bytes());
    header.extend_from_slice(&[0; 16]);
    header.extend_from_slice(&1_680_000_065_000i64.to_le_bytes());
    header.extend_from_slice(&1_680_000_060_000i64.to_le_bytes());
    header.push(blocks.len() as u8);
    for Block { kind, codec, raw_bytes, stored } in blocks {
        header.extend_from_slice(&[*kind, *codec]);
        header.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        header.extend_from_slice(&raw_bytes.to_le_bytes());
        header.extend_from_slice(&Sha256::digest(stored)[..16]);
    }
    let blocks: Vec<u8> = blocks.iter().flat_map(|block| block.stored).copied().collect();
    under_mac(1, 0, &header, &producer, &blocks)
}

/// A frame of any header, under the MAC of the given producer's key.
pub(crate) fn under_mac(version: u8, left_out: u8, header: &[u8], producer: &[u8], blocks: &[u8]) -> Vec<u8> {
    let mut out = b"CF".to_vec();
    out.extend_from_slice(&[version, left_out]);
    out.extend_from_slice(&(header.len() as u32).to_le_bytes());
    out.extend_from_slice(header);
    let mac = hmac(&SECRET.derive("frame", producer), &[b"catchment frame 1", header]);
    out.extend_from_slice(&mac[..16]);
    out.extend_from_slice(blocks);
    out
}

/// The answer with this body to a question about configs, under its MAC.
pub(crate) fn told(question: &[u8], body: &[u8]) -> Vec<u8> {
    let length = (question.len() as u64).to_le_bytes();
    let mac = hmac(&SECRET.derive("config", b""), &[b"catchment config 1", &length, question, body]);
    [b"CG\x01", &mac[..16], body].concat()
}

/// A write or a read key of these claims.
pub(crate) fn key(label: &str, claims: &str) -> String {
    let mac = hmac(&SECRET.derive(label, b""), &[claims.as_bytes()]);
    format!("{claims}_{}", data_encoding::BASE32_NOPAD.encode(&mac[..15]).to_lowercase())
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
