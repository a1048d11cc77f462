//! Events between two cuts, reduced to what cells are made of. Cells are made at the cut, where sorting brings the events of each
//! together: what is taken until then is texts that are new, and some numbers an event.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::sync::Arc;

use catchment_cells::ClientId;
use catchment_cells::cell::{Measure, micros};
use catchment_cells::cube::{BOT, Cube};
use catchment_cells::frame::{Cells, CellsWriter};
use catchment_cells::users::Coupon;
use catchment_config as config;
use siphasher::sip::SipHasher13;

use crate::event::Field;
use crate::ids::AsItIs;
use crate::limits::MEASURE_NAMES_MAX;
use crate::reason::Reason;

/// The cubes that a client's events fill, and the columns that these need.
#[derive(Debug)]
pub(crate) struct Filling {
    /// Ascending by name, as in a frame.
    cubes: Vec<Arc<FilledCube>>,
    /// Of each dimension of any cube; `None` where events have no such thing.
    columns: Vec<Option<Column>>,
    /// The column that tells whose bot an event is of, whether or not a cube has it.
    bot: usize,
}

/// Where the values of a dimension come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// A field that every event may have.
    Field(Field),
    /// The client's own dimension of this number.
    Own(usize),
}

/// A cube with its dimensions' columns.
#[derive(Debug)]
struct FilledCube {
    name: Box<str>,
    dimensions: Vec<Box<str>>,
    digest: bool,
    columns: Vec<usize>,
}

/// Events by client.
#[derive(Debug, Default)]
pub(crate) struct OpenEvents {
    clients: BTreeMap<ClientId, ClientEvents>,
    len: usize,
    cells: usize,
    text_bytes: usize,
}

/// One client's.
#[derive(Debug)]
pub(crate) struct ClientEvents {
    filling: Arc<Filling>,
    texts: Texts,
    /// Of measures.
    names: Vec<Box<str>>,
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
    all: String,
    ends: Vec<u32>,
}

/// All events of a cut, in the order of a frame's cells.
#[derive(Debug)]
pub(crate) struct SortedEvents(Vec<Section>);

/// One client's.
#[derive(Debug)]
struct Section {
    client: ClientId,
    /// Its values and measures have ranks instead of numbers.
    of: ClientEvents,
    /// By rank, the numbers of texts and names.
    texts: Vec<u32>,
    names: Vec<u32>,
    width: usize,
    cubes: Vec<SortedCube>,
}

#[derive(Debug)]
struct SortedCube {
    cube: Arc<FilledCube>,
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
    /// Of these cubes and a client's own, whose dimensions have the columns that `column_of` says.
    pub(crate) fn of(cubes: &[Cube], own: &[config::Cube], column_of: impl Fn(&str) -> Option<Column>) -> Self {
        let mut names: Vec<Box<str>> = Vec::new();
        let mut cube = |name: &str, dimensions: Vec<Box<str>>, digest| {
            let mut column = |name: &str| {
                names.iter().position(|known| **known == *name).unwrap_or_else(|| {
                    names.push(name.into());
                    names.len() - 1
                })
            };
            let columns = dimensions.iter().map(|name| column(name)).collect();
            Arc::new(FilledCube { name: name.into(), dimensions, digest, columns })
        };
        let mut filled = Vec::new();
        for Cube { name, dimensions, digest } in cubes {
            filled.push(cube(name, dimensions.iter().map(|&name| name.into()).collect(), *digest));
        }
        for config::Cube { name, dimensions, digest } in own {
            filled.push(cube(name, dimensions.iter().map(|name| (**name).into()).collect(), *digest));
        }
        filled.sort_by(|a, b| a.name.cmp(&b.name));
        let bot = names.iter().position(|name| **name == *BOT).unwrap_or(names.len());
        if bot == names.len() {
            names.push(BOT.into());
        }
        Filling { cubes: filled, columns: names.iter().map(|name| column_of(name)).collect(), bot }
    }
}

impl OpenEvents {
    /// Events.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Cells that they fill at most, if no two share one.
    pub(crate) fn cells(&self) -> usize {
        self.cells
    }

