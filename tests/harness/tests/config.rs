//! Clients' configs, live: what the API sets is what running shards do, within 5 s, and waking ones before their first event.

#![cfg(test)]

use std::time::{Duration, Instant};

use catchment_cells::ClientId;
use catchment_cells::credential::{Identity, ReadKey, WriteKey};
use catchment_harness::{Api, Cluster, Question};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(20);
/// In which a change is in force at every live shard, counted from the API's answer.
const IN_FORCE: Duration = Duration::from_secs(5);
const HOUR_MS: i64 = 3_600_000;

/// The hour before this one, and the two after its start.
fn around_now() -> (i64, i64) {
    let hour = Timestamp::now().as_millisecond().div_euclid(HOUR_MS) * HOUR_MS;
    (hour - HOUR_MS, hour + 2 * HOUR_MS)
}

fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

/// A page of a client, and how many events it has sent.
struct Page {
    http: reqwest::Client,
    url: String,
    sent: usize,
}

impl Page {
    fn of(cluster: &Cluster, client: &ClientId) -> Page {
        let url = format!("{}/v1/events?k={}", cluster.edge_url(), cluster.live_key(client));
        Page { http: reqwest::Client::new(), url, sent: 0 }
    }

    /// Sends an event with properties, and answers what became of it.
    async fn send(&mut self, event_type: &str, properties: Value) -> Value {
        self.sent += 1;
        let event = json!({
            "event_id": format!("e{}", self.sent),
            "event_type": event_type,
            "timestamp": Timestamp::now().to_string(),
            "user_id": "u",
            "page": "/",
            "properties": properties,
        });
        let answer = self.http.post(&self.url).json(&event).send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, 202, "{body}");
        body
    }
}

/// Events by a dimension: value → count. Empty while no cube has it.
async fn by(api: &Api, dimension: &str) -> Vec<(String, u64)> {
    let (start, end) = around_now();
    let question = Question::of(&["events"], start, end, "all").with("group_by", dimension).with("limit", 1_000);
    let Ok(answer) = api.ask(&question).await else { return Vec::new() };
    let row = |row: &catchment_harness::Row| (row.group.clone().unwrap_or_default(), row.count("events"));
    let mut rows: Vec<_> = answer.results.iter().map(row).collect();
    rows.sort();
    rows
}

