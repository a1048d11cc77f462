//! What becomes of frames after they are cut: pure judgement of acks and failures.

use catchment_cells::ack::{Ack, Status};

use crate::limits::OUTBOX_FRAMES_MAX;
use crate::rows::Meta;

/// The first wait after a failure, in ms; each further one doubles it.
const BACKOFF_MS: i64 = 100;
/// The longest wait, in ms.
const BACKOFF_MS_MAX: i64 = 15_000;
/// Refusals of one frame, as damaged, after which it is parked: the way may have damaged it, but hardly thrice.
const REFUSALS_MAX: u32 = 3;

/// The state of sending. It starts anew with the process: all it costs is a resend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    acked: u64,
    not_before: i64,
    failures: u32,
    refusals: u32,
    watched: bool,
}

/// What to do after an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the next ack.
    Next,
    /// Leave the rest of the acks; send again from what is not acked, once the wait is over.
    Resend,
    /// Keep the oldest frame that is not acked aside, and give those after it to a new producer.
    Park(Status),
    /// Give all frames that are not acked to a new producer: the home has forgotten what we have forgotten, too.
    Restart,
}

impl Outbox {
    /// Begins with what is stored as acked. Until an ack tells, someone may be watching: the first cut doesn't wait.
    pub fn new(meta: &Meta) -> Self {
        Outbox { acked: meta.acked, not_before: 0, failures: 0, refusals: 0, watched: true }
    }

    /// The number of the last frame that is safe.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Someone watches a client of this shard.
    pub fn watched(&self) -> bool {
        self.watched
    }

    /// When to send next, in ms; `None` if nothing waits.
    pub fn send_at(&self, meta: &Meta) -> Option<i64> {
        (self.acked + 1 < meta.next_frame).then_some(self.not_before)
    }

    /// Whether the home has not answered well of late.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Frames that the ring has no room for until acks come.
    pub fn is_full(&self, meta: &Meta) -> bool {
        // One is left free, since a cut may have to be split.
        meta.next_frame - 1 - self.acked + 16 > OUTBOX_FRAMES_MAX
    }

    /// Judges one ack.
    pub fn on_ack(&mut self, meta: &Meta, ack: &Ack, now: i64) -> Verdict {
        if ack.producer != meta.producer {
            // Of a producer that this shard was before a frame was parked.
            return Verdict::Next;
        }
        let marked = meta.base.saturating_add(ack.mark);
        if matches!(ack.status, Status::Stored | Status::Gap) && marked >= meta.next_frame {
            return Verdict::Park(Status::Fork);
        }
        match ack.status {
            Status::Stored => {
                self.acked = self.acked.max(marked);
                self.failures = 0;
                self.refusals = 0;
                self.watched = ack.watched;
                Verdict::Next
            }
            Status::Gap if marked + OUTBOX_FRAMES_MAX + 1 < meta.next_frame => Verdict::Restart,
            Status::Gap => {
                // Where the home lost what it had acked, the ring may still have it.
                self.acked = marked;
                self.wait(now, ack.retry_after_ms);
                Verdict::Resend
            }
            Status::BadMac | Status::Malformed => {
                self.refusals += 1;
                self.wait(now, ack.retry_after_ms);
                if self.refusals < REFUSALS_MAX { Verdict::Resend } else { Verdict::Park(ack.status) }
            }
            Status::Fork | Status::Version | Status::WrongHome => Verdict::Park(ack.status),
            Status::Busy | Status::Unreachable => {
                self.wait(now, ack.retry_after_ms);
                Verdict::Resend
            }
        }
    }

    /// Notes that a POST failed: no answer, or none that could be read.
    pub fn on_failure(&mut self, now: i64) {
        self.wait(now, 0);
    }

    /// Notes that the oldest frame was parked, or that a new producer took over: what failed was the old one's.
    pub fn on_restart(&mut self, acked: u64) {
        self.acked = acked;
        self.failures = 0;
        self.refusals = 0;
        self.not_before = 0;
    }

    /// Waits twice as long each time, and up to half as long again, so that shards don't come all at once.
    fn wait(&mut self, now: i64, at_least_ms: u32) {
        let backoff = (BACKOFF_MS << self.failures.min(16)).min(BACKOFF_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        let wait = backoff.max(at_least_ms.into());
        let jitter = now.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64).rem_euclid(wait / 2 + 1);
        self.not_before = now + wait + jitter;
    }
}

#[cfg(test)]
mod tests {
    use catchment_cells::frame::Producer;

    use super::*;

    fn meta() -> Meta {
        let producer = Producer::new(1, "eu/pool/0").unwrap();
        Meta { base: 10, next_frame: 20, acked: 12, ..Meta::new(producer, "eu") }
    }

    fn ack(status: Status, mark: u64) -> Ack {
        Ack { mark, ..Ack::refusal(status, meta().producer, 3, "") }
    }

    #[test]
    fn acks_are_judged() {
        use Status::*;
        for (ack, verdict, acked) in [
            (ack(Stored, 5), Verdict::Next, 15),
            (ack(Stored, 1), Verdict::Next, 12),
            (ack(Stored, 10), Verdict::Park(Fork), 12),
            (ack(Gap, 4), Verdict::Resend, 14),
            (ack(Gap, 0), Verdict::Resend, 10),
            (ack(Fork, 4), Verdict::Park(Fork), 12),
            (ack(Version, 0), Verdict::Park(Version), 12),
            (ack(WrongHome, 0), Verdict::Park(WrongHome), 12),
            (ack(BadMac, 0), Verdict::Resend, 12),
            (ack(Busy, 0), Verdict::Resend, 12),
            (Ack { producer: Producer::new(2, "eu/pool/0").unwrap(), ..ack(Fork, 9) }, Verdict::Next, 12),
        ] {
            let mut outbox = Outbox::new(&meta());
            assert_eq!(outbox.on_ack(&meta(), &ack, 1_000), verdict, "{ack:?}");
            assert_eq!(outbox.acked(), acked, "{ack:?}");
            assert_eq!(outbox.send_at(&meta()).unwrap() > 1_000, verdict == Verdict::Resend, "{ack:?}");
        }
    }

    #[test]
    fn a_frame_is_parked_when_it_is_refused_thrice_as_damaged() {
        let mut outbox = Outbox::new(&meta());
        let verdicts = [(); 3].map(|()| outbox.on_ack(&meta(), &ack(Status::BadMac, 0), 0));
        assert_eq!(verdicts, [Verdict::Resend, Verdict::Resend, Verdict::Park(Status::BadMac)]);
    }

    #[test]
    fn what_both_sides_forgot_restarts_the_producer() {
        let meta = Meta { next_frame: 10 + OUTBOX_FRAMES_MAX + 2, acked: 200, ..meta() };
        assert_eq!(Outbox::new(&meta).on_ack(&meta, &ack(Status::Gap, 0), 0), Verdict::Restart);
    }

    #[test]
    fn waits_grow_to_a_bound_and_end_with_success() {
        let mut outbox = Outbox::new(&meta());
        for _ in 0..100 {
            outbox.on_failure(0);
            assert!((100..=BACKOFF_MS_MAX * 3 / 2 + 1).contains(&outbox.not_before));
        }
        assert!(outbox.not_before >= BACKOFF_MS_MAX);
        outbox.on_ack(&meta(), &ack(Status::Stored, 3), 50);
        assert!(!outbox.is_failing());
    }
}
