//! What a shard keeps in storage. The grammar of each row is its type's; version bytes lead.

use catchment_cells::codec::{DecodeError, Reader, put_str, put_uv};
use catchment_cells::frame::{CHAIN_START, Chain, Producer};
use catchment_cells::limits::{CONFIG_BYTES_MAX, SHARD_BYTES_MAX};

use crate::limits::{OUTBOX_FRAMES_MAX, PARKED_MAX, SPILLED_ROWS};
use crate::request::Request;

const VERSION: u8 = 1;
/// Of the state of a shard that has spilled.
const VERSION_SPILLED: u8 = 2;
/// Of a row of the log with names of agents.
const VERSION_NAMES: u8 = 2;
/// The fewest bytes of an encoded request.
const REQUEST_BYTES_MIN: usize = 14;

/// One row of the log: the requests that were committed together.
///
/// Bytes: `u8 version ‖ i64 received_at ‖ uv n ‖ n × request`, a request as `str client ‖ u8 flags ‖ u64 visitor ‖ country[2] ‖
/// u8 device ‖ str body`, and in version 2, where some agent has a name, as `… ‖ u8 device ‖ str browser ‖ str os ‖ str bot ‖ str body`.
/// Flags: bits 0 and 1 the identity (0 daily, 1 device, 2 user), bit 2 backfill, bit 3 foreign clients are passed over; a country of
/// zeros, a device of 0 and an empty name are unknown.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRow {
    /// When, in ms.
    pub received_at: i64,
    /// What.
    pub requests: Vec<Request>,
}

/// One row of the ring of ids: the event_ids, hashed, of one cut or some that followed each other.
///
/// Bytes: `u8 version ‖ i64 first_received_at ‖ i64 last_received_at ‖ n × u64`, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdsRow {
    /// Its number, from 0.
    pub n: u64,
    /// When the first of its cuts began, in ms.
    pub first_received_at: i64,
    /// When the last of its events was received, in ms.
    pub last_received_at: i64,
    /// Keyed hashes of the event_ids, ascending.
    pub ids: Vec<u64>,
}

/// One of the spilled rows: the ids, of those that the ring has no room for, whose bits 40 and up are the row's number.
///
/// Bytes: `u8 version ‖ n × group`, a group as `i64 received_by ‖ uv n ‖ n × u64`, n at least 1, ids ascending. Groups don't descend
/// by `received_by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpilledRow {
    /// Its number, below [`SPILLED_ROWS`].
    pub n: u64,
    /// What came with one round each, oldest first.
    pub groups: Vec<SpilledGroup>,
}

/// Ids that were spilled together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpilledGroup {
    /// By when all of their events had been received, in ms.
    pub received_by: i64,
    /// Keyed hashes of the event_ids, ascending.
    pub ids: Vec<u64>,
}

/// A client's config that is in force: log rows that are not cut are applied under it.
///
/// Bytes: `u8 version ‖ u32 version of the config ‖ config`, which is empty where the client has none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRow {
    /// The version of its last change.
    pub version: u32,
    /// Its bytes.
    pub config: Vec<u8>,
}

/// The one row that says how far a shard is. It is written with each cut.
///
/// Frames are numbered from 1, for good; a frame's seq is its number less those of the producers before (`base`).
///
/// Bytes: `u8 version ‖ u64 nonce ‖ str shard ‖ str home ‖ uv folded_through ‖ uv base ‖ uv next_frame ‖ chain[16] ‖ uv acked ‖
/// uv ids_first ‖ uv ids_next ‖ uv parked`, and in version 2, of a shard that has spilled ids, `‖ uv spilled`, at least 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The shard, and the nonce of its storage.
    pub producer: Producer,
    /// The region it ships to.
    pub home: String,
    /// Log rows before this one are in frames; the log's first row is 0.
    pub folded_through: u64,
    /// The number of the last frame that was not this producer's.
    pub base: u64,
    /// The number of the next frame.
    pub next_frame: u64,
    /// The chain of the frame before it.
    pub chain: Chain,
    /// The number of the last frame that is safe at home; at least `base`.
    pub acked: u64,
    /// The oldest row of ids that counts.
    pub ids_first: u64,
    /// The row of ids after the last.
    pub ids_next: u64,
    /// Frames that were parked.
    pub parked: u64,
    /// Ids in the spilled rows.
    pub spilled: u64,
}

