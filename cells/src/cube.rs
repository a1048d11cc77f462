//! Cubes: which tuples of dimensions cells are kept for.

/// A named list of dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cube {
    /// The name, which keys and frames carry.
    pub name: &'static str,
    /// The dimensions, in the order of a cell's values.
    pub dimensions: &'static [&'static str],
    /// Whether its measures carry a digest, for quantiles.
    pub digest: bool,
}

/// What every client has. Names and orders are stored: final.
pub const DEFAULT: &[Cube] = &[
    Cube { name: "total", dimensions: &[], digest: true },
    Cube { name: "event_type", dimensions: &["event_type"], digest: true },
    Cube { name: "page", dimensions: &["page"], digest: true },
    Cube { name: "country", dimensions: &["country"], digest: false },
    Cube { name: "device", dimensions: &["device"], digest: false },
    Cube { name: "plan", dimensions: &["plan"], digest: false },
    Cube { name: "source", dimensions: &["referrer", "utm_source", "utm_campaign"], digest: false },
    Cube { name: "audience", dimensions: &["event_type", "country", "device", "plan"], digest: false },
    Cube { name: "category", dimensions: &["category"], digest: false },
    Cube { name: "product", dimensions: &["product"], digest: false },
    Cube { name: "agent", dimensions: &["browser", "os"], digest: false },
    Cube { name: "channel", dimensions: &["channel", "source"], digest: false },
    Cube { name: "bot", dimensions: &[BOT, "event_type"], digest: false },
];

/// The dimension of bots' events. They fill those cubes alone that have it, and people's events fill none of these: figures are of
/// people unless a question names it.
pub const BOT: &str = "bot";

/// The cube that counters are kept in: what was received, by reason, in minutes of receipt.
pub const RECEIVED: Cube = Cube { name: "received", dimensions: &["reason"], digest: false };
