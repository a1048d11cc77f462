//! The live path's messages, from the server to a reader, and what a reader knows of a view. The grammar of each message is in
//! docs/FORMATS.md.
//!
//! A view is a question whose answer is kept up to date. Its reader gets a snapshot, then updates: the rows that changed, with
//! counts and measures as they now are, and of users those that are new. All of it may be repeated without harm.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::codec::{DecodeError, Reader, put_iv, put_str, put_uv};
use crate::estimate::Estimate;
use crate::key::{Tier, check_minute};
use crate::limits::{
    CLIENT_BYTES_MAX, LIVE_DETAIL_BYTES_MAX, METRIC_BYTES_MAX, NAME_BYTES_MAX, QUESTION_METRICS_MAX,
    UPDATE_RAW_BYTES_MAX, VALUE_BYTES_MAX,
};
use crate::metric::{Metric, UnknownMetric};
use crate::row::{Row, sort_bucket};
use crate::sum::{Parts, Sum};
use crate::users::Users;

const VERSION: u8 = 1;

/// Kinds of messages on the wire: final.
const HELLO: u8 = 1;
const VIEW: u8 = 2;
const UPDATE: u8 = 3;
const REFUSED: u8 = 4;
const ALIVE: u8 = 5;
const CLOCK: u8 = 6;

/// Codecs of an update's rows: final.
const STORED: u8 = 0;
const DEFLATE: u8 = 1;
/// Shorter rows aren't worth it.
const DEFLATE_FROM_BYTES: usize = 512;
const DEFLATE_LEVEL: u8 = 3;

/// The fewest bytes of a key and of a row: what a count can at most claim.
const KEY_BYTES_MIN: usize = 2;
const ROW_BYTES_MIN: usize = 5;

const MINUTE_MS: i64 = 60_000;

/// What a server says to a reader.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The read key is good.
    Hello {
        /// The server's clock, in ms.
        now: i64,
        /// Whose figures are read.
        client: String,
    },
    /// A subscription has its view; its updates follow.
    View(View),
    /// What changed in a view.
    Update(Update),
    /// A subscription has no view, or has it no longer.
    Refused {
        /// Which.
        subscription: u64,
        /// What the metrics API would answer: 400, 422, 500 or 503.
        status: u16,
        /// Why, as a sentence.
        detail: String,
    },
    /// The client's clock, where that isn't UTC: before the hello.
    Clock {
        /// Its name.
        time_zone: String,
        /// From which minute on it is how many minutes ahead of UTC; ascending.
        offsets: Vec<(i64, i64)>,
    },
    /// Nothing need have changed: the connection holds.
    Alive {
        /// The server's clock, in ms.
        now: i64,
    },
}

/// What a view answers, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The number that the reader gave it.
    pub subscription: u64,
    /// The number that its updates bear: the same for all readers of one question.
    pub view: u64,
    /// The metrics' names, in the order of a row's figures.
    pub metrics: Vec<String>,
    /// The cube that it is answered from.
    pub cube: String,
    /// The coarsest tier that it was read from.
    pub tier: Tier,
}

/// What changed in a view between two versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Which view.
    pub view: u64,
    /// The version that it changes; 0 is the empty one before a snapshot.
    pub from: u64,
    /// The version that it makes.
    pub to: u64,
    /// The first minute that the view is about.
    pub start: i64,
    /// The minute after the last.
    pub end: i64,
    /// When the newest frame that is in it was cut, in ms.
    pub as_of: Option<i64>,
    /// Rows that are no more.
    pub gone: Vec<RowKey>,
    /// Rows that are new or changed, ascending.
    pub rows: Vec<Changed>,
}

/// Names a row of a view.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// The bucket's start, as a minute.
    pub bucket: i64,
    /// The group's value; `None` in a question without groups.
    pub group: Option<Box<str>>,
}

/// A row that is new or changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Which.
    pub key: RowKey,
    /// Users are all there are, and not those that are new.
    pub whole: bool,
    /// The sum of each part.
    pub sums: Vec<Sum>,
}

