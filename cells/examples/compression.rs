//! What compressing the blocks of frames costs and saves: bytes and time per event, for each compressor that is pure Rust.
//!
//! Usage: `compression EVENTS.ndjson EVENTS_PER_CUT…`. The figures are in docs/BENCHMARKS.md.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use catchment_cells::cell::micros;
use catchment_cells::cube;
use catchment_cells::frame::{
    CHAIN_START, CellsBlock, CountersBlock, CubeCells, DeadLettersBlock, FrameDraft, Producer, Section, open, seal,
};
use catchment_cells::users::Coupon;
use catchment_cells::{Cell, ClientId, Secret};
use jiff::Timestamp;
use ruzstd::encoding::CompressionLevel;
use serde_json::Value;

type Error = Box<dyn std::error::Error>;
type Code = fn(&[u8]) -> Vec<u8>;

const COMPRESSORS: [(&str, Code, Code); 7] = [
    ("none", <[u8]>::to_vec, <[u8]>::to_vec),
    ("deflate 1", |raw| miniz_oxide::deflate::compress_to_vec(raw, 1), inflate),
    ("deflate 3", |raw| miniz_oxide::deflate::compress_to_vec(raw, 3), inflate),
    ("deflate 6", |raw| miniz_oxide::deflate::compress_to_vec(raw, 6), inflate),
    ("deflate 9", |raw| miniz_oxide::deflate::compress_to_vec(raw, 9), inflate),
    ("lz4", lz4_flex::compress_prepend_size, |stored| lz4_flex::decompress_size_prepended(stored).unwrap_or_default()),
    ("zstd fastest", |raw| ruzstd::encoding::compress_to_vec(raw, CompressionLevel::Fastest), unzstd),
];

/// Times each block is compressed.
const ROUNDS: u32 = 7;

fn inflate(stored: &[u8]) -> Vec<u8> {
    miniz_oxide::inflate::decompress_to_vec(stored).unwrap_or_default()
}

fn unzstd(stored: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    let decoder = ruzstd::decoding::StreamingDecoder::new(stored);
    decoder.map(|mut decoder| std::io::Read::read_to_end(&mut decoder, &mut raw)).map_or_else(|_| Vec::new(), |_| raw)
}

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: compression EVENTS.ndjson EVENTS_PER_CUT…")?;
    let text = std::fs::read_to_string(path)?;
    let events = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    for per_cut in arguments {
        let blocks = events.chunks(per_cut.parse()?).map(block).collect::<Result<Vec<_>, _>>()?;
        println!("\n{} events, {per_cut} a cut: {} blocks\n", events.len(), blocks.len());
        println!("| | bytes an event | ns to compress | ns to decompress |\n| --- | --- | --- | --- |");
        for (name, compress, decompress) in COMPRESSORS {
            measure(name, &blocks, events.len(), compress, decompress)?;
        }
    }
    Ok(())
}

fn measure(name: &str, blocks: &[Vec<u8>], events: usize, compress: Code, decompress: Code) -> Result<(), Error> {
    let (mut bytes, mut compressing, mut decompressing) = (0, Duration::ZERO, Duration::ZERO);
    for block in blocks {
        let (stored, time) = fastest(|| compress(block));
        compressing += time;
        bytes += stored.len();
        let (raw, time) = fastest(|| decompress(&stored));
        decompressing += time;
        if raw != *block {
            return Err(format!("{name} doesn't round-trip").into());
        }
    }
    let ns = |time: Duration| time.as_nanos() as f64 / events as f64;
    let per_event = bytes as f64 / events as f64;
    println!("| {name} | {per_event:.1} | {:.0} | {:.0} |", ns(compressing), ns(decompressing));
    Ok(())
}

/// The result, and the least time of all rounds: what else the machine does then counts least.
fn fastest(code: impl Fn() -> Vec<u8>) -> (Vec<u8>, Duration) {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        let result = code();
        (result, start.elapsed())
    });
    rounds.min_by_key(|(_, time)| *time).unwrap_or_default()
}

/// The uncompressed block of cells of one cut, by the default cubes.
fn block(events: &[Value]) -> Result<Vec<u8>, Error> {
    let client = ClientId::new("bench")?;
    let mut section = Section::new();
    for event in events {
        add(&mut section, event)?;
    }
    let producer = Producer::new(1, "eu/pool/0")?;
    let key = Secret::new(&[0; 32])?.frame_key(&producer);
    let draft = FrameDraft {
        producer,
        home: "eu".into(),
        seq: 1,
        prev: CHAIN_START,
        cut_at: 0,
        first_received_at: 0,
        cells: CellsBlock(BTreeMap::from([(client, section)])),
        counters: CountersBlock::default(),
        letters: DeadLettersBlock::default(),
    };
    let frame = seal(&draft, &key)?.bytes;
    let header = open(&frame, &key)?.header().blocks[0].clone();
    let stored = &frame[frame.len() - header.stored_bytes as usize..];
    Ok(if header.stored_bytes < header.raw_bytes { inflate(stored) } else { stored.to_vec() })
}

fn add(section: &mut Section, event: &Value) -> Result<(), Error> {
    let field = |name: &str| event.get(name).or_else(|| event["properties"].get(name));
    let text = |name: &str| field(name).and_then(Value::as_str);
    let time: Timestamp = text("timestamp").ok_or("no timestamp")?.parse()?;
    let mut hasher = DefaultHasher::new();
    text("user_id").hash(&mut hasher);
    let coupon = Coupon::of(hasher.finish());
    for cube in cube::DEFAULT {
        let values: Vec<_> = cube.dimensions.iter().map(|name| text(name).map(Box::from)).collect();
        if !values.is_empty() && values.iter().all(Option::is_none) {
            continue;
        }
        let cells = section.entry(cube.name.into()).or_insert_with(|| CubeCells {
            dimensions: cube.dimensions.iter().map(|&name| name.into()).collect(),
            buckets: BTreeMap::new(),
        });
        let cell: &mut Cell =
            cells.buckets.entry(time.as_second().div_euclid(60)).or_default().entry(values).or_default();
        cell.count += 1;
        cell.users.insert(coupon);
        for (name, number) in event["properties"].as_object().into_iter().flatten() {
            if let Some(value) = number.as_f64().and_then(micros) {
                cell.record(name, value, cube.digest);
            }
        }
    }
    Ok(())
}
