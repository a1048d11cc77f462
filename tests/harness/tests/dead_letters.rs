//! What was not counted is read back, and sent again.

#![cfg(test)]

use std::time::Duration;

use catchment_cells::ClientId;
use catchment_harness::Cluster;
use jiff::Timestamp;
use reqwest::header::{ACCEPT, LINK};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR_MS: i64 = 3_600_000;

async fn post(url: &str, body: String) -> Value {
    let answer = reqwest::Client::new().post(url).body(body).timeout(PATIENCE).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    answer.json().await.unwrap()
}

/// Asks for dead letters: gives the header `link`, and the answer.
async fn get(api: (&str, &str), query: &str, accept: &str) -> (Option<String>, String) {
    let (url, key) = api;
    let request = reqwest::Client::new().get(format!("{url}/api/v1/dead-letters?{query}")).bearer_auth(key);
    let answer = request.header(ACCEPT, accept).timeout(PATIENCE).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    let link = answer.headers().get(LINK).map(|link| link.to_str().unwrap().to_owned());
    (link, answer.text().await.unwrap())
}

async fn letters(api: (&str, &str), query: &str) -> Value {
    serde_json::from_str(&get(api, query, "application/json").await.1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_too_late_is_read_back_and_counted_where_it_belongs() {
    let mut cluster = Cluster::builder().central(true).start().await.unwrap();
    let client = ClientId::new("shop").unwrap();
    let edge = |key: &str| format!("{}/v1/events?k={key}", cluster.edge_url());
    let (live, backfill) = (edge(&cluster.live_key(&client)), edge(&cluster.trace_key(&client, true)));
    let hour = (Timestamp::now().as_millisecond() - 100 * HOUR_MS).div_euclid(HOUR_MS) * HOUR_MS;
    let at = Timestamp::from_millisecond(hour).unwrap().to_string();
    let old = |n: usize| json!({"event_id": format!("old-{n}"), "event_type": "page_view", "user_id": "u", "timestamp": at, "page": "/"});
    let mut events: Vec<Value> = (0..5).map(old).collect();
    events.push(json!({"event_type": "no_id"}));
    events.push(json!(7));
    let answer = post(&live, Value::from(events).to_string()).await;
    assert_eq!((answer["rejected"].as_array().unwrap().len(), &answer["accepted"]), (7, &json!(0)), "{answer}");

    // At the region, and at central.
    let region = cluster.api_at(&cluster.regions[0].aggregator_url, &client);
    let central = cluster.api(&client);
    for api in [&region, &central] {
        let deadline = Instant::now() + PATIENCE;
        let listed = loop {
            let listed = letters(api.credentials(), "order=oldest").await;
            if listed["letters"].as_array().unwrap().len() == 7 {
                break listed;
            }
            assert!(Instant::now() < deadline, "{listed}");
            sleep(Duration::from_millis(50)).await;
        };
        let letters = listed["letters"].as_array().unwrap();
        let reasons: Vec<_> = letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, [&["too_late"; 5][..], &["missing_event_id", "malformed"]].concat());
        assert_eq!((&letters[0]["event"], &letters[6]["event"], &listed["next"]), (&old(0), &json!(7), &Value::Null));
    }

    // Restarted without a word, it still has them. Newest first, in pages.
    cluster.regions[0].aggregator.kill();
    cluster.regions[0].aggregator.start().await.unwrap();
    let page = letters(region.credentials(), "limit=2&reason=too_late").await;
    assert_eq!(page["letters"][0]["event"]["event_id"], "old-4");
    let next = format!("limit=2&reason=too_late&after={}", page["next"].as_str().unwrap());
    let page = letters(region.credentials(), &next).await;
    assert_eq!(
        (&page["letters"][0]["event"]["event_id"], page["letters"].as_array().unwrap().len()),
        (&json!("old-2"), 2)
    );

    // As lines, they are what an edge takes: by a key that lets the past in, they are counted, once however often they are sent.
    let mut query = "limit=3&order=oldest&reason=too_late".to_owned();
    let mut sent = 0;
    loop {
        let (link, lines) = get(region.credentials(), &query, "application/x-ndjson").await;
        sent += lines.lines().count();
        let answer = post(&backfill, lines.clone()).await;
        assert_eq!(answer["accepted"], json!(lines.lines().count()), "{answer}");
        let answer = post(&backfill, lines.clone()).await;
        assert_eq!(answer["duplicates"], json!(lines.lines().count()), "{answer}");
        let Some(link) = link else { break };
        query = link.strip_prefix("<?").unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(sent, 5);
    region.reaches("page_views", (hour, hour + HOUR_MS), 5, PATIENCE).await.unwrap();
    assert_eq!(region.count("users", (hour, hour + HOUR_MS)).await.unwrap(), 1);
}
