//! `cargo xtask test fuzz`: every target, driven by libFuzzer for some seconds each, over what is kept.

use std::fs;
use std::process::{Command, ExitCode};

use crate::steps::{Step, cargo, command, root};
use crate::tools;

pub(crate) const USAGE: &str = "usage: cargo xtask test fuzz [--seconds N] [TARGET…]";
const SECONDS: u32 = 10;
const FOLDER: &str = "tests/fuzz";

/// What cargo-fuzz passes with `--sanitizer none`: counters of what is reached and of what is compared, and checks of overflow.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "--cfg=fuzzing",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
];

/// Builds the targets that are named, or all, and runs one after the other; stops at the first that breaks a promise.
pub(crate) fn run(args: &[String]) -> Result<ExitCode, String> {
    let (mut seconds, mut targets) = (SECONDS, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => {
                let given = args.next().and_then(|given| given.parse().ok()).filter(|&given| given > 0);
                seconds = given.ok_or(USAGE)?;
            }
            name if name.starts_with('-') => return Err(USAGE.into()),
            name => targets.push(name.to_owned()),
        }
    }
    let all = all()?;
    if let Some(unknown) = targets.iter().find(|name| !all.contains(name)) {
        return Err(format!("there is no target {unknown}; there are {}", all.join(", ")));
    }
    let targets = if targets.is_empty() { all } else { targets };
    tools::compiler()?;
    let triple = host()?;
    let mut build = cargo(&["build", "-p", "catchment-fuzz", "--features", "libfuzzer", "--release"]);
    // With a target named, the flags hold for what runs on it, and not for build scripts.
    build.args(["--target", &triple, "--target-dir", "target/fuzz"]).env("RUSTFLAGS", FLAGS.join(" "));
    targets.iter().for_each(|name| _ = build.args(["--bin", name]));
    Step::begin("build the fuzz targets").run(build)?;
    for name in &targets {
        Step::say(&format!("fuzz {name}"));
        let found = root().join("target/fuzz/found").join(name);
        let artifacts = root().join("target/fuzz/artifacts").join(name);
        for folder in [&found, &artifacts] {
            fs::create_dir_all(folder).map_err(|error| format!("{} can't be made: {error}", folder.display()))?;
        }
        let program = root().join("target/fuzz").join(&triple).join("release").join(name);
        let mut fuzz = Command::new(program);
        // What is new goes to the first folder; what is kept is only read.
        fuzz.current_dir(root()).arg(&found).arg(root().join(FOLDER).join("corpus").join(name));
        fuzz.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(format!("-max_total_time={seconds}"));
        fuzz.args(["-max_len=16384", "-timeout=10", "-rss_limit_mb=4096", "-verbosity=0", "-print_final_stats=1"]);
        Step::begin("fuzz")
            .run(fuzz)
            .map_err(|error| format!("{name}: {error}; the input is in {}", artifacts.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The targets there are.
fn all() -> Result<Vec<String>, String> {
    let folder = root().join(FOLDER).join("fuzz_targets");
    let read = |error| format!("{} can't be read: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// What the compiler calls this machine.
fn host() -> Result<String, String> {
    let output = command("rustc", &["-vV"]).output().map_err(|error| format!("rustc can't be asked: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc doesn't say what it builds for".into())
}
