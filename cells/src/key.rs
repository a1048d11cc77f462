//! The key a cell is stored under: it sorts by client, cube, tier and bucket, so that a question is one scan.

use crate::client::ClientId;
use crate::codec::{DecodeError, Reader, put_uv};
use crate::limits::{CUBE_DIMENSIONS_MAX, MINUTE_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// A cell's values, one per dimension of its cube; `None` where the event had none.
pub type Values = Vec<Option<Box<str>>>;

/// Whether a text may name a cube, a dimension, a measure or a reason: 1 to [`NAME_BYTES_MAX`] bytes without NUL, which ends names
/// in keys.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains('\0')
}

/// A minute from outside, if it is within [`MINUTE_MAX`].
pub(crate) fn check_minute(minute: i64) -> Result<i64, DecodeError> {
    let fits = (-MINUTE_MAX..=MINUTE_MAX).contains(&minute);
    fits.then_some(minute).ok_or(DecodeError::Malformed("minute"))
}

/// The size of a bucket. The numbers are stored: final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tier {
    /// One minute.
    Minute = 1,
    /// One hour of the client's clock.
    Hour = 2,
    /// One day of the client's clock.
    Day = 3,
}

/// Names a cell.
///
/// Bytes: `client ‖ 0x00 ‖ cube ‖ 0x00 ‖ tier ‖ bucket ‖ values`, the bucket an i64, big-endian with its sign bit flipped;
/// each value a varint (0: absent, else length + 1) and UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// Whose.
    pub client: ClientId,
    /// The cube's name.
    pub cube: Box<str>,
    /// The bucket's size.
    pub tier: Tier,
    /// The bucket's start, in minutes since 1970.
    pub bucket: i64,
    /// The values.
    pub values: Values,
}

impl Tier {
    /// What answers call it.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Minute => "minute",
            Tier::Hour => "hour",
            Tier::Day => "day",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        match byte {
            1 => Ok(Tier::Minute),
            2 => Ok(Tier::Hour),
            3 => Ok(Tier::Day),
            _ => Err(DecodeError::Malformed("unknown tier")),
        }
    }
}

impl CellKey {
    /// The key's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = bucket_prefix(&self.client, &self.cube, self.tier, self.bucket);
        for value in &self.values {
            match value {
                None => out.push(0),
                Some(value) => {
                    put_uv(&mut out, value.len() as u64 + 1);
                    out.extend_from_slice(value.as_bytes());
                }
            }
        }
        out
    }

    /// Reads a key of `dimensions` values from the front of the bytes; what follows it (a run) is left to the caller.
    pub fn decode(bytes: &[u8], dimensions: usize) -> Result<(CellKey, &[u8]), DecodeError> {
        if dimensions > CUBE_DIMENSIONS_MAX {
            return Err(DecodeError::Malformed("too many dimensions"));
        }
        let (client, rest) = split_at_nul(bytes)?;
        let (cube, rest) = split_at_nul(rest)?;
        if !is_name(cube) {
            return Err(DecodeError::Malformed("cube's name"));
        }
        let mut reader = Reader::new(rest);
        let tier = Tier::from_byte(reader.u8()?)?;
        let mut values = [None; CUBE_DIMENSIONS_MAX];
        let bucket = read_place(&mut reader, &mut values[..dimensions])?;
        let values = values[..dimensions].iter().map(|value| value.map(Into::into)).collect();
        let client = ClientId::new(client).map_err(|_| DecodeError::Malformed("client id"))?;
        let key = CellKey { client, cube: cube.into(), tier, bucket, values };
        Ok((key, &bytes[bytes.len() - reader.remaining()..]))
    }

    /// The bytes that keys of the buckets `from..to` lie between, half-open.
    pub fn range(client: &ClientId, cube: &str, tier: Tier, from: i64, to: i64) -> (Vec<u8>, Vec<u8>) {
        (bucket_prefix(client, cube, tier, from), bucket_prefix(client, cube, tier, to))
    }
}

