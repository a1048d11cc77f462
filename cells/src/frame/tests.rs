use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cell::Cell;
use crate::client::ClientId;
use crate::secret::Secret;
use crate::users::Coupon;

fn secret() -> Secret {
    Secret::new(&[9; 32]).unwrap()
}

fn producer() -> Producer {
    Producer::new(0xfeed, "eu/pool/0").unwrap()
}

fn cell() -> impl Strategy<Value = Cell> {
    let values = prop::collection::vec(("[a-c]{1,3}", any::<i64>()), 0..40);
    (any::<u64>(), prop::collection::vec(any::<u64>(), 0..1_500), values, any::<bool>()).prop_map(
        |(count, users, values, digest)| {
            let mut cell = Cell { count, ..Cell::default() };
            for user in users {
                cell.users.insert(Coupon::of(user));
            }
            for (name, value) in values {
                cell.record(&name, value, digest);
            }
            cell
        },
    )
}

fn cube() -> impl Strategy<Value = CubeCells> {
    (0usize..3).prop_flat_map(|dimensions| {
        let values = prop::collection::vec(prop::option::of("[a-zé]{0,4}".prop_map(Box::from)), dimensions);
        let cells = prop::collection::btree_map(values, cell(), 1..4);
        prop::collection::btree_map(-1_000_000i64..100_000_000, cells, 1..4).prop_map(move |buckets| CubeCells {
            dimensions: ["x", "y", "z"][..dimensions].iter().map(|&name| name.into()).collect(),
            buckets,
        })
    })
}

fn client() -> impl Strategy<Value = ClientId> {
    "[a-z]{1,3}".prop_map(|text| ClientId::new(&text).unwrap())
}

