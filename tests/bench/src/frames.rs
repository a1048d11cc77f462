//! Frames as shards make them of the seeded workload, ready to be sent.

use bytes::Bytes;
use catchment_cells::credential::Identity;
use catchment_cells::frame::{self, Producer};
use catchment_cells::{ClientId, Secret};
use catchment_collector::{Claims, Collector, LogRow, Meta, Request, Visitor};
use catchment_harness::{Failure, Result};
use catchment_workload::Events;

/// Events of a body.
const BODY_EVENTS: usize = 500;

/// What one shard cut.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// In the order of their seqs.
    pub(crate) frames: Vec<Bytes>,
    pub(crate) events: u64,
    pub(crate) cells: u64,
}

impl Made {
    /// What shard `n` cuts of page views, so many in each cut, all received at `now_ms`.
    pub(crate) fn by_shard(
        secret: &Secret,
        client: &ClientId,
        n: u64,
        events_per_cut: usize,
        cuts: usize,
        now_ms: i64,
    ) -> Result<Made> {
        let claims =
            Claims { client: client.clone(), identity: Identity::User, backfill: false, ignore_foreign_client: false };
        let producer = Producer::new(n + 1, &format!("eu/pool/{n}")).map_err(Failure::at("the producer"))?;
        let key = secret.frame_key(&producer);
        let mut collector = Collector::new(secret.clone(), Meta::new(producer, "eu"));
        let mut events = Events::new(n, (events_per_cut * cuts) as u64);
        let (mut made, mut rows) = (Made::default(), 0);
        for _ in 0..cuts {
            let mut left = events_per_cut;
            while let Some(mut body) = events.body(left.min(BODY_EVENTS)) {
                body.stamp(made.events, now_ms as u64);
                made.events += body.len() as u64;
                left -= body.len();
                let request = Request::read(claims.clone(), Visitor::default(), body.bytes().to_vec());
                collector
                    .apply(&LogRow { received_at: now_ms, requests: vec![request.map_err(Failure::at("a body"))?] });
                rows += 1;
            }
            for cut in collector.cut(now_ms, rows, 0).map(|cut| cut.frames).unwrap_or_default() {
                let opened = frame::open(&cut.bytes, &key).map_err(Failure::at("a frame"))?;
                let cells = opened.cells().map_err(Failure::at("a frame's cells"))?;
                let cubes = cells.0.values().flat_map(|section| section.values());
                made.cells +=
                    cubes.flat_map(|cube| cube.buckets.values()).map(|bucket| bucket.len() as u64).sum::<u64>();
                made.frames.push(cut.bytes.into());
            }
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cut_is_a_frame_and_no_event_is_left_out() {
        let (secret, client) = (Secret::new(&[1; 32]).unwrap(), ClientId::new("bench").unwrap());
        let made = |events_per_cut, cuts| {
            Made::by_shard(&secret, &client, 0, events_per_cut, cuts, 1_800_000_000_000).unwrap()
        };
        let (ones, all) = (made(1, 600), made(600, 1));
        assert_eq!((ones.events, ones.frames.len()), (600, 600));
        assert_eq!((all.events, all.frames.len()), (600, 1));
        // An event alone has its own cells; together they share some.
        assert!(ones.cells > all.cells && all.cells > 600, "{} {}", ones.cells, all.cells);
    }
}
