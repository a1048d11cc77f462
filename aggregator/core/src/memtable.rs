//! The memtable: cells that no flush has written yet, in minutes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use catchment_cells::cube;
use catchment_cells::frame::{CellsBlock, CountersBlock};
use catchment_cells::key::{CellKey, Tier, Values};
use catchment_cells::{Cell, ClientId};

use crate::tiers::Tiers;

/// What a cell costs beside what it holds: its place in a tree, and its values, roughly.
const CELL_BYTES: usize = 100;
/// What a minute's tree sets aside for its first cell, roughly: room for eleven.
const MINUTE_BYTES: usize = 11 * size_of::<(Values, Cell)>();

/// Cells by client, cube, minute and values.
#[derive(Debug, Default)]
pub struct Memtable {
    cells: BTreeMap<ClientId, Section>,
    bytes: usize,
}

/// A client's cells by cube.
pub(crate) type Section = BTreeMap<Box<str>, Cube>;

/// The cells of a cube.
#[derive(Debug, Default)]
pub(crate) struct Cube {
    /// Its dimensions, in the order of the values.
    pub(crate) dimensions: Vec<Box<str>>,
    pub(crate) minutes: BTreeMap<i64, Minute>,
}

/// The cells of one minute by their values: as they were when they were asked for, for whoever holds them.
pub type Minute = Arc<BTreeMap<Values, Cell>>;

/// Where the cells of one bucket belong.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whose.
    pub client: &'a ClientId,
    /// The cube's name.
    pub cube: &'a str,
    /// How many values its cells have.
    pub dimensions: usize,
    /// The bucket's size.
    pub tier: Tier,
    /// Its start, as a minute.
    pub bucket: i64,
}

impl Place<'_> {
    /// The key of a cell.
    pub fn key(&self, values: &Values) -> CellKey {
        let (client, cube) = (self.client.clone(), self.cube.into());
        CellKey { client, cube, tier: self.tier, bucket: self.bucket, values: values.clone() }
    }
}

/// The cells of one bucket by their values.
pub type Bucket<'a> = BTreeMap<&'a Values, Cow<'a, Cell>>;

