//! What was seen of all questions, and whether it is what is promised.

use std::collections::HashMap;
use std::fmt;

use crate::compare::{Quantile, Seen, Top, Users};

/// The share of truths that lie within bounds, at least.
const COVERED: f64 = 0.95;
/// Standard errors of a normal distribution that 95 % lie on one side of.
const ONE_SIDED: f64 = 1.645;
/// So many different estimates show that a promise is kept; fewer can only refute it.
const SHOWN: usize = 5_000;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    pub(crate) questions: u64,
    /// Counts, sums, minima, maxima, means and small quantiles, which were equal.
    equal: u64,
    users_exact: u64,
    /// Of these, those that are one less than the truth.
    users_shared: u64,
    users_estimated: u64,
    /// By table, truth and answer, so that what is asked twice is one: whether the truth is within the bounds.
    users_within: HashMap<(String, u64, u64), bool>,
    quantiles: u64,
    quantiles_within: u64,
    rank_errors: f64,
    rank_error_max: f64,
    tops: u64,
    tops_within: u64,
    tops_unknown: u64,
}

impl Rates {
    /// Takes up the rows of a question about a table.
    pub(crate) fn add(&mut self, table: &str, seen: &Seen) {
        self.equal += seen.equal;
        for Users { truth, answered } in &seen.users {
            if answered.exact {
                self.users_exact += 1;
                self.users_shared += u64::from(answered.value != *truth as f64);
            } else {
                self.users_estimated += 1;
                let within = answered.lower <= *truth as f64 && *truth as f64 <= answered.upper;
                self.users_within.insert((table.into(), *truth, answered.value.to_bits()), within);
            }
        }
    }

    /// Takes up a quantile, and how far its rank was off.
    pub(crate) fn add_quantile(&mut self, quantile: &Quantile, rank_error: f64) {
        self.quantiles += 1;
        self.quantiles_within += u64::from(quantile.within());
        self.rank_errors += rank_error;
        self.rank_error_max = self.rank_error_max.max(rank_error);
    }

    /// Takes up a question's groups.
    pub(crate) fn add_top(&mut self, top: &Top) {
        self.tops += 1;
        self.tops_within += u64::from(*top == Top::WithinBounds);
        self.tops_unknown += u64::from(*top == Top::Unknown);
    }

    /// Promises that aren't kept, as sentences.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let (within, all) = self.users();
        let (low, high) = likely(within, all);
        if high < COVERED || (all >= SHOWN && low < COVERED) {
            broken.push(format!("users are within their bounds in {within} of {all} cases"));
        }
        let quantiles = (self.quantiles_within as usize, self.quantiles as usize);
        if likely(quantiles.0, quantiles.1).1 < COVERED {
            broken.push(format!("quantiles are within their bounds in {} of {} cases", quantiles.0, quantiles.1));
        }
        broken
    }

    /// Different estimates of users whose bounds hold, of how many.
    fn users(&self) -> (usize, usize) {
        (self.users_within.values().filter(|within| **within).count(), self.users_within.len())
    }
}

/// The interval of Wilson ("Probable inference, the law of succession, and statistical inference", 1927) for a share, each end at
/// 95 % confidence.
fn likely(of: usize, all: usize) -> (f64, f64) {
    if all == 0 {
        return (0.0, 1.0);
    }
    let (n, z2) = (all as f64, ONE_SIDED * ONE_SIDED);
    let share = of as f64 / n;
    let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = ONE_SIDED / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    (middle - half, middle + half)
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |of: usize, all: usize| if all == 0 { 100.0 } else { 100.0 * of as f64 / all as f64 };
        writeln!(f, "  {} counts, sums, minima, maxima, means, and quantiles of few values: equal", self.equal)?;
        writeln!(
            f,
            "  {} users said to be exact: {} equal, {} one less, for two of them share a coupon",
            self.users_exact,
            self.users_exact - self.users_shared,
            self.users_shared
        )?;
        let (within, all) = self.users();
        writeln!(
            f,
            "  {} users estimated, {all} of them different: {:.2} % of these within their bounds (at 95 % confidence, {:.2} % or more)",
            self.users_estimated,
            share(within, all),
            100.0 * likely(within, all).0
        )?;
        writeln!(
            f,
            "  {} quantiles of more values: rank error {:.3} % on average, {:.3} % at most; {:.2} % within their bounds",
            self.quantiles,
            100.0 * self.rank_errors / self.quantiles.max(1) as f64,
            100.0 * self.rank_error_max,
            share(self.quantiles_within as usize, self.quantiles as usize)
        )?;
        write!(
            f,
            "  {} lists of groups: {} equal, {} but for groups that bounds can't tell apart, {} by quantiles, which differ",
            self.tops,
            self.tops - self.tops_within - self.tops_unknown,
            self.tops_within,
            self.tops_unknown
        )
    }
}

#[cfg(test)]
mod tests {
    use catchment_harness::Value;

    use super::*;

    #[test]
    fn a_share_has_a_likely_range() {
        // Of 0 of 10, Wilson's interval ends at z²/(n + z²).
        let (low, high) = likely(0, 10);
        assert!(low.abs() < 1e-12 && (high - 0.213).abs() < 0.001, "{low} {high}");
        assert_eq!(likely(0, 0), (0.0, 1.0));
    }

    #[test]
    fn bounds_that_hold_too_rarely_break_a_promise() {
        let of = |misses: u64, all: u64| {
            let mut rates = Rates::default();
            for n in 0..all {
                let (lower, upper) = if n < misses { (2_100.0, 2_200.0) } else { (1_900.0, 200_000.0) };
                let answered = Value { value: 2_150.0 + n as f64, lower, upper, exact: false };
                rates.add("t", &Seen { users: vec![Users { truth: 2_000, answered }; 2], ..Seen::default() });
            }
            rates.broken().len()
        };
        // 5 % and 1.645 standard errors of 1,000 are 61; of 6,000, that 5 % are exceeded can't be told apart from 272 on.
        assert_eq!((of(50, 1_000), of(70, 1_000)), (0, 1));
        assert_eq!((of(240, 6_000), of(300, 6_000)), (0, 1));
    }
}