    /// Bytes of the clients' different texts.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// The clients that have some.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &ClientId> {
        self.clients.keys()
    }

    /// Takes a client's events out, for more to be added. They are to be [put back](Self::put_back), and fill what the first of them filled.
    pub(crate) fn take(&mut self, client: &ClientId, filling: &Arc<Filling>) -> ClientEvents {
        let events = self.clients.remove(client).unwrap_or_else(|| ClientEvents::new(filling.clone()));
        self.len -= events.events.len();
        self.cells -= events.cells();
        self.text_bytes -= events.texts.all.len();
        events
    }

    /// Puts a client's events back.
    pub(crate) fn put_back(&mut self, client: &ClientId, events: ClientEvents) {
        if !events.events.is_empty() {
            self.len += events.events.len();
            self.cells += events.cells();
            self.text_bytes += events.texts.all.len();
            self.clients.insert(client.clone(), events);
        }
    }

    /// Brings the events of each cell together.
    pub(crate) fn sort(self) -> SortedEvents {
        SortedEvents(self.clients.into_iter().map(|(client, of)| Section::of(client, of)).collect())
    }
}

impl ClientEvents {
    fn cells(&self) -> usize {
        self.events.len() * self.filling.cubes.len()
    }

    fn new(filling: Arc<Filling>) -> Self {
        let (texts, names, events) = (Texts::default(), Vec::new(), Vec::new());
        ClientEvents { filling, texts, names, events, values: Vec::new(), measures: Vec::new() }
    }

    /// Adds an event; `value` is what it has in a column. The key is the client's secret one: nobody can choose texts that share
    /// a hash.
    pub(crate) fn add<'v>(
        &mut self,
        key: [u8; 16],
        (minute, user): (i64, Coupon),
        value: impl Fn(Column) -> Option<&'v str>,
        measures: &[(Cow<'_, str>, f64)],
        mut count: impl FnMut(Reason, u64),
    ) {
        for column in &self.filling.columns {
            let text = column.and_then(&value);
            self.values.push(text.map_or(0, |text| self.texts.number(key, text) + 1));
        }
        let begin = self.measures.len() as u32;
        for (name, number) in measures {
            match micros(*number) {
                None => count(Reason::MeasureOutOfRange, 1),
                Some(micros) => match self.name(name) {
                    None => count(Reason::MeasuresOverLimit, 1),
                    Some(name) => self.measures.push((name, micros)),
                },
            }
        }
        self.events.push(OpenEvent { minute, user, measures: begin..self.measures.len() as u32 });
    }

    /// The number of a measure's name; `None` if there are too many others.
    fn name(&mut self, name: &str) -> Option<u32> {
        // There are few.
        let known = self.names.iter().position(|known| **known == *name);
        let number = known.unwrap_or(self.names.len());
        if number >= MEASURE_NAMES_MAX {
            return None;
        }
        if known.is_none() {
            self.names.push(name.into());
        }
        Some(number as u32)
    }
}

impl Texts {
    /// The number of a text.
    fn number(&mut self, key: [u8; 16], text: &str) -> u32 {
        let mut hash = SipHasher13::new_with_key(&key).hash(text.as_bytes());
        loop {
            match self.numbers.get(&hash) {
                Some(&number) if self.text(number) == text => return number,
                Some(_) => hash = hash.wrapping_add(1),
                None => break,
            }
        }
        let number = self.ends.len() as u32;
        self.numbers.insert(hash, number);
        self.all.push_str(text);
        self.ends.push(self.all.len() as u32);
        number
    }

    fn text(&self, number: u32) -> &str {
        let number = number as usize;
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.all[start as usize..self.ends[number] as usize]
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len() as u32).map(|number| self.text(number))
    }
}

