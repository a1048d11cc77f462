//! Turns the Worker's .wasm and the SDK's scripts into what workerd loads: JS modules, the .wasm, and a config; or a page's
//! .wasm into what browsers load: a JS module, and the .wasm.
//!
//! `catchment-edge-bundle --wasm FILE --sdk DIR --out DIR`, or `… --page FILE --name NAME --out DIR`

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::ExitCode;
use std::{env, error, fs};

use serde_json::{Value, json};
use wasm_bindgen_cli_support::Bindgen;

/// Exports what workerd looks for: `fetch` and the class of the shards.
const ENTRY: &str = include_str!("worker.js");
/// Answers for the SDK's scripts.
const SCRIPTS: &str = include_str!("scripts.js");
/// One workerd: Worker, shards, their folder.
const CONFIG: &str = include_str!("workerd.capnp");
/// Where in it the modules stand that crates bring along.
const SNIPPETS: &str = "    # snippets\n";
/// The name of the modules that the entry imports.
const STEM: &str = "catchment";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["--wasm", wasm, "--sdk", sdk, "--out", out] => bundle(Path::new(wasm), Path::new(sdk), Path::new(out)),
        ["--page", wasm, "--name", name, "--out", out] => bind(Path::new(wasm), name, Path::new(out)),
        _ => {
            eprintln!("usage: catchment-edge-bundle --wasm FILE --sdk DIR --out DIR");
            eprintln!("       catchment-edge-bundle --page FILE --name NAME --out DIR");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} can't be bundled: {error}", arguments[1]);
            ExitCode::FAILURE
        }
    }
}

/// For a page.
fn bind(wasm: &Path, name: &str, out: &Path) -> Result<(), Box<dyn error::Error>> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(wasm).out_name(name).web(true)?.typescript(false);
    bindgen.remove_name_section(true).remove_producers_section(true).generate(out)?;
    Ok(())
}

/// For workerd.
fn bundle(wasm: &Path, sdk: &Path, out: &Path) -> Result<(), Box<dyn error::Error>> {
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
    fs::write(out.join("sdk.js"), scripts(sdk)?)?;
    fs::write(out.join("scripts.js"), SCRIPTS)?;
    fs::write(out.join("worker.js"), ENTRY)?;
    fs::write(out.join("workerd.capnp"), CONFIG.replace(SNIPPETS, &modules))?;
    Ok(())
}

/// A module with the SDK's scripts for browsers, those that are called `catchment…`: `{"/path": {text, tag}}`, where the tag
/// changes with the text.
fn scripts(sdk: &Path) -> Result<String, Box<dyn error::Error>> {
    let mut scripts = serde_json::Map::new();
    for entry in fs::read_dir(sdk).map_err(|error| format!("{}: {error}", sdk.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("catchment") && name.ends_with(".js") {
            let text = fs::read_to_string(&path)?;
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            let tag = format!("{:016x}", hasher.finish());
            scripts.insert(format!("/{name}"), json!({"text": text, "tag": tag}));
        }
    }
    if scripts.is_empty() {
        return Err(format!("{} has no script", sdk.display()).into());
    }
    Ok(format!("export default {};\n", Value::Object(scripts)))
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