impl Memtable {
    /// Adds a frame's cells. The cubes' dimensions must be those that earlier frames had.
    pub fn merge(&mut self, block: CellsBlock) {
        for (client, section) in block.0 {
            let ours = self.cells.entry(client).or_default();
            for (name, cube) in section {
                let ours = ours.entry(name).or_default();
                ours.dimensions = cube.dimensions;
                for (minute, cells) in cube.buckets {
                    let ours = ours.minutes.entry(minute).or_insert_with(|| {
                        self.bytes += MINUTE_BYTES;
                        Minute::default()
                    });
                    // Copied where a question still reads it.
                    let ours = Arc::make_mut(ours);
                    for (values, cell) in cells {
                        self.bytes += merge_cell(ours, values, cell);
                    }
                }
            }
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The client's cells of a cube in the minutes `from..to`.
    pub fn minutes(&self, client: &ClientId, cube: &str, from: i64, to: i64) -> impl Iterator<Item = (i64, &Minute)> {
        let cube = self.cells.get(client).and_then(|section| section.get(cube));
        // An empty range is none: a BTreeMap would panic on one that ends before it starts.
        let minutes = cube.filter(|_| from < to).map(|cube| cube.minutes.range(from..to));
        minutes.into_iter().flatten().map(|(minute, cells)| (*minute, cells))
    }

    /// The same, cell by cell.
    pub fn scan(
        &self,
        client: &ClientId,
        cube: &str,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = (i64, &Values, &Cell)> {
        let minutes = self.minutes(client, cube, from, to);
        minutes.flat_map(|(minute, cells)| cells.iter().map(move |(values, cell)| (minute, values, cell)))
    }

    /// The cells of each client.
    pub(crate) fn sections(&self) -> &BTreeMap<ClientId, Section> {
        &self.cells
    }

    /// All that a flush writes, bucket by bucket: the cells of every minute, and of the hours and days these lie in, as far as the
    /// client's tiers have these. A cube that is in
    /// `folded` is written as it is there.
    pub fn for_each_tier(
        &self,
        folded: &CellsBlock,
        tiers: impl Fn(&ClientId) -> Arc<Tiers>,
        mut write: impl FnMut(Place<'_>, Bucket<'_>),
    ) {
        for (client, section) in &self.cells {
            let folded = folded.0.get(client);
            let tiers = tiers(client);
            for (name, cube) in section {
                let minutes: Vec<_> = match folded.and_then(|folded| folded.get(name)) {
                    Some(folded) => folded.buckets.iter().collect(),
                    None => cube.minutes.iter().map(|(minute, cells)| (minute, &**cells)).collect(),
                };
                for tier in [Tier::Minute, Tier::Hour, Tier::Day] {
                    // Minutes ascend, and so do the buckets they lie in: one bucket is merged at a time.
                    let place = |(minute, cells): &(&i64, _)| Some((tiers.bucket(name, tier, **minute)?, *cells));
                    let buckets: Vec<_> = minutes.iter().filter_map(place).collect();
                    for minutes in buckets.chunk_by(|a, b| a.0 == b.0) {
                        let (dimensions, bucket) = (cube.dimensions.len(), minutes[0].0);
                        write(Place { client, cube: name, dimensions, tier, bucket }, merge_minutes(minutes));
                    }
                }
            }
        }
    }
}

/// Adds counters to a frame's cells: as cells of the cube `received`, in minutes of receipt.
pub fn add_counters(cells: &mut CellsBlock, counters: CountersBlock) {
    for (client, reasons) in counters.0 {
        let cube = cells.0.entry(client).or_default().entry(cube::RECEIVED.name.into()).or_default();
        cube.dimensions = cube::RECEIVED.dimensions.iter().map(|&name| name.into()).collect();
        for (reason, minutes) in reasons {
            for (minute, count) in minutes {
                let cell = Cell { count, ..Cell::default() };
                merge_cell(cube.buckets.entry(minute).or_default(), vec![Some(reason.clone())], cell);
            }
        }
    }
}

/// The cells of one bucket, from those of its minutes.
fn merge_minutes<'a>(minutes: &[(i64, &'a BTreeMap<Values, Cell>)]) -> Bucket<'a> {
    let mut merged = Bucket::new();
    for (values, cell) in minutes.iter().flat_map(|(_, cells)| cells.iter()) {
        match merged.entry(values) {
            Entry::Occupied(mut ours) => ours.get_mut().to_mut().merge(cell),
            Entry::Vacant(place) => {
                place.insert(Cow::Borrowed(cell));
            }
        }
    }
    merged
}

/// Merges a cell in, and says how many bytes more that takes.
fn merge_cell(cells: &mut BTreeMap<Values, Cell>, values: Values, cell: Cell) -> usize {
    match cells.entry(values) {
        Entry::Occupied(mut ours) => {
            let ours = ours.get_mut();
            let before = ours.memory_bytes();
            ours.merge(&cell);
            ours.memory_bytes().saturating_sub(before)
        }
        Entry::Vacant(place) => {
            let values: usize = place.key().iter().flatten().map(|value| value.len() + size_of::<Box<str>>()).sum();
            CELL_BYTES + values + place.insert(cell).memory_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of one cell.
    fn one(client: &ClientId, minute: i64) -> CellsBlock {
        let mut block = CellsBlock::default();
        let cube = block.0.entry(client.clone()).or_default().entry("total".into()).or_default();
        cube.buckets.entry(minute).or_default().insert(Vec::new(), Cell { count: 1, ..Cell::default() });
        block
    }

    #[test]
    fn what_is_held_stays_as_it_was() {
        let client = ClientId::new("a").unwrap();
        let mut memtable = Memtable::default();
        memtable.merge(one(&client, 7));
        let count = |cells: &Minute| cells[&Vec::new()].count;
        let held: Vec<Minute> = memtable.minutes(&client, "total", 0, 10).map(|(_, cells)| cells.clone()).collect();
        memtable.merge(one(&client, 7));
        memtable.merge(one(&client, 8));
        assert_eq!(held.iter().map(count).collect::<Vec<_>>(), [1]);
        let now: Vec<_> =
            memtable.minutes(&client, "total", 0, 10).map(|(minute, cells)| (minute, count(cells))).collect();
        assert_eq!(now, [(7, 2), (8, 1)]);
        assert_eq!(memtable.minutes(&client, "total", 8, 8).count(), 0);
    }
}
