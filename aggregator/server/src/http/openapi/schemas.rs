//! What the API takes and answers, as its description has it. Other code reads and writes it: tests hold its answers against these shapes.
#![expect(dead_code, reason = "what is described is never made of these")]

use std::collections::BTreeMap;

use utoipa::{IntoParams, ToSchema};

/// A figure with its bounds.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Estimate {
    /// The value itself, in the unit of what was measured; a ratio, where the metric is one.
    #[schema(required = true)]
    value: Option<f64>,
    /// The least that it may be, with the answer's confidence; `null` where there is no bound.
    #[schema(required = true)]
    lower: Option<f64>,
    /// The most that it may be, likewise.
    #[schema(required = true)]
    upper: Option<f64>,
    /// Whether it is the value, but for the rounding of a double and, of users, two who share a hash.
    exact: bool,
}

/// A figure with its bounds and, with `compare`, that of the period before.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "value": 12, "lower": 12, "upper": 12, "exact": true })))]
pub(in super::super) struct Figure {
    /// The value itself, in the unit of what was measured; a ratio, where the metric is one. `null`: only the period before has one.
    #[schema(required = true)]
    value: Option<f64>,
    /// The least that it may be, with the answer's confidence; `null` where there is no bound.
    #[schema(required = true)]
    lower: Option<f64>,
    /// The most that it may be, likewise.
    #[schema(required = true)]
    upper: Option<f64>,
    /// Whether it is the value, but for the rounding of a double and, of users, two who share a hash.
    exact: bool,
    /// The same of the period before; `null` where it has none. Only with `compare`.
    previous: Option<Estimate>,
    /// How much it has changed, relative to the period before: 0.1 is a tenth more. `null` where that may be 0. Only with `compare`.
    change: Option<Estimate>,
}

/// One bucket of time of one group.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Row {
    /// The start of the bucket, also where the range begins within it.
    #[schema(format = DateTime, examples("2024-01-01T00:00:00Z"))]
    time: String,
    /// Whom it is about; `null` without `group_by`.
    #[schema(required = true)]
    group: Option<Group>,
    /// What each metric says, by its name.
    values: BTreeMap<String, Said>,
}

/// A figure; `null` where there is nothing to say.
#[derive(ToSchema)]
pub(in super::super) struct Said(Option<Figure>);

/// The value of the dimension, or of several dimensions a value each. `(other)` is all that a limit leaves over.
#[derive(ToSchema)]
#[serde(untagged)]
pub(in super::super) enum Group {
    /// Of one dimension.
    One(String),
    /// Of several, in the order of `group_by`.
    Several(Vec<String>),
}

/// A range of time.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Period {
    /// Its first minute.
    #[schema(format = DateTime)]
    start: String,
    /// The minute after its last.
    #[schema(format = DateTime)]
    end: String,
}

/// How the figures are to be read, and where they come from.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Meta {
    /// How often bounds hold that are no certainty: 0.95 is in 95 of 100 cases.
    #[schema(examples(0.95))]
    confidence: f64,
    /// When the newest frame that is counted, of any client, was cut; `null` where there is none.
    #[schema(required = true, format = DateTime, examples("2024-01-01T12:00:00.123Z"))]
    as_of: Option<String>,
    /// The cube that was read.
    #[schema(examples("event_type"))]
    cube: String,
    /// The coarsest tier that was read.
    tier: Tier,
    /// What was read.
    source: Source,
    /// The client's clock, on which buckets begin: a name of the IANA time zone database.
    #[schema(examples("Europe/Berlin"))]
    time_zone: String,
    /// The dimensions of which values that matter here were folded into `(other)`; left out where there are none.
    #[schema(nullable = false)]
    folded: Option<Vec<String>>,
    /// The period before, with `compare`.
    #[schema(nullable = false)]
    before: Option<Period>,
}

/// A size of buckets.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Tier {
    /// Minutes.
    Minute,
    /// Hours.
    Hour,
    /// Days.
    Day,
}

/// What was read.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Source {
    /// Cells of a cube.
    Cells,
}

