//! Blocks: what the store keeps of several buckets of a cube as one value. By columns, so that a question reads what it asks for
//! and passes over the rest.

use std::collections::HashMap;
use std::ops::Range;

use catchment_cells::Cell;
use catchment_cells::cell::{Measures, Wanted};
use catchment_cells::codec::{DecodeError, Reader, put_str, put_uv};
use catchment_cells::key::Tier;
use catchment_cells::limits::{CUBE_DIMENSIONS_MAX, MINUTE_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use catchment_cells::users::Users;

/// The version byte of a block.
const VERSION: u8 = 1;
/// Bytes from which on a block takes no further bucket.
const BLOCK_BYTES: usize = 64 << 10;

/// A cell's values, one per dimension of its cube, and none beyond.
pub type Texts<'a> = [Option<&'a str>; CUBE_DIMENSIONS_MAX];

/// For each dimension of a cell, which of the block's texts is its value: 0 absent, else index + 1.
pub type Places = [u32; CUBE_DIMENSIONS_MAX];

/// Reads a block.
///
/// Bytes: `u8 version = 1 ‖ u8 dimensions ‖ dimensions × texts ‖ names ‖ buckets ‖ 4 × column`, with
/// - texts, names: `uv n ‖ n × str`: the values of a dimension, and the names of measures, as they first occur;
/// - buckets: `uv n ‖ n × (uv minutes since the one before, the first since the one in the row's key ‖ uv cells)`;
/// - column: `uv bytes ‖ …`, for each cell: its places, per dimension a uv (0 absent, else index + 1); `uv count`; users; `uv n ‖ n ×
///   (uv name ‖ measure)`. Users and measure as in a frame. Cells ascend by bucket, then by values.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    dimensions: usize,
    texts: Vec<Vec<&'a str>>,
    names: Vec<&'a str>,
    buckets: Reader<'a>,
    buckets_left: usize,
    /// The bucket at hand, and its cells that are left.
    bucket: i64,
    cells_left: u64,
    places: Reader<'a>,
    counts: Reader<'a>,
    users: Reader<'a>,
    measures: Reader<'a>,
}

/// Writes a block: cells in the order of their buckets, then of their values.
#[derive(Debug)]
pub struct Draft {
    texts: Vec<Dictionary>,
    names: Dictionary,
    /// Each bucket with its number of cells.
    buckets: Vec<(i64, u64)>,
    places: Vec<u8>,
    counts: Vec<u8>,
    users: Vec<u8>,
    measures: Vec<u8>,
}

/// Texts in the order in which they first occur.
#[derive(Debug, Default)]
struct Dictionary {
    places: HashMap<Box<str>, u64>,
    bytes: Vec<u8>,
}

/// A block's cells, with what was wanted of them.
#[derive(Debug)]
pub struct Decoded {
    texts: Vec<Vec<Box<str>>>,
    /// Each cell with its bucket.
    cells: Vec<(i64, Cell)>,
    /// As many for each cell as it has dimensions.
    places: Vec<u32>,
    memory_bytes: usize,
}

/// The buckets that may share a block, and are folded together: so many minutes of a grid that has nothing to do with any clock.
pub fn stretch_minutes(tier: Tier) -> i64 {
    match tier {
        Tier::Minute => 60,
        Tier::Hour => 6 * 60,
        Tier::Day => 24 * 60,
    }
}

/// The start of the stretch that a bucket is in.
pub fn stretch(tier: Tier, bucket: i64) -> i64 {
    bucket - bucket.rem_euclid(stretch_minutes(tier))
}

impl<'a> Block<'a> {
    /// Opens a block that begins with a bucket.
    pub fn open(first: i64, bytes: &'a [u8]) -> Result<Block<'a>, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let dimensions = usize::from(reader.u8()?);
        if dimensions > CUBE_DIMENSIONS_MAX {
            return Err(DecodeError::Malformed("too many dimensions"));
        }
        let texts = (0..dimensions).map(|_| read_texts(&mut reader, VALUE_BYTES_MAX)).collect::<Result<_, _>>()?;
        let names = read_texts(&mut reader, NAME_BYTES_MAX)?;
        let buckets_left = reader.count(2)?;
        let buckets = reader.clone();
        for _ in 0..buckets_left {
            reader.uv()?;
            reader.uv()?;
        }
        let mut column = || {
            let n = reader.count(1)?;
            Ok(Reader::new(reader.bytes(n)?))
        };
        let (places, counts, users, measures) = (column()?, column()?, column()?, column()?);
        reader.finish()?;
        let (bucket, cells_left) = (first, 0);
        Ok(Block {
            dimensions,
            texts,
            names,
            buckets,
            buckets_left,
            bucket,
            cells_left,
            places,
            counts,
            users,
            measures,
        })
    }

