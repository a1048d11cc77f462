//! One event: JSON to the fields that count.

use std::borrow::Cow;
use std::fmt;

use catchment_cells::key::is_name;
use catchment_cells::limits::{EVENT_ID_BYTES_MAX, MEASURES_PER_EVENT_MAX, VALUE_BYTES_MAX};
use jiff::Timestamp;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::reason::Reason;

/// The fields of an event that are looked at, and where `Fields` keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
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
}

const FIELDS: usize = Field::Product as usize + 1;

impl Field {
    /// The field of a name, in snake_case or camelCase.
    fn of(name: &str) -> Option<Field> {
        Some(match name {
            "event_id" | "eventId" => Field::EventId,
            "client_id" | "clientId" => Field::ClientId,
            "event_type" | "eventType" => Field::EventType,
            "timestamp" => Field::Timestamp,
            "user_id" | "userId" => Field::User,
            "device_id" | "deviceId" | "anonymous_id" | "anonymousId" => Field::DeviceId,
            "session_id" | "sessionId" => Field::Session,
            "page" | "page_id" | "pageId" => Field::Page,
            "referrer" => Field::Referrer,
            "utm_source" | "utmSource" => Field::UtmSource,
            "utm_campaign" | "utmCampaign" => Field::UtmCampaign,
            "country" => Field::Country,
            "device" => Field::Device,
            "plan" => Field::Plan,
            "category" => Field::Category,
            "product" | "product_id" | "productId" => Field::Product,
            _ => return None,
        })
    }

    /// Whether the field may stand among the properties.
    fn lifted(self) -> bool {
        !matches!(self, Field::EventId | Field::ClientId | Field::EventType | Field::Timestamp)
    }

