//! The end of a run: whether all is drained, and whether it is right.

use std::collections::HashMap;

use catchment_aggregator_core::marks::decide;
use catchment_aggregator_core::tables::Blocks;
use catchment_aggregator_core::{Decision, LogRow, Mark};
use catchment_cells::Cell;
use catchment_cells::frame;
use catchment_cells::key::{CellKey, Tier};

use super::shards::ShardHost;
use super::{MINUTE, Next, World};
use crate::aggregator::{Aggregator, Died};
use crate::model::{self, Event, Expected};
use crate::shard::damage;

/// How long a request is on its way and waits at the most, which a corrected time is off by, in ms.
const CORRECTED_OFF_MS: i64 = 3 * MINUTE;

impl World {
    pub(super) fn is_drained(&self) -> bool {
        let senders = self.senders.iter().all(|sender| sender.queue.is_empty() && sender.inflight.is_empty());
        senders
            && self.inbox.iter().all(Vec::is_empty)
            && self.aggregators.iter().all(|aggregator| aggregator.memory.is_some())
            && self.shards.iter().all(|shard| {
                let core = shard.core.as_ref();
                let idle = core.map_or_else(
                    || shard.rows.is_new(),
                    |core| {
                        core.health(self.now).log_rows == 0
                            && core.health(self.now).outbox_frames == 0
                            && core.due_at(self.now).is_none()
                    },
                );
                idle && shard.gated.is_empty()
            })
            && self.aggregators.iter().all(Aggregator::has_forwarded)
            && !self.next.values().any(|next| matches!(next, Next::Arrive { .. } | Next::Parcel { .. }))
    }

    pub(super) fn waits(&self) -> String {
        let queued: usize = self.senders.iter().map(|sender| sender.queue.len()).sum();
        let shard = |shard: &ShardHost| {
            let core = shard.core.as_ref().map(|core| (core.health(self.now), core.due_at(self.now)));
            (core, shard.gated.len(), shard.alarm_at, shard.posting)
        };
        let shards: Vec<_> = self.shards.iter().map(shard).collect();
        let forwards: Vec<_> = self.aggregators.iter().map(|aggregator| aggregator.to_forward().len()).collect();
        let inflight: usize = self.senders.iter().map(|sender| sender.inflight.len()).sum();
        let running: Vec<_> = self.aggregators.iter().map(|aggregator| aggregator.memory.is_some()).collect();
        let inbox: Vec<_> = self.inbox.iter().map(Vec::len).collect();
        format!(
            "{} events made, {queued} queued, {inflight} requests out, shards {shards:?}, aggregators {running:?} with {inbox:?} \
             parcels, {forwards:?} rows to forward",
            self.made
        )
    }

    /// All is drained: holds every figure against what was acknowledged.
    pub(super) fn check(&mut self) -> Result<(u64, u64), String> {
        let central = self.aggregators.len() - 1;
        for n in 0..=central {
            self.aggregators[n].keep(self.now, true, &mut self.random, 0).map_err(|Died| "died in calm".to_owned())?;
            if self.aggregators[n].parked() > 0 {
                return Err("central refused a frame for good".into());
            }
        }
        let mut all = self.aggregators[central].cells()?;
        let mut regions: HashMap<CellKey, Cell> = HashMap::new();
        for n in 0..central {
            for (key, cell) in self.aggregators[n].cells()? {
                regions.entry(key).or_default().merge(&cell);
            }
        }
        self.check_set_back(&regions)?;
        let mut parked = 0;
        for n in 0..self.shards.len() {
            let shard = &self.shards[n];
            if !shard.rows.is_bounded() {
                return Err("a ring has more rows than slots".into());
            }
            if shard.rows.used().spilled > 0 {
                *self.seen.entry("ids are spilled").or_default() += 1;
            }
            for frame in shard.rows.parked() {
                parked += 1;
                let header = frame::peek(&frame).map_err(|error| error.to_string())?;
                let mark = self.aggregators[shard.region].mark(&header.producer);
                if mark.is_some_and(|mark| mark.seq >= header.seq && self.has_stored(&mark, &frame)) {
                    self.seen.entry("parked, and stored").and_modify(|n| *n += 1).or_insert(1);
                    continue;
                }
                let mut whole = frame.clone();
                damage(&mut whole);
                let read = |frame: Vec<u8>| {
                    let row = LogRow { position: 0, received_at: 0, frame: frame.into() };
                    Blocks::of(&row, &self.secret)
                };
                let blocks = read(frame).or_else(|_| read(whole)).map_err(|error| error.to_string())?;
                add(&mut all, &blocks);
                add(&mut regions, &blocks);
            }
        }
        if parked > 0 {
            self.saw("parked frames in the end");
        }
        let counts: Vec<(u64, u64)> = self.events.iter().map(|event| self.owed(event)).collect();
        let is_set_back = self.copy.as_ref().is_some_and(|copy| copy.back_at.is_some());
        let expected = Expected {
            counts: &counts,
            tally: (!is_set_back).then_some(&self.tally),
            off_ms: self.weather.skew_max + CORRECTED_OFF_MS,
        };
        let (counted, of_regions) = model::check("the regions", &self.secret, &self.events, &expected, regions)?;
        let (by_central, of_central) = model::check("central", &self.secret, &self.events, &expected, all)?;
        if counted != by_central && !is_set_back {
            return Err("the regions and central differ".into());
        }
        if of_regions + of_central > 0 {
            self.saw("estimated quantiles");
        }
        Ok((counts.iter().map(|(least, _)| least).sum(), counted))
    }

