use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use catchment_aggregator_core::LogRow;
use catchment_aggregator_core::ingest::Beside;

use super::kit::Folder;
use crate::store::Store;

/// Bytes of one row, which don't compress, and rows of a MiB.
const ROW_BYTES: usize = 4_096;
const ROWS_PER_MIB: u64 = 256;

fn disk_mib(folder: &Path) -> u64 {
    fn bytes(folder: &Path) -> u64 {
        // Files may go while we look.
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
                Ok(metadata) => metadata.blocks() * 512,
                Err(_) => 0,
            })
            .sum()
    }
    bytes(folder) >> 20
}

/// Appends so many MiB in batches of 64 rows, and cuts the log off so many MiB behind, each 8 MiB. Returns the most disk that
/// was in use, in MiB.
fn run(store: &Store, folder: &Path, mib: u64, kept_mib: u64) -> u64 {
    let (mut most, mut state) = (0, 88_172_645_463_325_252u64);
    let mut random = || {
        // Xorshift (Marsaglia 2003): the store must not be able to compress it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    for batch in 0..mib * ROWS_PER_MIB / 64 {
        let rows: Vec<LogRow> = (1..=64)
            .map(|n| LogRow {
                position: batch * 64 + n,
                received_at: 0,
                frame: Bytes::from((0..ROW_BYTES / 8).flat_map(|_| random()).collect::<Vec<u8>>()),
            })
            .collect();
        store.append(&rows, &Beside::default()).unwrap();
        let (written, kept) = (batch * 64, kept_mib * ROWS_PER_MIB);
        if written.is_multiple_of(8 * ROWS_PER_MIB) && written > kept {
            store.truncate(written - kept).unwrap();
            most = most.max(disk_mib(folder));
        }
    }
    most
}

#[test]
fn the_log_gives_its_disk_back() {
    let folder = Folder::new();
    let store = Store::open(folder.path()).unwrap();
    let most = run(&store, folder.path(), 256, 16);
    // What is kept, a journal of 64 MiB and the one that replaces it, and memtables on their way to the disk.
    assert!(most < 16 + 2 * 64 + 3 * 16, "{most} MiB");
    // Rows before the cut may be there still, and are not seen by who starts at it.
    let first = store.rows(240 * ROWS_PER_MIB).next().unwrap().unwrap();
    assert_eq!((first.position, first.frame.len()), (240 * ROWS_PER_MIB, ROW_BYTES));
}

/// Figures for docs/BENCHMARKS.md.
#[test]
#[ignore = "a benchmark: writes 1.5 GB"]
fn bench_log_disk() {
    for kept_mib in [64, 400] {
        let folder = Folder::new();
        let store = Store::open(folder.path()).unwrap();
        let started = Instant::now();
        let most = run(&store, folder.path(), 1_500, kept_mib);
        let took = started.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_secs(1));
        println!(
            "1500 MiB, {kept_mib} kept: {took:.1} s, at most {most} MiB of disk, {} at the end",
            disk_mib(folder.path())
        );
        drop(store);
        let started = Instant::now();
        let store = Store::open(folder.path()).unwrap();
        println!(
            "  opened again in {} ms, next position {}",
            started.elapsed().as_millis(),
            store.next_position().unwrap()
        );
    }
}
