//! What cells are named, stored, sent and shown as.

use catchment_aggregator_core::Memtable;
use catchment_aggregator_core::memtable::add_counters;
use catchment_cells::ack::Ack;
use catchment_cells::codec::Reader;
use catchment_cells::config::{Answer, AnswerError, Question};
use catchment_cells::credential::{CredentialError, ReadKey, WriteKey};
use catchment_cells::digest::Digest;
use catchment_cells::frame::{self, CellsBlock, FrameDraft, FrameError, Kind, open, seal};
use catchment_cells::key::CellKey;
use catchment_cells::limits::BLOCK_BYTES_MAX;
use catchment_cells::live::{Message, Mirror, cursor, parse_cursor};
use catchment_cells::merged::Merged;
use catchment_cells::route::{PlacementMap, Region, Route, is_backfill, place};
use catchment_cells::users::{Coupon, Users};
use catchment_cells::{Cell, ClientId};
use catchment_collector::{Meta, Outbox};
use catchment_link::framing::put;

use crate::hand::{self, Block, SECRET};
use crate::split_length;

/// An ack: has one form, and no sequence of them upsets the outbox that judges them.
pub(crate) fn ack(bytes: &[u8]) -> bool {
    let Ok(ack) = Ack::decode(bytes) else { return false };
    assert_eq!(ack.encode(), bytes);
    let meta = Meta { base: 3, next_frame: 20, acked: 5, ..Meta::new(hand::producer(), "eu") };
    let mut outbox = Outbox::new(&meta);
    for number in [6, 7, 3 + ack.seq % 17] {
        outbox.on_ack(&meta, number, &ack, 1_680_000_000_000);
        assert!(outbox.acked() >= meta.base && outbox.acked() < meta.next_frame);
        assert!(
            outbox.room(&meta) > 0 && outbox.send_at(&meta, 1_680_000_000_000).is_none_or(|at| at < 1_680_000_300_000)
        );
    }
    true
}

/// A relay's answer: acks behind their lengths, in one form.
pub(crate) fn acks(bytes: &[u8]) -> bool {
    let Ok(acks) = Ack::decode_each(bytes) else { return false };
    let mut again = Vec::new();
    acks.iter().for_each(|ack| put(&mut again, &ack.encode()));
    assert_eq!(again, bytes);
    !acks.is_empty()
}

/// A question about configs and its answer: `u16 length ‖ question ‖ answer` here, whose body is put under the right MAC; each has one form.
pub(crate) fn told(bytes: &[u8]) -> bool {
    let Some((asked, body)) = split_length(bytes) else { return false };
    let Ok(question) = Question::decode(asked) else { return false };
    assert_eq!(question.encode(), asked);
    assert_eq!(Question::home(asked), Ok(&*question.home));
    let key = SECRET.config_key();
    assert!(Answer::decode(body, asked, &key).is_err(), "it has no MAC");
    let sealed = hand::told(asked, body);
    match Answer::decode(&sealed, asked, &key) {
        Ok(answer) => assert_eq!(answer.encode(asked, &key), sealed),
        Err(error) => assert_ne!(error, AnswerError::Mac, "the MAC is right"),
    }
    Answer::decode(&sealed, asked, &key).is_ok()
}

/// Merged cells: read again as the same, and those of a bucket can be merged.
pub(crate) fn merged(bytes: &[u8]) -> bool {
    let Ok(merged) = Merged::decode(bytes) else { return false };
    let again = Merged::decode(&merged.encode()).expect("what we write");
    assert_eq!(again.encode(), merged.encode());
    let mut all = Cell::default();
    merged.rows.iter().for_each(|row| all.merge(&row.cell));
    assert!(merged.rows.iter().all(|row| row.group.len() == merged.dimensions.len()));
    true
}

