//! What stands between frames and acks on the way.

use bytes::{Bytes, BytesMut};
use catchment_link::framing::{put, split, take};

/// The longest piece here: short, so that inputs pass it.
const PIECE_BYTES_MAX: usize = 1_000;

/// Pieces behind their lengths, whole and as they come in.
pub(crate) fn framing(bytes: &[u8]) -> bool {
    let whole = split(Bytes::copy_from_slice(bytes), PIECE_BYTES_MAX);
    let (mut buffer, mut taken, mut broken) = (BytesMut::new(), Vec::new(), false);
    'coming: for part in bytes.chunks(7) {
        buffer.extend_from_slice(part);
        loop {
            match take(&mut buffer, PIECE_BYTES_MAX) {
                Ok(Some(piece)) => taken.push(piece),
                Ok(None) => break,
                Err(_) => {
                    broken = true;
                    break 'coming;
                }
            }
        }
    }
    let Ok(pieces) = whole else {
        assert!(broken || !buffer.is_empty(), "what is broken as a whole is so in parts");
        return false;
    };
    assert!(!broken && buffer.is_empty());
    assert_eq!(pieces, taken);
    let mut again = Vec::new();
    pieces.iter().for_each(|piece| put(&mut again, piece));
    assert_eq!(again, bytes);
    true
}