/// Waits until all events that were sent are counted.
async fn all_counted(api: &Api, sent: usize) {
    api.reaches("events", around_now(), sent as u64, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cube_is_filled_by_a_running_shard_within_5_s() {
    let mut cluster = Cluster::builder().start().await.unwrap();
    let (operator, shop) = (cluster.operator(), client("shop"));
    let api = cluster.api(&shop);
    let mut page = Page::of(&cluster, &shop);
    // A shard that is live, and that nobody watches: it cuts each 5 s.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        page.send("view", json!({"brand": "before"})).await;
        sleep(Duration::from_millis(100)).await;
    }
    let config = json!({"dimensions": {"brand": "brand"}, "cubes": [{"name": "brand", "dimensions": ["brand"]}]});
    operator.set(&shop, &config).await.unwrap();
    let (set, mut meanwhile) = (Instant::now(), 0);
    while set.elapsed() < IN_FORCE {
        page.send("view", json!({"brand": "meanwhile"})).await;
        meanwhile += 1;
        sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..20 {
        page.send("view", json!({"brand": "after"})).await;
    }
    all_counted(&api, page.sent).await;
    let counts = by(&api, "brand").await;
    let count = |brand: &str| counts.iter().find(|(name, _)| name == brand).map_or(0, |(_, count)| *count);
    println!("of {meanwhile} events in the 5 s after the change, {} came under it", count("meanwhile"));
    // 11 s, and the change: some at first, one between two cuts, and those for the new config.
    let questions = cluster.counter("catchment_relay_questions_total").await.unwrap();
    let posts = cluster.counter("catchment_relay_posts_total").await.unwrap();
    println!("{questions} questions beside {posts} POSTs of frames");
    assert!((2.0..=10.0).contains(&questions), "{questions}");
    assert_eq!((count("before"), count("after")), (0, 20), "{counts:?}");
    assert!(count("meanwhile") < meanwhile, "{counts:?}");

    // What was taken and not cut is applied under the same config by the edge's next life.
    for _ in 0..5 {
        page.send("view", json!({"brand": "killed"})).await;
    }
    cluster.edge.kill();
    cluster.edge.start().await.unwrap();
    page.send("view", json!({"brand": "killed"})).await;
    all_counted(&api, page.sent).await;
    assert!(by(&api, "brand").await.contains(&("killed".into(), 6)), "{:?}", by(&api, "brand").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_has_a_clients_config_before_its_first_event() {
    let mut cluster = Cluster::builder().start().await.unwrap();
    let (operator, shop) = (cluster.operator(), client("shop"));
    let config = json!({"dimensions": {"brand": "brand"}, "cubes": [{"name": "brand", "dimensions": ["brand"]}]});
    operator.set(&shop, &config).await.unwrap();
    let mut page = Page::of(&cluster, &shop);
    page.send("view", json!({"brand": "first"})).await;
    let api = cluster.api(&shop);
    all_counted(&api, 1).await;
    assert_eq!(by(&api, "brand").await, [("first".into(), 1)]);

    // It sleeps while the config changes.
    cluster.edge.terminate(PATIENCE).await.unwrap();
    let config = json!({"dimensions": {"brand": "brand", "size": "size"}, "cubes": [
        {"name": "brand", "dimensions": ["brand"]}, {"name": "size", "dimensions": ["size"]}]});
    operator.set(&shop, &config).await.unwrap();
    cluster.edge.start().await.unwrap();
    page.send("view", json!({"brand": "second", "size": "xl"})).await;
    all_counted(&api, 2).await;
    assert_eq!(by(&api, "size").await, [("xl".into(), 1)]);

    // And the aggregator's next life knows the configs.
    cluster.regions[0].aggregator.restart().await.unwrap();
    let (status, body) = operator.get(&shop).await.unwrap();
    assert_eq!((status, &body["config"]["cubes"][1]["name"]), (200, &json!("size")));
    assert_eq!(by(&api, "size").await, [("xl".into(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_reject_and_report_and_a_home_that_is_away_rejects_nothing() {
    let mut cluster = Cluster::builder().start().await.unwrap();
    let (operator, shop) = (cluster.operator(), client("shop"));
    let schema = |mode: &str| json!({"schemas": {"mode": mode, "events": {"buy": {"fields": {"revenue": {"type": "number", "required": true}}}}}});
    operator.set(&shop, &schema("enforce")).await.unwrap();
    let mut page = Page::of(&cluster, &shop);
    assert_eq!(page.send("buy", json!({"revenue": 1})).await["accepted"], 1);
    for (event_type, properties, reason) in [
        ("buy", json!({}), "schema_missing_field"),
        ("buy", json!({"revenue": 1, "colour": "red"}), "schema_unknown_field"),
        ("sell", json!({}), "schema_unknown_type"),
    ] {
        assert_eq!(page.send(event_type, properties).await["rejected"][0]["reason"], reason);
    }
    operator.set(&shop, &schema("warn")).await.unwrap();
    sleep(IN_FORCE).await;
    assert_eq!(page.send("buy", json!({})).await["accepted"], 1);
    let api = cluster.api(&shop);
    for (reason, n) in [("schema_missing_field", 1), ("schema_unknown_type", 1), ("schema_warned", 1), ("accepted", 2)]
    {
        api.reaches(&format!("received:{reason}"), around_now(), n, PATIENCE).await.unwrap();
    }
    let (status, body) = operator.schema_changes(&shop).await.unwrap();
    let names: Vec<_> = body["changes"].as_array().unwrap().iter().map(|change| &change["name"]).collect();
    assert_eq!((status, names), (200, vec![&json!("buy.colour"), &json!("sell")]));

    // What is stored counts for who is known, and the defaults for who is not; with the home it is as it was set.
    cluster.regions[0].relay.kill();
    let other = client("other");
    operator.set(&other, &schema("enforce")).await.unwrap();
    let mut strange = Page::of(&cluster, &other);
    assert_eq!(strange.send("sell", json!({})).await["accepted"], 1);
    assert_eq!(page.send("buy", json!({})).await["accepted"], 1);
    cluster.edge.restart().await.unwrap();
    assert_eq!(strange.send("sell", json!({})).await["accepted"], 1);
    assert_eq!(page.send("buy", json!({})).await["accepted"], 1);
    cluster.regions[0].relay.start().await.unwrap();
    cluster.api(&other).reaches("events", around_now(), 2, PATIENCE).await.unwrap();
    api.reaches("received:schema_warned", around_now(), 3, PATIENCE).await.unwrap();
    assert_eq!(strange.send("sell", json!({})).await["rejected"][0]["reason"], "schema_unknown_type");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_lets_operators_in_and_says_what_is_wrong() {
    let cluster = Cluster::builder().start().await.unwrap();
    let (operator, shop) = (cluster.operator(), client("shop"));
    let cube = |dimensions: Value| json!({"cubes": [{"name": "mine", "dimensions": dimensions}]});
    let (mut versions, began) = (Vec::new(), Timestamp::now().as_second() as u64);
    let (status, body) = operator.get(&shop).await.unwrap();
    assert_eq!((status, &body["version"], &body["config"]["lateness_minutes"]), (200, &json!(0), &json!(1440)));
    for key in ["", "ok_1_aaaa", cluster.api(&shop).credentials().1] {
        let stranger = operator.clone().with_key(key);
        assert_eq!(stranger.get(&shop).await.unwrap().0, 401);
        assert_eq!(stranger.put(&shop, &json!({}), None).await.unwrap().0, 401);
        assert_eq!(stranger.schema_changes(&shop).await.unwrap().0, 401);
    }
    for (config, if_match, status, part) in [
        (cube(json!(["page", "country"])), Some("\"0\""), 200, ""),
        (cube(json!(["page", "country"])), Some("present"), 200, ""),
        (json!({}), Some("\"0\""), 412, "has version "),
        (json!({}), Some("seven"), 400, "If-Match"),
        (cube(json!(["page"])), None, 422, "take another name"),
        (cube(json!(["colour"])), None, 422, "cubes[0].dimensions: there is no dimension \"colour\""),
        (json!({"cubes": "none"}), None, 422, "invalid type"),
        (json!({"measures": ["x".repeat(300_000)]}), None, 413, "length limit"),
        (json!({}), Some("present"), 200, ""),
    ] {
        let present = format!("\"{}\"", versions.last().copied().unwrap_or_default());
        let if_match = if_match.map(|version| if version == "present" { &*present } else { version });
        let (answered, body) = operator.put(&shop, &config, if_match).await.unwrap();
        assert_eq!(answered, status, "{body}");
        assert!(status == 200 || body["detail"].as_str().unwrap().contains(part), "{body}");
        versions.extend(body["version"].as_u64());
    }
    let [first, same, second] = versions[..] else { panic!("{versions:?}") };
    assert!(first >= began && first == same && same < second, "what is set already is no change: {versions:?}");
    assert_eq!(operator.get(&shop).await.unwrap().1["version"], second);
}

/// Sends events of these times with a client's key for a backfill.
async fn backfill(cluster: &Cluster, client: &ClientId, times: &[Timestamp]) {
    let event = |(n, time): (usize, &Timestamp)| json!({"event_id": format!("b{n}"), "event_type": "view", "timestamp": time.to_string(), "user_id": "u", "page": "/"});
    let events: Vec<Value> = times.iter().enumerate().map(event).collect();
    let url = format!("{}/v1/events?k={}", cluster.edge_url(), cluster.trace_key(client, true));
    let answer = reqwest::Client::new().post(&url).json(&events).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["accepted"], times.len());
}

/// The days of a range on the client's clock, as they are told: the start of each, and its events.
async fn days(api: &Api, time_zone: &str) -> Vec<(String, u64)> {
    let answer = api.ask(&Question::dates(&["events"], "2024-10-26", "2024-10-29", "1d")).await.unwrap();
    assert_eq!(answer.meta["time_zone"], time_zone);
    answer.results.iter().map(|row| (row.time.to_string(), row.count("events"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_cut_on_the_clock_that_is_set_and_kept_as_long_as_is_said() {
    let mut cluster = Cluster::builder().flush_s(1).start().await.unwrap();
    let (operator, shop) = (cluster.operator(), client("shop"));
    let api = cluster.api(&shop);
    // At twenty past each hour of three days in UTC, around the end of summer time.
    let start: Timestamp = "2024-10-26T00:20:00Z".parse().unwrap();
    let times: Vec<_> = (0..72).map(|n| Timestamp::from_second(start.as_second() + n * 3_600).unwrap()).collect();
    backfill(&cluster, &shop, &times).await;
    let span = (times[0].as_millisecond() - 20 * 60_000, times[71].as_millisecond() + 40 * 60_000);
    api.reaches("events", span, 72, PATIENCE).await.unwrap();
    let day = |start: &str, n: u64| (start.to_owned(), n);
    let utc = [day("2024-10-26T00:00:00Z", 24), day("2024-10-27T00:00:00Z", 24), day("2024-10-28T00:00:00Z", 24)];
    assert_eq!(days(&api, "UTC").await, utc);
    // They are flushed in UTC.
    sleep(Duration::from_secs(3)).await;
    // The 27th has 25 hours in Berlin; in Kathmandu days begin at a quarter past six in the evening.
    let berlin = [day("2024-10-25T22:00:00Z", 22), day("2024-10-26T22:00:00Z", 25), day("2024-10-27T23:00:00Z", 24)];
    let kathmandu = [day("2024-10-25T18:15:00Z", 18), day("2024-10-26T18:15:00Z", 24), day("2024-10-27T18:15:00Z", 24)];
    for (time_zone, expected) in [("Europe/Berlin", &berlin), ("Asia/Kathmandu", &kathmandu)] {
        operator.set(&shop, &json!({"time_zone": time_zone})).await.unwrap();
        for restart in [false, true] {
            if restart {
                cluster.regions[0].aggregator.restart().await.unwrap();
            }
            for _ in 0..10 {
                assert_eq!(days(&api, time_zone).await, expected[..], "{time_zone}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let (status, body) = operator.put(&shop, &json!({"time_zone": "Europe/Bielefeld"}), None).await.unwrap();
    assert!(status == 422 && body["detail"].as_str().unwrap().contains("there is no time zone"), "{body}");

    // Minutes and hours of 2024 are long past; what is removed begins with each of the aggregator's lives.
    let config = json!({"time_zone": "Asia/Kathmandu", "retention_days": {"minute": 2, "hour": 30}});
    operator.set(&shop, &config).await.unwrap();
    let hours = Question::dates(&["events"], "2024-10-26", "2024-10-29", "1h");
    for _ in 0..2 {
        cluster.regions[0].aggregator.restart().await.unwrap();
        let began = Instant::now();
        let (mut status, mut body) = api.raw(&hours).await.unwrap();
        while status == 200 && began.elapsed() < PATIENCE {
            sleep(Duration::from_millis(100)).await;
            (status, body) = api.raw(&hours).await.unwrap();
        }
        assert!(
            status == 422 && body.contains("hours are kept from 20") && body.contains("days are all kept"),
            "{body}"
        );
        assert_eq!(days(&api, "Asia/Kathmandu").await, kathmandu);
    }
    // Days of Kathmandu make up none of Berlin any more.
    operator.set(&shop, &json!({"time_zone": "Europe/Berlin"})).await.unwrap();
    let (status, body) = api.raw(&Question::dates(&["events"], "2024-10-26", "2024-10-29", "1d")).await.unwrap();
    assert!(status == 422 && body.contains("were cut on the clock of Asia/Kathmandu"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_and_more_events_than_a_limit_are_refused_within_5_s() {
    let cluster = Cluster::builder().start().await.unwrap();
    let (operator, shop) = (cluster.operator(), client("shop"));
    let http = reqwest::Client::new();
    let key = |generation| {
        let (client, identity) = (shop.clone(), Identity::Daily);
        cluster.write_key(&WriteKey { client, identity, backfill: false, ignore_foreign_client: false, generation })
    };
    let urls = [1, 2].map(|generation| format!("{}/v1/events?k={}", cluster.edge_url(), key(generation)));
    let mut sent = 0;
    let mut send = async |url: &str, events: u64| {
        let event =
            |n| json!({"event_id": format!("r{n}"), "event_type": "view", "timestamp": Timestamp::now().to_string()});
        let events: Vec<Value> = (sent..sent + events).map(event).collect();
        sent += events.len() as u64;
        let answer = http.post(url).json(&events).send().await.unwrap();
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let body: Value = answer.json().await.unwrap();
        (status, body["error"].as_str().unwrap_or_default().to_owned(), retry_after)
    };
    assert_eq!(send(&urls[0], 1).await.0, 202);
    operator.set(&shop, &json!({"keys": {"write_generation_min": 2, "read_generation_min": 2}})).await.unwrap();
    let set = Instant::now();
    let old = cluster.api(&shop);
    assert_eq!(old.raw(&Question::last(&["events"], "30m", "all")).await.unwrap().0, 401);
    let new = Api::new(
        cluster.regions[0].aggregator_url.clone(),
        ReadKey { client: shop.clone(), generation: 2 }.mint(cluster.secret()),
    );
    assert_eq!(new.raw(&Question::last(&["events"], "30m", "all")).await.unwrap().0, 200);
    while send(&urls[0], 1).await.0 == 202 {
        assert!(set.elapsed() < IN_FORCE);
        sleep(Duration::from_millis(50)).await;
    }
    println!("revoked after {:?}", set.elapsed());
    assert_eq!(send(&urls[0], 1).await, (401, "key".into(), None));
    assert_eq!(send(&urls[1], 1).await.0, 202);

    operator.set(&shop, &json!({"limits": {"events_per_s": 10}})).await.unwrap();
    sleep(IN_FORCE).await;
    // Two seconds' worth at once, and what goes beyond is owed.
    assert_eq!(send(&urls[0], 50).await.0, 202);
    assert_eq!(send(&urls[0], 1).await, (429, "over_limit".into(), Some("3".into())));
    sleep(Duration::from_secs(4)).await;
    assert_eq!(send(&urls[0], 1).await.0, 202);
}
