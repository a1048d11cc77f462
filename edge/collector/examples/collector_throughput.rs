//! CPU per event of the collector: `cargo run --profile wasm --example collector_throughput -- FILE.ndjson [events a request]`.
//!
//! Reads the file's events under a backfill key, in rows of one request, and cuts when a cut is due.

use std::env;
use std::fs;
use std::time::{Duration, Instant};

use catchment_cells::credential::Identity;
use catchment_cells::frame::Producer;
use catchment_cells::{ClientId, Secret};
use catchment_collector::{Claims, Collector, LogRow, Meta, Request, Visitor};

fn main() {
    let path = env::args().nth(1).expect("a file of NDJSON is named");
    let batch: usize = env::args().nth(2).map_or(500, |n| n.parse().expect("a number of events"));
    let text = fs::read_to_string(path).expect("the file can be read");
    let lines: Vec<&str> = text.lines().collect();
    let claims = Claims {
        client: ClientId::new("bench").expect("a client id"),
        identity: Identity::User,
        backfill: true,
        ignore_foreign_client: true,
    };
    let secret = Secret::new(&[1; 32]).expect("32 bytes");
    let producer = Producer::new(1, "eu/backfill/bench").expect("a shard's name");
    let mut collector = Collector::new(secret, Meta::new(producer, "eu"));
    let [mut read, mut applied, mut cut] = [Duration::ZERO; 3];
    let (mut rows, mut accepted, mut frames, mut bytes) = (0, 0, 0, 0);
    for lines in lines.chunks(batch) {
        let body = format!("[{}]", lines.join(",")).into_bytes();
        let start = Instant::now();
        let request = Request::read(claims.clone(), Visitor::default(), body).expect("NDJSON");
        let row = LogRow { received_at: 1_800_000_000_000, requests: vec![request] };
        read += start.elapsed();
        let start = Instant::now();
        accepted += collector.apply(&row)[0].accepted;
        applied += start.elapsed();
        rows += 1;
        if collector.is_cut_due() {
            let start = Instant::now();
            let made = collector.cut(row.received_at, rows as u64, 0).map(|cut| cut.frames).unwrap_or_default();
            cut += start.elapsed();
            frames += made.len();
            bytes += made.iter().map(|frame| frame.bytes.len()).sum::<usize>();
        }
    }
    let per_event = |time: Duration| time.as_nanos() as f64 / accepted as f64;
    println!(
        "{accepted} events: read {:.0} ns, apply {:.0} ns, cut {:.0} ns an event; {frames} frames of {bytes} bytes",
        per_event(read),
        per_event(applied),
        per_event(cut)
    );
}
