//! Aggregators: what their host does for them, and how a region passes on to central what it has.

use bytes::Bytes;
use catchment_aggregator_core::LogRow;
use catchment_cells::ack::{Ack, Status};

use super::{Back, Next, Parcel, RELAY_TIMEOUT, World};
use crate::aggregator::Died;

impl World {
    /// An aggregator's writer takes what has arrived.
    pub(super) fn take(&mut self, n: usize) -> Result<(), String> {
        let parcels = std::mem::take(&mut self.inbox[n]);
        if parcels.is_empty() {
            return Ok(());
        }
        let frames: Vec<Bytes> = parcels.iter().flat_map(|parcel| parcel.frames.iter().cloned()).collect();
        let rate = self.weather.die;
        let acks = self.aggregators[n].take(&frames, self.now, self.now, &mut self.random, rate);
        let Ok(acks) = acks else {
            self.died(n);
            return Ok(());
        };
        let mut acks = acks.into_iter();
        for ack in acks.clone() {
            self.saw(match ack.status {
                Status::Stored => "stored",
                Status::Gap => "a gap",
                Status::Fork => "a fork",
                Status::BadMac => "a bad MAC",
                Status::Version => "an unknown version",
                Status::Malformed => "a malformed frame",
                Status::Busy => "busy",
                Status::WrongHome => "a wrong home",
                Status::Unreachable => "unreachable",
            });
        }
        for Parcel { frames, back } in parcels {
            // They cross the wire.
            let parsed: Result<Vec<Ack>, _> =
                acks.by_ref().take(frames.len()).map(|ack| Ack::decode(&ack.encode())).collect();
            let acks = parsed.map_err(|error| error.to_string())?;
            match back {
                Back::Shard { shard, life, post, places, mut of } => {
                    for (place, ack) in places.into_iter().zip(acks) {
                        of[place] = ack;
                    }
                    self.send(Next::Acks { shard, life, post, acks: of }, None);
                }
                Back::Region { region, life, rows } => {
                    let mut answers: Vec<Option<Ack>> = acks.into_iter().map(Some).collect();
                    if self.chance(|weather| weather.cut) {
                        let kept = self.random.below(answers.len() as u64 + 1) as usize;
                        answers.truncate(kept);
                    }
                    answers.resize(rows.len(), None);
                    let delay = self.delay();
                    self.at(delay, Next::Settle { region, life, rows, answers });
                }
            }
        }
        if self.aggregators[n].forwards && !self.forwarding[n] {
            self.forwarding[n] = true;
            self.at(0, Next::Forward { region: n, life: self.lives[n] });
        }
        Ok(())
    }

    pub(super) fn died(&mut self, n: usize) {
        self.saw("an aggregator dies");
        self.aggregators[n].die(&mut self.random);
        self.inbox[n].clear();
        self.lives[n] += 1;
        self.forwarding[n] = false;
        let wait = self.random.pick(&[100, 5_000, 120_000]);
        self.at(wait, Next::Start(n));
    }

    pub(super) fn keep(&mut self, n: usize) {
        let rate = self.weather.die;
        match self.aggregators[n].keep(self.now, false, &mut self.random, rate) {
            Ok(()) => {
                let wait = if self.calm { 1_000 } else { (self.weather.span / 300).max(100) };
                if self.aggregators[n].memory.is_some() {
                    let life = self.lives_kept[n];
                    self.at(wait, Next::Keep { aggregator: n, life });
                }
            }
            Err(Died) => self.died(n),
        }
    }

    pub(super) fn forward(&mut self, region: usize) {
        let rows = self.aggregators[region].to_forward();
        if rows.is_empty() {
            self.forwarding[region] = false;
            return;
        }
        let central = self.aggregators.len() - 1;
        let life = self.lives[region];
        let none = vec![None; rows.len()];
        if self.is_out(central) || self.aggregators[central].memory.is_none() || self.chance(|weather| weather.loss) {
            return self.at(1_000, Next::Settle { region, life, rows, answers: none });
        }
        let frames = rows.iter().map(|row| row.frame.clone()).collect();
        let parcel = Parcel { frames, back: Back::Region { region, life, rows: rows.clone() } };
        if self.chance(|weather| weather.repeat) {
            // An earlier attempt's frames come late, and nobody waits for their acks.
            let back = Back::Region { region, life: u64::MAX, rows: rows.clone() };
            let delay = self.delay() * 3;
            let parcel = Parcel { back, ..parcel.clone() };
            self.at(delay, Next::Parcel { aggregator: central, parcel });
        }
        let delay = self.delay();
        self.at(delay, Next::Parcel { aggregator: central, parcel });
        // A connection that breaks answers none.
        self.at(2 * RELAY_TIMEOUT + delay, Next::Settle { region, life, rows, answers: none });
    }

    pub(super) fn settle(&mut self, region: usize, rows: &[LogRow], answers: &[Option<Ack>]) {
        // One batch at a time: a second answer to one is none.
        let current = self.aggregators[region].to_forward();
        if current.first().map(|row| row.position) != rows.first().map(|row| row.position) {
            return;
        }
        let (now, rate) = (self.now, self.weather.die);
        match self.aggregators[region].settle(rows, answers, now, &mut self.random, rate) {
            Ok(done) => {
                self.saw("passed on");
                let wait = if done { 0 } else { self.random.between(100, 5_000) };
                self.lives[region] += 1;
                self.at(wait, Next::Forward { region, life: self.lives[region] });
            }
            Err(Died) => self.died(region),
        }
    }
}
