//! What a host of the Wasm module calls. All numbers are u32; a body is written where [`buffer`] says.
#![expect(unsafe_code, reason = "names are exported; no code here does anything unsafe")]

use std::cell::RefCell;

use catchment_cells::{Secret, cube};

use crate::shards::{SECRET, SHARDS, Shards, three_cubes};

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

#[derive(Default)]
struct State {
    shards: Option<Shards>,
    body: Vec<u8>,
    frame_bytes: u64,
}

/// Begins with empty shards: of the three cubes that are compared, or of the default ones.
#[unsafe(no_mangle)]
pub extern "C" fn begin(default_cubes: u32) {
    let three = three_cubes();
    let cubes = if default_cubes == 0 { &three[..] } else { cube::DEFAULT };
    let shards = Secret::new(&SECRET).ok().map(|secret| Shards::new(&secret, SHARDS, cubes));
    STATE.set(State { shards, ..State::default() });
}

/// Where the next body of so many bytes is to be written.
#[unsafe(no_mangle)]
pub extern "C" fn buffer(bytes: u32) -> *mut u8 {
    STATE.with_borrow_mut(|state| {
        state.body.clear();
        state.body.resize(bytes as usize, 0);
        state.body.as_mut_ptr()
    })
}

/// Counts the body that was written.
#[unsafe(no_mangle)]
pub extern "C" fn take() {
    STATE.with_borrow_mut(|state| {
        let body = std::mem::take(&mut state.body);
        if let Some(shards) = &mut state.shards {
            shards.take(body, &mut |frame| state.frame_bytes += frame.len() as u64);
        }
    });
}

/// Cuts what waits; answers the bytes of all frames.
#[unsafe(no_mangle)]
pub extern "C" fn finish() -> f64 {
    STATE.with_borrow_mut(|state| {
        if let Some(shards) = &mut state.shards {
            shards.finish(&mut |frame| state.frame_bytes += frame.len() as u64);
        }
        state.frame_bytes as f64
    })
}

/// Events that were counted.
#[unsafe(no_mangle)]
pub extern "C" fn accepted() -> f64 {
    STATE.with_borrow(|state| state.shards.as_ref().map_or(0, |shards| shards.accepted) as f64)
}
