//! Page views from a seed: the same seed always gives the same bytes.

use std::ops::Range;

/// Pages, of which the k-th is visited 1/k as often as the first.
pub(crate) const PAGES: usize = 10_000;
/// Users, each as likely as another.
const USERS: u64 = 1_000_000;
/// Countries, each as likely as another.
const COUNTRIES: u64 = 200;
/// A day; events of the whole are spread evenly over one, or several.
pub const DAY_MS: u64 = 86_400_000;
/// 1 June 2024, 00:00 UTC.
pub const START_MS: u64 = 1_717_200_000_000;
/// Digits of an id, and of a time: fixed, so that they can be written over in place.
const ID_DIGITS: usize = 16;
const TIME_DIGITS: usize = 13;

/// Page views in the order of their times.
///
/// A line: `{"event_id":"<16 hex>","event_type":"page_view","timestamp":<ms>,"user_id":"u<n>","page":"/p/<n>","country":"<AA>",
/// "properties":{"duration_ms":<n>}}`, as the browser SDK names its fields.
#[derive(Debug, Clone)]
pub struct Events {
    state: u64,
    n: u64,
    total: u64,
    span_ms: u64,
    /// By page, the share of views of it and all more popular ones, of 2⁵³.
    pages: Vec<u64>,
}

/// NDJSON whose ids and times can be written over.
#[derive(Debug, Clone)]
pub struct Body {
    bytes: Vec<u8>,
    places: Vec<Places>,
}

/// Where id and time of one line stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) id: Range<usize>,
    pub(crate) time: Range<usize>,
}

impl Events {
    /// `total` events of one day.
    pub fn new(seed: u64, total: u64) -> Events {
        Events::over(seed, total, 1)
    }

    /// `total` events of so many days.
    pub fn over(seed: u64, total: u64, days: u64) -> Events {
        let weights = (1..=PAGES).map(|rank| 1.0 / rank as f64);
        let sum: f64 = weights.clone().sum();
        let mut so_far = 0.0;
        let pages = weights
            .map(|weight| {
                so_far += weight;
                (so_far / sum * (1u64 << 53) as f64) as u64
            })
            .collect();
        Events { state: seed, n: 0, total: total.max(1), span_ms: days * DAY_MS, pages }
    }

    /// Writes the next event and a newline; `None` after the last.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>) -> Option<Places> {
        if self.n >= self.total {
            return None;
        }
        let time = self.next_ms();
        let (user, country) = (self.below(USERS), self.below(COUNTRIES));
        let at = self.bits() >> 11;
        let page = self.pages.partition_point(|&share| share <= at).min(PAGES - 1);
        // The product of two is skewed, as times on a page are.
        let duration_ms = self.below(1_000) * self.below(300) + 1;
        out.extend_from_slice(b"{\"event_id\":\"");
        let id = out.len()..out.len() + ID_DIGITS;
        out.resize(id.end, b'0');
        put_hex(&mut out[id.clone()], self.n);
        out.extend_from_slice(b"\",\"event_type\":\"page_view\",\"timestamp\":");
        let place = out.len()..out.len() + TIME_DIGITS;
        out.resize(place.end, b'0');
        put_decimal(&mut out[place.clone()], time);
        let country = [b'A' + (country / 26) as u8, b'A' + (country % 26) as u8].map(char::from);
        let [a, b] = country;
        let rest = format!(
            ",\"user_id\":\"u{user}\",\"page\":\"/p/{page}\",\"country\":\"{a}{b}\",\"properties\":{{\"duration_ms\":{duration_ms}}}}}\n"
        );
        out.extend_from_slice(rest.as_bytes());
        self.n += 1;
        Some(Places { id, time: place })
    }

    /// The next `n` events, or as many as are left; `None` after the last.
    pub fn body(&mut self, n: usize) -> Option<Body> {
        self.body_before(u64::MAX, n)
    }

    /// The events before a time, in ms, or the next `n` of them; `None` where there are none.
    pub fn body_before(&mut self, time_ms: u64, n: usize) -> Option<Body> {
        let mut body = Body { bytes: Vec::new(), places: Vec::new() };
        while body.places.len() < n && self.next_ms() < time_ms {
            let Some(places) = self.put(&mut body.bytes) else { break };
            body.places.push(places);
        }
        (!body.places.is_empty()).then_some(body)
    }

    /// The time of the next event, in ms.
    fn next_ms(&self) -> u64 {
        START_MS + (u128::from(self.n) * u128::from(self.span_ms) / u128::from(self.total)) as u64
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }
}

impl Body {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Makes other events of it: ids from `first_id` on, all at one time, in ms.
    pub fn stamp(&mut self, first_id: u64, time_ms: u64) {
        for (id, places) in (first_id..).zip(&self.places) {
            put_hex(&mut self.bytes[places.id.clone()], id);
            put_decimal(&mut self.bytes[places.time.clone()], time_ms);
        }
    }
}

fn put_hex(digits: &mut [u8], mut n: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
}

fn put_decimal(digits: &mut [u8], mut n: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u64, total: u64) -> String {
        let (mut events, mut out) = (Events::new(seed, total), Vec::new());
        while events.put(&mut out).is_some() {}
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_seed_repeats_and_another_differs() {
        assert_eq!(text(1, 500), text(1, 500));
        assert_ne!(text(1, 500), text(2, 500));
        // Golden: whoever changes the workload can't compare with earlier figures.
        assert_eq!(text(1, 3).lines().next().unwrap(), GOLDEN);
    }

    const GOLDEN: &str = r#"{"event_id":"0000000000000000","event_type":"page_view","timestamp":1717200000000,"user_id":"u822465","page":"/p/7528","country":"EP","properties":{"duration_ms":61336}}"#;

    #[test]
    fn events_are_spread_over_the_day_and_the_pages() {
        let text = text(7, 20_000);
        assert_eq!(text.lines().count(), 20_000);
        let first = text.lines().filter(|line| line.contains("\"/p/0\"")).count() as f64;
        // The first page's share is 1 / H(10,000) = 10.2 %; three standard errors of 20,000 draws are 0.65 %.
        assert!((first / 20_000.0 - 0.1022).abs() < 0.0065, "{first}");
        assert!(text.lines().last().unwrap().contains("\"timestamp\":171728639"));
    }

    #[test]
    fn stamped_bodies_have_the_ids_and_times_they_are_given() {
        let mut body = Events::new(1, 5).body(3).unwrap();
        body.stamp(0xabc0, 1_800_000_000_123);
        let text = String::from_utf8(body.bytes().to_vec()).unwrap();
        for (line, id) in text.lines().zip(["000000000000abc0", "000000000000abc1", "000000000000abc2"]) {
            assert!(line.contains(id) && line.contains("\"timestamp\":1800000000123,"), "{line}");
        }
        assert_eq!(text.lines().count(), 3);
    }
}
