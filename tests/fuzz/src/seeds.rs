//! Inputs to begin with: what our own code writes, and what the documentation shows.

use std::io::Write;

use catchment_aggregator_core::block::Draft;
use catchment_aggregator_core::planner::Cube;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::cell::Cell;
use catchment_cells::codec::{put_iv, put_uv};
use catchment_cells::config::{Answer, Question, Told};
use catchment_cells::digest::Digest;
use catchment_cells::frame::{self, Header, Kind, open};
use catchment_cells::key::{CellKey, Tier};
use catchment_cells::live::{Changed, Message, RowKey, Update, View};
use catchment_cells::merged::{Merged, MergedRow};
use catchment_cells::route::Placement;
use catchment_cells::sum::Sum;
use catchment_cells::users::{Coupon, Users};
use catchment_cells::{ClientId, Estimate};
use catchment_collector::{
    Agent, Claims, Device, Hints, Hop, IdsRow, LogRow, Meta, Request, SpilledGroup, SpilledRow, Visitor,
};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};

use crate::edge::NOW;
use crate::hand::{self, SECRET};

/// The frame whose bytes are fixed, under the secret that all targets use.
pub fn golden() -> Vec<u8> {
    let hex = include_str!("../../../cells/src/frame/golden.hex");
    let hex: String = hex.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("the golden frame is hexadecimal")
}

const EVENTS: &[&str] = &[
    r#"{"eventId":"abc123","clientId":"client456","pageId":"page789","timestamp":"2023-03-28T10:43:00Z","eventType":"page_view","metadata":{"userId":"user101","sessionId":"session202","duration":120}}"#,
    r#"[{"event_id":"e1","event_type":"page_view","user_id":"u","timestamp":1680000100000,"properties":{"page":"/home","duration":30.5,"n":-7}},{"event_id":"e1","event_type":"x","timestamp":1680000100}]"#,
    r#"{"sent_at":"2023-03-28T10:40:00Z","events":[{"event_id":"e2","event_type":"revenue","timestamp":"2023-03-28T10:40:00.5+00:00","country":"DE","device":"mobile","plan":"pro","referrer":"r","utm_source":"s","utm_campaign":"c","category":"k","product":5,"properties":{"revenue_EUR":1e3,"deep":[[{}]],"t":true,"z":null}}]}"#,
    "{\"event_id\":\"a\",\"event_type\":\"b\",\"timestamp\":1680000100000}\n{\"event_id\":\n\n{\"event_id\":\"c\\u00e9\",\"event_type\":\"b\",\"timestamp\":9e11}",
    "\u{feff} {\"sentAt\":1680000100,\"events\":[]}",
];

const CONFIGS: &[&str] = &[
    "{}",
    r#"{"dimensions":{"brand":"brandName"},"cubes":[{"name":"brands","dimensions":["brand","page"],"digest":true}],"measures":["duration"],"lateness_minutes":60}"#,
    r#"{"lookups":[{"dimension":"plan","from":"category","values":{"k":"p","x":"y"}}],"schemas":{"mode":"warn","events":{"page_view":{"fields":{"duration":{"type":"number","required":true,"enum":["30.5"]},"n":{}}}}}}"#,
    r#"{"schemas":{"mode":"enforce","events":{"revenue":{"fields":{"revenue_EUR":{"type":"number"},"t":{"type":"boolean"},"deep":{"type":"any"}}}}}}"#,
];