/// A frame: `u8 version ‖ u8 left_out ‖ u16 length ‖ header ‖ blocks` here, put under the right MAC; and the same bytes as they are.
pub(crate) fn frame(bytes: &[u8]) -> bool {
    let key_of = |frame: &[u8]| frame::peek(frame).map(|header| SECRET.frame_key(&header.producer));
    if let Ok(key) = key_of(bytes) {
        let _ = open(bytes, &key);
    }
    let _ = frame::address(bytes);
    let [version, left_out, rest @ ..] = bytes else { return false };
    let Some((header, blocks)) = split_length(rest) else { return false };
    let producer = header.split_first().and_then(|(n, rest)| rest.get(..usize::from(*n))).unwrap_or_default();
    let sealed = hand::under_mac(*version, *left_out, header, producer, blocks);
    let Ok(key) = key_of(&sealed) else { return false };
    let address = frame::address(&sealed).expect("who can read a header can read whose it is");
    let opened = match open(&sealed, &key) {
        Ok(opened) => opened,
        Err(error) => {
            assert_ne!(error, FrameError::Mac, "the MAC is right");
            return false;
        }
    };
    let header = opened.header();
    assert_eq!((&address.producer, &address.home, address.seq), (&header.producer, &header.home, header.seq));
    // A header has one form, so that it can be written again under its MAC.
    let again = frame::reseal(&sealed, &header.producer, header.seq, header.prev, &key).expect("it was opened");
    assert_eq!((again.chain, again.bytes.as_slice()), (opened.chain(), sealed.as_slice()));
    let without = frame::leave_out(&sealed, Kind::CELLS).expect("it was opened");
    assert_eq!(open(&without, &key).expect("the MAC holds").chain(), opened.chain());
    let _ = (opened.cells(), opened.counters(), opened.letters());
    true
}

/// What a block holds: `u8 kind and codec ‖ block`, in a frame whose MAC and digests are right.
pub(crate) fn blocks(bytes: &[u8]) -> bool {
    let Some((&form, stored)) = bytes.split_first() else { return false };
    let codec = form & 1;
    let raw_bytes = if codec == 0 {
        stored.len() as u32
    } else {
        // As whoever made it would say it: what doesn't inflate at all goes in with a length that is too long.
        let inflated = inflate(stored);
        inflated.unwrap_or(BLOCK_BYTES_MAX as u32)
    };
    let kind = match form & 6 {
        0 | 4 => Kind::CELLS,
        2 => Kind::COUNTERS,
        _ => Kind::DEAD_LETTERS,
    };
    let sealed = hand::frame(&[Block { kind: kind.0, codec, raw_bytes, stored }]);
    let key = SECRET.frame_key(&hand::producer());
    let opened = open(&sealed, &key).expect("it is under the right MAC");
    let (Ok(cells), Ok(counters), Ok(letters)) = (opened.cells(), opened.counters(), opened.letters()) else {
        return false;
    };
    let header = opened.header();
    let draft = FrameDraft {
        producer: header.producer.clone(),
        home: header.home.clone(),
        seq: header.seq,
        prev: header.prev,
        cut_at: header.cut_at,
        first_received_at: header.first_received_at,
        cells,
        counters,
        letters,
    };
    if let Ok(again) = seal(&draft, &key) {
        let again = open(&again.bytes, &key).expect("it was sealed");
        assert!(again.cells() == Ok(draft.cells.clone()) && again.counters() == Ok(draft.counters.clone()));
        assert!(again.letters() == Ok(draft.letters.clone()));
    }
    // As an aggregator takes it in, twice; and what it writes of it is read again.
    let mut block = draft.cells.clone();
    add_counters(&mut block, draft.counters);
    let mut memtable = Memtable::default();
    memtable.merge(block);
    memtable.merge(draft.cells);
    memtable.for_each_tier(
        &CellsBlock::default(),
        |_| Default::default(),
        |place, cells| {
            for (values, cell) in cells {
                let key = place.key(values);
                assert!(CellKey::decode(&key.encode(), key.values.len()) == Ok((key, &[])));
                check_stored(&cell);
            }
        },
    );
    true
}

fn inflate(deflated: &[u8]) -> Option<u32> {
    use std::io::Read;
    let mut raw = Vec::new();
    let mut inflating = flate2::read::DeflateDecoder::new(deflated).take(BLOCK_BYTES_MAX as u64 + 1);
    inflating.read_to_end(&mut raw).ok().map(|n| n as u32)
}

