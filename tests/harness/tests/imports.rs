//! Which part may know which: ARCHITECTURE.md, held against what cargo says.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use catchment_harness::paths;
use serde_json::Value;

/// Package → the names it depends on; `dev` says whether those of its tests are among them.
fn dependencies(dev: bool) -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--no-deps"]).current_dir(paths::root());
    let metadata: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let package = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let names = dependencies.filter(|dependency| dev || dependency["kind"] != "dev");
        let names = names.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
        (package["name"].as_str().unwrap().to_owned(), names)
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

fn ours(names: &BTreeSet<String>) -> Vec<&str> {
    names.iter().map(String::as_str).filter(|name| name.starts_with("catchment-")).collect()
}

#[test]
fn imports_point_at_cells_and_never_across() {
    let expected: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("catchment-cells", &[][..]),
        ("catchment-config", &["catchment-cells"]),
        ("catchment-cells-wasm-check", &["catchment-cells"]),
        ("catchment-collector", &["catchment-cells", "catchment-config"]),
        ("catchment-edge-worker", &["catchment-cells", "catchment-collector"]),
        ("catchment-edge-bundle", &[]),
        ("catchment-link", &["catchment-cells"]),
        ("catchment-http", &[]),
        ("catchment-relay", &["catchment-cells", "catchment-http", "catchment-link"]),
        ("catchment-aggregator-core", &["catchment-cells"]),
        (
            "catchment-aggregator",
            &["catchment-aggregator-core", "catchment-cells", "catchment-config", "catchment-http", "catchment-link"],
        ),
        ("catchment-dashboard", &["catchment-cells"]),
        (
            "catchment-fuzz",
            &[
                "catchment-aggregator-core",
                "catchment-cells",
                "catchment-collector",
                "catchment-config",
                "catchment-dashboard",
                "catchment-link",
            ],
        ),
        ("catchment-harness", &["catchment-cells"]),
        ("catchment-sim", &["catchment-aggregator-core", "catchment-cells", "catchment-collector"]),
        // What the benches send is made as the edge makes it: by the collector.
        ("catchment-workload", &["catchment-cells", "catchment-collector"]),
        (
            "catchment-bench",
            &["catchment-cells", "catchment-collector", "catchment-harness", "catchment-link", "catchment-workload"],
        ),
        ("catchment-questions", &["catchment-cells", "catchment-harness", "catchment-workload"]),
        ("catchment-xtask", &[]),
    ]);
    let packages = dependencies(false);
    let found: BTreeMap<&str, Vec<&str>> = packages.iter().map(|(name, names)| (name.as_str(), ours(names))).collect();
    let expected: BTreeMap<&str, Vec<&str>> =
        expected.into_iter().map(|(name, names)| (name, names.to_vec())).collect();
    assert_eq!(found, expected);
}

#[test]
fn each_engine_is_known_to_one_part() {
    let packages = dependencies(true);
    for (engine, only) in [
        ("fjall", "catchment-aggregator"),
        ("worker", "catchment-edge-worker"),
        ("quinn", "catchment-link"),
        ("web-sys", "catchment-dashboard"),
    ] {
        let users: Vec<&str> =
            packages.iter().filter(|(_, names)| names.contains(engine)).map(|(name, _)| name.as_str()).collect();
        assert_eq!(users, [only], "who depends on {engine}");
    }
    assert!(packages["catchment-xtask"].is_empty());
}
