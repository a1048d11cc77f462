//! Live views: what a reader knows is what the metrics API answers, whatever comes in, and whoever stalls, drops or dies.

#![cfg(test)]

use std::time::{Duration, Instant};

use catchment_cells::ClientId;
use catchment_cells::live::Message;
use catchment_harness::{
    Api, Cluster, Connection, Ended, Exact, Line, Live, Question, Row, Sender, Trace, Value, paths,
};
use jiff::Timestamp;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Sent;

const PATIENCE: Duration = Duration::from_secs(30);
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 1_440 * MINUTE_MS;
const QUANTILES: [&str; 3] = ["p50:bytes", "p95:bytes", "p99:bytes"];

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

fn client() -> ClientId {
    ClientId::new("views").unwrap()
}

/// A deployment, who asks it, and who sends to it.
struct Stage {
    cluster: Cluster,
    api: Api,
    live: Connection,
    backfill: Connection,
    sent: usize,
}

impl Stage {
    async fn new() -> Stage {
        let cluster = Cluster::builder().start().await.unwrap();
        let sender = |backfill| {
            Sender::new(cluster.edge_url().into(), cluster.trace_key(&client(), backfill)).connect().unwrap()
        };
        let (live, backfill) = (sender(false), sender(true));
        Stage { api: cluster.api(&client()), live, backfill, cluster, sent: 0 }
    }

    async fn reader(&self) -> Live {
        let (url, key) = self.api.credentials();
        Live::connect(url, key).await.unwrap()
    }

    /// New events of that time, of a few pages and users.
    async fn send(&mut self, n: usize, time_ms: i64, backfill: bool) {
        let line = |number: usize| {
            let event = json!({
                "event_id": format!("sent-{number}"), "event_type": "page_view", "timestamp": time_ms,
                "user_id": format!("u{number}"), "page": format!("/{}", number % 7),
                "properties": {"bytes": number * 10},
            });
            Line { number, text: event.to_string().into(), route: "1.0".into(), repeated: false }
        };
        let connection = if backfill { &self.backfill } else { &self.live };
        let outcome = connection.deliver((self.sent..self.sent + n).map(line).collect()).await.unwrap();
        assert_eq!((outcome.accepted as usize, outcome.rejected.len()), (n, 0));
        self.sent += n;
    }
}

/// Questions of each kind; day after day from 20 days ago to tomorrow where they don't move by themselves.
fn questions() -> Vec<Question> {
    let (start, end) = (today() - 20 * DAY_MS, today() + DAY_MS);
    let days = |metrics: &[&str], granularity| Question::of(metrics, start, end, granularity);
    vec![
        Question::last(&["events", "users"], "30m", "1m"),
        Question::last(&["users", "events", "page_views"], "1d", "all"),
        Question::last(&["events", "users"], "36h", "1h"),
        Question::last(&["events"], "24h", "1h").with("group_by", "page").with("limit", 3),
        Question::last(&["users"], "5m", "1m"),
        Question::last(&["users", "events"], "30m", "1m"),
        days(&["events", "users", "count:asset"], "1d"),
        days(&["users", "events"], "all").with("group_by", "page").with("limit", 5),
        days(&["sum:bytes", "avg:bytes", "min:bytes", "max:bytes"], "1h"),
        days(&QUANTILES, "1d"),
        days(&["events", "users"], "all").with("filter", "page:/3"),
        days(&["events"], "1d").with("group_by", "event_type").with("filter", "event_type:page_view"),
        days(&["received:accepted", "received:late", "received:duplicate"], "1d"),
    ]
}

fn today() -> i64 {
    now_ms().div_euclid(DAY_MS) * DAY_MS
}

