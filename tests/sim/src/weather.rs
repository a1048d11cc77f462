//! What goes wrong in a run, chosen by its seed: some faults and not others, so that deep states are reached, too.

use catchment_collector::IdsBounds;

use crate::random::Random;

/// How long a thing lasts, in ms.
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// The faults of a run. Rates are per million.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Requests, POSTs and answers that are lost.
    pub loss: u64,
    /// Those that come twice.
    pub repeat: u64,
    /// How long they take at most, in ms.
    pub delay: i64,
    /// Parcels of frames that are cut short, and that come in another order.
    pub cut: u64,
    /// See `cut`.
    pub reorder: u64,
    /// Frames of which a bit flips on their way.
    pub flip: u64,
    /// Frames that are damaged where they are stored.
    pub damage: u64,
    /// Steps of an aggregator's disk at which it dies.
    pub die: u64,
    /// Turns of a shard at which it dies.
    pub reset: u64,
    /// Turns of a shard whose next write fails.
    pub refuse: u64,
    /// How long a shard's commit takes at most, in ms.
    pub commit: i64,
    /// Where a shard's clock may jump to, in ms from the true time.
    pub skew: i64,
    /// Requests of which the sender gives up.
    pub give_up: u64,
    /// Bytes of an aggregator's memtable and log: few, so that it is busy.
    pub memtable_bytes: usize,
    /// See `memtable_bytes`.
    pub log_bytes: u64,
    /// How many ids a shard has in memory before it spills: few, so that it does.
    pub ids: IdsBounds,
    /// Whether someone looks.
    pub watched: bool,
    /// How many events there are, and over how long.
    pub events: usize,
    /// See `events`.
    pub span: i64,
    /// When a link breaks, how long for, and which: a region's relay, or central.
    pub outages: Vec<(i64, i64, usize)>,
    /// Regions, pools of each, and whether there is a central.
    pub regions: usize,
    /// See `regions`.
    pub pools: u32,
}

impl Weather {
    /// The weather of a seed.
    pub fn of(random: &mut Random) -> Weather {
        let mut rate = |rates: &[u64]| if random.below(2) == 0 { 0 } else { random.pick(rates) };
        let (loss, repeat) = (rate(&[10_000, 100_000, 300_000]), rate(&[10_000, 100_000, 300_000]));
        let (cut, reorder) = (rate(&[50_000, 200_000]), rate(&[50_000, 200_000]));
        let (flip, damage) = (rate(&[20_000, 100_000]), rate(&[20_000, 100_000]));
        let (die, reset) = (rate(&[5_000, 50_000]), rate(&[10_000, 100_000]));
        let (refuse, give_up) = (rate(&[20_000]), rate(&[50_000]));
        // One in some hundreds fills an outbox, and then the log, which takes hours.
        let siege = random.below(300) == 0;
        let span = if siege { 8 * HOUR } else { random.pick(&[MINUTE, 10 * MINUTE, HOUR, 30 * HOUR]) };
        let events = if siege { 3_000 } else { random.between(10, 70) as usize };
        let regions = if siege { 1 } else { random.between(1, 2) as usize };
        let mut outages = Vec::new();
        for _ in 0..random.below(3) {
            let length = random.pick(&[10_000, 5 * MINUTE, 2 * HOUR]).min(span / 2);
            outages.push((random.between(0, span), length, random.below(regions as u64 + 1) as usize));
        }
        if siege {
            outages = vec![(0, 7 * HOUR + HOUR / 2, 0)];
        }
        Weather {
            loss,
            repeat,
            delay: random.pick(&[5, 500, 20_000]),
            cut,
            reorder,
            flip: if siege { 0 } else { flip },
            damage: if siege { 0 } else { damage },
            die,
            reset: if siege { 0 } else { reset },
            refuse,
            commit: random.pick(&[0, 10, 300]),
            skew: random.pick(&[0, 0, 10_000, 25 * MINUTE]),
            give_up,
            memtable_bytes: random.pick(&[4_000, 40_000, 1 << 20]),
            log_bytes: random.pick(&[6_000, 60_000, 1 << 30]),
            // The ring has room for all that a run has at the end of an outage. Who has spilled all that it may forgets what it can.
            ids: match random.pick(&[0, 2, 8]) {
                0 => IdsBounds::default(),
                few => IdsBounds {
                    ring_max: 200,
                    spilled_max: if siege { usize::MAX } else { 10 },
                    spill_from: few,
                    spill_within: few,
                },
            },
            watched: random.below(2) == 0,
            events,
            span,
            outages,
            regions,
            pools: if siege { 1 } else { random.between(1, 2) as u32 },
        }
    }

    /// Nothing goes wrong any more.
    pub fn calm(&mut self) {
        let Weather { loss, repeat, cut, reorder, flip, damage, die, reset, refuse, give_up, .. } = self;
        for rate in [loss, repeat, cut, reorder, flip, damage, die, reset, refuse, give_up] {
            *rate = 0;
        }
        self.delay = 5;
        self.outages.clear();
    }
}
