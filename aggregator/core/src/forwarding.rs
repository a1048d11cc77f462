//! What a region does with central's answers to the frames that it passed on.

use catchment_cells::ack::{Ack, Status};

use crate::log::LogRow;

/// Bytes of frames that central refused; at the bound the next one isn't parked but tried again, and the log grows.
const PARKED_BYTES_MAX: u64 = 1 << 30;

/// What a forwarder stands on: the log's store.
pub trait Ground {
    /// What can go wrong with the store. The forwarder is of no use after it.
    type Error;

    /// Moves the cursor of what central has. It need not be synced: a frame that is sent again is known there.
    fn set_forwarded(&mut self, position: u64) -> Result<(), Self::Error>;

    /// Keeps a frame that central refuses for good, and moves the cursor past it: both or none, and synced when it returns.
    fn park(&mut self, row: &LogRow, ack: &Ack) -> Result<(), Self::Error>;
}

/// How far the frames of one batch have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Frames, from the first on, that are done with: central has them, or they are parked.
    pub done: usize,
    /// Bytes of those that were parked.
    pub parked_bytes: u64,
}

/// What an answer of central means for the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Central has it.
    Done,
    /// Central will never take it.
    Park,
    /// It is to be sent again, with all that follow.
    Again,
}

/// Moves the cursor past what is done with. An answer that didn't come is `None`; `parked_bytes` are those parked before.
pub fn settle<G: Ground>(
    ground: &mut G,
    rows: &[LogRow],
    answers: &[Option<Ack>],
    parked_bytes: u64,
) -> Result<Settled, G::Error> {
    let mut settled = Settled { done: 0, parked_bytes: 0 };
    for (row, answer) in rows.iter().zip(answers) {
        let Some(ack) = answer else { break };
        match outcome(ack.status) {
            Outcome::Done => {}
            Outcome::Park if parked_bytes + settled.parked_bytes < PARKED_BYTES_MAX => {
                ground.park(row, ack)?;
                settled.parked_bytes += row.frame.len() as u64;
            }
            Outcome::Park | Outcome::Again => break,
        }
        settled.done += 1;
    }
    if settled.done > 0 {
        ground.set_forwarded(rows[settled.done - 1].position + 1)?;
    }
    Ok(settled)
}

/// Sorts the answers. Frames were checked before they got into the log: a bad MAC, a foreign home or an unknown version is
/// a central that is set up differently, and waits until it isn't. A gap is looked at only when all frames before it are
/// done with, so that what central misses is nothing that it will ever get.
fn outcome(status: Status) -> Outcome {
    match status {
        Status::Stored => Outcome::Done,
        Status::Gap | Status::Fork | Status::Malformed => Outcome::Park,
        Status::BadMac | Status::Version | Status::Busy | Status::WrongHome | Status::Unreachable => Outcome::Again,
    }
}