/// What a reader knows of a view: apply each of its updates, in order.
#[derive(Debug, Clone)]
pub struct Mirror {
    parts: Parts,
    view: u64,
    version: u64,
    start: i64,
    end: i64,
    as_of: Option<i64>,
    rows: BTreeMap<RowKey, Vec<Sum>>,
}

/// An update that doesn't follow what the reader knows: subscribe again, without a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MirrorError {
    /// It is another view's.
    #[error("an update of another view")]
    View,
    /// Updates are missing before it.
    #[error("an update from version {from}, where {version} is known")]
    Gap {
        /// What it changes.
        from: u64,
        /// What is known.
        version: u64,
    },
    /// Its sums aren't those of the view's metrics.
    #[error("an update with other sums than the view's")]
    Sums,
}

impl Message {
    /// Writes the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Message::Hello { now, client } => {
                out.push(HELLO);
                put_iv(&mut out, *now);
                put_str(&mut out, client);
            }
            Message::View(view) => {
                out.push(VIEW);
                put_uv(&mut out, view.subscription);
                out.extend_from_slice(&view.view.to_le_bytes());
                put_uv(&mut out, view.metrics.len() as u64);
                view.metrics.iter().for_each(|metric| put_str(&mut out, metric));
                put_str(&mut out, &view.cube);
                out.push(view.tier as u8);
            }
            Message::Update(update) => {
                out.push(UPDATE);
                update.encode(&mut out);
            }
            Message::Refused { subscription, status, detail } => {
                out.push(REFUSED);
                put_uv(&mut out, *subscription);
                put_uv(&mut out, (*status).into());
                put_str(&mut out, detail);
            }
            Message::Clock { time_zone, offsets } => {
                out.push(CLOCK);
                put_str(&mut out, time_zone);
                put_uv(&mut out, offsets.len() as u64);
                for (minute, offset) in offsets {
                    put_iv(&mut out, *minute);
                    put_iv(&mut out, *offset);
                }
            }
            Message::Alive { now } => {
                out.push(ALIVE);
                put_iv(&mut out, *now);
            }
        }
        out
    }

    /// Reads a message, all of it.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let message = match reader.u8()? {
            HELLO => Message::Hello { now: read_ms(&mut reader)?, client: reader.str(CLIENT_BYTES_MAX)?.into() },
            VIEW => {
                let (subscription, view) = (reader.uv()?, reader.u64()?);
                let n = reader.count_some(1)?;
                if n > QUESTION_METRICS_MAX {
                    return Err(DecodeError::Malformed("too many metrics"));
                }
                let metrics = (0..n).map(|_| Ok(reader.str(METRIC_BYTES_MAX)?.into())).collect::<Result<_, _>>()?;
                let cube = reader.str(NAME_BYTES_MAX)?.into();
                Message::View(View { subscription, view, metrics, cube, tier: Tier::from_byte(reader.u8()?)? })
            }
            UPDATE => Message::Update(Update::decode(&mut reader)?),
            REFUSED => Message::Refused {
                subscription: reader.uv()?,
                status: u16::try_from(reader.uv()?).map_err(|_| DecodeError::Malformed("status"))?,
                detail: reader.str(LIVE_DETAIL_BYTES_MAX)?.into(),
            },
            CLOCK => {
                let time_zone = reader.str(NAME_BYTES_MAX)?.into();
                let n = reader.count(2)?;
                let read = |_| Ok((check_minute(reader.iv()?)?, check_minute(reader.iv()?)?));
                Message::Clock { time_zone, offsets: (0..n).map(read).collect::<Result<_, DecodeError>>()? }
            }
            ALIVE => Message::Alive { now: read_ms(&mut reader)? },
            _ => return Err(DecodeError::Malformed("unknown kind of message")),
        };
        reader.finish()?;
        Ok(message)
    }
}

