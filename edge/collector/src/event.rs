//! One event: JSON to the fields that count.

mod members;
mod scan;
mod url;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use catchment_cells::key::is_name;
use catchment_cells::limits::{EVENT_ID_BYTES_MAX, MEASURES_PER_EVENT_MAX, VALUE_BYTES_MAX};
use jiff::Timestamp;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

pub(crate) use self::members::{Member, Members};
use crate::reason::Reason;

/// The fields of an event that are looked at, and where `Fields` keeps their texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    EventId,
    ClientId,
    EventType,
    Timestamp,
    User,
    DeviceId,
    Session,
    Page,
    Referrer,
    UtmSource,
    UtmCampaign,
    Country,
    Device,
    Plan,
    Category,
    Product,
    // What follows is taken if it can be, and rejects nothing.
    Url,
    UserAgent,
    Browser,
    Os,
    Bot,
    UtmMedium,
    /// The name of a parameter by which who sold the click knows it.
    Click,
    /// Whether the visitor has come from elsewhere.
    Entry,
    Channel,
    Source,
}

const FIELDS: usize = Field::Source as usize + 1;

/// The fields that an event may do without, in the order in which they are checked.
const OPTIONAL: [Field; Field::Product as usize - 3] = [
    Field::User,
    Field::DeviceId,
    Field::Session,
    Field::Page,
    Field::Referrer,
    Field::UtmSource,
    Field::UtmCampaign,
    Field::Country,
    Field::Device,
    Field::Plan,
    Field::Category,
    Field::Product,
];

impl Field {
    /// The field of a name, in snake_case or camelCase.
    fn of(name: &str) -> Option<Field> {
        // As bytes: these are told apart by their length first.
        Some(match name.as_bytes() {
            b"event_id" | b"eventId" => Field::EventId,
            b"client_id" | b"clientId" => Field::ClientId,
            b"event_type" | b"eventType" => Field::EventType,
            b"timestamp" => Field::Timestamp,
            b"user_id" | b"userId" => Field::User,
            b"device_id" | b"deviceId" | b"anonymous_id" | b"anonymousId" => Field::DeviceId,
            b"session_id" | b"sessionId" => Field::Session,
            b"page" | b"page_id" | b"pageId" => Field::Page,
            b"referrer" => Field::Referrer,
            b"utm_source" | b"utmSource" => Field::UtmSource,
            b"utm_campaign" | b"utmCampaign" => Field::UtmCampaign,
            b"country" => Field::Country,
            b"device" => Field::Device,
            b"plan" => Field::Plan,
            b"category" => Field::Category,
            b"product" | b"product_id" | b"productId" => Field::Product,
            b"url" => Field::Url,
            b"user_agent" | b"userAgent" => Field::UserAgent,
            b"browser" => Field::Browser,
            b"os" => Field::Os,
            b"bot" => Field::Bot,
            b"utm_medium" | b"utmMedium" => Field::UtmMedium,
            b"click" => Field::Click,
            b"entry" => Field::Entry,
            b"channel" => Field::Channel,
            b"source" => Field::Source,
            _ => return None,
        })
    }

    /// The field that a cube's dimension is read from.
    pub(crate) fn of_dimension(name: &str) -> Option<Field> {
        Field::of(name).filter(|field| {
            !matches!(
                field,
                Field::EventId
                    | Field::ClientId
                    | Field::Timestamp
                    | Field::User
                    | Field::DeviceId
                    | Field::Session
                    | Field::Url
                    | Field::UserAgent
                    | Field::Click
                    | Field::Entry
            )
        })
    }

    /// Whether the field may stand among the properties, with such a value.
    fn is_lifted(self, value: &Scalar<'_>) -> bool {
        // A property `bot` may be anybody's word for something else.
        let of_event =
            matches!(self, Field::EventId | Field::ClientId | Field::EventType | Field::Timestamp | Field::Bot);
        // A number is a measure, unless its name was a field's from the beginning.
        !of_event && (!self.is_lenient() || matches!(value, Scalar::Text(_) | Scalar::Bool(_)))
    }

    /// Whether a number or a boolean may stand for the text.
    fn takes_scalars(self) -> bool {
        !matches!(self, Field::EventId | Field::ClientId | Field::EventType)
    }

    /// Whether a value that can't be taken is passed over.
    fn is_lenient(self) -> bool {
        self as usize > Field::Product as usize
    }

    fn bit(self) -> u32 {
        1 << self as u16
    }
}