/// Inputs to begin with, of the target of this name.
pub fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "ack" => acks().iter().map(Ack::encode).collect(),
        "acks" => vec![framed(&acks().iter().map(Ack::encode).collect::<Vec<_>>()), framed(&[acks()[0].encode()])],
        "blocks" => blocks(),
        "cell" => cells(),
        "credential" => {
            ["wk_shop_a.1", "wk_shop_1-A_bfu.3", "wk_a_df.4294967295", "rk_shop_0", "rk_a_b_7"].map(text).into()
        }
        "config" => configs(),
        "cube" => cubes(),
        "dashboard" => dashboards(),
        "datasketches" => [0, 1, 7, 8, 300, 390, 2_000].map(|n| users(n).to_datasketches()).into(),
        "dictionary" => vec![dictionary(0, &[]), dictionary(3, &[1, 1 << 60])],
        "digest" => vec![digests(3, 40), digests(40, 500), digests(2_000, 32)],
        "events" => {
            EVENTS.iter().zip([0, 64, 129, 130, 66]).map(|(body, flags)| [&[flags], body.as_bytes()].concat()).collect()
        }
        "frame" => frames(),
        "framing" => {
            vec![vec![], framed(&[&b"one"[..], b"", &[7; 300]]), framed(&[&acks()[0].encode(), &acks()[1].encode()])]
        }
        "gzip" => EVENTS
            .iter()
            .map(|body| gzip(body.as_bytes()))
            .chain([gzip(&vec![b' '; 1_000_001]), [gzip(b"["), gzip(b"]")].concat()])
            .collect(),
        "hop" => hops(),
        "key" => keys(),
        "live" => messages().iter().map(Message::encode).chain([text("1f-9")]).collect(),
        "mark" => vec![mark(1), mark(16)],
        "merged" => vec![merged(&[]), merged(&["page", "é"])],
        "mirror" => vec![messages().iter().flat_map(|message| lengthed(&message.encode())).collect()],
        "question" => [
            "metric=events&metric=users&start=2023-03-28&end=2023-03-29&granularity=1h",
            "metric=page_views&metric=p95:bytes&last=2d&group_by=page&limit=1",
            "metric=sum:bytes&metric=avg:bytes&metric=min:ms&metric=max:ms&last=1440m&granularity=7d&filter=page:/",
            "metric=received:late&start=2023-03-28T00:00:00Z&end=2023-03-28T23:59:00-01:00&group_by=reason",
            "metric=count:add%5Fto+cart&start=2023-03-28T00%3A00%3A00%2B01:00&end=2023-03-29&filter=page%3A%2F%C3%A9",
            "metric=count:buy&last=72h&granularity=30m&group_by=country&filter=device:mobile",
            "metric=events&last=4w&granularity=1w&filter=country+in+(US,%22D+E%22)+and+not(device%5Em+or+plan!%3Dpro)&filter=event_type!%3Dx",
            "metric=users&metric=conversion_rate:buy&last=14d&granularity=1d&window=7d&group_by=country&group_by=device&order=users+asc",
            "metric=views_per_user&start=2023-03-01&end=2023-04-01&granularity=1mo&compare=previous&group_by=plan&order=group+desc",
            "metric=active_users&filter=not+page%5E%22%22",
            r#"{"metric":["events","p42:bytes"],"last":"2d","limit":3,"filter":[{"and":[{"dimension":"page","in":["/","/a"]},{"not":"page^\"/b\""}]},{"or":[{"dimension":"page","is_not":"é"}]}]}"#,
        ]
        .map(text)
        .into(),
        "route" => ["1.aB-_9", "67108863.x", "7.12345678901234567890123456789012"].map(text).into(),
        "rows" => rows(),
        "said" => [
            format!(r#"{{"token":"{}"}}"#, hand::key("read-key", "rk_shop_0")),
            r#"{"subscribe":7,"question":"metric=users&last=1d&filter=page:%2Fa+b","cursor":"1f-9","sets":true}"#
                .into(),
            r#"{"subscribe":18446744073709551615,"question":"","cursor":null}"#.into(),
            r#"{"unsubscribe":7}"#.into(),
        ]
        .map(String::into_bytes)
        .into(),
        "stretch" => vec![stretch(&[1, 2], &[2, 9]), stretch(&[], &[3])],
        "told" => told(),
        "users" => [[0, 1], [5, 1_100], [1_024, 3], [2_000, 1_500]]
            .map(|sizes| sizes.map(|n| users_bytes(&users(n))).concat())
            .into(),
        _ => Vec::new(),
    }
}

