use catchment_cells::frame::{self, CHAIN_START, CellsBlock, Producer, open};
use catchment_cells::key::Values;
use catchment_cells::limits::CLIENT_CUBES_MAX;
use catchment_config as config;
use proptest::prelude::*;

use super::sealing::halves_of_counters;
use super::*;
use crate::agent::Agent;
use crate::limits::{CUT_FRAMES_MAX, IDS_KEPT_MS, LOG_ROW_EVENTS, MEASURE_NAMES_MAX};
use crate::open::CutCells;
use crate::request::{Claims, Visitor};

const NOW: i64 = 1_800_000_000_000;
const MINUTE: i64 = NOW / MINUTE_MS;

fn secret() -> Secret {
    Secret::new(&[5; 32]).unwrap()
}

fn collector() -> Collector {
    let producer = Producer::new(7, "eu/pool/0").unwrap();
    Collector::new(secret(), Meta::new(producer, "eu"))
}

fn claims(backfill: bool) -> Claims {
    Claims { client: ClientId::new("shop").unwrap(), identity: Identity::User, backfill, ignore_foreign_client: true }
}

fn row(claims: Claims, received_at: i64, body: &str) -> LogRow {
    let agent = Agent { browser: Some("Edge".into()), os: Some("Windows".into()), ..Agent::default() };
    let visitor = Visitor { country: Some(*b"DE"), agent, ..Visitor::default() };
    let request = Request::read(claims, visitor, body.as_bytes().to_vec()).unwrap();
    LogRow { received_at, requests: vec![request] }
}

fn event(id: usize, at: i64) -> String {
    format!(
        r#"{{"event_id":"e{id}","event_type":"page_view","user_id":"u{}","timestamp":{at},"page":"/p{}"}}"#,
        id % 7,
        id % 3
    )
}

/// All cells and counters of the frames, merged; checks that the frames are a chain.
fn merged(frames: &[CutFrame]) -> (CellsBlock, CountersBlock) {
    let mut cells = CellsBlock::default();
    let mut counters = CountersBlock::default();
    let mut prev = CHAIN_START;
    for (i, CutFrame { number, bytes, .. }) in frames.iter().enumerate() {
        let producer = catchment_cells::frame::peek(bytes).unwrap().producer;
        let opened = open(bytes, &secret().frame_key(&producer)).unwrap();
        assert_eq!((opened.header().seq, opened.header().prev), (*number, prev), "frame {i}");
        prev = opened.chain();
        for (client, section) in opened.cells().unwrap().0 {
            for (name, cube) in section {
                let into = cells.0.entry(client.clone()).or_default().entry(name).or_default();
                into.dimensions = cube.dimensions;
                for (minute, bucket) in cube.buckets {
                    for (values, cell) in bucket {
                        into.buckets.entry(minute).or_default().entry(values).or_default().merge(&cell);
                    }
                }
            }
        }
        for (client, reasons) in opened.counters().unwrap().0 {
            for (reason, minutes) in reasons {
                for (minute, n) in minutes {
                    counters.add(&client, &reason, minute, n);
                }
            }
        }
    }
    (cells, counters)
}

fn counter(counters: &CountersBlock, reason: &str) -> u64 {
    let client = ClientId::new("shop").unwrap();
    counters.0.get(&client).and_then(|reasons| reasons.get(reason)).map_or(0, |minutes| minutes.values().sum())
}

#[test]
fn the_three_fixtures_are_counted() {
    let fixtures = [
        r#"{"eventId":"abc123","clientId":"client456","pageId":"page789","timestamp":"2023-10-01T12:00:00Z","eventType":"page_view","metadata":{"userId":"user101","sessionId":"session202","duration":120}}"#,
        r#"{"event_id":"evt_123","event_type":"page_view","user_id":"user_456","timestamp":"2024-01-01T00:00:00Z","properties":{"page":"/home","duration":30}}"#,
        r#"{"event_id":"uuid","user_id":"user123","session_id":"session456","event_type":"page_view","timestamp":"2024-02-12T10:30:00Z","page":"/products/laptop","category":"electronics","device":"mobile"}"#,
    ];
    let mut collector = collector();
    for fixture in fixtures {
        let outcome = collector.apply(&row(claims(true), NOW, fixture)).remove(0);
        assert_eq!(outcome, Outcome { accepted: 1, ..Outcome::default() }, "{fixture}");
    }
    let cut = collector.cut(NOW, 3, 0).unwrap();
    let (cells, _) = merged(&cut.frames);
    let section = &cells.0[&ClientId::new("shop").unwrap()];
    let value = |cube: &str, minute: i64, values: &[&str]| {
        let values: Values = values.iter().map(|&value| Some(value.into())).collect();
        section[cube].buckets[&minute][&values].clone()
    };
    let minute = |text: &str| crate::event::read_time(&format!("{text:?}")).unwrap() / MINUTE_MS;
    let first = value("page", minute("2023-10-01T12:00:00Z"), &["page789"]);
    assert_eq!((first.count, first.measures.get("duration").unwrap().sum), (1, 120_000_000));
    assert_eq!(
        value("page", minute("2024-01-01T00:00:00Z"), &["/home"]).measures.get("duration").unwrap().sum,
        30_000_000
    );
    assert_eq!(value("category", minute("2024-02-12T10:30:00Z"), &["electronics"]).count, 1);
    assert_eq!(value("device", minute("2024-02-12T10:30:00Z"), &["mobile"]).users.estimate().value, 1.0);
    assert_eq!(section["total"].buckets.len(), 3);
    assert!(!section.contains_key("plan"));
}

