//! Runs: each flush writes its cells as blocks, rows of `(series, first bucket, run)`; a fold merges the runs of a stretch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::vec;

use catchment_cells::cell::Wanted;
use catchment_cells::codec::{DecodeError, Reader};
use catchment_cells::frame::CellsBlock;
use catchment_cells::key::{Tier, put_bucket, read_place, series};
use catchment_cells::limits::MINUTE_MAX;
use catchment_cells::{Cell, ClientId};

use crate::block::{Block, Draft, Texts, stretch, stretch_minutes};
use crate::tables::Frozen;
use crate::tiers::Tiers;

/// Bytes of a bucket and of a run at the end of a row's key.
const BUCKET_BYTES: usize = 8;
const RUN_BYTES: usize = 8;
/// Runs of a stretch that are folded at once.
const FOLD_RUNS: u32 = 8;
/// Flushes that pass a stretch by, after which it is folded whatever the number of its runs: its buckets have closed.
const FOLD_IDLE_FLUSHES: u64 = 2;
/// Stretches that wait to be folded; those that come at the bound stay as they are, which costs reading time only.
const FOLD_STRETCHES_MAX: usize = 200_000;
/// All of a cell.
const ALL: Wanted = Wanted { users: true, measures: true };

/// Buckets that are folded together: the keys of their rows lie between these, half-open.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// The first key that there can be.
    pub from: Vec<u8>,
    /// The key after the last one.
    pub to: Vec<u8>,
}

/// Which stretches have several runs. A restart forgets it: what was waiting then is folded once it is written to again, or
/// asked for.
#[derive(Debug, Default)]
pub struct Folder {
    flushes: u64,
    /// The runs of each, and the last flush that wrote to it.
    open: HashMap<Stretch, (u32, u64)>,
    due: HashSet<Stretch>,
}

/// What a fold changes: all of it in one batch.
#[derive(Debug, Default)]
pub struct Folded {
    /// Rows that are written, ascending.
    pub put: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys of rows that go.
    pub remove: Vec<Vec<u8>>,
}

impl Stretch {
    /// The one that a bucket is in.
    pub fn of(series: &[u8], tier: Tier, bucket: i64) -> Stretch {
        let from = stretch(tier, bucket);
        Stretch { from: bucket_key(series, from), to: bucket_key(series, from + stretch_minutes(tier)) }
    }

    /// All between the one that a minute is in and the one that another is in, which is not among them.
    pub fn between(series: &[u8], tier: Tier, from: i64, to: i64) -> Stretch {
        // Well beyond all buckets there are.
        let key = |minute: i64| bucket_key(series, stretch(tier, minute.clamp(-2 * MINUTE_MAX, 2 * MINUTE_MAX)));
        Stretch { from: key(from), to: key(to) }
    }
}

impl Folder {
    /// A flush wrote to these: decides which are due.
    pub fn flushed(&mut self, touched: Vec<Stretch>) {
        let flushes = self.flushes;
        for stretch in touched {
            if self.open.len() >= FOLD_STRETCHES_MAX && !self.open.contains_key(&stretch) {
                continue;
            }
            let (runs, last_flush) = self.open.entry(stretch).or_default();
            *runs += 1;
            *last_flush = flushes;
        }
        let gone = self
            .open
            .extract_if(|_, (runs, last_flush)| *runs >= FOLD_RUNS || flushes - *last_flush >= FOLD_IDLE_FLUSHES);
        self.due.extend(gone.filter(|(_, (runs, _))| *runs > 1).map(|(stretch, _)| stretch));
        self.flushes += 1;
    }

    /// A question read several runs of a stretch: the next one shall find one.
    pub fn suggest(&mut self, stretch: Stretch) {
        self.open.remove(&stretch);
        if self.due.len() < FOLD_STRETCHES_MAX {
            self.due.insert(stretch);
        }
    }

    /// A stretch to fold now.
    pub fn pop(&mut self) -> Option<Stretch> {
        let next = self.due.iter().next()?.clone();
        self.due.take(&next)
    }
}

impl Frozen {
    /// The rows of a flush: every cell of every minute, and of the hours and days these lie in, in blocks. Returns the stretches
    /// that they are in. A cube that is in `folded` is written as it is there.
    pub fn for_each_row(
        &self,
        folded: &CellsBlock,
        tiers: impl Fn(&ClientId) -> Arc<Tiers>,
        put: impl FnMut(Vec<u8>, Vec<u8>),
    ) -> Vec<Stretch> {
        let mut rows = Rows::new(self.run, put);
        let mut touched: Vec<Stretch> = Vec::new();
        self.memtable.for_each_tier(folded, tiers, |place, cells| {
            let series = series(place.client, place.cube, place.tier);
            let stretch = Stretch::of(&series, place.tier, place.bucket);
            // Buckets come stretch by stretch.
            if touched.last() != Some(&stretch) {
                rows.begin(series, place.dimensions);
                touched.push(stretch);
            }
            for (values, cell) in cells {
                rows.push(place.bucket, values.iter().map(Option::as_deref), &cell);
            }
        });
        rows.end();
        touched
    }
}

