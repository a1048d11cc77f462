//! Cuts: frames of all that came since the last one, sealed as the present producer's.

use std::collections::BTreeMap;

use catchment_cells::frame::{
    self, CHAIN_START, CountersBlock, DeadLettersBlock, FrameDraft, FrameError, Producer, Sealed, TooLarge, reseal,
    seal,
};

use super::{Collector, Cut, CutFrame};
use crate::open::CutCells;

impl Collector {
    /// Makes frames of all that came since the last cut, which are the log's rows before `log_next`. `None` if nothing came.
    pub fn cut(&mut self, now: i64, log_next: u64, acked: u64) -> Option<Cut> {
        let first_received_at = self.open.first_received_at?;
        let open = std::mem::take(&mut self.open);
        let mut frames = Vec::new();
        let events = open.events.sort();
        self.seal_split((events.cells(), open.counters, open.letters), now, first_received_at, &mut frames);
        self.received_by = self.received_by.max(open.last_received_at);
        let mostly = open.weights.into_iter().max_by_key(|(_, weight)| *weight).map(|(client, _)| client);
        let ids = self.next_ids_row(open.ids, first_received_at, open.last_received_at);
        self.meta.folded_through = log_next;
        self.meta.acked = acked.max(self.meta.base);
        Some(Cut { frames, mostly, ids, meta: self.meta.clone() })
    }

    /// Begins a new producer with the frame after number `base`. `parked` frames were kept aside.
    pub fn restart_producer(&mut self, producer: Producer, base: u64, parked: u64) {
        self.frame_key = self.secret.frame_key(&producer);
        self.meta.producer = producer;
        self.meta.base = base;
        self.meta.acked = base;
        self.meta.chain = CHAIN_START;
        self.meta.parked += parked;
    }

    /// Whether a frame is as the present producer sealed it.
    pub fn has_sealed(&self, frame: &[u8]) -> bool {
        frame::open(frame, &self.frame_key).is_ok_and(|opened| opened.header().producer == self.meta.producer)
    }

    /// Gives the frame of this number, of an earlier producer, to the present one. They come in their order.
    pub fn readopt(&mut self, number: u64, frame: &[u8]) -> Result<Vec<u8>, FrameError> {
        let seq = number - self.meta.base;
        let sealed = reseal(frame, &self.meta.producer, seq, self.meta.chain, &self.frame_key)?;
        self.meta.chain = sealed.chain;
        Ok(sealed.bytes)
    }

    pub(super) fn seal_split(
        &mut self,
        (cells, counters, letters): (CutCells<'_>, CountersBlock, DeadLettersBlock),
        now: i64,
        first_received_at: i64,
        frames: &mut Vec<CutFrame>,
    ) {
        if cells.is_empty() && counters.0.is_empty() && letters.0.is_empty() {
            return;
        }
        let draft = FrameDraft {
            producer: self.meta.producer.clone(),
            home: self.meta.home.clone(),
            seq: self.meta.next_frame - self.meta.base,
            prev: self.meta.chain,
            cut_at: now,
            first_received_at,
            cells,
            counters,
            letters,
        };
        match seal(&draft, &self.frame_key) {
            Ok(Sealed { bytes, chain }) => {
                frames.push(CutFrame { number: self.meta.next_frame, bytes, clients: draft.cells.clients() });
                self.meta.next_frame += 1;
                self.meta.chain = chain;
            }
            Err(TooLarge) => {
                let FrameDraft { cells, counters, letters, .. } = draft;
                // One cell alone fits a frame (an assertion of the limits), and one counter or letter does, so this ends.
                for cells in cells.halves() {
                    let part = (cells, CountersBlock::default(), DeadLettersBlock::default());
                    self.seal_split(part, now, first_received_at, frames);
                }
                for counters in halves_of_counters(counters) {
                    let part = (CutCells::default(), counters, DeadLettersBlock::default());
                    self.seal_split(part, now, first_received_at, frames);
                }
                for letters in halves_of_letters(letters) {
                    let part = (CutCells::default(), CountersBlock::default(), letters);
                    self.seal_split(part, now, first_received_at, frames);
                }
            }
        }
    }
}

/// Two blocks with half of the counters each.
pub(super) fn halves_of_counters(counters: CountersBlock) -> [CountersBlock; 2] {
    let half = counters.0.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum::<usize>() / 2;
    let mut halves = [CountersBlock::default(), CountersBlock::default()];
    let mut i = 0;
    for (client, reasons) in counters.0 {
        for (reason, minutes) in reasons {
            for (minute, n) in minutes {
                halves[usize::from(i >= half)].add(&client, &reason, minute, n);
                i += 1;
            }
        }
    }
    halves
}

/// Two blocks with half of the letters each.
fn halves_of_letters(letters: DeadLettersBlock) -> [DeadLettersBlock; 2] {
    let half = letters.0.values().map(Vec::len).sum::<usize>() / 2;
    let mut halves = [DeadLettersBlock::default(), DeadLettersBlock::default()];
    let each = letters
        .0
        .into_iter()
        .flat_map(|(client, letters)| letters.into_iter().map(move |letter| (client.clone(), letter)));
    for (i, (client, letter)) in each.enumerate() {
        halves[usize::from(i >= half)].0.entry(client).or_default().push(letter);
    }
    halves
}
