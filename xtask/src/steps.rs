//! Steps: a command with a name, how long it took, and one plain sentence if it fails.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// One thing that is done, announced on stderr (stdout belongs to what the demo prints).
pub(crate) struct Step {
    name: &'static str,
    started: Instant,
}

impl Step {
    /// Names what begins.
    pub(crate) fn begin(name: &'static str) -> Step {
        Step::say(name);
        Step { name, started: Instant::now() }
    }

    /// Names something without measuring it.
    pub(crate) fn say(text: &str) {
        eprintln!("▸ {text}");
    }

    /// Runs the step's command to its end; its output is the user's.
    pub(crate) fn run(self, mut command: Command) -> Result<(), String> {
        let program = command.get_program().to_string_lossy().into_owned();
        // Whatever a tool says while it works is not the demo's answer.
        let status =
            command.stdout(Stdio::from(std::io::stderr())).status().map_err(|error| missing(&program, error))?;
        if !status.success() {
            return Err(format!("{} failed: {program} ended with {status}", self.name));
        }
        self.end();
        Ok(())
    }

    /// Says how long the step took.
    pub(crate) fn end(self) {
        eprintln!("  {}: {:.1} s", self.name, self.started.elapsed().as_secs_f64());
    }
}

/// Why a program doesn't start, and what gives it.
pub(crate) fn missing(program: &str, error: std::io::Error) -> String {
    let remedy = match Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program) {
        "npm" | "node" => "install Node.js 20 or newer with npm (https://nodejs.org)",
        "rustup" => "install it from https://rustup.rs",
        "cc" => "install build-essential (or your system's C compiler)",
        _ => "install it",
    };
    match error.kind() {
        ErrorKind::NotFound => format!("{program} is missing: {remedy}."),
        _ => format!("{program} can't be started: {error}."),
    }
}

/// A command in the checkout.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// Cargo, as if called by hand: what `cargo run` tells us of xtask would make build scripts that watch these
/// variables (ring's) run again, and all that depends on them be built again.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = command(&env::var("CARGO").unwrap_or_else(|_| "cargo".into()), args);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Whether a command can be run and succeeds, silently.
pub(crate) fn works(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
