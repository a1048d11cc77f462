//! What deploy/ gives operators: configurations that the programs take, units that systemd takes.

#![cfg(test)]

use std::fs;
use std::process::Command;

use catchment_harness::paths;

#[test]
fn samples_lack_nothing_but_the_secrets_and_certificates() {
    let folder = paths::root().join("deploy");
    for (program, config, args, missing) in [
        ("catchment-relay", "relay.toml", &[][..], &["relay/token", "ca.pem"][..]),
        ("catchment-aggregator", "aggregator.toml", &["--keys", "shop"], &["aggregator/secret"]),
    ] {
        let mut command = Command::new(paths::program(program).unwrap());
        let output = command.arg("--config").arg(folder.join(config)).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), missing.len(), "{said}");
        for (line, missing) in said.lines().zip(missing) {
            assert!(line.contains(missing) && line.contains("No such file"), "{said}");
        }
    }
}

#[test]
fn units_run_what_is_installed_with_flags_that_are_known() {
    let read = |name: &str| fs::read_to_string(paths::root().join("deploy").join(name)).unwrap();
    for (unit, program, config) in [
        ("catchment-relay.service", "catchment-relay", "relay.toml"),
        ("catchment-aggregator.service", "catchment-aggregator", "aggregator.toml"),
    ] {
        let start = format!("ExecStart=/usr/bin/{program} --config /etc/catchment/{config}");
        assert!(read(unit).lines().any(|line| line == start), "{unit}");
    }
    let edge = read("catchment-edge.service");
    let start = edge.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let help = Command::new(paths::workerd().unwrap()).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8([help.stdout, help.stderr].concat()).unwrap();
    for flag in start.split(' ').filter(|word| word.starts_with("--")) {
        assert!(help.contains(flag), "{flag}");
    }
    let settings = fs::read_to_string(paths::edge_config().unwrap()).unwrap();
    let sample = read("edge.env");
    let wanted: Vec<&str> =
        settings.split("fromEnvironment = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(!wanted.is_empty());
    for name in wanted {
        // What is optional stands there as a comment.
        let setting = format!("{name}=");
        assert!(sample.lines().any(|line| line.trim_start_matches('#').starts_with(&setting)), "{name}");
    }
}
