//! What a frame costs: both ends in one process, over the loopback.
//!
//! `cargo run -p catchment-link --example throughput`; the figures go to docs/BENCHMARKS.md.
#![expect(clippy::unwrap_used, reason = "an example that ends at the first surprise")]

#[path = "../tests/pki/mod.rs"]
mod pki;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use catchment_cells::Secret;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::frame::{self, CHAIN_START, CellsBlock, CountersBlock, DeadLettersBlock, FrameDraft, Producer};
use catchment_link::{Arrival, Client, serve};
use tokio::sync::mpsc;

/// Calls of `send` at a time, and frames of each.
const CALLERS: u64 = 8;
const CALL_FRAMES: u64 = 64;

#[tokio::main]
async fn main() {
    let authority = pki::Authority::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let (arrivals, mut arrived) = mpsc::channel(256);
    let tls = authority.issue("aggregator").server().unwrap();
    tokio::spawn(serve(socket, tls, arrivals, Arc::new(|_| None), std::future::pending()));
    tokio::spawn(async move {
        while let Some(Arrival { frame, reply }) = arrived.recv().await {
            let header = frame::peek(&frame).unwrap();
            let _ = reply.send(Ack::refusal(Status::Stored, header.producer, header.seq, "").encode().into());
        }
    });
    let client = Client::new(address, authority.issue("relay").client().unwrap()).unwrap();
    println!("| bytes a frame | frames/s | MB/s | CPU µs a frame |\n| --- | --- | --- | --- |");
    for (bytes, calls) in [(200, 1000), (2_048, 500), (65_536, 40), (1 << 20, 3)] {
        let (start, cpu) = (Instant::now(), cpu_time());
        let callers: Vec<_> =
            (0..CALLERS).map(|nonce| tokio::spawn(call(client.clone(), nonce, bytes, calls))).collect();
        for caller in callers {
            caller.await.unwrap();
        }
        let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_time() - cpu);
        let frames = (CALLERS * calls * CALL_FRAMES) as f64;
        let rate = frames / took;
        println!(
            "| {bytes} | {rate:.0} | {:.0} | {:.1} |",
            rate * bytes as f64 / 1e6,
            cpu.as_secs_f64() * 1e6 / frames
        );
    }
}

async fn call(client: Client, nonce: u64, bytes: usize, calls: u64) {
    let frame = frame_of(nonce, bytes);
    for _ in 0..calls {
        let answers = client.send(vec![frame.clone(); CALL_FRAMES as usize]).await;
        assert!(answers.iter().all(Result::is_ok));
    }
}

fn frame_of(nonce: u64, bytes: usize) -> Bytes {
    let draft = FrameDraft {
        producer: Producer::new(nonce, "eu/pool/0").unwrap(),
        home: "eu".into(),
        seq: 1,
        prev: CHAIN_START,
        cut_at: 0,
        first_received_at: 0,
        cells: CellsBlock::default(),
        counters: CountersBlock::default(),
        letters: DeadLettersBlock::default(),
    };
    let key = Secret::new(&[7; 32]).unwrap().frame_key(&draft.producer);
    let mut frame = frame::seal(&draft, &key).unwrap().bytes;
    frame.resize(frame.len().max(bytes), 0xab);
    frame.into()
}

/// User and system time of this process, which Linux counts in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
