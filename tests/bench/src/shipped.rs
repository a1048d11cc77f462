//! `bench bytes`: what a shard ships for an event, beside the event's JSON, plain and gzipped. Time is simulated.

use std::io::Write;

use catchment_cells::credential::Identity;
use catchment_cells::frame::Producer;
use catchment_cells::{ClientId, Secret};
use catchment_collector::{Claims, Collector, LogRow, Meta, Request, Visitor};
use catchment_harness::{Failure, Result};
use catchment_workload::{Events, SECRET};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::figures::Figures;

const RATES_PER_S: [u64; 3] = [1, 50, 1_000];
/// How long after the first event a shard cuts, in ms: while someone watches, and while nobody does.
const CUTS_MS: [(&str, i64); 2] = [("watched", 200), ("unwatched", 5_000)];
/// Longer than anything here takes: what is left in the end is cut then.
const CUT_MS_NEVER: i64 = 3_600_000;
/// Requests come so often, with what fell due.
const TICK_MS: i64 = 200;
/// A minute of 2027.
const START_MS: i64 = 1_800_000_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Simulated time of each.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=3_600))]
    seconds: u64,
}

/// Bytes of all events.
#[derive(Debug, Default)]
struct Bytes {
    shipped: usize,
    json: usize,
    gzipped: usize,
    frames: usize,
}

/// Measures; there is nothing that must hold.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut figures = Figures::begin();
    figures.say("simulated_s", args.seconds);
    for rate in RATES_PER_S {
        for (who, cut_ms) in CUTS_MS {
            let total = rate * args.seconds;
            let bytes = ship(rate, total, cut_ms)?;
            let per_event = |bytes: usize| bytes as f64 / total as f64;
            figures.measured(format!("r{rate}_{who}_shipped_bytes_per_event"), per_event(bytes.shipped));
            figures.measured(format!("r{rate}_{who}_json_bytes_per_event"), per_event(bytes.json));
            figures.measured(format!("r{rate}_{who}_json_gzip_bytes_per_event"), per_event(bytes.gzipped));
            figures.say(format!("r{rate}_{who}_frames"), bytes.frames);
        }
    }
    figures.print(args.json);
    Ok(true)
}

/// Frames of so many events that come at a rate, if they are cut for their size alone.
pub(crate) fn frames_by_size(rate: u64, total: u64) -> Result<usize> {
    Ok(ship(rate, total, CUT_MS_NEVER)?.frames)
}

/// Counts `total` events that come at a rate, cut so long after the first; their JSON is gzipped cut by cut.
fn ship(rate: u64, total: u64, cut_ms: i64) -> Result<Bytes> {
    let claims = Claims {
        client: ClientId::new("bench").map_err(Failure::at("the client"))?,
        identity: Identity::User,
        backfill: false,
        ignore_foreign_client: false,
    };
    let producer = Producer::new(1, "eu/pool/0").map_err(Failure::at("the producer"))?;
    let secret = Secret::new(&SECRET).map_err(Failure::at("the secret"))?;
    let mut collector = Collector::new(secret, Meta::new(producer, "eu"));
    let mut events = Events::new(1, total);
    let (mut bytes, mut waiting, mut rows, mut sent) = (Bytes::default(), Vec::new(), 0, 0);
    let mut now = START_MS;
    while sent < total || collector.waits_since().is_some() {
        now += TICK_MS;
        let due = ((now - START_MS) as u64 * rate / 1_000).min(total);
        if let Some(mut body) = events.body((due - sent) as usize) {
            body.stamp(sent, now as u64);
            waiting.extend_from_slice(body.bytes());
            let request = Request::read(claims.clone(), Visitor::default(), body.bytes().to_vec());
            let requests = vec![request.map_err(Failure::at("a body"))?];
            collector.apply(&LogRow { received_at: now, requests });
            rows += 1;
        }
        sent = due;
        let is_due = collector.waits_since().is_some_and(|since| now - since >= cut_ms);
        if is_due || collector.is_cut_due() {
            for frame in collector.cut(now, rows, 0).map(|cut| cut.frames).unwrap_or_default() {
                bytes.shipped += frame.bytes.len();
                bytes.frames += 1;
            }
            let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
            gzip.write_all(&waiting).map_err(Failure::at("gzip"))?;
            bytes.gzipped += gzip.finish().map_err(Failure::at("gzip"))?.len();
            bytes.json += waiting.len();
            waiting.clear();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_shipped_and_longer_cuts_ship_less() {
        let (watched, unwatched) = (ship(50, 1_000, 200).unwrap(), ship(50, 1_000, 5_000).unwrap());
        assert_eq!(watched.json, unwatched.json);
        // 20 s by 200 ms or 400 ms, and by 5 s.
        assert!(
            (50..=100).contains(&watched.frames) && (4..=5).contains(&unwatched.frames),
            "{watched:?} {unwatched:?}"
        );
        assert!(unwatched.shipped < watched.shipped && unwatched.gzipped < watched.gzipped);
    }
}
