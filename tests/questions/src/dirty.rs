//! Events as nobody wishes for them, from a seed: text of all kinds, several spellings, numbers at the edges, ties, repeats, late
//! events, and some that must be rejected.

use std::fmt::Write;
use std::sync::LazyLock;

use catchment_cells::limits::VALUE_BYTES_MAX;
use catchment_harness::Random;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Users, of whom the k-th comes 1/k as often as the first.
const USERS: f64 = 1e6;
const PAGES: f64 = 3_000.0;
/// Of so many events, one repeats an earlier one's id, and one must be rejected.
const REPEATS: u64 = 40;
const REJECTED: u64 = 100;
const MINUTE_MS: i64 = 60_000;
/// Events of a live client are older than this, or have just happened: none is at the edge of being late.
const SURELY_LATE_MS: i64 = 10 * MINUTE_MS;

/// Text that meets whatever splits, trims, folds, escapes or names things.
static DIRT: LazyLock<Vec<String>> = LazyLock::new(|| {
    let short = [
        "(OTHER)",
        " lead",
        "trail ",
        " ",
        "it's",
        "say \"hi\"",
        "a:b:c",
        ":",
        "country:US",
        "x=1&y=2",
        "100%25",
        "a+b",
        "\\",
        "\\u0041",
        "tab\tbed",
        "line\nfeed",
        "NULL",
        "null",
        "0",
        "-0",
        "true",
        "a,b",
        "a|b",
        "a;b--",
        "[x]",
        "{y}",
        "*",
        "pre",
        "prefix",
        "prefix/a",
        "prefix/b",
        "É",
        "é",
        "e\u{301}",
        "ﬁ",
        "İ",
        "ß",
        "SS",
        "日本語",
        "عربى",
        "😀",
        "👩‍👩‍👧",
        "\u{200b}",
        "\u{feff}bom",
        "\u{1}",
        "\u{7f}",
        "\u{fffd}",
        "\u{10ffff}",
    ];
    let mut dirt: Vec<String> = short.map(str::to_owned).into();
    // As long as may be, the last two different in their last byte alone.
    dirt.push("ü".repeat(VALUE_BYTES_MAX / 2));
    dirt.extend(["x", "y"].map(|last| "l".repeat(VALUE_BYTES_MAX - 1) + last));
    dirt
});

/// What must become of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It counts.
    Counted {
        /// It was late.
        late: bool,
        /// One of its numbers is too large for a measure.
        out_of_range: bool,
    },
    /// Its id is an earlier one's.
    Repeated,
    /// It is rejected, for this reason.
    Rejected(&'static str),
}

/// An event.
pub(crate) struct Made {
    /// JSON.
    pub(crate) text: String,
    /// The number in its id.
    pub(crate) id: u64,
    /// What must become of it.
    pub(crate) fate: Fate,
}

/// Makes events.
pub(crate) struct Dirty {
    random: Random,
    from_ms: i64,
    to_ms: i64,
    /// Late events come to an end here, for a client whose events are live.
    now_ms: Option<i64>,
    ids: u64,
}

impl Dirty {
    /// Events of the past.
    pub(crate) fn of_days(seed: u64, from_ms: i64, days: i64) -> Dirty {
        Dirty { random: Random::new(seed), from_ms, to_ms: from_ms + days * 1_440 * MINUTE_MS, now_ms: None, ids: 0 }
    }

    /// Events of the last hours: most of them late, as from who was offline, and some of right now.
    pub(crate) fn live(seed: u64, now_ms: i64) -> Dirty {
        let to_ms = now_ms - SURELY_LATE_MS;
        Dirty { random: Random::new(seed), from_ms: to_ms - 20 * 60 * MINUTE_MS, to_ms, now_ms: Some(now_ms), ids: 0 }
    }

    /// It is later now.
    pub(crate) fn is_now(&mut self, now_ms: i64) {
        self.now_ms = self.now_ms.map(|_| now_ms);
    }

    /// The next event.
    pub(crate) fn next(&mut self) -> Made {
        if self.one_in(REJECTED) {
            return self.rejected();
        }
        let repeats = self.ids > 0 && self.one_in(REPEATS);
        let id = if repeats { self.below(self.ids) } else { self.ids };
        self.ids += u64::from(!repeats);
        let (time_ms, late) = self.time();
        let mut event = Object::new(self.one_in(5));
        event.put("event_id", json!(format!("e-{id}")));
        event.put("timestamp", self.timestamp(time_ms));
        let event_type = self.event_type();
        event.put("event_type", event_type);
        self.identify(&mut event);
        let mut bag = Object::new(event.camel);
        for (dimension, one_in) in [
            ("page", 1),
            ("country", 2),
            ("device", 2),
            ("plan", 3),
            ("category", 3),
            ("product", 4),
            ("referrer", 3),
            ("utm_source", 4),
            ("utm_campaign", 5),
        ] {
            if self.one_in(one_in) {
                let value = self.value(dimension);
                let into = if self.one_in(3) { &mut bag } else { &mut event };
                into.put(dimension, value);
            }
        }
        let out_of_range = self.measures(&mut bag);
        event.put(if self.one_in(4) { "metadata" } else { "properties" }, Value::Object(bag.fields));
        let fate = if repeats { Fate::Repeated } else { Fate::Counted { late, out_of_range } };
        Made { text: Value::Object(event.fields).to_string(), id, fate }
    }