/// Equal, to the last bit but for what JSON's digits cost. Digests hang on the order of merges: of a quantile that isn't exact,
/// each side's value lies within the other's bounds.
fn same(ours: &[Row], theirs: &[Row]) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-14 * a.abs().max(b.abs());
    let within = |value: f64, of: Value| (of.lower..=of.upper).contains(&value);
    let equal = |name: &str, ours: Option<Value>, theirs: Option<Value>| match (ours, theirs) {
        (None, None) => true,
        (Some(ours), Some(theirs)) if ours.exact != theirs.exact => false,
        (Some(ours), Some(theirs)) if QUANTILES.contains(&name) && !ours.exact => {
            within(ours.value, theirs) && within(theirs.value, ours)
        }
        (Some(ours), Some(theirs)) => {
            near(ours.value, theirs.value) && near(ours.lower, theirs.lower) && near(ours.upper, theirs.upper)
        }
        _ => false,
    };
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(ours, theirs)| {
            (ours.time, &ours.group) == (theirs.time, &theirs.group)
                && ours.values.keys().eq(theirs.values.keys())
                && ours.values.keys().all(|name| equal(name, ours.get(name), theirs.get(name)))
        })
}

/// Reads until every view is what the API answers; both go on while they are compared.
async fn agree(live: &mut Live, api: &Api, questions: &[Question]) {
    let deadline = Instant::now() + PATIENCE;
    let mut left: Vec<usize> = (0..questions.len()).collect();
    while !left.is_empty() {
        let reading = async {
            loop {
                if let message @ Message::Refused { .. } = live.next().await.unwrap() {
                    panic!("{message:?}");
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(300), reading).await.unwrap_err();
        let mut differ = Vec::new();
        for i in left {
            let answer = api.ask(&questions[i]).await.unwrap();
            if !same(&live.rows(i as u64), &answer.results) {
                assert!(
                    Instant::now() < deadline,
                    "{}\nview {:?}\nAPI {:?}",
                    questions[i].text(),
                    live.rows(i as u64),
                    answer.results
                );
                differ.push(i);
            }
        }
        left = differ;
    }
}

async fn subscribe(live: &mut Live, questions: &[Question]) {
    for (i, question) in questions.iter().enumerate() {
        // As the dashboard does where it merges users by itself.
        match i % 2 {
            0 => live.subscribe(i as u64, question).await.unwrap(),
            _ => live.subscribe_with_sets(i as u64, question).await.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_what_the_api_answers() {
    let mut stage = Stage::new().await;
    let api = stage.api.clone();
    let questions = questions();
    // A view of nothing.
    let mut live = stage.reader().await;
    subscribe(&mut live, &questions).await;
    agree(&mut live, &api, &questions).await;

    // A day up to now: some of it late.
    let trace = Trace::open(&paths::bundled_trace()).unwrap().every(10).ending_at(now_ms()).unwrap();
    for batch in trace.batches(|| 200) {
        stage.live.deliver(batch).await.unwrap();
    }
    let exact = Exact::of(&trace.lines).events;
    api.reaches("events", (today() - 20 * DAY_MS, today() + DAY_MS), exact, PATIENCE).await.unwrap();
    agree(&mut live, &api, &questions).await;
    let counted: u64 = live.rows(6).iter().map(|row| row.count("events")).sum();
    assert_eq!(counted, exact);

    // While events come in, now, late, and long ago.
    for round in 0..5 {
        stage.send(30, now_ms(), false).await;
        stage.send(20, now_ms() - 40 * MINUTE_MS, false).await;
        stage.send(50, today() - (5 + round) * DAY_MS + 7 * MINUTE_MS, true).await;
        tokio::time::timeout(Duration::from_millis(200), async { while live.next().await.is_ok() {} })
            .await
            .unwrap_err();
    }
    let exact = exact + stage.sent as u64;
    api.reaches("events", (today() - 20 * DAY_MS, today() + DAY_MS), exact, PATIENCE).await.unwrap();
    agree(&mut live, &api, &questions).await;
    let counted: u64 = live.rows(6).iter().map(|row| row.count("events")).sum();
    assert_eq!(counted, exact);

    // A newcomer sees the same.
    let mut newcomer = stage.reader().await;
    subscribe(&mut newcomer, &questions).await;
    agree(&mut newcomer, &api, &questions).await;

    // Killed, and started again: the reader goes on from where it was.
    stage.cluster.regions[0].aggregator.kill();
    let ended = async {
        loop {
            if live.next().await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    stage.send(30, now_ms(), false).await;
    stage.cluster.regions[0].aggregator.start().await.unwrap();
    let mut again = stage.reader().await;
    again.resume(live.into_subscriptions()).await.unwrap();
    api.reaches("events", (today() - 20 * DAY_MS, today() + DAY_MS), exact + 30, PATIENCE).await.unwrap();
    agree(&mut again, &api, &questions).await;
    let counted: u64 = again.rows(6).iter().map(|row| row.count("events")).sum();
    assert_eq!(counted, exact + 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_told_what_was_missed() {
    let mut stage = Stage::new().await;
    let questions = questions();
    stage.send(100, now_ms(), false).await;
    stage.send(100, today() - 3 * DAY_MS, true).await;
    let mut live = stage.reader().await;
    subscribe(&mut live, &questions).await;
    agree(&mut live, &stage.api, &questions).await;
    // Somebody else keeps the views open.
    let mut other = stage.reader().await;
    subscribe(&mut other, &questions).await;
    agree(&mut other, &stage.api, &questions).await;

    let subscriptions = live.into_subscriptions();
    stage.send(100, now_ms(), false).await;
    stage.send(10, today() - 4 * DAY_MS, true).await;
    agree(&mut other, &stage.api, &questions).await;
    let mut live = stage.reader().await;
    live.resume(subscriptions).await.unwrap();
    let mut resumed = 0;
    while resumed < questions.len() {
        match live.next().await.unwrap() {
            Message::Update(update) => {
                assert!(update.from > 0, "a snapshot, though the view has not ended");
                resumed += 1;
            }
            Message::Refused { detail, .. } => panic!("{detail}"),
            _ => {}
        }
    }
    agree(&mut live, &stage.api, &questions).await;
    let mut fresh = stage.reader().await;
    subscribe(&mut fresh, &questions).await;
    agree(&mut fresh, &stage.api, &questions).await;
    for i in 0..questions.len() as u64 {
        assert_eq!(live.rows(i), fresh.rows(i));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stalls_is_told_the_present_state() {
    let mut stage = Stage::new().await;
    let questions = questions();
    let (url, key) = stage.api.credentials();
    let mut stalled = Live::open_narrow(url).await.unwrap();
    stalled.send(&json!({ "token": key }).to_string()).await.unwrap();
    subscribe(&mut stalled, &questions).await;
    // More than the systems' buffers hold.
    for n in 100..115 {
        stalled.subscribe(n, &Question::last(&["events", "users"], &format!("{n}m"), "1m")).await.unwrap();
    }
    let mut live = stage.reader().await;
    subscribe(&mut live, &questions).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        stage.send(200, now_ms(), false).await;
        tokio::time::timeout(Duration::from_millis(100), async { while live.next().await.is_ok() {} })
            .await
            .unwrap_err();
    }
    agree(&mut live, &stage.api, &questions).await;
    // What it missed comes as one update.
    let several = async {
        loop {
            if let Message::Update(update) = stalled.next().await.unwrap()
                && update.from > 0
                && update.to > update.from + 1
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, several).await.unwrap();
    agree(&mut stalled, &stage.api, &questions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_seen_within_a_second() {
    let mut stage = Stage::new().await;
    let mut live = stage.reader().await;
    live.subscribe(1, &Question::last(&["events"], "30m", "all")).await.unwrap();
    let seen = |n: u64| {
        move |mirror: &catchment_cells::live::Mirror| {
            catchment_harness::live::rows(mirror).iter().map(|row| row.count("events")).sum::<u64>() >= n
        }
    };
    // The shard learns with its first ack that it's watched.
    stage.send(1, now_ms(), false).await;
    live.until(1, PATIENCE, seen(1)).await.unwrap();
    for n in 2..=30 {
        stage.send(1, now_ms(), false).await;
        live.until(1, Duration::from_secs(1), seen(n)).await.unwrap();
    }
}

/// Reads to the end.
async fn ending(mut live: Live) -> Option<u16> {
    let reading = async {
        loop {
            match live.next().await {
                Ok(_) => {}
                Err(Ended::Closed(code)) => return code,
                Err(ended) => panic!("{ended}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_or_says_nonsense_is_told_so() {
    let stage = Stage::new().await;
    let (url, key) = stage.api.credentials();
    let foreign = key.replace("_views_", "_other_");
    let cases: [(&str, Vec<Sent>, u16); 8] = [
        ("nothing", vec![], 1013),
        ("a foreign key", vec![Sent::text(json!({ "token": foreign }).to_string())], 4401),
        ("no key", vec![Sent::text(r#"{"token":""}"#)], 4401),
        ("something else first", vec![Sent::text(r#"{"subscribe":1,"question":"metric=events"}"#)], 4400),
        ("bytes first", vec![Sent::binary(vec![1, 2, 3])], 4400),
        ("garbage later", vec![Sent::text(json!({ "token": key }).to_string()), Sent::text("{")], 4400),
        ("bytes later", vec![Sent::text(json!({ "token": key }).to_string()), Sent::binary(vec![0])], 4400),
        (
            "a number twice",
            vec![
                Sent::text(json!({ "token": key }).to_string()),
                Sent::text(r#"{"subscribe":1,"question":"metric=events&last=1h"}"#),
                Sent::text(r#"{"subscribe":1,"question":"metric=events&last=2h"}"#),
            ],
            4400,
        ),
    ];
    for (name, messages, code) in cases {
        let mut live = Live::open(url).await.unwrap();
        for message in messages {
            live.send_raw(message).await.unwrap();
        }
        assert_eq!(ending(live).await, Some(code), "{name}");
    }
    // A message that no reader needs is not read to its end.
    let mut live = stage.reader().await;
    let _ = live.send(&"x".repeat(1 << 20)).await;
    let reading = async { while live.next().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();

    let mut live = stage.reader().await;
    let days = Question::of(&["events"], 0, 60_000 * DAY_MS, "1m");
    for (question, status) in [
        ("", 400),
        ("metric=events", 400),
        ("metric=nonsense&last=1h", 400),
        ("metric=events&last=0m", 400),
        ("metric=events&last=1h&granularity=1s", 400),
        ("metric=events&last=1h&start=2026-01-01", 400),
        (&days.text(), 400),
        ("metric=events&last=1h&group_by=page&filter=plan:x", 422),
        // What only an answer has.
        ("metric=events&last=1h&group_by=country&group_by=device", 400),
        ("metric=events&last=7d&granularity=1d&window=2d", 400),
        ("metric=events&last=7d&compare=previous", 400),
        ("metric=error_rate&last=7d", 400),
        ("metric=events&last=7d&group_by=page&order=group", 400),
        ("%zz\u{0}", 400),
    ] {
        live.send(&json!({ "subscribe": 7, "question": question }).to_string()).await.unwrap();
        assert_eq!(refused(&mut live).await, (7, status), "{question}");
    }
    // Too many; and the connection goes on.
    for n in 0..40 {
        live.subscribe(n, &Question::last(&["events"], &format!("{}m", n + 1), "all")).await.unwrap();
    }
    for n in 32..40 {
        assert_eq!(refused(&mut live).await, (n, 503));
    }
    live.unsubscribe(3).await.unwrap();
    live.subscribe(41, &Question::last(&["users"], "1h", "all")).await.unwrap();
    live.until(41, PATIENCE, |_| true).await.unwrap();
    // Without an upgrade there is nothing to see.
    let status = reqwest::get(format!("{url}/api/v1/live")).await.unwrap().status().as_u16();
    assert!((400..500).contains(&status), "{status}");
}

/// The next refusal.
async fn refused(live: &mut Live) -> (u64, u16) {
    let reading = async {
        loop {
            if let Message::Refused { subscription, status, detail } = live.next().await.unwrap() {
                assert!(!detail.is_empty());
                return (subscription, status);
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}
