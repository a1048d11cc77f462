//! A filter: which events a question is about.
//!
//! As text, for a query string and wherever a filter is a string:
//!
//! ```text
//! filter     = dimension ":" value                         the value is all that follows, as it stands
//!            / expression
//! expression = all *( "or" all )
//! all        = term *( "and" term )
//! term       = "not" term / "(" expression ")" / condition
//! condition  = name ( "=" / "!=" / "^" ) text               "^": the value begins with the text
//!            / name [ "not" ] "in" "(" text *( "," text ) ")"
//! name, text = a quoted or a bare word
//! ```
//!
//! A quoted word stands between `"`, with `\"` and `\\` for these two; a bare one ends at white space, a parenthesis, a comma or a
//! quote, a bare name also at an operator. Words of the grammar are written in lower or upper case.
//!
//! As JSON: `{"and":[…]}`, `{"or":[…]}`, `{"not":…}`, or a `dimension` with one of `is`, `is_not`, `in` and `prefix`; or the text.
//!
//! There are two truth values for an event: one without the dimension equals nothing and begins with nothing, so `not` always is the
//! complement. Of a cell there is a third: one whose value was folded into [`OTHER`] may or may not be of a value that is asked for.

use std::ops::Not;

use catchment_cells::key::is_name;
use catchment_cells::limits::VALUE_BYTES_MAX;
use catchment_cells::row::OTHER;
use serde_json::Value;

use crate::limits::{FILTER_DEPTH_MAX, FILTER_VALUES_MAX};

/// Which cells are let in, by the values of dimensions: by name, or by place among a cube's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter<D = Box<str>> {
    /// What a dimension's value must be.
    Is(D, Test),
    /// All of these.
    All(Vec<Filter<D>>),
    /// Any of these.
    Any(Vec<Filter<D>>),
    /// Not this.
    Not(Box<Filter<D>>),
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// One of these, which ascend.
    In(Vec<Box<str>>),
    /// One that begins so.
    Prefix(Box<str>),
}

/// Whether a cell's events pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// None does.
    No,
    /// Nobody knows any more: a value that matters was folded.
    Maybe,
    /// All do.
    Yes,
}

/// How many values a question's filters may still have.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Budget(FILTER_VALUES_MAX)
    }
}

impl Not for Truth {
    type Output = Truth;

    fn not(self) -> Truth {
        match self {
            Truth::No => Truth::Yes,
            Truth::Maybe => Truth::Maybe,
            Truth::Yes => Truth::No,
        }
    }
}

impl Filter {
    /// Reads a text.
    pub(crate) fn parse(text: &str, budget: &mut Budget) -> Result<Filter, String> {
        if let Some((dimension, value)) = text.split_once(':')
            && is_name(dimension)
            && dimension.chars().all(is_bare_in_name)
        {
            return Ok(Filter::Is(dimension.into(), Test::In(vec![budget.value(value)?])));
        }
        let mut parser = Parser { text, at: 0, budget, depth: 0 };
        let filter = parser.any()?;
        if parser.at < text.len() {
            return parser.expected("and, or, or the end");
        }
        Ok(filter)
    }

    /// Reads JSON.
    pub(crate) fn from_json(json: &Value, budget: &mut Budget) -> Result<Filter, String> {
        Filter::nested(json, budget, FILTER_DEPTH_MAX)
    }

    fn nested(json: &Value, budget: &mut Budget, depth_left: usize) -> Result<Filter, String> {
        const SHAPE: &str =
            "it is a text, or an object with and, or, not, or a dimension and one of is, is_not, in, prefix";
        let fields = match json {
            Value::String(text) => return Filter::parse(text, budget),
            Value::Object(fields) => fields,
            _ => return Err(SHAPE.into()),
        };
        let depth_left = depth_left.checked_sub(1).ok_or_else(too_deep)?;
        let fields: Vec<(&str, &Value)> = fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let mut several = |filters: &[Value]| -> Result<Vec<Filter>, String> {
            if filters.is_empty() {
                return Err("and and or have at least one filter".into());
            }
            filters.iter().map(|filter| Filter::nested(filter, budget, depth_left)).collect()
        };
        let (dimension, (test, value)) = match fields[..] {
            [("and", Value::Array(filters))] => return Ok(Filter::All(several(filters)?)),
            [("or", Value::Array(filters))] => return Ok(Filter::Any(several(filters)?)),
            [("not", filter)] => return Ok(!Filter::nested(filter, budget, depth_left)?),
            [("dimension", Value::String(dimension)), test] | [test, ("dimension", Value::String(dimension))] => {
                (dimension, test)
            }
            _ => return Err(SHAPE.into()),
        };
        if !is_name(dimension) {
            return Err(NO_DIMENSION.into());
        }
        let is = |test| Filter::Is(dimension.as_str().into(), test);
        match (test, value) {
            ("is", Value::String(value)) => Ok(is(Test::In(vec![budget.value(value)?]))),
            ("is_not", Value::String(value)) => Ok(!is(Test::In(vec![budget.value(value)?]))),
            ("prefix", Value::String(value)) => Ok(is(Test::Prefix(budget.value(value)?))),
            ("in", Value::Array(values)) if !values.is_empty() => {
                let value = |value: &Value| match value {
                    Value::String(value) => budget.value(value),
                    _ => Err("values are texts".into()),
                };
                Ok(is(Test::one_of(values.iter().map(value).collect::<Result<_, _>>()?)))
            }
            _ => Err(SHAPE.into()),
        }
    }
}

