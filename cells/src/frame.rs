//! Frames: what a shard ships. A header under a MAC, chained to the frame before, and a block per kind whose
//! digest the header carries, so that a forwarder may leave a block out. The grammar is in docs/FORMATS.md.

mod blocks;
mod letters;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use self::blocks::{Cells, CellsBlock, CellsWriter, CountersBlock, CubeCells, Section};
pub use self::letters::{DeadLetter, DeadLettersBlock};
use crate::codec::{DecodeError, Reader, put_str8};
use crate::limits::{BLOCK_BYTES_MAX, FRAME_BLOCKS_MAX, FRAME_BYTES_MAX, SHARD_BYTES_MAX};
use crate::secret::{FrameKey, equal_in_constant_time, first16};

const MAGIC: &[u8; 2] = b"CF";
const VERSION: u8 = 1;
/// Magic, version, left_out, header length.
const PREFIX_BYTES: usize = 8;
const MAC_BYTES: usize = 16;
/// Beyond it, deflating costs more time than its bytes are worth: see docs/BENCHMARKS.md.
const DEFLATE_LEVEL: u8 = 3;
/// The level of large blocks, which whoever has no time to spare makes: a third of the time, for 3 to 20 % more bytes.
const DEFLATE_LEVEL_LARGE: u8 = 1;
/// Bytes of a block, uncompressed, from which it is a large one.
const LARGE_BLOCK_BYTES: usize = 64 << 10;

/// The hash of a header, which holds the chain of the header before.
pub type Chain = [u8; 16];

/// The chain before a producer's first frame.
pub const CHAIN_START: Chain = [0; 16];

/// A shard, and a nonce drawn when its storage was created.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    nonce: u64,
    shard: Box<str>,
}

/// A shard's name that is empty or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a shard's name has 1 to {SHARD_BYTES_MAX} bytes")]
pub struct InvalidShard;

/// What a block holds. The numbers cross the wire: final. 3 fragments and 5 raw events are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(pub u8);

impl Kind {
    /// Cells.
    pub const CELLS: Kind = Kind(1);
    /// Counters of what was received, by reason.
    pub const COUNTERS: Kind = Kind(2);
    /// Events that were not counted.
    pub const DEAD_LETTERS: Kind = Kind(4);
    /// The last one that version 1 reserves.
    const LAST: Kind = Kind(5);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    Stored = 0,
    Deflate = 1,
}

/// What a header says of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHeader {
    /// What it holds.
    pub kind: Kind,
    codec: Codec,
    /// Bytes in the frame.
    pub stored_bytes: u32,
    /// Bytes uncompressed.
    pub raw_bytes: u32,
    digest: [u8; 16],
}

/// A frame's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Who made it.
    pub producer: Producer,
    /// The region it is for.
    pub home: String,
    /// Its number with this producer, from 1.
    pub seq: u64,
    /// The chain of the frame before.
    pub prev: Chain,
    /// When it was cut, in ms.
    pub cut_at: i64,
    /// When its first event was received, in ms.
    pub first_received_at: i64,
    /// Its blocks, ascending by kind.
    pub blocks: Vec<BlockHeader>,
}

/// What every version's header begins with: whose a frame is, where it is going, and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Who made it.
    pub producer: Producer,
    /// The region it is for.
    pub home: String,
    /// Its number with this producer.
    pub seq: u64,
}

/// A frame to be made.
#[derive(Debug, Clone)]
pub struct FrameDraft<C = CellsBlock> {
    /// Who makes it.
    pub producer: Producer,
    /// The region it is for.
    pub home: String,
    /// Its number, from 1.
    pub seq: u64,
    /// The chain of the frame before, or [`CHAIN_START`].
    pub prev: Chain,
    /// Now, in ms.
    pub cut_at: i64,
    /// When its first event was received, in ms.
    pub first_received_at: i64,
    /// The cells; an empty block is not written.
    pub cells: C,
    /// The counters; an empty block is not written.
    pub counters: CountersBlock,
    /// The dead letters; an empty block is not written.
    pub letters: DeadLettersBlock,
}

/// A frame, ready to be stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its chain: the next frame's `prev`.
    pub chain: Chain,
}

/// A frame whose MAC and digests are right.
#[derive(Debug, Clone)]
pub struct Opened<'a> {
    header: Header,
    chain: Chain,
    blocks: Vec<Option<&'a [u8]>>,
}

