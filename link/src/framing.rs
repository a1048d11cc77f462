//! `u32 length ‖ bytes`, one after the other: on the link, and in the body of a POST to the relay.

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use thiserror::Error;

/// The most that is taken from a stream at once: what a buffer grows by, whatever a length says.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// A length over the allowed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a length of {length} bytes; at most {bytes_max} are allowed")]
pub struct TooLong {
    /// The length that was read.
    pub length: usize,
    /// The longest that is allowed.
    pub bytes_max: usize,
}

/// Takes the next piece off the front; `None`: it isn't all there yet, and nothing was taken.
pub fn take(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, TooLong> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > bytes_max {
        return Err(TooLong { length, bytes_max });
    }
    if buffer.len() < prefix.len() + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Why bytes are not pieces, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SplitError {
    /// A piece is too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The bytes end within a piece.
    #[error("the bytes end within a piece")]
    Truncated,
}

/// The pieces of bytes that are all there.
pub fn split(bytes: Bytes, bytes_max: usize) -> Result<Vec<Bytes>, SplitError> {
    let mut rest = BytesMut::from(bytes);
    let mut pieces = Vec::new();
    while let Some(piece) = take(&mut rest, bytes_max)? {
        pieces.push(piece);
    }
    if rest.is_empty() { Ok(pieces) } else { Err(SplitError::Truncated) }
}

/// Appends a piece behind its length. It has less than 4 GiB, as all that is sent has.
pub fn put(out: &mut Vec<u8>, piece: &[u8]) {
    out.extend_from_slice(&prefix(piece));
    out.extend_from_slice(piece);
}

/// A piece as two chunks for a stream, without copying it.
pub(crate) fn chunks(piece: Bytes) -> [Bytes; 2] {
    [Bytes::copy_from_slice(&prefix(&piece)), piece]
}

fn prefix(piece: &[u8]) -> [u8; 4] {
    (piece.len() as u32).to_le_bytes()
}

/// Why a stream gave no further piece.
#[derive(Debug, Error)]
pub(crate) enum PieceError {
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error("the stream ended within a piece")]
    Truncated,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The pieces of a stream.
pub(crate) struct Pieces {
    stream: RecvStream,
    buffer: BytesMut,
    bytes_max: usize,
}

impl Pieces {
    pub(crate) fn new(stream: RecvStream, bytes_max: usize) -> Self {
        Pieces { stream, buffer: BytesMut::new(), bytes_max }
    }

    /// The next piece; `None` at the end. Cancelling loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, PieceError> {
        loop {
            if let Some(piece) = take(&mut self.buffer, self.bytes_max)? {
                return Ok(Some(piece));
            }
            match self.stream.read_chunk(CHUNK_BYTES_MAX, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(PieceError::Truncated),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_from_any_cut() {
        let pieces: [&[u8]; 4] = [b"one", b"", b"three", &[7; 300]];
        let mut all = Vec::new();
        pieces.iter().for_each(|piece| put(&mut all, piece));
        for step in [1, 2, 3, 7, 1000] {
            let (mut buffer, mut taken) = (BytesMut::new(), Vec::new());
            for part in all.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(piece) = take(&mut buffer, 300).unwrap() {
                    taken.push(piece);
                }
            }
            assert_eq!(taken, pieces);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_length_is_refused_before_its_bytes_come() {
        let mut buffer = BytesMut::from(&301u32.to_le_bytes()[..]);
        assert_eq!(take(&mut buffer, 300), Err(TooLong { length: 301, bytes_max: 300 }));
    }
}
