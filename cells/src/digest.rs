//! The distribution of a measure's values: the values themselves while they are few, else a t-digest. The grammar is in
//! docs/FORMATS.md.

mod tdigest;

use self::tdigest::TDigest;
use crate::codec::{DecodeError, Reader, put_iv, put_uv};
use crate::estimate::Estimate;
use crate::limits::{DIGEST_IMAGE_BYTES_MAX, DIGEST_VALUES_MAX, DIGEST_WEIGHT_MAX};

/// The form's first byte on the wire: final.
const NONE: u8 = 0;
const VALUES: u8 = 1;
const T_DIGEST: u8 = 2;

/// A set of values, in millionths, whose quantiles can be asked for.
///
/// A t-digest depends in its last bits on the order of merges, so two digests of the same values are alike, not equal.
#[derive(Debug, Clone)]
pub struct Digest(Form);

#[derive(Debug, Clone)]
enum Form {
    /// Ascending, at most [`DIGEST_VALUES_MAX`].
    Values(Vec<i64>),
    /// Of more values than that.
    TDigest(Box<TDigest>),
    /// Given up beyond [`DIGEST_WEIGHT_MAX`] values: written as no digest at all.
    GivenUp,
}

impl Default for Digest {
    fn default() -> Self {
        Digest::new()
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Values(ours), Form::Values(theirs)) => ours == theirs,
            (Form::TDigest(ours), Form::TDigest(theirs)) => ours.image() == theirs.image(),
            (Form::GivenUp, Form::GivenUp) => true,
            _ => false,
        }
    }
}

impl Digest {
    /// A digest of no values.
    pub fn new() -> Self {
        Digest(Form::Values(Vec::new()))
    }

    /// Adds a value, in millionths.
    pub fn record(&mut self, micros: i64) {
        match &mut self.0 {
            Form::Values(values) => {
                values.insert(values.partition_point(|&value| value < micros), micros);
                self.settle();
            }
            Form::TDigest(digest) if digest.n() < DIGEST_WEIGHT_MAX => digest.record(micros as f64),
            _ => self.0 = Form::GivenUp,
        }
    }

    /// Adds another digest's values.
    pub fn merge(&mut self, other: &Digest) {
        match (&mut self.0, &other.0) {
            (_, Form::Values(theirs)) => theirs.iter().for_each(|&micros| self.record(micros)),
            (Form::Values(ours), Form::TDigest(_)) => {
                let ours = std::mem::take(ours);
                *self = other.clone();
                ours.into_iter().for_each(|micros| self.record(micros));
            }
            (Form::TDigest(ours), Form::TDigest(theirs)) if ours.n() + theirs.n() <= DIGEST_WEIGHT_MAX => {
                ours.merge(theirs);
            }
            _ => self.0 = Form::GivenUp,
        }
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Values(values) => values.capacity() * size_of::<i64>(),
            Form::TDigest(digest) => size_of::<TDigest>() + digest.memory_bytes(),
            Form::GivenUp => 0,
        }
    }

    /// The value, in units, at rank ⌈q·n⌉ (the first is 1) of the n values; `None` if there are none.
    pub fn quantile(&self, q: f64) -> Option<Estimate> {
        let units = |micros: f64| micros / 1e6;
        match &self.0 {
            Form::Values(values) => {
                let rank = (q * values.len() as f64).ceil() as usize;
                let value = values.get(rank.clamp(1, values.len().max(1)) - 1)?;
                Some(Estimate::exact(units(*value as f64)))
            }
            Form::TDigest(digest) => {
                let (value, lower, upper) = digest.quantile(q.clamp(0.0, 1.0))?;
                Some(Estimate { value: units(value), lower: units(lower), upper: units(upper), exact: false })
            }
            Form::GivenUp => None,
        }
    }

    /// Writes the digest.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Values(values) => {
                out.push(VALUES);
                let mut last = None;
                for &value in values {
                    match last.replace(value) {
                        None => put_iv(out, value),
                        Some(last) => put_uv(out, value.abs_diff(last)),
                    }
                }
            }
            Form::TDigest(digest) => {
                out.push(T_DIGEST);
                let image = digest.image();
                put_uv(out, image.len() as u64);
                out.extend_from_slice(&image);
            }
            Form::GivenUp => out.push(NONE),
        }
    }

    /// Reads the digest of a measure of `n` values from `min` to `max`; `None` where it has none.
    pub fn decode(reader: &mut Reader<'_>, n: u64, min: i64, max: i64) -> Result<Option<Self>, DecodeError> {
        let form = match reader.u8()? {
            NONE => return Ok(None),
            VALUES => Form::Values(read_values(reader, n, min, max)?),
            T_DIGEST => {
                let length = reader.count(1)?;
                let image = reader.bytes(length)?;
                Form::TDigest(Box::new(read_image(image, n, min, max)?))
            }
            _ => return Err(DecodeError::Malformed("unknown form of digest")),
        };
        Ok(Some(Digest(form)))
    }

    /// Changes to a t-digest once there are too many values.
    fn settle(&mut self) {
        if let Form::Values(values) = &self.0
            && values.len() > DIGEST_VALUES_MAX
        {
            let mut digest = TDigest::new();
            values.iter().for_each(|&micros| digest.record(micros as f64));
            self.0 = Form::TDigest(Box::new(digest));
        }
    }
}

fn read_values(reader: &mut Reader<'_>, n: u64, min: i64, max: i64) -> Result<Vec<i64>, DecodeError> {
    if n > DIGEST_VALUES_MAX as u64 {
        return Err(DecodeError::Malformed("too many values in a digest"));
    }
    let mut values = Vec::with_capacity(n as usize);
    for i in 0..n {
        let value = match values.last() {
            None => Some(reader.iv()?),
            Some(last) => i64::checked_add_unsigned(*last, reader.uv()?),
        };
        let first_and_last = (i > 0 || value == Some(min)) && (i + 1 < n || value == Some(max));
        values.push(value.filter(|_| first_and_last).ok_or(DecodeError::Malformed("values of a digest"))?);
    }
    Ok(values)
}

fn read_image(image: &[u8], n: u64, min: i64, max: i64) -> Result<TDigest, DecodeError> {
    let n_fits = n > DIGEST_VALUES_MAX as u64 && n <= DIGEST_WEIGHT_MAX;
    let digest = if n_fits && image.len() <= DIGEST_IMAGE_BYTES_MAX { TDigest::read(image, n, min, max) } else { None };
    digest.ok_or(DecodeError::Malformed("t-digest"))
}

#[cfg(test)]
mod tests;
