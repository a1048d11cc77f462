//! One `POST /v1/events`, as the shard gets it: whom it is from, and where in its body the events stand.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use catchment_cells::ClientId;
use catchment_cells::codec::{DecodeError, Reader, put_str, put_uv};
use catchment_cells::credential::{Identity, WriteKey};
use catchment_cells::limits::{CLIENT_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_EVENTS_MAX};
use flate2::read::MultiGzDecoder;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::agent::Agent;
use crate::country::Country;
use crate::event::read_time;

/// What a write key lets its requests do: the part of it that re-applying needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose events.
    pub client: ClientId,
    /// Whom uniques count.
    pub identity: Identity,
    /// Any past time is let in.
    pub backfill: bool,
    /// A body's foreign client id is passed over.
    pub ignore_foreign_client: bool,
}

/// What is known of a request's sender besides its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visitor {
    /// Keyed hash of address and agent. Address and agent themselves are kept nowhere.
    pub hash: u64,
    /// The country of the address, where it is known.
    pub country: Option<Country>,
    /// What the agent tells.
    pub agent: Agent,
}

/// A request whose body is well-formed as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What its key says.
    pub claims: Claims,
    /// Who sent it.
    pub visitor: Visitor,
    body: String,
    sent_at: Option<i64>,
    events: Vec<Range<usize>>,
}

/// Why a request is refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The body is too long.
    #[error("the body has more than {REQUEST_BYTES_MAX} bytes")]
    TooLarge,
    /// There are too many events.
    #[error("the body has more than {REQUEST_EVENTS_MAX} events")]
    TooManyEvents,
    /// The body is no UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// The body is no JSON of a shape that is taken.
    #[error("the body is neither an event, an array of events, an envelope with `events`, nor NDJSON")]
    Malformed,
}

impl RequestError {
    /// The name that answers carry.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestError::TooLarge => "too_large",
            RequestError::TooManyEvents => "too_many_events",
            RequestError::NotUtf8 => "not_utf8",
            RequestError::Malformed => "malformed",
        }
    }
}

impl From<&WriteKey> for Claims {
    fn from(key: &WriteKey) -> Self {
        Claims {
            client: key.client.clone(),
            identity: key.identity,
            backfill: key.backfill,
            ignore_foreign_client: key.ignore_foreign_client,
        }
    }
}

impl Claims {
    const BACKFILL: u8 = 4;
    const IGNORE_FOREIGN_CLIENT: u8 = 8;

    fn flags(&self) -> u8 {
        let identity = match self.identity {
            Identity::Daily => 0,
            Identity::Device => 1,
            Identity::User => 2,
        };
        identity
            | if self.backfill { Self::BACKFILL } else { 0 }
            | if self.ignore_foreign_client { Self::IGNORE_FOREIGN_CLIENT } else { 0 }
    }

    fn of(client: &str, flags: u8) -> Result<Self, DecodeError> {
        // A bit that means nothing yet may mean something to whoever wrote it.
        if flags & !(3 | Self::BACKFILL | Self::IGNORE_FOREIGN_CLIENT) != 0 {
            return Err(DecodeError::Malformed("unknown flag"));
        }
        let identity = match flags & 3 {
            0 => Identity::Daily,
            1 => Identity::Device,
            2 => Identity::User,
            _ => return Err(DecodeError::Malformed("identity")),
        };
        Ok(Claims {
            client: ClientId::new(client).map_err(|_| DecodeError::Malformed("client id"))?,
            identity,
            backfill: flags & Self::BACKFILL != 0,
            ignore_foreign_client: flags & Self::IGNORE_FOREIGN_CLIENT != 0,
        })
    }
}

impl Visitor {
    fn encode(&self, with_names: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.country.unwrap_or_default());
        self.agent.encode(with_names, out);
    }

    fn decode(reader: &mut Reader<'_>, with_names: bool) -> Result<Self, DecodeError> {
        Ok(Visitor {
            hash: reader.u64()?,
            country: Some(reader.array()?).filter(|country| *country != [0; 2]),
            agent: Agent::decode(reader, with_names)?,
        })
    }
}

impl Request {
    /// Bytes that reading a body may have to look at: of gzip, as many as a body may have.
    pub(crate) fn bytes_to_read(body: &[u8]) -> usize {
        if body.starts_with(&GZIP_MAGIC) { REQUEST_BYTES_MAX } else { body.len() }
    }