/// What a cell is written as is read as the same.
fn check_stored(cell: &Cell) -> Vec<u8> {
    let mut bytes = Vec::new();
    cell.encode_stored(&mut bytes);
    let mut again = Vec::new();
    Cell::decode_stored(&bytes).expect("it was written").encode_stored(&mut again);
    assert_eq!(again, bytes);
    bytes
}

/// Stored cells: `u16 length ‖ cell ‖ cell`. One has one form, and any two merge to one that can be stored.
pub(crate) fn cell(bytes: &[u8]) -> bool {
    let Some((ours, theirs)) = split_length(bytes) else { return false };
    let Ok(ours) = Cell::decode_stored(ours).inspect(|cell| assert_eq!(check_stored(cell), ours)) else { return false };
    let Ok(theirs) = Cell::decode_stored(theirs) else { return false };
    let (mut one, mut other) = (ours.clone(), theirs.clone());
    one.merge(&theirs);
    other.merge(&ours);
    for merged in [&mut one, &mut other] {
        check_stored(merged);
        // T-digests hang on the order; all else doesn't.
        merged.measures.values_mut().for_each(|measure| measure.digest = None);
    }
    assert_eq!(one, other);
    one.users.estimate();
    true
}

/// A store's key: `u8 dimensions ‖ key`.
pub(crate) fn key(bytes: &[u8]) -> bool {
    let Some((&dimensions, bytes)) = bytes.split_first() else { return false };
    let Ok((key, rest)) = CellKey::decode(bytes, dimensions.into()) else { return false };
    assert_eq!(key.values.len(), usize::from(dimensions));
    assert_eq!(key.encode(), bytes[..bytes.len() - rest.len()]);
    let (from, to) = CellKey::range(&key.client, &key.cube, key.tier, key.bucket, key.bucket + 1);
    assert!(*from <= *bytes && *bytes < *to);
    true
}

/// Sets of users: `users ‖ users`. One set has one form, and order doesn't matter.
pub(crate) fn users(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let Ok(ours) = Users::decode(&mut reader) else { return false };
    let n = bytes.len() - reader.remaining();
    assert_eq!(check_users(&ours), bytes[..n]);
    let Ok(theirs) = Users::decode(&mut reader) else { return false };
    let (mut one, mut other) = (ours.clone(), theirs.clone());
    one.merge(&theirs);
    other.merge(&ours);
    assert_eq!(check_users(&one), check_users(&other));
    let mut again = one.clone();
    again.merge(&theirs);
    assert_eq!(again, one, "a set that is merged twice is there once");
    if let Some(news) = one.since(&ours) {
        let mut known = ours.clone();
        known.merge(&news);
        assert_eq!(known, one);
    }
    one.insert(Coupon::of(7));
    true
}

fn check_users(users: &Users) -> Vec<u8> {
    let mut bytes = Vec::new();
    users.encode(&mut bytes);
    let mut reader = Reader::new(&bytes);
    assert_eq!(Users::decode(&mut reader).as_ref(), Ok(users));
    assert_eq!(reader.remaining(), 0);
    let estimate = users.estimate();
    assert!(estimate.lower <= estimate.value && estimate.value <= estimate.upper && estimate.upper.is_finite());
    assert!(Users::from_datasketches(&users.to_datasketches()).is_ok(), "our images are read");
    bytes
}

/// Images of other people's sketches of users.
pub(crate) fn datasketches(bytes: &[u8]) -> bool {
    let Ok(mut users) = Users::from_datasketches(bytes) else { return false };
    assert_eq!(Users::from_datasketches(&users.to_datasketches()).as_ref(), Ok(&users));
    check_users(&users);
    users.insert(Coupon::of(7));
    users.merge(&users.clone());
    check_users(&users);
    true
}

/// Digests: `uv n ‖ iv min ‖ uv (max - min) ‖ digest`, twice.
pub(crate) fn digest(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let Some((mut ours, min, max)) = read_digest(&mut reader) else { return false };
    let taken = read_digest(&mut reader);
    if let Some((theirs, ..)) = &taken {
        ours.merge(theirs);
    }
    ours.record(min);
    ours.record(max);
    ours.merge(&ours.clone());
    for q in [0.0, 0.5, 0.95, 1.0] {
        if let Some(figure) = ours.quantile(q) {
            assert!(figure.lower <= figure.value && figure.value <= figure.upper && figure.upper.is_finite());
        }
    }
    taken.is_some()
}

