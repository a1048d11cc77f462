//! Clients' configs, live: what the API sets is what running shards do, within 5 s, and waking ones before their first event.

#![cfg(test)]

use std::time::{Duration, Instant};

use catchment_cells::ClientId;
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
    assert_eq!(operator.set(&shop, &config).await.unwrap(), 1);
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
    assert_eq!((status, &body["version"], &body["config"]["cubes"][1]["name"]), (200, &json!(2), &json!("size")));
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
        (cube(json!(["page", "country"])), Some("\"1\""), 200, ""),
        (json!({}), Some("\"0\""), 412, "has version 1"),
        (json!({}), Some("seven"), 400, "If-Match"),
        (cube(json!(["page"])), None, 422, "take another name"),
        (cube(json!(["colour"])), None, 422, "cubes[0].dimensions: there is no dimension \"colour\""),
        (json!({"cubes": "none"}), None, 422, "invalid type"),
        (json!({"measures": ["x".repeat(300_000)]}), None, 413, "length limit"),
        (json!({}), Some("\"1\""), 200, ""),
    ] {
        let (answered, body) = operator.put(&shop, &config, if_match).await.unwrap();
        assert_eq!(answered, status, "{body}");
        assert!(status == 200 || body["detail"].as_str().unwrap().contains(part), "{body}");
    }
    assert_eq!(operator.get(&shop).await.unwrap().1["version"], 2, "what is set already is no change");
}
