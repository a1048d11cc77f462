//! What is found out about events beside what they say, from header to answer.

#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use catchment_cells::ClientId;
use catchment_harness::{Cluster, Question, paths};
use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const HOUR_MS: i64 = 3_600_000;

const CHROME: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";
const SAFARI: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1";
const GPTBOT: &str =
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)";

/// One client of a cluster, in the present hour and the one before.
struct Site<'c> {
    cluster: &'c Cluster,
    client: ClientId,
    now: i64,
}

impl<'c> Site<'c> {
    fn new(cluster: &'c Cluster, client: &str) -> Self {
        Site { cluster, client: ClientId::new(client).unwrap(), now: Timestamp::now().as_millisecond() }
    }

    fn span(&self) -> (i64, i64) {
        let hour = self.now.div_euclid(HOUR_MS);
        ((hour - 1) * HOUR_MS, (hour + 1) * HOUR_MS)
    }

    /// Sends an event with headers.
    async fn send(&self, headers: &[(&str, &str)], id: &str, fields: Value) {
        let mut event = json!({"event_id": id, "event_type": "page_view", "timestamp": self.now});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let url = format!("{}/v1/events?k={}", self.cluster.edge_url(), self.cluster.live_key(&self.client));
        let mut request = Client::new().post(&url).body(event.to_string()).timeout(PATIENCE);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED, "{event}");
    }

    async fn reaches(&self, metric: &str, expected: u64) {
        self.cluster.api(&self.client).reaches(metric, self.span(), expected, PATIENCE).await.unwrap();
    }

    /// A metric by the values of a dimension.
    async fn by(&self, metric: &str, dimension: &str) -> BTreeMap<String, u64> {
        let (start, end) = self.span();
        let question = Question::of(&[metric], start, end, "all").with("group_by", dimension);
        let rows = self.cluster.api(&self.client).ask(&question).await.unwrap().results;
        rows.iter().map(|row| (row.group.clone().unwrap_or_default(), row.count(metric))).collect()
    }
}

fn counts(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    expected.iter().map(|(value, n)| (value.to_string(), *n)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_ways_here_are_told_and_bots_are_kept_apart() {
    let mut cluster = Cluster::builder().start().await.unwrap();
    let site = Site::new(&cluster, "shop");
    let now = site.now;
    // Nobody said that a header of countries is the proxy's.
    let claimed = ("cf-ipcountry", "FR");
    site.send(&[("user-agent", CHROME), claimed], "1", json!({"page": "/", "referrer": "google.com", "entry": true}))
        .await;
    site.send(&[("user-agent", SAFARI)], "2", json!({"page": "/", "entry": true})).await;
    let address = "https://shop.example/sale?session=secret&utm_source=spring&utm_medium=email";
    site.send(&[("user-agent", SAFARI)], "3", json!({"page": address})).await;
    site.send(&[("user-agent", GPTBOT)], "4", json!({"page": "/"})).await;
    site.send(&[("user-agent", CHROME), ("sec-ch-ua", "\"HeadlessChrome\";v=\"141\"")], "5", json!({"page": "/"}))
        .await;
    // A server says whose events it sends.
    let fields = json!({"page": "/", "user_id": "u", "user_agent": CHROME, "referrer": "https://chatgpt.com/"});
    site.send(&[("user-agent", "python-requests/2.32.5")], "6", fields).await;
    site.send(&[("user-agent", "python-requests/2.32.5")], "7", json!({"page": "/", "user_id": "u"})).await;
    site.send(&[("user-agent", "curl/8.16.0")], "8", json!({"page": "/", "user_agent": GPTBOT})).await;
    let discord = ("user-agent", "DiscordBot (https://github.com/discord/discord.js, 14.22.1)");
    site.send(&[discord], "9", json!({"page": "/", "user_id": "u"})).await;

    // What isn't cut is applied again from the log.
    cluster.edge.kill();
    cluster.edge.start().await.unwrap();
    let site = Site { cluster: &cluster, client: ClientId::new("shop").unwrap(), now };
    site.reaches("received:accepted", 9).await;
    site.reaches("received:bot", 3).await;
    site.reaches("events", 6).await;
    assert_eq!(site.by("events", "page").await, counts(&[("/", 5), ("/sale", 1)]));
    assert_eq!(site.by("events", "browser").await, counts(&[("Chrome", 2), ("Safari", 2)]));
    assert_eq!(site.by("events", "os").await, counts(&[("Windows", 2), ("iOS", 2)]));
    assert_eq!(site.by("events", "device").await, counts(&[("desktop", 2), ("mobile", 2)]));
    assert_eq!(site.by("page_views", "bot").await, counts(&[("GPTBot", 2), ("HeadlessChrome", 1)]));
    assert_eq!(site.by("events", "country").await, counts(&[]));
    let channels = counts(&[("ai", 1), ("direct", 1), ("email", 1), ("search", 1)]);
    assert_eq!(site.by("events", "channel").await, channels);
    let sources = counts(&[("(direct)", 1), ("ChatGPT", 1), ("Google", 1), ("spring", 1)]);
    assert_eq!(site.by("events", "source").await, sources);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_country_is_that_of_a_header_or_of_the_address() {
    let file = paths::root().join("edge/collector/data/test/GeoIP2-Country-Test.mmdb");
    let cluster = Cluster::builder().geoip(file).country_header("x-country").start().await.unwrap();
    let site = Site::new(&cluster, "shop");
    let sweden = ("x-forwarded-for", "89.160.20.112, 10.0.0.1");
    site.send(&[sweden], "1", json!({})).await;
    site.send(&[sweden, ("x-country", "de")], "2", json!({})).await;
    site.send(&[sweden, ("x-country", "XX")], "3", json!({})).await;
    site.send(&[sweden, ("cf-ipcountry", "FR")], "4", json!({})).await;
    site.send(&[sweden], "5", json!({"country": "IT"})).await;
    site.send(&[("x-forwarded-for", "2001:218::7")], "6", json!({})).await;
    site.send(&[("x-forwarded-for", "127.0.0.1")], "7", json!({})).await;
    // A server's address tells nothing of its users.
    site.send(&[sweden], "8", json!({"user_agent": CHROME})).await;
    site.reaches("events", 8).await;
    assert_eq!(site.by("events", "country").await, counts(&[("DE", 1), ("IT", 1), ("JP", 1), ("SE", 3)]));
}
