//! What is kept of the store: the cells of stretches, or of a part of one, that questions have read, decoded, until a flush writes to them.
//!
//! A question sees the store as it was after some flush: *through* the log position that the flush reached. What it read of a
//! stretch is right for every later view, too, until a flush touches the stretch. So a flush tells what it touched, under the lock
//! under which it becomes visible, and what was read before a flush is not taken up after it: it may have been touched.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use catchment_cells::cell::Wanted;

use crate::block::Decoded;
use crate::runs::Stretch;

/// What an entry costs beside its cells, roughly.
const ENTRY_BYTES: usize = 700;

/// Cells of stretches.
#[derive(Debug)]
pub struct Kept {
    through: u64,
    stretches: HashMap<Stretch, Vec<Entry>>,
    bytes: usize,
    bytes_max: usize,
    /// Counts what is asked for.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    /// The buckets that were read.
    range: Range<i64>,
    /// The view that it was read from.
    through: u64,
    cells: Arc<Vec<Decoded>>,
    bytes: usize,
    used: u64,
}

impl Kept {
    /// Nothing of a store that is flushed through a position, and never more than so many bytes.
    pub fn new(through: u64, bytes_max: usize) -> Kept {
        Kept { through, stretches: HashMap::new(), bytes: 0, bytes_max, clock: 0 }
    }

    /// The position that the last flush reached: a question's view.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// Bytes that it takes, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The cells of a stretch, of at least these of its buckets and with at least what is wanted, as a view has them.
    pub fn get(
        &mut self,
        stretch: &Stretch,
        range: &Range<i64>,
        wanted: Wanted,
        through: u64,
    ) -> Option<Arc<Vec<Decoded>>> {
        self.clock += 1;
        let has = |entry: &&mut Entry| {
            let has_all = entry.wanted.users >= wanted.users && entry.wanted.measures >= wanted.measures;
            has_all && entry.through <= through && covers(&entry.range, range)
        };
        let entry = self.stretches.get_mut(stretch)?.iter_mut().find(has)?;
        entry.used = self.clock;
        Some(entry.cells.clone())
    }

    /// Keeps what was read of a stretch in a view: all cells of these of its buckets, with what was wanted.
    pub fn put(&mut self, stretch: Stretch, range: Range<i64>, wanted: Wanted, through: u64, cells: Vec<Decoded>) {
        let bytes = ENTRY_BYTES + cells.iter().map(Decoded::memory_bytes).sum::<usize>();
        if through != self.through || bytes > self.bytes_max / 4 {
            return;
        }
        let entries = self.stretches.entry(stretch).or_default();
        entries.retain(|entry| {
            let stays = entry.wanted != wanted || !covers(&range, &entry.range);
            self.bytes -= if stays { 0 } else { entry.bytes };
            stays
        });
        entries.push(Entry { wanted, range, through, cells: Arc::new(cells), bytes, used: self.clock });
        self.bytes += bytes;
        if self.bytes > self.bytes_max {
            self.shrink();
        }
    }

    /// Hours and days of these stretches were cut anew: a change as a flush is one.
    pub fn recut(&mut self, touched: &[Stretch]) {
        self.flushed(self.through, touched);
    }

    /// A change may have touched any.
    pub fn clear(&mut self) {
        self.flushed(self.through, &[]);
        self.stretches.clear();
        self.bytes = 0;
    }

    /// A flush reached a position, and wrote to these stretches.
    pub fn flushed(&mut self, through: u64, touched: &[Stretch]) {
        // Beyond the position where there were other changes since the last one: it only has to rise.
        self.through = through.max(self.through + 1);
        for stretch in touched {
            let gone = self.stretches.remove(stretch).into_iter().flatten();
            self.bytes -= gone.map(|entry| entry.bytes).sum::<usize>();
        }
    }

    /// Lets go of what was not asked for the longest, down to three quarters.
    fn shrink(&mut self) {
        let mut ages: Vec<(u64, usize)> =
            self.stretches.values().flatten().map(|entry| (entry.used, entry.bytes)).collect();
        ages.sort_unstable();
        let mut over = self.bytes.saturating_sub(self.bytes_max / 4 * 3);
        let last = ages.into_iter().find(|(_, bytes)| {
            over = over.saturating_sub(*bytes);
            over == 0
        });
        let Some((last, _)) = last else { return };
        self.stretches.retain(|_, entries| {
            entries.retain(|entry| entry.used > last);
            !entries.is_empty()
        });
        self.bytes = self.stretches.values().flatten().map(|entry| entry.bytes).sum();
    }
}

/// Whether a range has all of another.
fn covers(range: &Range<i64>, other: &Range<i64>) -> bool {
    range.start <= other.start && other.end <= range.end
}

#[cfg(test)]
mod tests {
    use catchment_cells::Cell;
    use catchment_cells::key::Tier;

