//! Turns the Worker's .wasm into what workerd loads: JS modules, the .wasm, and a config.
//!
//! `catchment-edge-bundle --wasm FILE --out DIR`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, error, fs};

use wasm_bindgen_cli_support::Bindgen;

/// Exports what workerd looks for: `fetch` and the class of the shards.
const ENTRY: &str = include_str!("worker.js");
/// One workerd: Worker, shards, their folder.
const CONFIG: &str = include_str!("workerd.capnp");
/// Where in it the modules stand that crates bring along.
const SNIPPETS: &str = "    # snippets\n";
/// The name of the modules that the entry imports.
const STEM: &str = "catchment";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [wasm_flag, wasm, out_flag, out] = &arguments[..] else {
        eprintln!("usage: catchment-edge-bundle --wasm FILE --out DIR");
        return ExitCode::from(2);
    };
    if wasm_flag != "--wasm" || out_flag != "--out" {
        eprintln!("usage: catchment-edge-bundle --wasm FILE --out DIR");
        return ExitCode::from(2);
    }
    match bundle(Path::new(wasm), &PathBuf::from(out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the Worker can't be bundled: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bundle(wasm: &Path, out: &Path) -> Result<(), Box<dyn error::Error>> {
    if !wasm.is_file() {
        return Err(format!("{} is not there", wasm.display()).into());
    }
    let snippets = out.join("snippets");
    if snippets.exists() {
        fs::remove_dir_all(&snippets)?;
    }
    fs::create_dir_all(out)?;
    let mut bindgen = Bindgen::new();
    bindgen.input_path(wasm).out_name(STEM).bundler(true)?.typescript(false);
    bindgen.remove_name_section(true).remove_producers_section(true).generate(out)?;
    let mut modules = String::new();
    if snippets.exists() {
        list_modules(out, &snippets, &mut modules)?;
    }
    fs::write(out.join("worker.js"), ENTRY)?;
    fs::write(out.join("workerd.capnp"), CONFIG.replace(SNIPPETS, &modules))?;
    Ok(())
}

/// Writes a module of the config for each file of a folder, with its path in `out` as its name.
fn list_modules(out: &Path, folder: &Path, modules: &mut String) -> Result<(), Box<dyn error::Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list_modules(out, &path, modules)?;
        } else {
            let name = path.strip_prefix(out)?.display().to_string();
            modules.push_str(&format!("    (name = {name:?}, esModule = embed {name:?}),\n"));
        }
    }
    Ok(())
}
