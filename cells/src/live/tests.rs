use proptest::prelude::*;

use super::*;
use crate::cell::{Cell, Measure};
use crate::limits::MINUTE_MAX;
use crate::users::Coupon;

fn users(from: u64, n: u64) -> Users {
    let mut users = Users::default();
    (from..from + n).for_each(|user| users.insert(Coupon::of(user)));
    users
}

fn view() -> View {
    let metrics = ["users", "events", "p95:ms", "avg:ms"].map(str::to_owned).to_vec();
    View { subscription: 7, view: 9, metrics, cube: "page".into(), tier: Tier::Hour }
}

fn sum() -> impl Strategy<Value = Sum> {
    prop_oneof![
        any::<u64>().prop_map(Sum::Count),
        (any::<u64>(), 0..2_000u64).prop_map(|(from, n)| Sum::Users(users(from >> 1, n))),
        Just(Sum::Measure(None)),
        (0..2_000u64).prop_map(|n| Sum::Users(users(n, n)).estimated()),
        prop::collection::vec(-1_000_000..1_000_000i64, 1..60).prop_map(|values| {
            let mut cell = Cell::default();
            values.iter().for_each(|&value| cell.record("ms", value, true));
            Sum::Measure(cell.measures.get("ms").cloned())
        }),
    ]
}

fn key() -> impl Strategy<Value = RowKey> {
    (-MINUTE_MAX..=MINUTE_MAX, prop::option::of(".{0,20}"))
        .prop_map(|(bucket, group)| RowKey { bucket, group: group.map(String::into) })
}

fn now() -> impl Strategy<Value = i64> {
    -MINUTE_MAX * MINUTE_MS..(MINUTE_MAX + 1) * MINUTE_MS
}

fn message() -> impl Strategy<Value = Message> {
    let row = (key(), any::<bool>(), prop::collection::vec(sum(), 1..4));
    let update = (
        any::<[u64; 3]>(),
        (-1_000_000..1_000_000i64, 0..1_000_000i64),
        prop::option::of(1..i64::MAX),
        prop::collection::vec(key(), 0..4),
        prop::collection::vec(row.prop_map(|(key, whole, sums)| Changed { key, whole, sums }), 0..6),
    );
    prop_oneof![
        (now(), "[a-z]{1,20}").prop_map(|(now, client)| Message::Hello { now, client }),
        now().prop_map(|now| Message::Alive { now }),
        ("[A-Z]{1,9}", prop::collection::vec((-MINUTE_MAX..MINUTE_MAX, -900..900i64), 0..5))
            .prop_map(|(time_zone, offsets)| Message::Clock { time_zone, offsets }),
        (any::<u64>(), any::<u16>(), ".{0,60}").prop_map(|(subscription, status, detail)| Message::Refused {
            subscription,
            status,
            detail
        }),
        Just(Message::View(view())),
        update.prop_map(|([view, from, to], (start, length), as_of, gone, rows)| {
            Message::Update(Update { view, from, to, start, end: start + length, as_of, gone, rows })
        }),
    ]
}

