//! Frames made by hand.

use catchment_cells::cell::Cell;
use catchment_cells::frame::{
    CHAIN_START, CellsBlock, Chain, CountersBlock, CubeCells, DeadLettersBlock, FrameDraft, Producer, Sealed, seal,
};
use catchment_cells::{ClientId, Secret};
use jiff::Timestamp;

use crate::{Failure, Result};

/// A shard made by hand: what it sends is as true or as false as a test wants.
#[derive(Debug)]
pub struct Hand {
    /// The chain of its last frame.
    pub chain: Chain,
    /// The seq of its last frame.
    pub seq: u64,
    producer: Producer,
    client: ClientId,
}

impl Hand {
    /// One that has sent nothing.
    pub fn new(nonce: u64, client: &ClientId) -> Result<Hand> {
        let producer = Producer::new(nonce, "eu/pool/0").map_err(Failure::at("a shard made by hand"))?;
        Ok(Hand { producer, client: client.clone(), chain: CHAIN_START, seq: 0 })
    }

    /// A frame of some events of this minute, for `home`; `pages` are the pages of one each, or there is no telling what they were of.
    pub fn frame(&self, secret: &Secret, home: &str, seq: u64, events: u64, pages: &[String]) -> Result<Sealed> {
        let minute = Timestamp::now().as_second().div_euclid(60);
        let total = Cell { count: events, ..Cell::default() };
        let total = CubeCells { dimensions: vec![], buckets: [(minute, [(vec![], total)].into())].into() };
        let mut cubes = std::collections::BTreeMap::from([("total".into(), total)]);
        if !pages.is_empty() {
            let cell = |page: &String| (vec![Some(page.as_str().into())], Cell { count: 1, ..Cell::default() });
            let cells = pages.iter().map(cell).collect();
            cubes.insert(
                "page".into(),
                CubeCells { dimensions: vec!["page".into()], buckets: [(minute, cells)].into() },
            );
        }
        let draft = FrameDraft {
            producer: self.producer.clone(),
            home: home.into(),
            seq,
            prev: self.chain,
            cut_at: minute * 60_000,
            first_received_at: minute * 60_000,
            cells: CellsBlock([(self.client.clone(), cubes)].into()),
            counters: CountersBlock::default(),
            letters: DeadLettersBlock::default(),
        };
        seal(&draft, &secret.frame_key(&self.producer)).map_err(Failure::at("a frame made by hand"))
    }

    /// The next frame for the first region, as [`frame`](Self::frame).
    pub fn next(&mut self, secret: &Secret, events: u64, pages: &[String]) -> Result<Vec<u8>> {
        let sealed = self.frame(secret, "eu", self.seq + 1, events, pages)?;
        self.seq += 1;
        self.chain = sealed.chain;
        Ok(sealed.bytes)
    }
}
