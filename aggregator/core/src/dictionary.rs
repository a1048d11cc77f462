//! Dictionaries: which values of a dimension a client's store tells apart on a day. A flush folds the others into [`OTHER`], in every cube
//! alike, so that a day takes no more than so many values of the store whatever is sent.
//!
//! Half of a dictionary is for whatever comes first. In the other half each event lets its value in with a probability that falls as the
//! room does (sticky sampling: Manku and Motwani, "Approximate frequency counts over data streams", 2002): what comes often is soon told apart,
//! however many others come once. A value that is in stays in, and all its later events are told apart. One that was let in before anything
//! was folded has all of its events, so that `(other)` surely has none of it.
//!
//! Days are those of UTC, so that no client's clock matters here. Who sends many values is bounded by the memtable until the next flush,
//! and questions see these by name until then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hasher;
use std::ops::RangeInclusive;

use catchment_cells::codec::{DecodeError, Reader, put_uv};
use catchment_cells::frame::CellsBlock;
use catchment_cells::key::put_bucket;
use catchment_cells::row::OTHER;
use catchment_cells::{ClientId, cube};
use siphasher::sip::SipHasher13;

use crate::memtable::{Memtable, Section};
use crate::planner::value;

/// The version byte of a stored dictionary.
const VERSION: u8 = 1;
/// The key of values' hashes: stored dictionaries hang on it, so it is final.
const HASH_KEY: &[u8; 16] = b"catchment values";
/// How much rarer values are let in each time that half of the room that is left goes.
const RARER: f64 = 8.0;
const DAY_MINUTES: i64 = 24 * 60;

/// The day of UTC that a minute lies in, in days since 1970.
pub fn day(minute: i64) -> i64 {
    minute.div_euclid(DAY_MINUTES)
}

/// Which dictionary.
///
/// Bytes: `u8 state ‖ client ‖ 0x00 ‖ dimension ‖ 0x00 ‖ day`, the state `f` of one that has folded values, else `o`; the day an i64,
/// big-endian with its sign bit flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a> {
    /// Whose.
    pub client: &'a ClientId,
    /// The dimension, which is the same one in each cube.
    pub dimension: &'a str,
    /// The day.
    pub day: i64,
}

/// The values of a dimension that are told apart on a day, by their hashes.
///
/// Bytes: `u8 version = 1 ‖ i64 written_day ‖ uv n ‖ n × u64 whole ‖ uv m ‖ m × u64 late`, integers little-endian, hashes ascending. Whether
/// it has folded values, its key says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dictionary {
    /// Those that `(other)` has no event of, ascending.
    whole: Vec<u64>,
    /// Those that it may have some of, ascending.
    late: Vec<u64>,
    /// Whether any value was folded.
    is_folding: bool,
    /// The day of the last change.
    written_day: i64,
}

/// What a flush does about dictionaries.
#[derive(Debug, Default)]
pub struct Admission<'a> {
    /// Those that have changed: to be stored in one batch with the cells.
    pub changed: Vec<(Key<'a>, Dictionary)>,
    /// Values that are folded.
    folded: HashMap<Key<'a>, HashSet<&'a str>>,
}

/// The dictionaries of a client that have folded values, as far as a question needs them.
#[derive(Debug, Clone, Default)]
pub struct Dictionaries(BTreeMap<Box<str>, BTreeMap<i64, Dictionary>>);

impl Key<'_> {
    /// The key's bytes.
    pub fn encode(&self, is_folding: bool) -> Vec<u8> {
        let mut out = vec![if is_folding { b'f' } else { b'o' }];
        for name in [self.client.as_str(), self.dimension] {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
        }
        put_bucket(&mut out, self.day);
        out
    }

    /// What the keys of all dictionaries begin with that have not folded a value.
    pub const OPEN: &'static [u8] = b"o";

    /// What the keys of a client's dictionaries begin with that have folded values.
    pub fn folding_of(client: &ClientId) -> Vec<u8> {
        [b"f", client.as_str().as_bytes(), &[0]].concat()
    }

    /// The day of a key.
    pub fn day_of(key: &[u8]) -> Result<i64, DecodeError> {
        let (_, day) = key.split_last_chunk::<8>().ok_or(DecodeError::Malformed("a dictionary's key"))?;
        Ok((u64::from_be_bytes(*day) ^ (1 << 63)) as i64)
    }
}

