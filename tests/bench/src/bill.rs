//! What Cloudflare would bill for a load: a formula over prices, the load, and what was measured of a shard. Pure.

use catchment_cells::limits::REQUEST_EVENTS_MAX;
use catchment_cells::route::SLICES;
use catchment_collector::limits::LOG_ROW_EVENTS;
use catchment_collector::shard::{CUT_EVERY_MS, CUT_MS, GROUP_MS};
use catchment_collector::{Capacity, HOT, request_cost};

/// A twelfth of 365.25 days.
const MONTH_S: f64 = 365.25 / 12.0 * 86_400.0;

/// In dollars, without what a plan includes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prices {
    /// When they were looked up.
    pub(crate) on: &'static str,
    /// A million requests to the Worker.
    pub(crate) requests: f64,
    /// A million requests to objects, and alarms that ring.
    pub(crate) object_requests: f64,
    /// A million ms of the Worker's CPU.
    pub(crate) cpu_ms: f64,
    /// An object that is always there: 12.50 for a million GB-s, of 128 MB each.
    pub(crate) object_month: f64,
    /// A million rows written, and alarms that are set.
    pub(crate) rows: f64,
}

/// Cloudflare's list.
pub(crate) const PRICES: Prices =
    Prices { on: "2026-11-25", requests: 0.30, object_requests: 0.15, cpu_ms: 0.02, object_month: 4.15, rows: 1.00 };

/// What comes in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) events_per_s: f64,
    pub(crate) events_per_request: usize,
    /// Shards that it is spread over, evenly.
    pub(crate) shards: usize,
    /// Whether someone looks, day and night.
    pub(crate) watched: bool,
}

/// What one shard was seen to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Rows that a cut writes, and alarms that are set for it.
    pub(crate) rows_per_cut: f64,
    /// Alarms that ring for a cut.
    pub(crate) alarms_per_cut: f64,
    /// Events after which a cut is due whatever the time.
    pub(crate) events_per_cut: f64,
    /// CPU of a request, in ms.
    pub(crate) cpu_ms_per_request: f64,
}

/// Dollars a month.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bill {
    pub(crate) requests: f64,
    pub(crate) object_requests: f64,
    pub(crate) cpu: f64,
    pub(crate) objects: f64,
    pub(crate) rows: f64,
}

impl Bill {
    /// Of all.
    pub(crate) fn month(&self) -> f64 {
        self.requests + self.object_requests + self.cpu + self.objects + self.rows
    }

    /// Of a load.
    pub(crate) fn of(prices: &Prices, load: &Load, measured: &Measured) -> Bill {
        let requests_per_s = load.events_per_s / load.events_per_request as f64;
        let shards = load.shards as f64;
        let commits_per_s = shards * commits_per_s(requests_per_s / shards, load.events_per_request);
        let cuts_per_s =
            shards * cuts_per_s(load.events_per_s / shards, commits_per_s / shards, load.watched, measured);
        let millions_a_month = MONTH_S / 1e6;
        Bill {
            requests: requests_per_s * millions_a_month * prices.requests,
            object_requests: (requests_per_s + cuts_per_s * measured.alarms_per_cut)
                * millions_a_month
                * prices.object_requests,
            cpu: requests_per_s * measured.cpu_ms_per_request * millions_a_month * prices.cpu_ms,
            objects: shards * prices.object_month,
            rows: (commits_per_s + cuts_per_s * measured.rows_per_cut) * millions_a_month * prices.rows,
        }
    }
}

/// Dollars for a million events.
pub(crate) fn per_million(month: f64, events_per_s: f64) -> f64 {
    month / (events_per_s * MONTH_S / 1e6)
}

/// Commits a second of a shard whose requests come at random: at once after a quiet time, else what comes within a group's time together.
/// A cycle is the group's time, and where nobody came within it, the wait for the next.
pub(crate) fn commits_per_s(requests_per_s: f64, events_per_request: usize) -> f64 {
    let group_s = GROUP_MS as f64 / 1e3;
    let by_time = 1.0 / (group_s + (-requests_per_s * group_s).exp() / requests_per_s);
    by_time.max(requests_per_s * events_per_request as f64 / LOG_ROW_EVENTS as f64)
}