    /// How often an event is to be counted, at least and at most.
    ///
    /// What storage forgets that was set back to a copy can't be promised: what a shard took in between copy and return may be lost or,
    /// where it was shipped and comes again, counted twice. What an aggregator forgot its shards send again when they notice, which
    /// is with their next frame, as far as they have it and it is their present producer's.
    fn owed(&self, event: &Event) -> (u64, u64) {
        let least = u64::from(event.acked);
        let Some((copy, back_at)) = self.copy.as_ref().and_then(|copy| Some((copy, copy.back_at?))) else {
            return (least, 1);
        };
        if self.weather.set_back.is_some_and(|set_back| set_back.aggregator) {
            let restarted = self.seen.contains_key("a producer restarts");
            let is_safe = |&(shard, at): &(usize, i64)| {
                let host = &self.shards[shard];
                let first = host.core.as_ref().is_some_and(|core| core.meta().base == 0);
                host.region != copy.of || at > back_at || (host.posted_at > back_at && first)
            };
            let safe = event.kept.first().is_some_and(is_safe);
            return (if safe { least } else { 0 }, if restarted { 2 } else { 1 });
        }
        let safe = event.kept.iter().any(|&(shard, at)| shard != copy.of || at < copy.at || at > back_at);
        (if safe { least } else { 0 }, if event.shards.contains(&copy.of) { 2 } else { 1 })
    }

    /// Whether a shard that was set back counted an event of its copy twice: where it did, that waited in the copy, as a frame.
    fn check_set_back(&self, cells: &HashMap<CellKey, Cell>) -> Result<(), String> {
        let Some(copy) = self.copy.as_ref().filter(|copy| copy.back_at.is_some() && !copy.waited) else {
            return Ok(());
        };
        let counts = model::products(cells);
        for event in self.events.iter().filter(|event| event.kept.iter().any(|(_, at)| *at < copy.at)) {
            let minutes = counts.get(&(event.client.as_str(), event.id.as_str()));
            let count: u64 = minutes.into_iter().flatten().map(|(_, count)| count).sum();
            if count > 1 {
                return Err(format!("event {} was in the copy, and is counted {count} times", event.id));
            }
        }
        Ok(())
    }

    /// Whether a frame up to its producer's mark is the one that was stored, as far as the mark knows.
    fn has_stored(&self, mark: &Mark, frame: &[u8]) -> bool {
        let read = frame::peek(frame).and_then(|header| {
            let key = self.secret.frame_key(&header.producer);
            let mut whole = frame.to_vec();
            let chain = frame::open(frame, &key).map(|opened| opened.chain()).or_else(|_| {
                damage(&mut whole);
                frame::open(&whole, &key).map(|opened| opened.chain())
            })?;
            Ok(decide(Some(mark), &header, &chain) == Decision::Duplicate)
        });
        read.unwrap_or(false)
    }
}

/// Adds a frame's cells and counters, as a flush would.
fn add(cells: &mut HashMap<CellKey, Cell>, blocks: &Blocks) {
    let mut block = blocks.cells.clone();
    catchment_aggregator_core::memtable::add_counters(&mut block, blocks.counters.clone());
    for (client, section) in &block.0 {
        for (name, cube) in section {
            for (&minute, bucket) in &cube.buckets {
                for (values, cell) in bucket {
                    for (tier, minutes) in [(Tier::Minute, 1), (Tier::Hour, 60), (Tier::Day, 1_440)] {
                        let (client, cube, values) = (client.clone(), name.clone(), values.clone());
                        let bucket = minute - minute.rem_euclid(minutes);
                        cells.entry(CellKey { client, cube, tier, bucket, values }).or_default().merge(cell);
                    }
                }
            }
        }
    }
}
