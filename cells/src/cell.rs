//! A cell: the mergeable summary of one (client, cube, bucket, values), and its bytes.

mod measures;

use crate::codec::{DecodeError, Reader, put_iv, put_iv128, put_str, put_uv};
use crate::digest::Digest;
use crate::limits::{MEASURE_MICROS_MAX, NAME_BYTES_MAX};
use crate::users::Users;

pub use measures::Measures;

/// The version byte of a stored cell.
const STORED_VERSION: u8 = 1;

/// Counts, sums, users: merging is the only operation on it, and order doesn't matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    /// Events.
    pub count: u64,
    /// Users of these events.
    pub users: Users,
    /// Summaries of numbers, by the measure's name.
    pub measures: Measures,
}

/// The summary of one measure: at least one value, in millionths.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Values.
    pub n: u64,
    /// Their sum, in millionths.
    pub sum: i128,
    /// The least, in millionths.
    pub min: i64,
    /// The greatest, in millionths.
    pub max: i64,
    /// Their distribution, in cubes that keep it.
    pub digest: Option<Digest>,
}

/// What is wanted of a stored cell beside its count; the rest isn't read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its users.
    pub users: bool,
    /// Its measures.
    pub measures: bool,
}

/// A number in millionths, rounded half to even; `None` where it is not finite or too large for a measure.
pub fn micros(value: f64) -> Option<i64> {
    let scaled = (value * 1e6).round_ties_even();
    // 2⁶³ is the first f64 beyond i64; the comparison also refuses NaN.
    let fits = scaled.abs() < MEASURE_MICROS_MAX as f64;
    fits.then_some(scaled as i64)
}

impl Measure {
    /// The summary of one value.
    pub fn of(micros: i64, with_digest: bool) -> Self {
        let digest = with_digest.then(|| {
            let mut digest = Digest::new();
            digest.record(micros);
            digest
        });
        Measure { n: 1, sum: micros.into(), min: micros, max: micros, digest }
    }

    /// Adds one value, in millionths.
    pub fn record(&mut self, micros: i64) {
        self.add(1, micros.into(), micros, micros);
        if let Some(digest) = &mut self.digest {
            digest.record(micros);
        }
    }

    /// Adds another summary. A digest stays only where both have one.
    pub fn merge(&mut self, other: &Measure) {
        self.add(other.n, other.sum, other.min, other.max);
        match (&mut self.digest, &other.digest) {
            (Some(ours), Some(theirs)) => ours.merge(theirs),
            _ => self.digest = None,
        }
    }

    fn add(&mut self, n: u64, sum: i128, min: i64, max: i64) {
        let total = self.n.checked_add(n);
        self.n = total.unwrap_or(u64::MAX);
        self.sum = self.sum.saturating_add(sum);
        self.min = self.min.min(min);
        self.max = self.max.max(max);
        if total.is_none() {
            // More values than can be counted, which nobody but a forger has: what remains must still make sense.
            let within = |bound: i64| i128::from(bound) * i128::from(u64::MAX);
            self.sum = self.sum.clamp(within(self.min), within(self.max));
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_uv(out, self.n);
        put_iv128(out, self.sum);
        put_iv(out, self.min);
        put_uv(out, self.max.abs_diff(self.min));
        match &self.digest {
            None => out.push(0),
            Some(digest) => digest.encode(out),
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = reader.uv()?;
        let sum = reader.iv128()?;
        let min = reader.iv()?;
        let max = min.checked_add_unsigned(reader.uv()?).ok_or(DecodeError::Malformed("maximum out of range"))?;
        let within = |bound: i64| i128::from(bound) * i128::from(n);
        if n == 0 || sum < within(min) || sum > within(max) {
            return Err(DecodeError::Malformed("a measure's sum contradicts its count, minimum and maximum"));
        }
        let digest = Digest::decode(reader, n, min, max)?;
        Ok(Measure { n, sum, min, max, digest })
    }
}

impl Cell {
    /// Adds another cell.
    pub fn merge(&mut self, other: &Cell) {
        self.count = self.count.saturating_add(other.count);
        self.users.merge(&other.users);
        self.measures.merge(&other.measures);
    }

    /// Adds one value of a measure, in millionths.
    pub fn record(&mut self, name: &str, micros: i64, with_digest: bool) {
        self.measures.record(name, micros, with_digest);
    }

    /// Bytes in memory, roughly: for bounds on tables of cells.
    pub fn memory_bytes(&self) -> usize {
        let measures = self.measures.iter().map(|(name, measure)| {
            size_of::<(Box<str>, Measure)>() + name.len() + measure.digest.as_ref().map_or(0, Digest::memory_bytes)
        });
        size_of::<Cell>() + self.users.memory_bytes() + measures.sum::<usize>()
    }

    /// Writes the stored form: a version, and measures by name.
    pub fn encode_stored(&self, out: &mut Vec<u8>) {
        out.push(STORED_VERSION);
        self.encode(out, put_str);
    }

    /// Reads the stored form, all of it.
    pub fn decode_stored(bytes: &[u8]) -> Result<Cell, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            STORED_VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let cell = Cell::decode(&mut reader, |reader| reader.str(NAME_BYTES_MAX))?;
        reader.finish()?;
        Ok(cell)
    }

    /// Writes a cell; `put_name` writes a measure's name.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, put_name: impl FnMut(&mut Vec<u8>, &str)) {
        put_uv(out, self.count);
        self.users.encode(out);
        self.measures.encode(out, put_name);
    }

    /// Reads a cell; `name` reads a measure's name.
    pub(crate) fn decode<'a>(
        reader: &mut Reader<'a>,
        name: impl Fn(&mut Reader<'a>) -> Result<&'a str, DecodeError>,
    ) -> Result<Cell, DecodeError> {
        Ok(Cell { count: reader.uv()?, users: Users::decode(reader)?, measures: Measures::decode(reader, name)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn measure() -> impl Strategy<Value = Measure> {
        let n = prop_oneof![1..5u64, u64::MAX - 3..=u64::MAX];
        let value = || -(1i64 << 61)..1 << 61;
        (n, value(), value(), 0..=4i128).prop_map(|(n, a, b, part)| {
            let (min, max) = (a.min(b), a.max(b));
            let sum = i128::from(n) * i128::from(min) + i128::from(n) * (i128::from(max) - i128::from(min)) / 4 * part;
            Measure { n, sum, min, max, digest: None }
        })
    }

    proptest! {
        #[test]
        fn whatever_is_merged_can_be_stored(measures in prop::collection::vec(measure(), 1..6)) {
            let mut merged = Cell::default();
            for measure in measures {
                let mut measures = Measures::default();
                measures.push("m", measure);
                merged.merge(&Cell { measures, ..Cell::default() });
            }
            let mut bytes = Vec::new();
            merged.encode_stored(&mut bytes);
            prop_assert_eq!(Cell::decode_stored(&bytes), Ok(merged));
        }
    }

    #[test]
    fn numbers_become_micros_or_are_none() {
        for (number, expected) in [
            (1.5, Some(1_500_000)),
            (0.000_000_5, Some(0)),
            (-0.000_001_5, Some(-2)),
            (9.2e12, Some(9_200_000_000_000_000_000)),
            (9.3e12, None),
            (-9.3e12, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ] {
            assert_eq!(micros(number), expected, "{number}");
        }
    }
}
