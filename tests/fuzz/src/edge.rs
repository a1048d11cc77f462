//! What senders send, and what a shard keeps of it.

use catchment_cells::ClientId;
use catchment_cells::credential::Identity;
use catchment_cells::frame::{CellsBlock, CountersBlock, open};
use catchment_cells::limits::{REQUEST_BYTES_MAX, REQUEST_EVENTS_MAX};
use catchment_collector::{
    Claims, Collector, ConfigRow, Hop, IdsRow, LogRow, Meta, Outcome, Request, RequestError, SpilledRow, Visitor,
};
use catchment_config::Config;

use crate::hand::{self, SECRET};
use crate::split_length;

/// When requests come, in ms: some minutes after the events of the seeds.
pub(crate) const NOW: i64 = 1_680_000_200_000;

fn claims(flags: u8) -> Claims {
    Claims {
        client: ClientId::new("shop").expect("a client's id"),
        identity: [Identity::User, Identity::Device, Identity::Daily][usize::from(flags) % 3],
        backfill: flags & 64 != 0,
        ignore_foreign_client: flags & 128 != 0,
    }
}

/// A body of events: `u8 flags of the key ‖ body`, from the request to the cells that an aggregator would read.
pub(crate) fn events(bytes: &[u8]) -> bool {
    let Some((&flags, body)) = bytes.split_first() else { return false };
    let Ok(request) = Request::read(claims(flags), Visitor::default(), body.to_vec()) else { return false };
    assert!(request.len() <= REQUEST_EVENTS_MAX);
    // A blank that plain JSON hasn't changes nothing but who reads an event: serde_json, instead of the collector's scanner.
    if let Ok(body) = str::from_utf8(body) {
        let tabbed = format!("\n{body}").replace("\n{", "\n{\t").into_bytes();
        if let Ok(tabbed) = Request::read(claims(flags), Visitor::default(), tabbed) {
            assert_eq!(counted(&request), counted(&tabbed), "whoever reads it");
        }
    }
    apply(LogRow { received_at: NOW, requests: vec![request] })
}

/// A client's config: `u16 length ‖ config ‖ u8 flags of the key ‖ body`. It has one form as it is stored, and events that meet it are
/// answered for.
pub(crate) fn config(bytes: &[u8]) -> bool {
    let Some((json, events)) = split_length(bytes) else { return false };
    let Ok(config) = Config::read(json) else { return false };
    let stored = config.encode();
    assert_eq!(Config::decode(&stored), Ok(config));
    let row = ConfigRow { version: 7, config: stored };
    assert_eq!(ConfigRow::decode(&row.encode()), Ok(row.clone()));
    if let Some((&flags, body)) = events.split_first()
        && let Ok(request) = Request::read(claims(flags), Visitor::default(), body.to_vec())
    {
        let mut collector = Collector::new(SECRET.clone(), Meta::new(hand::producer(), "eu"));
        collector.set_config(&request.claims.client, Some(&row));
        let outcome = collector.apply(&LogRow { received_at: NOW, requests: vec![request.clone()] }).remove(0);
        let said = outcome.accepted + outcome.duplicates + outcome.rejected.len() as u64;
        assert_eq!(said, request.len() as u64, "each event is answered for");
        for frame in collector.cut(NOW, 1, 0).map(|cut| cut.frames).unwrap_or_default() {
            let opened = open(&frame.bytes, &SECRET.frame_key(&hand::producer())).expect("our own frame");
            opened.cells().expect("our own cells");
            opened.counters().expect("our own counters");
        }
    }
    true
}

/// What becomes of a request's events, and what is counted. Dead letters are as they came, which may differ.
fn counted(request: &Request) -> (Vec<Outcome>, Vec<(CellsBlock, CountersBlock)>) {
    let mut collector = Collector::new(SECRET.clone(), Meta::new(hand::producer(), "eu"));
    let outcomes = collector.apply(&LogRow { received_at: NOW, requests: vec![request.clone()] });
    let frames = collector.cut(NOW, 1, 0).map(|cut| cut.frames).unwrap_or_default();
    let blocks = |bytes: &[u8]| {
        let opened = open(bytes, &SECRET.frame_key(&hand::producer())).expect("our own frame");
        (opened.cells().expect("our own cells"), opened.counters().expect("our own counters"))
    };
    (outcomes, frames.iter().map(|frame| blocks(&frame.bytes)).collect())
}

