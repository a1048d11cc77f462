//! `bench live`: a thousand readers of a hundred views under load, all of them at once again, and as many that never read.

use std::time::{Duration, Instant};

use catchment_cells::ClientId;
use catchment_harness::{Cluster, Failure, Result, Sender};

use crate::figures::Figures;
use crate::load::Load;
use crate::machine::{open_files, usages, waited_for_cpu_s};
use crate::readers::{self, Door, Freshness, Reader, STALLED_VIEWS};

/// What must hold.
const FRESHNESS_P99_MS_MAX: f64 = 1_000.0;
const RECOVERY_S_MAX: f64 = 5.0;
/// The load runs so long before readers come, and they read so long before they are measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// Readers go on so long after the last event that is judged.
const GRACE: Duration = Duration::from_secs(3);
/// Files of a process beside its readers.
const OTHER_FILES: u64 = 300;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How long each of the two measurements takes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// Readers; as many again never read.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=5_000))]
    readers: u64,
    /// Views that readers are spread over.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=400))]
    views: u64,
    /// Events sent each second.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(20..=20_000))]
    events_per_s: u64,
}

/// A measurement of all readers.
struct Measured {
    freshness: Freshness,
    events_per_s: f64,
    socket_bytes_per_s: f64,
    /// How much of the time something waited for a CPU: more than its own load says that others took part.
    waited_for_cpu_percent: f64,
    /// By process: CPU in percent of a core, memory in MiB.
    used: Vec<(&'static str, f64, f64)>,
}

/// Whether all is as it must be.
pub(crate) async fn run(args: Args) -> Result<bool> {
    open_files(2 * args.readers + OTHER_FILES)?;
    let mut figures = Figures::begin();
    let n = args.readers as usize;
    eprintln!("▸ start workerd, one relay and one aggregator");
    let cluster = Cluster::builder().start().await?;
    let client = ClientId::new("bench").map_err(Failure::at("the bench's client"))?;
    let api = cluster.api(&client);
    let (url, read_key) = api.credentials();
    let door = Door { url: url.into(), read_key: read_key.into() };
    let views = readers::views(args.views as usize);

    eprintln!("▸ send {} events/s", args.events_per_s);
    let mut load = Load::start(Sender::new(cluster.edge_url().into(), cluster.live_key(&client)), args.events_per_s);
    tokio::time::sleep(WARM_UP).await;
    eprintln!("▸ connect {n} readers of {} views", args.views);
    let began = Instant::now();
    let entered = readers::enter(&door, &views, n).await?;
    let entering_s = began.elapsed().as_secs_f64();
    eprintln!("▸ measure for {} s", args.seconds);
    let (entered, mut alone) = measure(&args, &cluster, &mut load, entered).await?;

    eprintln!("▸ drop all of them, and let them come back at once");
    let acks = load.acks().await?;
    let (entered, mut recoveries) = readers::storm(&door, entered, &acks).await?;
    recoveries.sort_unstable();
    let recovery = |rank: usize| recoveries.get(rank).map_or(f64::NAN, Duration::as_secs_f64);
    let (storm_p50_s, storm_all_s) = (recovery(n.div_ceil(2) - 1), recovery(n - 1));

    eprintln!("▸ connect {n} more that never read, and measure for {} s", args.seconds);
    let stalled = readers::stall(&door, &views, n).await?;
    let (entered, mut beside) = measure(&args, &cluster, &mut load, entered).await?;
    // Of those that took nothing for 20 s.
    let kept = cluster.counter("catchment_live_readers").await? - n as f64;
    drop((entered, stalled));

    figures.say("readers", n);
    figures.say("views", args.views);
    figures.say("measured_s", args.seconds);
    figures.measured("events_per_s", alone.events_per_s);
    figures.measured("entering_s", entering_s);
    figures.measured("waited_for_cpu_percent", alone.waited_for_cpu_percent);
    figures.say("samples", alone.freshness.samples());
    let (p50, p99) = (alone.freshness.quantile_ms(0.5), alone.freshness.quantile_ms(0.99));
    figures.measured("freshness_p50_ms", p50);
    figures.measured("freshness_p99_ms", p99);
    figures.measured("freshness_max_ms", alone.freshness.quantile_ms(1.0));
    // Each reader follows one view.
    figures.measured("view_bytes_per_s", alone.socket_bytes_per_s);
    figures.measured("socket_bytes_per_s", alone.socket_bytes_per_s);
    figures.measured("all_sockets_bytes_per_s", alone.socket_bytes_per_s * n as f64);
    for (process, cpu_percent, memory_mib) in &alone.used {
        figures.measured(format!("{process}_cpu_percent"), *cpu_percent);
        figures.measured(format!("{process}_memory_mib"), *memory_mib);
    }
    figures.measured("storm_p50_s", storm_p50_s);
    figures.measured("storm_all_s", storm_all_s);
    figures.say("stalled_readers", n);
    figures.say("stalled_readers_kept", (kept / STALLED_VIEWS.min(views.len()) as f64).round());
    let (stalled_p50, stalled_p99) = (beside.freshness.quantile_ms(0.5), beside.freshness.quantile_ms(0.99));
    figures.measured("beside_stalled_events_per_s", beside.events_per_s);
    figures.measured("beside_stalled_waited_for_cpu_percent", beside.waited_for_cpu_percent);
    figures.measured("beside_stalled_freshness_p50_ms", stalled_p50);
    figures.measured("beside_stalled_freshness_p99_ms", stalled_p99);
    figures.measured("beside_stalled_p50_ratio", stalled_p50 / p50);
    figures.measured("beside_stalled_p99_ratio", stalled_p99 / p99);
    for (process, cpu_percent, memory_mib) in &beside.used {
        figures.measured(format!("beside_stalled_{process}_cpu_percent"), *cpu_percent);
        figures.measured(format!("beside_stalled_{process}_memory_mib"), *memory_mib);
    }
    figures.print(args.json);
    let mut ok = true;
    for (what, value, most) in [
        ("freshness p99, ms", p99, FRESHNESS_P99_MS_MAX),
        ("freshness p99 beside stalled readers, ms", stalled_p99, FRESHNESS_P99_MS_MAX),
        ("recovery of all readers, s", storm_all_s, RECOVERY_S_MAX),
    ] {
        if value.is_nan() || value >= most {
            eprintln!("not as it must be: {what} is {value:.0}, not under {most}");
            ok = false;
        }
    }
    if !ok {
        eprintln!("if something waited for a CPU most of the time, close what else runs");
    }
    Ok(ok)
}

/// Has all readers read for a while.
async fn measure(
    args: &Args,
    cluster: &Cluster,
    load: &mut Load,
    entered: Vec<Reader>,
) -> Result<(Vec<Reader>, Measured)> {
    let usages = || usages(cluster, "bench");
    let bytes = |readers: &[Reader]| readers.iter().map(Reader::received_bytes).sum::<u64>() as f64;
    let entered = readers::read(entered, Instant::now() + WARM_UP).await?;
    let before_waited_s = waited_for_cpu_s();
    let (before, before_bytes) = (usages()?, bytes(&entered));
    let began = Instant::now();
    let to = began + Duration::from_secs(args.seconds);
    let entered = readers::read(entered, to + GRACE).await?;
    let wall_s = began.elapsed().as_secs_f64();
    let after = usages()?;
    let waited_s = waited_for_cpu_s() - before_waited_s;
    let acks = load.acks().await?;
    let mut freshness = Freshness::default();
    for reader in &entered {
        reader.judge(&acks, (began, to), &mut freshness);
    }
    let events: u64 =
        acks.iter().filter(|ack| (began..to).contains(&ack.at)).flat_map(|ack| ack.pages).map(u64::from).sum();
    let used = before
        .iter()
        .zip(&after)
        .map(|((name, before), (_, after))| (*name, after.cpu_percent_since(before), after.memory_mib));
    let measured = Measured {
        freshness,
        events_per_s: events as f64 / args.seconds as f64,
        socket_bytes_per_s: (bytes(&entered) - before_bytes) / entered.len() as f64 / wall_s,
        waited_for_cpu_percent: 100.0 * waited_s / wall_s,
        used: used.collect(),
    };
    Ok((entered, measured))
}
