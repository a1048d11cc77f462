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

/// Ids of events in the ring's rows, all of which are in memory.
pub const IDS_RING_MAX: usize = 1_600_000;
/// Tables that these are in.
pub const IDS_TABLES: usize = 64;
/// Ids in spilled rows at which no more is spilled: 25 h at 230 a second.
pub const IDS_SPILLED_MAX: usize = 21_000_000;
/// Ids in the ring at which a round begins that moves them to the spilled rows.
pub const IDS_SPILL_FROM: usize = 1_100_000;
/// Ids beyond that at which the round ends: its pace is that of those which come.
pub const IDS_SPILL_WITHIN: usize = 400_000;
/// Spilled rows, for good: each has the ids with one value of some bits.
pub const SPILLED_ROWS: u64 = 2_048;
/// Bits in memory for each spilled id. A filter of so many is right about an id that it doesn't have in 99.2 of 100 cases.
pub const FILTER_BITS_PER_ID: usize = 10;
/// Spilled rows that one cut writes at most: as many as the ids of the largest ask for.
pub const SPILLED_ROWS_PER_CUT: usize = 512;
/// Spilled rows that one cut sweeps at most.
pub const SWEPT_ROWS: usize = 32;
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
/// Bytes of bodies, or of the texts they have, since the last cut at which the next one is due.
pub const CUT_BYTES: usize = 1_000_000;
/// Events since the last cut at which the next one is due.
pub const CUT_EVENTS: usize = 5_000;
/// Cells of those events, if no two share one, at which the next one is due: clients may have many cubes.
pub const CUT_CELLS: usize = 70_000;
/// Counters since the last cut at which the next one is due.
pub const CUT_COUNTERS: usize = 5_000;
/// Bytes of dead letters since the last cut at which the next one is due.
pub const CUT_LETTER_BYTES: usize = 256 << 10;
/// Bytes of requests in one log row, unless one alone has more.
pub const LOG_ROW_BYTES: usize = 1_000_000;
/// Events in one log row. With those of `CUT_CELLS`, a row of 45 cubes and eight measures each, a cut is at most some 27 MB before it is deflated.
pub const LOG_ROW_EVENTS: usize = REQUEST_EVENTS_MAX;

/// Frames in the ring of the outbox.
pub const OUTBOX_FRAMES_MAX: u64 = 256;
/// Frames in a pool's outbox that may be mostly one client's. The rest is for others, who would be turned away with it.
pub const POOL_HELD_MAX: u64 = OUTBOX_FRAMES_MAX / 4 * 3;
/// Frames of one cut; a test makes the largest that it knows.
pub const CUT_FRAMES_MAX: u64 = 24;
/// Frames in one POST.
pub const POST_FRAMES_MAX: u64 = 64;
/// Frames kept aside because their home refused them.
pub const PARKED_MAX: u64 = 64;

/// Bytes of the name of a browser, an operating system or a bot.
pub const AGENT_NAME_BYTES_MAX: usize = 64;
/// Names of measures of one client in one cut.
pub const MEASURE_NAMES_MAX: usize = 60;
/// Clients whose configs are kept at hand, or are known to have none.
pub const RULES_MAX: usize = 4_096;
/// Bytes of configs that are kept at hand, as they are stored; in memory some are a few times as large.
pub const RULES_BYTES_MAX: usize = 4 << 20;
/// Types and fields that a shard reports of one client, which no schema of it knows, while its config stays.
pub const REPORTS_MAX: usize = 100;
/// Clients whose derived keys are kept at hand.
pub const KEYS_MAX: usize = 1_024;

// An event takes some 40 bytes at the least, so a cut's ids are at most as many as its bodies' bytes over 40.
const CUT_IDS_MAX: usize = (CUT_BYTES + LOG_ROW_BYTES) / 40;
const _: () = assert!(IDS_SPILL_FROM + IDS_SPILL_WITHIN + 2 * CUT_IDS_MAX <= IDS_RING_MAX, "a round ends in time");
const _: () = assert!(CUT_IDS_MAX * SPILLED_ROWS as usize / IDS_SPILL_WITHIN <= SPILLED_ROWS_PER_CUT);
// Ids differ from an even spread over tables by less than 1 % (1 sigma). A slot takes 9 bytes, and seven of eight are used.
const _: () =
    assert!(IDS_RING_MAX / IDS_TABLES <= 32_768 / 8 * 7 / 100 * 95, "tables of 32,768 slots hold the ring's ids");
const _: () = assert!(
    IDS_TABLES * 32_768 * 9 + IDS_SPILLED_MAX * FILTER_BITS_PER_ID / 8 <= 48_000_000,
    "tables and filters are a part of the 128 MB of an isolate"
);
const _: () =
    assert!(IDS_SPILLED_MAX / SPILLED_ROWS as usize * 8 * 10 <= 1_999_000, "a spilled row fits, however uneven");
const _: () =
    assert!(LOG_ROW_BYTES < 1_999_000 && REQUEST_BYTES_MAX < 1_999_000, "a log row fits a row of the platform");
const _: () = assert!(FRAME_BYTES_MAX <= 2_000_000, "a frame fits a row of the platform");
const _: () = assert!((IDS_ROW_FULL + 2 * CUT_IDS_MAX) * 8 <= 2_000_000, "a row of ids fits, too");
const _: () = assert!(3_600 * 20 / CUT_ROWS < POOL_HELD_MAX, "an outbox holds an hour's cuts, be they of one client");
const _: () = assert!(POOL_HELD_MAX + 2 * CUT_FRAMES_MAX < OUTBOX_FRAMES_MAX, "others have some room beside");
const _: () = assert!(CUT_ROWS < LOG_ROWS_MAX && REQUEST_EVENTS_MAX < IDS_RING_MAX);
const _: () = assert!(
    MEASURE_NAMES_MAX * (DIGEST_IMAGE_BYTES_MAX + NAME_BYTES_MAX + 64) + 16_384 <= FRAME_BYTES_MAX,
    "a frame takes any one cell"
);
/// Clients of one shard of whom it is known whether they are watched; of more it isn't known, and they are cut for.
pub const WATCHED_MAX: usize = 10_000;
/// Clients of one shard whose use of it is told apart.
pub const QUOTA_CLIENTS_MAX: usize = 10_000;