/// Merges the blocks of a stretch, given in the order of their keys, under the largest of their runs.
pub fn fold<K: AsRef<[u8]>, V: AsRef<[u8]>>(stretch: &[(K, V)]) -> Result<Folded, DecodeError> {
    let mut by_run: BTreeMap<u64, Vec<(i64, &[u8])>> = BTreeMap::new();
    for (key, block) in stretch {
        let (_, bucket, run) = split_row_key(key.as_ref())?;
        by_run.entry(run).or_default().push((bucket, block.as_ref()));
    }
    let mut folded = Folded::default();
    let Some((last_run, (key, block))) = by_run.keys().last().copied().zip(stretch.first()) else { return Ok(folded) };
    let (series, ..) = split_row_key(key.as_ref())?;
    let dimensions = Block::open(0, block.as_ref())?.dimensions();
    let mut runs = Vec::with_capacity(by_run.len());
    for blocks in by_run.into_values() {
        let mut run = Run { dimensions, blocks: blocks.into_iter(), open: None, head: None };
        run.take()?;
        runs.push(run);
    }
    let mut rows = Rows::new(last_run, |key, block| folded.put.push((key, block)));
    rows.begin(series.to_vec(), dimensions);
    // There are few runs: looking at each costs less than keeping them sorted.
    while let Some(least) = runs.iter().filter_map(Run::place).min() {
        let mut merged = Cell::default();
        for run in runs.iter_mut().filter(|run| run.place() == Some(least)) {
            run.take()?.iter().for_each(|cell| merged.merge(cell));
        }
        let (bucket, values) = least;
        rows.push(bucket, values, &merged);
    }
    rows.end();
    let is_put = |key: &[u8]| folded.put.binary_search_by(|(put, _)| (**put).cmp(key)).is_ok();
    let gone = stretch.iter().map(|(key, _)| key.as_ref()).filter(|key| !is_put(key));
    folded.remove = gone.map(<[u8]>::to_vec).collect();
    Ok(folded)
}

/// Writes cells as rows of one run, in the order of their keys.
#[derive(Debug)]
pub struct Rows<P> {
    run: u64,
    put: P,
    series: Vec<u8>,
    draft: Draft,
}

/// A run's cells in the order of their keys.
struct Run<'a> {
    dimensions: usize,
    blocks: vec::IntoIter<(i64, &'a [u8])>,
    open: Option<Block<'a>>,
    head: Option<(i64, Texts<'a>, Cell)>,
}

impl<P: FnMut(Vec<u8>, Vec<u8>)> Rows<P> {
    /// Will put each row.
    pub fn new(run: u64, put: P) -> Rows<P> {
        Rows { run, put, series: Vec::new(), draft: Draft::new(0) }
    }

    /// What follows is of another series, or of another stretch, and has so many dimensions.
    pub fn begin(&mut self, series: Vec<u8>, dimensions: usize) {
        self.end();
        self.series = series;
        self.draft = Draft::new(dimensions);
    }

    /// Adds a cell.
    pub fn push<'v>(&mut self, bucket: i64, values: impl IntoIterator<Item = Option<&'v str>>, cell: &Cell) {
        if self.draft.is_full() && self.draft.last() != Some(bucket) {
            self.end();
        }
        self.draft.push(bucket, values, cell);
    }

    /// Puts what is not put yet.
    pub fn end(&mut self) {
        let Some(first) = self.draft.first() else { return };
        let next = Draft::new(self.draft.dimensions());
        let block = std::mem::replace(&mut self.draft, next).finish();
        (self.put)(row_key(&self.series, first, self.run), block);
    }
}

impl<'a> Run<'a> {
    /// Bucket and values of the next cell.
    fn place(&self) -> Option<(i64, Texts<'a>)> {
        self.head.as_ref().map(|(bucket, values, _)| (*bucket, *values))
    }

    /// The next cell, and moves on.
    fn take(&mut self) -> Result<Option<Cell>, DecodeError> {
        let next = loop {
            if let Some(block) = &mut self.open
                && let Some((bucket, places, cell)) = block.next(ALL)?
            {
                break Some((bucket, block.values(&places), cell));
            }
            let Some((first, bytes)) = self.blocks.next() else { break None };
            let block = Block::open(first, bytes)?;
            if block.dimensions() != self.dimensions {
                return Err(DecodeError::Malformed("blocks of one cube with other dimensions"));
            }
            self.open = Some(block);
        };
        Ok(std::mem::replace(&mut self.head, next).map(|(_, _, cell)| cell))
    }
}

/// The key of a block's row: `series ‖ first bucket ‖ u64 run`, both big-endian, the bucket's sign bit flipped.
fn row_key(series: &[u8], bucket: i64, run: u64) -> Vec<u8> {
    let mut key = bucket_key(series, bucket);
    key.extend_from_slice(&run.to_be_bytes());
    key
}

/// What the keys of a bucket's rows begin with.
pub fn bucket_key(series: &[u8], bucket: i64) -> Vec<u8> {
    let mut key = Vec::with_capacity(series.len() + BUCKET_BYTES + RUN_BYTES);
    key.extend_from_slice(series);
    put_bucket(&mut key, bucket);
    key
}

/// A row key's series, first bucket and run.
pub fn split_row_key(row_key: &[u8]) -> Result<(&[u8], i64, u64), DecodeError> {
    let (series, place) = row_key
        .split_at_checked(row_key.len().saturating_sub(BUCKET_BYTES + RUN_BYTES))
        .ok_or(DecodeError::Truncated { needed: BUCKET_BYTES + RUN_BYTES, remaining: row_key.len() })?;
    let mut reader = Reader::new(place);
    let bucket = read_place(&mut reader, &mut [])?;
    Ok((series, bucket, u64::from_be_bytes(reader.array()?)))
}