impl Update {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.view.to_le_bytes());
        put_uv(out, self.from);
        put_uv(out, self.to);
        put_iv(out, self.start);
        put_uv(out, self.end.abs_diff(self.start));
        put_iv(out, self.as_of.unwrap_or(0));
        let mut raw = Vec::new();
        let mut last = 0;
        put_uv(&mut raw, self.gone.len() as u64);
        self.gone.iter().for_each(|key| key.encode(&mut last, &mut raw));
        put_uv(&mut raw, self.rows.len() as u64);
        for row in &self.rows {
            row.key.encode(&mut last, &mut raw);
            raw.push(row.whole.into());
            put_uv(&mut raw, row.sums.len() as u64);
            row.sums.iter().for_each(|sum| sum.encode(&mut raw));
        }
        if raw.len() >= DEFLATE_FROM_BYTES {
            let deflated = miniz_oxide::deflate::compress_to_vec(&raw, DEFLATE_LEVEL);
            if deflated.len() < raw.len() {
                out.push(DEFLATE);
                out.extend_from_slice(&deflated);
                return;
            }
        }
        out.push(STORED);
        out.extend_from_slice(&raw);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Update, DecodeError> {
        let view = reader.u64()?;
        let (from, to) = (reader.uv()?, reader.uv()?);
        let start = check_minute(reader.iv()?)?;
        let end = start.checked_add_unsigned(reader.uv()?).ok_or(DecodeError::Malformed("end"))?;
        let end = check_minute(end)?;
        let as_of = Some(reader.iv()?).filter(|at| *at != 0);
        let codec = reader.u8()?;
        let rest = reader.bytes(reader.remaining())?;
        let inflated;
        let raw = match codec {
            STORED => rest,
            DEFLATE => {
                inflated = miniz_oxide::inflate::decompress_to_vec_with_limit(rest, UPDATE_RAW_BYTES_MAX)
                    .map_err(|_| DecodeError::Malformed("rows don't inflate"))?;
                &inflated
            }
            _ => return Err(DecodeError::Malformed("unknown codec")),
        };
        let mut reader = Reader::new(raw);
        let mut last = 0;
        let mut gone = Vec::new();
        for _ in 0..reader.count(KEY_BYTES_MIN)? {
            gone.push(RowKey::decode(&mut last, &mut reader)?);
        }
        let mut rows = Vec::new();
        for _ in 0..reader.count(ROW_BYTES_MIN)? {
            let key = RowKey::decode(&mut last, &mut reader)?;
            let whole = match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(DecodeError::Malformed("neither whole nor not")),
            };
            let n = reader.count_some(1)?;
            if n > QUESTION_METRICS_MAX {
                return Err(DecodeError::Malformed("too many sums"));
            }
            let sums = (0..n).map(|_| Sum::decode(&mut reader)).collect::<Result<_, _>>()?;
            rows.push(Changed { key, whole, sums });
        }
        reader.finish()?;
        Ok(Update { view, from, to, start, end, as_of, gone, rows })
    }
}

impl RowKey {
    fn encode(&self, last: &mut i64, out: &mut Vec<u8>) {
        put_iv(out, self.bucket.wrapping_sub(std::mem::replace(last, self.bucket)));
        match &self.group {
            None => out.push(0),
            Some(group) => {
                put_uv(out, group.len() as u64 + 1);
                out.extend_from_slice(group.as_bytes());
            }
        }
    }

    fn decode(last: &mut i64, reader: &mut Reader<'_>) -> Result<RowKey, DecodeError> {
        *last = check_minute(last.wrapping_add(reader.iv()?))?;
        let group = match reader.uv()? {
            0 => None,
            n if n > VALUE_BYTES_MAX as u64 + 1 => return Err(DecodeError::Malformed("group")),
            n => {
                let text = reader.bytes(n as usize - 1)?;
                Some(std::str::from_utf8(text).map_err(|_| DecodeError::Malformed("group"))?.into())
            }
        };
        Ok(RowKey { bucket: *last, group })
    }
}

fn read_ms(reader: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let ms = reader.iv()?;
    check_minute(ms.div_euclid(MINUTE_MS)).map(|_| ms)
}