fn text(text: &str) -> Vec<u8> {
    text.into()
}

fn lengthed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat()
}

fn framed(pieces: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = Vec::new();
    pieces.iter().for_each(|piece| catchment_link::framing::put(&mut out, piece.as_ref()));
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory is written to")
}

fn shop() -> ClientId {
    ClientId::new("shop").expect("a client's id")
}

fn acks() -> [Ack; 2] {
    let mut gap = Ack::refusal(Status::Gap, hand::producer(), 3, "gap");
    (gap.mark, gap.retry_after_ms) = (2, 1_000);
    let mut stored = Ack::refusal(Status::Stored, hand::producer(), 4, "");
    (stored.mark, stored.chain, stored.watched, stored.map_version) = (4, [7; 16], true, 1);
    [gap, stored]
}

fn users(n: u64) -> Users {
    let mut users = Users::default();
    (0..n).for_each(|user| users.insert(Coupon::of(user)));
    users
}

fn users_bytes(users: &Users) -> Vec<u8> {
    let mut out = Vec::new();
    users.encode(&mut out);
    out
}

/// Two digests, each behind n, min and max.
fn digests(ours: i64, theirs: i64) -> Vec<u8> {
    let mut out = Vec::new();
    for n in [ours, theirs] {
        let mut digest = Digest::new();
        (0..n).for_each(|i| digest.record(i * i));
        put_uv(&mut out, n as u64);
        put_iv(&mut out, 0);
        put_uv(&mut out, ((n - 1) * (n - 1)) as u64);
        digest.encode(&mut out);
    }
    out
}

fn cells() -> Vec<Vec<u8>> {
    let cell = |n: u64, with_digest| {
        let mut cell = Cell { count: n, users: users(n), ..Cell::default() };
        (0..n as i64).for_each(|i| cell.record("ms", i * 1_000, with_digest));
        cell.record("revenue_EUR", 12_500_000, false);
        let mut bytes = Vec::new();
        cell.encode_stored(&mut bytes);
        bytes
    };
    let two = |a: Vec<u8>, b: Vec<u8>| [lengthed(&a), b].concat();
    vec![
        two(cell(1, true), cell(20, true)),
        two(cell(50, true), cell(100, true)),
        two(cell(1_500, false), cell(3, true)),
    ]
}

fn keys() -> Vec<Vec<u8>> {
    let key = |tier, bucket, values: &[Option<&str>]| {
        let values: Vec<Option<Box<str>>> = values.iter().map(|value| value.map(Box::from)).collect();
        let dimensions = values.len() as u8;
        [vec![dimensions], CellKey { client: shop(), cube: "page".into(), tier, bucket, values }.encode(), vec![0; 8]]
            .concat()
    };
    vec![
        key(Tier::Minute, 28_000_000, &[Some("/")]),
        key(Tier::Day, -1, &[None, Some("é"), Some("")]),
        key(Tier::Hour, 0, &[]),
    ]
}

fn header_and_blocks(frame: &[u8]) -> (&[u8], &[u8]) {
    let length = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
    (&frame[8..8 + length], &frame[8 + length + 16..])
}

fn frames() -> Vec<Vec<u8>> {
    let golden = golden();
    let without = frame::leave_out(&golden, Kind::COUNTERS).expect("the golden frame");
    let of = |frame: &[u8]| {
        let (header, blocks) = header_and_blocks(frame);
        [&frame[2..4], &lengthed(header), blocks].concat()
    };
    let empty = hand::frame(&[]);
    vec![of(&golden), of(&without), of(&empty), golden.clone()]
}

