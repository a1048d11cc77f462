//! What blocks hold: cells and counters, by client.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::cell::{Cell, Measure};
use crate::client::ClientId;
use crate::codec::{DecodeError, Reader, put_iv, put_str, put_uv};
use crate::key::{Values, is_name};
use crate::limits::{CLIENT_BYTES_MAX, CUBE_DIMENSIONS_MAX, MINUTE_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use crate::users::{self, Coupon};

/// The fewest bytes that a thing of each kind takes: what a count can at most claim.
const SECTION_BYTES_MIN: usize = 4;
const CUBE_BYTES_MIN: usize = 3;
const BUCKET_BYTES_MIN: usize = 2;
const CELL_BYTES_MIN: usize = 4;
const COUNTERS_BYTES_MIN: usize = 3;
const REASON_BYTES_MIN: usize = 2;
const COUNTER_BYTES_MIN: usize = 2;

/// Cells, by client.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CellsBlock(pub BTreeMap<ClientId, Section>);

/// One client's cells, by cube's name.
pub type Section = BTreeMap<Box<str>, CubeCells>;

/// One cube's cells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CubeCells {
    /// The cube's dimensions, in the order of the values.
    pub dimensions: Vec<Box<str>>,
    /// Minute → values → cell.
    pub buckets: BTreeMap<i64, BTreeMap<Values, Cell>>,
}

/// What was received: client → reason → minute of receipt → count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CountersBlock(pub BTreeMap<ClientId, BTreeMap<Box<str>, BTreeMap<i64, u64>>>);

/// What a block of cells can be written from.
pub trait Cells {
    /// The block's bytes; `None` if there is nothing in it.
    fn encode(&self) -> Option<Vec<u8>>;
}

/// Writes a block of cells piece by piece, for whoever has them in the block's order without being a [`CellsBlock`]. Each piece says how
/// many of the next smaller ones follow; texts are said by their places in their section's dictionary.
#[derive(Debug, Default)]
pub struct CellsWriter {
    out: Vec<u8>,
    last_minute: i64,
}

impl CellsWriter {
    /// Begins a block.
    pub fn new(sections: usize) -> Self {
        let mut writer = CellsWriter::default();
        writer.put(sections);
        writer
    }

    /// Begins a client's section. The dictionary has all its texts, ascending, each once.
    pub fn section(&mut self, client: &ClientId, dictionary: &[&str], cubes: usize) {
        put_str(&mut self.out, client.as_str());
        self.put(dictionary.len());
        for text in dictionary {
            put_str(&mut self.out, text);
        }
        self.put(cubes);
    }

    /// Begins a cube.
    pub fn cube(&mut self, name: usize, dimensions: impl ExactSizeIterator<Item = usize>, buckets: usize) {
        self.put(name);
        self.put(dimensions.len());
        for dimension in dimensions {
            self.put(dimension);
        }
        self.put(buckets);
        self.last_minute = 0;
    }

    /// Begins a minute's cells.
    pub fn bucket(&mut self, minute: i64, cells: usize) {
        put_iv(&mut self.out, minute - std::mem::replace(&mut self.last_minute, minute));
        self.put(cells);
    }

    /// Writes the cell of these values: its events, the coupons of their users, and its measures by name.
    pub fn cell(
        &mut self,
        values: impl Iterator<Item = Option<usize>>,
        count: u64,
        users: &mut Vec<Coupon>,
        measures: &[(usize, Measure)],
    ) {
        self.values(values);
        put_uv(&mut self.out, count);
        users::encode_all(users, &mut self.out);
        self.put(measures.len());
        for (name, measure) in measures {
            self.put(*name);
            measure.encode(&mut self.out);
        }
    }

    /// The block's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn values(&mut self, values: impl Iterator<Item = Option<usize>>) {
        for value in values {
            self.put(value.map_or(0, |at| at + 1));
        }
    }

    fn put(&mut self, number: usize) {
        put_uv(&mut self.out, number as u64);
    }
}

impl Cells for CellsBlock {
    fn encode(&self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let mut writer = CellsWriter::new(self.0.len());
        for (client, section) in &self.0 {
            write_section(client, section, &mut writer);
        }
        Some(writer.finish())
    }
}