impl<D> Filter<D> {
    /// Whether a cell passes of which this says whether its value of a dimension is what a test asks for.
    pub fn of(&self, is: &impl Fn(&D, &Test) -> Truth) -> Truth {
        match self {
            Filter::Is(dimension, test) => is(dimension, test),
            Filter::All(filters) => filters.iter().map(|filter| filter.of(is)).min().unwrap_or(Truth::Yes),
            Filter::Any(filters) => filters.iter().map(|filter| filter.of(is)).max().unwrap_or(Truth::No),
            Filter::Not(filter) => !filter.of(is),
        }
    }

    /// The dimensions that it is about; some may come several times.
    pub fn dimensions(&self) -> Vec<&D> {
        match self {
            Filter::Is(dimension, _) => vec![dimension],
            Filter::All(filters) | Filter::Any(filters) => filters.iter().flat_map(Filter::dimensions).collect(),
            Filter::Not(filter) => filter.dimensions(),
        }
    }

    /// The same, of dimensions that are named in another way; `None` where one has no such name.
    pub fn named<E>(&self, name: &impl Fn(&D) -> Option<E>) -> Option<Filter<E>> {
        let all = |filters: &[Filter<D>]| filters.iter().map(|filter| filter.named(name)).collect::<Option<_>>();
        Some(match self {
            Filter::Is(dimension, test) => Filter::Is(name(dimension)?, test.clone()),
            Filter::All(filters) => Filter::All(all(filters)?),
            Filter::Any(filters) => Filter::Any(all(filters)?),
            Filter::Not(filter) => !filter.named(name)?,
        })
    }
}

impl<D> Not for Filter<D> {
    type Output = Filter<D>;

    fn not(self) -> Filter<D> {
        Filter::Not(Box::new(self))
    }
}

impl Test {
    fn one_of(mut values: Vec<Box<str>>) -> Test {
        values.sort_unstable();
        values.dedup();
        Test::In(values)
    }

    /// Whether a cell's value is one. What a value was folded into is itself when it is asked for by name.
    pub fn of(&self, value: Option<&str>) -> Truth {
        let Some(value) = value else { return Truth::No };
        let is_one = match self {
            Test::In(values) => values.binary_search_by(|one| (**one).cmp(value)).is_ok(),
            Test::Prefix(prefix) => prefix.is_empty() || (value != OTHER && value.starts_with(&**prefix)),
        };
        match is_one {
            true => Truth::Yes,
            false if value == OTHER => Truth::Maybe,
            false => Truth::No,
        }
    }
}

impl Budget {
    fn value(&mut self, text: &str) -> Result<Box<str>, String> {
        self.0 = self.0.checked_sub(1).ok_or_else(too_many)?;
        if text.len() > VALUE_BYTES_MAX {
            return Err(format!("no value has more than {VALUE_BYTES_MAX} bytes"));
        }
        Ok(text.into())
    }
}

const NO_DIMENSION: &str = "it names no dimension";

fn too_many() -> String {
    format!(
        "it has more than {FILTER_VALUES_MAX} values: ask for a prefix, for the complement with not, or for a dimension that tells \
         these values from the others"
    )
}

fn too_deep() -> String {
    format!("it is nested more than {FILTER_DEPTH_MAX} deep")
}

fn is_bare(char: char) -> bool {
    !char.is_whitespace() && !"(),\"".contains(char)
}

fn is_bare_in_name(char: char) -> bool {
    is_bare(char) && !"=!^".contains(char)
}