/// The answer to a question.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "results": [{
        "time": "2024-01-01T00:00:00Z",
        "group": null,
        "values": { "page_views": { "value": 12, "lower": 12, "upper": 12, "exact": true } },
    }],
    "meta": { "confidence": 0.95, "as_of": "2024-01-01T12:00:00.123Z", "cube": "event_type", "tier": "hour", "source": "cells", "time_zone": "UTC" },
})))]
pub(in super::super) struct Answer {
    /// Ascending by time; in a bucket in the question's order, `(other)` last. Buckets and groups without any of what is asked are left out.
    results: Vec<Row>,
    /// How they are to be read.
    meta: Meta,
}

/// What a question of several is answered: figures, or why there are none.
#[derive(ToSchema)]
#[serde(untagged)]
pub(in super::super) enum Answered {
    /// Figures.
    Answer(Answer),
    /// Why there are none.
    Refused(Refused),
}

/// Why one of several questions is not answered.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Refused {
    /// As if it had been asked alone.
    problem: Problem,
}

/// The answers to several questions, in their order.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Answers {
    /// One for each question.
    answers: Vec<Answered>,
}

/// The answers to a dashboard's questions.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NamedAnswers {
    /// By the questions' names.
    answers: BTreeMap<String, Answered>,
}

/// A refusal: RFC 9457, `application/problem+json`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "type": "about:blank", "title": "the question can't be understood", "status": 400, "parameter": "metric",
    "detail": "metric: there is no metric visits",
})))]
pub(in super::super) struct Problem {
    /// Always `about:blank`: the status and the detail say all.
    #[serde(rename = "type")]
    kind: String,
    /// What kind of refusal it is.
    title: String,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, and what to do: a sentence.
    detail: String,
    /// The parameter, field or header that is wrong, with 400.
    #[schema(nullable = false)]
    parameter: Option<String>,
}

/// A text, or several.
#[derive(ToSchema)]
#[serde(untagged)]
pub(in super::super) enum Texts {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// A question, in JSON: the parameters of `GET /api/v1/metrics`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "metric": ["events", "users"], "last": "7d", "group_by": "country", "filter": { "not": { "dimension": "page", "prefix": "/admin" } },
})))]
pub(in super::super) struct Question {
    /// 1 to 16 metrics.
    metric: Texts,
    /// The first minute: a date of the client's clock or an RFC 3339 time.
    #[schema(nullable = false)]
    start: Option<String>,
    /// The minute after the last.
    #[schema(nullable = false)]
    end: Option<String>,
    /// In place of these: the last so many units, as in `7d`.
    #[schema(nullable = false)]
    last: Option<String>,
    /// How time is cut, as in `1h`; `all` by default.
    #[schema(nullable = false)]
    granularity: Option<String>,
    /// The length of a sliding window, as in `7d`.
    #[schema(nullable = false)]
    window: Option<String>,
    /// `previous`: with the period before.
    #[schema(nullable = false)]
    compare: Option<String>,
    /// Up to 4 dimensions.
    #[schema(nullable = false)]
    group_by: Option<Texts>,
    /// A metric of the question or `group`, then ` asc` or ` desc` if need be.
    #[schema(nullable = false)]
    order: Option<String>,
    /// How many groups are told apart; 10 by default.
    #[schema(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u16>,
    /// Which events it is about; of several filters, all must hold.
    #[schema(nullable = false)]
    filter: Option<Filters>,
}

/// A filter, or several that must all hold.
#[derive(ToSchema)]
#[serde(untagged)]
pub(in super::super) enum Filters {
    /// One.
    One(Filter),
    /// Up to 8.
    Several(Vec<Filter>),
}

/// Which events a question is about: an expression as in a query string, or a tree of at most 16 levels and 1,000 values.
#[derive(ToSchema)]
#[serde(untagged)]
pub(in super::super) enum Filter {
    /// `country in (US,DE) and not page^"/admin"`
    Expression(String),
    /// All of them hold.
    And(And),
    /// At least one holds.
    Or(Or),
    /// It doesn't hold.
    Not(Not),
    /// The dimension has the value.
    Is(Is),
    /// It hasn't, or there is none.
    IsNot(IsNot),
    /// It has one of these values.
    In(In),
    /// It has a value that begins so.
    Prefix(Prefix),
}