    /// How many dimensions its cells have.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Whether it may have buckets from one on: its last one is no earlier.
    fn reaches(&self, from: i64) -> Result<bool, DecodeError> {
        let (mut buckets, mut last) = (self.buckets.clone(), self.bucket);
        for _ in 0..self.buckets_left {
            let since = i64::try_from(buckets.uv()?).unwrap_or(i64::MAX);
            last = last.saturating_add(since);
            buckets.uv()?;
        }
        Ok(last >= from)
    }

    /// The values of a cell.
    pub fn values(&self, places: &Places) -> Texts<'a> {
        let mut values = [None; CUBE_DIMENSIONS_MAX];
        for ((value, texts), place) in values.iter_mut().zip(&self.texts).zip(places) {
            *value = (*place as usize).checked_sub(1).and_then(|at| texts.get(at)).copied();
        }
        values
    }

    /// The next cell: its bucket, its values' places, and of it what is wanted, which must be the same each time.
    pub fn next(&mut self, wanted: Wanted) -> Result<Option<(i64, Places, Cell)>, DecodeError> {
        while self.cells_left == 0 {
            if self.buckets_left == 0 {
                return Ok(None);
            }
            self.buckets_left -= 1;
            let since = i64::try_from(self.buckets.uv()?).ok();
            let bucket = since.and_then(|since| self.bucket.checked_add(since));
            let is_in = |bucket: &i64| (-MINUTE_MAX..=MINUTE_MAX).contains(bucket);
            self.bucket = bucket.filter(is_in).ok_or(DecodeError::Malformed("bucket out of range"))?;
            self.cells_left = self.buckets.uv()?;
        }
        self.cells_left -= 1;
        let mut places = Places::default();
        for (place, texts) in places.iter_mut().zip(&self.texts) {
            let at = self.places.uv()?;
            *place = u32::try_from(at).ok().filter(|at| *at as usize <= texts.len()).ok_or(BEYOND)?;
        }
        let mut cell = Cell { count: self.counts.uv()?, ..Cell::default() };
        if wanted.users {
            cell.users = Users::decode(&mut self.users)?;
        }
        if wanted.measures {
            let name = |at: u64| usize::try_from(at).ok().and_then(|at| self.names.get(at)).copied().ok_or(BEYOND);
            cell.measures = Measures::decode(&mut self.measures, |reader| name(reader.uv()?))?;
        }
        Ok(Some((self.bucket, places, cell)))
    }
}

const BEYOND: DecodeError = DecodeError::Malformed("a place beyond the texts");

impl Decoded {
    /// Reads the buckets in a range of a block that begins with a bucket; `None` where it has none of them.
    pub fn read(first: i64, bytes: &[u8], wanted: Wanted, range: Range<i64>) -> Result<Option<Decoded>, DecodeError> {
        let mut block = Block::open(first, bytes)?;
        if !block.reaches(range.start)? {
            return Ok(None);
        }
        let mut decoded = Decoded { texts: Vec::new(), cells: Vec::new(), places: Vec::new(), memory_bytes: 0 };
        while let Some((bucket, places, cell)) = block.next(wanted)? {
            if bucket >= range.end {
                break;
            }
            if bucket < range.start {
                continue;
            }
            decoded.memory_bytes += size_of::<(i64, Cell)>() + cell.memory_bytes() - size_of::<Cell>();
            decoded.places.extend_from_slice(&places[..block.dimensions]);
            decoded.cells.push((bucket, cell));
        }
        if decoded.cells.is_empty() {
            return Ok(None);
        }
        let owned = |texts: &Vec<&str>| texts.iter().map(|&text| text.into()).collect();
        decoded.texts = block.texts.iter().map(owned).collect();
        let text_bytes = |text: &&str| size_of::<Box<str>>() + text.len();
        decoded.memory_bytes += decoded.places.len() * size_of::<u32>();
        decoded.memory_bytes += block.texts.iter().flatten().map(text_bytes).sum::<usize>();
        Ok(Some(decoded))
    }

