//! What agents are, and what knowing them costs: `cargo run --profile wasm -p catchment-collector --example enrichment -- FILE`, a file with an agent a line,
//! such as that of npm `user-agents`.
//!
//! Prints what browsers, systems and bots they are, the time that each takes, and the bytes that shards ship for page views of people who have them, one a request,
//! with the cubes of former days and with those of today.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::time::Instant;

use catchment_cells::credential::Identity;
use catchment_cells::cube::{self, Cube};
use catchment_cells::frame::Producer;
use catchment_cells::{ClientId, Secret};
use catchment_collector::{Agent, Claims, Collector, Hints, LogRow, Meta, Request, Visitor};

/// Cubes that there were before agents were looked at.
const FORMER: usize = 10;
const START_MS: i64 = 1_800_000_000_000;
const SECONDS: u64 = 120;

fn main() {
    let path = env::args().nth(1).expect("a file of agents is named");
    let text = fs::read_to_string(path).expect("the file can be read");
    let start = Instant::now();
    let agents: Vec<Agent> = text.lines().map(|agent| Agent::of(agent, Hints::default())).collect();
    println!("{} agents: {:?} each, with the first", agents.len(), start.elapsed() / agents.len() as u32);
    let names: [fn(&Agent) -> Option<&str>; 3] =
        [|agent| agent.browser.as_deref(), |agent| agent.os.as_deref(), |agent| agent.bot.as_deref()];
    for (what, name) in ["browser", "os", "bot"].into_iter().zip(names) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        agents.iter().for_each(|agent| *counts.entry(name(agent).unwrap_or("-")).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        println!("{what}: {counts:?}");
    }
    for (rate, cut_ms) in [(1, 200), (1, 5_000), (50, 200), (50, 5_000), (1_000, 5_000)] {
        let [former, now] =
            [&cube::DEFAULT[..FORMER], cube::DEFAULT].map(|cubes| shipped(cubes, &agents, rate, cut_ms));
        println!("{rate} events/s, cut after {cut_ms} ms: {former:.1} bytes an event before, {now:.1} now");
    }
}

/// Bytes that are shipped for an event.
fn shipped(cubes: &[Cube], agents: &[Agent], rate: u64, cut_ms: i64) -> f64 {
    let producer = Producer::new(1, "eu/pool/0").expect("a shard's name");
    let secret = Secret::new(&[1; 32]).expect("32 bytes");
    let mut collector = Collector::with_cubes(secret, Meta::new(producer, "eu"), cubes);
    let claims = Claims {
        client: ClientId::new("bench").expect("a client id"),
        identity: Identity::User,
        backfill: false,
        ignore_foreign_client: false,
    };
    // Xorshift: the same each time.
    let mut state = 88_172_645_463_325_252u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 3) % below
    };
    let total = rate * SECONDS;
    let (mut bytes, mut now, mut rows) = (0, START_MS, 0);
    while rows < total || collector.waits_since().is_some() {
        now += 200;
        while rows < ((now - START_MS) as u64 * rate / 1_000).min(total) {
            let (user, page) = (random(100_000), random(1_000) * random(1_000) / 1_000);
            let from = [
                r#","entry":true"#,
                r#","entry":true,"referrer":"google.com""#,
                r#","entry":true,"referrer":"blog.example""#,
            ];
            let body = format!(
                r#"{{"event_id":"e{rows}","event_type":"page_view","timestamp":{now},"user_id":"u{user}","page":"/p/{page}","country":"C{}","properties":{{"duration_ms":{}}}{}}}"#,
                user % 20,
                random(60_000),
                from.get(random(9) as usize).unwrap_or(&"")
            );
            let agent = agents[user as usize % agents.len()].clone();
            let visitor = Visitor { hash: user, country: None, agent };
            let request = Request::read(claims.clone(), visitor, body.into_bytes()).expect("an event");
            collector.apply(&LogRow { received_at: now, requests: vec![request] });
            rows += 1;
        }
        if collector.waits_since().is_some_and(|since| now - since >= cut_ms) || collector.is_cut_due() {
            let frames = collector.cut(now, rows, 0).map(|cut| cut.frames).unwrap_or_default();
            bytes += frames.iter().map(|frame| frame.bytes.len()).sum::<usize>();
        }
    }
    bytes as f64 / total as f64
}
