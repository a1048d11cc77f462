//! Marks: how far each producer's frames have come, so that each is stored once.

use catchment_cells::codec::{DecodeError, Reader};
use catchment_cells::frame::{CHAIN_START, Chain, Header};
use catchment_cells::limits::MARK_CHAINS;

/// The version byte of a stored mark.
const VERSION: u8 = 1;

/// The last frame stored of a producer.
///
/// Bytes: `u8 version = 1 ‖ u64 seq ‖ i64 cut_at ‖ n × chain[16]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its seq.
    pub seq: u64,
    /// When it was cut, in ms.
    pub cut_at: i64,
    /// The chains of `seq`, `seq - 1`, …: 1 to [`MARK_CHAINS`].
    chains: Vec<Chain>,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is the next one.
    Store,
    /// It was stored before.
    Duplicate,
    /// Frames before it are missing.
    Gap {
        /// The seq that is expected.
        expected: u64,
    },
    /// It contradicts what was stored.
    Fork,
}

/// Decides on a frame of the producer whose mark this is; `None` before its first frame.
pub fn decide(mark: Option<&Mark>, header: &Header, chain: &Chain) -> Decision {
    let seq = mark.map_or(0, |mark| mark.seq);
    if let Some(mark) = mark
        && let Some(age) = seq.checked_sub(header.seq)
    {
        // A seq older than the chains we keep can't be compared any more; it was stored, whatever it was.
        let known = usize::try_from(age).ok().and_then(|age| mark.chains.get(age));
        return if known.is_none_or(|known| known == chain) { Decision::Duplicate } else { Decision::Fork };
    }
    // Here the frame's seq is beyond the mark's, so that one more than the mark's is no overflow.
    if header.seq != seq + 1 {
        Decision::Gap { expected: seq + 1 }
    } else if header.prev == mark.map_or(CHAIN_START, Mark::chain) {
        Decision::Store
    } else {
        Decision::Fork
    }
}

impl Mark {
    /// The mark after a frame that [`decide`] said to store.
    pub fn after(mark: Option<&Mark>, header: &Header, chain: Chain) -> Mark {
        let before = mark.map_or(&[][..], |mark| &mark.chains);
        let chains = [chain].iter().chain(before).take(MARK_CHAINS).copied().collect();
        Mark { seq: header.seq, cut_at: header.cut_at, chains }
    }

    /// The chain of the frame at `seq`.
    pub fn chain(&self) -> Chain {
        self.chains[0]
    }

    /// The mark's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.cut_at.to_le_bytes());
        out.extend(self.chains.iter().flatten());
        out
    }

    /// Reads a mark, all of it.
    pub fn decode(bytes: &[u8]) -> Result<Mark, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        let mut mark = Mark { seq: reader.u64()?, cut_at: reader.i64()?, chains: Vec::new() };
        while mark.chains.is_empty() || (reader.remaining() > 0 && mark.chains.len() < MARK_CHAINS) {
            mark.chains.push(reader.array()?);
        }
        reader.finish()?;
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use catchment_cells::frame::Producer;
    use proptest::prelude::*;

    use super::*;

    fn header(seq: u64, prev: u8) -> Header {
        Header {
            producer: Producer::new(1, "eu/pool/0").unwrap(),
            home: "eu".into(),
            seq,
            prev: [prev; 16],
            cut_at: seq as i64,
            first_received_at: 0,
            blocks: Vec::new(),
        }
    }

    /// The mark after frames 1 to `seq`, whose chains are their seqs.
    fn mark(seq: u8) -> Option<Mark> {
        (1..=seq).fold(None, |mark, seq| Some(Mark::after(mark.as_ref(), &header(seq.into(), seq - 1), [seq; 16])))
    }

    #[test]
    fn each_frame_is_stored_once_and_in_order() {
        // The mark's seq, the frame's seq, its prev and its chain.
        for (at, seq, prev, chain, expected) in [
            (0, 1, 0, 1, Decision::Store),
            (0, 1, 9, 1, Decision::Fork),
            (0, 2, 1, 2, Decision::Gap { expected: 1 }),
            (20, 21, 20, 21, Decision::Store),
            (20, 21, 19, 21, Decision::Fork),
            (20, 22, 21, 22, Decision::Gap { expected: 21 }),
            (20, u64::MAX, 21, 22, Decision::Gap { expected: 21 }),
            (20, 20, 19, 20, Decision::Duplicate),
            (20, 20, 19, 99, Decision::Fork),
            (20, 5, 4, 5, Decision::Duplicate),
            (20, 5, 4, 99, Decision::Fork),
            // Older than the 16 chains that are kept.
            (20, 4, 3, 99, Decision::Duplicate),
        ] {
            let decision = decide(mark(at).as_ref(), &header(seq, prev), &[chain; 16]);
            assert_eq!(decision, expected, "mark {at}, seq {seq}, prev {prev}, chain {chain}");
        }
    }

    #[test]
    fn the_last_seq_of_all_is_no_overflow() {
        let last = Mark { seq: u64::MAX, cut_at: 0, chains: vec![[1; 16]] };
        assert_eq!(decide(Some(&last), &header(u64::MAX, 0), &[1; 16]), Decision::Duplicate);
    }

    proptest! {
        #[test]
        fn marks_round_trip(seq in 1u8..40) {
            let mark = mark(seq).unwrap();
            prop_assert_eq!(mark.chains.len(), usize::from(seq).min(MARK_CHAINS));
            prop_assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
        }

        #[test]
        fn any_bytes_are_a_mark_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(mark) = Mark::decode(&bytes) {
                prop_assert_eq!(mark.encode(), bytes);
            }
        }
    }
}