    fn rejected(&mut self) -> Made {
        let time = json!(self.from_ms);
        let long = "l".repeat(VALUE_BYTES_MAX + 1);
        let (event, reason) = match self.below(6) {
            0 => (json!({"event_type": "buy", "timestamp": time}), "missing_event_id"),
            1 => (json!({"event_id": "r", "event_type": "", "timestamp": time}), "missing_event_type"),
            2 => (json!({"event_id": "r", "event_type": "buy"}), "missing_timestamp"),
            3 => (
                json!({"event_id": "r", "event_type": "buy", "timestamp": "2024-02-30T00:00:00Z"}),
                "invalid_timestamp",
            ),
            4 => (json!({"event_id": "r", "event_type": "buy", "timestamp": time, "page": long}), "field_too_long"),
            _ => (json!({"event_id": "r", "event_type": "buy", "timestamp": time, "page": ["/"]}), "wrong_type"),
        };
        Made { text: event.to_string(), id: 0, fate: Fate::Rejected(reason) }
    }

    /// A time, and whether it is late. Half of all are in a tenth of the minutes, so that there are ties and crowds.
    fn time(&mut self) -> (i64, bool) {
        if let Some(now_ms) = self.now_ms.filter(|_| self.random.bits().is_multiple_of(16)) {
            return (now_ms - self.below(20_000) as i64, false);
        }
        let span = (self.to_ms - self.from_ms) as u64;
        let at = if self.one_in(2) { self.below(span) } else { self.below(span / 10) * 10 / 9 + span / 20 };
        (self.from_ms + (at % span) as i64, self.now_ms.is_some())
    }

    /// The same instant in one of the ways to write it.
    fn timestamp(&mut self, ms: i64) -> Value {
        let time = Timestamp::from_millisecond(ms).unwrap_or_default();
        match self.below(4) {
            0 => json!(ms),
            1 => json!(ms / 1_000),
            2 => json!(time.to_string()),
            _ => {
                // Half past the hours of another clock.
                let there = time.saturating_add(jiff::SignedDuration::from_mins(330)).unwrap_or(time).to_string();
                json!(format!("{}+05:30", there.trim_end_matches('Z')))
            }
        }
    }

    fn event_type(&mut self) -> Value {
        match self.below(20) {
            0..11 => json!("page_view"),
            11..14 => json!("buy"),
            14 => json!("page_view "),
            15 => json!("a:b"),
            16 => json!("Page_View"),
            17 => json!("page_"),
            18 => json!(self.pick(&["error", "revenue"])),
            _ => json!(self.dirt()),
        }
    }

    /// Whom uniques count: the user, else the device, else the session, else the sender's day.
    fn identify(&mut self, event: &mut Object) {
        let person = self.skewed(USERS);
        let name = if self.one_in(50) { self.dirt().to_owned() } else { format!("u{person}") };
        match self.below(20) {
            0 => {}
            1 => event.put("session_id", json!(name)),
            2 => event.put("device_id", json!(name)),
            3 => {
                event.put("user_id", json!(""));
                event.put("device_id", json!(name));
            }
            4 => {
                event.put("user_id", json!(person));
                event.put("session_id", json!("ignored"));
            }
            _ => event.put("user_id", json!(name)),
        }
    }

    fn value(&mut self, dimension: &str) -> Value {
        match self.below(24) {
            0 => return json!(""),
            1 => return Value::Null,
            2 if dimension == "page" => return json!(self.below(3)),
            3 if dimension == "plan" => return json!(self.one_in(2)),
            // As what a limit leaves over is called: in one dimension, for nobody knows what such a value was before.
            4 if dimension == "referrer" => return json!("(other)"),
            4..8 => return json!(self.dirt()),
            _ => {}
        }
        let text = match dimension {
            "page" => format!("/p/{}", self.skewed(PAGES)),
            // Each as likely as another, so that many are tied.
            "country" => self.pick(&["US", "us", "DE", "Deutschland", "FR", "JP", "BR", "IN", "Côte d'Ivoire", "XX"]),
            "device" => self.pick(&["desktop", "mobile", "tablet", "TV"]),
            "plan" => self.pick(&["free", "pro", "pro ", "enterprise"]),
            "category" => format!("Home/{}/", self.skewed(40.0)),
            "product" => format!("sku-{:05}", self.skewed(2_000.0)),
            "referrer" => format!("Ref-{}.example", self.skewed(200.0)),
            "utm_source" => self.pick(&["google", "Google", "news letter", "t.co"]),
            _ => self.pick(&["spring", "summer", "été"]),
        };
        json!(text)
    }