/// The places of texts in ascending order, and for each place its rank.
fn ranks<'a>(texts: impl Iterator<Item = &'a str>) -> (Vec<u32>, Vec<u32>) {
    // Most are told apart by what they begin with.
    let mut order: Vec<(u64, &str, u32)> = texts.zip(0..).map(|(text, place)| (beginning(text), text, place)).collect();
    order.sort_unstable();
    let mut ranks = vec![0; order.len()];
    for ((_, _, place), rank) in order.iter().zip(0..) {
        ranks[*place as usize] = rank;
    }
    (order.into_iter().map(|(_, _, place)| place).collect(), ranks)
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
    fn of(client: ClientId, mut of: ClientEvents) -> Self {
        let (texts, rank_of) = ranks(of.texts.iter());
        for value in of.values.iter_mut().filter(|value| **value > 0) {
            *value = rank_of[*value as usize - 1] + 1;
        }
        let (names, rank_of) = ranks(of.names.iter().map(|name| &**name));
        for (name, _) in &mut of.measures {
            *name = rank_of[*name as usize];
        }
        let mut minutes: Vec<i64> = of.events.iter().map(|event| event.minute).collect();
        minutes.sort_unstable();
        minutes.dedup();
        let minute_of: Vec<usize> =
            of.events.iter().map(|event| minutes.partition_point(|&minute| minute < event.minute)).collect();
        let filling = of.filling.clone();
        let mut section = Section { client, of, texts, names, width: filling.columns.len(), cubes: Vec::new() };
        let mut sorter = Sorter::default();
        let (bots, people): (Vec<u32>, Vec<u32>) =
            (0..section.of.events.len() as u32).partition(|&event| section.value(event, filling.bot) > 0);
        for cube in &filling.cubes {
            let columns = &cube.columns;
            let is_in =
                |event: &u32| columns.is_empty() || columns.iter().any(|&column| section.value(*event, column) > 0);
            let events = if columns.contains(&filling.bot) { &bots } else { &people };
            sorter.order = events.iter().copied().filter(is_in).collect();
            // From the least significant on, as each step keeps the order of what it finds equal.
            for &column in columns.iter().rev() {
                sorter.sort_by(section.texts.len() + 1, |event| section.value(event, column) as usize);
            }
            sorter.sort_by(minutes.len(), |event| minute_of[event as usize]);
            let order = std::mem::take(&mut sorter.order);
            let differ = |before: u32, event: u32| {
                minute_of[before as usize] != minute_of[event as usize]
                    || columns.iter().any(|&column| section.value(before, column) != section.value(event, column))
            };
            let mut cells: Vec<u32> = Vec::with_capacity(order.len());
            cells.extend(order.first().map(|_| 0));
            for (pair, at) in order.windows(2).zip(1..) {
                if differ(pair[0], pair[1]) {
                    cells.push(at);
                }
            }
            section.cubes.push(SortedCube { cube: cube.clone(), order, cells });
        }
        section
    }

    /// Cells.
    fn len(&self) -> usize {
        self.cubes.iter().map(|cube| cube.cells.len()).sum()
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|&number| self.of.texts.text(number))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|&number| &*self.of.names[number as usize])
    }

    /// 0 for none, else a text's rank and 1.
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
            writer.cube(dictionary.place(&cube.cube.name), names, minutes.len());
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
                    writer.cell(cube.cube.columns.iter().map(value), events.len() as u64, &mut users, &measures);
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
    fn of(section: &'a Section, parts: &[(&'a SortedCube, Range<usize>)]) -> Self {
        let (mut values, mut names) = (vec![0; section.texts.len()], vec![0; section.names.len()]);
        let mut texts: Vec<&str> = Vec::new();
        for (cube, cells) in parts {
            texts.push(&cube.cube.name);
            texts.extend(cube.cube.dimensions.iter().map(|name| &**name));
            for cell in cells.clone() {
                let events = cube.events(cell);
                for &column in &cube.cube.columns {
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
        texts.extend(section.texts().zip(&values).filter(|(_, used)| **used == 1).map(|(text, _)| text));
        texts.extend(section.names().zip(&names).filter(|(_, used)| **used == 1).map(|(name, _)| name));
        // The stable sort finds runs and merges them.
        texts.sort();
        texts.dedup();
        let mut dictionary = Dictionary { texts, values: Vec::new(), names: Vec::new() };
        dictionary.values = dictionary.places(section.texts());
        dictionary.names = dictionary.places(section.names());
        dictionary
    }

    /// The places of ascending texts.
    fn places<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Vec<usize> {
        let mut at = 0;
        let place = |text: &str| {
            while self.texts.get(at).is_some_and(|known| *known < text) {
                at += 1;
            }
            at
        };
        texts.map(place).collect()
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
