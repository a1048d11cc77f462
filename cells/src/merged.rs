//! The merged cells that answer a question, as a program gets them that merges them further. The grammar is in docs/FORMATS.md.

use crate::cell::Cell;
use crate::codec::{DecodeError, Reader, put_iv, put_str, put_uv};
use crate::key::{Tier, check_minute, is_name};
use crate::limits::{CUBE_DIMENSIONS_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.catchment.cells";

const VERSION: u8 = 1;

/// The fewest bytes of a row: what a count can at most claim.
const ROW_BYTES_MIN: usize = 2;

/// What answers a question: a cell for each bucket and group.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The cube that the cells are of.
    pub cube: Box<str>,
    /// The coarsest tier that was read.
    pub tier: Tier,
    /// The first minute.
    pub start: i64,
    /// The minute after the last.
    pub end: i64,
    /// When the newest frame of all was cut, in ms, where that is known.
    pub as_of: Option<i64>,
    /// The dimensions that tell groups apart.
    pub dimensions: Vec<Box<str>>,
    /// Ascending by bucket.
    pub rows: Vec<MergedRow>,
}

/// One bucket of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedRow {
    /// The bucket's start, as a minute.
    pub bucket: i64,
    /// The group's value of each dimension; `(other)` in what a limit leaves over.
    pub group: Vec<Box<str>>,
    /// The merge of its cells.
    pub cell: Cell,
}

impl Merged {
    /// Writes all of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_str(&mut out, &self.cube);
        out.push(self.tier as u8);
        put_iv(&mut out, self.start);
        put_uv(&mut out, self.end.abs_diff(self.start));
        put_iv(&mut out, self.as_of.unwrap_or(0));
        put_uv(&mut out, self.dimensions.len() as u64);
        self.dimensions.iter().for_each(|dimension| put_str(&mut out, dimension));
        put_uv(&mut out, self.rows.len() as u64);
        let (mut last, mut cell) = (0, Vec::new());
        for row in &self.rows {
            put_iv(&mut out, row.bucket.wrapping_sub(std::mem::replace(&mut last, row.bucket)));
            row.group.iter().for_each(|value| put_str(&mut out, value));
            cell.clear();
            row.cell.encode_stored(&mut cell);
            put_uv(&mut out, cell.len() as u64);
            out.extend_from_slice(&cell);
        }
        out
    }

    /// Reads all of it.
    pub fn decode(bytes: &[u8]) -> Result<Merged, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let cube = reader.str(NAME_BYTES_MAX)?;
        let tier = Tier::from_byte(reader.u8()?)?;
        let start = check_minute(reader.iv()?)?;
        let end = start.checked_add_unsigned(reader.uv()?).ok_or(DecodeError::Malformed("end"))?;
        let end = check_minute(end)?;
        let as_of = Some(reader.iv()?).filter(|at| *at != 0);
        let n = reader.count(1)?;
        if n > CUBE_DIMENSIONS_MAX {
            return Err(DecodeError::Malformed("too many dimensions"));
        }
        let dimensions: Vec<&str> = (0..n).map(|_| reader.str(NAME_BYTES_MAX)).collect::<Result<_, _>>()?;
        if !is_name(cube) || !dimensions.iter().all(|dimension| is_name(dimension)) {
            return Err(DecodeError::Malformed("a cube's or a dimension's name"));
        }
        let mut last = 0i64;
        let mut rows = Vec::new();
        for _ in 0..reader.count(ROW_BYTES_MIN)? {
            last = check_minute(last.wrapping_add(reader.iv()?))?;
            let group = dimensions.iter().map(|_| Ok(reader.str(VALUE_BYTES_MAX)?.into())).collect::<Result<_, _>>()?;
            let length = reader.count(1)?;
            rows.push(MergedRow { bucket: last, group, cell: Cell::decode_stored(reader.bytes(length)?)? });
        }
        reader.finish()?;
        let dimensions = dimensions.into_iter().map(Into::into).collect();
        Ok(Merged { cube: cube.into(), tier, start, end, as_of, dimensions, rows })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::users::Coupon;

    fn merged() -> Merged {
        let row = |bucket, group: &str, users: u64| {
            let mut cell = Cell { count: users, ..Cell::default() };
            (0..users).for_each(|user| cell.users.insert(Coupon::of(user)));
            cell.record("duration", 1_500_000, true);
            MergedRow { bucket, group: vec![group.into()], cell }
        };
        Merged {
            cube: "page".into(),
            tier: Tier::Hour,
            start: -60,
            end: 120,
            as_of: Some(7),
            dimensions: vec!["page".into()],
            rows: vec![row(-60, "/", 3), row(-60, "(other)", 2_000), row(60, "", 1)],
        }
    }

    #[test]
    fn cells_are_read_as_written() {
        let none = Merged { as_of: None, dimensions: Vec::new(), rows: Vec::new(), ..merged() };
        for merged in [merged(), none] {
            assert_eq!(Merged::decode(&merged.encode()), Ok(merged));
        }
        // Final: others read it.
        let short = Merged { rows: merged().rows.split_off(2), ..merged() };
        let bytes = b"\x01\x04page\x02\x77\xb4\x01\x0e\x01\x04page\x01\x78\0";
        assert_eq!(&short.encode()[..bytes.len()], bytes);
    }

    proptest! {
        #[test]
        fn any_bytes_are_cells_or_refused(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = merged().encode();
            let index = at.index(bytes.len());
            bytes[index] = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Ok(merged) = Merged::decode(&bytes) {
                prop_assert_eq!(Merged::decode(&merged.encode()), Ok(merged));
            }
        }
    }
}
