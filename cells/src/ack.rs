//! Acks: what an aggregator says of a frame. The grammar is in docs/FORMATS.md.

use crate::codec::{DecodeError, Reader, put_str8};
use crate::frame::{Chain, Producer};

const MAGIC: &[u8; 2] = b"CA";
const VERSION: u8 = 1;

/// What became of a frame. The numbers cross the wire: final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Stored, now or before.
    Stored = 0,
    /// Frames before this one are missing; `mark + 1` is expected.
    Gap = 1,
    /// A known seq with another chain, or `prev` is not the chain of the frame before.
    Fork = 2,
    /// The MAC or a block's digest is wrong.
    BadMac = 3,
    /// The frame's version is unknown.
    Version = 4,
    /// The frame breaks the format.
    Malformed = 5,
    /// Nothing was stored; try again later.
    Busy = 6,
    /// The frame's home is another region.
    WrongHome = 7,
    /// The relay reaches no aggregator; try again later.
    Unreachable = 8,
}

/// The answer to one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// What became of the frame.
    pub status: Status,
    /// The frame's producer.
    pub producer: Producer,
    /// The frame's seq.
    pub seq: u64,
    /// The highest seq of this producer that is safe; 0: none, or not known.
    pub mark: u64,
    /// The chain of the frame at `mark`.
    pub chain: Chain,
    /// Someone looks at a client of this frame: cut soon.
    pub watched: bool,
    /// The version of the clients' config that is in force.
    pub config_version: u32,
    /// The placement map's epoch.
    pub map_version: u32,
    /// How long to wait before the next attempt.
    pub retry_after_ms: u32,
    /// One sentence for a log, at most 255 bytes.
    pub detail: String,
}

impl Status {
    /// Reads the number.
    pub fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        use Status::*;
        [Stored, Gap, Fork, BadMac, Version, Malformed, Busy, WrongHome, Unreachable]
            .get(usize::from(byte))
            .copied()
            .ok_or(DecodeError::Malformed("unknown status"))
    }

    /// The name that logs and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Stored => "stored",
            Status::Gap => "gap",
            Status::Fork => "fork",
            Status::BadMac => "bad_mac",
            Status::Version => "version",
            Status::Malformed => "malformed",
            Status::Busy => "busy",
            Status::WrongHome => "wrong_home",
            Status::Unreachable => "unreachable",
        }
    }
}

impl Ack {
    /// An ack with nothing but a status: the rest as for an unknown producer's state.
    pub fn refusal(status: Status, producer: Producer, seq: u64, detail: impl Into<String>) -> Self {
        Ack {
            status,
            producer,
            seq,
            mark: 0,
            chain: [0; 16],
            watched: false,
            config_version: 0,
            map_version: 0,
            retry_after_ms: 0,
            detail: detail.into(),
        }
    }

    /// The ack's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.push(self.status as u8);
        self.producer.put(&mut out);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.mark.to_le_bytes());
        out.extend_from_slice(&self.chain);
        out.push(u8::from(self.watched));
        out.extend_from_slice(&self.config_version.to_le_bytes());
        out.extend_from_slice(&self.map_version.to_le_bytes());
        out.extend_from_slice(&self.retry_after_ms.to_le_bytes());
        put_str8(&mut out, &self.detail);
        out
    }

    /// Reads an ack, all of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<2>()? != *MAGIC {
            return Err(DecodeError::Malformed("not an ack"));
        }
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let ack = Ack {
            status: Status::from_byte(reader.u8()?)?,
            producer: Producer::read(&mut reader)?,
            seq: reader.u64()?,
            mark: reader.u64()?,
            chain: reader.array()?,
            watched: match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(DecodeError::Malformed("watched is 0 or 1")),
            },
            config_version: reader.u32()?,
            map_version: reader.u32()?,
            retry_after_ms: reader.u32()?,
            detail: reader.str8()?.into(),
        };
        reader.finish()?;
        Ok(ack)
    }

    /// Reads a relay's answer: `n × (u32 length ‖ ack)`.
    pub fn decode_each(mut bytes: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let mut acks = Vec::new();
        while !bytes.is_empty() {
            let mut reader = Reader::new(bytes);
            let length = reader.u32()? as usize;
            acks.push(Ack::decode(reader.bytes(length)?)?);
            bytes = &bytes[bytes.len() - reader.remaining()..];
        }
        Ok(acks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ack() -> impl Strategy<Value = Ack> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>());
        (0u8..9, "[a-z/0-9]{1,128}", numbers, any::<[u8; 16]>(), any::<bool>(), ".{0,60}").prop_map(
            |(
                status,
                shard,
                (nonce, seq, mark, config_version, map_version, retry_after_ms),
                chain,
                watched,
                detail,
            )| Ack {
                status: Status::from_byte(status).unwrap(),
                producer: Producer::new(nonce, &shard).unwrap(),
                seq,
                mark,
                chain,
                watched,
                config_version,
                map_version,
                retry_after_ms,
                detail,
            },
        )
    }

    proptest! {
        #[test]
        fn acks_round_trip(ack in ack()) {
            prop_assert_eq!(Ack::decode(&ack.encode()), Ok(ack));
        }

        #[test]
        fn changed_acks_are_read_or_refused(ack in ack(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = ack.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Ack::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes.clone());
            }
            prop_assert!(Ack::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn the_bytes_are_fixed() {
        let mut ack = Ack::refusal(Status::Gap, Producer::new(0x0102, "eu/pool/0").unwrap(), 9, "gap");
        ack.mark = 7;
        ack.watched = true;
        let hex = data_encoding::HEXLOWER.encode(&ack.encode());
        assert_eq!(
            hex,
            "434101011102010000000000006575\
             2f706f6f6c2f3009000000000000000700000000000000\
             00000000000000000000000000000000010000000000000000\
             0000000003676170"
        );
    }
}