/// All of them hold.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(no_recursion)]
pub(in super::super) struct And {
    /// At least one filter.
    #[schema(min_items = 1)]
    and: Vec<Filter>,
}

/// At least one holds.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(no_recursion)]
pub(in super::super) struct Or {
    /// At least one filter.
    #[schema(min_items = 1)]
    or: Vec<Filter>,
}

/// The complement.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(no_recursion)]
pub(in super::super) struct Not {
    /// What is not to hold.
    not: Box<Filter>,
}

/// The dimension has the value.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Is {
    /// The dimension.
    dimension: String,
    /// The value.
    is: String,
}

/// The dimension has another value, or none.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct IsNot {
    /// The dimension.
    dimension: String,
    /// The value.
    is_not: String,
}

/// The dimension has one of these values.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct In {
    /// The dimension.
    dimension: String,
    /// At least one value.
    #[schema(min_items = 1)]
    r#in: Vec<String>,
}

/// The dimension has a value that begins so.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Prefix {
    /// The dimension.
    dimension: String,
    /// How the value begins; empty: any value.
    prefix: String,
}

/// Several questions.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "questions": [
    { "metric": "page_views", "last": "24h", "granularity": "1h" },
    { "metric": ["events", "users"], "last": "7d", "group_by": "country", "limit": 5 },
] })))]
pub(in super::super) struct Questions {
    /// 1 to 32 questions.
    #[schema(min_items = 1, max_items = 32)]
    questions: Vec<Question>,
}

/// Questions by their names.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "questions": {
    "today": { "metric": ["page_views", "users"], "last": "1d" },
    "pages": { "metric": "events", "last": "24h", "group_by": "page" },
} })))]
pub(in super::super) struct Dashboard {
    /// 1 to 32 questions, by names of 1 to 64 bytes.
    questions: BTreeMap<String, Question>,
}

/// The dashboards that a client has.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Dashboards {
    /// Their ids, ascending: those that every client has, and the client's own.
    #[schema(examples(json!(["homepage", "realtime"])))]
    dashboards: Vec<String>,
}

/// The measures that events have.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Measures {
    /// Their names, ascending.
    #[schema(max_items = 1000, examples(json!(["duration_ms", "revenue_EUR"])))]
    measures: Vec<String>,
}

/// A page of dead letters.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Letters {
    /// In the order that was asked for.
    letters: Vec<Letter>,
    /// What the next page comes `after`; `null` where nothing follows.
    #[schema(required = true, examples("812-0"))]
    next: Option<String>,
}

/// An event that was rejected.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Letter {
    /// Its name, for `after`.
    #[schema(examples("812-0"))]
    id: String,
    /// When the edge had it; `null` beyond the calendar.
    #[schema(required = true, format = DateTime)]
    received_at: Option<String>,
    /// Why it was rejected: `too_late`, `future`, `malformed` and others of docs/FORMATS.md.
    reason: String,
    /// What came, where it is JSON.
    #[schema(value_type = Value, required = false)]
    event: Option<serde_json::Value>,
    /// What came, where it is none.
    #[schema(nullable = false)]
    text: Option<String>,
}

/// What a client is set up as.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ClientConfig {
    /// Whose it is.
    #[schema(examples("shop"))]
    client: String,
    /// Of its last change, among those of all clients; 0: it was never set. The `ETag` has it, too.
    version: u32,
    /// The config, with its defaults filled in.
    config: catchment_config::Config,
    /// Why the stored config can't be read, where another version of this program took it: then the config is that of a client without one.
    #[schema(nullable = false)]
    unreadable: Option<String>,
}

/// What events had that no schema knows.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SchemaChanges {
    /// Of the last 30 days.
    #[schema(max_items = 1000)]
    changes: Vec<SchemaChange>,
}

/// A type of events, or a field, that no schema knows.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct SchemaChange {
    /// Which of these.
    kind: ChangeKind,
    /// `buy`, or `buy.colour`: the field of the type.
    #[schema(required = true)]
    name: Option<String>,
    /// The hour in which it was first seen, or the minute of the present hour.
    #[schema(required = true, format = DateTime)]
    first_seen: Option<String>,
}

/// What is new.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum ChangeKind {
    /// A type of events.
    Type,
    /// A field.
    Field,
}