    use super::*;
    use crate::block::Draft;

    const COUNTS: Wanted = Wanted { users: false, measures: false };
    const USERS: Wanted = Wanted { users: true, measures: false };
    const ALL: Range<i64> = i64::MIN..i64::MAX;

    fn at(bucket: i64) -> Stretch {
        Stretch::of(b"s", Tier::Hour, bucket)
    }

    fn cells(n: u64) -> Vec<Decoded> {
        let mut draft = Draft::new(0);
        (0..n).for_each(|_| draft.push(0, [], &Cell { count: 1, ..Cell::default() }));
        vec![Decoded::read(0, &draft.finish(), COUNTS, ALL).unwrap().unwrap()]
    }

    #[test]
    fn what_a_flush_may_have_touched_is_not_kept() {
        let mut kept = Kept::new(10, 1 << 20);
        kept.put(at(0), ALL, COUNTS, 10, cells(1));
        kept.put(at(1_000), ALL, COUNTS, 10, cells(1));
        assert!(kept.get(&at(0), &ALL, COUNTS, 10).is_some());
        kept.flushed(20, &[at(0)]);
        assert!(kept.get(&at(0), &ALL, COUNTS, 20).is_none(), "it was touched");
        assert!(kept.get(&at(1_000), &ALL, COUNTS, 20).is_some() && kept.get(&at(1_000), &ALL, COUNTS, 10).is_some());
        kept.put(at(0), ALL, COUNTS, 10, cells(1));
        assert!(kept.get(&at(0), &ALL, COUNTS, 20).is_none(), "it was read before the flush");
        kept.put(at(0), ALL, COUNTS, 20, cells(2));
        assert!(kept.get(&at(0), &ALL, COUNTS, 10).is_none(), "it has what an earlier view hasn't");
        assert!(kept.get(&at(0), &ALL, COUNTS, 20).is_some());
        kept.recut(&[at(0)]);
        kept.put(at(0), ALL, COUNTS, 20, cells(2));
        assert!(kept.get(&at(0), &ALL, COUNTS, 21).is_none(), "it was read before it was cut anew");
        kept.clear();
        assert_eq!(kept.bytes(), 0);
        kept.flushed(21, &[]);
        assert!(kept.through() > 22, "never again what it was");
    }

    #[test]
    fn more_than_is_wanted_will_do_and_less_will_not() {
        let mut kept = Kept::new(1, 1 << 20);
        kept.put(at(0), ALL, USERS, 1, cells(1));
        assert!(kept.get(&at(0), &ALL, COUNTS, 1).is_some() && kept.get(&at(0), &ALL, USERS, 1).is_some());
        kept.flushed(2, &[at(0)]);
        assert_eq!(kept.bytes(), 0);
        kept.put(at(0), ALL, COUNTS, 2, cells(1));
        assert!(kept.get(&at(0), &ALL, USERS, 2).is_none());
    }

    #[test]
    fn a_part_answers_for_itself_and_gives_way_to_the_whole() {
        let mut kept = Kept::new(1, 1 << 20);
        kept.put(at(0), 10..20, COUNTS, 1, cells(1));
        let has = |kept: &mut Kept, range| kept.get(&at(0), &range, COUNTS, 1).is_some();
        assert!(has(&mut kept, 10..20) && has(&mut kept, 12..15));
        assert!(!has(&mut kept, 9..15) && !has(&mut kept, 15..21));
        kept.put(at(0), 15..30, COUNTS, 1, cells(1));
        assert!(has(&mut kept, 10..20) && has(&mut kept, 20..30));
        let of_one = kept.bytes() / 2;
        kept.put(at(0), 0..60, COUNTS, 1, cells(1));
        assert!(has(&mut kept, 10..30) && kept.bytes() == of_one, "{}", kept.bytes());
    }

    #[test]
    fn it_never_takes_more_than_it_may_and_lets_the_oldest_go() {
        let mut kept = Kept::new(1, 100_000);
        for n in 0..1_000 {
            kept.put(at(n * 1_000), ALL, COUNTS, 1, cells(10));
            assert!(kept.get(&at(0), &ALL, COUNTS, 1).is_some(), "{n}");
            assert!(kept.get(&at(n * 1_000), &ALL, COUNTS, 1).is_some(), "{n}");
            let all: usize = kept.stretches.values().flatten().map(|entry| entry.bytes).sum();
            assert_eq!(kept.bytes(), all);
            assert!(all <= 100_000, "{all} bytes");
        }
        assert!(kept.get(&at(1_000), &ALL, COUNTS, 1).is_none());
        kept.put(at(-1_000), ALL, COUNTS, 1, cells(10_000));
        assert!(kept.get(&at(-1_000), &ALL, COUNTS, 1).is_none(), "one that would push all others out");
    }
}