impl Dictionary {
    /// Lets values in, with their events, the most frequent first, and returns those that are folded: of a flush whose run has this number.
    fn admit<'v>(&mut self, values: HashMap<&'v str, u64>, values_max: usize, run: u64) -> HashSet<&'v str> {
        let mut new: Vec<(u64, u64, &str)> =
            values.into_iter().map(|(value, events)| (events, hash(value.as_bytes()), value)).collect();
        new.retain(|(_, hash, _)| !self.has(*hash));
        new.sort_unstable_by(|a, b| b.cmp(a));
        // Who comes before anything is folded, or in the flush that begins to, has all its events.
        let was_folding = self.is_folding;
        let (mut admitted, mut folded) = (Vec::new(), HashSet::new());
        for (events, hash, value) in new {
            let room = values_max.saturating_sub(self.whole.len() + self.late.len() + admitted.len());
            if is_let_in(room, values_max, (hash, run), events) {
                admitted.push(hash);
            } else {
                folded.insert(value);
            }
        }
        let hashes = if was_folding { &mut self.late } else { &mut self.whole };
        hashes.extend(admitted);
        hashes.sort_unstable();
        self.is_folding |= !folded.is_empty();
        folded
    }

    fn has(&self, hash: u64) -> bool {
        self.whole.binary_search(&hash).is_ok() || self.late.binary_search(&hash).is_ok()
    }

    /// Whether `(other)` may have events of a value.
    fn may_hide(&self, value: &str) -> bool {
        self.whole.binary_search(&hash(value.as_bytes())).is_err()
    }

    /// Whether any value was folded: which key it is stored under.
    pub fn is_folding(&self) -> bool {
        self.is_folding
    }

    /// The day of the last change.
    pub fn written_day(&self) -> i64 {
        self.written_day
    }

    /// The dictionary's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + 8 * (self.whole.len() + self.late.len()));
        out.push(VERSION);
        out.extend_from_slice(&self.written_day.to_le_bytes());
        for hashes in [&self.whole, &self.late] {
            put_uv(&mut out, hashes.len() as u64);
            hashes.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
        }
        out
    }

    /// Reads it, all of it.
    pub fn decode(bytes: &[u8], is_folding: bool) -> Result<Dictionary, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let written_day = reader.i64()?;
        let mut hashes = || -> Result<Vec<u64>, DecodeError> {
            let n = reader.count(size_of::<u64>())?;
            let hashes: Vec<u64> = (0..n).map(|_| reader.u64()).collect::<Result<_, _>>()?;
            let ascend = hashes.is_sorted_by(|a, b| a < b);
            if ascend { Ok(hashes) } else { Err(DecodeError::Malformed("hashes not ascending")) }
        };
        let (whole, late) = (hashes()?, hashes()?);
        reader.finish()?;
        Ok(Dictionary { whole, late, is_folding, written_day })
    }
}

/// Whether a value is let in where there is so much room, by one of its events: of a hash and a run always the same.
fn is_let_in(room: usize, values_max: usize, (value, run): (u64, u64), events: u64) -> bool {
    let half = values_max - values_max / 2;
    if room > half {
        return true;
    }
    if room == 0 {
        return false;
    }
    let halvings = (half as f64 / room as f64).log2().floor() as i32;
    let rate = RARER.powi(halvings + 1);
    // That none of so many events is the one in `rate`.
    let none = (events as f64 * (-1.0 / rate).ln_1p()).exp();
    let coin = hash(&[value.to_le_bytes(), run.to_le_bytes()].concat()) as f64 / (u64::MAX as f64);
    coin >= none
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(HASH_KEY);
    hasher.write(bytes);
    hasher.finish()
}

