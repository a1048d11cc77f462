//! The binary: its ready line, its end, and what it says when it can't start.
#![expect(clippy::unwrap_used, reason = "these are tests, helpers and all")]

#[path = "../../../link/tests/pki/mod.rs"]
mod pki;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pki::Authority;

fn relay(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_catchment-relay"));
    command.arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn config(authority: &Authority, listen: &str) -> PathBuf {
    authority.issue("relay");
    std::fs::write(authority.folder.join("token"), "let-me-in\n").unwrap();
    let path = authority.folder.join("relay.toml");
    let text = format!(
        "listen = '{listen}'\ntoken_file = 'token'\n\n[tls]\nca = 'ca.pem'\ncert = 'relay.pem'\nkey = 'relay.key'\n\n\
         [homes]\neu = '127.0.0.1:7101'\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// Starts it, expects it to give up, and answers what it says.
fn refusal(config: &Path) -> String {
    let output = relay(config).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn it_says_when_it_is_ready_and_ends_when_told_to() {
    let authority = Authority::new();
    let mut child = relay(&config(&authority, "127.0.0.1:0")).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("{\"ready\":true,\"http\":\"").and_then(|rest| rest.strip_suffix("\"}\n")).unwrap();
    assert!(std::net::TcpStream::connect(address).is_ok());
    assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_port_in_use_is_one_sentence() {
    let authority = Authority::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(refusal(&config(&authority, &address)), format!("{address} is in use by another process\n"));
}

#[test]
fn a_bad_config_is_a_sentence_for_each_mistake() {
    let authority = Authority::new();
    let path = config(&authority, "127.0.0.1:0");
    let good = std::fs::read_to_string(&path).unwrap();
    let says = |text: &str| {
        std::fs::write(&path, text).unwrap();
        refusal(&path)
    };
    let unknown = says(&good.replace("[homes]", "[houses]"));
    assert!(unknown.contains("line 9: unknown field `houses`") && unknown.lines().count() == 1, "{unknown}");
    let two = says(&good.replace("relay.key", "absent.key").replace("127.0.0.1:7101", "7101"));
    assert!(two.contains("absent.key") && two.contains("homes.eu") && two.lines().count() == 2, "{two}");
    std::fs::remove_file(&path).unwrap();
    let absent = refusal(&path);
    assert!(absent.contains("relay.toml") && absent.lines().count() == 1, "{absent}");
}
