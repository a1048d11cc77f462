//! Dies at each crash point, and starts again. The process that dies is this test's own binary, run for `child` alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use catchment_config::Config;

use super::kit::{Aggregator, DAY, Folder, Shard, client, one};

/// Frames that a child sends.
const FRAMES: u64 = 60;
/// Where the child's store is.
const FOLDER: &str = "CATCHMENT_TEST_FOLDER";

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let mut aggregator = Aggregator::open(&folder);
    let mut shard = Shard::new(1);
    for acked in 1..=FRAMES {
        // The same frames in every process; of few minutes, so that their buckets have many runs.
        aggregator.send(shard.cut(one(&client("a"), DAY + acked as i64 % 3)));
        std::fs::write(folder.join("acked"), format!("{acked}")).unwrap();
        if acked == FRAMES / 2 {
            let config = Config::read(br#"{"time_zone": "Asia/Kathmandu"}"#).unwrap();
            aggregator.configs.put(&client("a"), config, None).unwrap();
        }
        if acked.is_multiple_of(3) {
            aggregator.keep();
        }
    }
}

/// Runs the child, and says whether it died at the point.
fn dies(store: &Path, point: &str) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crashing::child", "--ignored"])
        .env(FOLDER, store)
        .env("CATCHMENT_CRASH_POINT", point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    !status.success()
}

#[test]
fn each_acked_frame_counts_once_wherever_it_dies() {
    for (name, passes) in [
        ("ingest.before_commit", 7),
        ("ingest.after_commit", 7),
        ("ingest.after_merge", 7),
        ("flush.before_commit", 3),
        ("flush.after_commit", 3),
        ("truncate.after", 3),
        ("fold.before_commit", 2),
        ("fold.after_commit", 2),
        ("remove.after_commit", 1),
        ("cut.before_commit", 5),
        ("cut.after_commit", 5),
    ] {
        let folder = Folder::new();
        let store = folder.path().join("store");
        let mut acked = 0;
        // It dies twice: what the second one opens is what the first one left.
        for passes in [passes, 1] {
            assert!(dies(&store, &format!("{name}:{passes}")), "{name}:{passes} was never passed");
            let noted: u64 = std::fs::read_to_string(store.join("acked")).map_or(0, |text| text.parse().unwrap());
            acked = acked.max(noted);
            let counted = Aggregator::open(&store).events(&client("a"));
            assert!(counted == acked || counted == acked + 1, "{name}: {counted} of {acked} acked");
        }
        assert!(!dies(&store, "nowhere"));
        assert_eq!(Aggregator::open(&store).events(&client("a")), FRAMES, "{name}");
    }
}