impl<'a> Admission<'a> {
    /// What becomes of a memtable's values when it is flushed as a run on this day: `values_max` says how many of a dimension and day are told
    /// apart for a client, `read` reads a stored dictionary.
    pub fn of<E>(
        memtable: &'a Memtable,
        (run, today): (u64, i64),
        values_max: impl Fn(&ClientId) -> usize,
        mut read: impl FnMut(Key<'a>) -> Result<Dictionary, E>,
    ) -> Result<Admission<'a>, E> {
        let mut admission = Admission::default();
        for (client, section) in memtable.sections() {
            let values_max = values_max(client);
            for ((dimension, day), values) in values_of(section) {
                let key = Key { client, dimension, day };
                let mut dictionary = read(key)?;
                let before = (dictionary.whole.len(), dictionary.late.len(), dictionary.is_folding);
                let folded = dictionary.admit(values, values_max, run);
                if !folded.is_empty() {
                    admission.folded.insert(key, folded);
                }
                if before != (dictionary.whole.len(), dictionary.late.len(), dictionary.is_folding) {
                    dictionary.written_day = today;
                    admission.changed.push((key, dictionary));
                }
            }
        }
        Ok(admission)
    }

    /// How many values are folded.
    pub fn folded(&self) -> usize {
        self.folded.values().map(HashSet::len).sum()
    }

    /// The cubes of which values are folded, as they are flushed: cells that have become one are merged.
    pub fn fold(&self, memtable: &Memtable) -> CellsBlock {
        let mut folded = CellsBlock::default();
        if self.folded.is_empty() {
            return folded;
        }
        for (client, section) in memtable.sections() {
            for (name, cube) in section.iter().filter(|(name, _)| is_capped(name)) {
                let of = |dimension, minute| self.folded.get(&Key { client, dimension, day: day(minute) });
                if !cube.minutes.keys().any(|minute| cube.dimensions.iter().any(|name| of(name, *minute).is_some())) {
                    continue;
                }
                let ours = folded.0.entry(client.clone()).or_default().entry(name.clone()).or_default();
                ours.dimensions.clone_from(&cube.dimensions);
                for (minute, cells) in &cube.minutes {
                    let folded: Vec<_> = cube.dimensions.iter().map(|name| of(name, *minute)).collect();
                    let ours = ours.buckets.entry(*minute).or_default();
                    for (values, cell) in cells.iter() {
                        let values = values.iter().zip(&folded).map(|(value, folded)| fold_value(value, *folded));
                        ours.entry(values.collect()).or_default().merge(cell);
                    }
                }
            }
        }
        folded
    }
}

fn fold_value(value: &Option<Box<str>>, folded: Option<&HashSet<&str>>) -> Option<Box<str>> {
    match (value, folded) {
        (Some(value), Some(folded)) if folded.contains(&**value) => Some(OTHER.into()),
        _ => value.clone(),
    }
}

/// Whether values of a cube's dimensions are folded. Reasons are few, and ours.
fn is_capped(cube: &str) -> bool {
    cube != cube::RECEIVED.name
}

/// The values of a client's cells by dimension and day, with their events: these count once in each cube that has the dimension.
fn values_of(section: &Section) -> BTreeMap<(&str, i64), HashMap<&str, u64>> {
    let mut all: BTreeMap<(&str, i64), HashMap<&str, u64>> = BTreeMap::new();
    for (_, cube) in section.iter().filter(|(name, _)| is_capped(name)) {
        for (place, dimension) in cube.dimensions.iter().enumerate() {
            for (minute, cells) in &cube.minutes {
                let values = all.entry((dimension, day(*minute))).or_default();
                for (cell_values, cell) in cells.iter() {
                    if let Some(value) = value(cell_values, place).filter(|value| *value != OTHER) {
                        *values.entry(value).or_default() += cell.count;
                    }
                }
            }
        }
    }
    all
}