/// Why a frame is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The version is not one that this code reads.
    #[error("frame version {0} is unknown")]
    Version(u8),
    /// The bytes break the format.
    #[error("the frame is malformed: {0}")]
    Malformed(DecodeError),
    /// The header's MAC is wrong.
    #[error("the frame's MAC is wrong")]
    Mac,
    /// A block's digest is wrong.
    #[error("the digest of block {0} is wrong")]
    Digest(u8),
}

/// A draft that makes a frame beyond [`FRAME_BYTES_MAX`] or a block beyond [`BLOCK_BYTES_MAX`]: split it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the frame is too large")]
pub struct TooLarge;

impl From<DecodeError> for FrameError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Version(version) => FrameError::Version(version),
            error => FrameError::Malformed(error),
        }
    }
}

impl Producer {
    /// Names a producer.
    pub fn new(nonce: u64, shard: &str) -> Result<Self, InvalidShard> {
        if shard.is_empty() || shard.len() > SHARD_BYTES_MAX {
            return Err(InvalidShard);
        }
        Ok(Producer { nonce, shard: shard.into() })
    }

    /// The nonce.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// The shard's name.
    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// `u64 nonce ‖ shard name`: a store's key, and what keys are derived from.
    pub fn encode(&self) -> Vec<u8> {
        [&self.nonce.to_le_bytes()[..], self.shard.as_bytes()].concat()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let nonce = reader.u64()?;
        let shard = str::from_utf8(reader.bytes(reader.remaining())?);
        let shard = shard.map_err(|_| DecodeError::Malformed("shard's name not UTF-8"))?;
        Producer::new(nonce, shard).map_err(|_| DecodeError::Malformed("shard's name"))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let bytes = self.encode();
        // SHARD_BYTES_MAX + 8 fits a byte, by an assertion of the limits.
        out.push(bytes.len() as u8);
        out.extend_from_slice(&bytes);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = reader.u8()?;
        Producer::decode(reader.bytes(n.into())?)
    }
}

impl Header {
    /// The chain of this frame.
    pub fn chain(&self) -> Chain {
        chain_of(&self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.producer.put(&mut out);
        put_str8(&mut out, &self.home);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.prev);
        out.extend_from_slice(&self.cut_at.to_le_bytes());
        out.extend_from_slice(&self.first_received_at.to_le_bytes());
        out.push(self.blocks.len() as u8);
        for block in &self.blocks {
            out.push(block.kind.0);
            out.push(block.codec as u8);
            out.extend_from_slice(&block.stored_bytes.to_le_bytes());
            out.extend_from_slice(&block.raw_bytes.to_le_bytes());
            out.extend_from_slice(&block.digest);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut header = Header {
            producer: Producer::read(&mut reader)?,
            home: reader.str8()?.into(),
            seq: reader.u64()?,
            prev: reader.array()?,
            cut_at: reader.i64()?,
            first_received_at: reader.i64()?,
            blocks: Vec::new(),
        };
        if header.seq == 0 {
            return Err(DecodeError::Malformed("seq is 0"));
        }
        let blocks = usize::from(reader.u8()?);
        if blocks > FRAME_BLOCKS_MAX {
            return Err(DecodeError::Malformed("too many blocks"));
        }
        for _ in 0..blocks {
            let block = BlockHeader {
                kind: Kind(reader.u8()?),
                codec: match reader.u8()? {
                    0 => Codec::Stored,
                    1 => Codec::Deflate,
                    _ => return Err(DecodeError::Malformed("unknown codec")),
                },
                stored_bytes: reader.u32()?,
                raw_bytes: reader.u32()?,
                digest: reader.array()?,
            };
            if !(Kind::CELLS..=Kind::LAST).contains(&block.kind)
                || header.blocks.last().is_some_and(|last| last.kind >= block.kind)
            {
                return Err(DecodeError::Malformed("block kinds unknown or not ascending"));
            }
            if block.raw_bytes as usize > BLOCK_BYTES_MAX
                || (block.codec == Codec::Stored && block.raw_bytes != block.stored_bytes)
            {
                return Err(DecodeError::Malformed("block length"));
            }
            header.blocks.push(block);
        }
        reader.finish()?;
        Ok(header)
    }
}

/// The parts of a frame, none of them checked against MAC or digest.
struct Parts<'a> {
    header_bytes: &'a [u8],
    header: Header,
    mac: &'a [u8],
    blocks: Vec<Option<&'a [u8]>>,
}

