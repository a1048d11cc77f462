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
}