impl Dictionaries {
    /// Adds one.
    pub fn insert(&mut self, dimension: &str, day: i64, dictionary: Dictionary) {
        self.0.entry(dimension.into()).or_default().insert(day, dictionary);
    }

    /// Bytes that they take, roughly.
    pub(crate) fn memory_bytes(&self) -> usize {
        let hashes = |dictionary: &Dictionary| dictionary.whole.len() + dictionary.late.len();
        self.0.values().flat_map(BTreeMap::values).map(hashes).sum::<usize>() * size_of::<u64>()
    }

    /// The dimensions of which values were folded.
    pub fn dimensions(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// Whether values of a dimension were folded on some of these days.
    pub(crate) fn is_folding(&self, dimension: &str, days: &RangeInclusive<i64>) -> bool {
        self.of(dimension, days).next().is_some()
    }

    /// Whether a value may have been folded on some of these days.
    pub(crate) fn may_hide(&self, dimension: &str, days: &RangeInclusive<i64>, value: &str) -> bool {
        self.of(dimension, days).any(|dictionary| dictionary.may_hide(value))
    }

    fn of(&self, dimension: &str, days: &RangeInclusive<i64>) -> impl Iterator<Item = &Dictionary> {
        let days = self.0.get(dimension).map(|of| of.range(days.clone()));
        days.into_iter().flatten().map(|(_, dictionary)| dictionary)
    }
}

#[cfg(test)]
mod tests {
    use catchment_cells::Cell;
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 8;

    fn memtable(client: &ClientId, values: &[u8]) -> Memtable {
        let mut block = CellsBlock::default();
        let section = block.0.entry(client.clone()).or_default();
        for (name, dimensions) in [("page", &["page"][..]), ("both", &["country", "page"])] {
            let cube = section.entry(name.into()).or_default();
            cube.dimensions = dimensions.iter().map(|&name| name.into()).collect();
            for (minute, value) in (0..).zip(values) {
                let page = Some(format!("/{value}").into());
                let values = if name == "page" { vec![page] } else { vec![Some("DE".into()), page] };
                cube.buckets.entry(minute % 3).or_default().entry(values).or_insert_with(Cell::default).count += 1;
            }
        }
        let mut memtable = Memtable::default();
        memtable.merge(block);
        memtable
    }

