//! One scenario over all that `catchment-cells` keeps and ships, to be run natively and as Wasm: the canonical bytes are to be
//! the same, and the answers of t-digests alike (their logarithm may differ in its last bit).

use std::collections::BTreeMap;

use catchment_cells::digest::Digest;
use catchment_cells::frame::{
    CHAIN_START, CellsBlock, CountersBlock, CubeCells, DeadLettersBlock, FrameDraft, Producer, Section, seal,
};
use catchment_cells::users::Coupon;
use catchment_cells::{Cell, ClientId, Estimate, Secret};

/// What a run comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// A sealed frame of cells, and images of their users for DataSketches.
    pub canonical: Vec<u8>,
    /// Estimates of users and of quantiles: value, lower, upper.
    pub answers: Vec<f64>,
}

/// Different users of each cell: none, few, the most that are coupons, one more, and many.
const USERS: [u64; 6] = [0, 5, 300, 1_024, 1_025, 20_000];
/// Values of each t-digest.
const VALUES: [u64; 4] = [33, 1_000, 20_000, 100_000];

/// SplitMix64 of a seed.
fn hash(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Runs the scenario.
///
/// # Panics
/// If its own literals are not what the library takes.
pub fn run() -> Outcome {
    let cells: Vec<Cell> = USERS.iter().map(|&users| cell(users)).collect();
    let mut canonical = frame(&cells);
    let mut answers = Vec::new();
    let mut answer = |estimate: Estimate| answers.extend([estimate.value, estimate.lower, estimate.upper]);
    for cell in &cells {
        canonical.extend(cell.users.to_datasketches());
        answer(cell.users.estimate());
    }
    for values in VALUES {
        let digest = digest(values);
        [0.01, 0.5, 0.95, 0.999].into_iter().filter_map(|q| digest.quantile(q)).for_each(&mut answer);
    }
    Outcome { canonical, answers }
}

/// A cell of some users, merged from three parts that share users.
fn cell(users: u64) -> Cell {
    let mut merged = Cell::default();
    for part in 0..3 {
        let mut cell = Cell::default();
        for user in (0..users).filter(|user| hash(*user) % 3 == part || user % 7 == part) {
            cell.count += 1;
            cell.users.insert(Coupon::of(hash(user)));
            cell.record("bytes", hash(user) as i64, false);
        }
        for i in 0..10 {
            cell.record("ms", (hash(i + part) % 1_000_000_000) as i64, true);
        }
        merged.merge(&cell);
    }
    merged
}

fn frame(cells: &[Cell]) -> Vec<u8> {
    let client = ClientId::new("shop").expect("a client id");
    let producer = Producer::new(7, "eu/pool/0").expect("a producer");
    let key = Secret::new(&[5; 32]).expect("a secret of 32 bytes").frame_key(&producer);
    let mut buckets = BTreeMap::new();
    for (minute, cell) in (28_000_000..).zip(cells) {
        buckets.insert(minute, BTreeMap::from([(vec![Some("/".into())], cell.clone()), (vec![None], Cell::default())]));
    }
    let mut counters = CountersBlock::default();
    counters.add(&client, "accepted", 28_000_000, 12);
    let page = CubeCells { dimensions: vec!["page".into()], buckets };
    let draft = FrameDraft {
        producer,
        home: "eu".into(),
        seq: 1,
        prev: CHAIN_START,
        cut_at: 1_680_000_065_000,
        first_received_at: 1_680_000_060_000,
        cells: CellsBlock(BTreeMap::from([(client, Section::from([("page".into(), page)]))])),
        counters,
        letters: DeadLettersBlock::default(),
    };
    seal(&draft, &key).expect("a frame of few cells").bytes
}

/// A digest merged from 20 parts; a third of the values are ties.
fn digest(values: u64) -> Digest {
    let mut merged = Digest::new();
    for part in 0..20 {
        let mut digest = Digest::new();
        for i in (part..values).step_by(20) {
            // The product of two is skewed, as sizes and durations are.
            let (x, y) = (hash(i) % 100_000, hash(i + values) % 100_000);
            digest.record(if x % 3 == 0 { 786_000_000 } else { (x * y) as i64 });
        }
        merged.merge(&digest);
    }
    merged
}

/// Runs the scenario and answers where in memory its outcome is: u32 bytes of the canonical, u32 number of answers, the canonical,
/// the answers as f64; all little-endian. The memory is never given back.
#[expect(unsafe_code, reason = "a name is exported; no code here does anything unsafe")]
#[unsafe(no_mangle)]
pub extern "C" fn outcome() -> *const u8 {
    run().to_bytes().leak().as_ptr()
}

impl Outcome {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(self.canonical.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.answers.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.canonical);
        self.answers.iter().for_each(|answer| out.extend_from_slice(&answer.to_le_bytes()));
        out
    }
}
