//! Dead letters: events that were not counted, as they came, with the reason.

use std::collections::BTreeMap;

use super::blocks::{insert_ascending, read_client};
use crate::client::ClientId;
use crate::codec::{DecodeError, Reader, put_str, put_uv};
use crate::limits::{DEAD_LETTER_BYTES_MAX, NAME_BYTES_MAX};

/// The fewest bytes that a client's letters, and one of them, take.
const CLIENT_BYTES_MIN: usize = 3;
const LETTER_BYTES_MIN: usize = 11;

/// An event that was not counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// When it was received, in ms.
    pub received_at: i64,
    /// Why it was not counted: a counter's name.
    pub reason: Box<str>,
    /// The event as it came: JSON, or what was in its place.
    pub event: Box<str>,
}

/// Dead letters, by client, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLettersBlock(pub BTreeMap<ClientId, Vec<DeadLetter>>);

impl DeadLetter {
    /// Writes `i64 received_at ‖ str reason ‖ str event`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.received_at.to_le_bytes());
        put_str(out, &self.reason);
        put_str(out, &self.event);
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(DeadLetter {
            received_at: reader.i64()?,
            reason: reader.str(NAME_BYTES_MAX)?.into(),
            event: reader.str(DEAD_LETTER_BYTES_MAX)?.into(),
        })
    }
}

impl DeadLettersBlock {
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        put_uv(&mut out, self.0.len() as u64);
        for (client, letters) in &self.0 {
            put_str(&mut out, client.as_str());
            put_uv(&mut out, letters.len() as u64);
            letters.iter().for_each(|letter| letter.encode(&mut out));
        }
        Some(out)
    }

    pub(super) fn decode(raw: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw);
        let mut clients = BTreeMap::new();
        for _ in 0..reader.count_some(CLIENT_BYTES_MIN)? {
            let client = read_client(&mut reader)?;
            let n = reader.count_some(LETTER_BYTES_MIN)?;
            let letters = (0..n).map(|_| DeadLetter::decode(&mut reader)).collect::<Result<_, _>>()?;
            insert_ascending(&mut clients, client, letters)?;
        }
        reader.finish()?;
        Ok(DeadLettersBlock(clients))
    }
}