/// Applies a row twice, as after a restart, and cuts; says whether an event was counted.
fn apply(row: LogRow) -> bool {
    assert_eq!(LogRow::decode(&row.encode()).as_ref(), Ok(&row));
    let events: u64 = row.requests.iter().map(|request| request.len() as u64).sum();
    let mut collector = Collector::new(SECRET.clone(), Meta::new(hand::producer(), "eu"));
    let outcomes = collector.apply(&row);
    let accepted: u64 = outcomes.iter().map(|outcome| outcome.accepted).sum();
    let said: u64 =
        outcomes.iter().map(|outcome| outcome.accepted + outcome.duplicates + outcome.rejected.len() as u64).sum();
    assert_eq!(said, events, "each event is answered for");
    let again: u64 = collector.apply(&row).iter().map(|outcome| outcome.accepted).sum();
    assert_eq!(again, 0, "nothing counts twice");
    let Some(cut) = collector.cut(NOW, 2, 0) else { return false };
    assert_eq!(cut.ids.map_or(0, |ids| ids.ids.len() as u64), accepted);
    assert_eq!(Meta::decode(&cut.meta.encode()), Ok(cut.meta));
    let mut counted = 0;
    for frame in &cut.frames {
        let opened = open(&frame.bytes, &SECRET.frame_key(&hand::producer())).expect("a shard's frames are good");
        let cells = opened.cells().expect("and so are their cells");
        opened.counters().expect("and their counters");
        let totals = cells.0.values().filter_map(|section| section.get("total"));
        let cells = totals.flat_map(|cube| cube.buckets.values()).flat_map(|bucket| bucket.values());
        counted += cells.map(|cell| cell.count).sum::<u64>();
    }
    assert_eq!(counted, accepted, "what is accepted is in the frames");
    accepted > 0
}

/// A body that is gzip's.
pub(crate) fn gzip(bytes: &[u8]) -> bool {
    match Request::read(claims(0), Visitor::default(), bytes.to_vec()) {
        Ok(request) => {
            // What is kept is what it inflates to.
            assert!(request.bytes() <= REQUEST_BYTES_MAX + 1_000);
            bytes.starts_with(&[0x1f, 0x8b])
        }
        Err(RequestError::TooLarge | RequestError::TooManyEvents) => bytes.starts_with(&[0x1f, 0x8b]),
        Err(_) => false,
    }
}

/// The header between the Worker and a shard.
pub(crate) fn hop(bytes: &[u8]) -> bool {
    let Some(hop) = str::from_utf8(bytes).ok().and_then(Hop::from_header) else { return false };
    assert_eq!(Hop::from_header(&hop.to_header()), Some(hop));
    true
}

/// Rows of a shard: `u8 which ‖ row`; before a spilled row its number.
pub(crate) fn rows(bytes: &[u8]) -> bool {
    let Some((&which, row)) = bytes.split_first() else { return false };
    match which % 4 {
        0 => {
            let Ok(mut read) = LogRow::decode(row) else { return false };
            assert_eq!(read.encode(), row);
            read.received_at = NOW;
            apply(read);
            true
        }
        1 => {
            let Ok(read) = IdsRow::decode(7, row) else { return false };
            assert_eq!(read.encode(), row);
            let mut collector = Collector::new(SECRET.clone(), Meta::new(hand::producer(), "eu"));
            collector.restore_ids(read);
            true
        }
        2 => {
            let Ok(read) = Meta::decode(row) else { return false };
            assert_eq!(read.encode(), row);
            true
        }
        _ => {
            let Some((&n, row)) = row.split_first() else { return false };
            let Ok(mut read) = SpilledRow::decode(n.into(), row) else { return false };
            assert_eq!(read.encode(), row);
            assert!(read.groups.iter().flat_map(|group| &group.ids).all(|&id| read.contains(id)));
            let mut collector = Collector::new(SECRET.clone(), Meta::new(hand::producer(), "eu"));
            collector.spill(&mut read, NOW);
            assert_eq!(SpilledRow::decode(n.into(), &read.encode()), Ok(read));
            true
        }
    }
}