    /// Bytes that it takes, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Visits the cells of the buckets `from..to`, with their buckets and values, until a visit fails.
    pub fn visit<E>(
        &self,
        from: i64,
        to: i64,
        mut visit: impl FnMut(i64, &[Option<&str>], &Cell) -> Result<(), E>,
    ) -> Result<(), E> {
        let dimensions = self.texts.len();
        let range = self.cells.partition_point(|(bucket, _)| *bucket < from)
            ..self.cells.partition_point(|(bucket, _)| *bucket < to);
        let mut values = [None; CUBE_DIMENSIONS_MAX];
        for at in range {
            let places = &self.places[at * dimensions..(at + 1) * dimensions];
            for ((value, texts), place) in values.iter_mut().zip(&self.texts).zip(places) {
                *value = (*place as usize).checked_sub(1).map(|at| &*texts[at]);
            }
            let (bucket, cell) = &self.cells[at];
            visit(*bucket, &values[..dimensions], cell)?;
        }
        Ok(())
    }
}

fn read_texts<'a>(reader: &mut Reader<'a>, bytes_max: usize) -> Result<Vec<&'a str>, DecodeError> {
    let n = reader.count(1)?;
    (0..n).map(|_| reader.str(bytes_max)).collect()
}

impl Draft {
    /// An empty one, of cells with so many values.
    pub fn new(dimensions: usize) -> Draft {
        Draft {
            texts: (0..dimensions).map(|_| Dictionary::default()).collect(),
            names: Dictionary::default(),
            buckets: Vec::new(),
            places: Vec::new(),
            counts: Vec::new(),
            users: Vec::new(),
            measures: Vec::new(),
        }
    }

    /// The first bucket; `None` while there is none.
    pub fn first(&self) -> Option<i64> {
        self.buckets.first().map(|(bucket, _)| *bucket)
    }

    /// The last one.
    pub fn last(&self) -> Option<i64> {
        self.buckets.last().map(|(bucket, _)| *bucket)
    }

    /// How many dimensions its cells have.
    pub fn dimensions(&self) -> usize {
        self.texts.len()
    }

    /// Whether a further bucket belongs into a block of its own.
    pub fn is_full(&self) -> bool {
        self.places.len() + self.counts.len() + self.users.len() + self.measures.len() >= BLOCK_BYTES
    }

    /// Adds a cell.
    pub fn push<'v>(&mut self, bucket: i64, values: impl IntoIterator<Item = Option<&'v str>>, cell: &Cell) {
        match self.buckets.last_mut() {
            Some((last, cells)) if *last == bucket => *cells += 1,
            _ => self.buckets.push((bucket, 1)),
        }
        for (texts, value) in self.texts.iter_mut().zip(values) {
            put_uv(&mut self.places, value.map_or(0, |value| texts.place(value) + 1));
        }
        put_uv(&mut self.counts, cell.count);
        cell.users.encode(&mut self.users);
        let names = &mut self.names;
        cell.measures.encode(&mut self.measures, |out, name| put_uv(out, names.place(name)));
    }

    /// The block's bytes.
    pub fn finish(self) -> Vec<u8> {
        let columns = [&self.places, &self.counts, &self.users, &self.measures];
        let mut out = Vec::with_capacity(columns.iter().map(|column| column.len() + 16).sum());
        out.extend([VERSION, self.texts.len() as u8]);
        for texts in self.texts.iter().chain([&self.names]) {
            put_uv(&mut out, texts.places.len() as u64);
            out.extend_from_slice(&texts.bytes);
        }
        put_uv(&mut out, self.buckets.len() as u64);
        let mut before = self.first().unwrap_or_default();
        for (bucket, cells) in &self.buckets {
            put_uv(&mut out, bucket.abs_diff(before));
            put_uv(&mut out, *cells);
            before = *bucket;
        }
        for column in columns {
            put_uv(&mut out, column.len() as u64);
            out.extend_from_slice(column);
        }
        out
    }
}

