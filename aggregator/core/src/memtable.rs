//! The memtable: cells that no flush has written yet, in minutes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use catchment_cells::cube;
use catchment_cells::frame::{CellsBlock, CountersBlock, Section};
use catchment_cells::key::{CellKey, Tier, Values};
use catchment_cells::{Cell, ClientId};
use jiff::tz::TimeZone;

use crate::rollup;

/// What a cell costs beside what it holds: its place in a tree, and its values, roughly.
const CELL_BYTES: usize = 100;
/// What a minute's tree sets aside for its first cell, roughly: room for eleven.
const MINUTE_BYTES: usize = 11 * size_of::<(Values, Cell)>();

/// Cells by client, cube, minute and values.
#[derive(Debug, Default)]
pub struct Memtable {
    cells: CellsBlock,
    bytes: usize,
}

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
            let ours = self.cells.0.entry(client).or_default();
            for (name, cube) in section {
                let ours = ours.entry(name).or_default();
                ours.dimensions = cube.dimensions;
                for (minute, cells) in cube.buckets {
                    let ours = ours.buckets.entry(minute).or_insert_with(|| {
                        self.bytes += MINUTE_BYTES;
                        BTreeMap::new()
                    });
                    for (values, cell) in cells {
                        self.bytes += merge_cell(ours, values, cell);
                    }
                }
            }
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.cells.0.is_empty()
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The client's cells of a cube in the minutes `from..to`.
    pub fn scan(
        &self,
        client: &ClientId,
        cube: &str,
        from: i64,
        to: i64,
    ) -> impl Iterator<Item = (i64, &Values, &Cell)> {
        let cube = self.cells.0.get(client).and_then(|section| section.get(cube));
        // An empty range is none: a BTreeMap would panic on one that ends before it starts.
        let buckets = cube.filter(|_| from < to).map(|cube| cube.buckets.range(from..to));
        buckets
            .into_iter()
            .flatten()
            .flat_map(|(minute, cells)| cells.iter().map(|(values, cell)| (*minute, values, cell)))
    }

    /// The cells of each client.
    pub(crate) fn sections(&self) -> &BTreeMap<ClientId, Section> {
        &self.cells.0
    }

    /// All that a flush writes, bucket by bucket: the cells of every minute, and of the hours and days these lie in. A cube that is in
    /// `folded` is written as it is there.
    pub fn for_each_tier(&self, folded: &CellsBlock, zone: &TimeZone, mut write: impl FnMut(Place<'_>, Bucket<'_>)) {
        for (client, section) in &self.cells.0 {
            let folded = folded.0.get(client);
            for (name, cube) in section {
                let cube = folded.and_then(|folded| folded.get(name)).unwrap_or(cube);
                for tier in [Tier::Minute, Tier::Hour, Tier::Day] {
                    // Minutes ascend, and so do the buckets they lie in: one bucket is merged at a time.
                    let minutes: Vec<_> = cube
                        .buckets
                        .iter()
                        .map(|(minute, cells)| (rollup::floor(tier, *minute, zone), cells))
                        .collect();
                    for minutes in minutes.chunk_by(|a, b| a.0 == b.0) {
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