    /// Reads a body: an event, an array of events, an envelope or NDJSON, whatever its content type said, and gzip of these,
    /// whether or not it said so. What is kept is the inflated body.
    pub fn read(claims: Claims, visitor: Visitor, body: Vec<u8>) -> Result<Self, RequestError> {
        if body.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLarge);
        }
        // No JSON begins like that.
        let body = if body.starts_with(&GZIP_MAGIC) { inflate(&body)? } else { body };
        let body = String::from_utf8(body).map_err(|_| RequestError::NotUtf8)?;
        let Shape { sent_at, events } = Shape::of(&body)?;
        if events.len() > REQUEST_EVENTS_MAX {
            return Err(RequestError::TooManyEvents);
        }
        // Slices of the body know where they stand in it.
        let start = body.as_ptr() as usize;
        let range = |event: &str| {
            let at = event.as_ptr() as usize - start;
            at..at + event.len()
        };
        let events = events.into_iter().map(range).collect();
        Ok(Request { claims, visitor, body, sent_at, events })
    }

    /// The time by the sender's clock when it sent the request, in ms.
    pub(crate) fn sent_at(&self) -> Option<i64> {
        self.sent_at
    }

    /// The events' JSON.
    pub(crate) fn events(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(|range| &self.body[range.clone()])
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether it has no events.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes of its body, and some more for what stands beside it.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.visitor.agent.names().map(str::len).sum::<usize>() + BESIDE_BODY_BYTES
    }

    /// Whether its agent has names, which rows of version 1 have no place for.
    pub(crate) fn has_names(&self) -> bool {
        self.visitor.agent.names().any(|name| !name.is_empty())
    }

    /// Writes `str client ‖ u8 flags ‖ u64 visitor ‖ country[2] ‖ agent ‖ str body`.
    pub(crate) fn encode(&self, with_names: bool, out: &mut Vec<u8>) {
        put_str(out, self.claims.client.as_str());
        out.push(self.claims.flags());
        self.visitor.encode(with_names, out);
        put_uv(out, self.body.len() as u64);
        out.extend_from_slice(self.body.as_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>, with_names: bool) -> Result<Self, DecodeError> {
        let client = reader.str(CLIENT_BYTES_MAX)?;
        let claims = Claims::of(client, reader.u8()?)?;
        let visitor = Visitor::decode(reader, with_names)?;
        let bytes = reader.count(1)?;
        let body = reader.bytes(bytes)?.to_vec();
        // By the limits of today: whoever lowers one must still read the rows of yesterday.
        Request::read(claims, visitor, body).map_err(|_| DecodeError::Malformed("a request that was never taken"))
    }
}

/// Inflates gzip (RFC 1952), of one member or several, as far as a body may go: what the bytes say of their length is not asked.
fn inflate(body: &[u8]) -> Result<Vec<u8>, RequestError> {
    let mut inflated = Vec::new();
    let mut inflating = MultiGzDecoder::new(body).take(REQUEST_BYTES_MAX as u64 + 1);
    inflating.read_to_end(&mut inflated).map_err(|_| RequestError::Malformed)?;
    if inflated.len() > REQUEST_BYTES_MAX { Err(RequestError::TooLarge) } else { Ok(inflated) }
}

/// What gzip begins with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// More than what stands in a log row beside a request's body and the names of its agent.
const BESIDE_BODY_BYTES: usize = 128;
const _: () = assert!(CLIENT_BYTES_MAX + 40 < BESIDE_BODY_BYTES);

/// Where the events stand in a body.
struct Shape<'a> {
    sent_at: Option<i64>,
    events: Vec<&'a str>,
}

