//! Cells between two cuts: found by a hash of their key, so that an event whose cells are there allocates nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use catchment_cells::cube::Cube;
use catchment_cells::frame::CellsBlock;
use catchment_cells::key::Values;
use catchment_cells::{Cell, ClientId};
use siphasher::sip::SipHasher13;

use crate::ids::AsItIs;

/// Cells by client, cube, minute and values.
#[derive(Debug, Default)]
pub(crate) struct OpenCells {
    /// Hash of the key → place. Where two keys share a hash, the later one has the next that is free.
    places: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
    cells: Vec<OpenCell>,
}

#[derive(Debug)]
struct OpenCell {
    client: ClientId,
    /// The cube's place in the list of cubes.
    cube: usize,
    minute: i64,
    values: Values,
    cell: Cell,
}

impl OpenCells {
    /// Cells.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The cell of a key, empty if it is new.
    pub(crate) fn cell(
        &mut self,
        key: [u8; 16],
        client: &ClientId,
        cube: usize,
        minute: i64,
        values: &[Option<&str>],
    ) -> &mut Cell {
        let mut hash = hash(key, cube, minute, values);
        let at = loop {
            match self.places.entry(hash) {
                Entry::Vacant(place) => {
                    let at = *place.insert(self.cells.len());
                    let values = values.iter().map(|value| value.map(Box::from)).collect();
                    self.cells.push(OpenCell { client: client.clone(), cube, minute, values, cell: Cell::default() });
                    break at;
                }
                Entry::Occupied(place) if self.cells[*place.get()].is(client, cube, minute, values) => {
                    break *place.get();
                }
                Entry::Occupied(_) => hash = hash.wrapping_add(1),
            }
        };
        &mut self.cells[at].cell
    }

    /// What a frame holds.
    pub(crate) fn into_block(mut self, cubes: &[Cube]) -> CellsBlock {
        // In the frame's order, in which its trees are filled fastest.
        self.cells.sort_unstable_by(|a, b| {
            (&a.client, a.cube, a.minute, &a.values).cmp(&(&b.client, b.cube, b.minute, &b.values))
        });
        let mut block = CellsBlock::default();
        let mut cells = self.cells.into_iter().peekable();
        while let Some(OpenCell { client, cube, minute, values, cell }) = cells.next() {
            let Some(Cube { name, dimensions, .. }) = cubes.get(cube) else { continue };
            let mut bucket = vec![(values, cell)];
            let same = |next: &OpenCell| (&next.client, next.cube, next.minute) == (&client, cube, minute);
            while let Some(next) = cells.next_if(same) {
                bucket.push((next.values, next.cell));
            }
            let into = block.0.entry(client).or_default().entry((*name).into()).or_default();
            into.dimensions = dimensions.iter().map(|&name| name.into()).collect();
            into.buckets.insert(minute, bucket.into_iter().collect());
        }
        block
    }
}

impl OpenCell {
    fn is(&self, client: &ClientId, cube: usize, minute: i64, values: &[Option<&str>]) -> bool {
        self.cube == cube
            && self.minute == minute
            && self.client == *client
            && self.values.iter().map(Option::as_deref).eq(values.iter().copied())
    }
}

/// The key is the client's secret one: nobody can choose values that share a hash.
fn hash(key: [u8; 16], cube: usize, minute: i64, values: &[Option<&str>]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&key);
    hasher.write(&minute.to_le_bytes());
    hasher.write(&(cube as u64).to_le_bytes());
    for value in values {
        match value {
            None => hasher.write(&[0xff]),
            Some(value) => {
                hasher.write(value.as_bytes());
                hasher.write(&[0xfe]);
            }
        }
    }
    hasher.finish()
}