impl Meta {
    /// The first state of a shard whose storage is new.
    pub fn new(producer: Producer, home: &str) -> Self {
        Meta {
            producer,
            home: home.into(),
            folded_through: 0,
            base: 0,
            next_frame: 1,
            chain: CHAIN_START,
            acked: 0,
            ids_first: 0,
            ids_next: 0,
            parked: 0,
            spilled: 0,
        }
    }
}

impl LogRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let bodies: usize = self.requests.iter().map(|request| request.bytes()).sum();
        let mut out = Vec::with_capacity(16 + bodies);
        let with_names = self.requests.iter().any(Request::has_names);
        out.push(if with_names { VERSION_NAMES } else { VERSION });
        out.extend_from_slice(&self.received_at.to_le_bytes());
        put_uv(&mut out, self.requests.len() as u64);
        for request in &self.requests {
            request.encode(with_names, &mut out);
        }
        out
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let with_names = match reader.u8()? {
            VERSION => false,
            VERSION_NAMES => true,
            version => return Err(DecodeError::Version(version)),
        };
        let received_at = reader.i64()?;
        let n = reader.count(REQUEST_BYTES_MIN)?;
        let requests = (0..n).map(|_| Request::decode(&mut reader, with_names)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(LogRow { received_at, requests })
    }
}

impl IdsRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(17 + 8 * self.ids.len());
        out.push(VERSION);
        out.extend_from_slice(&self.first_received_at.to_le_bytes());
        out.extend_from_slice(&self.last_received_at.to_le_bytes());
        for id in &self.ids {
            out.extend_from_slice(&id.to_le_bytes());
        }
        out
    }

    /// Reads row `n`.
    pub fn decode(n: u64, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = versioned(bytes)?;
        let (first_received_at, last_received_at) = (reader.i64()?, reader.i64()?);
        let n_ids = reader.remaining() / 8;
        let ids = ascending(&mut reader, n_ids)?;
        reader.finish()?;
        Ok(IdsRow { n, first_received_at, last_received_at, ids })
    }
}

impl SpilledRow {
    /// Row `n` before anything was spilled there.
    pub fn empty(n: u64) -> Self {
        SpilledRow { n, groups: Vec::new() }
    }

    /// The number of the row that has an id.
    pub fn of(id: u64) -> u64 {
        (id >> 40) % SPILLED_ROWS
    }

    /// Its ids.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.ids.len()).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether it has an id.
    pub fn contains(&self, id: u64) -> bool {
        self.groups.iter().any(|group| group.ids.binary_search(&id).is_ok())
    }

    /// Forgets the groups that were received before a time.
    pub(crate) fn forget(&mut self, time: i64) {
        self.groups.retain(|group| group.received_by >= time);
    }

    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + 13 * self.groups.len() + 8 * self.len());
        out.push(VERSION);
        for SpilledGroup { received_by, ids } in &self.groups {
            out.extend_from_slice(&received_by.to_le_bytes());
            put_uv(&mut out, ids.len() as u64);
            for id in ids {
                out.extend_from_slice(&id.to_le_bytes());
            }
        }
        out
    }

    /// Reads row `n`.
    pub fn decode(n: u64, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = versioned(bytes)?;
        let mut row = SpilledRow::empty(n);
        while reader.remaining() > 0 {
            let received_by = reader.i64()?;
            let n_ids = reader.count_some(8)?;
            let ids = ascending(&mut reader, n_ids)?;
            if row.groups.last().is_some_and(|last| last.received_by > received_by) {
                return Err(DecodeError::Malformed("order of groups"));
            }
            if ids.iter().any(|&id| SpilledRow::of(id) != n) {
                return Err(DecodeError::Malformed("id of another spilled row"));
            }
            row.groups.push(SpilledGroup { received_by, ids });
        }
        Ok(row)
    }
}

impl ConfigRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        [&[VERSION], &self.version.to_le_bytes()[..], &self.config].concat()
    }

    /// Reads the row.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = versioned(bytes)?;
        let version = reader.u32()?;
        if reader.remaining() > CONFIG_BYTES_MAX {
            return Err(DecodeError::Malformed("config too long"));
        }
        let config = reader.bytes(reader.remaining())?.into();
        Ok(ConfigRow { version, config })
    }
}

/// So many ids, which ascend.
fn ascending(reader: &mut Reader<'_>, n: usize) -> Result<Vec<u64>, DecodeError> {
    let (ids, _) = reader.bytes(8 * n)?.as_chunks();
    let ids: Vec<u64> = ids.iter().map(|&id| u64::from_le_bytes(id)).collect();
    if ids.is_sorted_by(|one, next| one < next) { Ok(ids) } else { Err(DecodeError::Malformed("order of ids")) }
}