impl<'a> Shape<'a> {
    fn of(body: &'a str) -> Result<Self, RequestError> {
        let text = body.trim_start_matches('\u{feff}').trim();
        if text.starts_with('[') {
            let events: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| RequestError::Malformed)?;
            return Ok(Shape { sent_at: None, events: events.into_iter().map(RawValue::get).collect() });
        }
        if !text.starts_with('{') {
            return Err(RequestError::Malformed);
        }
        let whole = serde_json::from_str::<&RawValue>(text);
        if whole.is_err() {
            return Self::of_lines(text);
        }
        Ok(Self::of_envelope(text).unwrap_or_else(|| Shape { sent_at: None, events: vec![text] }))
    }

    /// An object with an array of `events`, and the time it was sent, if that is one.
    fn of_envelope(text: &'a str) -> Option<Self> {
        // Spares a single event the look for it.
        if !text.contains("\"events\"") {
            return None;
        }
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        let events: Vec<&RawValue> = serde_json::from_str(fields.get("events")?.get()).ok()?;
        let sent_at =
            ["sent_at", "sentAt"].into_iter().filter_map(|name| fields.get(name)).find_map(|at| read_time(at.get()));
        Some(Shape { sent_at, events: events.into_iter().map(RawValue::get).collect() })
    }

    /// NDJSON: lines, of which the first is JSON. Another that isn't is its own event's mistake.
    fn of_lines(text: &'a str) -> Result<Self, RequestError> {
        let events: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        match events[..] {
            [first, _, ..] if serde_json::from_str::<&RawValue>(first).is_ok() => Ok(Shape { sent_at: None, events }),
            _ => Err(RequestError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            client: ClientId::new("shop").unwrap(),
            identity: Identity::User,
            backfill: false,
            ignore_foreign_client: true,
        }
    }

    fn read(body: &[u8]) -> Result<Request, RequestError> {
        Request::read(claims(), Visitor::default(), body.to_vec())
    }

    #[test]
    fn every_shape_of_a_body_yields_its_events() {
        for (body, expected) in [
            (r#"{"a":1}"#, &[r#"{"a":1}"#][..]),
            ("\u{feff} {\n \"a\": 1\n}\n", &["{\n \"a\": 1\n}"]),
            ("[]", &[]),
            (r#"[{"a":1}, {"b":2} ,3]"#, &[r#"{"a":1}"#, r#"{"b":2}"#, "3"]),
            (r#"{"sent_at":"2024-01-01T00:00:00Z","events":[{"a":1}]}"#, &[r#"{"a":1}"#]),
            (r#"{"sentAt":null,"events":[]}"#, &[]),
            ("{\"a\":1}\n\n{\"b\":2}\r\n", &[r#"{"a":1}"#, r#"{"b":2}"#]),
            ("{\"a\":1}\nnonsense", &[r#"{"a":1}"#, "nonsense"]),
            (r#"{"events":5}"#, &[r#"{"events":5}"#]),
            (r#"{"sent_at":{},"events":[1],"sentAt":7,"more":[]}"#, &["1"]),
        ] {
            let request = read(body.as_bytes()).unwrap();
            assert_eq!(request.events().collect::<Vec<_>>(), expected, "{body}");
        }
        for (sent_at, expected) in [
            (r#""sent_at":"2024-01-01T00:00:00.5Z""#, Some(1_704_067_200_500)),
            (r#""sentAt":1704067200500"#, Some(1_704_067_200_500)),
            (r#""sent_at":null,"sentAt":1704067200"#, Some(1_704_067_200_000)),
            (r#""sent_at":"now""#, None),
            (r#""sent_at":1,"sent_at":[]"#, None),
        ] {
            let body = format!(r#"{{{sent_at},"events":[]}}"#);
            assert_eq!(read(body.as_bytes()).unwrap().sent_at(), expected, "{body}");
        }
    }

    #[test]
    fn other_bodies_are_refused() {
        let deep = "[".repeat(200_000);
        let many = format!("[{}1]", "1,".repeat(REQUEST_EVENTS_MAX));
        let long = vec![b' '; REQUEST_BYTES_MAX + 1];
        for (body, expected) in [
            (&b""[..], RequestError::Malformed),
            (b"null", RequestError::Malformed),
            (b"\"text\"", RequestError::Malformed),
            (b"{", RequestError::Malformed),
            (b"[{\"a\":NaN}]", RequestError::Malformed),
            (b"nonsense\n{}", RequestError::Malformed),
            (b"{\"a\":\"\xff\"}", RequestError::NotUtf8),
            (deep.as_bytes(), RequestError::Malformed),
            (many.as_bytes(), RequestError::TooManyEvents),
            (&long, RequestError::TooLarge),
        ] {
            assert_eq!(read(body).unwrap_err(), expected);
        }
    }

    #[test]
    fn flags_that_mean_nothing_yet_are_refused() {
        assert_eq!(Claims::of("shop", 14).map(|claims| claims.flags()), Ok(14));
        for flags in [3, 14 | 16, 14 | 32, 128] {
            assert!(Claims::of("shop", flags).is_err(), "{flags}");
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_inflated_as_far_as_a_body_may_go() {
        let plain = read(br#"[{"a":1},{"b":2}]"#).unwrap();
        for zipped in [gzip(br#"[{"a":1},{"b":2}]"#), [gzip(br#"[{"a":1},"#), gzip(br#"{"b":2}]"#)].concat()] {
            assert_eq!(read(&zipped).unwrap(), plain);
        }
        let whole = gzip(br#"{"a":1}"#);
        assert_eq!(read(&gzip(&[b"{}", &vec![b' '; REQUEST_BYTES_MAX - 2][..]].concat())).unwrap().len(), 1);
        let beyond = gzip(&vec![b' '; REQUEST_BYTES_MAX + 1]);
        let bomb = gzip(&vec![0; 50 * REQUEST_BYTES_MAX]);
        assert!(bomb.len() < REQUEST_BYTES_MAX);
        let mut other_sum = whole.clone();
        let at = other_sum.len() - 8;
        other_sum[at] ^= 1;
        for (body, expected) in [
            (&whole[..2], RequestError::Malformed),
            (&whole[..whole.len() - 1], RequestError::Malformed),
            (&other_sum, RequestError::Malformed),
            (&[&whole[..], b"{}"].concat(), RequestError::Malformed),
            (&gzip(b"nonsense"), RequestError::Malformed),
            (&gzip(&whole), RequestError::NotUtf8),
            (&beyond, RequestError::TooLarge),
            (&bomb, RequestError::TooLarge),
        ] {
            assert_eq!(read(body).unwrap_err(), expected);
        }
    }
}