/// A JSON value as far as it matters here. Also what is passed over is read as one: `IgnoredAny` would follow any
/// nesting, where this ends at serde_json's bound of 128 levels.
#[derive(Debug, Clone, PartialEq)]
enum Scalar<'a> {
    Null,
    Text(Cow<'a, str>),
    Number(f64),
    Integer(i64),
    Bool(bool),
    /// An array or an object.
    Nested,
}

/// An event that is well-formed, before anything is known of its time or its client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event<'a> {
    fields: Fields<'a>,
    /// Its time by its sender's clock, in ms.
    pub(crate) timestamp_ms: i64,
    /// Numbers beyond those that are taken.
    pub(crate) measures_left: u64,
}

/// An event that is rejected, with its id as far as it has one.
pub(crate) type Rejection = (Option<String>, Reason);

impl<'a> Event<'a> {
    /// Reads one JSON object. Its measures are numbers of these names, or of any.
    pub(crate) fn read(json: &'a str, measures: Option<&BTreeSet<String>>) -> Result<Self, Rejection> {
        let mut event = Event { fields: Fields::new(), timestamp_ms: 0, measures_left: 0 };
        if !scan::fields(json, &mut event.fields) {
            event.fields = serde_json::from_str(json).map_err(|_| (None, Reason::Malformed))?;
        }
        event.fields.take_apart();
        event.timestamp_ms = event.fields.check().map_err(|reason| {
            let id = event.text(Field::EventId);
            (id.map(|id| id[..id.floor_char_boundary(EVENT_ID_BYTES_MAX)].to_owned()), reason)
        })?;
        event.measures_left = event.fields.settle_measures(measures);
        Ok(event)
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        self.text(Field::EventId).unwrap_or_default()
    }

    /// A field's text; never empty.
    pub(crate) fn text(&self, field: Field) -> Option<&str> {
        self.fields.texts[field as usize].as_deref()
    }