impl Meta {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.spilled == 0 { VERSION } else { VERSION_SPILLED }];
        out.extend_from_slice(&self.producer.nonce().to_le_bytes());
        put_str(&mut out, self.producer.shard());
        put_str(&mut out, &self.home);
        put_uv(&mut out, self.folded_through);
        put_uv(&mut out, self.base);
        put_uv(&mut out, self.next_frame);
        out.extend_from_slice(&self.chain);
        for number in [self.acked, self.ids_first, self.ids_next, self.parked] {
            put_uv(&mut out, number);
        }
        if self.spilled > 0 {
            put_uv(&mut out, self.spilled);
        }
        out
    }

    /// Reads the row.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if ![VERSION, VERSION_SPILLED].contains(&version) {
            return Err(DecodeError::Version(version));
        }
        let nonce = reader.u64()?;
        let producer = Producer::new(nonce, reader.str(SHARD_BYTES_MAX)?);
        let meta = Meta {
            producer: producer.map_err(|_| DecodeError::Malformed("shard's name"))?,
            home: reader.str(SHARD_BYTES_MAX)?.into(),
            folded_through: reader.uv()?,
            base: reader.uv()?,
            next_frame: reader.uv()?,
            chain: reader.array()?,
            acked: reader.uv()?,
            ids_first: reader.uv()?,
            ids_next: reader.uv()?,
            parked: reader.uv()?,
            spilled: if version == VERSION { 0 } else { reader.uv()? },
        };
        if version == VERSION_SPILLED && meta.spilled == 0 {
            return Err(DecodeError::Malformed("state of a shard that has spilled nothing"));
        }
        reader.finish()?;
        if let Some(contradiction) = meta.contradiction() {
            return Err(DecodeError::Malformed(contradiction));
        }
        Ok(meta)
    }

    /// What in it can't be, if anything.
    fn contradiction(&self) -> Option<&'static str> {
        let Meta { base, acked, next_frame, ids_first, ids_next, parked, .. } = *self;
        Some(match () {
            () if base > acked => "a frame of an earlier producer is not acked",
            () if acked >= next_frame => "a frame is acked that was never made",
            () if next_frame - acked - 1 > OUTBOX_FRAMES_MAX => "more frames wait than the outbox holds",
            () if next_frame - base == 1 && self.chain != CHAIN_START => "a chain without a frame",
            () if ids_first > ids_next => "ids are forgotten that were never there",
            () if parked > PARKED_MAX => "more frames are parked than can be",
            () => return None,
        })
    }
}

fn versioned(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => Ok(reader),
        version => Err(DecodeError::Version(version)),
    }
}

#[cfg(test)]
mod tests {
    use catchment_cells::ClientId;
    use catchment_cells::credential::Identity;
    use proptest::prelude::*;

    use super::*;
    use crate::agent::{Agent, Device};
    use crate::request::{Claims, Visitor};

    fn group(received_by: i64, ids: &[u64]) -> SpilledGroup {
        SpilledGroup { received_by, ids: ids.into() }
    }

    fn meta(spilled: u64) -> Meta {
        Meta { spilled, ..Meta::new(Producer::new(7, "eu/pool/0").unwrap(), "eu") }
    }

    #[test]
    fn a_row_of_the_log_has_names_only_where_there_are_some() {
        let claims = Claims {
            client: ClientId::new("s").unwrap(),
            identity: Identity::User,
            backfill: false,
            ignore_foreign_client: false,
        };
        let row = |agent| {
            let visitor = Visitor { hash: 1, country: Some(*b"DE"), agent };
            let request = Request::read(claims.clone(), visitor, b"{}".to_vec()).unwrap();
            LogRow { received_at: 2, requests: vec![request] }
        };
        let nameless = Agent { device: Some(Device::Mobile), ..Agent::default() };
        let named = Agent { browser: Some("Edge".into()), bot: Some("b".into()), ..nameless.clone() };
        let before = b"\x02\0\0\0\0\0\0\0\x01\x01s\x02\x01\0\0\0\0\0\0\0DE\x02";
        for (row, expected) in [
            (row(nameless), [b"\x01", &before[..], b"\x02{}"].concat()),
            (row(named), [b"\x02", &before[..], b"\x04Edge\0\x01b\x02{}"].concat()),
        ] {
            assert_eq!(row.encode(), expected);
            assert_eq!(LogRow::decode(&expected), Ok(row));
        }
    }

