//! What becomes of frames after they are cut: pure judgement of acks and failures.

use catchment_cells::ack::{Ack, Status};
use catchment_cells::limits::MARK_CHAINS;

use crate::limits::{CUT_FRAMES_MAX, OUTBOX_FRAMES_MAX};
use crate::rows::Meta;

/// The first wait after a failure, in ms; each further one doubles it.
const BACKOFF_MS: i64 = 100;
/// The longest wait of our own, in ms.
const BACKOFF_MS_MAX: i64 = 15_000;
/// The longest wait that an ack may ask for, in ms.
const RETRY_AFTER_MS_MAX: i64 = 60_000;
/// The longest wait of all, with what is added at random, in ms.
const WAIT_MS_MAX: i64 = RETRY_AFTER_MS_MAX + RETRY_AFTER_MS_MAX / 2;
/// The pause after a frame was parked, in ms: were all refused, they would not be parked in one go.
const PARKED_PAUSE_MS: i64 = 1_000;
/// How long a POST may be under way, in ms, before it counts as lost with whoever sent it; who lives gives it up after 10 s.
const POST_MS_MAX: i64 = 30_000;
/// Refusals of one frame, as damaged or malformed, after which it is looked at, and parked if it is.
const REFUSALS_MAX: u32 = 3;

