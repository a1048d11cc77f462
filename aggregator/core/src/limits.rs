//! The bounds of what a question may ask and cost.

/// Filters of one question.
pub const QUESTION_FILTERS_MAX: usize = 8;
/// Values of all filters of one question.
pub const FILTER_VALUES_MAX: usize = 1_000;
/// Filters in filters.
pub const FILTER_DEPTH_MAX: usize = 16;
/// Dimensions that one question may group by.
pub const QUESTION_GROUPS_BY_MAX: usize = 4;
/// Groups that a question may ask for.
pub const QUESTION_LIMIT_MAX: usize = 1_000;
/// Groups of a question that doesn't say how many.
pub const QUESTION_LIMIT_DEFAULT: usize = 10;
/// Buckets of time between a question's start and end.
pub const QUESTION_BUCKETS_MAX: i64 = 50_000;
/// Buckets of one sliding window.
pub const WINDOW_STEPS_MAX: i64 = 1_000;
/// Cells that one question may read.
pub const QUESTION_CELLS_MAX: u64 = 10_000_000;
/// Buckets and groups, one times the other, that an answer may have.
pub const ANSWER_ROWS_MAX: usize = 100_000;
/// Steps of sliding windows, buckets times groups, that an answer may take.
pub const ANSWER_STEPS_MAX: usize = 1_000_000;
/// Figures of one answer: each takes some 500 bytes while it becomes JSON.
pub const ANSWER_FIGURES_MAX: usize = 200_000;
/// Bytes that one question's figures may take while they are added up.
pub const QUESTION_BYTES_MAX: usize = 256 << 20;
/// Time zones that a client had before, on whose clocks hours and days are still kept.
pub const EARLIER_ZONES_MAX: usize = 8;
/// Bytes of a time zone's rules.
pub const ZONE_RULES_BYTES_MAX: usize = 64 << 10;
/// Questions of a dashboard.
pub const DASHBOARD_QUESTIONS_MAX: usize = 32;
/// Bytes of a dashboard.
pub const DASHBOARD_BYTES_MAX: usize = 64 << 10;
/// Dashboards of a client, beside those that every client has.
pub const CLIENT_DASHBOARDS_MAX: usize = 100;
/// Dead letters of a client that are kept: the oldest go first.
pub const DEAD_LETTERS_MAX: usize = 100_000;
/// Their bytes.
pub const DEAD_LETTERS_BYTES_MAX: usize = 64 << 20;
/// How long a client stays watched after a question, in ms.
pub const WATCHED_MS: i64 = 10_000;
/// Clients that can be watched at a time.
pub const WATCHED_CLIENTS_MAX: usize = 10_000;
/// Bytes that the figures of one live view may take.
pub const VIEW_BYTES_MAX: usize = 64 << 20;
/// Rows of a live view.
pub const VIEW_ROWS_MAX: usize = 5_000;
/// Bytes of a snapshot, on the wire.
pub const SNAPSHOT_BYTES_MAX: usize = 256 << 10;
/// The least time between two updates of a view, in ms.
pub const UPDATE_EVERY_MS: i64 = 250;
/// Bytes of updates that a view may send in a second, once it has sent so many in a burst: what is beyond is followed by a
/// longer pause.
pub const UPDATE_BYTES_PER_S: i64 = 2_048;
/// The burst, which silence earns again.
pub const UPDATE_BURST_BYTES: i64 = 16 << 10;
/// The longest such pause, in ms.
pub const UPDATE_PAUSE_MS_MAX: i64 = 5_000;
/// Rows that are remembered as gone, for readers that resume; one that missed more gets a snapshot.
pub const GONE_MAX: usize = 1_000;
/// Bytes of cells that are kept of the store once a question has read them.
pub const KEPT_BYTES_MAX: usize = 96 << 20;
