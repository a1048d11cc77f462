use super::*;

fn users(hashes: impl IntoIterator<Item = u64>) -> Users {
    let mut users = Users::default();
    hashes.into_iter().for_each(|hash| users.insert(Coupon::of(hash)));
    users
}

#[test]
fn few_are_exact() {
    assert_eq!(users(0..3).estimate(), Estimate::exact(3.0));
}