impl Mirror {
    /// What is known of a view before its first update.
    pub fn new(view: &View) -> Result<Mirror, UnknownMetric> {
        let metrics: Vec<Metric> = view.metrics.iter().map(|name| Metric::parse(name)).collect::<Result<_, _>>()?;
        let parts = Parts::new(&metrics);
        Ok(Mirror { parts, view: view.view, version: 0, start: 0, end: 0, as_of: None, rows: BTreeMap::new() })
    }

    /// Takes an update in. One that is refused changes nothing.
    pub fn apply(&mut self, update: Update) -> Result<(), MirrorError> {
        if update.view != self.view {
            return Err(MirrorError::View);
        }
        if update.from != 0 && update.from != self.version {
            return Err(MirrorError::Gap { from: update.from, version: self.version });
        }
        if !update.rows.iter().all(|row| self.parts.fit(&row.sums)) {
            return Err(MirrorError::Sums);
        }
        if update.from == 0 {
            self.rows.clear();
        }
        for key in &update.gone {
            self.rows.remove(key);
        }
        for Changed { key, whole, mut sums } in update.rows {
            if !whole && let Some(known) = self.rows.get_mut(&key) {
                for (known, new) in known.iter_mut().zip(&mut sums) {
                    match (known, new) {
                        (Sum::Users(known), Sum::Users(new)) => known.merge(new),
                        (known, new) => std::mem::swap(known, new),
                    }
                }
            } else {
                self.rows.insert(key, sums);
            }
        }
        (self.version, self.start, self.end, self.as_of) = (update.to, update.start, update.end, update.as_of);
        Ok(())
    }

    /// Where to resume: `cursor` of a subscription to the same question.
    pub fn cursor(&self) -> String {
        cursor(self.view, self.version)
    }

    /// The version that is known; 0 before the snapshot.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The minutes that the view is about: the first, and the one after the last.
    pub fn range(&self) -> (i64, i64) {
        (self.start, self.end)
    }

    /// When the newest frame that is in it was cut, in ms.
    pub fn as_of(&self) -> Option<i64> {
        self.as_of
    }

    /// The metrics, in the order of a row's figures.
    pub fn metrics(&self) -> &[Metric] {
        self.parts.metrics()
    }

    /// The rows, as the metrics API answers them.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self
            .rows
            .iter()
            .map(|(key, sums)| Row { bucket: key.bucket, group: key.group.clone(), figures: self.parts.figures(sums) })
            .collect();
        rows.chunk_by_mut(|a, b| a.bucket == b.bucket).for_each(sort_bucket);
        rows
    }

    /// A count's sum over all rows; `None` for metrics that are no counts.
    pub fn count(&self, metric: usize) -> Option<u64> {
        let mut counts = self.rows.values().map(|sums| match self.parts.sum(metric, sums) {
            Sum::Count(count) => Some(*count),
            _ => None,
        });
        // As sums saturate everywhere: a forger's counts overflow nothing.
        counts.try_fold(0u64, |sum, count| Some(sum.saturating_add(count?)))
    }

    /// The users of all buckets that start in `from..to`: those of a sliding window. Other metrics than `users` have none, and
    /// views without sets.
    pub fn users_in(&self, from: i64, to: i64, metric: usize) -> Estimate {
        let mut users = Users::default();
        for (key, sums) in &self.rows {
            if let Sum::Users(part) = self.parts.sum(metric, sums)
                && (from..to).contains(&key.bucket)
            {
                users.merge(part);
            }
        }
        users.estimate()
    }
}

/// Writes a cursor.
pub fn cursor(view: u64, version: u64) -> String {
    format!("{view:x}-{version}")
}

/// Reads a cursor; `None` if it is none.
pub fn parse_cursor(text: &str) -> Option<(u64, u64)> {
    let (view, version) = text.split_once('-')?;
    Some((u64::from_str_radix(view, 16).ok()?, version.parse().ok()?))
}

#[cfg(test)]
mod tests;