fn blocks() -> Vec<Vec<u8>> {
    let golden = golden();
    let Header { blocks, .. } = frame::peek(&golden).expect("the golden frame");
    let (_, mut rest) = header_and_blocks(&golden);
    let mut seeds = Vec::new();
    for block in blocks {
        let (stored, after) = rest.split_at(block.stored_bytes as usize);
        rest = after;
        let kind = if block.kind == Kind::CELLS { 0 } else { 2 };
        let mut inflated = Vec::new();
        let deflated =
            std::io::Read::read_to_end(&mut flate2::read::DeflateDecoder::new(stored), &mut inflated).is_ok();
        let raw = if deflated && inflated.len() == block.raw_bytes as usize { &inflated } else { stored };
        seeds.push([&[kind], raw].concat());
        let mut encoder = DeflateEncoder::new(vec![kind | 1], Compression::best());
        seeds.push(encoder.write_all(raw).and_then(|()| encoder.finish()).expect("memory is written to"));
    }
    // All cubes and counters, as a shard makes them.
    let requests = EVENTS.iter().map(|body| Request::read(claims(), Visitor::default(), body.as_bytes().to_vec()));
    let row = LogRow { received_at: NOW, requests: requests.map(|request| request.expect("a body")).collect() };
    let mut collector = catchment_collector::Collector::new(SECRET.clone(), Meta::new(hand::producer(), "eu"));
    collector.apply(&row);
    for frame in collector.cut(NOW, 1, 0).map(|cut| cut.frames).unwrap_or_default() {
        assert!(open(&frame.bytes, &SECRET.frame_key(&hand::producer())).is_ok());
        let (_, blocks) = header_and_blocks(&frame.bytes);
        let header = frame::peek(&frame.bytes).expect("a shard's frame");
        seeds.push([&[1], &blocks[..header.blocks[0].stored_bytes as usize]].concat());
    }
    seeds
}

/// Of a bot in a browser.
const AGENT: &str = "Mozilla/5.0 (Linux; Android 6.0.1) Chrome/141.0 Mobile Safari/537.36 (compatible; Googlebot/2.1)";

fn claims() -> Claims {
    Claims {
        client: shop(),
        identity: catchment_cells::credential::Identity::User,
        backfill: true,
        ignore_foreign_client: true,
    }
}

fn hops() -> Vec<Vec<u8>> {
    let hop = |country, agent| Hop {
        placement: Placement { region: "eu".into(), shard: "eu/slice/shop/7".into(), level: 2 },
        claims: claims(),
        generation: 3,
        visitor: Visitor { hash: u64::MAX - 5, country, agent },
    };
    let hops = [hop(None, Agent::default()), hop(Some(*b"DE"), Agent::of(AGENT, Hints::default()))];
    hops.map(|hop| hop.to_header().into()).into()
}

fn cubes() -> Vec<Vec<u8>> {
    let cube = |dimensions: &[&str]| {
        let dimensions = dimensions.iter().map(|&name| name.into()).collect();
        let (key, value) = Cube { name: "own".into(), dimensions, digest: false }.encode_row(&shop());
        [lengthed(&key), value].concat()
    };
    vec![cube(&[]), cube(&["page", "é"]), cube(&["a", "b", "c", "d", "e", "f", "g", "h"])]
}