#[test]
fn what_is_wrong_is_rejected_with_its_reason_and_disturbs_nothing_else() {
    let long_id = "x".repeat(10_000);
    let live = |text: &str| row(Claims { ignore_foreign_client: false, ..claims(false) }, NOW, text);
    let with = |fields: &str| {
        format!(
            r#"{{"event_id":"a","event_type":"t","timestamp":{NOW}{}{fields}}}"#,
            if fields.is_empty() { "" } else { "," }
        )
    };
    for (event, expected) in [
        (with(""), None),
        (with(r#""client_id":"shop","user_id":5"#), None),
        (with(r#""properties":null,"metadata":[[[[]]]]"#), None),
        (with(r#""client_id":"other""#), Some("client_mismatch")),
        (with(r#""page":{"url":"/"}"#), Some("wrong_type")),
        (with(&format!(r#""page":"{long_id}""#)), Some("field_too_long")),
        (with(r#""properties":{"n":1e400}"#), Some("malformed")),
        (with(r#""event_id":null,"eventId":"""#), None),
        (with(r#""page":"","properties":{"page":"/lifted"}"#), None),
        (with(r#""properties":{"n\u0000ame":1}"#), None),
        (r#"{"event_id":"","event_type":"t","timestamp":1}"#.into(), Some("missing_event_id")),
        (with(r#""event_id":7"#), Some("wrong_type")),
        (with(&format!(r#""event_id":"{long_id}""#)), Some("event_id_too_long")),
        (r#"{"event_id":"a","event_type":null,"timestamp":1}"#.into(), Some("missing_event_type")),
        (r#"{"event_id":"a","event_type":"t","timestamp":""}"#.into(), Some("missing_timestamp")),
        (with(r#""timestamp":"yesterday""#), Some("invalid_timestamp")),
        (with(r#""timestamp":1e300"#), Some("invalid_timestamp")),
        (with(r#""timestamp":true"#), Some("wrong_type")),
        (with(r#""timestamp":"2019-01-01T00:00:00Z""#), Some("too_late")),
        (with(r#""timestamp":"2120-01-01T00:00:00Z""#), Some("future")),
        (with(r#""timestamp":-8640000000000000"#), Some("invalid_timestamp")),
        ("5".into(), Some("malformed")),
        ("null".into(), Some("malformed")),
        (format!("{}1{}", "[".repeat(5000), "]".repeat(5000)), Some("malformed")),
        (with(&format!(r#""properties":{{"a":{}1{}}}"#, "[".repeat(200), "]".repeat(200))), Some("malformed")),
        (with(&format!(r#""properties":{{"a":{}1{}}}"#, "[".repeat(20), "]".repeat(20))), None),
        (with(&format!(r#""x":{}1{}"#, r#"{"a":"#.repeat(5000), "}".repeat(5000))), Some("malformed")),
    ] {
        let mut collector = collector();
        let body = format!(r#"[{event},{{"event_id":"ok","event_type":"t","timestamp":{NOW}}}]"#);
        let outcome = collector.apply(&live(&body)).remove(0);
        let shown = &event[..event.len().min(200)];
        assert_eq!(outcome.rejected.first().map(|rejected| rejected.reason), expected, "{shown}");
        assert_eq!(outcome.accepted, if expected.is_some() { 1 } else { 2 }, "{shown}");
        if let Some(reason) = expected {
            let (_, counters) = merged(&collector.cut(NOW, 1, 0).unwrap().frames);
            assert_eq!(counter(&counters, reason), 1, "{shown}");
        }
    }
}

#[test]
fn bots_fill_cubes_of_their_own() {
    let event = |id: u64, fields: &str| format!(r#"{{"event_id":"{id}","event_type":"t","timestamp":{NOW}{fields}}}"#);
    let crawler = r#","user_agent":"Mozilla/5.0 (compatible; bingbot/2.0)""#;
    let body = [
        event(1, r#","country":"FR""#),
        event(2, crawler),
        event(3, &format!(r#"{crawler},"bot":false,"page":"/p""#)),
        event(4, r#","bot":true"#),
        event(5, r#","bot":"mine""#),
    ];
    for cubes in [cube::DEFAULT, &cube::DEFAULT[..1]] {
        let producer = Producer::new(7, "eu/pool/0").unwrap();
        let mut collector = Collector::with_cubes(secret(), Meta::new(producer, "eu"), cubes);
        assert_eq!(collector.apply(&row(claims(false), NOW, &body.join("\n")))[0].accepted, 5);
        let (cells, counters) = merged(&collector.cut(NOW, 1, 0).unwrap().frames);
        assert_eq!((counter(&counters, "accepted"), counter(&counters, "bot")), (5, 3));
        let section = &cells.0[&ClientId::new("shop").unwrap()];
        let count = |cube: &str, values: &[&str]| {
            let values: Values = values.iter().map(|&value| Some(value.into())).collect();
            section.get(cube).and_then(|cube| cube.buckets[&MINUTE].get(&values)).map_or(0, |cell| cell.count)
        };
        assert_eq!(count("total", &[]), 2);
        if cubes.len() > 1 {
            assert_eq!(["bingbot", "other", "mine"].map(|bot| count("bot", &[bot, "t"])), [1; 3]);
            assert_eq!(section["bot"].buckets[&MINUTE].len(), 3);
            // The server that brought along an agent is not where the visitor is, nor what.
            assert_eq!([count("country", &["FR"]), count("country", &["DE"]), count("page", &["/p"])], [1, 0, 1]);
            assert_eq!((count("agent", &["Edge", "Windows"]), section["agent"].buckets[&MINUTE].len()), (1, 1));
        }
    }
}

#[test]
fn clocks_are_corrected_and_late_events_are_counted_as_late() {
    let mut collector = collector();
    let hour = 3_600_000;
    // A clock that is an hour slow, and says so.
    let sent_at = jiff::Timestamp::from_millisecond(NOW - hour).unwrap();
    let body = format!(r#"{{"sent_at":"{sent_at}","events":[{}]}}"#, event(1, NOW - hour));
    collector.apply(&row(claims(false), NOW, &body));
    collector.apply(&row(claims(false), NOW, &event(2, NOW - 10 * MINUTE_MS)));
    let (cells, counters) = merged(&collector.cut(NOW, 2, 0).unwrap().frames);
    let section = &cells.0[&ClientId::new("shop").unwrap()];
    assert_eq!(section["total"].buckets.keys().copied().collect::<Vec<_>>(), [MINUTE - 10, MINUTE]);
    assert_eq!((counter(&counters, "late"), counter(&counters, "accepted")), (1, 2));
}

#[test]
fn measures_are_bounded_by_event_and_by_client() {
    let mut collector = collector();
    let many: Vec<String> = (0..9).map(|i| format!(r#""m{i}":{i}"#)).collect();
    for i in 0..20 {
        let names: Vec<String> = (0..8).map(|j| format!(r#""n{i}_{j}":1"#)).collect();
        let body =
            format!(r#"{{"event_id":"{i}","event_type":"t","timestamp":{NOW},"properties":{{{}}}}}"#, names.join(","));
        collector.apply(&row(claims(false), NOW, &body));
    }
    let body = format!(
        r#"{{"event_id":"many","event_type":"t","timestamp":{NOW},"properties":{{{},"big":1e300}}}}"#,
        many.join(",")
    );
    collector.apply(&row(claims(false), NOW, &body));
    let (cells, counters) = merged(&collector.cut(NOW, 21, 0).unwrap().frames);
    let total = &cells.0[&ClientId::new("shop").unwrap()]["total"].buckets[&MINUTE][&vec![]];
    assert_eq!((total.count, total.measures.len()), (21, MEASURE_NAMES_MAX));
    assert_eq!(counter(&counters, "measures_over_limit"), (20 * 8 - 60) + 2 + 7);
    assert_eq!(counter(&counters, "measure_out_of_range"), 1);
}

#[test]
fn a_cut_too_large_for_one_frame_becomes_several() {
    let mut collector = collector();
    // Bytes that don't deflate: each page another hash.
    let mut expected = 0;
    for i in 0..30 {
        let events: Vec<String> = (0..1000)
            .map(|j| {
                let page: String = (0..6u64)
                    .map(|k| format!("{:016x}", hash([k as u8; 16], &[&[i as u8], &(j as u64).to_le_bytes()])))
                    .collect();
                format!(r#"{{"event_id":"{i}-{j}","event_type":"t","timestamp":{NOW},"page":"{page}"}}"#)
            })
            .collect();
        expected += collector.apply(&row(claims(false), NOW, &format!("[{}]", events.join(",")))).remove(0).accepted;
    }
    assert!(collector.is_cut_due());
    let cut = collector.cut(NOW, 30, 0).unwrap();
    assert!(cut.frames.len() > 1);
    assert_eq!(cut.meta.next_frame, cut.frames.len() as u64 + 1);
    let (cells, _) = merged(&cut.frames);
    let section = &cells.0[&ClientId::new("shop").unwrap()];
    assert_eq!(section["total"].buckets[&MINUTE][&vec![]].count, expected);
    assert_eq!(section["page"].buckets[&MINUTE].len() as u64, expected);
}

#[test]
fn the_largest_cut_has_no_more_frames_than_the_outbox_takes() {
    largest_cut(&[]);
    // Of a client with as many cubes of its own as it may have.
    let names = ["page", "country", "device", "plan", "referrer", "category", "product", "browser", "channel"];
    let pairs = (0..names.len()).flat_map(|i| (i + 1..names.len()).map(move |j| [names[i], names[j]]));
    let cube = |(n, pair): (usize, [&str; 2])| config::Cube {
        name: format!("own_{n}"),
        dimensions: pair.map(str::to_owned).into(),
        digest: true,
    };
    largest_cut(&pairs.take(CLIENT_CUBES_MAX).enumerate().map(cube).collect::<Vec<_>>());
}

fn largest_cut(cubes: &[config::Cube]) {
    let mut collector = collector();
    let config = config::Config { cubes: cubes.to_vec(), ..config::Config::default() };
    collector.set_config(&claims(false).client, Some(&ConfigRow { version: 1, config: config.encode() }));
    let mut rows = 0u64;
    while !collector.is_cut_due() {
        // Of few bytes many that don't deflate: as many numbers as are taken, in a cell of each cube.
        let events: Vec<String> = (0..LOG_ROW_EVENTS)
            .map(|i| {
                let number = |j: usize| {
                    let at = [&rows.to_le_bytes()[..], &(i as u64).to_le_bytes(), &[j as u8]];
                    hash([3; 16], &at)
                };
                let measures: Vec<String> = (0..8).map(|j| format!(r#""{j}":{}e9"#, number(j) % 9_000 + 1)).collect();
                let dimensions =
                    ["page", "country", "device", "plan", "referrer", "category", "product", "browser", "channel"];
                let values: Vec<String> = dimensions.iter().map(|name| format!(r#""{name}":"{rows}{i}""#)).collect();
                format!(
                    r#"{{"event_id":"{rows}-{i}","event_type":"{i}","timestamp":{},"properties":{{{},{}}}}}"#,
                    NOW - (number(9) % DAY_MS as u64) as i64,
                    values.join(","),
                    measures.join(",")
                )
            })
            .collect();
        // A row has a body of each of several senders.
        let mut row = row(claims(false), NOW, &events[..LOG_ROW_EVENTS / 2].join("\n"));
        row.requests.extend(self::row(claims(false), NOW, &events[LOG_ROW_EVENTS / 2..].join("\n")).requests);
        assert_eq!(collector.apply(&row).iter().map(|outcome| outcome.accepted).sum::<u64>(), LOG_ROW_EVENTS as u64);
        rows += 1;
    }
    let frames = collector.cut(NOW, rows, 0).unwrap().frames;
    println!(
        "{rows} rows, {} frames of {} bytes",
        frames.len(),
        frames.iter().map(|frame| frame.bytes.len()).sum::<usize>()
    );
    assert!(frames.len() as u64 <= CUT_FRAMES_MAX, "{}", frames.len());
}

#[test]
fn counters_too_many_for_one_frame_become_several() {
    let mut collector = collector();
    for i in 0..CUT_COUNTERS as u64 * 2 {
        let client = format!("{:032x}{:032x}", u128::from(hash([1; 16], &[&i.to_le_bytes()])), i);
        collector.count_refused(&ClientId::new(&client).unwrap(), NOW);
    }
    assert!(collector.is_cut_due());
    let (_, counters) = merged(&collector.cut(NOW, 0, 0).unwrap().frames);
    assert_eq!(counters.0.len(), CUT_COUNTERS);

    // Far more than the bound lets in, so that no frame takes them.
    let long = |i: u64| -> String {
        (0..4u64).map(|k| format!("{:016x}", hash([k as u8; 16], &[&i.to_le_bytes()]))).collect()
    };
    let mut counters = CountersBlock::default();
    (0..60_000).for_each(|i| counters.add(&ClientId::new(&long(i)).unwrap(), "late", MINUTE, i));
    let mut frames = Vec::new();
    collector.seal_split((CutCells::default(), counters.clone(), DeadLettersBlock::default()), NOW, NOW, &mut frames);
    assert!(frames.len() > 1);
    let first = frames[0].number;
    let [one, other] = halves_of_counters(counters.clone());
    assert_eq!(one.0.len() + other.0.len(), counters.0.len());
    assert_eq!(
        frames.iter().map(|frame| frame.number - first).collect::<Vec<_>>(),
        (0..frames.len() as u64).collect::<Vec<_>>()
    );
}

/// The dead letters of frames, in their order.
fn letters(frames: &[CutFrame]) -> Vec<DeadLetter> {
    let read = |frame: &CutFrame| {
        let key = secret().frame_key(&Producer::new(7, "eu/pool/0").unwrap());
        frame::open(&frame.bytes, &key).unwrap().letters().unwrap().0.into_values().flatten().collect::<Vec<_>>()
    };
    frames.iter().flat_map(read).collect()
}

#[test]
fn what_is_not_counted_is_kept_as_it_came() {
    let old = event(1, NOW - 2 * DAY_MS);
    let long = format!("{{\"event_id\":\"{}\"}}", "x".repeat(DEAD_LETTER_BYTES_MAX));
    let body = format!("[{old},{}, {{\"a\": 1}} ,7,{long},{}]", event(2, NOW), event(2, NOW));
    let mut collector = collector();
    let rows = [row(claims(false), NOW, &body)];
    rows.iter().for_each(|row| _ = collector.apply(row));
    let cut = collector.cut(NOW + 5_000, 1, 0).unwrap();
    let kept: Vec<(String, String)> =
        letters(&cut.frames).into_iter().map(|letter| (letter.reason.into(), letter.event.into())).collect();
    let expected = [("too_late", &*old), ("missing_event_id", "{\"a\": 1}"), ("malformed", "7")];
    assert_eq!(kept, expected.map(|(reason, event)| (reason.to_owned(), event.to_owned())));
    assert!(letters(&cut.frames).iter().all(|letter| letter.received_at == NOW));
    let (_, counters) = merged(&cut.frames);
    let counted = |reason| counters.0[&claims(false).client].get(reason).map(|minutes| minutes.values().sum::<u64>());
    assert_eq!((counted("dead_letter_dropped"), counted("duplicate")), (Some(1), Some(1)));
    // A duplicate was counted, and is no dead letter. The next cut has none of these.
    collector.apply(&row(claims(false), NOW, &event(3, NOW)));
    assert_eq!(letters(&collector.cut(NOW, 2, 0).unwrap().frames), []);
}

#[test]
fn letters_that_no_frame_takes_are_spread_over_several() {
    // As random as text can be, so that little is gained by deflating it.
    let noise = |i: u64| -> String {
        let bytes = (0..750u64).flat_map(|k| hash([k as u8; 16], &[&i.to_le_bytes(), &k.to_le_bytes()]).to_le_bytes());
        data_encoding::BASE64.encode(&bytes.collect::<Vec<_>>())
    };
    let body = |from: u64| {
        format!("[{}]", (from..from + 110).map(|i| format!("\"{}\"", noise(i))).collect::<Vec<_>>().join(","))
    };
    let mut collector = collector();
    collector.apply(&row(claims(false), NOW, &body(0)));
    assert!(collector.is_cut_due());
    // What comes before the cut is made is kept, too.
    collector.apply(&row(claims(false), NOW, &body(110)));
    let frames = collector.cut(NOW, 2, 0).unwrap().frames;
    assert!(frames.len() > 1);
    let kept = letters(&frames);
    assert_eq!(kept.len(), 220);
    assert!((0..).zip(&kept).all(|(i, letter)| *letter.event == *format!("\"{}\"", noise(i))));
}

#[test]
fn ids_expire_with_the_lateness_but_not_for_a_backfill() {
    let mut collector = collector();
    let day = DAY_MS + 2 * 3_600_000;
    collector.apply(&row(claims(false), NOW, &event(1, NOW)));
    let first = collector.cut(NOW, 1, 0).unwrap().ids.unwrap();
    collector.apply(&row(claims(false), NOW + day, &event(2, NOW + day)));
    let second = collector.cut(NOW + day, 2, 0).unwrap().ids.unwrap();
    assert_eq!((first.n, second.n), (0, 1));
    assert_eq!(collector.expired_ids(NOW + IDS_KEPT_MS), None);
    let mut backfill = Collector::new(secret(), Meta::new(Producer::new(7, "eu/backfill/shop").unwrap(), "eu"));
    backfill.restore_ids(first.clone());
    backfill.restore_ids(second);
    assert_eq!(backfill.expired_ids(NOW + day), None);
    assert_eq!(collector.expired_ids(NOW + day), Some(0));
    collector.forget(&first);
    assert_eq!(collector.expired_ids(NOW + day), None);
    let again = collector.apply(&row(claims(false), NOW + day, &event(1, NOW))).remove(0);
    assert_eq!(again.rejected[0].reason, "too_late");
}

#[test]
fn ids_that_the_log_was_applied_with_are_kept_until_it_is_cut() {
    let mut collector = collector();
    let hour = 3_600_000;
    collector.apply(&row(claims(false), NOW, &event(1, NOW)));
    collector.cut(NOW, 1, 0).unwrap();
    collector.apply(&row(claims(false), NOW + 2 * hour, &event(2, NOW + 2 * hour)));
    collector.cut(NOW + 2 * hour, 2, 0).unwrap();
    // While the outbox is full, hours pass without a cut.
    let again = row(claims(false), NOW + 23 * hour, &event(1, NOW));
    assert_eq!(collector.apply(&again).remove(0).duplicates, 1);
    assert_eq!(collector.expired_ids(NOW + 26 * hour), None);
    collector.cut(NOW + 26 * hour, 3, 0).unwrap();
    assert_eq!(collector.expired_ids(NOW + 26 * hour), Some(0));
}

#[test]
fn frames_after_a_parked_one_go_on_under_a_new_producer() {
    let mut collector = collector();
    let mut frames = Vec::new();
    for i in 0..3 {
        collector.apply(&row(claims(false), NOW, &event(i, NOW)));
        frames.extend(collector.cut(NOW, i as u64 + 1, 0).unwrap().frames);
    }
    collector.restart_producer(Producer::new(8, "eu/pool/0").unwrap(), 1, 1);
    let adopted: Vec<_> = frames[1..]
        .iter()
        .map(|frame| {
            let bytes = collector.readopt(frame.number, &frame.bytes).unwrap();
            CutFrame { number: frame.number - 1, bytes, clients: Vec::new() }
        })
        .collect();
    let (cells, _) = merged(&adopted);
    assert_eq!(cells.0[&ClientId::new("shop").unwrap()]["total"].buckets[&MINUTE][&vec![]].count, 2);
    collector.apply(&row(claims(false), NOW, &event(9, NOW)));
    let next = collector.cut(NOW, 4, 1).unwrap();
    let header = catchment_cells::frame::peek(&next.frames[0].bytes).unwrap();
    assert_eq!((header.seq, header.producer.nonce(), next.frames[0].number, next.meta.parked), (3, 8, 4, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the batches, their order, the repetitions, the cuts and the restarts: the same cells.
    #[test]
    fn each_event_is_counted_once(
        order in Just((0..60usize).collect::<Vec<_>>()).prop_shuffle(),
        repeated in prop::collection::vec(0..60usize, 0..40),
        batch in 1..9usize,
        steps in prop::collection::vec(0..4u8, 80),
    ) {
        let mut reference = collector();
        let all: Vec<String> = (0..60).map(|id| event(id, NOW - (id as i64 % 5) * MINUTE_MS)).collect();
        reference.apply(&row(claims(false), NOW, &format!("[{}]", all.join(","))));
        let (expected, _) = merged(&reference.cut(NOW, 1, 0).unwrap().frames);

        let ids: Vec<usize> = order.into_iter().chain(repeated).collect();
        let mut stored = (collector().meta().clone(), BTreeMap::new(), Vec::new());
        let mut log: Vec<Vec<u8>> = Vec::new();
        let mut shard = collector();
        let mut accepted = 0;
        for (batch, step) in ids.chunks(batch).zip(steps.into_iter().cycle()) {
            let lines: Vec<&str> = batch.iter().map(|&id| &*all[id]).collect();
            let row = row(claims(false), NOW, &lines.join("\n"));
            log.push(row.encode());
            accepted += shard.apply(&row).remove(0).accepted;
            if step == 1 {
                let cut = shard.cut(NOW, log.len() as u64, 0).unwrap();
                stored.0 = Meta::decode(&cut.meta.encode()).unwrap();
                stored.1.extend(cut.ids.map(|row| (row.n, row.encode())));
                stored.2.extend(cut.frames);
            } else if step == 2 {
                // Dies, and is rebuilt from what is stored.
                shard = Collector::new(secret(), stored.0.clone());
                for (&n, bytes) in &stored.1 {
                    shard.restore_ids(IdsRow::decode(n, bytes).unwrap());
                }
                for bytes in &log[stored.0.folded_through as usize..] {
                    shard.apply(&LogRow::decode(bytes).unwrap());
                }
            }
        }
        stored.2.extend(shard.cut(NOW, log.len() as u64, 0).map(|cut| cut.frames).unwrap_or_default());
        prop_assert_eq!(accepted, 60);
        let (cells, counters) = merged(&stored.2);
        prop_assert_eq!(cells, expected);
        prop_assert_eq!(counter(&counters, "accepted"), 60);
        prop_assert_eq!(counter(&counters, "duplicate"), ids.len() as u64 - 60);
    }

    #[test]
    fn any_bytes_are_a_row_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = LogRow::decode(&bytes);
        let _ = Meta::decode(&bytes);
        let _ = IdsRow::decode(0, &bytes);
    }

    #[test]
    fn any_json_is_counted_or_rejected(
        events in prop::collection::vec(
            r#"\{"event_type":"(t|\\u0000)"(,"(event_id|timestamp|page|properties)":("a"|"\\u0000b"|1|1e999|null|\[\]|\{"(x|\\u0000|page)":-0.1\})){2,6}\}"#,
            0..4,
        ),
    ) {
        let body = format!("[{}]", events.join(","));
        if let Ok(request) = Request::read(claims(true), Visitor::default(), body.into_bytes()) {
            let n = request.len();
            let mut collector = collector();
            let outcome = collector.apply(&LogRow { received_at: NOW, requests: vec![request] }).remove(0);
            prop_assert_eq!(outcome.accepted as usize + outcome.duplicates as usize + outcome.rejected.len(), n);
            // Whatever is taken can be read at home.
            let (cells, _) = merged(&collector.cut(NOW, 1, 0).unwrap().frames);
            prop_assert_eq!(cells.0.is_empty(), outcome.accepted == 0);
        }
    }
}

fn configure(collector: &mut Collector, version: u32, json: &str) {
    let config = Config::read(json.as_bytes()).unwrap().encode();
    collector.set_config(&ClientId::new("shop").unwrap(), Some(&ConfigRow { version, config }));
}

/// The cells of a cube: values → count.
fn counts(cells: &CellsBlock, cube: &str) -> Vec<(Vec<String>, u64)> {
    let texts = |values: &Values| values.iter().map(|value| value.as_deref().unwrap_or("-").to_owned()).collect();
    let cube = cells.0[&ClientId::new("shop").unwrap()].get(cube);
    let cells = cube.iter().flat_map(|cube| cube.buckets.values()).flatten();
    cells.map(|(values, cell)| (texts(values), cell.count)).collect()
}

fn of_type(id: &str, event_type: &str, rest: &str) -> String {
    format!(r#"{{"event_id":"{id}","event_type":"{event_type}","timestamp":{NOW}{rest}}}"#)
}

#[test]
fn a_config_gives_dimensions_cubes_lookups_and_measures() {
    let mut collector = collector();
    configure(
        &mut collector,
        1,
        r#"{
            "dimensions": {"brand": "brandName", "gift": "gift", "maker": "maker"},
            "cubes": [
                {"name": "brands", "dimensions": ["brand", "gift"], "digest": true},
                {"name": "makers", "dimensions": ["maker", "page"]}
            ],
            "measures": ["z_revenue"],
            "lookups": [
                {"dimension": "category", "from": "product", "values": {"p1": "shoes", "p2": "hats"}},
                {"dimension": "maker", "from": "brand", "values": {"acme": "Acme Inc."}}
            ]
        }"#,
    );
    let many = (0..20).map(|i| format!(r#","m{i}":{i}"#)).collect::<String>();
    let events = [
        of_type(
            "1",
            "buy",
            &format!(r#","product":"p1","properties":{{"brandName":"acme","gift":true,"z_revenue":3{many}}}"#),
        ),
        of_type("2", "buy", r#","product":"p2","brandName":"own","properties":{"brandName":"acme","maker":"M"}"#),
        of_type("3", "buy", r#","product":"p1","category":"boots","properties":{"brand\u004eame":"acme"}"#),
        of_type("4", "view", r#","properties":{"brandName":{"a":1},"brand":"no"}"#),
    ];
    let outcome = collector.apply(&row(claims(false), NOW, &events.join("\n"))).remove(0);
    assert_eq!((outcome.accepted, outcome.rejected), (4, vec![]));
    let other = Claims { client: ClientId::new("other").unwrap(), ..claims(false) };
    collector.apply(&row(other, NOW, &of_type("1", "buy", r#","properties":{"brandName":"acme"}"#)));
    let long = "x".repeat(513);
    let outcome = collector.apply(&row(claims(false), NOW, &of_type("5", "x", &format!(r#","brandName":"{long}""#))));
    assert_eq!(outcome[0].rejected[0].reason, "field_too_long");
    let (cells, counters) = merged(&collector.cut(NOW, 3, 0).unwrap().frames);
    let all = |rows: &[(&[&str], u64)]| -> Vec<(Vec<String>, u64)> {
        rows.iter().map(|(values, n)| (values.iter().map(|&value| value.into()).collect(), *n)).collect()
    };
    assert_eq!(counts(&cells, "brands"), all(&[(&["acme", "-"], 1), (&["acme", "true"], 1), (&["own", "-"], 1)]));
    assert_eq!(counts(&cells, "makers"), all(&[(&["Acme Inc.", "-"], 2), (&["M", "-"], 1)]));
    assert_eq!(counts(&cells, "category"), all(&[(&["boots"], 1), (&["hats"], 1), (&["shoes"], 1)]));
    let total = &cells.0[&ClientId::new("shop").unwrap()]["total"].buckets[&MINUTE][&Values::new()];
    assert_eq!(total.measures.names().collect::<Vec<_>>(), ["z_revenue"]);
    assert_eq!(counter(&counters, "measures_over_limit"), 0, "what isn't listed isn't left out");
    assert!(!cells.0[&ClientId::new("other").unwrap()].contains_key("brands"), "it is another client's");
}

#[test]
fn a_config_may_shorten_the_lateness() {
    let mut collector = collector();
    configure(&mut collector, 1, r#"{"lateness_minutes": 10}"#);
    let minute = |n: i64, id: usize| event(id, NOW - n * MINUTE_MS);
    let body = [minute(9, 1), minute(11, 2)].join("\n");
    let outcome = collector.apply(&row(claims(false), NOW, &body)).remove(0);
    assert_eq!((outcome.accepted, outcome.rejected.len(), outcome.rejected[0].reason), (1, 1, "too_late"));
    let outcome = collector.apply(&row(claims(true), NOW, &minute(10_000, 3))).remove(0);
    assert_eq!(outcome.accepted, 1, "a backfill's are of any time");
}

#[test]
fn schemas_warn_enforce_and_report_what_they_do_not_know() {
    const EVENTS: &str = r#""events": {"buy": {"fields": {
        "revenue": {"type": "number", "required": true},
        "size": {"type": "string", "enum": ["s", "m"]},
        "gift": {"type": "boolean"},
        "page": {"enum": ["/", "/shop"]},
        "extra": {}
    }}}"#;
    // What an event has, why it is rejected, and whether it is warned of.
    let cases = [
        ("buy", r#","page":"/","properties":{"revenue":1.5,"size":"m","gift":false,"extra":{"a":[1]}}"#, None, false),
        ("buy", r#","page_id":"/shop","revenue":2"#, None, false),
        ("buy", r#","properties":{"size":"m"}"#, Some("schema_missing_field"), true),
        ("buy", r#","properties":{"revenue":null}"#, Some("schema_missing_field"), true),
        ("buy", r#","properties":{"revenue":"1"}"#, Some("schema_wrong_type"), true),
        ("buy", r#","properties":{"revenue":1,"gift":1}"#, Some("schema_wrong_type"), true),
        ("buy", r#","properties":{"revenue":1,"size":"xl"}"#, Some("schema_not_in_enum"), true),
        ("buy", r#","pageId":"/other","properties":{"revenue":1}"#, Some("schema_not_in_enum"), true),
        ("buy", r#","properties":{"revenue":1,"colour":"red"}"#, Some("schema_unknown_field"), false),
        ("buy", r#","properties":{"revenue":"1","colour":"red"}"#, Some("schema_wrong_type"), true),
        ("sell", "", Some("schema_unknown_type"), false),
    ];
    for mode in ["off", "warn", "enforce"] {
        let mut collector = collector();
        configure(&mut collector, 1, &format!(r#"{{"schemas": {{"mode": "{mode}", {EVENTS}}}}}"#));
        let mut warned = 0;
        for (i, (event_type, rest, reason, is_warned)) in cases.iter().enumerate() {
            let outcome =
                collector.apply(&row(claims(false), NOW, &of_type(&format!("{i}"), event_type, rest))).remove(0);
            let rejected = outcome.rejected.first().map(|rejected| rejected.reason);
            assert_eq!(rejected, reason.filter(|_| mode == "enforce"), "{mode}: {rest}");
            warned += u64::from(mode == "warn" && *is_warned);
        }
        let (_, counters) = merged(&collector.cut(NOW, cases.len() as u64, 0).unwrap().frames);
        assert_eq!(counter(&counters, "schema_warned"), warned, "{mode}");
        let reported = u64::from(mode != "off");
        for report in ["new_type:sell", "new_field:buy.colour"] {
            assert_eq!(counter(&counters, report), reported, "{mode}: {report}");
        }
    }
}

#[test]
fn what_is_reported_is_bounded() {
    let mut collector = collector();
    configure(&mut collector, 1, r#"{"schemas": {"mode": "warn"}}"#);
    let name = "\u{fc}".repeat(200);
    let body: Vec<_> = (0..500).map(|i| of_type(&format!("{i}"), &format!("{i}{name}"), "")).collect();
    collector.apply(&row(claims(false), NOW, &body.join("\n")));
    let (_, counters) = merged(&collector.cut(NOW, 1, 0).unwrap().frames);
    let reasons = counters.0[&ClientId::new("shop").unwrap()].keys();
    let reports = reasons.filter(|reason| reason.starts_with("new_type:")).count();
    assert_eq!(reports, crate::limits::REPORTS_MAX);
}