impl CellsBlock {
    pub(super) fn decode(raw: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw);
        let mut clients = BTreeMap::new();
        for _ in 0..reader.count_some(SECTION_BYTES_MIN)? {
            let client = read_client(&mut reader)?;
            insert_ascending(&mut clients, client, decode_section(&mut reader)?)?;
        }
        reader.finish()?;
        Ok(CellsBlock(clients))
    }
}

impl CountersBlock {
    /// Adds to a counter.
    pub fn add(&mut self, client: &ClientId, reason: &str, minute: i64, n: u64) {
        let reasons = match self.0.get_mut(client) {
            Some(reasons) => reasons,
            None => self.0.entry(client.clone()).or_default(),
        };
        let minutes = match reasons.get_mut(reason) {
            Some(minutes) => minutes,
            None => reasons.entry(reason.into()).or_default(),
        };
        let count = minutes.entry(minute).or_default();
        *count = count.saturating_add(n);
    }

    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let mut out = Vec::new();
        put_uv(&mut out, self.0.len() as u64);
        for (client, reasons) in &self.0 {
            put_str(&mut out, client.as_str());
            put_uv(&mut out, reasons.len() as u64);
            for (reason, minutes) in reasons {
                put_str(&mut out, reason);
                put_uv(&mut out, minutes.len() as u64);
                let mut last = 0;
                for (minute, count) in minutes {
                    put_iv(&mut out, minute - std::mem::replace(&mut last, *minute));
                    put_uv(&mut out, *count);
                }
            }
        }
        Some(out)
    }

    pub(super) fn decode(raw: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw);
        let mut clients = BTreeMap::new();
        for _ in 0..reader.count_some(COUNTERS_BYTES_MIN)? {
            let client = read_client(&mut reader)?;
            let mut reasons = BTreeMap::new();
            for _ in 0..reader.count_some(REASON_BYTES_MIN)? {
                let reason = reader.str(NAME_BYTES_MAX)?;
                let mut minutes = BTreeMap::new();
                for _ in 0..reader.count_some(COUNTER_BYTES_MIN)? {
                    let minute = read_minute(&mut reader, &minutes)?;
                    insert_ascending(&mut minutes, minute, reader.uv()?)?;
                }
                insert_ascending(&mut reasons, reason.into(), minutes)?;
            }
            insert_ascending(&mut clients, client, reasons)?;
        }
        reader.finish()?;
        Ok(CountersBlock(clients))
    }
}

fn write_section(client: &ClientId, section: &Section, writer: &mut CellsWriter) {
    let dictionary = Dictionary::of(section);
    let mut name_at = 0;
    writer.section(client, &dictionary.0, section.len());
    for (name, cube) in section {
        let dimensions = cube.dimensions.iter().map(|dimension| dictionary.index(dimension, &mut 0));
        writer.cube(dictionary.index(name, &mut 0), dimensions, cube.buckets.len());
        for (minute, cells) in &cube.buckets {
            writer.bucket(*minute, cells.len());
            let mut at = vec![0; cube.dimensions.len()];
            for (values, cell) in cells {
                let indexes = values.iter().zip(&mut at);
                writer.values(indexes.map(|(value, at)| value.as_ref().map(|value| dictionary.index(value, at))));
                cell.encode(&mut writer.out, |out, name| put_uv(out, dictionary.index(name, &mut name_at) as u64));
            }
        }
    }
}

/// All texts of a section, ascending, each once.
struct Dictionary<'a>(Vec<&'a str>);

impl<'a> Dictionary<'a> {
    fn of(section: &'a Section) -> Self {
        let mut texts: Vec<&str> = Vec::new();
        for (name, cube) in section {
            texts.push(name);
            texts.extend(cube.dimensions.iter().map(|dimension| &**dimension));
            for cells in cube.buckets.values() {
                // Value by value, so that each first one is an ascending run.
                for n in 0..cube.dimensions.len() {
                    texts.extend(cells.keys().filter_map(|values| values.get(n)?.as_deref()));
                }
            }
        }
        let names: BTreeSet<&str> = section
            .values()
            .flat_map(|cube| cube.buckets.values().flat_map(BTreeMap::values))
            .flat_map(|cell| cell.measures.names())
            .collect();
        texts.extend(names);
        // The stable sort finds runs and merges them.
        texts.sort();
        texts.dedup();
        Dictionary(texts)
    }