impl<'a> Parts<'a> {
    fn read(frame: &'a [u8]) -> Result<Self, FrameError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(FrameError::Malformed(DecodeError::Malformed("frame too long")));
        }
        let mut reader = Reader::new(frame);
        let (header_bytes, left_out) = read_prefix(&mut reader)?;
        let header = Header::decode(header_bytes)?;
        let mac = reader.bytes(MAC_BYTES)?;
        let mut blocks = Vec::with_capacity(header.blocks.len());
        for (i, block) in header.blocks.iter().enumerate() {
            let there = left_out & (1 << i) == 0;
            blocks.push(if there { Some(reader.bytes(block.stored_bytes as usize)?) } else { None });
        }
        if u32::from(left_out) >> header.blocks.len() != 0 {
            return Err(FrameError::Malformed(DecodeError::Malformed("left_out names a block that isn't")));
        }
        reader.finish()?;
        Ok(Parts { header_bytes, header, mac, blocks })
    }

    fn write(&self) -> Vec<u8> {
        let stored: usize = self.blocks.iter().flatten().map(|block| block.len()).sum();
        let mut out = Vec::with_capacity(PREFIX_BYTES + self.header_bytes.len() + MAC_BYTES + stored);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.push(self.blocks.iter().enumerate().fold(0, |bits, (i, block)| bits | u8::from(block.is_none()) << i));
        out.extend_from_slice(&(self.header_bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(self.header_bytes);
        out.extend_from_slice(self.mac);
        for block in self.blocks.iter().flatten() {
            out.extend_from_slice(block);
        }
        out
    }
}

fn read_prefix<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], u8), FrameError> {
    if reader.array::<2>()? != *MAGIC {
        return Err(FrameError::Malformed(DecodeError::Malformed("not a frame")));
    }
    match reader.u8()? {
        VERSION => {}
        version => return Err(FrameError::Version(version)),
    }
    let left_out = reader.u8()?;
    let header_bytes = reader.u32()?;
    Ok((reader.bytes(header_bytes as usize)?, left_out))
}

/// Reads whose a frame of any version is: enough to pass it on and to answer it.
pub fn address(frame: &[u8]) -> Result<Address, DecodeError> {
    let mut reader = Reader::new(frame);
    if reader.array::<2>()? != *MAGIC {
        return Err(DecodeError::Malformed("not a frame"));
    }
    let _version_left_out_and_header_length: [u8; 6] = reader.array()?;
    Ok(Address { producer: Producer::read(&mut reader)?, home: reader.str8()?.into(), seq: reader.u64()? })
}

/// Reads the header without checking its MAC.
pub fn peek(frame: &[u8]) -> Result<Header, FrameError> {
    let (header, _) = read_prefix(&mut Reader::new(frame))?;
    Ok(Header::decode(header)?)
}

/// Checks a frame's MAC, and the digest of each block that is there.
pub fn open<'a>(frame: &'a [u8], key: &FrameKey) -> Result<Opened<'a>, FrameError> {
    let parts = Parts::read(frame)?;
    if !equal_in_constant_time(&key.mac(parts.header_bytes), parts.mac) {
        return Err(FrameError::Mac);
    }
    for (header, block) in parts.header.blocks.iter().zip(&parts.blocks) {
        if block.is_some_and(|block| digest_of(block) != header.digest) {
            return Err(FrameError::Digest(header.kind.0));
        }
    }
    Ok(Opened { chain: chain_of(parts.header_bytes), header: parts.header, blocks: parts.blocks })
}

