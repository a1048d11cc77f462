//! What a memtable says that it takes is what it takes: its bound is the process'.

#![cfg(test)]

use catchment_aggregator_core::Memtable;
use catchment_cells::frame::{CellsBlock, CubeCells};
use catchment_cells::users::Coupon;
use catchment_cells::{Cell, ClientId};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const CELLS: u64 = 20_000;

/// A cell of one event.
fn cell(n: u64) -> Cell {
    let mut cell = Cell { count: 1, ..Cell::default() };
    cell.users.insert(Coupon::of(n));
    cell.record("duration_ms", n as i64, true);
    cell
}

#[test]
fn what_it_says_it_takes_is_what_it_takes() {
    for (what, minutes) in
        [("a minute of its own for each", CELLS), ("a hundred to a minute", CELLS / 100), ("one minute", 1)]
    {
        let mut memtable = Memtable::default();
        let before = MEMORY.current_usage();
        for n in 0..CELLS {
            let values = vec![Some(format!("/page/{n}").into())];
            let buckets = [((n % minutes) as i64, [(values, cell(n))].into())].into();
            let cube = CubeCells { dimensions: vec!["page".into()], buckets };
            let client = ClientId::new("a").unwrap();
            memtable.merge(CellsBlock([(client, [("page".into(), cube)].into())].into()));
        }
        let taken = (MEMORY.current_usage() - before) as f64;
        let ratio = memtable.bytes() as f64 / taken;
        println!("{what}: {taken} bytes, {ratio:.2} of them said");
        assert!((0.8..1.5).contains(&ratio), "{what}: {} bytes are said, {taken} are taken", memtable.bytes());
    }
}
