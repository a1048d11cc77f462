//! Our images of users open in PyPI `datasketches`, and its images here: the same users are the same set.

use std::path::Path;
use std::process::Command;

use catchment_cells::users::{Coupon, Users};

/// On both sides of where a form ends, here and there: list, set, registers.
const SIZES: [u64; 10] = [0, 1, 7, 8, 25, 384, 385, 1_024, 1_025, 100_000];

fn users(ids: impl IntoIterator<Item = u64>) -> Users {
    let mut users = Users::default();
    ids.into_iter().for_each(|id| users.insert(Coupon::of(id)));
    users
}

#[test]
fn python_opens_our_images_and_we_open_its() {
    let Some(python) = std::env::var_os("CATCHMENT_PYTHON") else {
        println!("skipped: CATCHMENT_PYTHON names no Python that has datasketches 5.2.0");
        return;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("datasketches");
    std::fs::create_dir_all(&folder).unwrap();
    for size in SIZES {
        std::fs::write(folder.join(format!("ours-{size}")), users(0..size).to_datasketches()).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/datasketches/check.py");
    let run = Command::new(python).arg(script).arg(&folder).args(SIZES.map(|size| size.to_string())).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.stdout.trim_ascii(), b"agreed");

    let others = 1 << 40..(1 << 40) + 500;
    for size in SIZES {
        let read = |name: &str| {
            Users::from_datasketches(&std::fs::read(folder.join(format!("{name}-{size}"))).unwrap()).unwrap()
        };
        // Images, since an image of registers is one of registers here, too, where we would still know the coupons.
        let image = users(0..size).to_datasketches();
        assert_eq!(read("theirs").to_datasketches(), image, "{size}");
        assert_eq!(read("updatable").to_datasketches(), image, "{size}");
        let union = users((0..size).chain(others.clone()));
        assert_eq!(read("union").to_datasketches(), union.to_datasketches(), "{size}");
    }
}
