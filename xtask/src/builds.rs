//! What is built: the programs by one cargo command, the SDK, then the Worker and the dashboard, each in a profile of its own.

use std::fs;
use std::process::Command;

use crate::steps::{Step, cargo, command, root};

/// All that runs natively. The Worker is Wasm: chosen with the rest, it would change the features of what they share, and
/// have all of it built twice.
pub(crate) const NATIVE: [&str; 3] = ["--workspace", "--exclude", "catchment-edge-worker"];

/// The programs, in `target/debug`, with features beside the usual.
pub(crate) fn programs(features: &[&str]) -> Result<(), String> {
    let mut build = native("build", &["--bins"]);
    build.args(features);
    Step::begin("build relay, aggregator and harness").run(build)
}

/// The programs that operators run, in `target/release`: optimised in full.
pub(crate) fn released() -> Result<(), String> {
    let build = cargo(&["build", "--release", "-p", "catchment-relay", "-p", "catchment-aggregator"]);
    Step::begin("build relay and aggregator, optimised").run(build)
}

/// The SDK, in `target/sdk`: checked, then bundled.
pub(crate) fn sdk() -> Result<(), String> {
    // Whatever an earlier build left would be published, too.
    fs::remove_dir_all(root().join("target/sdk")).ok();
    let mut check = command(".tools/node/node_modules/.bin/tsc", &[]);
    check.args(["--project", "sdk"]);
    Step::begin("check the SDK's types").run(check)?;
    Step::begin("bundle the SDK").run(command("node", &["sdk/build.mjs"]))
}

/// The Worker, in `target/edge`, with the SDK that it serves.
pub(crate) fn edge() -> Result<(), String> {
    sdk()?;
    let worker = ["-p", "catchment-edge-worker", "--profile", "wasm", "--target", "wasm32-unknown-unknown"];
    let mut build = cargo(&["build"]);
    build.args(worker);
    Step::begin("build the Worker").run(build)?;
    let bundle = root().join("target/debug/catchment-edge-bundle");
    let wasm = root().join("target/wasm32-unknown-unknown/wasm/catchment_edge_worker.wasm");
    let mut bundle = command(&bundle.to_string_lossy(), &[]);
    bundle.arg("--wasm").arg(wasm).arg("--sdk").arg(root().join("target/sdk"));
    bundle.arg("--out").arg(root().join("target/edge"));
    Step::begin("bundle the Worker").run(bundle)
}

/// The dashboard, in `target/dashboard`.
pub(crate) fn dashboard() -> Result<(), String> {
    let page = ["-p", "catchment-dashboard", "--profile", "page", "--target", "wasm32-unknown-unknown"];
    let mut build = cargo(&["build"]);
    build.args(page);
    Step::begin("build the dashboard").run(build)?;
    let bundle = root().join("target/debug/catchment-edge-bundle");
    let wasm = root().join("target/wasm32-unknown-unknown/page/catchment_dashboard.wasm");
    let mut bind = command(&bundle.to_string_lossy(), &[]);
    bind.arg("--page")
        .arg(wasm)
        .args(["--name", "dashboard"])
        .arg("--out")
        .arg(root().join("target/dashboard-bindgen"));
    Step::begin("bind the dashboard to its page").run(bind)?;
    Step::begin("bundle the dashboard").run(command("node", &["dashboard-wasm/build.mjs"]))
}

/// What the collector's bench runs, optimised as the Worker is: natively and as Wasm.
pub(crate) fn workload() -> Result<(), String> {
    let optimised = ["build", "-p", "catchment-workload", "--profile", "wasm"];
    Step::begin("build the workload").run(cargo(&optimised))?;
    let mut wasm = cargo(&optimised);
    wasm.args(["--lib", "--target", "wasm32-unknown-unknown"]);
    Step::begin("build the workload as Wasm").run(wasm)
}

/// A cargo command over [`NATIVE`].
pub(crate) fn native(subcommand: &str, args: &[&str]) -> Command {
    let mut command = cargo(&[subcommand]);
    command.args(NATIVE).args(args);
    command
}
