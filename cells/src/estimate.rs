//! stub
/// e
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// v
    pub value: f64,
    /// l
    pub lower: f64,
    /// u
    pub upper: f64,
    /// e
    pub exact: bool,
}
