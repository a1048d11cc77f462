//! What is looked at, as the address has it: `#range=7d&open=pages`. Never the key, but for `#key=…`, which signs in and is
//! taken out of the address at once.

use crate::panel::Panel;
use crate::range::Range;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// The range.
    pub range: Range,
    /// The panel that is shown large.
    pub open: Option<Panel>,
}

impl Link {
    /// Reads an address's fragment, with or without `#`, and the key if it has one. What isn't understood is passed over: links outlive versions.
    pub fn parse(fragment: &str) -> (Link, Option<String>) {
        let (mut link, mut key) = (Link::default(), None);
        for (name, value) in fragment.trim_start_matches('#').split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "range" => link.range = Range::parse(value).unwrap_or_default(),
                "open" => link.open = Panel::parse(value).filter(|panel| panel.opens()),
                "key" if !value.is_empty() => key = Some(value.to_owned()),
                _ => {}
            }
        }
        (link, key)
    }

    /// Writes the fragment.
    pub fn fragment(&self) -> String {
        let open = self.open.map(|panel| format!("&open={}", panel.name())).unwrap_or_default();
        format!("#range={}{open}", self.range.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_come_back() {
        for range in Range::FIXED {
            for open in [None, Some(Panel::Pages), Some(Panel::Products)] {
                let link = Link { range, open };
                assert_eq!(Link::parse(&link.fragment()), (link, None));
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        assert_eq!(Link::parse(""), (Link::default(), None));
        assert_eq!(Link::parse("#range=9y&open=active&x&y=z"), (Link::default(), None));
    }

    #[test]
    fn a_key_is_read_and_never_written() {
        let (link, key) = Link::parse("#key=rk_shop_1_abc&range=7d");
        assert_eq!(key.as_deref(), Some("rk_shop_1_abc"));
        assert_eq!(link.fragment(), "#range=7d");
    }
}
