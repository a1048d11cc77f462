//! What an operator gets wrong is answered with one plain sentence and exit code 2.

#![cfg(test)]

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use catchment_harness::{Cluster, paths};

/// Runs a program that should not start.
fn refused(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(stdout.is_empty());
    assert_eq!(text.trim_end().lines().count(), 1, "one sentence, not: {text}");
    assert!(!text.contains("panicked") && !text.contains("Error {"), "{text}");
    text
}

/// A program with a changed copy of the configuration that it runs with elsewhere.
fn with_config(program: &str, config: &Path, change: impl FnOnce(String) -> String) -> (Command, PathBuf) {
    let text = change(fs::read_to_string(config).unwrap());
    let path = config.with_extension("changed.toml");
    fs::write(&path, text).unwrap();
    let mut command = Command::new(paths::program(program).unwrap());
    command.arg("--config").arg(&path);
    (command, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_process_from_starting_is_one_sentence() {
    let mut cluster = Cluster::builder().start().await.unwrap();
    for process in cluster.processes() {
        process.kill();
    }
    let folder = cluster.folder().to_owned();
    for (program, config, listens) in [
        ("catchment-relay", "relay-eu.toml", "listen"),
        ("catchment-aggregator", "aggregator-eu.toml", "http"),
        ("catchment-aggregator", "aggregator-eu.toml", "link"),
    ] {
        let config = folder.join(config);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let _taken_too = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let elsewhere = |text: String| {
            let line = |line: &str| match line.starts_with(&format!("{listens} =")) {
                true => format!("{listens} = \"127.0.0.1:{port}\"\n"),
                false => format!("{line}\n"),
            };
            text.lines().map(line).collect()
        };
        let message = refused(with_config(program, &config, elsewhere).0);
        assert!(message.contains(&port.to_string()), "{message}");

        let (command, path) = with_config(program, &config, |text| format!("nonsense = [\n{text}"));
        let message = refused(command);
        assert!(message.contains(path.to_str().unwrap()), "{message}");

        let (command, _) = with_config(program, &config, |text| format!("typo = 1\n{text}"));
        assert!(refused(command).contains("typo"));

        let (command, _) = with_config(program, &config, |text| text.replace("ca.pem", "no-such-file.pem"));
        assert!(refused(command).contains("no-such-file.pem"));

        let mut command = Command::new(paths::program(program).unwrap());
        command.args(["--config", "no-such-file.toml"]);
        assert!(refused(command).contains("no-such-file.toml"));
    }
    let config = folder.join("aggregator-eu.toml");
    fs::write(folder.join("short"), "short").unwrap();
    let (command, _) = with_config("catchment-aggregator", &config, |text| text.replace("\"secret\"", "\"short\""));
    assert!(refused(command).contains("32"));
}

#[test]
fn a_missing_tool_is_named_with_its_remedy() {
    let mut command = Command::new(paths::program("catchment-xtask").unwrap());
    command.args(["demo", "--once"]).env("PATH", "/nonexistent");
    let message = refused(command);
    assert!(message.contains("cc is missing") && message.contains("build-essential"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let mut command = Command::new(paths::program("demo").unwrap());
    command.args(["--once", "no-such-file.ndjson"]);
    assert!(refused(command).contains("no-such-file.ndjson"));
}