    /// Numbers among the properties, in the order of their names: at most `MEASURES_PER_EVENT_MAX`.
    pub(crate) fn measures(&self) -> &[(Cow<'a, str>, f64)] {
        &self.fields.measures
    }
}

/// What stands in an event's JSON.
#[derive(Debug, Clone, PartialEq)]
struct Fields<'a> {
    /// None of them is empty.
    texts: [Option<Cow<'a, str>>; FIELDS],
    /// The fields whose text stood among the properties, where it yields to one of the event itself.
    lifted: u32,
    /// The fields that have a value that can't be one.
    wrong: u32,
    time: Scalar<'a>,
    measures: Vec<(Cow<'a, str>, f64)>,
}

impl<'a> Fields<'a> {
    fn new() -> Self {
        Fields { texts: [const { None }; FIELDS], lifted: 0, wrong: 0, time: Scalar::Null, measures: Vec::new() }
    }

    /// Takes a value of the event itself. A field may have several spellings: the last value that isn't absent counts.
    fn put(&mut self, field: Field, value: Scalar<'a>) {
        match value {
            Scalar::Null => {}
            Scalar::Text(text) => self.put_text(field, text),
            time if field == Field::Timestamp => self.time = time,
            scalar if field.takes_scalars() => self.set(field, scalar.into_text()),
            _ => self.set(field, None),
        }
    }

    fn put_text(&mut self, field: Field, text: Cow<'a, str>) {
        if text.is_empty() {
            return;
        }
        match field {
            Field::Timestamp => self.time = Scalar::Text(text),
            field => self.set(field, Some(text)),
        }
    }

    /// Sets a text, or that there is a value that can't be one.
    fn set(&mut self, field: Field, text: Option<Cow<'a, str>>) {
        self.wrong = if text.is_some() { self.wrong & !field.bit() } else { self.wrong | field.bit() };
        self.lifted &= !field.bit();
        self.texts[field as usize] = text;
    }

    /// Takes a value of the properties.
    fn put_property(&mut self, name: Cow<'a, str>, value: Scalar<'a>) {
        if let Some(field) = Field::of(&name).filter(|field| field.is_lifted(&value)) {
            let text = &mut self.texts[field as usize];
            let yields = text.is_some() && self.lifted & field.bit() == 0;
            if !value.is_absent() && !yields {
                *text = value.into_text();
                self.lifted |= field.bit();
            }
        } else if let Scalar::Number(number) = value {
            self.measures.push((name, number));
        } else if let Scalar::Integer(number) = value {
            self.measures.push((name, number as f64));
        }
    }

    /// Whether they make an event: its time, or the first reason why not.
    fn check(&self) -> Result<i64, Reason> {
        self.check_text(Field::EventId, EVENT_ID_BYTES_MAX, Reason::EventIdTooLong)?;
        self.has(Field::EventId, Reason::MissingEventId)?;
        let timestamp_ms = self.time.time()?;
        for field in [Field::ClientId, Field::EventType] {
            self.check_text(field, VALUE_BYTES_MAX, Reason::FieldTooLong)?;
        }
        self.has(Field::EventType, Reason::MissingEventType)?;
        for field in OPTIONAL {
            self.check_text(field, VALUE_BYTES_MAX, Reason::FieldTooLong)?;
        }
        Ok(timestamp_ms)
    }

    fn check_text(&self, field: Field, bytes_max: usize, too_long: Reason) -> Result<(), Reason> {
        if self.wrong & field.bit() != 0 {
            return Err(Reason::WrongType);
        }
        match &self.texts[field as usize] {
            Some(text) if text.len() > bytes_max => Err(too_long),
            _ => Ok(()),
        }
    }

    fn has(&self, field: Field, missing: Reason) -> Result<(), Reason> {
        if self.texts[field as usize].is_some() { Ok(()) } else { Err(missing) }
    }

    /// Keeps the measures that are taken, of these names or of any; says how many are left.
    fn settle_measures(&mut self, listed: Option<&BTreeSet<String>>) -> u64 {
        let measures = &mut self.measures;
        if let Some(listed) = listed {
            measures.retain(|(name, _)| listed.contains(&**name));
        }
        // By name, so that which are left out doesn't hang on the order of the properties; a repeated name counts once, with its
        // last value, as JSON readers do.
        measures.reverse();
        measures.sort_by(|a, b| a.0.cmp(&b.0));
        measures.dedup_by(|later, kept| later.0 == kept.0);
        let named = measures.len();
        measures.retain(|(name, _)| is_name(name));
        measures.truncate(MEASURES_PER_EVENT_MAX);
        (named - measures.len()) as u64
    }
}

/// Reads a time by itself: as an event's timestamp, but `None` for what is none.
pub(crate) fn read_time(json: &str) -> Option<i64> {
    serde_json::from_str::<Scalar<'_>>(json).ok().and_then(|value| value.time().ok())
}

impl<'a> Scalar<'a> {
    fn is_absent(&self) -> bool {
        matches!(self, Scalar::Null) || matches!(self, Scalar::Text(text) if text.is_empty())
    }

    fn time(&self) -> Result<i64, Reason> {
        let number = |value: f64| {
            let ms = if value.abs() < 1e11 { value * 1e3 } else { value };
            // jiff's range: the years -9999 to 9999.
            if ms.abs() <= 2.5e14 { Ok(ms as i64) } else { Err(Reason::InvalidTimestamp) }
        };
        match self {
            absent if absent.is_absent() => Err(Reason::MissingTimestamp),
            Scalar::Text(text) => {
                text.parse::<Timestamp>().map(|time| time.as_millisecond()).map_err(|_| Reason::InvalidTimestamp)
            }
            Scalar::Integer(value) => number(*value as f64),
            Scalar::Number(value) => number(*value),
            Scalar::Null | Scalar::Bool(_) | Scalar::Nested => Err(Reason::WrongType),
        }
    }

    fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Scalar::Text(text) => Some(text),
            Scalar::Integer(value) => Some(Cow::Owned(value.to_string())),
            Scalar::Number(value) => Some(Cow::Owned(value.to_string())),
            Scalar::Bool(value) => Some(Cow::Owned(value.to_string())),
            Scalar::Null | Scalar::Nested => None,
        }
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::new();
                while let Some(Text(name)) = map.next_key()? {
                    match Field::of(&name) {
                        Some(field) => fields.put(field, map.next_value()?),
                        None if name == "properties" || name == "metadata" => {
                            map.next_value_seed(Properties(&mut fields))?;
                        }
                        None => {
                            map.next_value::<Scalar<'de>>()?;
                        }
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Reads the properties into the fields; anything but an object has none.
struct Properties<'f, 'de>(&'f mut Fields<'de>);

impl<'de> DeserializeSeed<'de> for Properties<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Properties<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("properties")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            self.0.put_property(name, map.next_value()?);
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<Scalar<'de>>()?.is_some() {}
        Ok(())
    }
}

/// A name, borrowed where the JSON has no escapes in it.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Integer(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
                Ok(i64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Integer))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Number(value))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
                while seq.next_element::<Scalar<'de>>()?.is_some() {}
                Ok(Scalar::Nested)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
                while map.next_entry::<Text<'de>, Scalar<'de>>()?.is_some() {}
                Ok(Scalar::Nested)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests;
