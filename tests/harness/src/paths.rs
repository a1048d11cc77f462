//! Where `cargo xtask` puts what the harness runs.

use std::path::{Path, PathBuf};

use crate::{Failure, Result};

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The bundled trace: a space centre's web log.
pub fn bundled_trace() -> PathBuf {
    root().join("tests/data/nasa-1995-08-01.ndjson.gz")
}

/// A program of ours, in the folder this one was built into.
pub fn program(name: &str) -> Result<PathBuf> {
    let current = std::env::current_exe().map_err(Failure::at("finding the built programs"))?;
    let built = current.ancestors().skip(1).map(|folder| folder.join(name)).find(|path| path.is_file());
    built.ok_or_else(|| Failure(format!("{name} is not built: run it through cargo xtask demo or cargo xtask test.")))
}

/// workerd.
pub fn workerd() -> Result<PathBuf> {
    set_up(root().join(".tools/workerd"))
}

/// The bundled Worker's configuration for workerd.
pub fn edge_config() -> Result<PathBuf> {
    set_up(root().join("target/edge/workerd.capnp"))
}

/// The built dashboard.
pub fn dashboard() -> Result<PathBuf> {
    set_up(root().join("target/dashboard/index.html")).map(|page| page.with_file_name(""))
}

/// The example shop's pages.
pub fn shop() -> Result<PathBuf> {
    set_up(root().join("sdk/example/index.html")).map(|page| page.with_file_name(""))
}

fn set_up(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path);
    }
    Err(Failure(format!("{} is missing: cargo xtask demo or cargo xtask test sets it up.", path.display())))
}
