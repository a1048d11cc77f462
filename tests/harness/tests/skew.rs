//! One client with nine tenths of the traffic: it gets shards of its own by itself, and harms nobody.

#![cfg(test)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catchment_cells::ClientId;
use catchment_harness::{Api, Cluster};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What a shard takes here: little, so that this machine can exceed it.
const SHARD_REQUESTS_PER_S: u32 = 80;
/// Clients that share the hot one's pool, each with a tenth of a tenth of the traffic.
const SMALL: usize = 10;
const SMALL_EVERY: Duration = Duration::from_millis(500);
/// The hot client's tabs: 180 requests a second in all.
const TABS: usize = 90;
const TAB_EVERY: Duration = Duration::from_millis(500);
const PHASE: Duration = Duration::from_secs(12);
const ROUNDS: usize = 3;
const HARM_MAX: f64 = 1.2;
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;

fn span() -> (i64, i64) {
    let hour = Timestamp::now().as_millisecond().div_euclid(HOUR_MS) * HOUR_MS;
    (hour - HOUR_MS, hour + 2 * HOUR_MS)
}

/// A page's sender: its route is its tab's, its epoch what the last answer said.
struct Tab {
    http: reqwest::Client,
    url: String,
    name: String,
    epoch: u64,
    sent: u64,
}

/// What tabs of a client have seen.
#[derive(Debug, Default)]
struct Seen {
    events: AtomicU64,
    level: AtomicU64,
    turned_away: AtomicU64,
}

impl Tab {
    fn new(cluster: &Cluster, client: &ClientId, name: String) -> Tab {
        let url = format!("{}/v1/events?k={}", cluster.edge_url(), cluster.live_key(client));
        Tab { http: reqwest::Client::new(), url, name, epoch: 1, sent: 0 }
    }

    /// Sends one new event until it is taken, under the route that it was made with.
    async fn send(&mut self, seen: &Seen) {
        let route = format!("{}.{}", self.epoch, self.name);
        let event = json!({
            "event_id": format!("{}-{}", self.name, self.sent), "event_type": "page_view", "page": "/",
            "user_id": self.name, "timestamp": Timestamp::now().as_millisecond(),
        });
        self.sent += 1;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let post = self.http.post(format!("{}&r={route}", self.url)).body(event.to_string());
            let answer = post.send().await.unwrap();
            let (status, wait) = (answer.status().as_u16(), answer.headers().get("retry-after").cloned());
            let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            self.epoch = answer["epoch"].as_u64().unwrap_or(self.epoch);
            match status {
                202 => {
                    assert_eq!(answer["accepted"], 1, "{answer}");
                    seen.events.fetch_add(1, Ordering::Relaxed);
                    seen.level.fetch_max(self.epoch >> 24, Ordering::Relaxed);
                    return;
                }
                429 => {
                    assert_eq!(answer["error"], "over_quota", "{answer}");
                    seen.turned_away.fetch_add(1, Ordering::Relaxed);
                    let wait: u64 = wait.unwrap().to_str().unwrap().parse().unwrap();
                    tokio::time::sleep(Duration::from_secs(wait)).await;
                }
                _ => panic!("{status}: {answer}"),
            }
            assert!(Instant::now() < deadline, "an event isn't taken");
        }
    }
}

/// A small client: sends, and looks until what it sent is there. How long each took from its 202, in ms.
async fn follow(mut tab: Tab, api: Api, until: Instant, seen: Arc<Seen>) -> (Tab, Api, Vec<f64>) {
    let mut waits = Vec::new();
    while Instant::now() < until {
        let next = Instant::now() + SMALL_EVERY;
        tab.send(&seen).await;
        let acked = Instant::now();
        while api.count("events", span()).await.unwrap() < tab.sent {
            assert!(acked.elapsed() < PATIENCE, "an event isn't visible");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        waits.push(acked.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep_until(next.into()).await;
    }
    (tab, api, waits)
}

type Small = Vec<(Tab, Api)>;

/// p99 of the small clients' freshness over a phase, in ms.
async fn freshness(small: Small, seen: &Arc<Seen>) -> (Small, f64) {
    let until = Instant::now() + PHASE;
    let mut following = JoinSet::new();
    for (tab, api) in small {
        following.spawn(follow(tab, api, until, seen.clone()));
    }
    let (mut small, mut waits) = (Vec::new(), Vec::new());
    for (tab, api, of_one) in following.join_all().await {
        small.push((tab, api));
        waits.extend(of_one);
    }
    waits.sort_by(f64::total_cmp);
    let p99 = waits[(waits.len() * 99).div_ceil(100) - 1];
    (small, p99)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_client_gets_shards_of_its_own_and_others_stay_fresh() {
    let cluster = Cluster::builder().shard_requests_per_s(SHARD_REQUESTS_PER_S).start().await.unwrap();
    let hot = ClientId::new("hot").unwrap();
    let names: Vec<_> = (0..SMALL).map(|n| ClientId::new(&format!("small-{n}")).unwrap()).collect();
    let mut small: Small =
        names.iter().map(|client| (Tab::new(&cluster, client, client.to_string()), cluster.api(client))).collect();
    let (of_small, of_hot) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    let mut best = f64::INFINITY;
    let mut hot_tabs: Vec<Tab> = (0..TABS).map(|n| Tab::new(&cluster, &hot, format!("tab-{n}"))).collect();
    for _ in 0..ROUNDS {
        let (back, calm) = freshness(small, &of_small).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut tabs = JoinSet::new();
        for mut tab in hot_tabs {
            let (stop, seen) = (stop.clone(), of_hot.clone());
            tabs.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let next = Instant::now() + TAB_EVERY;
                    tab.send(&seen).await;
                    tokio::time::sleep_until(next.into()).await;
                }
                tab
            });
        }
        let (back, beside) = freshness(back, &of_small).await;
        stop.store(true, Ordering::Relaxed);
        hot_tabs = tabs.join_all().await;
        small = back;
        best = best.min(beside / calm);
        println!("others' freshness, p99: {calm:.0} ms alone, {beside:.0} ms beside the hot client");
        if best <= HARM_MAX {
            break;
        }
    }
    let total = of_hot.events.load(Ordering::Relaxed) + of_small.events.load(Ordering::Relaxed);
    println!(
        "{total} events, {} of the hot client, which was turned away {} times and reached level {}",
        of_hot.events.load(Ordering::Relaxed),
        of_hot.turned_away.load(Ordering::Relaxed),
        of_hot.level.load(Ordering::Relaxed),
    );
    assert!(best <= HARM_MAX, "others' freshness is {best:.2} times what it was");
    assert_eq!(of_small.turned_away.load(Ordering::Relaxed), 0, "nobody else is turned away");
    assert!(of_hot.level.load(Ordering::Relaxed) >= 2, "it is spread");
    let slice = cluster.shard("eu/slice/hot/0").await.unwrap();
    assert!(slice["nonce"].as_u64().is_some_and(|nonce| nonce > 0), "the slice is there: {slice}");
    // Right figures throughout: each event that was acknowledged, once; each tab is a user.
    let api = cluster.api(&hot);
    api.reaches("events", span(), of_hot.events.load(Ordering::Relaxed), PATIENCE).await.unwrap();
    api.reaches("users", span(), TABS as u64, PATIENCE).await.unwrap();
    for (tab, api) in &small {
        assert_eq!(api.count("events", span()).await.unwrap(), tab.sent);
    }
}