/// What a server says to a dashboard that looks at today: of the two questions about users by minute and of the day.
fn dashboards() -> Vec<Vec<u8>> {
    let users = |n| Sum::Users(users(n));
    let row = |bucket, group: Option<&str>, sums| Changed {
        key: RowKey { bucket, group: group.map(Box::from) },
        whole: true,
        sums,
    };
    let view = |subscription, metrics: &[&str], cube: &str| {
        let metrics = metrics.iter().map(|&metric| metric.into()).collect();
        Message::View(View { subscription, view: subscription, metrics, cube: cube.into(), tier: Tier::Minute })
    };
    let update = |view, from, rows| {
        let (end, as_of) = (NOW / 60_000 + 1, Some(NOW));
        Message::Update(Update { view, from, to: from + 1, start: end - 30, end, as_of, gone: Vec::new(), rows })
    };
    let minute = NOW / 60_000;
    let totals = ["users", "events", "page_views", "count:revenue"];
    let messages = [
        Message::Hello { now: NOW + 5, client: "shop".into() },
        view(1, &totals[..3], "event_type"),
        update(1, 0, vec![row(minute, None, vec![users(3), Sum::Count(5), Sum::Count(4)])]),
        view(2, &totals, "event_type"),
        update(2, 0, vec![row(minute, None, vec![users(3), Sum::Count(5), Sum::Count(4), Sum::Count(1)])]),
        view(3, &totals[..3], "event_type"),
        update(3, 0, vec![row(minute - 1, None, vec![users(3), Sum::Count(5), Sum::Count(4)])]),
        view(4, &totals[..2], "page"),
        update(
            4,
            0,
            vec![
                row(minute, Some("/"), vec![users(3), Sum::Count(5)]),
                row(minute, Some("(other)"), vec![users(1), Sum::Count(1)]),
            ],
        ),
        Message::Refused { subscription: 5, status: 503, detail: "busy".into() },
        Message::Alive { now: NOW + 2_000 },
    ];
    let said: Vec<u8> = messages.iter().flat_map(|message| lengthed(&message.encode())).collect();
    [0, 1].map(|range| [vec![range], said.clone()].concat()).into()
}

fn merged(dimensions: &[&str]) -> Vec<u8> {
    let row = |bucket, n| {
        let mut cell = Cell { count: n, users: users(n), ..Cell::default() };
        (0..n as i64).for_each(|i| cell.record("ms", i * 1_000, true));
        MergedRow { bucket, group: dimensions.iter().map(|_| "(other)".into()).collect(), cell }
    };
    let rows = vec![row(28_000_000, 3), row(28_000_000, 1_500), row(28_000_060, 40)];
    let dimensions = dimensions.iter().map(|&dimension| dimension.into()).collect();
    let (start, end) = (28_000_000, 28_000_120);
    Merged { cube: "page".into(), tier: Tier::Hour, start, end, as_of: Some(NOW), dimensions, rows }.encode()
}

fn dictionary(whole: u64, late: &[u64]) -> Vec<u8> {
    let mut out = vec![u8::from(!late.is_empty()), 1];
    out.extend_from_slice(&NOW.to_le_bytes());
    out.push(whole as u8);
    (0..whole).for_each(|hash| out.extend_from_slice(&(hash << 40).to_le_bytes()));
    out.push(late.len() as u8);
    late.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
    out
}

fn stretch(one: &[i64], other: &[i64]) -> Vec<u8> {
    let block = |buckets: &[i64]| {
        let mut draft = Draft::new(2);
        for bucket in buckets {
            let mut cell = Cell { count: 5, users: users(3), ..Cell::default() };
            cell.record("ms", 1_000, true);
            draft.push(*bucket, [None, Some("/")], &cell);
            draft.push(*bucket, [Some("DE"), Some("/é")], &cell);
        }
        draft.finish()
    };
    [lengthed(&block(one)), block(other)].concat()
}

fn mark(chains: u8) -> Vec<u8> {
    let mut out = vec![1];
    out.extend_from_slice(&u64::from(chains).to_le_bytes());
    out.extend_from_slice(&NOW.to_le_bytes());
    (0..chains).for_each(|chain| out.extend_from_slice(&[chain; 16]));
    out
}

