//! What was seen of all questions, and whether it is what is promised.

use std::collections::HashMap;
use std::fmt;

use crate::asked::Asked;
use crate::compare::{Quantile, Seen, Top, Users};
use crate::told::Request;

/// The share of truths that lie within bounds, at least.
const COVERED: f64 = 0.95;
/// Standard errors of a normal distribution that 95 % lie on one side of.
const ONE_SIDED: f64 = 1.645;
/// The same of 99.9 %: of one run in a thousand that keeps its promise it is said that it doesn't. Ranges that overlap share users, and
/// with these their errors.
const SURELY: f64 = 3.09;
/// So many different estimates show that a promise is kept; fewer can only refute it.
const SHOWN: usize = 5_000;

/// By table, truth and answer, so that what is asked twice is one: whether the truth is within the bounds.
type Within = HashMap<(String, u64, u64), bool>;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    requests: u64,
    questions: u64,
    /// Of these, those with windows, those that are compared with the period before, those of a POST, and those answered by cells.
    windows: u64,
    compared: u64,
    of_several: u64,
    of_cells: u64,
    /// Counts, sums, minima, maxima, means and small quantiles, which were equal.
    equal: u64,
    users_exact: u64,
    /// Of these, those that are one less than the truth.
    users_shared: u64,
    users_estimated: u64,
    users_within: Within,
    /// Ratios and changes that are said to be exact, and have users in them.
    quotients_exact: u64,
    quotients_estimated: u64,
    quotients_within: Within,
    quantiles: u64,
    quantiles_within: u64,
    rank_errors: f64,
    rank_error_max: f64,
    tops: u64,
    tops_within: u64,
    tops_unknown: u64,
}

impl Rates {
    /// Takes up what was asked at a time.
    pub(crate) fn add_request(&mut self, request: &Request) {
        let asked: Vec<&Asked> = match request {
            Request::One(asked) | Request::Cells(asked, _) => vec![asked],
            Request::Several(all) => all.iter().flatten().collect(),
        };
        let n = asked.len() as u64;
        self.requests += 1;
        self.questions += n;
        self.windows += asked.iter().filter(|asked| asked.window > 1).count() as u64;
        self.compared += asked.iter().filter(|asked| asked.compared).count() as u64;
        match request {
            Request::One(_) => {}
            Request::Cells(..) => self.of_cells += n,
            Request::Several(_) => self.of_several += n,
        }
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

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
        for quotient in &seen.quotients {
            if quotient.answered.exact {
                self.quotients_exact += 1;
            } else {
                self.quotients_estimated += 1;
                let key = (table.into(), quotient.truth.to_bits(), quotient.answered.value.to_bits());
                self.quotients_within.insert(key, quotient.within());
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
        for (what, within) in [("users", &self.users_within), ("ratios and changes", &self.quotients_within)] {
            let (within, all) = share(within);
            if likely(within, all, SURELY).1 < COVERED || (all >= SHOWN && likely(within, all, ONE_SIDED).0 < COVERED) {
                broken.push(format!("{what} are within their bounds in {within} of {all} cases"));
            }
        }
        let quantiles = (self.quantiles_within as usize, self.quantiles as usize);
        if likely(quantiles.0, quantiles.1, SURELY).1 < COVERED {
            broken.push(format!("quantiles are within their bounds in {} of {} cases", quantiles.0, quantiles.1));
        }
        broken
    }
}

/// Different estimates whose bounds hold, of how many.
fn share(within: &Within) -> (usize, usize) {
    (within.values().filter(|within| **within).count(), within.len())
}

/// The interval of Wilson ("Probable inference, the law of succession, and statistical inference", 1927) for a share, each end so
/// many standard errors away.
fn likely(of: usize, all: usize, errors: f64) -> (f64, f64) {
    if all == 0 {
        return (0.0, 1.0);
    }
    let (n, z2) = (all as f64, errors * errors);
    let share = of as f64 / n;
    let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = errors / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    (middle - half, middle + half)
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |of: usize, all: usize| if all == 0 { 100.0 } else { 100.0 * of as f64 / all as f64 };
        writeln!(
            f,
            "  {} questions: {} with windows, {} compared with the period before, {} in POSTs of several, {} answered by cells",
            self.questions, self.windows, self.compared, self.of_several, self.of_cells
        )?;
        writeln!(
            f,
            "  {} counts, sums, minima, maxima, means, and quantiles of few values, their ratios and changes: equal",
            self.equal
        )?;
        writeln!(
            f,
            "  {} users said to be exact: {} equal, {} one less, for two of them share a coupon",
            self.users_exact,
            self.users_exact - self.users_shared,
            self.users_shared
        )?;
        writeln!(f, "  {} ratios and changes said to be exact of users: within a shared coupon", self.quotients_exact)?;
        for (what, estimated, within) in [
            ("users", self.users_estimated, &self.users_within),
            ("ratios and changes", self.quotients_estimated, &self.quotients_within),
        ] {
            let (within, all) = share(within);
            writeln!(
                f,
                "  {estimated} {what} estimated, {all} of them different: {:.2} % of these within their bounds (at 95 % confidence, {:.2} % or more)",
                percent(within, all),
                100.0 * likely(within, all, ONE_SIDED).0
            )?;
        }
        writeln!(
            f,
            "  {} quantiles of more values: rank error {:.3} % on average, {:.3} % at most; {:.2} % within their bounds",
            self.quantiles,
            100.0 * self.rank_errors / self.quantiles.max(1) as f64,
            100.0 * self.rank_error_max,
            percent(self.quantiles_within as usize, self.quantiles as usize)
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
        let (low, high) = likely(0, 10, ONE_SIDED);
        assert!(low.abs() < 1e-12 && (high - 0.213).abs() < 0.001, "{low} {high}");
        assert_eq!(likely(0, 0, ONE_SIDED), (0.0, 1.0));
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
        // 5 % and 3.09 standard errors of 1,000 are 71; of 6,000, that 5 % are exceeded can't be told apart from 272 on.
        assert_eq!((of(50, 1_000), of(80, 1_000)), (0, 1));
        assert_eq!((of(240, 6_000), of(300, 6_000)), (0, 1));
    }
}
