//! Dead letters as they are read back: which of them, in which order.

use std::fmt;
use std::str::FromStr;

use catchment_cells::frame::DeadLetter;
use catchment_cells::key::is_name;
use catchment_cells::limits::{NAME_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_EVENTS_MAX};

use crate::question::QuestionError;

/// Letters of a page, unless it says how many.
const LIMIT_DEFAULT: usize = 100;

/// A letter of a client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    /// The log position of the frame that it came with.
    pub position: u64,
    /// Its place among the client's in that frame, from 0.
    pub n: u32,
}

/// Which comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What came first.
    Oldest,
    /// What came last.
    Newest,
}

/// Which letters are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letters {
    /// The reason that they have, if only those.
    pub reason: Option<String>,
    /// Their order.
    pub order: Order,
    /// Those after this one.
    pub after: Option<LetterId>,
    /// How many at most.
    pub limit: usize,
}

/// The letters that a page takes, of those that are visited one by one.
#[derive(Debug)]
pub struct Page<'a> {
    asked: &'a Letters,
    bytes: usize,
    has_more: bool,
    /// What is in it.
    pub letters: Vec<(LetterId, DeadLetter)>,
}

impl LetterId {
    /// Before all.
    pub const FIRST: LetterId = LetterId { position: 0, n: 0 };
    /// After all.
    pub const LAST: LetterId = LetterId { position: u64::MAX, n: u32::MAX };
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.position, self.n)
    }
}

impl FromStr for LetterId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (position, n) = text.split_once('-').ok_or(())?;
        Ok(LetterId { position: position.parse().map_err(drop)?, n: n.parse().map_err(drop)? })
    }
}

impl Letters {
    /// The query string for what comes after a letter.
    pub fn query_after(&self, after: LetterId) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.reason.iter().map(|reason| ("reason", reason)));
        query.append_pair("order", if self.order == Order::Oldest { "oldest" } else { "newest" });
        query.append_pair("limit", &self.limit.to_string());
        query.append_pair("after", &after.to_string());
        query.finish()
    }

    /// Reads the parameters of a query string.
    pub fn parse(parameters: &[(String, String)]) -> Result<Letters, QuestionError> {
        let (mut reason, mut order, mut after, mut limit) = (None, None, None, None);
        for (name, value) in parameters {
            let once = match &**name {
                "reason" => &mut reason,
                "order" => &mut order,
                "after" => &mut after,
                "limit" => &mut limit,
                _ => return wrong(name, "there is no such parameter"),
            };
            if once.replace(&**value).is_some() {
                return wrong(name, "it is given twice");
            }
        }
        let limit = limit.map_or(Some(LIMIT_DEFAULT), |text| text.parse().ok());
        Ok(Letters {
            reason: match reason {
                Some(reason) if !is_name(reason) => return wrong("reason", "it is a reason's name, as in too_late"),
                reason => reason.map(str::to_owned),
            },
            order: match order {
                None | Some("newest") => Order::Newest,
                Some("oldest") => Order::Oldest,
                Some(_) => return wrong("order", "it is newest or oldest"),
            },
            after: match after.map(str::parse) {
                Some(Err(())) => return wrong("after", "it is the id of a dead letter"),
                after => after.and_then(Result::ok),
            },
            limit: match limit {
                Some(limit) if (1..=REQUEST_EVENTS_MAX).contains(&limit) => limit,
                _ => return wrong("limit", &format!("it is a number from 1 to {REQUEST_EVENTS_MAX}")),
            },
        })
    }
}

impl Page<'_> {
    /// A page of what is asked for: so much that all of it can be sent to an edge in one request.
    pub fn new(asked: &Letters) -> Page<'_> {
        Page { asked, bytes: 0, has_more: false, letters: Vec::new() }
    }

    /// What the page after this one comes after, if there is one.
    pub fn next(&self) -> Option<LetterId> {
        self.letters.last().filter(|_| self.has_more).map(|(id, _)| *id)
    }

    /// Looks at the next letter in the order, and says whether to go on.
    pub fn visit(&mut self, id: LetterId, letter: DeadLetter) -> bool {
        if self.asked.reason.as_ref().is_some_and(|reason| **reason != *letter.reason) {
            return true;
        }
        // And a line's end.
        let bytes = self.bytes + letter.event.len() + 1;
        self.has_more = self.letters.len() == self.asked.limit || bytes > REQUEST_BYTES_MAX;
        if self.has_more {
            return false;
        }
        self.bytes = bytes;
        self.letters.push((id, letter));
        true
    }
}

fn wrong<T>(parameter: &str, problem: &str) -> Result<T, QuestionError> {
    let parameter = parameter.chars().take(NAME_BYTES_MAX).collect();
    Err(QuestionError { parameter, problem: problem.into() })
}

#[cfg(test)]
mod tests {
    use catchment_cells::limits::DEAD_LETTER_BYTES_MAX;

    use super::*;
    use crate::question::parameters;

    fn parse(query: &str) -> Result<Letters, QuestionError> {
        Letters::parse(&parameters(query))
    }

    #[test]
    fn parameters_are_read_or_named() {
        let asked = parse("reason=too_late&order=oldest&after=12-3&limit=5").unwrap();
        assert_eq!((asked.order, asked.after, asked.limit), (Order::Oldest, Some(LetterId { position: 12, n: 3 }), 5));
        let after = LetterId { position: 13, n: 0 };
        let next = Letters { after: Some(after), ..asked.clone() };
        assert_eq!(parse(&asked.query_after(after)), Ok(next));
        let all = Letters { reason: None, order: Order::Newest, after: None, limit: LIMIT_DEFAULT };
        assert_eq!(parse(""), Ok(all));
        for (query, parameter) in [
            ("colour=red", "colour"),
            ("limit=5&limit=6", "limit"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("order=up", "order"),
            ("after=12", "after"),
            ("after=12-4294967296", "after"),
            ("reason=", "reason"),
        ] {
            assert_eq!(parse(query).map_err(|error| error.parameter), Err(parameter.to_owned()), "{query}");
        }
    }

    #[test]
    fn a_page_ends_at_its_limit_and_at_what_an_edge_takes() {
        let letter =
            |reason: &str, bytes| DeadLetter { received_at: 0, reason: reason.into(), event: "x".repeat(bytes).into() };
        let id = |n| LetterId { position: 1, n };
        let fill = |query: &str, bytes| {
            let asked = parse(query).unwrap();
            let mut page = Page::new(&asked);
            let visited = (0..2_000)
                .take_while(|&n| page.visit(id(n), letter(["late", "future"][n as usize % 2], bytes)))
                .count();
            (visited, page.letters.len(), page.next().is_some())
        };
        assert_eq!(fill("limit=7", 10), (7, 7, true));
        assert_eq!(fill("limit=7&reason=future", 10), (15, 7, true));
        assert_eq!(fill("limit=1000&reason=none", 10), (2_000, 0, false));
        assert_eq!(fill("limit=1000", DEAD_LETTER_BYTES_MAX), (61, 61, true));
    }
}
