//! How long to wait before the connection is tried again.

/// The first wait's bound, and every wait's, in milliseconds.
const FIRST_MS: u32 = 500;
const MAX_MS: u32 = 15_000;
/// The attempt from which on the wait is as long as it gets.
pub const LAST: u32 = 6;

/// The wait before an attempt (counted from 0): it doubles, and half of it is drawn (`random` is from 0 to 1), so that a thousand
/// dashboards don't come back at once.
pub fn wait_ms(attempt: u32, random: f64) -> u32 {
    let bound = FIRST_MS.saturating_mul(1 << attempt.min(10)).min(MAX_MS);
    bound / 2 + (f64::from(bound / 2) * random.clamp(0.0, 1.0)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_bound_and_are_drawn() {
        assert_eq!([0, 1, 2, 3, 99].map(|attempt| wait_ms(attempt, 1.0)), [500, 1_000, 2_000, 4_000, 15_000]);
        assert_eq!([0, 1, 2, 3, 99].map(|attempt| wait_ms(attempt, 0.0)), [250, 500, 1_000, 2_000, 7_500]);
    }
}