proptest! {
    #[test]
    fn messages_are_read_back(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn mutated_messages_never_panic(message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        if let Ok(Message::Update(update)) = Message::decode(&bytes)
            && let Ok(mut mirror) = Mirror::new(&view())
        {
            mirror.view = update.view;
            let _ = mirror.apply(Update { from: 0, ..update });
            let _ = mirror.rows();
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&[&[VERSION, UPDATE][..], &bytes].concat());
        let _ = Message::decode(&bytes);
    }
}

fn update(from: u64, to: u64, rows: Vec<Changed>) -> Update {
    Update { view: 9, from, to, start: 0, end: 60, as_of: Some(to as i64), gone: Vec::new(), rows }
}

fn row(bucket: i64, whole: bool, users: Users, count: u64, ms: Option<i64>) -> Changed {
    let ms = ms.map(|value| Measure::of(value, true));
    Changed {
        key: RowKey { bucket, group: None },
        whole,
        sums: vec![Sum::Users(users), Sum::Count(count), Sum::Measure(ms)],
    }
}

#[test]
fn a_mirror_follows_its_updates() {
    let mut mirror = Mirror::new(&view()).unwrap();
    mirror
        .apply(update(0, 1, vec![row(0, true, users(0, 10), 20, None), row(1, true, users(5, 10), 3, None)]))
        .unwrap();
    mirror.apply(update(1, 2, vec![row(0, false, users(10, 2), 22, Some(5_000_000))])).unwrap();
    let figures = |mirror: &Mirror| {
        let value = |row: &Row| row.figures.iter().map(|figure| figure.map(|figure| figure.value)).collect::<Vec<_>>();
        mirror.rows().iter().map(value).collect::<Vec<_>>()
    };
    let (first, second) = (vec![Some(12.0), Some(22.0), Some(5.0), Some(5.0)], vec![Some(10.0), Some(3.0), None, None]);
    assert_eq!(figures(&mirror), [first.clone(), second.clone()]);
    assert_eq!(mirror.users_in(0, 2, 0).value, 15.0, "two minutes share users");
    assert_eq!(mirror.users_in(1, 2, 0).value, 10.0);
    assert_eq!((mirror.count(1), mirror.count(0)), (Some(25), None));
    assert_eq!((mirror.cursor(), parse_cursor(&mirror.cursor())), ("9-2".into(), Some((9, 2))));

    let gap = mirror.apply(update(1, 3, Vec::new()));
    assert_eq!(gap, Err(MirrorError::Gap { from: 1, version: 2 }));
    assert_eq!(mirror.apply(Update { view: 8, ..update(2, 3, Vec::new()) }), Err(MirrorError::View));
    let other = Changed { sums: vec![Sum::Count(1)], ..row(0, true, users(0, 1), 1, None) };
    assert_eq!(mirror.apply(update(2, 3, vec![other])), Err(MirrorError::Sums));
    assert_eq!(figures(&mirror), [first, second.clone()], "what is refused changes nothing");

    let gone = vec![RowKey { bucket: 0, group: None }];
    mirror.apply(Update { gone, ..update(2, 3, Vec::new()) }).unwrap();
    assert_eq!(figures(&mirror), [second]);
    mirror.apply(update(0, 4, vec![row(7, true, users(0, 1), 1, None)])).unwrap();
    assert_eq!(mirror.rows().len(), 1, "a snapshot is all there is");
}

#[test]
fn counts_beyond_counting_are_added_up() {
    let mut mirror = Mirror::new(&view()).unwrap();
    let rows = [0, 1].map(|bucket| row(bucket, true, users(0, 1), u64::MAX, None));
    mirror.apply(update(0, 1, rows.into())).unwrap();
    assert_eq!(mirror.count(1), Some(u64::MAX));
}

#[test]
fn times_out_of_range_are_refused() {
    let last = |to| update(0, to, Vec::new());
    for message in [
        Message::Alive { now: i64::MAX },
        Message::Hello { now: (MINUTE_MAX + 1) * MINUTE_MS, client: "shop".into() },
        Message::Update(Update { start: -MINUTE_MAX - 1, ..last(1) }),
        Message::Update(Update { end: MINUTE_MAX + 1, ..last(1) }),
        Message::Update(Update { gone: vec![RowKey { bucket: MINUTE_MAX + 1, group: None }], ..last(1) }),
    ] {
        assert_eq!(Message::decode(&message.encode()), Err(DecodeError::Malformed("minute")));
    }
}

/// Version 1's bytes are final.
#[test]
fn golden_bytes() {
    let rows = vec![Changed {
        key: RowKey { bucket: 28_000_000, group: Some("/".into()) },
        whole: true,
        sums: vec![
            Sum::Count(300),
            Sum::Users(users(1, 1)),
            Sum::Measure(None),
            Sum::Estimated(Estimate { value: 2.0, lower: 1.0, upper: 3.0, exact: false }),
        ],
    }];
    let gone = vec![RowKey { bucket: 27_999_999, group: None }];
    let update =
        Update { view: 0x0102, from: 3, to: 4, start: 28_000_000, end: 28_000_030, as_of: Some(5), gone, rows };
    for (message, expected) in [
        (Message::Hello { now: 1_000, client: "shop".into() }, "0101d00f0473686f70"),
        (
            Message::View(View { metrics: vec!["users".into()], ..view() }),
            "0102070900000000000000010575736572730470616765_02",
        ),
        (
            Message::Update(update),
            "01030201000000000000030480fcd91a1e0a00_01fefbd91a00_0102022f0104_00ac02_010001abe4ef37_02_04\
             0000000000000040_000000000000f03f_0000000000000840_00",
        ),
        (Message::Refused { subscription: 7, status: 422, detail: "no".into() }, "010407a603026e6f"),
        (Message::Alive { now: -1 }, "010501"),
        (Message::Clock { time_zone: "X/Y".into(), offsets: vec![(0, 60), (9, -1)] }, "010603582f590200781201"),
    ] {
        let bytes: String = message.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, expected.replace('_', ""), "{message:?}");
    }
}
