//! Every kept input again, and changes of them: what libFuzzer does longer, without it.

#![cfg(test)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{env, fs};

use catchment_fuzz::mutate::{Random, mutate};
use catchment_fuzz::{TARGETS, run};

/// The kept inputs of a target, by name, so that each run is the same.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Replays what is kept of a target, and so many changes of it.
fn check(name: &str, mutations: usize) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seed = env::var("CATCHMENT_SEED").map_or(4, |seed| seed.parse().unwrap());
    println!("CATCHMENT_SEED={seed}");
    let inputs = corpus(name);
    let taken = inputs.iter().filter(|input| run(name, input)).count();
    assert!(taken > 0, "of {} inputs none is taken: changes of them would only meet the first check", inputs.len());
    let mut random = Random::new(seed);
    for _ in 0..mutations {
        let mut input = inputs[random.below(inputs.len())].clone();
        mutate(&mut input, &inputs[random.below(inputs.len())], target.bytes_max, &mut random);
        if catch_unwind(AssertUnwindSafe(|| run(name, &input))).is_err() {
            let path = env::temp_dir().join(format!("catchment-fuzz-{name}-{seed}"));
            fs::write(&path, &input).unwrap();
            panic!("{name} breaks its promise on what is in {}", path.display());
        }
    }
}

macro_rules! checks {
    ($($name:ident: $mutations:literal,)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name), $mutations);
        })*

        #[test]
        fn every_target_is_checked() {
            let checked: Vec<&str> = vec![$(stringify!($name)),*];
            assert_eq!(checked, TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
        }
    };
}

checks! {
    ack: 200_000,
    acks: 100_000,
    blocks: 20_000,
    cell: 20_000,
    config: 20_000,
    credential: 100_000,
    cube: 200_000,
    dashboard: 5_000,
    datasketches: 20_000,
    dictionary: 100_000,
    digest: 50_000,
    events: 30_000,
    frame: 100_000,
    framing: 200_000,
    gzip: 4_000,
    hop: 200_000,
    key: 200_000,
    live: 50_000,
    mark: 100_000,
    merged: 20_000,
    mirror: 30_000,
    question: 100_000,
    route: 200_000,
    rows: 20_000,
    said: 50_000,
    stretch: 50_000,
    told: 100_000,
    users: 8_000,
}