/// Which time a question is about.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct RangeParameters {
    /// The first minute: a date of the client's clock, or an RFC 3339 time of a whole minute, in the years 1 to 9998.
    #[param(required = false, example = "2024-01-01")]
    start: String,
    /// The minute after the last, likewise: dates are half-open ranges, too.
    #[param(required = false, example = "2024-01-31T12:00:00Z")]
    end: String,
    /// In place of `start` and `end`: the last so many minutes, hours, days, weeks or months of the client's clock, the present one
    /// included: `1m` to `1440m`, `1h` to `1440h`, `1d` to `3660d`, `1w` to `520w`, `1mo` to `120mo`.
    #[param(required = false, pattern = "^[0-9]+(m|h|d|w|mo)$", example = "7d")]
    last: String,
}

/// What is asked, beside the range.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct QuestionParameters {
    /// 1 to 16 times. Counts: `events`, `page_views`, `count:<event_type>`. People: `users`, `users:<event_type>`, `active_users` (those of
    /// the last 5 minutes where no time is given). Of a measure, in its unit: `sum`, `avg`, `min`, `max` and `p1` to `p99` `:<measure>`.
    /// Ratios: `error_rate`, `conversion_rate`, `conversion_rate:<event_type>`, `revenue_per_user:<currency>`, `views_per_user`,
    /// `events_per_user`. What became of events: `received:<reason>`, which is asked for without the others.
    #[param(style = Form, explode, min_items = 1, max_items = 16, example = json!(["page_views", "p95:duration_ms"]))]
    metric: Vec<String>,
    /// How time is cut: `1m` to `10080m` or `1h` to `8784h` (counted from midnight), `1d` to `3660d`, `1w` to `520w` (weeks begin on Monday),
    /// `1mo` to `120mo`, or `all`. At most 50,000 buckets between start and end.
    #[param(required = false, default = "all", pattern = "^([0-9]+(m|h|d|w|mo)|all)$", example = "1h")]
    granularity: String,
    /// The length of a sliding window, as of `granularity` and of up to 1,000 whole buckets of it: each row is about its bucket and those before
    /// it, which may lie before `start`.
    #[param(required = false, pattern = "^([0-9]+(m|h|d|w|mo)|all)$", example = "7d")]
    window: String,
    /// `previous`: each figure also has that of the period before, which is as long.
    #[param(required = false, pattern = "^previous$", example = "previous")]
    compare: String,
    /// Up to 4 times: a dimension whose values are told apart. Events without any of them are in no group.
    #[param(required = false, style = Form, explode, max_items = 4, example = json!(["country"]))]
    group_by: Vec<String>,
    /// A metric of the question, or `group`, then ` asc` or ` desc` if need be. By default the first metric; metrics descend, groups ascend.
    #[param(required = false, example = "page_views desc")]
    order: String,
    /// How many groups are told apart: the first in this order over the whole range. The rest is the group `(other)`.
    #[param(required = false, default = 10, minimum = 1, maximum = 1000, example = 20)]
    limit: u16,
    /// Up to 8 times, all of which must hold, of 1,000 values in all: `<dimension>:<value>`, or an expression of `=`, `!=`, `^` (begins with),
    /// `in (…)`, `not in (…)`, `and`, `or`, `not` and parentheses, whose values are bare or "quoted".
    #[param(required = false, style = Form, explode, max_items = 8, example = json!(["country in (US,DE) and not page^\"/admin\""]))]
    filter: Vec<String>,
}

/// Which dead letters are asked for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct LetterParameters {
    /// Those of this reason.
    #[param(required = false, example = "too_late")]
    reason: String,
    /// Which comes first: `newest` or `oldest`.
    #[param(required = false, default = "newest", pattern = "^(newest|oldest)$", example = "oldest")]
    order: String,
    /// How many at most. A page also ends before it is longer than a body of events may be (1,000,000 bytes).
    #[param(required = false, default = 100, minimum = 1, maximum = 1000, example = 1000)]
    limit: u16,
    /// The id of a letter: those that come after it.
    #[param(required = false, pattern = "^[0-9]+-[0-9]+$", example = "812-0")]
    after: String,
}