    #[test]
    fn a_spilled_row_has_these_bytes() {
        let row = SpilledRow { n: 0, groups: vec![group(-2, &[1, 2 << 51]), group(3, &[0xff])] };
        let mut expected = vec![1];
        expected.extend_from_slice(&(-2i64).to_le_bytes());
        expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]);
        expected.extend_from_slice(&[0xff, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(row.encode(), expected);
        assert_eq!(SpilledRow::decode(0, &expected), Ok(row));
    }

    #[test]
    fn the_state_of_a_shard_that_has_spilled_is_of_version_2() {
        let (before, after) = (meta(0).encode(), meta(300).encode());
        assert_eq!((before[0], &after[0], &after[1..]), (1, &2, &[&before[1..], &[0xac, 2]].concat()[..]));
        assert_eq!(Meta::decode(&after), Ok(meta(300)));
        let none = [&[2], &before[1..], &[0]].concat();
        assert!(matches!(Meta::decode(&none), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn rows_whose_ids_are_not_in_order_are_refused() {
        for (ids, fits) in [(&[][..], true), (&[1, 2], true), (&[2, 1], false), (&[1, 1], false)] {
            let row = IdsRow { n: 7, first_received_at: 1, last_received_at: 2, ids: ids.into() };
            assert_eq!(IdsRow::decode(7, &row.encode()).ok(), fits.then_some(row), "{ids:?}");
        }
        let in_row = |n: u64, id: u64| n << 40 | id;
        for (n, groups, fits) in [
            (0, vec![], true),
            (9, vec![group(5, &[in_row(9, 1)]), group(5, &[in_row(9, 1)])], true),
            (9, vec![group(5, &[in_row(9, 1)]), group(4, &[in_row(9, 2)])], false),
            (9, vec![group(5, &[in_row(9, 2), in_row(9, 1)])], false),
            (9, vec![group(5, &[in_row(8, 1)])], false),
            (9, vec![group(5, &[])], false),
        ] {
            let row = SpilledRow { n, groups };
            assert_eq!(SpilledRow::decode(n, &row.encode()).ok(), fits.then_some(row.clone()), "{row:?}");
        }
    }

    #[test]
    fn a_state_that_contradicts_itself_is_refused() {
        let new = || Meta::new(Producer::new(1, "eu/pool/0").unwrap(), "eu");
        let sound = Meta {
            base: 10,
            acked: 12,
            next_frame: 269,
            chain: [1; 16],
            ids_first: 3,
            ids_next: 3,
            parked: 64,
            ..new()
        };
        for meta in [new(), sound.clone(), Meta { next_frame: 13, ..sound.clone() }] {
            assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
        }
        for (meta, why) in [
            (Meta { base: 13, ..sound.clone() }, "a frame of an earlier producer is not acked"),
            (Meta { acked: 269, ..sound.clone() }, "a frame is acked that was never made"),
            (Meta { next_frame: 0, ..new() }, "a frame is acked that was never made"),
            (Meta { next_frame: 270, ..sound.clone() }, "more frames wait than the outbox holds"),
            (Meta { acked: 268, base: 268, ..sound.clone() }, "a chain without a frame"),
            (Meta { ids_first: 4, ..sound.clone() }, "ids are forgotten that were never there"),
            (Meta { parked: 65, ..sound.clone() }, "more frames are parked than can be"),
        ] {
            assert_eq!(Meta::decode(&meta.encode()), Err(DecodeError::Malformed(why)), "{meta:?}");
        }
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_written(
            mut times in prop::collection::vec(any::<i64>(), 0..5),
            n in 0..SPILLED_ROWS,
            ids in prop::collection::btree_set(any::<u64>(), 1..40),
        ) {
            times.sort_unstable();
            let row = IdsRow { n, first_received_at: 1, last_received_at: 2, ids: ids.iter().copied().collect() };
            prop_assert_eq!(IdsRow::decode(n, &row.encode()), Ok(row));
            let ids: std::collections::BTreeSet<u64> =
                ids.into_iter().map(|id| id & !((SPILLED_ROWS - 1) << 40) | n << 40).collect();
            let ids: Vec<u64> = ids.into_iter().collect();
            let row = SpilledRow { n, groups: times.into_iter().map(|time| group(time, &ids)).collect() };
            prop_assert_eq!(SpilledRow::decode(n, &row.encode()), Ok(row));
        }
    }
}
