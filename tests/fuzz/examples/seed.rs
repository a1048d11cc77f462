//! Writes the inputs to begin with into `corpus`, one file each: `cargo run -p catchment-fuzz --example seed`.

use std::path::Path;
use std::{fs, io};

use catchment_fuzz::{TARGETS, seeds};

fn main() -> io::Result<()> {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        fs::create_dir_all(&folder)?;
        for (i, seed) in seeds::of(target.name).into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{i:02}")), seed)?;
        }
    }
    Ok(())
}
