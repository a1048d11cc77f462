//! The distribution of a measure's values: the values themselves while they are few, else a t-digest. The grammar is in
//! docs/FORMATS.md.

use datasketches::tdigest::TDigestMut;

use crate::codec::{DecodeError, Reader, put_iv, put_uv};
use crate::estimate::Estimate;
use crate::limits::{DIGEST_IMAGE_BYTES_MAX, DIGEST_VALUES_MAX, DIGEST_WEIGHT_MAX};

/// The form's first byte on the wire: final.
const NONE: u8 = 0;
const VALUES: u8 = 1;
const T_DIGEST: u8 = 2;

/// Accuracy of a t-digest: some 200 centroids.
const K: u16 = 200;
/// Third byte of a t-digest's image.
const FAMILY: u8 = 20;
/// Bytes of a t-digest's image before its centroids, and of each of these: f64 mean, u64 weight.
const IMAGE_HEADER_BYTES: usize = 32;
const CENTROID_BYTES: usize = 16;

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
    TDigest(Box<TDigestMut>),
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
            (Form::TDigest(ours), Form::TDigest(theirs)) => image(ours) == image(theirs),
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
            Form::TDigest(digest) if digest.total_weight() < DIGEST_WEIGHT_MAX => digest.update(micros as f64),
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
            (Form::TDigest(ours), Form::TDigest(theirs))
                if ours.total_weight() + theirs.total_weight() <= DIGEST_WEIGHT_MAX =>
            {
                ours.merge(theirs);
            }
            _ => self.0 = Form::GivenUp,
        }
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Values(values) => values.capacity() * size_of::<i64>(),
            Form::TDigest(digest) => size_of::<TDigestMut>() + digest.estimated_size(),
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
                let q = q.clamp(0.0, 1.0);
                let value = digest.clone().quantile(q).ok()??;
                let (lower, upper) = bounds(digest, q)?;
                Some(Estimate {
                    value: units(value),
                    lower: units(lower.min(value)),
                    upper: units(upper.max(value)),
                    exact: false,
                })
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
                let image = image(digest);
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
            let mut digest = TDigestMut::new(K).expect("K is within what the library takes");
            values.iter().for_each(|&micros| digest.update(micros as f64));
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

/// The library checks the centroids; that they are this measure's, and written the one way, is checked here.
fn read_image(image: &[u8], n: u64, min: i64, max: i64) -> Result<TDigestMut, DecodeError> {
    let refused = DecodeError::Malformed("t-digest");
    let n_fits = n > DIGEST_VALUES_MAX as u64 && n <= DIGEST_WEIGHT_MAX;
    // Of another family, the library would try formats that nobody here writes.
    if !n_fits || image.len() > DIGEST_IMAGE_BYTES_MAX || image.get(2) != Some(&FAMILY) {
        return Err(refused);
    }
    let mut digest = TDigestMut::deserialize(image).map_err(|_| refused.clone())?;
    let bits = |value: Option<f64>| value.map(f64::to_bits);
    let same_measure = digest.k() == K
        && digest.total_weight() == n
        && bits(digest.min_value()) == bits(Some(min as f64))
        && bits(digest.max_value()) == bits(Some(max as f64));
    if same_measure && digest.serialize() == image { Ok(digest) } else { Err(refused) }
}

fn image(digest: &TDigestMut) -> Vec<u8> {
    digest.clone().serialize()
}

/// Bounds of the value at rank ⌈q·n⌉, in millionths.
///
/// What values a centroid was made of is not known: they lie on both sides of its mean. So the rank is taken half a centroid
/// further both ways, and from there the next mean outwards. Near a value that is repeated so often that whole centroids are made of
/// it, others have swallowed some of it too, and the rank is taken further. Of eleven distributions, tied and smooth, at nine ranks,
/// in 1 to 1,440 parts, 99.7 to 100 % of the exact answers lay within; of smooth ones, the bounds are some 1.6 % of the ranks
/// away from the median and 0.7 % from the 95th percentile.
fn bounds(digest: &TDigestMut, q: f64) -> Option<(f64, f64)> {
    let image = image(digest);
    let mut centroids = Vec::new();
    let mut before = 0.0;
    for centroid in image.get(IMAGE_HEADER_BYTES..)?.as_chunks::<CENTROID_BYTES>().0 {
        let (mean, weight) = centroid.split_at(CENTROID_BYTES / 2);
        let mean = f64::from_le_bytes(mean.try_into().ok()?);
        let weight = u64::from_le_bytes(weight.try_into().ok()?) as f64;
        centroids.push(Centroid { mean, weight, middle: before + weight / 2.0 });
        before += weight;
    }
    let rank = q * before;
    let at = centroids.partition_point(|centroid| centroid.middle + centroid.weight / 2.0 < rank);
    let weight = centroids.get(at).map_or(0.0, |centroid| centroid.weight);
    // The places of the last centroid before so many centroids' weight to the left of the rank, and of the first after as many
    // to the right.
    let around = |centroids_away: f64| {
        let slack = centroids_away * weight + 1.0;
        let left = centroids.iter().rposition(|centroid| centroid.middle <= rank - slack);
        (left, centroids.iter().position(|centroid| centroid.middle >= rank + slack))
    };
    let (left, right) = around(4.0);
    let near = centroids.get(left.unwrap_or(0)..right.map_or(centroids.len(), |right| right + 1))?;
    let tied = near.windows(2).any(|two| two[0].mean == two[1].mean);
    let (left, right) = around(if tied { 1.5 } else { 0.5 });
    let mean = |at: usize| centroids.get(at).map(|centroid| centroid.mean);
    Some((left.and_then(mean).or(digest.min_value())?, right.and_then(mean).or(digest.max_value())?))
}

struct Centroid {
    mean: f64,
    weight: f64,
    /// Weight before it and half its own.
    middle: f64,
}

#[cfg(test)]
mod tests;
