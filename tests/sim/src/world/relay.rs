//! The relay.

use std::collections::BTreeMap;

use bytes::Bytes;
use catchment_cells::ack::{Ack, Status};
use catchment_cells::frame;
use catchment_cells::limits::FRAME_BYTES_MAX;

use super::{Back, Next, Parcel, World};

impl World {
    /// The relay sends frames on, each to its home, as `edge/relay` does.
    pub(super) fn relay(&mut self, shard: usize, life: u64, post: u64, frames: &[u8]) {
        let mut parcels: BTreeMap<usize, Vec<(usize, Bytes)>> = BTreeMap::new();
        let mut acks = Vec::new();
        let mut rest = frames;
        while let Some((length, body)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((frame, after)) = body.split_at_checked(length.min(FRAME_BYTES_MAX)) else { return };
            rest = after;
            let mut frame = frame.to_vec();
            if self.chance(|weather| weather.flip) {
                self.saw("a bit flips");
                let bit = self.random.below(8 * frame.len() as u64) as usize;
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            // The whole POST is refused.
            let Ok(address) = frame::address(&frame) else { return };
            let place = acks.len();
            acks.push(Ack::refusal(Status::Unreachable, address.producer, address.seq, ""));
            if let Some(home) = self.regions.iter().position(|region| *region == address.home) {
                parcels.entry(home).or_default().push((place, frame.into()));
            }
        }
        // Frames of one POST have one home, but for a flipped bit: who has none of them is not waited for.
        let Some((&home, _)) = parcels.iter().max_by_key(|(_, frames)| frames.len()) else { return };
        let mut parcel = parcels.remove(&home).unwrap_or_default();
        if self.is_out(home) || self.aggregators[home].memory.is_none() {
            self.saw("unreachable");
            return self.send(Next::Acks { shard, life, post, acks }, None);
        }
        if self.chance(|weather| weather.cut) {
            self.saw("a connection is cut");
            let kept = self.random.below(parcel.len() as u64 + 1) as usize;
            parcel.truncate(kept);
        }
        if parcel.len() > 1 && self.chance(|weather| weather.reorder) {
            self.saw("reordered");
            let n = self.random.below(parcel.len() as u64 - 1) as usize;
            parcel.swap(n, n + 1);
        }
        let (places, frames) = parcel.into_iter().unzip();
        let parcel = Parcel { frames, back: Back::Shard { shard, life, post, places, of: acks } };
        let again = Next::Parcel { aggregator: home, parcel: parcel.clone() };
        self.send(Next::Parcel { aggregator: home, parcel }, Some(again));
    }
}