fn draft() -> impl Strategy<Value = FrameDraft> {
    let section = prop::collection::btree_map("[a-z]{1,3}".prop_map(Box::from), cube(), 1..3);
    let minutes = prop::collection::btree_map(-1_000_000i64..100_000_000, any::<u64>(), 1..4);
    let reasons = prop::collection::btree_map("[a-z]{1,3}".prop_map(Box::from), minutes, 1..3);
    let letter = (any::<i64>(), "[a-z]{1,3}", ".{0,20}").prop_map(|(received_at, reason, event)| DeadLetter {
        received_at,
        reason: reason.into(),
        event: event.into(),
    });
    let letters = prop::collection::vec(letter, 1..4);
    (
        prop::collection::btree_map(client(), section, 0..3),
        prop::collection::btree_map(client(), reasons, 0..3),
        prop::collection::btree_map(client(), letters, 0..3),
        1..u64::MAX,
        any::<[u8; 16]>(),
        any::<i64>(),
    )
        .prop_map(|(cells, counters, letters, seq, prev, cut_at)| FrameDraft {
            producer: producer(),
            home: "eu".into(),
            seq,
            prev,
            cut_at,
            first_received_at: cut_at.wrapping_sub(5_000),
            cells: CellsBlock(cells),
            counters: CountersBlock(counters),
            letters: DeadLettersBlock(letters),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_round_trip(draft in draft()) {
        let key = secret().frame_key(&draft.producer);
        let sealed = seal(&draft, &key).unwrap();
        prop_assert_eq!(&seal(&draft, &key).unwrap(), &sealed);
        let opened = open(&sealed.bytes, &key).unwrap();
        prop_assert_eq!(opened.header(), &peek(&sealed.bytes).unwrap());
        prop_assert_eq!(opened.header().chain(), sealed.chain);
        prop_assert_eq!(opened.chain(), sealed.chain);
        prop_assert_eq!(opened.header().seq, draft.seq);
        prop_assert_eq!(opened.cells().unwrap(), draft.cells.clone());
        prop_assert_eq!(opened.counters().unwrap(), draft.counters.clone());
        prop_assert_eq!(opened.letters().unwrap(), draft.letters.clone());
    }

    #[test]
    fn a_changed_byte_is_refused(draft in draft(), at: prop::sample::Index, bit in 0u8..8, cut: prop::sample::Index) {
        let key = secret().frame_key(&draft.producer);
        let mut bytes = seal(&draft, &key).unwrap().bytes;
        prop_assert!(open(&bytes[..cut.index(bytes.len())], &key).is_err());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(open(&bytes, &key).is_err());
        prop_assert!(peek(&bytes).is_ok() || at < 300);
    }

    /// What a holder of the key could send: blocks of any bytes are read or refused, and what is read is written back the same.
    #[test]
    fn changed_blocks_are_read_or_refused(draft in draft(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let blocks = [draft.cells.encode(), draft.counters.encode(), draft.letters.encode()];
        for raw in blocks.into_iter().flatten() {
            let mut raw = raw;
            for (at, byte) in &changes {
                let at = at.index(raw.len());
                raw[at] = *byte;
            }
            if let Ok(block) = CellsBlock::decode(&raw) {
                // Merging what was accepted must not panic either.
                for cell in block.0.values().flat_map(BTreeMap::values).flat_map(|cube| cube.buckets.values()).flat_map(BTreeMap::values) {
                    let mut sum = cell.clone();
                    sum.merge(cell);
                    let mut stored = Vec::new();
                    sum.encode_stored(&mut stored);
                    prop_assert!(Cell::decode_stored(&stored).is_ok());
                }
            }
            let _ = (CountersBlock::decode(&raw), DeadLettersBlock::decode(&raw));
        }
    }

    #[test]
    fn merging_is_free_of_order(cells in prop::collection::vec(cell(), 1..5)) {
        let mut forward = Cell::default();
        let mut backward = Cell::default();
        cells.iter().for_each(|cell| forward.merge(cell));
        cells.iter().rev().for_each(|cell| backward.merge(cell));
        prop_assert_eq!(forward.count, backward.count);
        prop_assert_eq!(&forward.users, &backward.users);
        for (name, measure) in forward.measures.iter() {
            let other = backward.measures.get(name).unwrap();
            prop_assert_eq!((measure.n, measure.sum, measure.min, measure.max), (other.n, other.sum, other.min, other.max));
        }
    }

    #[test]
    fn stored_cells_round_trip(cell in cell()) {
        let mut bytes = Vec::new();
        cell.encode_stored(&mut bytes);
        prop_assert_eq!(Cell::decode_stored(&bytes).unwrap(), cell);
    }
}

fn small_draft() -> FrameDraft {
    let mut cell = Cell { count: 2, ..Cell::default() };
    cell.users.insert(Coupon::of(1));
    cell.users.insert(Coupon::of(2));
    cell.record("bytes", 1_500_000, true);
    cell.record("bytes", -2_000_000, true);
    let shop = ClientId::new("shop").unwrap();
    let buckets = BTreeMap::from([(28_000_000, BTreeMap::from([(vec![Some("/".into())], cell)]))]);
    let page = CubeCells { dimensions: vec!["page".into()], buckets };
    let mut counters = CountersBlock::default();
    counters.add(&shop, "accepted", 28_000_001, 2);
    FrameDraft {
        producer: producer(),
        home: "eu".into(),
        seq: 1,
        prev: CHAIN_START,
        cut_at: 1_680_000_065_000,
        first_received_at: 1_680_000_060_000,
        cells: CellsBlock(BTreeMap::from([(shop, Section::from([("page".into(), page)]))])),
        counters,
        letters: DeadLettersBlock::default(),
    }
}

/// Every form there is: coupons and registers, a digest of values and a t-digest (of so few values that none is approximated).
fn draft_of_all_forms() -> FrameDraft {
    let mut draft = small_draft();
    let mut cell = Cell { count: 1_100, ..Cell::default() };
    (0..1_100).for_each(|user| cell.users.insert(Coupon::of(user)));
    (0..40).for_each(|i| cell.record("bytes", i * i * 1_000_000, true));
    (0..3).for_each(|i| cell.record("ms", i, false));
    let cubes = draft.cells.0.values_mut().flat_map(BTreeMap::values_mut);
    for bucket in cubes.flat_map(|cube| cube.buckets.values_mut()) {
        bucket.insert(vec![None], cell.clone());
    }
    draft
}

#[test]
fn the_bytes_are_fixed() {
    let draft = draft_of_all_forms();
    let key = secret().frame_key(&draft.producer);
    let golden: String = include_str!("golden.hex").split_whitespace().collect();
    let hex = data_encoding::HEXLOWER.encode(&seal(&draft, &key).unwrap().bytes);
    assert!(hex == golden, "the frame's bytes changed to\n{hex}");
    let golden = data_encoding::HEXLOWER.decode(golden.as_bytes()).unwrap();
    let opened = open(&golden, &key).unwrap();
    assert_eq!(opened.cells().unwrap(), draft.cells);
    assert_eq!(opened.counters().unwrap(), draft.counters);
}

#[test]
fn a_block_can_be_left_out_and_a_frame_resealed() {
    let draft = small_draft();
    let key = secret().frame_key(&draft.producer);
    let sealed = seal(&draft, &key).unwrap();
    let without = leave_out(&sealed.bytes, Kind::CELLS).unwrap();
    assert!(without.len() < sealed.bytes.len());
    let opened = open(&without, &key).unwrap();
    assert_eq!(opened.chain(), sealed.chain);
    assert_eq!(opened.cells().unwrap(), CellsBlock::default());
    assert_eq!(opened.counters().unwrap(), draft.counters);

    let other = Producer::new(1, "eu/pool/0").unwrap();
    let other_key = secret().frame_key(&other);
    let resealed = reseal(&sealed.bytes, &other, 7, [3; 16], &other_key).unwrap();
    assert_eq!(open(&resealed.bytes, &key).unwrap_err(), FrameError::Mac);
    let opened = open(&resealed.bytes, &other_key).unwrap();
    assert_eq!((opened.header().seq, opened.header().prev), (7, [3; 16]));
    assert_eq!(opened.cells().unwrap(), draft.cells);
}

#[test]
fn another_version_is_named() {
    let draft = small_draft();
    let key = secret().frame_key(&draft.producer);
    let mut bytes = seal(&draft, &key).unwrap().bytes;
    bytes[2] = 2;
    assert_eq!(open(&bytes, &key).unwrap_err(), FrameError::Version(2));
    assert_eq!(peek(&bytes).unwrap_err(), FrameError::Version(2));
}