fn read_digest(reader: &mut Reader<'_>) -> Option<(Digest, i64, i64)> {
    let (n, min) = (reader.uv().ok()?, reader.iv().ok()?);
    let max = min.checked_add_unsigned(reader.uv().ok()?)?;
    let digest = Digest::decode(reader, n, min, max).ok()??;
    let mut bytes = Vec::new();
    digest.encode(&mut bytes);
    let again = Digest::decode(&mut Reader::new(&bytes), n, min, max).ok()?;
    assert!(again == Some(digest.clone()), "what is written is read as the same");
    Some((digest, min, max))
}

/// A message of a live connection, from the server; as text, a cursor.
pub(crate) fn live(bytes: &[u8]) -> bool {
    if let Some((view, version)) = str::from_utf8(bytes).ok().and_then(parse_cursor) {
        assert_eq!(parse_cursor(&cursor(view, version)), Some((view, version)));
    }
    let Ok(message) = Message::decode(bytes) else { return false };
    let again = message.encode();
    let read = Message::decode(&again).expect("it was written");
    assert_eq!(read.encode(), again);
    true
}

/// What a reader knows after messages: `u16 length ‖ message`, over and over.
pub(crate) fn mirror(bytes: &[u8]) -> bool {
    let (mut mirror, mut rest, mut taken) = (None, bytes, false);
    while let Some((message, after)) = split_length(rest) {
        rest = after;
        match (Message::decode(message), &mut mirror) {
            (Ok(Message::View(view)), _) => mirror = Mirror::new(&view).ok(),
            (Ok(Message::Update(update)), Some(mirror)) => taken |= mirror.apply(update).is_ok(),
            _ => {}
        }
    }
    let Some(mirror) = mirror else { return false };
    let (from, to) = mirror.range();
    for metric in 0..mirror.metrics().len() {
        mirror.count(metric);
        mirror.users_in(from, to, metric);
    }
    for row in mirror.rows() {
        assert_eq!(row.figures.len(), mirror.metrics().len());
    }
    assert_eq!(parse_cursor(&mirror.cursor()).map(|(_, version)| version), Some(mirror.version()));
    taken
}

/// Write keys and read keys: the claims, put under the right MAC; and the same text as it is.
pub(crate) fn credential(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    assert!(WriteKey::parse(&SECRET, text).is_err() && ReadKey::parse(&SECRET, text).is_err(), "nobody guesses a MAC");
    let (write, read) = (hand::key("write-key", text), hand::key("read-key", text));
    let (as_write, as_read) = (WriteKey::parse(&SECRET, &write), ReadKey::parse(&SECRET, &read));
    for refused in [as_write.as_ref().err(), as_read.as_ref().err()] {
        assert_ne!(refused, Some(&CredentialError::Forged), "the MAC is right");
    }
    // A key has one spelling, and one use.
    if let Ok(key) = &as_write {
        assert_eq!(key.mint(&SECRET), write);
    }
    if let Ok(key) = &as_read {
        assert_eq!(key.mint(&SECRET), read);
    }
    assert!(WriteKey::parse(&SECRET, &read).is_err() && ReadKey::parse(&SECRET, &write).is_err());
    as_write.is_ok() || as_read.is_ok()
}

/// A route, and where it leads.
pub(crate) fn route(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let Ok(route) = Route::parse(text) else { return false };
    assert_eq!(route.to_string(), text);
    let region = |name: &str| Region { name: name.into(), pools: 4 };
    let map = PlacementMap { epoch: route.epoch, regions: vec![region("eu"), region("us")] };
    let client = ClientId::new("shop").expect("a client's id");
    for backfill in [false, true] {
        let placement = place(&map, &client, &route, backfill).expect("the map knows its epoch");
        assert!(map.regions.iter().any(|region| region.name == placement.region));
        assert_eq!(is_backfill(&placement.shard), backfill);
    }
    true
}