    /// The place of a text, sought from where the last one was found: values ascend, and names repeat.
    fn index(&self, text: &str, at: &mut usize) -> usize {
        let texts = &self.0;
        let (mut from, mut to) = (0, texts.len());
        match texts.get(*at).map(|found| (*found).cmp(text)) {
            Some(Ordering::Equal) => return *at,
            Some(Ordering::Greater) => to = *at,
            Some(Ordering::Less) => {
                from = *at + 1;
                let mut step = 1;
                while let Some(ahead) = texts.get(from + step)
                    && *ahead < text
                {
                    from += step;
                    step *= 2;
                }
                to = texts.len().min(from + step + 1);
            }
            None => {}
        }
        let found = texts[from..to].binary_search(&text);
        *at = from + found.expect("the dictionary was made of all texts of this section");
        *at
    }
}

fn decode_section(reader: &mut Reader<'_>) -> Result<Section, DecodeError> {
    let mut dictionary: Vec<&str> = Vec::new();
    for _ in 0..reader.count(1)? {
        let text = reader.str(VALUE_BYTES_MAX)?;
        if dictionary.last().is_some_and(|last| *last >= text) {
            return Err(DecodeError::Malformed("dictionary not ascending"));
        }
        dictionary.push(text);
    }
    let mut section = Section::new();
    for _ in 0..reader.count_some(CUBE_BYTES_MIN)? {
        let name = read_name(reader, &dictionary)?;
        let dimensions = reader.count(1)?;
        if dimensions > CUBE_DIMENSIONS_MAX {
            return Err(DecodeError::Malformed("too many dimensions"));
        }
        let mut cube = CubeCells::default();
        for _ in 0..dimensions {
            cube.dimensions.push(read_name(reader, &dictionary)?.into());
        }
        for _ in 0..reader.count_some(BUCKET_BYTES_MIN)? {
            let minute = read_minute(reader, &cube.buckets)?;
            let mut cells = BTreeMap::new();
            let mut last = None;
            for _ in 0..reader.count_some(CELL_BYTES_MIN)? {
                // Ordered by the tuple of indexes, as the dictionary is by text.
                let mut tuple = [0; CUBE_DIMENSIONS_MAX];
                let mut values = Values::with_capacity(dimensions);
                for at in &mut tuple[..dimensions] {
                    *at = reader.uv()?;
                    values.push(match *at {
                        0 => None,
                        n => Some(lookup(&dictionary, n - 1)?.into()),
                    });
                }
                if last.replace(tuple).is_some_and(|last| last >= tuple) {
                    return Err(DecodeError::Malformed("cells not ascending"));
                }
                cells.insert(values, Cell::decode(reader, |reader| read_name(reader, &dictionary))?);
            }
            insert_ascending(&mut cube.buckets, minute, cells)?;
        }
        insert_ascending(&mut section, name.into(), cube)?;
    }
    Ok(section)
}

pub(super) fn read_client(reader: &mut Reader<'_>) -> Result<ClientId, DecodeError> {
    ClientId::new(reader.str(CLIENT_BYTES_MAX)?).map_err(|_| DecodeError::Malformed("client id"))
}

fn read_name<'a>(reader: &mut Reader<'_>, dictionary: &[&'a str]) -> Result<&'a str, DecodeError> {
    let name = lookup(dictionary, reader.uv()?)?;
    if is_name(name) { Ok(name) } else { Err(DecodeError::Malformed("name")) }
}

fn lookup<'a>(dictionary: &[&'a str], index: u64) -> Result<&'a str, DecodeError> {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    dictionary.get(index).copied().ok_or(DecodeError::Malformed("index beyond the dictionary"))
}

/// The first minute as it is, each other as its distance from the one before.
fn read_minute<V>(reader: &mut Reader<'_>, before: &BTreeMap<i64, V>) -> Result<i64, DecodeError> {
    let last = before.last_key_value().map_or(0, |(minute, _)| *minute);
    reader
        .iv()?
        .checked_add(last)
        .filter(|minute| (-MINUTE_MAX..=MINUTE_MAX).contains(minute))
        .ok_or(DecodeError::Malformed("minute out of range"))
}

pub(super) fn insert_ascending<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Result<(), DecodeError> {
    if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
        return Err(DecodeError::Malformed("keys not ascending"));
    }
    map.insert(key, value);
    Ok(())
}