/// Cuts a second of a shard: by time after the first commit since the last, or when so much waits.
pub(crate) fn cuts_per_s(events_per_s: f64, commits_per_s: f64, watched: bool, measured: &Measured) -> f64 {
    let wait_ms = if watched { CUT_MS } else { CUT_EVERY_MS };
    let by_time = 1.0 / (wait_ms as f64 / 1e3 + 1.0 / commits_per_s);
    by_time.max(events_per_s / measured.events_per_cut)
}

/// Shards that a client of its own is spread over: the slices of the lowest level at which it isn't hot, in as many regions as it takes.
pub(crate) fn slices(events_per_s: f64, events_per_request: usize) -> usize {
    let cost_per_s = events_per_s / events_per_request as f64 * request_cost(events_per_request, 0);
    let most = HOT * f64::from(Capacity::default().requests_per_s);
    let fits = |shards: usize| cost_per_s <= shards as f64 * most;
    let last = SLICES[SLICES.len() - 1];
    SLICES.into_iter().find(|&n| fits(n)).unwrap_or_else(|| last * (cost_per_s / (last as f64 * most)).ceil() as usize)
}

/// The fewest events a request at which one client's bill is below so many dollars a month, the rest being as measured.
pub(crate) fn fewest_events_per_request(
    prices: &Prices,
    events_per_s: f64,
    month: f64,
    measured: &Measured,
) -> Option<usize> {
    (1..=REQUEST_EVENTS_MAX).find(|&events_per_request| {
        let shards = slices(events_per_s, events_per_request);
        let load = Load { events_per_s, events_per_request, shards, watched: true };
        Bill::of(prices, &load, measured).month() < month
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURED: Measured =
        Measured { rows_per_cut: 4.0, alarms_per_cut: 1.0, events_per_cut: 1_000.0, cpu_ms_per_request: 0.5 };

    fn near(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-3, "{found}, not {expected}");
    }

    #[test]
    fn a_bill_is_what_one_works_out_by_hand() {
        // 1,000 requests a second are 2,629.8 M a month. 20 commits and 1 / 0.25 s = 4 cuts a second, below one per 1,000 events.
        let load = Load { events_per_s: 1_000.0, events_per_request: 1, shards: 1, watched: true };
        let bill = Bill::of(&PRICES, &load, &MEASURED);
        near(bill.requests, 2_629.8 * 0.30);
        near(bill.object_requests, (2_629.8 + 4.0 * 2.6298) * 0.15);
        near(bill.cpu, 2_629.8 * 0.5 * 0.02);
        near(bill.objects, 4.15);
        near(bill.rows, (20.0 + 4.0 * 4.0) * 2.6298);
        near(per_million(bill.month(), 1_000.0), bill.month() / 2_629.8);
    }

    #[test]
    fn commits_follow_the_requests_until_groups_fill() {
        // One in 100 s is a commit of its own; 1,000 a second are a commit each 50 ms; large ones fill rows before.
        near(commits_per_s(0.01, 1), 0.01);
        near(commits_per_s(1_000.0, 1), 20.0);
        near(commits_per_s(1_000.0, 50), 50.0);
    }

    #[test]
    fn cuts_are_made_by_time_or_by_size() {
        near(cuts_per_s(10.0, 20.0, true, &MEASURED), 4.0);
        near(cuts_per_s(10.0, 20.0, false, &MEASURED), 1.0 / 5.05);
        near(cuts_per_s(7_000.0, 20.0, false, &MEASURED), 7.0);
    }

    #[test]
    fn larger_requests_get_below_a_bill_unless_nothing_does() {
        let fewest = |month| fewest_events_per_request(&PRICES, 10_000.0, month, &MEASURED);
        assert_eq!([fewest(1e6), fewest(10.0)], [Some(1), None]);
        // Two a request need 5,500 of 500 a slice: 64 of them. Three need 3,833: 8, and a third of the requests.
        assert_eq!(fewest(10_000.0), Some(3));
    }

    #[test]
    fn a_client_has_the_fewest_slices_at_which_it_is_not_hot() {
        // 500 requests a second of a shard's 1,000; a request of 20 events counts twice.
        for (events_per_s, batch, expected) in [
            (400.0, 1, 1),
            (5_000.0, 20, 1),
            (5_001.0, 20, 8),
            (10_000.0, 1, 64),
            (50_000.0, 1, 128),
            (50_000.0, 50, 8),
        ] {
            assert_eq!(slices(events_per_s, batch), expected, "{events_per_s} by {batch}");
        }
    }
}
