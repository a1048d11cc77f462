use datasketches::tdigest::TDigestMut;
use proptest::prelude::*;

use super::tdigest::{CENTROID_BYTES, K};
use super::*;
use crate::random::Random;

fn digest(values: impl IntoIterator<Item = i64>) -> Digest {
    let mut digest = Digest::new();
    values.into_iter().for_each(|micros| digest.record(micros));
    digest
}

fn encoded(digest: &Digest) -> Vec<u8> {
    let mut out = Vec::new();
    digest.encode(&mut out);
    out
}

fn decoded(bytes: &[u8], n: u64, min: i64, max: i64) -> Result<Option<Digest>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let digest = Digest::decode(&mut reader, n, min, max)?;
    reader.finish()?;
    Ok(digest)
}

/// The value at rank ⌈q·n⌉ of ascending values, in units.
fn exact(sorted: &[i64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.max(1) - 1] as f64 / 1e6
}

fn values() -> impl Strategy<Value = Vec<i64>> {
    let value = prop_oneof![any::<i64>(), -5..5i64, (0..2_000i64).prop_map(|units| units * 1_000_000)];
    prop_oneof![prop::collection::vec(value.clone(), 1..34), prop::collection::vec(value, 1..1_500)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn digests_round_trip(values in values()) {
        let (n, min, max) = (values.len() as u64, *values.iter().min().unwrap(), *values.iter().max().unwrap());
        let digest = digest(values);
        let bytes = encoded(&digest);
        prop_assert_eq!(bytes[0], if n <= 32 { VALUES } else { T_DIGEST });
        prop_assert_eq!(decoded(&bytes, n, min, max), Ok(Some(digest)));
        for (n, min, max) in [(n + 1, min, max), (n - 1, min, max), (n, min ^ 0x1_0000, max), (n, min, max ^ 0x1_0000)] {
            prop_assert!(decoded(&bytes, n, min, max).is_err());
        }
    }

    #[test]
    fn few_values_are_exact_in_any_order_and_grouping(mut values in prop::collection::vec(any::<i64>(), 1..=32), cut: prop::sample::Index) {
        let (left, right) = values.split_at(cut.index(values.len()));
        let mut merged = digest(right.iter().copied());
        merged.merge(&digest(left.iter().copied()));
        prop_assert_eq!(&merged, &digest(values.iter().copied()));
        values.sort();
        for q in [0.0, 0.5, 0.95, 1.0] {
            prop_assert_eq!(merged.quantile(q), Some(Estimate::exact(exact(&values, q))));
        }
    }

    #[test]
    fn answers_lie_within_the_values(parts in prop::collection::vec(values(), 1..6), q in 0.0..=1.0f64) {
        let mut merged = Digest::new();
        parts.iter().for_each(|part| merged.merge(&digest(part.iter().copied())));
        let mut values = parts.concat();
        values.sort();
        let Estimate { value, lower, upper, .. } = merged.quantile(q).unwrap();
        prop_assert!(exact(&values, 0.0) <= lower && lower <= value && value <= upper && upper <= exact(&values, 1.0));
    }

    /// Whoever makes measures can say anything of their values; merging what is accepted never panics, and the sum is accepted.
    #[test]
    fn changed_bytes_are_refused_or_another_digest(
        values in values(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), end: prop::sample::Index,
        heavy in prop::option::of((any::<prop::sample::Index>(), any::<u64>())), other in values(),
    ) {
        let (mut n, min, max) = (values.len() as u64, *values.iter().min().unwrap(), *values.iter().max().unwrap());
        let mut bytes = encoded(&digest(values));
        prop_assert!(decoded(&bytes[..end.index(bytes.len())], n, min, max).is_err());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let (Some((at, weight)), T_DIGEST) = (heavy, bytes[0]) {
            // One centroid's weight, and n with it.
            let header = bytes.len() % CENTROID_BYTES;
            let at = header + at.index(bytes.len() / CENTROID_BYTES) * CENTROID_BYTES + 8;
            let weight = weight >> (weight % 64);
            if let Some(field) = bytes.get_mut(at..at + 8) {
                let before = u64::from_le_bytes((&*field).try_into().unwrap());
                n = n.wrapping_sub(before).wrapping_add(weight);
                field.copy_from_slice(&weight.to_le_bytes());
            }
        }
        if let Ok(Some(accepted)) = decoded(&bytes, n, min, max) {
            prop_assert_eq!(encoded(&accepted), bytes);
            let other_n = other.len() as u64;
            let (other_min, other_max) = (*other.iter().min().unwrap(), *other.iter().max().unwrap());
            let mut sum = digest(other);
            for i in 1..5 {
                sum.merge(&accepted);
                let (n, min, max) = (other_n.saturating_add(n.saturating_mul(i)), min.min(other_min), max.max(other_max));
                let answer = decoded(&encoded(&sum), n, min, max);
                prop_assert!(answer.is_ok(), "{:?}", answer);
                prop_assert_eq!(sum.quantile(0.9).is_some(), answer.unwrap().is_some());
            }
        }
    }
}

#[test]
fn what_is_no_digest_is_refused() {
    let too_long = [vec![T_DIGEST, 0x81, 0x80, 0x01], vec![0; 16_385]].concat();
    for bytes in [vec![VALUES], vec![VALUES, 2, 0], vec![T_DIGEST, 0], vec![3], vec![], too_long] {
        assert!(decoded(&bytes, 40, 1, 2).is_err(), "{bytes:?}");
        assert!(decoded(&bytes, 2, 1, 2).is_err(), "{bytes:?}");
    }
    assert_eq!(decoded(&[VALUES, 2, 1], 2, 1, 2), Ok(Some(digest([1, 2]))));
    assert_eq!(decoded(&[NONE], 2, 1, 2), Ok(None));
    assert_eq!(Digest::new().quantile(0.5), None);

    // A t-digest of so few values that they should have been written themselves.
    let mut few = TDigestMut::new(K).unwrap();
    (1..=20).for_each(|micros| few.update(f64::from(micros)));
    let mut bytes = vec![T_DIGEST];
    let image = few.serialize();
    put_uv(&mut bytes, image.len() as u64);
    bytes.extend(image);
    assert!(decoded(&bytes, 20, 1, 20).is_err());
}

#[test]
fn a_digest_of_too_many_values_is_given_up() {
    let mut bytes = encoded(&digest(0..33));
    let weight = bytes.len() - 8;
    let n = DIGEST_WEIGHT_MAX;
    bytes[weight..].copy_from_slice(&(n - 32).to_le_bytes());
    let mut most = decoded(&bytes, n, 0, 32).unwrap().unwrap();
    assert!(most.quantile(0.5).is_some());
    for add in [
        |most: &mut Digest| most.record(1),
        |most: &mut Digest| most.merge(&digest([1])),
        |most: &mut Digest| most.merge(&digest(0..33)),
    ] {
        let mut more = most.clone();
        add(&mut more);
        assert_eq!((more.quantile(0.5), encoded(&more)), (None, vec![NONE]));
        more.merge(&most);
        assert_eq!(more.quantile(0.5), None);
    }
    let given_up = Digest(Form::GivenUp);
    most.merge(&given_up);
    assert_eq!(most, given_up);

    bytes[weight..].copy_from_slice(&(n - 31).to_le_bytes());
    assert!(decoded(&bytes, n + 1, 0, 32).is_err());
}

type Distribution = (&'static str, fn(&mut Random) -> f64);

const DISTRIBUTIONS: [Distribution; 10] = [
    ("uniform", |random| random.fraction() * 1_000.0),
    ("exponential", |random| -random.fraction().ln() * 100.0),
    ("lognormal", |random| (2.0 * random.normal()).exp()),
    ("signed", |random| random.normal().powi(3)),
    ("95 % zeros", |random| if random.fraction() < 0.95 { 0.0 } else { (1.5 * random.normal()).exp() }),
    ("half zeros", |random| if random.fraction() < 0.5 { 0.0 } else { (1.5 * random.normal()).exp() }),
    ("one of five", |random| (random.next() % 5) as f64),
    ("one of a hundred", |random| (random.next() % 100) as f64),
    // Frequent values among rare ones, where a median is.
    ("half of two", |random| match random.next() % 6 {
        0..3 => 5.0,
        3 => 1_000.0,
        _ => (random.next() % 2_000) as f64,
    }),
    // A few files make most of the answers, of which some are empty; the rest are of any size.
    ("sizes", |random| match random.next() % 10 {
        0 => 0.0,
        1..5 => [786.0, 1_204.0, 1_713.0, 4_324.0, 5_866.0, 8_677.0, 40_310.0][random.next() as usize % 7],
        _ => (8.0 + 1.7 * random.normal()).exp().round(),
    }),
];

/// How far a value is from rank ⌈q·n⌉, as a share of the ranks; between two values it has the ranks of both.
fn rank_error(sorted: &[i64], q: f64, value: f64) -> f64 {
    let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
    let off_by = 1e-15 * value.abs();
    let less = sorted.partition_point(|&micros| (micros as f64) / 1e6 < value - off_by);
    let not_more = sorted.partition_point(|&micros| micros as f64 / 1e6 <= value + off_by);
    let (from, to) = if not_more > less { (less + 1, not_more) } else { (less, less + 1) };
    (from.saturating_sub(rank) + rank.saturating_sub(to)) as f64 / sorted.len() as f64
}

/// At each of nine ranks, in digests of 100 to 100,000 values merged from 1 to 1,440 parts; and no rank is 0.5 % off.
#[test]
fn bounds_cover_95_percent_of_quantiles() {
    let mut random = Random(2);
    for (name, draw) in DISTRIBUTIONS {
        let (mut covered, mut asked, mut error) = (0, 0, 0.0f64);
        for (n, parts, trials) in
            [(100, 1, 40), (250, 4, 40), (1_000, 50, 40), (5_000, 1, 30), (20_000, 1_440, 10), (100_000, 300, 2)]
        {
            for _ in 0..trials {
                let mut sorted: Vec<i64> = (0..n).map(|_| (draw(&mut random) * 1e6) as i64).collect();
                let mut merged = Digest::new();
                sorted.chunks(n / parts).for_each(|part| merged.merge(&digest(part.iter().copied())));
                sorted.sort();
                for q in [0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999] {
                    let Estimate { value, lower, upper, .. } = merged.quantile(q).unwrap();
                    error = error.max(rank_error(&sorted, q, value));
                    covered += u32::from((lower..=upper).contains(&exact(&sorted, q)));
                    asked += 1;
                    if ["uniform", "exponential", "lognormal"].contains(&name) {
                        let within = |bound: f64| sorted.partition_point(|&micros| (micros as f64) < bound * 1e6);
                        let width = (within(upper) - within(lower)) as f64 / n as f64;
                        assert!(width <= 0.1, "{width} of the ranks are within the bounds at {q} of {n}");
                    }
                }
            }
        }
        println!("{name}: {covered} of {asked} covered; a rank is {:.2} % off at most", 100.0 * error);
        assert!(error < 0.005, "{name}: a rank is {error} off");
        assert!(f64::from(covered) >= crate::estimate::CONFIDENCE * f64::from(asked), "{name}: {covered} of {asked}");
    }
}
