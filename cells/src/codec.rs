//! The primitives that every format is written in: varints, zigzag, length-prefixed strings.
//!
//! Reading checks first and borrows: nothing is allocated because bytes say so.

use thiserror::Error;

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("truncated: {needed} more bytes expected, {remaining} there")]
    Truncated {
        /// Bytes that the value needs.
        needed: usize,
        /// Bytes that are there.
        remaining: usize,
    },
    /// The bytes break a rule of the format.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The format's version is not one that this code reads.
    #[error("version {0} is unknown")]
    Version(u8),
}

/// Reads a byte slice from front to back.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) =
            self.bytes.split_at_checked(n).ok_or(DecodeError::Truncated { needed: n, remaining: self.bytes.len() })?;
        self.bytes = tail;
        Ok(head)
    }

    /// The next `N` bytes, by value.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian u32.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A little-endian u64.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A little-endian i64.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// An unsigned varint in its shortest form.
    pub fn uv(&mut self) -> Result<u64, DecodeError> {
        // Most varints are one byte: indexes, lengths, small counts.
        if let Some((&byte, tail)) = self.bytes.split_first()
            && byte < 0x80
        {
            self.bytes = tail;
            return Ok(u64::from(byte));
        }
        u64::try_from(self.varint(64)?).map_err(|_| DecodeError::Malformed("varint over 64 bits"))
    }

    /// An unsigned varint of up to 128 bits.
    pub fn uv128(&mut self) -> Result<u128, DecodeError> {
        self.varint(128)
    }

    /// A zigzag varint.
    pub fn iv(&mut self) -> Result<i64, DecodeError> {
        let z = self.uv()?;
        Ok((z >> 1) as i64 ^ -((z & 1) as i64))
    }

    /// A zigzag varint of up to 128 bits.
    pub fn iv128(&mut self) -> Result<i128, DecodeError> {
        let z = self.uv128()?;
        Ok((z >> 1) as i128 ^ -((z & 1) as i128))
    }

    /// A count of things that take at least `bytes_each` (≥ 1) bytes: never more than the bytes left can hold.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, DecodeError> {
        let n = self.uv()?;
        match usize::try_from(n) {
            Ok(n) if n <= self.remaining() / bytes_each => Ok(n),
            _ => Err(DecodeError::Malformed("a count that the bytes left can't hold")),
        }
    }

    /// A count of things of which there is at least one.
    pub fn count_some(&mut self, bytes_each: usize) -> Result<usize, DecodeError> {
        match self.count(bytes_each)? {
            0 => Err(DecodeError::Malformed("nothing where something is due")),
            n => Ok(n),
        }
    }

    /// A string of at most `max` bytes.
    pub fn str(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        let n = self.count(1)?;
        self.utf8(n, max)
    }

    /// A string behind a length of one byte.
    pub fn str8(&mut self) -> Result<&'a str, DecodeError> {
        let n = self.u8()?;
        self.utf8(usize::from(n), usize::from(u8::MAX))
    }

    /// Refuses bytes after the last value.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes after the end")) }
    }

    fn utf8(&mut self, n: usize, max: usize) -> Result<&'a str, DecodeError> {
        if n > max {
            return Err(DecodeError::Malformed("string too long"));
        }
        str::from_utf8(self.bytes(n)?).map_err(|_| DecodeError::Malformed("string not UTF-8"))
    }

    fn varint(&mut self, bits: u32) -> Result<u128, DecodeError> {
        let mut value: u128 = 0;
        let mut shift = 0;
        loop {
            let byte = self.u8()?;
            let group = u128::from(byte & 0x7f);
            if shift >= bits || (bits - shift < 7 && group >> (bits - shift) != 0) {
                return Err(DecodeError::Malformed("varint too long"));
            }
            value |= group << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::Malformed("varint not in its shortest form"));
                }
                return Ok(value);
            }
            shift += 7;
        }
    }
}

/// Writes an unsigned varint.
pub fn put_uv(out: &mut Vec<u8>, mut value: u64) {
    // Most are one byte; of others the room is asked for once.
    if value < 0x80 {
        out.push(value as u8);
        return;
    }
    let mut bytes = [0; 10];
    let mut n = 0;
    while value >= 0x80 {
        bytes[n] = value as u8 | 0x80;
        value >>= 7;
        n += 1;
    }
    bytes[n] = value as u8;
    out.extend_from_slice(&bytes[..=n]);
}

/// Writes an unsigned varint of up to 128 bits.
pub fn put_uv128(out: &mut Vec<u8>, mut value: u128) {
    while value > u64::MAX.into() {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    put_uv(out, value as u64);
}

/// Writes a zigzag varint.
pub fn put_iv(out: &mut Vec<u8>, value: i64) {
    put_uv(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Writes a zigzag varint of up to 128 bits.
pub fn put_iv128(out: &mut Vec<u8>, value: i128) {
    put_uv128(out, ((value << 1) ^ (value >> 127)) as u128);
}

/// Writes a string behind its varint length.
pub fn put_str(out: &mut Vec<u8>, text: &str) {
    put_uv(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Writes a string of at most 255 bytes behind a length of one byte; a longer one is cut at a character's edge.
pub fn put_str8(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u8::MAX))];
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(u: u64, i: i64, v: u128, w: i128, text in ".{0,80}") {
            let mut out = Vec::new();
            put_uv(&mut out, u);
            put_iv(&mut out, i);
            put_uv128(&mut out, v);
            put_iv128(&mut out, w);
            put_str(&mut out, &text);
            put_str8(&mut out, &text);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.uv(), Ok(u));
            prop_assert_eq!(reader.iv(), Ok(i));
            prop_assert_eq!(reader.uv128(), Ok(v));
            prop_assert_eq!(reader.iv128(), Ok(w));
            prop_assert_eq!(reader.str(400), Ok(text.as_str()));
            let short = reader.str8().unwrap();
            prop_assert!(text.starts_with(short) && (short.len() > 251 || short == text));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let mut reader = Reader::new(&bytes);
            // What is read is written back as the same bytes: there is one form only.
            if let Ok(value) = reader.uv128() {
                let mut out = Vec::new();
                put_uv128(&mut out, value);
                prop_assert_eq!(&bytes[..out.len()], &out[..]);
            }
        }
    }

    #[test]
    fn long_and_padded_varints_are_refused() {
        for bytes in [&[0x80, 0x00][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]] {
            assert!(Reader::new(bytes).uv().is_err(), "{bytes:?}");
        }
        assert!(Reader::new(&[0xff; 20]).uv128().is_err());
        assert!(Reader::new(&[5, 1, 2]).count(1).is_err());
    }
}
