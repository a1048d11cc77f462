//! The log: the frames that are stored, in the order in which they were, until cells and central have them.

use std::collections::VecDeque;

use bytes::Bytes;
use catchment_cells::codec::{DecodeError, Reader};

/// The version byte of a row.
const VERSION: u8 = 1;
/// Rows are counted together until they have so many bytes.
const SEGMENT_BYTES: u64 = 64 << 10;

/// A frame in the log.
///
/// Key: `u64 position`, big-endian. Value: `u8 version = 1 ‖ i64 received_at ‖ frame`.
#[derive(Debug, Clone)]
pub struct LogRow {
    /// Its place, from 1.
    pub position: u64,
    /// When it arrived, in ms.
    pub received_at: i64,
    /// Its bytes.
    pub frame: Bytes,
}

/// How many bytes of frames the log has.
#[derive(Debug, Default)]
pub struct LogSize {
    /// Of each segment, the position after its last row, and its bytes.
    segments: VecDeque<(u64, u64)>,
    bytes: u64,
}

/// The position from which on rows are needed: by a restart, which reads what no flush has written, and by central, where
/// there is one, which gets them from its cursor on.
pub fn needed_from(flushed: u64, forwarded: Option<u64>) -> u64 {
    forwarded.map_or(flushed, |forwarded| flushed.min(forwarded))
}

impl LogRow {
    /// The row's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9 + self.frame.len());
        out.push(VERSION);
        out.extend_from_slice(&self.received_at.to_le_bytes());
        out.extend_from_slice(&self.frame);
        out
    }

    /// Reads a row.
    pub fn decode(key: &[u8], value: Bytes) -> Result<LogRow, DecodeError> {
        let position = u64::from_be_bytes(Reader::new(key).array()?);
        let mut reader = Reader::new(&value);
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let received_at = reader.i64()?;
        let frame = value.slice(value.len() - reader.remaining()..);
        Ok(LogRow { position, received_at, frame })
    }
}

impl LogSize {
    /// A row was appended.
    pub fn append(&mut self, row: &LogRow) {
        let bytes = row.frame.len() as u64;
        self.bytes += bytes;
        match self.segments.back_mut() {
            Some((end, segment)) if *segment < SEGMENT_BYTES => {
                *end = row.position + 1;
                *segment += bytes;
            }
            _ => self.segments.push_back((row.position + 1, bytes)),
        }
    }

    /// All rows before the position are gone.
    pub fn truncate(&mut self, position: u64) {
        while let Some((_, bytes)) = self.segments.pop_front_if(|(end, _)| *end <= position) {
            self.bytes -= bytes;
        }
    }

    /// Bytes of frames, give or take a segment.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of those before the position, give or take a segment.
    pub fn bytes_before(&self, position: u64) -> u64 {
        self.segments.iter().take_while(|(end, _)| *end <= position).map(|(_, bytes)| bytes).sum()
    }
}
