use super::*;

#[test]
fn few_values_are_exact() {
    let mut digest = Digest::new();
    (1..=20).for_each(|i| digest.record(i * 1_000_000));
    assert_eq!(digest.quantile(0.95), Some(Estimate::exact(19.0)));
}
