//! One line of a trace, read independently of the edge: what the exact figures are made of.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Numbers of one event that are measures.
const MEASURES_MAX: usize = 8;
/// Bytes of an event_id, and of any other text.
const ID_BYTES_MAX: usize = 128;
const TEXT_BYTES_MAX: usize = 512;

/// An event that should count.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Names it for good.
    pub id: String,
    /// `page_view`, …
    pub event_type: String,
    /// Whom uniques count in mode `user`: user, else device, else session, else the sender on that day.
    pub user: String,
    /// Its time, in ms since 1970.
    pub time_ms: i64,
    /// The page, where it has one.
    pub page: Option<String>,
    /// Numbers among the properties, by name.
    pub measures: Vec<(String, f64)>,
}

impl Event {
    /// Reads a line; `None` if it is no event that can be counted.
    pub fn read(line: &[u8]) -> Option<Event> {
        let Value::Object(object) = serde_json::from_slice(line).ok()? else { return None };
        let fields = Fields { bags: [object.get("properties"), object.get("metadata")], object: &object };
        let lifted = fields.bags.iter().flatten().filter_map(|bag| bag.as_object()).flatten();
        let too_long = |value: &Value| value.as_str().is_some_and(|text| text.len() > TEXT_BYTES_MAX);
        if object
            .iter()
            .any(|(name, value)| is_field(name) && (value.is_array() || value.is_object() || too_long(value)))
            || lifted.clone().any(|(name, value)| is_field(name) && too_long(value))
        {
            return None;
        }
        let id =
            fields.direct(&["event_id", "eventId"])?.as_str().filter(|id| (1..=ID_BYTES_MAX).contains(&id.len()))?;
        let id = id.to_owned();
        let event_type = fields
            .direct(&["event_type", "eventType"])?
            .as_str()
            .filter(|t| !t.is_empty() && t.len() <= TEXT_BYTES_MAX)?;
        let event_type = event_type.to_owned();
        let time_ms = time_ms(fields.direct(&["timestamp"])?)?;
        let named = |kind, names: &[&str]| fields.text(names).map(|text| format!("{kind}:{text}"));
        let user = named("user", &["user_id", "userId"])
            .or_else(|| named("device", &["device_id", "deviceId", "anonymous_id", "anonymousId"]))
            .or_else(|| named("session", &["session_id", "sessionId"]))
            .unwrap_or_else(|| format!("day:{}", time_ms.div_euclid(86_400_000)));
        let page = fields.text(&["page", "page_id", "pageId"]);
        Some(Event { id, event_type, user, time_ms, page, measures: fields.measures() })
    }
}

/// An event's JSON: fields stand in the object itself, some of them else among its properties.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    bags: [Option<&'a Value>; 2],
}

impl<'a> Fields<'a> {
    fn direct(&self, names: &[&str]) -> Option<&'a Value> {
        names.iter().find_map(|name| self.object.get(*name)).filter(|value| !value.is_null())
    }

    /// A text that may be written as a number and may stand among the properties; empty counts as absent.
    fn text(&self, names: &[&str]) -> Option<String> {
        let lifted = || self.bags.iter().flatten().find_map(|bag| names.iter().find_map(|name| bag.get(*name)));
        let text = match self.direct(names).or_else(lifted)? {
            Value::String(text) => text.clone(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
            scalar => scalar.to_string(),
        };
        (!text.is_empty()).then_some(text)
    }

    fn measures(&self) -> Vec<(String, f64)> {
        let numbers = self.bags.iter().flatten().filter_map(|bag| bag.as_object()).flatten();
        let mut measures: Vec<(String, f64)> = numbers
            .filter(|(name, _)| !is_field(name))
            .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)))
            .collect();
        measures.sort_by(|a, b| a.0.cmp(&b.0));
        measures.dedup_by(|a, b| a.0 == b.0);
        measures.truncate(MEASURES_MAX);
        measures
    }
}

/// Whether a property is lifted out as a field, and so is no measure whatever its type.
fn is_field(name: &str) -> bool {
    const FIELDS: [&str; 22] = [
        "user_id",
        "userId",
        "device_id",
        "deviceId",
        "anonymous_id",
        "anonymousId",
        "session_id",
        "sessionId",
        "page",
        "page_id",
        "pageId",
        "referrer",
        "utm_source",
        "utmSource",
        "utm_campaign",
        "utmCampaign",
        "country",
        "device",
        "plan",
        "category",
        "product",
        "product_id",
    ];
    FIELDS.contains(&name) || name == "productId"
}

/// RFC 3339, or seconds or milliseconds since 1970, told apart by size.
fn time_ms(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.parse::<Timestamp>().ok().map(|time| time.as_millisecond()),
        Value::Number(number) => {
            let number = number.as_f64()?;
            let ms = if number.abs() < 1e11 { number * 1e3 } else { number };
            (ms.abs() <= 2.5e14).then_some(ms as i64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_and_lifted_fields_are_read() {
        let camel = r#"{"eventId":"abc123","clientId":"c","pageId":"p7","timestamp":"2023-10-01T12:00:00Z","eventType":"page_view","metadata":{"userId":"u1","duration":120}}"#;
        let event = Event::read(camel.as_bytes()).unwrap();
        assert_eq!((event.id.as_str(), event.event_type.as_str()), ("abc123", "page_view"));
        assert_eq!((event.user.as_str(), event.page.as_deref()), ("user:u1", Some("p7")));
        assert_eq!((event.time_ms, event.measures), (1_696_161_600_000, vec![("duration".into(), 120.0)]));
        let numbers =
            r#"{"event_id":"e","event_type":"t","timestamp":1700000000,"session_id":5,"properties":{"plan":3}}"#;
        let event = Event::read(numbers.as_bytes()).unwrap();
        assert_eq!((event.user.as_str(), event.time_ms, event.measures), ("session:5", 1_700_000_000_000, vec![]));
    }

    #[test]
    fn what_lacks_id_type_or_time_is_no_event() {
        for line in [
            "",
            "[]",
            "{\"event_id\":",
            r#"{"event_type":"t","timestamp":1}"#,
            r#"{"event_id":"","event_type":"t","timestamp":1}"#,
            r#"{"event_id":"e","timestamp":1}"#,
            r#"{"event_id":"e","event_type":"t"}"#,
            r#"{"event_id":"e","event_type":"t","timestamp":"yesterday"}"#,
        ] {
            assert_eq!(Event::read(line.as_bytes()), None, "{line}");
        }
    }
}
