//! Events between two cuts, reduced to what cells are made of. Cells are made at the cut, where sorting brings the events of each
//! together: what is taken until then is texts that are new, and some numbers an event.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::ops::Range;

use catchment_cells::ClientId;
use catchment_cells::cell::{Measure, micros};
use catchment_cells::cube::Cube;
use catchment_cells::frame::{Cells, CellsWriter};
use catchment_cells::users::Coupon;
use siphasher::sip::SipHasher13;

use crate::event::Field;
use crate::ids::AsItIs;
use crate::limits::MEASURE_NAMES_MAX;
use crate::reason::Reason;

/// Different texts of one client in one cut: more than memory holds.
const TEXTS_MAX: usize = u32::MAX as usize - 1;

/// The cubes that events fill, and the columns that these need.
#[derive(Debug, Clone)]
pub(crate) struct Filling {
    /// Ascending by name, as in a frame; each with its dimensions' columns.
    cubes: Vec<(Cube, Vec<usize>)>,
    /// The field of each dimension of any cube; `None` where events have no such field.
    columns: Vec<Option<Field>>,
}

/// What is counted of an event besides its values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken<'a> {
    pub(crate) client: &'a ClientId,
    /// The client's secret one: nobody can choose texts that share a hash.
    pub(crate) key: [u8; 16],
    pub(crate) minute: i64,
    pub(crate) user: Coupon,
    pub(crate) measures: &'a [(Cow<'a, str>, f64)],
}

/// Events by client.
#[derive(Debug, Default)]
pub(crate) struct OpenEvents {
    clients: BTreeMap<ClientId, ClientEvents>,
    len: usize,
    text_bytes: usize,
}

#[derive(Debug, Default)]
struct ClientEvents {
    texts: Texts,
    names: Texts,
    events: Vec<OpenEvent>,
    /// For each event its columns' values: 0 for none, else a text's number and 1.
    values: Vec<u32>,
    /// Name's number and millionths.
    measures: Vec<(u32, i64)>,
}

#[derive(Debug)]
struct OpenEvent {
    minute: i64,
    user: Coupon,
    /// Where its measures are.
    measures: Range<u32>,
}

/// Different texts, numbered as they come.
#[derive(Debug, Default)]
struct Texts {
    /// Hash → number. Where two texts share a hash, the later one has the next that is free.
    numbers: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    texts: Vec<Box<str>>,
}

/// All events of a cut, in the order of a frame's cells.
#[derive(Debug)]
pub(crate) struct SortedEvents(Vec<Section>);

/// One client's.
#[derive(Debug)]
struct Section {
    client: ClientId,
    /// Ascending, as are the names: the numbers of `of` are places in them.
    texts: Vec<Box<str>>,
    names: Vec<Box<str>>,
    width: usize,
    of: ClientEvents,
    cubes: Vec<SortedCube>,
}

#[derive(Debug)]
struct SortedCube {
    cube: Cube,
    columns: Vec<usize>,
    /// Events by minute, values and arrival.
    order: Vec<u32>,
    /// Where in `order` each cell begins.
    cells: Vec<u32>,
}

/// Some of the cells of a cut, by their places in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CutCells<'a> {
    sections: &'a [Section],
    places: Range<usize>,
}

impl Filling {
    pub(crate) fn of(cubes: &[Cube]) -> Self {
        let mut names: Vec<&str> = Vec::new();
        let mut column = |name| {
            names.iter().position(|&known| known == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            })
        };
        let mut columns_of = |cube: &Cube| cube.dimensions.iter().map(|&name| column(name)).collect();
        let mut cubes: Vec<_> = cubes.iter().map(|cube| (*cube, columns_of(cube))).collect();
        cubes.sort_by_key(|(cube, _)| cube.name);
        Filling { cubes, columns: names.into_iter().map(Field::of_dimension).collect() }
    }
}