/// Makes a frame: the same draft makes the same bytes.
pub fn seal<C: Cells>(draft: &FrameDraft<C>, key: &FrameKey) -> Result<Sealed, TooLarge> {
    let mut headers = Vec::new();
    let mut stored = Vec::new();
    let blocks = [
        (Kind::CELLS, draft.cells.encode()),
        (Kind::COUNTERS, draft.counters.encode()),
        (Kind::DEAD_LETTERS, draft.letters.encode()),
    ];
    for (kind, raw) in blocks {
        let Some(raw) = raw else { continue };
        if raw.len() > BLOCK_BYTES_MAX {
            return Err(TooLarge);
        }
        let level = if raw.len() < LARGE_BLOCK_BYTES { DEFLATE_LEVEL } else { DEFLATE_LEVEL_LARGE };
        let deflated = miniz_oxide::deflate::compress_to_vec(&raw, level);
        let raw_bytes = raw.len() as u32;
        let (codec, bytes) = if deflated.len() < raw.len() { (Codec::Deflate, deflated) } else { (Codec::Stored, raw) };
        headers.push(BlockHeader {
            kind,
            codec,
            stored_bytes: bytes.len() as u32,
            raw_bytes,
            digest: digest_of(&bytes),
        });
        stored.push(bytes);
    }
    let header = Header {
        producer: draft.producer.clone(),
        home: draft.home.clone(),
        seq: draft.seq,
        prev: draft.prev,
        cut_at: draft.cut_at,
        first_received_at: draft.first_received_at,
        blocks: headers,
    };
    let sealed = assemble(header, stored.iter().map(|block| Some(&block[..])).collect(), key);
    if sealed.bytes.len() > FRAME_BYTES_MAX { Err(TooLarge) } else { Ok(sealed) }
}

/// Gives a frame another producer, seq and `prev`: for what follows a parked frame.
pub fn reseal(frame: &[u8], producer: &Producer, seq: u64, prev: Chain, key: &FrameKey) -> Result<Sealed, FrameError> {
    let parts = Parts::read(frame)?;
    let header = Header { producer: producer.clone(), seq, prev, ..parts.header };
    Ok(assemble(header, parts.blocks, key))
}

/// Leaves the blocks of a kind out; the MAC holds as before.
pub fn leave_out(frame: &[u8], kind: Kind) -> Result<Vec<u8>, FrameError> {
    let mut parts = Parts::read(frame)?;
    for (header, block) in parts.header.blocks.iter().zip(&mut parts.blocks) {
        if header.kind == kind {
            *block = None;
        }
    }
    Ok(parts.write())
}

impl Opened<'_> {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The frame's chain.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// The cells; empty where the frame has none.
    pub fn cells(&self) -> Result<CellsBlock, DecodeError> {
        self.raw(Kind::CELLS)?.map_or_else(|| Ok(CellsBlock::default()), |raw| CellsBlock::decode(&raw))
    }

    /// The counters; empty where the frame has none.
    pub fn counters(&self) -> Result<CountersBlock, DecodeError> {
        self.raw(Kind::COUNTERS)?.map_or_else(|| Ok(CountersBlock::default()), |raw| CountersBlock::decode(&raw))
    }

    /// The dead letters; empty where the frame has none.
    pub fn letters(&self) -> Result<DeadLettersBlock, DecodeError> {
        let none = || Ok(DeadLettersBlock::default());
        self.raw(Kind::DEAD_LETTERS)?.map_or_else(none, |raw| DeadLettersBlock::decode(&raw))
    }

    fn raw(&self, kind: Kind) -> Result<Option<Vec<u8>>, DecodeError> {
        let found = self.header.blocks.iter().zip(&self.blocks).find(|(header, _)| header.kind == kind);
        let Some((header, Some(block))) = found else { return Ok(None) };
        if header.codec == Codec::Stored {
            return Ok(Some(block.to_vec()));
        }
        // Grows as it goes, and never past what the header claims and BLOCK_BYTES_MAX allows.
        let raw = miniz_oxide::inflate::decompress_to_vec_with_limit(block, header.raw_bytes as usize)
            .map_err(|_| DecodeError::Malformed("block doesn't inflate"))?;
        if raw.len() == header.raw_bytes as usize { Ok(Some(raw)) } else { Err(DecodeError::Malformed("block length")) }
    }
}

fn assemble(header: Header, blocks: Vec<Option<&[u8]>>, key: &FrameKey) -> Sealed {
    let header_bytes = header.encode();
    let mac = key.mac(&header_bytes);
    let chain = chain_of(&header_bytes);
    Sealed { bytes: Parts { header_bytes: &header_bytes, header, mac: &mac, blocks }.write(), chain }
}

fn digest_of(block: &[u8]) -> [u8; 16] {
    first16(&Sha256::digest(block).into())
}

fn chain_of(header: &[u8]) -> Chain {
    first16(&Sha256::new().chain_update(b"catchment chain 1").chain_update(header).finalize().into())
}

#[cfg(test)]
mod tests;
