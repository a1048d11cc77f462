//! Hours and days cut anew, from the minutes of one day of a cube, for a client whose clock is another one by now.

use std::collections::BTreeMap;

use catchment_cells::cell::Wanted;
use catchment_cells::codec::DecodeError;
use catchment_cells::key::{Tier, Values, series};
use catchment_cells::{Cell, ClientId};

use crate::block::{Block, stretch};
use crate::rollup;
use crate::runs::{Rows, Stretch, split_row_key};
use crate::tiers::Tiers;

/// All of a cell.
const ALL: Wanted = Wanted { users: true, measures: true };
/// The longest that an hour is, in minutes.
const HOUR: i64 = 60;

/// One day of a cube.
#[derive(Debug, Clone, Copy)]
pub struct Day<'a> {
    /// Whose.
    pub client: &'a ClientId,
    /// The cube's name.
    pub cube: &'a str,
    /// The clock, and from when on it holds.
    pub tiers: &'a Tiers,
    /// Where the day starts, as a minute.
    pub start: i64,
}

/// What is written of it.
#[derive(Debug, Default)]
pub struct Recut {
    /// Rows, of hours and then of the day.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// The stretches that these are in.
    pub touched: Vec<Stretch>,
}

type Cells = BTreeMap<Values, Cell>;

impl<'a> Day<'a> {
    /// The day that a minute lies in.
    pub fn of(client: &'a ClientId, cube: &'a str, tiers: &'a Tiers, minute: i64) -> Day<'a> {
        Day { client, cube, tiers, start: rollup::floor(Tier::Day, minute, tiers.time_zone()) }
    }

    /// The minutes that are read: the first, and the one after the last.
    pub fn minutes(&self) -> (i64, i64) {
        let end = rollup::next(Tier::Day, self.start, self.tiers.time_zone());
        (self.start.max(self.tiers.since()), end)
    }

    /// Cuts it, from the rows of the minutes that it has, in the order of their keys, and writes it as one run.
    pub fn cut<E>(
        &self,
        minutes: impl Iterator<Item = Result<(impl AsRef<[u8]>, impl AsRef<[u8]>), E>>,
        run: u64,
        malformed: impl Fn(DecodeError) -> E,
    ) -> Result<Recut, E> {
        let (from, to) = self.minutes();
        let zone = self.tiers.time_zone();
        let mut recut = Recut::default();
        let Recut { rows, touched } = &mut recut;
        let mut writer = Rows::new(run, |key, block| rows.push((key, block)));
        let mut dimensions = 0;
        let mut write = |tier, bucket, cells: &Cells, dimensions| {
            if bucket < self.tiers.since() {
                return;
            }
            let series = series(self.client, self.cube, tier);
            let stretch = Stretch::of(&series, tier, bucket);
            if touched.last() != Some(&stretch) {
                writer.begin(series, dimensions);
                touched.push(stretch);
            }
            for (values, cell) in cells {
                writer.push(bucket, values.iter().map(Option::as_deref), cell);
            }
        };
        let (mut hours, mut day) = (BTreeMap::<i64, Cells>::new(), Cells::new());
        let mut close = |hour, cells: Cells, dimensions| {
            write(Tier::Hour, hour, &cells, dimensions);
            cells.into_iter().for_each(|(values, cell)| add(&mut day, values, cell));
        };
        for row in minutes {
            let (key, block) = row?;
            let (_, first, _) = split_row_key(key.as_ref()).map_err(&malformed)?;
            // Runs of one stretch come one after the other; those before it have all come.
            while let Some(entry) = hours.first_entry()
                && *entry.key() + HOUR <= stretch(Tier::Minute, first)
            {
                let (hour, cells) = entry.remove_entry();
                close(hour, cells, dimensions);
            }
            let mut block = Block::open(first, block.as_ref()).map_err(&malformed)?;
            dimensions = block.dimensions();
            while let Some((minute, places, cell)) = block.next(ALL).map_err(&malformed)? {
                if !(from..to).contains(&minute) {
                    continue;
                }
                let values = block.values(&places)[..dimensions].iter().map(|value| value.map(Into::into)).collect();
                add(hours.entry(rollup::floor(Tier::Hour, minute, zone)).or_default(), values, cell);
            }
        }
        hours.into_iter().for_each(|(hour, cells)| close(hour, cells, dimensions));
        write(Tier::Day, self.start, &day, dimensions);
        writer.end();
        Ok(recut)
    }
}

fn add(cells: &mut Cells, values: Values, cell: Cell) {
    cells.entry(values).and_modify(|sum| sum.merge(&cell)).or_insert(cell);
}
