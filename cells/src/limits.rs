//! Every bound of the formats, in one place. What can grow has a number here, and the relations between
//! the numbers are asserted.

/// Bytes of one `POST /v1/events` body.
pub const REQUEST_BYTES_MAX: usize = 1_000_000;
/// Events of one `POST /v1/events`.
pub const REQUEST_EVENTS_MAX: usize = 1_000;
/// Measures taken from one event.
pub const MEASURES_PER_EVENT_MAX: usize = 8;
/// Bytes of an event_id.
pub const EVENT_ID_BYTES_MAX: usize = 128;
/// Bytes of a client id.
pub const CLIENT_BYTES_MAX: usize = 64;
/// Bytes of a route's name.
pub const ROUTE_NAME_BYTES_MAX: usize = 32;
/// Bytes of a shard's name.
pub const SHARD_BYTES_MAX: usize = 128;
/// Bytes of a dimension's value.
pub const VALUE_BYTES_MAX: usize = 512;
/// Bytes of the name of a cube, dimension, measure or reason.
pub const NAME_BYTES_MAX: usize = 64;
/// Dimensions of one cube.
pub const CUBE_DIMENSIONS_MAX: usize = 8;
/// Different coupons up to which users are kept as coupons, which are exact; beyond, as registers. So many coupons take the memory of
/// the registers, and the bytes of their image.
pub const USERS_COUPONS_MAX: usize = 1_024;
/// Values up to which a digest is the values themselves.
pub const DIGEST_VALUES_MAX: usize = 32;
/// Bytes of a t-digest's image.
pub const DIGEST_IMAGE_BYTES_MAX: usize = 16_384;
/// Values of a t-digest: as far as an f64 counts one by one.
pub const DIGEST_WEIGHT_MAX: u64 = 1 << 53;
/// Largest magnitude of a measure's value, in millionths.
pub const MEASURE_MICROS_MAX: i64 = i64::MAX;
/// Bytes of one frame.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Blocks of one frame: as many as there are bits in `left_out`.
pub const FRAME_BLOCKS_MAX: usize = 8;
/// Bytes of one block, uncompressed.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Bytes of one POST from a shard to a relay.
pub const POST_BYTES_MAX: usize = 8 << 20;
/// Frames of one stream that may be unanswered.
pub const LINK_WINDOW: usize = 256;
/// Chains that an aggregator remembers of a producer, to tell a repeated frame from a fork.
pub const MARK_CHAINS: usize = 16;
/// Bytes of an event that is kept as a dead letter; a longer one is counted, and not kept.
pub const DEAD_LETTER_BYTES_MAX: usize = 16_384;
/// Bytes of a client's config, encoded.
pub const CONFIG_BYTES_MAX: usize = 256 << 10;
/// Cubes that a client may have beside the default ones.
pub const CLIENT_CUBES_MAX: usize = 32;
/// Clients of one question about configs.
pub const CONFIG_CLIENTS_MAX: usize = 4_096;
/// Bytes of a question about configs.
pub const CONFIG_QUESTION_BYTES_MAX: usize = 320 << 10;
/// Bytes of the answer.
pub const CONFIG_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Metrics of one question.
pub const QUESTION_METRICS_MAX: usize = 16;
/// Bytes of a metric's name: `count:` and an event's type, at most.
pub const METRIC_BYTES_MAX: usize = VALUE_BYTES_MAX + 16;
/// Bytes of a live update's rows, uncompressed.
pub const UPDATE_RAW_BYTES_MAX: usize = 4 << 20;
/// Bytes of the sentence that refuses a live subscription.
pub const LIVE_DETAIL_BYTES_MAX: usize = 4_096;
/// Largest distance from 1970 of a minute: some 19,000 years, so that its milliseconds and its days stay far from overflow.
pub const MINUTE_MAX: i64 = 10_000_000_000;

const _: () = assert!(FRAME_BYTES_MAX < POST_BYTES_MAX, "a POST carries any frame");
const _: () = assert!(FRAME_BYTES_MAX < 2_000_000, "a frame fits one row of a Durable Object's table");
const _: () = assert!(REQUEST_BYTES_MAX < 2_000_000, "a request fits one row of a Durable Object's table");
const _: () = assert!(
    CONFIG_CLIENTS_MAX * (CLIENT_BYTES_MAX + 5) + SHARD_BYTES_MAX + 16 <= CONFIG_QUESTION_BYTES_MAX,
    "a question has room for all clients that it may ask about"
);
const _: () =
    assert!(CONFIG_BYTES_MAX + CLIENT_BYTES_MAX + 64 <= CONFIG_ANSWER_BYTES_MAX, "an answer has room for any config");
const _: () = assert!(CONFIG_BYTES_MAX < 1_000_000, "a config fits one row of a Durable Object's table");
const _: () = assert!(SHARD_BYTES_MAX + 8 <= u8::MAX as usize, "a producer's length is one byte");
const _: () = assert!(
    (MEASURE_MICROS_MAX as u128) * (u64::MAX as u128) < i128::MAX as u128,
    "no count of values can overflow a sum"
);
