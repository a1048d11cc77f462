//! Figures of cells of which some may or may not be asked for: a value that matters was folded.
//!
//! The value is that of the cells which surely are; the bounds leave room for any part of the others.

use catchment_cells::Estimate;
use catchment_cells::cell::Measure;
use catchment_cells::metric::Stat;
use catchment_cells::sum::Sum;

/// What is said of sums: of what surely is, and of what may be beside it. `None` where nothing surely is there to say something of; but a
/// sum, which is 0 then.
pub(crate) fn figure(stat: &Stat, sure: &Sum, more: &Sum) -> Option<Estimate> {
    if let (Stat::Sum(_), Sum::Measure(None), Sum::Measure(Some(more))) = (stat, sure, more) {
        // Of no values the sum is 0, and what may be beside it is some of these.
        let sum = |one: i64| more.n as f64 * one as f64 / 1e6;
        return Some(Estimate {
            lower: sum(more.min.min(0)),
            upper: sum(more.max.max(0)),
            exact: false,
            ..Estimate::exact(0.0)
        });
    }
    let figure = sure.figure(stat)?;
    let (lower, upper) = match (stat, sure, more) {
        (_, _, Sum::Measure(None)) => return Some(figure),
        (Stat::Count, _, Sum::Count(0)) => return Some(figure),
        (Stat::Count, _, Sum::Count(more)) => (figure.lower, figure.upper + *more as f64),
        (Stat::Users, Sum::Users(users), Sum::Users(more)) => {
            let mut all = users.clone();
            all.merge(more);
            (figure.lower, all.estimate().upper)
        }
        (_, Sum::Measure(Some(sure)), Sum::Measure(Some(more))) => bounds(stat, sure, more)?,
        _ => return None,
    };
    Some(Estimate { lower: lower.min(figure.lower), upper: upper.max(figure.upper), exact: false, ..figure })
}

fn bounds(stat: &Stat, sure: &Measure, more: &Measure) -> Option<(f64, f64)> {
    let units = |micros: i64| micros as f64 / 1e6;
    let (least, greatest) = (units(more.min), units(more.max));
    let (n, more_n) = (sure.n as f64, more.n as f64);
    let sum = sure.sum as f64 / 1e6;
    Some(match stat {
        // All that are below zero, or all that are above: no more than all have the least value or the greatest.
        Stat::Sum(_) => (sum + more_n * least.min(0.0), sum + more_n * greatest.max(0.0)),
        // A mean moves furthest by all of what is furthest away.
        Stat::Avg(_) => ((sum + more_n * least) / (n + more_n), (sum + more_n * greatest) / (n + more_n)),
        Stat::Min(_) => (least, units(sure.min)),
        Stat::Max(_) => (units(sure.max), greatest),
        Stat::Quantile(_, hundredths) => {
            let digest = sure.digest.as_ref()?;
            let q = f64::from(*hundredths) / 100.0;
            // Of n values and k more below or above them all, rank q·(n + k) is this one of the n; a rounded one is not to be within.
            const ROOM: f64 = 1e-9;
            let at = |q: f64| digest.quantile(q);
            let below = (q * (n + more_n) - more_n) / n - ROOM;
            let above = q * (n + more_n) / n + ROOM;
            let lower = if below <= 0.0 { least.min(units(sure.min)) } else { at(below)?.lower };
            let upper = if above > 1.0 { greatest.max(units(sure.max)) } else { at(above)?.upper };
            (lower, upper)
        }
        Stat::Count | Stat::Users => return None,
    })
}

#[cfg(test)]
mod tests {
    use catchment_cells::users::{Coupon, Users};
    use proptest::prelude::*;

    use super::*;

    fn measure(values: &[i64]) -> Option<Measure> {
        let mut values = values.iter().map(|units| units * 1_000_000);
        let mut measure = Measure::of(values.next()?, true);
        values.for_each(|micros| measure.record(micros));
        Some(measure)
    }

    proptest! {
        #[test]
        fn any_part_of_what_may_be_is_within_the_bounds(
            sure in prop::collection::vec(-50i64..50, 0..12),
            more in prop::collection::vec((-50i64..50, any::<bool>()), 0..12),
            hundredths in 1u8..100,
        ) {
            let chosen = more.iter().filter(|(_, is_chosen)| *is_chosen).map(|(value, _)| *value);
            let truth: Vec<i64> = sure.iter().copied().chain(chosen).collect();
            let more: Vec<i64> = more.iter().map(|(value, _)| *value).collect();
            let name = || "m".to_owned();
            let sums = |values: &[i64]| {
                let mut users = Users::default();
                values.iter().for_each(|user| users.insert(Coupon::of(*user as u64)));
                [Sum::Count(values.len() as u64), Sum::Users(users), Sum::Measure(measure(values))]
            };
            let (sure, more, truth) = (sums(&sure), sums(&more), sums(&truth));
            for (part, stat) in [
                (0, Stat::Count),
                (1, Stat::Users),
                (2, Stat::Sum(name())),
                (2, Stat::Avg(name())),
                (2, Stat::Min(name())),
                (2, Stat::Max(name())),
                (2, Stat::Quantile(name(), hundredths)),
            ] {
                let truth = match (truth[part].figure(&stat), &stat) {
                    (Some(truth), _) => truth.value,
                    (None, Stat::Sum(_)) => 0.0,
                    (None, _) => continue,
                };
                let Some(figure) = figure(&stat, &sure[part], &more[part]) else {
                    prop_assert!(sure[part] == Sum::Measure(None), "{stat:?}");
                    prop_assert!(!matches!(stat, Stat::Sum(_)) || more[part] == Sum::Measure(None), "{stat:?}");
                    continue;
                };
                prop_assert!(figure.lower - 1e-9 <= truth && truth <= figure.upper + 1e-9, "{stat:?} {figure:?} {truth}");
                prop_assert!(figure.lower <= figure.value && figure.value <= figure.upper, "{stat:?} {figure:?}");
            }
        }
    }
}