impl Dictionary {
    fn place(&mut self, text: &str) -> u64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.places.len() as u64;
        self.places.insert(text.into(), place);
        put_str(&mut self.bytes, text);
        place
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use catchment_cells::key::Values;
    use catchment_cells::users::Coupon;
    use proptest::prelude::*;

    use super::*;

    const ALL: Wanted = Wanted { users: true, measures: true };

    type Cells = BTreeMap<(i64, Values), Cell>;
    type Read = Result<Vec<((i64, Values), Cell)>, DecodeError>;

    fn cells() -> impl Strategy<Value = Cells> {
        let values = prop::collection::vec(prop::option::of("[a-c]{0,2}".prop_map(Box::from)), 2);
        let cell = (1..300u64, prop::collection::vec(any::<u64>(), 0..4), prop::option::of(-5..5i64));
        let cell = cell.prop_map(|(count, users, number)| {
            let mut cell = Cell { count, ..Cell::default() };
            users.into_iter().for_each(|user| cell.users.insert(Coupon::of(user)));
            number.into_iter().for_each(|number| cell.record(if number > 0 { "a" } else { "b" }, number, number > 2));
            cell
        });
        prop::collection::btree_map((-70..70i64, values), cell, 1..40)
    }

    fn written(cells: &Cells) -> (i64, Vec<u8>) {
        let mut draft = Draft::new(2);
        for ((bucket, values), cell) in cells {
            draft.push(*bucket, values.iter().map(Option::as_deref), cell);
        }
        (draft.first().unwrap(), draft.finish())
    }

    fn read(first: i64, bytes: &[u8], (from, to): (i64, i64), wanted: Wanted) -> Read {
        let visited = |range, (from, to): (i64, i64)| {
            let mut cells = Vec::new();
            if let Some(decoded) = Decoded::read(first, bytes, wanted, range)? {
                decoded.visit(from, to, |bucket, values, cell| {
                    cells.push(((bucket, values.iter().map(|value| value.map(Into::into)).collect()), cell.clone()));
                    Ok(())
                })?;
            }
            Ok::<_, DecodeError>(cells)
        };
        // What is visited of the range alone is what is visited there of all.
        let all = i64::MIN..i64::MAX;
        let (alone, cells) = (visited(from..to, (all.start, all.end))?, visited(all, (from, to))?);
        assert_eq!(alone, cells);
        Ok(cells)
    }

    proptest! {
        #[test]
        fn of_a_block_is_read_what_is_asked_for(
            cells in cells(), from in -80..80i64, minutes in 0..90i64, users: bool, measures: bool,
        ) {
            let (first, bytes) = written(&cells);
            let range = (from, from + minutes);
            let expected = cells.into_iter().filter(|((bucket, _), _)| (range.0..range.1).contains(bucket));
            let expected: Vec<_> = expected.map(|(key, mut cell)| {
                if !users {
                    cell.users = Users::default();
                }
                if !measures {
                    cell.measures = Measures::default();
                }
                (key, cell)
            }).collect();
            prop_assert_eq!(read(first, &bytes, range, Wanted { users, measures }), Ok(expected));
        }

        #[test]
        fn any_bytes_are_a_block_or_refused(
            cells in cells(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut: prop::sample::Index,
        ) {
            let (first, mut bytes) = written(&cells);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = read(first, &bytes, (i64::MIN, i64::MAX), ALL);
            bytes.truncate(cut.index(bytes.len()));
            let _ = read(first, &bytes, (i64::MIN, i64::MAX), ALL);
        }
    }

    /// Whoever changes these bytes needs another version.
    #[test]
    fn the_bytes_are_golden() {
        let mut draft = Draft::new(1);
        let mut cell = Cell { count: 300, ..Cell::default() };
        cell.users.insert(Coupon::of(1));
        cell.record("ms", 5, false);
        draft.push(7, [Some("/")], &cell);
        draft.push(9, [None], &Cell { count: 1, ..Cell::default() });
        draft.push(9, [Some("/")], &cell);
        let hex: String = draft.finish().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
    }

    const GOLDEN: &str = "010101012f01026d7302000102020301000105ac0201ac020e0001abe4ef3700000001abe4ef370f0100010a0a0000000100010a0a0000";
}
