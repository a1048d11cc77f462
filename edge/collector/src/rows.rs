//! What a shard keeps in storage. The grammar of each row is its type's; version bytes lead.

use catchment_cells::codec::{DecodeError, Reader, put_str, put_uv};
use catchment_cells::frame::{CHAIN_START, Chain, Producer};
use catchment_cells::limits::SHARD_BYTES_MAX;

use crate::request::Request;

const VERSION: u8 = 1;
/// The fewest bytes of an encoded request.
const REQUEST_BYTES_MIN: usize = 14;

/// One row of the log: the requests that were committed together.
///
/// Bytes: `u8 version ‖ i64 received_at ‖ uv n ‖ n × request`, a request as `str client ‖ u8 flags ‖ u64 visitor ‖ country[2] ‖
/// u8 device ‖ str body`. Flags: bits 0 and 1 the identity (0 daily, 1 device, 2 user), bit 2 backfill, bit 3 foreign clients
/// are passed over; a country of zeros and a device of 0 are unknown.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRow {
    /// When, in ms.
    pub received_at: i64,
    /// What.
    pub requests: Vec<Request>,
}

/// One row of the ring of ids: the event_ids, hashed, of one cut or some that followed each other.
///
/// Bytes: `u8 version ‖ i64 first_received_at ‖ i64 last_received_at ‖ n × u64`, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdsRow {
    /// Its number, from 0.
    pub n: u64,
    /// When the first of its cuts began, in ms.
    pub first_received_at: i64,
    /// When the last of its events was received, in ms.
    pub last_received_at: i64,
    /// Keyed hashes of the event_ids, ascending.
    pub ids: Vec<u64>,
}

/// The one row that says how far a shard is. It is written with each cut.
///
/// Frames are numbered from 1, for good; a frame's seq is its number less those of the producers before (`base`).
///
/// Bytes: `u8 version ‖ u64 nonce ‖ str shard ‖ str home ‖ uv folded_through ‖ uv base ‖ uv next_frame ‖ chain[16] ‖ uv acked ‖
/// uv ids_first ‖ uv ids_next ‖ uv parked`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The shard, and the nonce of its storage.
    pub producer: Producer,
    /// The region it ships to.
    pub home: String,
    /// Log rows before this one are in frames; the log's first row is 0.
    pub folded_through: u64,
    /// The number of the last frame that was not this producer's.
    pub base: u64,
    /// The number of the next frame.
    pub next_frame: u64,
    /// The chain of the frame before it.
    pub chain: Chain,
    /// The number of the last frame that is safe at home; at least `base`.
    pub acked: u64,
    /// The oldest row of ids that counts.
    pub ids_first: u64,
    /// The row of ids after the last.
    pub ids_next: u64,
    /// Frames that were parked.
    pub parked: u64,
}

impl Meta {
    /// The first state of a shard whose storage is new.
    pub fn new(producer: Producer, home: &str) -> Self {
        Meta {
            producer,
            home: home.into(),
            folded_through: 0,
            base: 0,
            next_frame: 1,
            chain: CHAIN_START,
            acked: 0,
            ids_first: 0,
            ids_next: 0,
            parked: 0,
        }
    }
}

impl LogRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let bodies: usize = self.requests.iter().map(|request| request.bytes()).sum();
        let mut out = Vec::with_capacity(16 + bodies);
        out.push(VERSION);
        out.extend_from_slice(&self.received_at.to_le_bytes());
        put_uv(&mut out, self.requests.len() as u64);
        for request in &self.requests {
            request.encode(&mut out);
        }
        out
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = versioned(bytes)?;
        let received_at = reader.i64()?;
        let n = reader.count(REQUEST_BYTES_MIN)?;
        let requests = (0..n).map(|_| Request::decode(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(LogRow { received_at, requests })
    }
}

impl IdsRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(17 + 8 * self.ids.len());
        out.push(VERSION);
        out.extend_from_slice(&self.first_received_at.to_le_bytes());
        out.extend_from_slice(&self.last_received_at.to_le_bytes());
        for id in &self.ids {
            out.extend_from_slice(&id.to_le_bytes());
        }
        out
    }

    /// Reads row `n`.
    pub fn decode(n: u64, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = versioned(bytes)?;
        let (first_received_at, last_received_at) = (reader.i64()?, reader.i64()?);
        let mut ids = Vec::with_capacity(reader.remaining() / 8);
        while reader.remaining() > 0 {
            ids.push(reader.u64()?);
        }
        Ok(IdsRow { n, first_received_at, last_received_at, ids })
    }
}

impl Meta {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.producer.nonce().to_le_bytes());
        put_str(&mut out, self.producer.shard());
        put_str(&mut out, &self.home);
        put_uv(&mut out, self.folded_through);
        put_uv(&mut out, self.base);
        put_uv(&mut out, self.next_frame);
        out.extend_from_slice(&self.chain);
        for number in [self.acked, self.ids_first, self.ids_next, self.parked] {
            put_uv(&mut out, number);
        }
        out
    }

    /// Reads the row.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = versioned(bytes)?;
        let nonce = reader.u64()?;
        let producer = Producer::new(nonce, reader.str(SHARD_BYTES_MAX)?);
        let meta = Meta {
            producer: producer.map_err(|_| DecodeError::Malformed("shard's name"))?,
            home: reader.str(SHARD_BYTES_MAX)?.into(),
            folded_through: reader.uv()?,
            base: reader.uv()?,
            next_frame: reader.uv()?,
            chain: reader.array()?,
            acked: reader.uv()?,
            ids_first: reader.uv()?,
            ids_next: reader.uv()?,
            parked: reader.uv()?,
        };
        reader.finish()?;
        Ok(meta)
    }
}

fn versioned(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => Ok(reader),
        version => Err(DecodeError::Version(version)),
    }
}
