//! `stage`: a running deployment for tests in other languages. One line of JSON on stdout says where everything is; each
//! line of JSON on stdin is a [`Command`], answered by one line. Ends, with all of its processes, once stdin closes.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use catchment_cells::ClientId;
use catchment_cells::credential::{Identity, WriteKey};
use catchment_harness::{Cluster, Exact, Failure, Fault, Result, Sender, Shop, Trace, paths};
use clap::Parser;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How long a process may take to end by itself.
const TERM_PATIENCE: Duration = Duration::from_secs(20);

/// Starts an edge, relays and aggregators, and obeys stdin.
#[derive(Debug, Parser)]
struct Args {
    /// Regions that users are split over; two have a central aggregator, which is the one to ask.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    regions: u8,
    /// Puts a proxy before the edge and before each relay, for `fault`.
    #[arg(long)]
    proxies: bool,
    /// Has the aggregators serve the dashboard.
    #[arg(long)]
    dashboard: bool,
}

/// What can be asked of the stage, such as `{"kill":"edge"}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    /// Ends a process at once: `edge`, `relay-eu`, `aggregator-eu`, …
    Kill(String),
    /// Asks a process to end, and waits until it has.
    Term(String),
    /// Starts a process, and waits until it is ready.
    Start(String),
    /// Lets the proxy before `edge` or `relay-…` do harm.
    Fault { before: String, fault: Fault },
    /// Mints keys.
    Client(Client),
    /// Opens the example shop, which counts with a write key.
    Shop { key: String },
    /// Sends a trace, its last event moved to `last` (ms since 1970), and answers with its exact figures.
    Replay { file: Option<PathBuf>, key: String, last: i64, every: Option<usize> },
}

/// A client, and whom its uniques count.
#[derive(Debug, Deserialize)]
struct Client {
    client: String,
    identity: Mode,
    #[serde(default)]
    backfill: bool,
}

/// [`Identity`], by name.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    User,
    Device,
    Daily,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate()).map_err(Failure::at("waiting for SIGTERM"))?;
    let mut builder = Cluster::builder().regions(args.regions.into()).central(args.regions > 1);
    if args.proxies {
        builder = builder.proxies();
    }
    if args.dashboard {
        builder = builder.dashboard(paths::dashboard()?);
    }
    let mut lines = stdin();
    let mut cluster = tokio::select! {
        cluster = builder.start() => cluster?,
        _ = terminated.recv() => return Ok(()),
    };
    let clients = [("user", Mode::User), ("device", Mode::Device), ("daily", Mode::Daily)];
    let clients = clients.map(|(name, identity)| Client { client: name.into(), identity, backfill: false });
    let clients: Result<Vec<Value>> = clients.iter().map(|client| keys(&cluster, client)).collect();
    let any = ClientId::new("any").map_err(Failure::at("a client's name"))?;
    say(&json!({
        "edge": cluster.edge_url(),
        "aggregator": cluster.api(&any).credentials().0,
        "folder": cluster.folder(),
        "clients": clients?,
    }));
    let mut shops = Vec::new();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = terminated.recv() => None,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(line) = line else { return Ok(()) };
        let answer = match serde_json::from_str(&line) {
            Ok(command) => obey(&mut cluster, &mut shops, command).await,
            Err(error) => Err(Failure(format!("{line} is no command: {error}"))),
        };
        say(&answer.unwrap_or_else(|failure| json!({"error": failure.to_string()})));
    }
}

async fn obey(cluster: &mut Cluster, shops: &mut Vec<Shop>, command: Command) -> Result<Value> {
    match command {
        Command::Kill(name) => process(cluster, &name)?.kill(),
        Command::Term(name) => _ = process(cluster, &name)?.terminate(TERM_PATIENCE).await?,
        Command::Start(name) => process(cluster, &name)?.start().await?,
        Command::Fault { before, fault } => {
            let relay = |name: &str| cluster.regions.iter().find(|region| region.relay.name() == name);
            let proxy = match before.as_str() {
                "edge" => cluster.before_edge.as_ref(),
                name => relay(name).and_then(|region| region.before_relay.as_ref()),
            };
            proxy.ok_or_else(|| Failure(format!("there is no proxy before {before}")))?.set(fault);
        }
        Command::Client(client) => return keys(cluster, &client),
        Command::Shop { key } => {
            let shop = Shop::start(&paths::shop()?, cluster.edge_url(), &key).await?;
            let url = json!({"url": shop.url()});
            shops.push(shop);
            return Ok(url);
        }
        Command::Replay { file, key, last, every } => {
            let trace = Trace::open(&file.unwrap_or_else(paths::bundled_trace))?;
            let trace = trace.every(every.unwrap_or(1)).ending_at(last)?;
            let sent = Sender::new(cluster.edge_url().into(), key).replay(&trace).await?;
            let exact = Exact::of(&trace.lines);
            return Ok(json!({
                "accepted": sent.accepted, "rejected": sent.rejected.len(), "events": exact.events, "users": exact.users,
                "span": exact.span(), "types": exact.types, "pages": exact.top_pages(100),
            }));
        }
    }
    Ok(json!({}))
}

fn process<'a>(cluster: &'a mut Cluster, name: &str) -> Result<&'a mut catchment_harness::Process> {
    let found = cluster.processes().find(|process| process.name() == name);
    found.ok_or_else(|| Failure(format!("there is no process {name}")))
}

fn keys(cluster: &Cluster, Client { client, identity, backfill }: &Client) -> Result<Value> {
    let id = ClientId::new(client).map_err(Failure::at("a client's name"))?;
    let api = cluster.api(&id);
    let write = WriteKey {
        client: id,
        identity: (*identity).into(),
        backfill: *backfill,
        ignore_foreign_client: false,
        generation: 1,
    };
    Ok(json!({"client": client, "write_key": cluster.write_key(&write), "read_key": api.credentials().1}))
}

fn say(line: &Value) {
    println!("{line}");
    std::io::stdout().flush().ok();
}

/// Lines of stdin, read by a thread of their own: nothing that ends the stage has to wait for it.
fn stdin() -> mpsc::UnboundedReceiver<String> {
    let (lines, received) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(|line| line.ok()) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    received
}

impl From<Mode> for Identity {
    fn from(mode: Mode) -> Identity {
        match mode {
            Mode::User => Identity::User,
            Mode::Device => Identity::Device,
            Mode::Daily => Identity::Daily,
        }
    }
}