    /// Whether a number or a boolean may stand for the text.
    fn takes_scalars(self) -> bool {
        !matches!(self, Field::EventId | Field::ClientId | Field::EventType)
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
    pub(crate) event_id: Cow<'a, str>,
    pub(crate) client_id: Option<Cow<'a, str>>,
    pub(crate) event_type: Cow<'a, str>,
    /// Its time by its sender's clock, in ms.
    pub(crate) timestamp_ms: i64,
    pub(crate) user: Option<Cow<'a, str>>,
    pub(crate) device_id: Option<Cow<'a, str>>,
    pub(crate) session: Option<Cow<'a, str>>,
    pub(crate) page: Option<Cow<'a, str>>,
    pub(crate) referrer: Option<Cow<'a, str>>,
    pub(crate) utm_source: Option<Cow<'a, str>>,
    pub(crate) utm_campaign: Option<Cow<'a, str>>,
    pub(crate) country: Option<Cow<'a, str>>,
    pub(crate) device: Option<Cow<'a, str>>,
    pub(crate) plan: Option<Cow<'a, str>>,
    pub(crate) category: Option<Cow<'a, str>>,
    pub(crate) product: Option<Cow<'a, str>>,
    /// Numbers among the properties, in the order of their names: at most `MEASURES_PER_EVENT_MAX`.
    pub(crate) measures: Vec<(Cow<'a, str>, f64)>,
    /// Numbers beyond these.
    pub(crate) measures_left: u64,
}

/// An event that is rejected, with its id as far as it has one.
pub(crate) type Rejection = (Option<String>, Reason);

impl<'a> Event<'a> {
    /// Reads one JSON object.
    pub(crate) fn read(json: &'a str) -> Result<Self, Rejection> {
        let mut fields: Fields<'a> = serde_json::from_str(json).map_err(|_| (None, Reason::Malformed))?;
        let id = match &fields.values[Field::EventId as usize] {
            Some(Scalar::Text(id)) => {
                let end = id.floor_char_boundary(EVENT_ID_BYTES_MAX);
                (!id.is_empty()).then(|| id[..end].to_owned())
            }
            _ => None,
        };
        Self::of(&mut fields).map_err(|reason| (id, reason))
    }

    fn of(fields: &mut Fields<'a>) -> Result<Self, Reason> {
        let event_id = fields.text(Field::EventId, EVENT_ID_BYTES_MAX, Reason::EventIdTooLong)?;
        let event_id = event_id.ok_or(Reason::MissingEventId)?;
        let timestamp_ms = fields.time()?;
        let mut text = |field| fields.text(field, VALUE_BYTES_MAX, Reason::FieldTooLong);
        let mut event = Event {
            event_id,
            client_id: text(Field::ClientId)?,
            event_type: text(Field::EventType)?.ok_or(Reason::MissingEventType)?,
            timestamp_ms,
            user: text(Field::User)?,
            device_id: text(Field::DeviceId)?,
            session: text(Field::Session)?,
            page: text(Field::Page)?,
            referrer: text(Field::Referrer)?,
            utm_source: text(Field::UtmSource)?,
            utm_campaign: text(Field::UtmCampaign)?,
            country: text(Field::Country)?,
            device: text(Field::Device)?,
            plan: text(Field::Plan)?,
            category: text(Field::Category)?,
            product: text(Field::Product)?,
            measures: std::mem::take(&mut fields.measures),
            measures_left: 0,
        };
        // By name, so that which are left out doesn't hang on the order of the properties; a repeated name counts once,
        // with its last value, as JSON readers do.
        event.measures.reverse();
        event.measures.sort_by(|a, b| a.0.cmp(&b.0));
        event.measures.dedup_by(|later, kept| later.0 == kept.0);
        let named = event.measures.len();
        event.measures.retain(|(name, _)| is_name(name));
        event.measures.truncate(MEASURES_PER_EVENT_MAX);
        event.measures_left = (named - event.measures.len()) as u64;
        Ok(event)
    }
}

/// What stands in an event's JSON.
#[derive(Debug)]
struct Fields<'a> {
    values: [Option<Scalar<'a>>; FIELDS],
    /// The same fields, where they stood among the properties.
    lifted: [Option<Scalar<'a>>; FIELDS],
    measures: Vec<(Cow<'a, str>, f64)>,
}

impl<'a> Fields<'a> {
    /// A field's text; empty counts as absent.
    fn text(&mut self, field: Field, bytes_max: usize, too_long: Reason) -> Result<Option<Cow<'a, str>>, Reason> {
        let direct = match self.values[field as usize].take() {
            None | Some(Scalar::Null) => None,
            Some(Scalar::Text(text)) => Some(text).filter(|text| !text.is_empty()),
            Some(Scalar::Nested) => return Err(Reason::WrongType),
            Some(_) if !field.takes_scalars() => return Err(Reason::WrongType),
            Some(other) => other.into_text(),
        };
        let text = direct.or_else(|| self.lifted[field as usize].take().and_then(Scalar::into_text));
        match text {
            Some(text) if text.len() > bytes_max => Err(too_long),
            text => Ok(text.filter(|text| !text.is_empty())),
        }
    }

    /// The time: RFC 3339 text, or a number of seconds or milliseconds since 1970, told apart by size (10¹¹ ms is in 1973).
    fn time(&mut self) -> Result<i64, Reason> {
        self.values[Field::Timestamp as usize].take().unwrap_or(Scalar::Null).time()
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

    fn time(self) -> Result<i64, Reason> {
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
            Scalar::Integer(value) => number(value as f64),
            Scalar::Number(value) => number(value),
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
                let mut fields =
                    Fields { values: [const { None }; FIELDS], lifted: [const { None }; FIELDS], measures: Vec::new() };
                while let Some(Text(name)) = map.next_key()? {
                    match Field::of(&name) {
                        Some(field) => put(&mut fields.values[field as usize], map.next_value()?),
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

/// A field may have several spellings: the last one that isn't absent counts.
fn put<'a>(slot: &mut Option<Scalar<'a>>, value: Scalar<'a>) {
    if slot.is_none() || !value.is_absent() {
        *slot = Some(value);
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
            let value: Scalar<'de> = map.next_value()?;
            if let Some(field) = Field::of(&name).filter(|field| field.lifted()) {
                put(&mut self.0.lifted[field as usize], value);
            } else if let Scalar::Number(number) = value {
                self.0.measures.push((name, number));
            } else if let Scalar::Integer(number) = value {
                self.0.measures.push((name, number as f64));
            }
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