impl OpenEvents {
    /// Events.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the clients' different texts.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// The clients that have some.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &ClientId> {
        self.clients.keys()
    }

    /// Adds an event; `value` is what a field of it counts as.
    pub(crate) fn add<'v>(
        &mut self,
        filling: &Filling,
        taken: Taken<'_>,
        value: impl Fn(Field) -> Option<&'v str>,
        mut count: impl FnMut(Reason, u64),
    ) {
        let Taken { client, key, minute, user, measures } = taken;
        let of = match self.clients.get_mut(client) {
            Some(of) => of,
            None => self.clients.entry(client.clone()).or_default(),
        };
        for column in &filling.columns {
            let text = column.and_then(&value);
            let number = text.and_then(|text| of.texts.number(key, text, TEXTS_MAX, &mut self.text_bytes));
            of.values.push(number.map_or(0, |number| number + 1));
        }
        let begin = of.measures.len() as u32;
        for (name, number) in measures {
            match micros(*number) {
                None => count(Reason::MeasureOutOfRange, 1),
                Some(micros) => match of.names.number(key, name, MEASURE_NAMES_MAX, &mut self.text_bytes) {
                    None => count(Reason::MeasuresOverLimit, 1),
                    Some(name) => of.measures.push((name, micros)),
                },
            }
        }
        of.events.push(OpenEvent { minute, user, measures: begin..of.measures.len() as u32 });
        self.len += 1;
    }

    /// Brings the events of each cell together.
    pub(crate) fn sort(self, filling: &Filling) -> SortedEvents {
        SortedEvents(self.clients.into_iter().map(|(client, of)| Section::of(client, of, filling)).collect())
    }
}

impl Texts {
    /// The number of a text; `None` if it is new and there are `max`.
    fn number(&mut self, key: [u8; 16], text: &str, max: usize, bytes: &mut usize) -> Option<u32> {
        let mut hash = SipHasher13::new_with_key(&key).hash(text.as_bytes());
        loop {
            match self.numbers.entry(hash) {
                Entry::Occupied(number) if *self.texts[*number.get() as usize] == *text => return Some(*number.get()),
                Entry::Occupied(_) => hash = hash.wrapping_add(1),
                Entry::Vacant(_) if self.texts.len() >= max => return None,
                Entry::Vacant(place) => {
                    let number = *place.insert(self.texts.len() as u32);
                    self.texts.push(text.into());
                    *bytes += text.len();
                    return Some(number);
                }
            }
        }
    }

    /// The texts, ascending, and for each number its text's place among them.
    fn ascending(self) -> (Vec<Box<str>>, Vec<u32>) {
        // Most are told apart by what they begin with.
        let mut numbered: Vec<(u64, Box<str>, u32)> =
            self.texts.into_iter().zip(0..).map(|(text, number)| (beginning(&text), text, number)).collect();
        numbered.sort_unstable();
        let mut places = vec![0; numbered.len()];
        for ((_, _, number), place) in numbered.iter().zip(0..) {
            places[*number as usize] = place;
        }
        (numbered.into_iter().map(|(_, text, _)| text).collect(), places)
    }
}

/// The first eight bytes, with zeros where there are fewer: what has a lesser beginning is the lesser text.
fn beginning(text: &str) -> u64 {
    let mut bytes = [0; 8];
    let n = text.len().min(8);
    bytes[..n].copy_from_slice(&text.as_bytes()[..n]);
    u64::from_be_bytes(bytes)
}

impl SortedEvents {
    /// All cells.
    pub(crate) fn cells(&self) -> CutCells<'_> {
        let cells = self.0.iter().map(Section::len).sum();
        CutCells { sections: &self.0, places: 0..cells }
    }
}

