//! The bounds of one shard.

use catchment_cells::limits::{
    DIGEST_IMAGE_BYTES_MAX, FRAME_BYTES_MAX, NAME_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_EVENTS_MAX,
};

/// How long after its time an event is let in, in ms, but for a backfill.
pub const LATENESS_MS: i64 = 24 * 3_600_000;
/// How far ahead of us a timestamp may be, in ms: clocks differ.
pub const FUTURE_MS: i64 = 120_000;
/// An event received so long after its minute's end, in ms, is counted as late.
pub const LATE_MS: i64 = 120_000;
/// A sender's clock that is off by more, in ms, is corrected; less may be the way here.
pub const SKEW_MS: i64 = 30_000;
/// How long after the last of its row was received an id is kept, in ms: until none with its timestamp is let in, and
/// an hour more for clocks that were corrected differently.
pub const IDS_KEPT_MS: i64 = LATENESS_MS + FUTURE_MS + 3_600_000;

/// Ids of events that a shard remembers. A table of so many is 38 MB, 57 while it grows, of an isolate's 128.
pub const IDS_MAX: usize = 3_500_000;
/// Ids of a row to which the next cut adds no more.
pub const IDS_ROW_FULL: usize = 2_000;
/// How long a row of ids is added to, in ms.
pub const IDS_ROW_MS: i64 = 3_600_000;
/// Rows in the ring of ids.
pub const IDS_ROWS_MAX: u64 = 8_192;

/// Rows in the ring of the log.
pub const LOG_ROWS_MAX: u64 = 512;
/// Rows since the last cut at which the next one is due. At the 20 rows a second that there can be, an hour without a home is
/// 161 cuts, which the outbox holds.
pub const CUT_ROWS: u64 = 448;
/// Bytes of bodies since the last cut at which the next one is due.
pub const CUT_BYTES: usize = 1_000_000;
/// Cells since the last cut at which the next one is due.
pub const CUT_CELLS: usize = 5_000;
/// Counters since the last cut at which the next one is due.
pub const CUT_COUNTERS: usize = 5_000;
/// Bytes of requests in one log row, unless one alone has more.
pub const LOG_ROW_BYTES: usize = 1_000_000;
/// Events in one log row: with up to ten cells each beside those of `CUT_CELLS`, some 20 MB at the most.
pub const LOG_ROW_EVENTS: usize = REQUEST_EVENTS_MAX;

/// Frames in the ring of the outbox.
pub const OUTBOX_FRAMES_MAX: u64 = 256;
/// Frames in a pool's outbox that may be mostly one client's. The rest is for others, who would be turned away with it.
pub const POOL_HELD_MAX: u64 = OUTBOX_FRAMES_MAX / 4 * 3;
/// Frames of one cut; the largest that could be made has nine.
pub const CUT_FRAMES_MAX: u64 = 16;
/// Frames in one POST.
pub const POST_FRAMES_MAX: u64 = 64;
/// Frames kept aside because their home refused them.
pub const PARKED_MAX: u64 = 64;

/// Names of measures of one client in one cut.
pub const MEASURE_NAMES_MAX: usize = 60;
/// Clients whose derived keys are kept at hand.
pub const KEYS_MAX: usize = 1_024;

const _: () = assert!(IDS_MAX < (1 << 22) / 8 * 7, "a table of 2^22 slots holds them");
const _: () =
    assert!(LOG_ROW_BYTES < 1_999_000 && REQUEST_BYTES_MAX < 1_999_000, "a log row fits a row of the platform");
const _: () = assert!(FRAME_BYTES_MAX <= 2_000_000, "a frame fits a row of the platform");
// An event takes some 40 bytes at the least, so a cut's ids are at most as many as its bodies' bytes over 40.
const _: () = assert!((IDS_ROW_FULL + 2 * (CUT_BYTES + LOG_ROW_BYTES) / 40) * 8 <= 2_000_000, "a row of ids fits, too");
const _: () = assert!(3_600 * 20 / CUT_ROWS < POOL_HELD_MAX, "an outbox holds an hour's cuts, be they of one client");
const _: () = assert!(POOL_HELD_MAX + 2 * CUT_FRAMES_MAX < OUTBOX_FRAMES_MAX, "others have some room beside");
const _: () = assert!(CUT_ROWS < LOG_ROWS_MAX && REQUEST_EVENTS_MAX < IDS_MAX);
const _: () = assert!(
    MEASURE_NAMES_MAX * (DIGEST_IMAGE_BYTES_MAX + NAME_BYTES_MAX + 64) + 16_384 <= FRAME_BYTES_MAX,
    "a frame takes any one cell"
);
/// Clients of one shard of whom it is known whether they are watched; of more it isn't known, and they are cut for.
pub const WATCHED_MAX: usize = 10_000;
/// Clients of one shard whose use of it is told apart.
pub const QUOTA_CLIENTS_MAX: usize = 10_000;