    fn admit<'a>(memtable: &'a Memtable, run: u64, dictionary: &Dictionary) -> Admission<'a> {
        let read = |key: Key<'_>| -> Result<_, ()> {
            Ok(if key.dimension == "page" { dictionary.clone() } else { Dictionary::default() })
        };
        Admission::of(memtable, (run, 7), |_| MAX, read).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_told_apart_is_told_apart_whole(flushes in prop::collection::vec(prop::collection::vec(0u8..20, 1..30), 1..8)) {
            let client = ClientId::new("a").unwrap();
            let (mut dictionary, mut folded_ever) = (Dictionary::default(), HashSet::new());
            for (run, values) in (1..).zip(&flushes) {
                let memtable = memtable(&client, values);
                let admission = admit(&memtable, run, &dictionary);
                let is_page = |key: &Key<'_>| key.dimension == "page";
                if let Some((_, changed)) = admission.changed.iter().find(|(key, _)| is_page(key)) {
                    prop_assert_eq!(changed.written_day(), 7);
                    dictionary = changed.clone();
                }
                let cells = admission.fold(&memtable);
                prop_assert_eq!(admission.folded() == 0, cells.0.is_empty());
                for section in cells.0.values() {
                    for (name, cube) in section {
                        let count = |cells: &BTreeMap<_, Cell>| cells.values().map(|cell| cell.count).sum::<u64>();
                        let folded = cube.buckets.iter().map(|(minute, cells)| (*minute, count(cells)));
                        let whole = memtable.sections()[&client][name].minutes.iter();
                        let whole = whole.map(|(minute, cells)| (*minute, count(cells)));
                        prop_assert!(folded.eq(whole), "{}", name);
                        for cell_values in cube.buckets.values().flat_map(BTreeMap::keys) {
                            let page = value(cell_values, cube.dimensions.len() - 1).unwrap();
                            prop_assert!(page == OTHER || dictionary.has(hash(page.as_bytes())), "{}", page);
                        }
                    }
                }
                folded_ever.extend(admission.folded.values().flatten().map(|value| (*value).to_owned()));
                prop_assert!(dictionary.whole.len() + dictionary.late.len() <= MAX);
                prop_assert_eq!(dictionary.is_folding(), !folded_ever.is_empty());
                for value in values.iter().map(|value| format!("/{value}")) {
                    prop_assert!(dictionary.may_hide(&value) || !folded_ever.contains(&value), "{}", value);
                }
            }
            // Half of them whatever they are.
            let different: HashSet<u8> = flushes.concat().into_iter().collect();
            prop_assert!(dictionary.whole.len() >= different.len().min(MAX / 2));
        }

        #[test]
        fn dictionaries_round_trip(whole in prop::collection::btree_set(any::<u64>(), 0..9), late in prop::collection::btree_set(any::<u64>(), 0..9), is_folding: bool) {
            let (whole, late) = (whole.into_iter().collect(), late.into_iter().collect());
            let dictionary = Dictionary { whole, late, is_folding, written_day: -3 };
            prop_assert_eq!(Dictionary::decode(&dictionary.encode(), is_folding), Ok(dictionary));
        }

        #[test]
        fn any_bytes_are_a_dictionary_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [&[VERSION][..], &bytes].concat();
            if let Ok(dictionary) = Dictionary::decode(&bytes, false) {
                prop_assert_eq!(dictionary.encode(), bytes);
            }
        }
    }

    #[test]
    fn the_bytes_are_golden() {
        let client = ClientId::new("shop").unwrap();
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let key = Key { client: &client, dimension: "page", day: 3 };
        assert_eq!(hex(key.encode(true)), "6673686f700070616765008000000000000003");
        assert_eq!(key.encode(false)[0], b'o');
        assert_eq!(Key::day_of(&key.encode(true)), Ok(3));
        let mut dictionary = Dictionary { written_day: 4, ..Dictionary::default() };
        dictionary.admit(HashMap::from([("/", 1)]), MAX, 1);
        dictionary.late.push(5);
        assert_eq!(hex(dictionary.encode()), "0104000000000000000106cb7dc175ea9367010500000000000000");
    }

    /// A million values that come once, and one that comes often after them.
    #[test]
    fn what_comes_often_finds_room() {
        let mut dictionary = Dictionary::default();
        let values_max = 2_000;
        for run in 0..100u64 {
            let once: Vec<String> = (0..10_000).map(|n| format!("/{run}/{n}")).collect();
            dictionary.admit(once.iter().map(|value| (&**value, 1)).collect(), values_max, run);
        }
        let told_apart = dictionary.whole.len() + dictionary.late.len();
        // Half of them at once, and of the other half each eighth, each sixty-fourth and so on event took one.
        assert!((1_700..values_max).contains(&told_apart), "{told_apart}");
        let mut folded = 0;
        for run in 100.. {
            if dictionary.admit(HashMap::from([("/often", 1_000)]), values_max, run).is_empty() {
                break;
            }
            folded += 1_000;
        }
        assert!(folded <= 60_000, "{folded} of its events were folded");
        assert!(dictionary.may_hide("/often"), "some of them");
        assert_eq!(
            dictionary.admit(HashMap::from([("/often", 1)]), values_max, 1),
            HashSet::new(),
            "from here on none"
        );
    }
}
