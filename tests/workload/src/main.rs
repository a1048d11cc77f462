//! `workload write FILE N`: N page views as NDJSON. `workload count FILE three|default`: counts them as shards do, and prints what that took.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};

use catchment_cells::frame::{CellsBlock, Producer, open};
use catchment_cells::{Cell, Secret, cube};
use catchment_workload::{BODY_EVENTS, Events, SECRET, SHARDS, Shards, three_cubes};

/// The seed of the workload that everybody counts.
const SEED: u64 = 1;
/// Linux says CPU times in these.
const TICKS_PER_S: f64 = 100.0;
/// Minutes that cells may still come for after later ones came.
const OPEN_MINUTES: i64 = 30;

/// Bytes and number of a cube's cells, as a store keeps them.
#[derive(Debug, Default)]
struct Stored {
    cells: u64,
    bytes: u64,
    count: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", file, n] => write(file, n.parse()?),
        ["count", file, "three"] => count(file, false),
        ["count", file, "default"] => count(file, true),
        _ => Err("usage: workload write FILE N | workload count FILE three|default".into()),
    }
}

fn write(file: &str, n: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut events = Events::new(SEED, n);
    while let Some(body) = events.body(BODY_EVENTS) {
        out.write_all(body.bytes())?;
    }
    Ok(out.flush()?)
}

fn count(file: &str, default: bool) -> Result<(), Box<dyn std::error::Error>> {
    let three = three_cubes();
    let cubes = if default { cube::DEFAULT } else { &three[..] };
    let before_s = cpu_s()?;
    let mut shards = Shards::new(&Secret::new(&SECRET)?, SHARDS, cubes);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut lines = BufReader::with_capacity(1 << 20, File::open(file)?);
    loop {
        let mut body = Vec::with_capacity(BODY_EVENTS * 192);
        for _ in 0..BODY_EVENTS {
            if lines.read_until(b'\n', &mut body)? == 0 {
                break;
            }
        }
        if body.is_empty() {
            break;
        }
        shards.take(body, &mut |frame| frames.push(frame));
    }
    shards.finish(&mut |frame| frames.push(frame));
    let cpu_s = cpu_s()? - before_s;
    let frame_bytes: usize = frames.iter().map(Vec::len).sum();
    print!(
        "{{\"events\":{},\"cpu_s\":{cpu_s:.2},\"frames\":{},\"frame_bytes\":{frame_bytes}",
        shards.accepted,
        frames.len()
    );
    if !default {
        for (name, stored) in stored(&frames)? {
            print!(
                ",\"{name}_cells\":{},\"{name}_bytes\":{},\"{name}_events\":{}",
                stored.cells, stored.bytes, stored.count
            );
        }
    }
    println!("}}");
    Ok(())
}

/// The frames' cells, merged, as a store keeps them.
fn stored(frames: &[Vec<u8>]) -> Result<BTreeMap<String, Stored>, Box<dyn std::error::Error>> {
    let secret = Secret::new(&SECRET)?;
    let mut merged: BTreeMap<i64, BTreeMap<(String, String), Cell>> = BTreeMap::new();
    let mut cubes: BTreeMap<String, Stored> = BTreeMap::new();
    let mut newest = 0;
    let mut keep = |cells: BTreeMap<(String, String), Cell>| {
        for ((cube, _), cell) in cells {
            let mut bytes = Vec::new();
            cell.encode_stored(&mut bytes);
            let stored = cubes.entry(cube).or_default();
            stored.cells += 1;
            stored.bytes += bytes.len() as u64;
            stored.count += cell.count;
        }
    };
    for frame in frames {
        let producer: Producer = catchment_cells::frame::address(frame)?.producer;
        let CellsBlock(clients) = open(frame, &secret.frame_key(&producer))?.cells()?;
        for (cube, cells) in clients.into_values().flatten() {
            for (minute, cells) in cells.buckets {
                newest = newest.max(minute);
                let into = merged.entry(minute).or_default();
                for (values, cell) in cells {
                    let value = values.into_iter().flatten().next().unwrap_or_default();
                    into.entry((cube.to_string(), value.into())).or_default().merge(&cell);
                }
            }
        }
        while let Some(entry) = merged.first_entry().filter(|entry| *entry.key() < newest - OPEN_MINUTES) {
            keep(entry.remove());
        }
    }
    merged.into_values().for_each(keep);
    Ok(cubes)
}

/// CPU time of this process, its own and the system's for it.
fn cpu_s() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name before them may hold anything, but ends with the last parenthesis: 14th and 15th field are user's and system's.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    Ok(fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S)
}