/// The state of sending. It starts anew with the process: all it costs is a resend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    acked: u64,
    not_before: i64,
    /// When the POST that is under way began.
    posted_at: Option<i64>,
    failures: u32,
    refusals: u32,
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
    /// Begins with what is stored as acked.
    pub fn new(meta: &Meta) -> Self {
        Outbox { acked: meta.acked, not_before: 0, posted_at: None, failures: 0, refusals: 0 }
    }

    /// The number of the last frame that is safe.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// When to send next, in ms; `None` if nothing waits. While a POST is under way that is when it would be lost; and at once, where the
    /// wait would be longer than any: the clock went back.
    pub fn send_at(&self, meta: &Meta, now: i64) -> Option<i64> {
        let at = match self.posted_at {
            Some(at) if at <= now => at + POST_MS_MAX,
            Some(_) => now,
            None if self.not_before > now + WAIT_MS_MAX => now,
            None => self.not_before,
        };
        (self.acked + 1 < meta.next_frame).then_some(at)
    }

    /// Whether the home has not answered well of late.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether the ring has no room for another cut until acks come.
    pub fn is_full(&self, meta: &Meta) -> bool {
        self.room(meta) < CUT_FRAMES_MAX
    }

    /// Frames that the ring has room for.
    pub fn room(&self, meta: &Meta) -> u64 {
        OUTBOX_FRAMES_MAX.saturating_sub(meta.next_frame - 1 - self.acked)
    }

    /// Notes that a POST begins.
    pub fn on_post(&mut self, now: i64) {
        self.posted_at = Some(now);
    }

    /// Notes that a POST has ended, in whichever way.
    pub fn on_end(&mut self) {
        self.posted_at = None;
    }

    /// How long a POST has been under way, in ms; `None` if none is.
    pub fn posting_for_ms(&self, now: i64) -> Option<i64> {
        self.posted_at.map(|at| now - at)
    }

    /// Judges the ack of the frame with this number. Acks come in the frames' order.
    pub fn on_ack(&mut self, meta: &Meta, number: u64, ack: &Ack, now: i64) -> Verdict {
        // Whoever could not read the frame could not name its producer, and knows no mark.
        let known = ack.producer == meta.producer && meta.base.checked_add(ack.seq) == Some(number);
        if ack.status == Status::Gap && known {
            self.wait(meta, now, ack.retry_after_ms);
            let marked = meta.base.saturating_add(ack.mark).min(self.acked);
            if marked + OUTBOX_FRAMES_MAX + 1 < meta.next_frame {
                return Verdict::Restart;
            }
            // Where the home lost what it had acked, the ring may still have it.
            self.acked = marked;
            return Verdict::Resend;
        }
        // Where our storage was set back to an older copy, the home knows other frames by the numbers of ours. So a mark tells of the
        // frame that the ack is of, not of those after it; and of that one nothing, where it is too old to be compared.
        let is_set_back = meta.base.saturating_add(ack.mark) >= meta.next_frame;
        let is_compared =
            ack.status != Status::Fork && !(is_set_back && ack.mark.saturating_sub(ack.seq) >= MARK_CHAINS as u64);
        if known && ack.mark >= ack.seq && number == self.acked + 1 {
            if !is_compared {
                self.wait(meta, now, ack.retry_after_ms);
                return Verdict::Park(Status::Fork);
            }
            // What is safe stays so, whatever is wrong with it now that it was sent again: its first ack may have been lost.
            self.acked = number;
        }
        if ack.status == Status::Stored && known && number <= self.acked {
            self.failures = 0;
            self.refusals = 0;
            return Verdict::Next;
        }
        if number <= self.acked {
            return Verdict::Next;
        }
        self.wait(meta, now, ack.retry_after_ms);
        match ack.status {
            _ if number != self.acked + 1 => Verdict::Resend,
            Status::Fork => Verdict::Park(ack.status),
            Status::BadMac | Status::Malformed | Status::Version => {
                self.refusals += 1;
                // Whoever can't say whose a frame is has other bytes than those that were sealed.
                let status = if known { ack.status } else { Status::BadMac };
                if self.refusals < REFUSALS_MAX { Verdict::Resend } else { Verdict::Park(status) }
            }
            // A wrong home is a mistake in the settings: the frame waits until it is put right.
            Status::Stored | Status::Gap | Status::WrongHome | Status::Busy | Status::Unreachable => Verdict::Resend,
        }
    }

    /// Notes that a POST failed: no answer, or none that could be read.
    pub fn on_failure(&mut self, meta: &Meta, now: i64) {
        self.wait(meta, now, 0);
    }

    /// Notes that the oldest frame was parked, or that a new producer took over: what failed was the old one's.
    pub fn on_restart(&mut self, acked: u64, now: i64) {
        self.acked = acked;
        self.failures = 0;
        self.refusals = 0;
        self.not_before = now + PARKED_PAUSE_MS;
    }

    /// Waits twice as long each time, and up to half as long again, so that shards don't come all at once.
    fn wait(&mut self, meta: &Meta, now: i64, at_least_ms: u32) {
        let backoff = (BACKOFF_MS << self.failures.min(16)).min(BACKOFF_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        let wait = backoff.max(i64::from(at_least_ms).min(RETRY_AFTER_MS_MAX));
        let random = (meta.producer.nonce() ^ now as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1;
        self.not_before = now + wait + random as i64 % (wait / 2 + 1);
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

    /// The ack of frame 13, the first that is not acked.
    fn ack(status: Status, mark: u64) -> Ack {
        Ack { mark, ..Ack::refusal(status, meta().producer, 3, "") }
    }

    #[test]
    fn acks_are_judged() {
        use Status::*;
        let unnamed = |status| Ack { producer: Producer::new(0, "unknown").unwrap(), seq: 0, ..ack(status, 0) };
        for (ack, verdict, acked) in [
            (ack(Stored, 3), Verdict::Next, 13),
            // Of those after it it tells nothing, known or not.
            (ack(Stored, 5), Verdict::Next, 13),
            (ack(Stored, 18), Verdict::Next, 13),
            // Nor of this one, as it says itself: it is too old, though none as new was ever made.
            (ack(Stored, 19), Verdict::Park(Fork), 12),
            (ack(Stored, u64::MAX), Verdict::Park(Fork), 12),
            (ack(Stored, 1), Verdict::Resend, 12),
            (ack(Gap, 1), Verdict::Resend, 11),
            (ack(Gap, 0), Verdict::Resend, 10),
            (ack(Gap, 4), Verdict::Resend, 12),
            (ack(Fork, 2), Verdict::Park(Fork), 12),
            // What is safe under this number is another frame.
            (ack(Fork, 4), Verdict::Park(Fork), 12),
            (ack(Fork, 10), Verdict::Park(Fork), 12),
            // Known to be safe, whatever came of it this time.
            (ack(BadMac, 3), Verdict::Next, 13),
            (ack(WrongHome, 0), Verdict::Resend, 12),
            (ack(Version, 0), Verdict::Resend, 12),
            (ack(BadMac, 0), Verdict::Resend, 12),
            (ack(Busy, 0), Verdict::Resend, 12),
            (Ack { seq: 9, ..ack(Stored, 9) }, Verdict::Resend, 12),
            (unnamed(Malformed), Verdict::Resend, 12),
            (unnamed(Stored), Verdict::Resend, 12),
        ] {
            let mut outbox = Outbox::new(&meta());
            assert_eq!(outbox.on_ack(&meta(), 13, &ack, 1_000), verdict, "{ack:?}");
            assert_eq!(outbox.acked(), acked, "{ack:?}");
            assert_eq!(outbox.send_at(&meta(), 1_000).unwrap() > 1_000, verdict != Verdict::Next, "{ack:?}");
        }
    }

    #[test]
    fn a_frame_is_parked_when_it_is_refused_thrice_as_damaged() {
        for status in [Status::BadMac, Status::Malformed, Status::Version] {
            let mut outbox = Outbox::new(&meta());
            let verdicts = [(); 3].map(|()| outbox.on_ack(&meta(), 13, &ack(status, 0), 0));
            assert_eq!(verdicts, [Verdict::Resend, Verdict::Resend, Verdict::Park(status)]);
        }
        // Only the oldest is judged: those after it may be refused for its sake.
        let mut outbox = Outbox::new(&meta());
        let later = Ack { seq: 4, ..ack(Status::Fork, 0) };
        assert_eq!(outbox.on_ack(&meta(), 14, &later, 0), Verdict::Resend);
    }

    #[test]
    fn while_a_post_is_under_way_nothing_is_due_until_it_must_be_lost() {
        let mut outbox = Outbox::new(&meta());
        assert!(outbox.send_at(&meta(), 1_000).unwrap() <= 1_000);
        outbox.on_post(1_000);
        assert_eq!(outbox.send_at(&meta(), 1_000), Some(1_000 + POST_MS_MAX));
        assert_eq!(outbox.send_at(&meta(), 900), Some(900), "the clock went back: there is no telling");
        // What was cut meanwhile is due at once, also where a clock has gone back.
        outbox.on_end();
        outbox.on_ack(&meta(), 13, &ack(Status::Stored, 3), 500);
        assert!(outbox.send_at(&meta(), 500).unwrap() <= 500);
        outbox.on_post(2_000);
        outbox.on_end();
        outbox.on_failure(&meta(), 2_100);
        assert!((2_200..=2_250).contains(&outbox.send_at(&meta(), 2_100).unwrap()));
    }

    #[test]
    fn what_both_sides_forgot_restarts_the_producer() {
        let meta = Meta { next_frame: 10 + OUTBOX_FRAMES_MAX + 2, acked: 200, ..meta() };
        let gap = Ack { seq: 191, ..ack(Status::Gap, 0) };
        assert_eq!(Outbox::new(&meta).on_ack(&meta, 201, &gap, 0), Verdict::Restart);
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_wait_longer() {
        let mut outbox = Outbox::new(&meta());
        outbox.on_ack(&meta(), 13, &Ack { retry_after_ms: u32::MAX, ..ack(Status::Busy, 0) }, 100_000_000);
        assert!(outbox.send_at(&meta(), 100_000_000).unwrap() >= 100_000_000 + RETRY_AFTER_MS_MAX);
        assert_eq!(outbox.send_at(&meta(), 10_000_000), Some(10_000_000));
    }

    #[test]
    fn waits_grow_to_a_bound_and_end_with_success() {
        let mut outbox = Outbox::new(&meta());
        for _ in 0..100 {
            outbox.on_failure(&meta(), 0);
            assert!((100..=BACKOFF_MS_MAX * 3 / 2 + 1).contains(&outbox.not_before));
        }
        assert!(outbox.not_before >= BACKOFF_MS_MAX);
        outbox.on_ack(&meta(), 13, &Ack { retry_after_ms: u32::MAX, ..ack(Status::Busy, 0) }, 0);
        assert!((RETRY_AFTER_MS_MAX..=RETRY_AFTER_MS_MAX * 2).contains(&outbox.not_before));
        outbox.on_ack(&meta(), 13, &ack(Status::Stored, 3), 50);
        assert!(!outbox.is_failing());
    }
}