    /// Adds numbers, and says whether one of them is no measure.
    fn measures(&mut self, bag: &mut Object) -> bool {
        let mut out_of_range = false;
        if self.one_in(2) {
            let cents = self.below(30_000) as i64 - 2_000;
            bag.put("revenue_EUR", json!(cents as f64 / 100.0));
        }
        if self.one_in(2) {
            // Halves of the least unit among them: these round to even.
            bag.put("tiny", json!((self.below(40_000) as f64 - 20_000.0) * 5e-8));
        }
        if self.one_in(2) {
            bag.put("ties", json!(self.below(4)));
        }
        if self.one_in(3) {
            let large = self.below(9_000_000_000_000) as f64 - 4.5e12;
            out_of_range = self.one_in(40);
            bag.put("large", json!(if out_of_range { large.signum() * 9.3e12 } else { large }));
        }
        if self.one_in(2) {
            // The product of two is skewed, as times on a page are.
            bag.put("Zeit auf Seite", json!(self.below(1_000) * self.below(300)));
        }
        if self.one_in(10) {
            bag.put("note", json!("no number"));
            bag.put("flag", json!(true));
            bag.put("list", json!([1, {"deep": 2}]));
        }
        out_of_range
    }

    fn dirt(&mut self) -> &'static str {
        &DIRT[self.below(DIRT.len() as u64) as usize]
    }

    fn pick(&mut self, among: &[&str]) -> String {
        among[self.below(among.len() as u64) as usize].into()
    }

    /// A number below `n` that comes 1/k as often as the first: the k-th.
    fn skewed(&mut self, n: f64) -> u64 {
        let unit = (self.random.bits() >> 11) as f64 / (1u64 << 53) as f64;
        n.powf(unit) as u64 - 1
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.between(0, n)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// An object's fields, in one of the two spellings.
struct Object {
    camel: bool,
    fields: serde_json::Map<String, Value>,
}

impl Object {
    fn new(camel: bool) -> Object {
        Object { camel, fields: serde_json::Map::new() }
    }

    fn put(&mut self, name: &str, value: Value) {
        let mut spelled = String::with_capacity(name.len());
        let mut words = name.split('_');
        if self.camel && !name.contains(' ') {
            spelled.push_str(words.next().unwrap_or_default());
            for word in words {
                let (first, rest) = word.split_at(1);
                let _ = write!(spelled, "{}{rest}", first.to_ascii_uppercase());
            }
        } else {
            spelled.push_str(name);
        }
        self.fields.insert(spelled, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use catchment_harness::Event;

    use super::*;

    #[test]
    fn a_seed_repeats_and_fates_are_those_of_the_events() {
        let of = |seed| {
            let mut dirty = Dirty::of_days(seed, 1_708_000_000_000, 30);
            (0..4_000).map(|_| dirty.next()).collect::<Vec<_>>()
        };
        let (made, again) = (of(1), of(1));
        assert!(made.iter().zip(&again).all(|(a, b)| a.text == b.text));
        assert_ne!(made[0].text, of(2)[0].text);
        let mut ids = HashSet::new();
        let mut seen = HashSet::new();
        for made in made {
            let event = Event::read(made.text.as_bytes());
            match made.fate {
                Fate::Rejected(reason) => _ = seen.insert(reason),
                Fate::Repeated => assert!(!ids.insert(event.unwrap().id)),
                Fate::Counted { late, out_of_range } => {
                    let event = event.unwrap();
                    assert!(ids.insert(event.id) && !late);
                    assert_eq!(out_of_range, event.measures.iter().any(|(_, value)| value.abs() > 9.2e12));
                    seen.insert(if event.user.starts_with("day:") { "nobody" } else { "somebody" });
                }
            }
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
    }

    #[test]
    fn live_events_are_late_or_of_now() {
        let now = 1_708_000_000_000;
        let mut dirty = Dirty::live(1, now);
        for _ in 0..1_000 {
            let made = dirty.next();
            if let Fate::Counted { late, .. } = made.fate {
                let age_ms = now - Event::read(made.text.as_bytes()).unwrap().time_ms;
                assert!(if late { (SURELY_LATE_MS..24 * 60 * MINUTE_MS).contains(&age_ms) } else { age_ms < 21_000 });
            }
        }
    }
}
