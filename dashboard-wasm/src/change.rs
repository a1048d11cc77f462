//! What a figure is, compared with that of the period before.

/// A comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Up, down or neither.
    pub direction: Direction,
    /// For the eye: `▲ 12%`.
    pub text: String,
    /// For the ear: `up 12 percent`.
    pub spoken: String,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// More than before.
    Up,
    /// Less than before.
    Down,
    /// As before, to the percent.
    Level,
}

/// Compares; without anything before there is nothing to compare with.
pub fn change(now: f64, before: f64) -> Option<Change> {
    if before <= 0.0 {
        return None;
    }
    let percent = (100.0 * (now - before) / before).round();
    let (direction, sign, word) = match percent {
        p if p > 0.0 => (Direction::Up, "▲", "up"),
        p if p < 0.0 => (Direction::Down, "▼", "down"),
        _ => return Some(Change { direction: Direction::Level, text: "= 0%".into(), spoken: "as before".into() }),
    };
    Some(if percent < 1_000.0 {
        let percent = percent.abs();
        Change { direction, text: format!("{sign} {percent}%"), spoken: format!("{word} {percent} percent") }
    } else {
        // Nobody reads 4,300 % as 44 times as many.
        let times = crate::format::count(now / before);
        Change { direction, text: format!("{sign} {times}×"), spoken: format!("{times} times as many") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes() {
        for (now, before, expected) in [
            (112.0, 100.0, Some("▲ 12%")),
            (97.0, 100.0, Some("▼ 3%")),
            (0.0, 5.0, Some("▼ 100%")),
            (100.2, 100.0, Some("= 0%")),
            (4_400.0, 100.0, Some("▲ 44×")),
            (5.0, 0.0, None),
        ] {
            assert_eq!(change(now, before).map(|change| change.text).as_deref(), expected);
        }
    }
}
