//! What is answered for a number that may not be known exactly.

/// The share of answers whose truth lies within their bounds, at least.
pub const CONFIDENCE: f64 = 0.95;

/// A value and its bounds, in the same unit. The truth lies in `lower..=upper` with a probability of [`CONFIDENCE`] or more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The best guess.
    pub value: f64,
    /// At most the value.
    pub lower: f64,
    /// At least the value.
    pub upper: f64,
    /// Nothing was approximated to get at the value.
    pub exact: bool,
}

impl Estimate {
    /// A number that is known.
    pub fn exact(value: f64) -> Self {
        Estimate { value, lower: value, upper: value, exact: true }
    }
    /// The ratio to another, of the intervals; `None` where that may be zero or less. As sure as both: errors that are normally
    /// distributed, whatever they have to do with each other, leave it as often as each of the two.
    pub fn over(self, other: Estimate) -> Option<Self> {
        if other.lower <= 0.0 {
            return None;
        }
        // The quotient furthest down has the greatest divisor, unless it is below zero.
        let [lower, upper] = [(self.lower, other.upper, other.lower), (self.upper, other.lower, other.upper)]
            .map(|(bound, positive, negative)| bound / if bound < 0.0 { negative } else { positive });
        Some(Estimate { value: self.value / other.value, lower, upper, exact: self.exact && other.exact })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ratio_holds_whatever_lies_within(
            upper in prop::array::uniform3(-1e6..1e6), lower in prop::array::uniform3(0.001..1e6),
            at in (0.0..=1.0, 0.0..=1.0),
        ) {
            let estimate = |mut values: [f64; 3]| {
                values.sort_by(f64::total_cmp);
                Estimate { lower: values[0], value: values[1], upper: values[2], exact: false }
            };
            let within = |estimate: Estimate, at: f64| estimate.lower + (estimate.upper - estimate.lower) * at;
            let (upper, lower) = (estimate(upper), estimate(lower));
            let ratio = upper.over(lower).unwrap();
            let one = within(upper, at.0) / within(lower, at.1);
            let slack = one.abs() * 1e-9;
            prop_assert!(ratio.lower <= ratio.value && ratio.value <= ratio.upper);
            prop_assert!(ratio.lower <= one + slack && one - slack <= ratio.upper, "{ratio:?} {one}");
        }
    }

    #[test]
    fn nothing_is_divided_by_what_may_be_zero() {
        assert_eq!(Estimate::exact(1.0).over(Estimate::exact(0.0)), None);
        assert_eq!(Estimate::exact(1.0).over(Estimate { lower: 0.0, ..Estimate::exact(2.0) }), None);
        assert_eq!(Estimate::exact(1.0).over(Estimate::exact(4.0)), Some(Estimate::exact(0.25)));
    }
}
