//! What outsiders' bytes are read by, each as a target: bytes in, and a check of more than that nothing panics.
//!
//! A target says whether it took its bytes. What it takes it writes again, and reads that as the same; values that may meet are
//! merged. [`run`] also bounds the memory that a target takes by the bytes it is given. The same functions are driven by
//! libFuzzer (`fuzz_targets`), and by the everyday tests, over what is kept in `corpus`.

mod aggregator;
mod cells;
mod dashboard;
mod edge;
mod hand;
mod link;
pub mod mutate;
pub mod seeds;

use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One decoder or parser.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of its program, and of its folder in `corpus`.
    pub name: &'static str,
    /// The longest input that is worth a try.
    pub bytes_max: usize,
    /// What it may take of memory, whatever its input.
    memory_base: usize,
    /// What it may take for each byte of its input.
    memory_per_byte: usize,
    check: fn(&[u8]) -> bool,
}

const fn target(name: &'static str, check: fn(&[u8]) -> bool) -> Target {
    Target { name, bytes_max: 4_096, memory_base: 1 << 20, memory_per_byte: 256, check }
}

impl Target {
    const fn takes(mut self, bytes_max: usize) -> Target {
        self.bytes_max = bytes_max;
        self
    }

    const fn may_take(mut self, memory_base: usize) -> Target {
        self.memory_base = memory_base;
        self
    }
}

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    target("ack", cells::ack),
    target("acks", cells::acks),
    // Four MiB may inflate from four KiB, and be a cell for each six bytes, alone in its minute: 2,880 bytes, in this target's copies.
    target("blocks", cells::blocks).takes(16_384).may_take(2 << 30),
    target("cell", cells::cell).takes(16_384),
    target("config", edge::config).takes(8_192).may_take(4 << 20),
    target("credential", cells::credential),
    target("cube", aggregator::cube),
    target("dashboard", dashboard::dashboard).takes(16_384).may_take(128 << 20),
    target("datasketches", cells::datasketches).takes(16_384),
    target("dictionary", aggregator::dictionary),
    target("digest", cells::digest).takes(16_384),
    target("events", edge::events).takes(8_192).may_take(4 << 20),
    target("frame", cells::frame),
    target("framing", link::framing),
    target("gzip", edge::gzip).takes(16_384).may_take(8 << 20),
    target("hop", edge::hop),
    target("key", cells::key),
    target("live", cells::live).takes(16_384).may_take(128 << 20),
    target("mark", aggregator::mark),
    target("merged", cells::merged).takes(16_384),
    target("mirror", cells::mirror).takes(16_384).may_take(128 << 20),
    target("question", aggregator::question).may_take(16 << 20),
    target("route", cells::route),
    target("rows", edge::rows).takes(8_192).may_take(4 << 20),
    target("said", aggregator::said).may_take(16 << 20),
    // Two blocks of cells that are nothing but a byte each.
    target("stretch", aggregator::stretch).takes(16_384).may_take(64 << 20),
    target("told", cells::told),
    target("users", cells::users).takes(16_384),
];

/// Gives bytes to the target of this name, and says whether it took them. Panics where the target breaks a promise.
pub fn run(name: &str, bytes: &[u8]) -> bool {
    // One at a time: memory is the process' own.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else { panic!("there is no target {name}") };
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let taken = (target.check)(bytes);
    let peak = MEMORY.peak_usage().saturating_sub(before);
    let may = target.memory_base + target.memory_per_byte * bytes.len();
    assert!(peak <= may, "{peak} bytes of memory for {} bytes of input; at most {may} are promised", bytes.len());
    taken
}

/// The end of a text or bytes that others begin.
fn split_length(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}