/// Reads a bucket and as many values as there is room for: what follows the tier in a key.
pub fn read_place<'a>(reader: &mut Reader<'a>, values: &mut [Option<&'a str>]) -> Result<i64, DecodeError> {
    let bucket = (u64::from_be_bytes(reader.array()?) ^ (1 << 63)) as i64;
    if !(-MINUTE_MAX..=MINUTE_MAX).contains(&bucket) {
        return Err(DecodeError::Malformed("bucket out of range"));
    }
    for value in values {
        *value = match reader.uv()? {
            0 => None,
            n if n <= VALUE_BYTES_MAX as u64 + 1 => {
                let text = str::from_utf8(reader.bytes(n as usize - 1)?);
                Some(text.map_err(|_| DecodeError::Malformed("value not UTF-8"))?)
            }
            _ => return Err(DecodeError::Malformed("value too long")),
        };
    }
    Ok(bucket)
}

/// What the keys of a client's cube in one tier begin with.
pub fn series(client: &ClientId, cube: &str, tier: Tier) -> Vec<u8> {
    let mut out = Vec::with_capacity(client.as_str().len() + cube.len() + 32);
    out.extend_from_slice(client.as_str().as_bytes());
    out.push(0);
    out.extend_from_slice(cube.as_bytes());
    out.push(0);
    out.push(tier as u8);
    out
}

/// Writes a bucket, so that buckets sort as their bytes do.
pub fn put_bucket(out: &mut Vec<u8>, bucket: i64) {
    out.extend_from_slice(&(bucket as u64 ^ (1 << 63)).to_be_bytes());
}

fn bucket_prefix(client: &ClientId, cube: &str, tier: Tier, bucket: i64) -> Vec<u8> {
    let mut out = series(client, cube, tier);
    put_bucket(&mut out, bucket);
    out
}

fn split_at_nul(bytes: &[u8]) -> Result<(&str, &[u8]), DecodeError> {
    let end = bytes.iter().position(|&b| b == 0).ok_or(DecodeError::Truncated { needed: 1, remaining: 0 })?;
    let text = str::from_utf8(&bytes[..end]).map_err(|_| DecodeError::Malformed("name not UTF-8"))?;
    Ok((text, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = CellKey> {
        let tier = prop_oneof![Just(Tier::Minute), Just(Tier::Hour), Just(Tier::Day)];
        let values = prop::collection::vec(prop::option::of(".{0,8}".prop_map(Box::from)), 0..4);
        ("[a-z]{1,4}", "[a-z]{1,4}", tier, -MINUTE_MAX..MINUTE_MAX, values).prop_map(
            |(client, cube, tier, bucket, values)| CellKey {
                client: ClientId::new(&client).unwrap(),
                cube: cube.into(),
                tier,
                bucket,
                values,
            },
        )
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_leave_the_rest(key in key(), tail: [u8; 8]) {
            let mut bytes = key.encode();
            bytes.extend_from_slice(&tail);
            let (read, rest) = CellKey::decode(&bytes, key.values.len()).unwrap();
            prop_assert_eq!(read, key);
            prop_assert_eq!(rest, &tail[..]);
        }

        #[test]
        fn keys_sort_by_bucket_and_lie_in_their_range(a in key(), bucket in -MINUTE_MAX..MINUTE_MAX) {
            let b = CellKey { bucket, ..a.clone() };
            prop_assert_eq!(a.encode().cmp(&b.encode()), a.bucket.cmp(&b.bucket));
            let (from, to) = CellKey::range(&a.client, &a.cube, a.tier, a.bucket, a.bucket + 1);
            prop_assert!(from <= a.encode() && a.encode() < to);
            prop_assert_eq!(from <= b.encode() && b.encode() < to, a.bucket == b.bucket);
        }

        #[test]
        fn any_bytes_are_a_key_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), dimensions in 0usize..10) {
            if let Ok((key, rest)) = CellKey::decode(&bytes, dimensions) {
                prop_assert_eq!(key.encode(), &bytes[..bytes.len() - rest.len()]);
            }
        }
    }
}