impl Section {
    fn of(client: ClientId, mut of: ClientEvents, filling: &Filling) -> Self {
        let (texts, places) = std::mem::take(&mut of.texts).ascending();
        for value in of.values.iter_mut().filter(|value| **value > 0) {
            *value = places[*value as usize - 1] + 1;
        }
        let (names, places) = std::mem::take(&mut of.names).ascending();
        for (name, _) in &mut of.measures {
            *name = places[*name as usize];
        }
        let mut minutes: Vec<i64> = of.events.iter().map(|event| event.minute).collect();
        minutes.sort_unstable();
        minutes.dedup();
        let minute_of: Vec<usize> =
            of.events.iter().map(|event| minutes.partition_point(|&minute| minute < event.minute)).collect();
        let mut section = Section { client, texts, names, width: filling.columns.len(), of, cubes: Vec::new() };
        let mut sorter = Sorter::default();
        for (cube, columns) in &filling.cubes {
            let is_in =
                |event: &u32| columns.is_empty() || columns.iter().any(|&column| section.value(*event, column) > 0);
            sorter.order = (0..section.of.events.len() as u32).filter(is_in).collect();
            // From the least significant on, as each step keeps the order of what it finds equal.
            for &column in columns.iter().rev() {
                sorter.sort_by(section.texts.len() + 1, |event| section.value(event, column) as usize);
            }
            sorter.sort_by(minutes.len(), |event| minute_of[event as usize]);
            let order = std::mem::take(&mut sorter.order);
            let differs = |at: &usize| {
                *at == 0 || {
                    let [before, event] = [order[*at - 1], order[*at]];
                    minute_of[before as usize] != minute_of[event as usize]
                        || columns.iter().any(|&column| section.value(before, column) != section.value(event, column))
                }
            };
            let cells = (0..order.len()).filter(differs).map(|at| at as u32).collect();
            section.cubes.push(SortedCube { cube: *cube, columns: columns.clone(), order, cells });
        }
        section
    }

    /// Cells.
    fn len(&self) -> usize {
        self.cubes.iter().map(|cube| cube.cells.len()).sum()
    }

    fn value(&self, event: u32, column: usize) -> u32 {
        self.of.values[event as usize * self.width + column]
    }

    fn measures(&self, event: u32) -> &[(u32, i64)] {
        let Range { start, end } = self.of.events[event as usize].measures;
        &self.of.measures[start as usize..end as usize]
    }

    /// Writes the cells at these places.
    fn write(&self, places: Range<usize>, writer: &mut CellsWriter) {
        let mut before = 0;
        let parts = self.cubes.iter().filter_map(|cube| {
            let from = before;
            before += cube.cells.len();
            let [start, end] = [places.start, places.end].map(|place| place.clamp(from, before) - from);
            (start < end).then_some((cube, start..end))
        });
        let parts: Vec<(&SortedCube, Range<usize>)> = parts.collect();
        let dictionary = Dictionary::of(self, &parts);
        writer.section(&self.client, &dictionary.texts, parts.len());
        let (mut users, mut measures) = (Vec::new(), Vec::new());
        for (cube, cells) in parts {
            let names = cube.cube.dimensions.iter().map(|name| dictionary.place(name));
            let minutes = cube.minutes(self, cells.clone());
            writer.cube(dictionary.place(cube.cube.name), names, minutes.len());
            let mut cells = cells;
            for (minute, n) in minutes {
                writer.bucket(minute, n);
                for cell in cells.by_ref().take(n) {
                    let events = cube.events(cell);
                    users.clear();
                    measures.clear();
                    for &event in events {
                        users.push(self.of.events[event as usize].user);
                        for &(name, micros) in self.measures(event) {
                            record(&mut measures, dictionary.names[name as usize], micros, cube.cube.digest);
                        }
                    }
                    measures.sort_unstable_by_key(|(name, _)| *name);
                    let value = |&column: &usize| match self.value(events[0], column) {
                        0 => None,
                        text => Some(dictionary.values[text as usize - 1]),
                    };
                    writer.cell(cube.columns.iter().map(value), events.len() as u64, &mut users, &measures);
                }
            }
        }
    }
}

impl SortedCube {
    /// The events of a cell: at least one.
    fn events(&self, cell: usize) -> &[u32] {
        let end = self.cells.get(cell + 1).map_or(self.order.len(), |&at| at as usize);
        &self.order[self.cells[cell] as usize..end]
    }

    /// The minutes of some cells, and how many of the cells each has.
    fn minutes(&self, section: &Section, cells: Range<usize>) -> Vec<(i64, usize)> {
        let mut minutes: Vec<(i64, usize)> = Vec::new();
        for cell in cells {
            let minute = section.of.events[self.order[self.cells[cell] as usize] as usize].minute;
            match minutes.last_mut() {
                Some((last, n)) if *last == minute => *n += 1,
                _ => minutes.push((minute, 1)),
            }
        }
        minutes
    }
}

/// Adds a value to the measure of its name.
fn record(measures: &mut Vec<(usize, Measure)>, name: usize, micros: i64, with_digest: bool) {
    match measures.iter_mut().find(|(known, _)| *known == name) {
        Some((_, measure)) => measure.record(micros),
        None => measures.push((name, Measure::of(micros, with_digest))),
    }
}