/// Reads an expression, from a byte on.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    budget: &'a mut Budget,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Filter, String> {
        self.list("or", Parser::all, Filter::Any)
    }

    fn all(&mut self) -> Result<Filter, String> {
        self.list("and", Parser::term, Filter::All)
    }

    fn list(
        &mut self,
        between: &str,
        item: fn(&mut Self) -> Result<Filter, String>,
        list: fn(Vec<Filter>) -> Filter,
    ) -> Result<Filter, String> {
        let first = item(self)?;
        if !self.takes_word(between) {
            return Ok(first);
        }
        let mut filters = vec![first, item(self)?];
        while self.takes_word(between) {
            filters.push(item(self)?);
        }
        Ok(list(filters))
    }

    fn term(&mut self) -> Result<Filter, String> {
        if self.takes_word("not") {
            return Ok(!self.nested(Parser::term)?);
        }
        if !self.takes("(") {
            return self.condition();
        }
        let filter = self.nested(Parser::any)?;
        if self.takes(")") { Ok(filter) } else { self.expected("and, or, or )") }
    }

    fn nested(&mut self, filter: fn(&mut Self) -> Result<Filter, String>) -> Result<Filter, String> {
        self.depth += 1;
        if self.depth > FILTER_DEPTH_MAX {
            return Err(too_deep());
        }
        let filter = filter(self)?;
        self.depth -= 1;
        Ok(filter)
    }

    fn condition(&mut self) -> Result<Filter, String> {
        let Some(name) = self.word(is_bare_in_name)?.filter(|name| is_name(name)) else {
            return self.expected("a dimension, as in country=US");
        };
        let is = |test| Filter::Is(name.into(), test);
        if self.takes("!=") {
            Ok(!is(Test::In(vec![self.value()?])))
        } else if self.takes("=") {
            Ok(is(Test::In(vec![self.value()?])))
        } else if self.takes("^") {
            Ok(is(Test::Prefix(self.value()?)))
        } else if self.takes_word("in") {
            Ok(is(self.values()?))
        } else if self.takes_word("not") && self.takes_word("in") {
            Ok(!is(self.values()?))
        } else {
            self.expected("=, !=, ^ (begins with), in or not in")
        }
    }

    fn values(&mut self) -> Result<Test, String> {
        if !self.takes("(") {
            return self.expected("( and values");
        }
        let mut values = vec![self.value()?];
        while self.takes(",") {
            values.push(self.value()?);
        }
        if !self.takes(")") {
            return self.expected(", or )");
        }
        Ok(Test::one_of(values))
    }

    fn value(&mut self) -> Result<Box<str>, String> {
        match self.word(is_bare)? {
            Some(word) => self.budget.value(&word),
            None => self.expected("a value, in quotes where it has spaces, parentheses or commas"),
        }
    }

    /// A quoted or a bare word; `None` if there is neither.
    fn word(&mut self, is_in: fn(char) -> bool) -> Result<Option<String>, String> {
        if !self.takes("\"") {
            let rest = self.rest();
            let end = rest.find(|char| !is_in(char)).unwrap_or(rest.len());
            self.at += end;
            return Ok((end > 0).then(|| rest[..end].to_owned()));
        }
        let mut word = String::new();
        let mut chars = self.text[self.at..].chars();
        loop {
            let char = match chars.next() {
                Some('"') => break,
                Some('\\') => chars.next().filter(|char| "\"\\".contains(*char)),
                char => char,
            };
            match char {
                Some(char) => word.push(char),
                None => return Err("a quote doesn't end: \\\" is a quote in it and \\\\ a backslash".into()),
            }
        }
        self.at = self.text.len() - chars.as_str().len();
        Ok(Some(word))
    }

    /// What is left, from its first character on that isn't white space.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        &self.text[self.at..]
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let is_there = self.rest().starts_with(symbol);
        self.at += if is_there { symbol.len() } else { 0 };
        is_there
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let rest = self.rest();
        let end = rest.find(|char| !is_bare_in_name(char)).unwrap_or(rest.len());
        let is_there = rest[..end].eq_ignore_ascii_case(word);
        self.at += if is_there { end } else { 0 };
        is_there
    }

    fn expected<T>(&mut self, what: &str) -> Result<T, String> {
        let rest: String = self.rest().chars().take(20).collect();
        let place = if rest.is_empty() { "at its end".into() } else { format!("at {rest:?}") };
        Err(format!("{place} it should have {what}"))
    }
}

#[cfg(test)]
mod tests;
