//! Why an event is not counted, or is counted in a special way. The names travel as counters: final.

/// A reason, as senders and counters see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Counted.
    Accepted,
    /// Has an event_id that was counted before.
    Duplicate,
    /// Counted, but received more than two minutes after its minute.
    Late,
    /// Counted, but apart from those of people.
    Bot,
    /// Older than the lateness.
    TooLate,
    /// More than two minutes ahead of us.
    Future,
    /// No JSON object, or a number in it beyond f64.
    Malformed,
    /// Has no event_id.
    MissingEventId,
    /// Has an event_id that is too long.
    EventIdTooLong,
    /// Has no event_type.
    MissingEventType,
    /// Has no timestamp.
    MissingTimestamp,
    /// Has a timestamp that is no time.
    InvalidTimestamp,
    /// A field is of another type than it should be.
    WrongType,
    /// A field is too long.
    FieldTooLong,
    /// Names another client than the key does.
    ClientMismatch,
    /// A number that is too large for a measure; the event is counted without it.
    MeasureOutOfRange,
    /// A number beyond the measures that an event or a client may have; the event is counted without it.
    MeasuresOverLimit,
    /// Breaks its schema; the event is counted all the same.
    SchemaWarned,
    /// Is of a type that no schema knows.
    SchemaUnknownType,
    /// Has a field that its schema doesn't know.
    SchemaUnknownField,
    /// Lacks a field that its schema asks for.
    SchemaMissingField,
    /// Has a field of another type than its schema says.
    SchemaWrongType,
    /// Has a field with a value that its schema doesn't list.
    SchemaNotInEnum,
    /// A request that was refused as a whole.
    RequestRefused,
    /// An event that is not counted and is too long to be kept as a dead letter.
    DeadLetterDropped,
}

impl Reason {
    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Accepted => "accepted",
            Reason::Duplicate => "duplicate",
            Reason::Late => "late",
            Reason::Bot => "bot",
            Reason::TooLate => "too_late",
            Reason::Future => "future",
            Reason::Malformed => "malformed",
            Reason::MissingEventId => "missing_event_id",
            Reason::EventIdTooLong => "event_id_too_long",
            Reason::MissingEventType => "missing_event_type",
            Reason::MissingTimestamp => "missing_timestamp",
            Reason::InvalidTimestamp => "invalid_timestamp",
            Reason::WrongType => "wrong_type",
            Reason::FieldTooLong => "field_too_long",
            Reason::ClientMismatch => "client_mismatch",
            Reason::MeasureOutOfRange => "measure_out_of_range",
            Reason::MeasuresOverLimit => "measures_over_limit",
            Reason::SchemaWarned => "schema_warned",
            Reason::SchemaUnknownType => "schema_unknown_type",
            Reason::SchemaUnknownField => "schema_unknown_field",
            Reason::SchemaMissingField => "schema_missing_field",
            Reason::SchemaWrongType => "schema_wrong_type",
            Reason::SchemaNotInEnum => "schema_not_in_enum",
            Reason::RequestRefused => "request_refused",
            Reason::DeadLetterDropped => "dead_letter_dropped",
        }
    }
}