/// The texts that some cells of a section have, ascending.
struct Dictionary<'a> {
    texts: Vec<&'a str>,
    /// For each text and each name of the section, its place in the dictionary if it is there.
    values: Vec<usize>,
    names: Vec<usize>,
}

impl<'a> Dictionary<'a> {
    fn of(section: &'a Section, parts: &[(&SortedCube, Range<usize>)]) -> Self {
        let (mut values, mut names) = (vec![0; section.texts.len()], vec![0; section.names.len()]);
        let mut texts: Vec<&str> = Vec::new();
        for (cube, cells) in parts {
            texts.push(cube.cube.name);
            texts.extend(cube.cube.dimensions);
            for cell in cells.clone() {
                let events = cube.events(cell);
                for &column in &cube.columns {
                    if let Some(text) = section.value(events[0], column).checked_sub(1) {
                        values[text as usize] = 1;
                    }
                }
                if names.contains(&0) {
                    events
                        .iter()
                        .flat_map(|&event| section.measures(event))
                        .for_each(|(name, _)| names[*name as usize] = 1);
                }
            }
        }
        for (all, used) in [(&section.texts, &values), (&section.names, &names)] {
            texts.extend(all.iter().zip(used).filter(|(_, used)| **used == 1).map(|(text, _)| &**text));
        }
        // The stable sort finds runs and merges them.
        texts.sort();
        texts.dedup();
        let mut dictionary = Dictionary { texts, values: Vec::new(), names: Vec::new() };
        dictionary.values = dictionary.places(&section.texts);
        dictionary.names = dictionary.places(&section.names);
        dictionary
    }

    /// The places of ascending texts.
    fn places(&self, texts: &[Box<str>]) -> Vec<usize> {
        let mut at = 0;
        let mut place = |text: &str| {
            while self.texts.get(at).is_some_and(|known| *known < text) {
                at += 1;
            }
            at
        };
        texts.iter().map(|text| place(text)).collect()
    }

    fn place(&self, text: &str) -> usize {
        self.texts.binary_search(&text).expect("the names of cubes and dimensions are among the texts")
    }
}

/// Sorts events by numbers that are small.
#[derive(Debug, Default)]
struct Sorter {
    order: Vec<u32>,
    spare: Vec<u32>,
    places: Vec<u32>,
}

impl Sorter {
    /// Counts how many events have each of `n` keys, and puts each event after those of lesser keys and of its own that came before.
    fn sort_by(&mut self, n: usize, key: impl Fn(u32) -> usize) {
        self.places.clear();
        self.places.resize(n + 1, 0);
        for &event in &self.order {
            self.places[key(event) + 1] += 1;
        }
        let mut before = 0;
        for place in &mut self.places {
            before += *place;
            *place = before;
        }
        self.spare.resize(self.order.len(), 0);
        for &event in &self.order {
            let place = &mut self.places[key(event)];
            self.spare[*place as usize] = event;
            *place += 1;
        }
        std::mem::swap(&mut self.order, &mut self.spare);
    }
}

impl CutCells<'_> {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Half of the cells each.
    pub(crate) fn halves(&self) -> [Self; 2] {
        let half = self.places.start + self.places.len() / 2;
        [self.places.start..half, half..self.places.end].map(|places| CutCells { sections: self.sections, places })
    }

    /// The clients that have cells here.
    pub(crate) fn clients(&self) -> Vec<ClientId> {
        self.parts().map(|(section, _)| section.client.clone()).collect()
    }

    fn parts(&self) -> impl Iterator<Item = (&Section, Range<usize>)> {
        let mut before = 0;
        self.sections.iter().filter_map(move |section| {
            let from = before;
            before += section.len();
            let [start, end] = [self.places.start, self.places.end].map(|place| place.clamp(from, before) - from);
            (start < end).then_some((section, start..end))
        })
    }
}

impl Cells for CutCells<'_> {
    fn encode(&self) -> Option<Vec<u8>> {
        let parts: Vec<_> = self.parts().collect();
        if parts.is_empty() {
            return None;
        }
        let mut writer = CellsWriter::new(parts.len());
        for (section, places) in parts {
            section.write(places, &mut writer);
        }
        Some(writer.finish())
    }
}
