//! `bench ingest` and `bench relay`: frames as shards make them, over the link to an aggregator, or by HTTP through a relay, until each is
//! stored and synced.

use std::time::{Duration, Instant};

use bytes::Bytes;
use catchment_cells::ClientId;
use catchment_cells::ack::{Ack, Status};
use catchment_harness::{Cluster, Failure, Result};
use catchment_link::{Client, Tls};
use jiff::Timestamp;
use tokio::task::JoinSet;

use crate::figures::Figures;
use crate::frames::Made;
use crate::http::Http;
use crate::machine::{Usage, waited_for_cpu_s};

/// Shards that send at a time.
const SHARDS: u64 = 8;
/// Frames of one call, or POST, at most, and bytes.
const CALL_FRAMES: usize = 64;
const CALL_BYTES: usize = 4 << 20;
/// Events of a cut, and cuts of each shard.
const LOADS: [(usize, usize); 3] = [(1, 4_000), (50, 800), (5_000, 8)];
/// How often a frame may be put off, and for how long.
const PUT_OFF_MAX: u32 = 200;
const PUT_OFF: Duration = Duration::from_millis(50);
/// How long the answers' count may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How many times the usual number of frames.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=20))]
    times: u64,
}

/// The way that frames take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Over the link, as a relay sends them.
    Link,
    /// By HTTP to a relay, as a shard sends them.
    Relay,
}

/// One shard's end.
pub(crate) enum Sender {
    Link(Client),
    Relay(Http, String),
}

/// Measures; each event must be counted in the end.
pub(crate) async fn run(args: Args, way: Way) -> Result<bool> {
    let mut figures = Figures::begin();
    figures.say("shards", SHARDS);
    for (events_per_cut, cuts) in LOADS {
        one(&mut figures, way, events_per_cut, cuts * args.times as usize).await?;
    }
    figures.print(args.json);
    Ok(true)
}

async fn one(figures: &mut Figures, way: Way, events_per_cut: usize, cuts: usize) -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    let client = ClientId::new("bench").map_err(Failure::at("the bench's client"))?;
    eprintln!("▸ make {} cuts of {events_per_cut} events", SHARDS as usize * cuts);
    let now = Timestamp::now().as_millisecond();
    let made: Vec<Made> = (0..SHARDS)
        .map(|n| Made::by_shard(cluster.secret(), &client, n, events_per_cut, cuts, now))
        .collect::<Result<_>>()?;
    let total = |of: fn(&Made) -> u64| made.iter().map(of).sum::<u64>();
    let (frames, events, cells) =
        (total(|made| made.frames.len() as u64), total(|made| made.events), total(|made| made.cells));
    let bytes = total(|made| made.frames.iter().map(|frame| frame.len() as u64).sum());
    let mut senders = Vec::new();
    let region = &cluster.regions[0];
    let link = link_client(&cluster)?;
    for _ in 0..SHARDS {
        senders.push(match way {
            Way::Link => Sender::Link(link.clone()),
            Way::Relay => {
                let token = format!("authorization: Bearer {}\r\n", cluster.relay_token());
                Sender::Relay(Http::connect(&region.relay_url).await?, Http::head("/v1/frames", &token))
            }
        });
    }
    let processes = [("relay", region.relay.pid()), ("aggregator", region.aggregator.pid())];
    let usages = || -> Result<Vec<Usage>> { processes.iter().filter_map(|(_, pid)| *pid).map(Usage::of).collect() };
    let (before, waited_before_s) = (usages()?, waited_for_cpu_s());
    let started = Instant::now();
    let mut sending = JoinSet::new();
    for (sender, made) in senders.into_iter().zip(made) {
        sending.spawn(send(sender, made.frames));
    }
    let mut put_off = 0;
    while let Some(sent) = sending.join_next().await {
        put_off += sent.map_err(Failure::at("a shard of the bench"))??;
    }
    let took_s = started.elapsed().as_secs_f64();
    let (after, waited_after_s) = (usages()?, waited_for_cpu_s());
    let minute = now - now % 60_000;
    let span = (minute, minute + 60_000);
    cluster.api(&client).reaches("events", span, events, PATIENCE).await?;
    let mut say = |name: &str, value: f64| figures.measured(format!("c{events_per_cut}_{name}"), value);
    say("frames_per_s", frames as f64 / took_s);
    say("cells_per_s", cells as f64 / took_s);
    say("events_per_s", events as f64 / took_s);
    say("frame_bytes", bytes as f64 / frames as f64);
    for ((process, _), (before, after)) in processes.iter().zip(before.iter().zip(&after)) {
        if way == Way::Relay || *process == "aggregator" {
            say(&format!("{process}_cpu_us_per_frame"), after.cpu_s_since(before) * 1e6 / frames as f64);
        }
    }
    say("waited_for_cpu_percent", 100.0 * (waited_after_s - waited_before_s) / took_s);
    figures.say(format!("c{events_per_cut}_frames"), frames);
    figures.say(format!("c{events_per_cut}_put_off_frames"), put_off);
    Ok(())
}

/// A client of the first region's aggregator, as its relay has one.
pub(crate) fn link_client(cluster: &Cluster) -> Result<Client> {
    let tls = Tls { ca: "ca.pem".into(), cert: "relay.pem".into(), key: "relay.key".into() };
    let tls = tls.in_folder(cluster.folder()).client().map_err(Failure::at("the link's files"))?;
    Client::new(cluster.regions[0].link_address.clone(), tls).map_err(Failure::at("the link"))
}

/// Sends one shard's frames in their order, one call after the other, and again what is put off. Returns how often it was.
pub(crate) async fn send(mut sender: Sender, frames: Vec<Bytes>) -> Result<u32> {
    let (mut rest, mut put_off) = (&frames[..], 0);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(CALL_FRAMES).take_while(|frame| {
            bytes += frame.len() + 4;
            bytes <= CALL_BYTES
        });
        let count = fits.count().max(1);
        let acks = sender.call(&rest[..count]).await?;
        let stored = acks.iter().take_while(|ack| ack.status == Status::Stored).count();
        rest = &rest[stored..];
        if let Some(refused) = acks.get(stored) {
            if refused.status != Status::Busy || put_off == PUT_OFF_MAX {
                return Err(Failure(format!("a frame is refused: {refused:?}")));
            }
            put_off += 1;
            tokio::time::sleep(PUT_OFF).await;
        }
    }
    Ok(put_off)
}

impl Sender {
    /// The ack of each frame.
    async fn call(&mut self, frames: &[Bytes]) -> Result<Vec<Ack>> {
        match self {
            Sender::Link(client) => {
                let acks = client.send(frames.to_vec()).await;
                acks.into_iter().collect::<std::result::Result<_, _>>().map_err(Failure::at("the link"))
            }
            Sender::Relay(http, head) => {
                let mut body = Vec::new();
                for frame in frames {
                    body.extend_from_slice(&(frame.len() as u32).to_le_bytes());
                    body.extend_from_slice(frame);
                }
                let answer = http.post(head, &body).await?;
                if answer.status != 200 {
                    return Err(Failure(format!("the relay answers {}", answer.status)));
                }
                let acks = Ack::decode_each(&answer.body).map_err(Failure::at("the relay's answer"))?;
                let each = acks.len() == frames.len();
                if each { Ok(acks) } else { Err(Failure("the relay doesn't answer for each frame".into())) }
            }
        }
    }
}
