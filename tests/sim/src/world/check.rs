//! The end of a run: whether all is drained, and whether it is right.

use std::collections::HashMap;

use catchment_aggregator_core::LogRow;
use catchment_aggregator_core::tables::Blocks;
use catchment_cells::Cell;
use catchment_cells::frame;
use catchment_cells::key::{CellKey, Tier};

use super::shards::ShardHost;
use super::{Next, World};
use crate::aggregator::{Aggregator, Died};
use crate::model::{self, Event};
use crate::shard::damage;

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
        let mut parked = 0;
        for n in 0..self.shards.len() {
            let shard = &self.shards[n];
            if !shard.rows.is_bounded() {
                return Err("a ring has more rows than slots".into());
            }
            for frame in shard.rows.parked() {
                parked += 1;
                let header = frame::peek(&frame).map_err(|error| error.to_string())?;
                let mark = self.aggregators[shard.region].mark(&header.producer);
                if mark.is_some_and(|mark| mark.seq >= header.seq) {
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
        let events: Vec<&Event> = self.events.iter().collect();
        let counted = model::check("the regions", &self.secret, &events, &self.tally, regions)?;
        if counted != model::check("central", &self.secret, &events, &self.tally, all)? {
            return Err("the regions and central differ".into());
        }
        Ok((self.events.iter().filter(|event| event.acked).count() as u64, counted))
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