fn rows() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for body in EVENTS {
        let nameless = Agent { device: Some(Device::Mobile), ..Agent::default() };
        for agent in [nameless, Agent::of(AGENT, Hints::default())] {
            let visitor = Visitor { hash: 7, country: Some(*b"FR"), agent };
            let request = Request::read(claims(), visitor, body.as_bytes().to_vec()).expect("a body");
            let requests = vec![request.clone(), request];
            seeds.push([vec![0], LogRow { received_at: NOW, requests }.encode()].concat());
        }
    }
    let ids = IdsRow { n: 7, first_received_at: NOW, last_received_at: NOW + 1, ids: vec![1, 5, u64::MAX] };
    seeds.push([vec![1], ids.encode()].concat());
    let meta = Meta::new(hand::producer(), "eu");
    seeds.push([vec![2], meta.encode()].concat());
    seeds.push([vec![2], Meta { spilled: 700, ..meta }.encode()].concat());
    let group = |received_by| SpilledGroup { received_by, ids: vec![7 << 40, 7 << 40 | 5, 1 << 60 | 7 << 40] };
    let spilled = SpilledRow { n: 7, groups: vec![group(NOW - 100_000_000), group(NOW)] };
    seeds.push([vec![3, 7], spilled.encode()].concat());
    seeds
}

fn messages() -> Vec<Message> {
    let key = |bucket, group: Option<&str>| RowKey { bucket, group: group.map(Box::from) };
    let mut cell = Cell::default();
    (0..40).for_each(|i| cell.record("ms", i * 1_000, true));
    let measure = || Sum::Measure(cell.measures.get("ms").cloned());
    let sums = |n| vec![Sum::Count(n), Sum::Users(users(n)), measure()];
    let view = View {
        subscription: 7,
        view: 0x1f,
        metrics: ["events", "users", "p95:ms", "max:ms"].map(String::from).into(),
        cube: "page".into(),
        tier: Tier::Minute,
    };
    let update = |from, to, rows: Vec<Changed>, gone| {
        let (start, end) = (28_000_000, 28_000_060);
        Message::Update(Update { view: 0x1f, from, to, start, end, as_of: Some(NOW), gone, rows })
    };
    let changed = |bucket, group, whole, n| Changed { key: key(bucket, group), whole, sums: sums(n) };
    vec![
        Message::Hello { now: NOW, client: "shop".into() },
        Message::View(view),
        update(0, 3, vec![changed(28_000_000, Some("/"), true, 3), changed(28_000_001, None, true, 1_500)], vec![]),
        update(3, 4, vec![changed(28_000_000, Some("/"), false, 5)], vec![key(28_000_001, None)]),
        update(
            4,
            5,
            vec![Changed {
                key: key(28_000_002, Some("é")),
                whole: true,
                sums: vec![
                    Sum::Count(1),
                    Sum::Estimated(Estimate { value: 2.0, lower: 1.0, upper: 3.0, exact: false }),
                    Sum::Measure(None),
                ],
            }],
            vec![],
        ),
        Message::Refused { subscription: 7, status: 422, detail: "too much".into() },
        Message::Alive { now: NOW },
    ]
}

/// Configs, and events that meet them.
fn configs() -> Vec<Vec<u8>> {
    let each = CONFIGS.iter().zip([EVENTS[0], EVENTS[1], EVENTS[1], EVENTS[2]]);
    each.map(|(config, body)| {
        [&(config.len() as u16).to_le_bytes(), config.as_bytes(), &[64], body.as_bytes()].concat()
    })
    .collect()
}

/// Questions about configs, and the bodies of their answers.
fn told() -> Vec<Vec<u8>> {
    let client = |name: &str| ClientId::new(name).expect("a client's id");
    let all = vec![(client("a"), 0), (client("shop"), 7)];
    let configs: Vec<Told> = [("a", 9, &b"\x01{}"[..]), ("shop", 0, b"")]
        .map(|(name, version, config)| Told { client: client(name), version, config: config.into() })
        .into();
    [(vec![], vec![], false), (all.clone(), configs.clone(), false), (all, configs[..1].to_vec(), true)]
        .map(|(clients, configs, more)| {
            let question = Question { nonce: 5, home: "eu".into(), clients }.encode();
            let answer = Answer { version: 9, more, configs }.encode(&question, &SECRET.config_key());
            [&(question.len() as u16).to_le_bytes(), &question[..], &answer[19..]].concat()
        })
        .into()
}
