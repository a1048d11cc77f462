//! `cargo xtask bench`: what the running system manages on this machine.

mod bill;
mod collector;
mod cost;
mod edge;
mod figures;
mod firehose;
mod frames;
mod http;
mod ids;
mod intake;
mod live;
mod load;
mod machine;
mod overload;
mod pipeline;
mod query;
mod readers;
mod shipped;
mod stand;
mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures the real processes.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The collector by itself, natively and as Wasm, beside DuckDB.
    Collector(collector::Args),
    /// Bytes that a shard ships for an event, beside its JSON.
    Bytes(shipped::Args),
    /// What Cloudflare would bill for a load, worked out from what the edge is seen to do.
    Cost(cost::Args),
    /// Events through the edge to the durable commit: at 1, 50 and 500 a request.
    Edge(edge::Args),
    /// More events to one shard than it has ids of in memory.
    Ids(ids::Args),
    /// Frames of 1, 50 and 5,000 events over the link to an aggregator, until they are synced.
    Ingest(intake::Args),
    /// The same frames by HTTP through a relay.
    Relay(intake::Args),
    /// Three months of 50 clients in an aggregator's store: how soon it answers, beside DuckDB and ClickHouse.
    Query(query::Args),
    /// A day in an aggregator's store: what it takes to get there, and to answer from it.
    Store(store::Args),
    /// All processes together: the most events a second whose answers are fresh.
    Pipeline(pipeline::Args),
    /// Ten times as many senders as keep the edge busy: what it takes, what it says to the rest, and whether all is counted.
    Overload(overload::Args),
    /// Readers of live views: how fresh they are, what they cost, and how they come back.
    Live(live::Args),
}

/// Whether all is as it must be.
async fn run(what: What) -> catchment_harness::Result<bool> {
    match what {
        What::Bytes(args) => shipped::run(args).await,
        What::Collector(args) => collector::run(args).await,
        What::Cost(args) => cost::run(args).await,
        What::Edge(args) => edge::run(args).await,
        What::Ids(args) => ids::run(args).await,
        What::Ingest(args) => intake::run(args, intake::Way::Link).await,
        What::Relay(args) => intake::run(args, intake::Way::Relay).await,
        What::Query(args) => query::run(args).await,
        What::Store(args) => store::run(args).await,
        What::Pipeline(args) => pipeline::run(args).await,
        What::Overload(args) => overload::run(args).await,
        What::Live(args) => live::run(args).await,
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let what = Args::parse().what;
    let outcome = tokio::select! {
        // What is dropped half-way stops its processes and removes its folder.
        outcome = run(what) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(false),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(2)
        }
    }
}
