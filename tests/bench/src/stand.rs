//! A cluster under a firehose: what it took in a span of time, and what its processes used for it.

use std::ops::Range;
use std::time::{Duration, Instant};

use catchment_cells::ClientId;
use catchment_harness::{Cluster, Counted, Failure, Result, Visible, Watcher};
use jiff::Timestamp;

use crate::firehose::{Firehose, Plan, Sent};
use crate::machine::{usages, waited_for_cpu_s};

/// How long it runs before it is measured: until workerd has compiled what is hot, and the files have grown.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long the answers' count may stand still before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where all routes of the first placement lead.
const SHARD: &str = "eu/pool/0";

/// What one run came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) events_per_s: f64,
    /// From when a request was due to its 202.
    pub(crate) answered_p50_ms: f64,
    pub(crate) answered_p99_ms: f64,
    /// From the 202 to a polled answer that counts it; `None` where not all was counted in the end.
    pub(crate) visible: Option<Visible>,
    pub(crate) refused: u64,
    /// Connections that were closed before an answer.
    pub(crate) closed: u64,
    /// How much of the time something waited for a CPU.
    pub(crate) waited_for_cpu_percent: f64,
    /// What its shard did in that time; at a rate that was asked for, as a shard that has all it can take is not to be asked, too.
    pub(crate) shard: Option<Done>,
    /// By process: CPU in percent of a core, memory in MiB.
    pub(crate) used: Vec<(&'static str, f64, f64)>,
}

/// What a shard did, in its own numbers, in a span of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) seconds: f64,
    pub(crate) requests: f64,
    pub(crate) alarms: f64,
    pub(crate) alarms_set: f64,
    pub(crate) commits: f64,
    pub(crate) frames: f64,
    pub(crate) rows_written: f64,
}

impl Done {
    /// Since the shard is in memory.
    async fn so_far(cluster: &Cluster, seconds: f64) -> Result<Done> {
        let shown = cluster.shard(SHARD).await?;
        let number =
            |name: &str| shown[name].as_f64().ok_or_else(|| Failure(format!("the shard shows no {name}: {shown}")));
        Ok(Done {
            seconds,
            requests: number("requests")?,
            alarms: number("alarms")?,
            alarms_set: number("alarms_set")?,
            commits: number("commits")?,
            frames: number("frames")?,
            rows_written: number("rows_written")?,
        })
    }

    fn since(&self, earlier: &Done) -> Done {
        Done {
            seconds: self.seconds - earlier.seconds,
            requests: self.requests - earlier.requests,
            alarms: self.alarms - earlier.alarms,
            alarms_set: self.alarms_set - earlier.alarms_set,
            commits: self.commits - earlier.commits,
            frames: self.frames - earlier.frames,
            rows_written: self.rows_written - earlier.rows_written,
        }
    }
}

impl Run {
    /// CPU of a process, in µs for each event that was taken.
    pub(crate) fn cpu_us_per_event(&self, process: &str) -> f64 {
        let percent = self.used.iter().find(|(name, ..)| *name == process).map_or(f64::NAN, |(_, percent, _)| *percent);
        percent * 1e4 / self.events_per_s
    }
}

/// Starts a cluster of its own, so that nothing is left of the run before, and sends to it.
pub(crate) async fn run(batch: usize, connections: usize, events_per_s: Option<f64>, seconds: u64) -> Result<Run> {
    // What a client may take of a pool is not what is looked for.
    let cluster = Cluster::builder().shard_requests_per_s(1_000_000).start().await?;
    let client = ClientId::new("bench").map_err(Failure::at("the bench's client"))?;
    let plan =
        Plan { url: cluster.edge_url().into(), key: cluster.live_key(&client), batch, connections, events_per_s };
    let now = Timestamp::now().as_millisecond();
    let watcher = Watcher::start(cluster.api(&client), (now, now + 1_000 * (seconds as i64 + 60)));
    let firehose = Firehose::start(plan).await?;
    tokio::time::sleep(WARM_UP).await;
    let usages = || usages(&cluster, "load");
    let (before, waited_before_s) = (usages()?, waited_for_cpu_s());
    let done_before = match events_per_s {
        Some(_) => Some(Done::so_far(&cluster, 0.0).await?),
        None => None,
    };
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let span = began..Instant::now();
    let (after, waited_after_s) = (usages()?, waited_for_cpu_s());
    let shard = match done_before {
        Some(before) => Some(Done::so_far(&cluster, (span.end - span.start).as_secs_f64()).await?.since(&before)),
        None => None,
    };
    let sent = firehose.end().await?;
    let counted = watcher.counted(sent.events(), PATIENCE).await?;
    let wall_s = (span.end - span.start).as_secs_f64();
    let used = before
        .iter()
        .zip(&after)
        .map(|((name, before), (_, after))| (*name, after.cpu_percent_since(before), after.memory_mib));
    let mut took: Vec<Duration> = sent.of(&span).map(|ack| ack.took).collect();
    took.sort_unstable();
    let answered_ms = |q: f64| {
        let rank = (q * took.len() as f64).ceil() as usize;
        took.get(rank.max(1) - 1).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    };
    Ok(Run {
        events_per_s: sent.of(&span).map(|ack| ack.events).sum::<u64>() as f64 / wall_s,
        answered_p50_ms: answered_ms(0.5),
        answered_p99_ms: answered_ms(0.99),
        visible: visible(&counted, &sent, &span),
        refused: sent.refused,
        closed: sent.closed,
        waited_for_cpu_percent: 100.0 * (waited_after_s - waited_before_s) / wall_s,
        shard,
        used: used.collect(),
    })
}

fn visible(counted: &Counted, sent: &Sent, span: &Range<Instant>) -> Option<Visible> {
    let acks: Vec<(Instant, u64)> = sent.acks.iter().map(|ack| (ack.at, ack.events)).collect();
    (counted.last() == sent.events()).then(|| counted.visible_of(&acks, |at| span.contains(&at))).flatten()
}
