//! What goes wrong in a run, chosen by its seed: some faults and not others, so that deep states are reached, too.

use catchment_collector::IdsBounds;

use crate::random::Random;

/// How long a thing lasts, in ms.
pub const MINUTE: i64 = 60_000;
/// See [`MINUTE`].
pub const HOUR: i64 = 60 * MINUTE;

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
    /// How far any clock was off at the most, in ms.
    pub skew_max: i64,
    /// Requests of which the sender gives up, and those after which it sleeps for hours.
    pub give_up: u64,
    /// See `give_up`.
    pub sleep: u64,
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
    /// What a shard takes, in requests a second: little, so that clients are refused and spread.
    pub requests_per_s: u32,
    /// When another placement map comes, and how long the routes of the one before are taken.
    pub map_change: Option<(i64, i64)>,
    /// Whose storage is set back.
    pub set_back: Option<SetBack>,
}

/// Storage that is set back to a copy of itself.
#[derive(Debug, Clone, Copy)]
pub struct SetBack {
    /// An aggregator's, not a shard's.
    pub aggregator: bool,
    /// When the copy is made, and when it comes back.
    pub copied_at: i64,
    /// See `copied_at`.
    pub at: i64,
}

impl Weather {
    /// The weather of a seed.
    pub fn of(random: &mut Random) -> Weather {
        let mut rate = |rates: &[u64]| if random.below(2) == 0 { 0 } else { random.pick(rates) };
        let (loss, repeat) = (rate(&[10_000, 100_000, 300_000]), rate(&[10_000, 100_000, 300_000]));
        let (cut, reorder) = (rate(&[50_000, 200_000]), rate(&[50_000, 200_000]));
        let (flip, damage) = (rate(&[20_000, 100_000]), rate(&[20_000, 100_000]));
        let (die, reset) = (rate(&[5_000, 50_000]), rate(&[10_000, 100_000]));
        let (refuse, give_up, sleep) = (rate(&[20_000]), rate(&[50_000]), rate(&[50_000]));
        // One in some hundreds fills an outbox, and then the log, which takes hours; one makes more frames than an outbox holds, and
        // then its aggregator forgets them.
        let kind = random.below(300);
        let (siege, amnesia) = (kind == 0, kind == 1);
        let span = if siege || amnesia { 8 * HOUR } else { random.pick(&[MINUTE, 10 * MINUTE, HOUR, 30 * HOUR]) };
        let events = match kind {
            0 => 3_000,
            1 => 800,
            _ => random.between(10, 70) as usize,
        };
        let alone = siege || amnesia;
        let regions = if alone { 1 } else { random.between(1, 2) as usize };
        let mut outages = Vec::new();
        for _ in 0..random.below(3) {
            let length = random.pick(&[10_000, 5 * MINUTE, 2 * HOUR]).min(span / 2);
            outages.push((random.between(0, span), length, random.below(regions as u64 + 1) as usize));
        }
        if siege {
            outages = vec![(0, 7 * HOUR + HOUR / 2, 0)];
        } else if amnesia {
            outages.clear();
        }
        let mut set_back = None;
        if amnesia {
            set_back = Some(SetBack { aggregator: true, copied_at: 0, at: span / 10 * 9 });
        } else if !siege && random.below(12) == 0 {
            let copied_at = random.between(0, span / 2);
            let at = copied_at + random.between(0, span / 3);
            set_back = Some(SetBack { aggregator: random.below(2) == 0, copied_at, at });
        }
        // Of a frame that is damaged a mark tells by its number that it is safe, which another frame may bear after that.
        let whole = alone || set_back.is_some_and(|set_back| !set_back.aggregator);
        let map_change = (!alone && random.below(3) == 0).then(|| {
            let kept = random.pick(&[MINUTE, 10 * MINUTE, 26 * HOUR]);
            (random.between(0, span / 2), kept)
        });
        // A clock that goes 12 hours ahead has ids forgotten after 13 hours instead of 25.
        let skew = random.pick(&[0, 0, 10_000, 25 * MINUTE, 6 * HOUR]);
        Weather {
            loss,
            repeat,
            delay: random.pick(&[5, 500, 20_000]),
            cut,
            reorder,
            flip: if whole { 0 } else { flip },
            damage: if whole { 0 } else { damage },
            die,
            reset: if alone { 0 } else { reset },
            refuse,
            commit: random.pick(&[0, 10, 300]),
            skew,
            skew_max: skew,
            give_up,
            sleep,
            memtable_bytes: random.pick(&[4_000, 40_000, 1 << 20]),
            log_bytes: random.pick(&[6_000, 60_000, 1 << 30]),
            // The ring has room for all that a run has at the end of an outage. Who has spilled all that it may forgets what it can.
            ids: match random.pick(&[0, 2, 8]) {
                0 => IdsBounds::default(),
                few => IdsBounds {
                    ring_max: 200,
                    spilled_max: if alone { usize::MAX } else { 10 },
                    spill_from: few,
                    spill_within: few,
                },
            },
            watched: random.below(2) == 0,
            events,
            span,
            outages,
            regions,
            pools: if alone { 1 } else { random.between(1, 2) as u32 },
            requests_per_s: if alone { 10_000 } else { random.pick(&[1, 10, 10_000]) },
            map_change,
            set_back,
        }
    }

    /// Whether one shard alone is looked at, for long.
    pub fn is_alone(&self) -> bool {
        self.events > 100
    }

    /// Nothing goes wrong any more.
    pub fn calm(&mut self) {
        let Weather { loss, repeat, cut, reorder, flip, damage, die, reset, refuse, give_up, sleep, .. } = self;
        for rate in [loss, repeat, cut, reorder, flip, damage, die, reset, refuse, give_up, sleep] {
            *rate = 0;
        }
        self.delay = 5;
        self.outages.clear();
    }
}
