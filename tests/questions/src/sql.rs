//! The same in SQL: events as a table, a question as a query.

use std::collections::BTreeMap;

use catchment_cells::cube;

use crate::asked::{Asked, DAY, Facts, Filter, Granularity, Metric, Stat, Unit, month};

/// The group of what a limit leaves over.
pub(crate) const OTHER: &str = "(other)";

/// Between the values of several dimensions.
const BETWEEN: &str = "\u{1}";

/// A text.
pub(crate) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name.
pub(crate) fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The column of a measure, in millionths.
fn measure(measure: &str) -> String {
    name(&format!("measure {measure}"))
}

/// What the edge finds out where an event doesn't say it: DuckDB doesn't know.
const FOUND_OUT: [&str; 5] = ["bot", "browser", "channel", "os", "source"];

/// The dimensions of default cubes that events say themselves.
pub(crate) fn dimensions() -> Vec<&'static str> {
    let mut dimensions: Vec<&str> = cube::DEFAULT.iter().flat_map(|cube| cube.dimensions).copied().collect();
    dimensions.retain(|dimension| !FOUND_OUT.contains(dimension));
    dimensions.sort_unstable();
    dimensions.dedup();
    dimensions
}

/// How a field may be written.
fn spellings(field: &str) -> Vec<String> {
    let names: &[&str] = match field {
        "page" => &["page", "page_id", "pageId"],
        "product" => &["product", "product_id", "productId"],
        "device_id" => &["device_id", "deviceId", "anonymous_id", "anonymousId"],
        _ => {
            let mut words = field.split('_');
            let first = words.next().unwrap_or_default().to_owned();
            let camel = words.fold(first, |camel, word| camel + &word[..1].to_ascii_uppercase() + &word[1..]);
            return if camel == field { vec![camel] } else { vec![field.into(), camel] };
        }
    };
    names.iter().map(|&name| name.into()).collect()
}

/// Makes a table of a file of NDJSON whose lines are events that count, but that an event_id counts with its first line alone:
/// `minute`, the dimensions, `person`, and the measures in millionths, rounded half to even.
pub(crate) fn load(table: &str, file: &str, measures: &[String]) -> String {
    let fixed = ["event_id", "event_type", "timestamp"];
    let lifted: Vec<&str> = ["user_id", "device_id", "session_id"]
        .into_iter()
        .chain(dimensions().into_iter().filter(|dimension| *dimension != "event_type"))
        .collect();
    let columns = |fields: &[&str]| -> Vec<String> {
        let spelled = fields.iter().flat_map(|field| spellings(field));
        spelled.map(|spelling| name(&spelling)).collect()
    };
    let mut bag: Vec<String> = columns(&lifted).into_iter().map(|column| format!("{column} VARCHAR")).collect();
    bag.extend(measures.iter().map(|measure| format!("{} JSON", name(measure))));
    let bag = text(&format!("STRUCT({})", bag.join(", ")));
    let all: Vec<String> = columns(&fixed).into_iter().chain(columns(&lifted)).collect();
    let mut read: Vec<String> = all.iter().map(|column| format!("{column}: 'VARCHAR'")).collect();
    read.extend(["properties", "metadata"].map(|name| format!("{name}: {bag}")));

    let field = |field: &str| {
        let direct = spellings(field).into_iter().map(|spelling| format!("nullif({}, '')", name(&spelling)));
        let bags = ["properties", "metadata"].into_iter().filter(|_| lifted.contains(&field));
        let within = bags.flat_map(|bag| {
            spellings(field).into_iter().map(move |spelling| format!("nullif({bag}.{}, '')", name(&spelling)))
        });
        format!("coalesce({}, NULL)", direct.chain(within).collect::<Vec<_>>().join(", "))
    };
    let mut select = vec![
        format!("{} AS event_id", field("event_id")),
        // A number is in ms or, if that would be long ago, in seconds.
        "CASE WHEN try_cast(\"timestamp\" AS DOUBLE) IS NULL THEN epoch_ms(CAST(\"timestamp\" AS TIMESTAMPTZ)) \
         ELSE CAST(trunc(CAST(\"timestamp\" AS DOUBLE) * CASE WHEN abs(CAST(\"timestamp\" AS DOUBLE)) < 1e11 THEN 1000 ELSE 1 END) \
         AS BIGINT) END // 60000 AS minute"
            .into(),
        format!(
            "coalesce('u' || {}, 'd' || {}, 's' || {}, 'v' || (minute // {DAY})) AS person",
            field("user_id"),
            field("device_id"),
            field("session_id")
        ),
    ];
    select.extend(dimensions().into_iter().map(|dimension| format!("{} AS {}", field(dimension), name(dimension))));
    for of in measures {
        let number = |bag: &str| {
            let json = format!("{bag}.{}", name(of));
            format!("CASE WHEN json_type({json}) IN ('BIGINT', 'UBIGINT', 'DOUBLE') THEN CAST({json} AS DOUBLE) END")
        };
        let value = format!("round_even(coalesce({}, {}) * 1e6, 0)", number("properties"), number("metadata"));
        let fits = format!("abs({value}) < 9223372036854775808");
        select.push(format!("CASE WHEN {fits} THEN CAST({value} AS BIGINT) END AS {}", measure(of)));
    }
    format!(
        "CREATE TABLE {} AS SELECT * EXCLUDE (event_id, line) FROM \
         (SELECT {}, row_number() OVER () AS line FROM read_ndjson({}, columns = {{{}}}, maximum_object_size = 2000000)) \
         QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY line) = 1",
        name(table),
        select.join(", "),
        text(file),
        read.join(", "),
    )
}

/// Makes a table of what was received, by reason: a row for each.
pub(crate) fn received(table: &str, received: &BTreeMap<&str, u64>) -> String {
    let counts: Vec<String> = received.iter().map(|(reason, n)| format!("({}, {n})", text(reason))).collect();
    format!(
        "CREATE TABLE {} AS SELECT reason, 0 AS minute FROM (VALUES {}) r(reason, n), range(n)",
        name(table),
        counts.join(", ")
    )
}

/// The minutes that a table's events lie in, and how many these are.
pub(crate) fn extent(table: &str) -> String {
    format!("SELECT min(minute), max(minute) + 1, count(*) FROM {}", name(table))
}

/// Values of a dimension: the most frequent ones, and rare ones.
pub(crate) fn values(table: &str, dimension: &str) -> String {
    let (table, dimension) = (name(table), name(dimension));
    let counted =
        format!("SELECT {dimension} AS value, count(*) AS n FROM {table} WHERE {dimension} IS NOT NULL GROUP BY value");
    format!(
        "WITH counted AS ({counted}) SELECT value FROM counted \
         QUALIFY row_number() OVER (ORDER BY n DESC, value) <= 30 OR row_number() OVER (ORDER BY n, value) <= 10 ORDER BY n DESC, value"
    )
}

/// Whether an event is asked about: never NULL.
fn filter(asked: &Filter) -> String {
    let joined = |filters: &[Filter], word: &str| filters.iter().map(filter).collect::<Vec<_>>().join(word);
    match asked {
        Filter::Plain(dimension, value) | Filter::Is(dimension, value) => {
            format!("{} IS NOT DISTINCT FROM {}", name(dimension), text(value))
        }
        Filter::In(dimension, values) => {
            let values: Vec<String> = values.iter().map(|value| text(value)).collect();
            format!("coalesce({} IN ({}), false)", name(dimension), values.join(", "))
        }
        Filter::Prefix(dimension, value) => {
            format!("coalesce(starts_with({}, {}), false)", name(dimension), text(value))
        }
        Filter::Not(filtered) => format!("(NOT {})", filter(filtered)),
        Filter::All(filters) => format!("({})", joined(filters, " AND ")),
        Filter::Any(filters) => format!("({})", joined(filters, " OR ")),
    }
}

/// Columns of figures: each a value, and of how many values it is.
fn figures(terms: &[(String, String)]) -> String {
    terms.iter().map(|(value, n)| format!(", CAST({value} AS VARCHAR), {n}")).collect()
}

/// A question about a table, over a range of minutes: its own, or the one before.
pub(crate) struct Sql<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) facts: &'a Facts,
    pub(crate) minutes: (i64, i64),
}

impl Sql<'_> {
    /// Each group's first metric, or both that a ratio is of: those that rank highest, and those that are `also` wanted, with their places
    /// from 1 on. A value is in millionths for a measure; beside it stands of how many values it is.
    pub(crate) fn top(&self, also: &[&str]) -> Option<String> {
        let group = self.group()?;
        let order = self.asked.order();
        let metric = &self.asked.metrics[order.metric.unwrap_or_default()];
        let terms: Vec<(String, String)> = metric.terms().map(|term| self.figure(term)).collect();
        let rank = match (order.metric, metric, &terms[..]) {
            (None, ..) => "g".into(),
            (_, _, [(of, _), (over, _)]) => format!("CAST({of} AS DOUBLE) / {over}"),
            (_, Metric::Of(Stat::Avg, _), [(value, n), ..]) => format!("CAST({value} AS DOUBLE) / {n}"),
            _ => format!("CAST({} AS HUGEINT)", terms[0].0),
        };
        let direction = if order.ascending { "ASC" } else { "DESC" };
        let also: String = also.iter().map(|group| format!(", {}", text(group))).collect();
        Some(format!(
            "SELECT {group} AS g{}, row_number() OVER (ORDER BY {rank} {direction} NULLS LAST, g) AS place \
             FROM {} WHERE {} AND g <> {} GROUP BY g HAVING {} QUALIFY place <= {} OR g IN (NULL{also}) ORDER BY place",
            figures(&terms),
            name(&self.facts.table),
            self.counted(),
            text(&self.rest()),
            self.present(),
            self.asked.limit(),
        ))
    }

    /// The rows of the answer: bucket, group, then each term's value and number of values, where the groups that are kept are told
    /// apart.
    pub(crate) fn rows(&self, kept: &[&str]) -> String {
        let terms: Vec<_> = self.terms().map(|term| self.figure(term)).collect();
        format!(
            "SELECT bucket, grp{} FROM ({}) GROUP BY bucket, grp HAVING {} ORDER BY bucket, grp",
            figures(&terms),
            self.events(kept),
            self.present(),
        )
    }

    /// Of values of a measure in some of the rows, how many are less, how many are not more, and how many there are. A value is told
    /// as one surely below it and one surely above, in millionths.
    pub(crate) fn ranks(&self, kept: &[&str], of: &str, values: &[(i64, Option<&str>, f64, f64)]) -> String {
        let column = measure(of);
        let values: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(at, (bucket, group, below, above))| {
                let group = group.map_or("NULL".into(), text);
                format!("({at}, {bucket}, {group}, {below:e}::DOUBLE, {above:e}::DOUBLE)")
            })
            .collect();
        format!(
            "SELECT v.nth, count(*) FILTER ({column} < v.below), count(*) FILTER ({column} <= v.above), count(*) \
             FROM ({}) e JOIN (VALUES {}) v(nth, bucket, grp, below, above) \
             ON e.bucket = v.bucket AND e.grp IS NOT DISTINCT FROM CAST(v.grp AS VARCHAR) WHERE {column} IS NOT NULL GROUP BY v.nth",
            self.events(kept),
            values.join(", "),
        )
    }

    /// The events of the question, with bucket and group.
    fn events(&self, kept: &[&str]) -> String {
        let group = match self.group() {
            None => "CAST(NULL AS VARCHAR)".into(),
            Some(group) => {
                let kept: String = kept.iter().map(|group| format!(", {}", text(group))).collect();
                format!("CASE WHEN {group} IN (NULL{kept}) THEN {group} ELSE {} END", text(&self.rest()))
            }
        };
        let (table, counted) = (name(&self.facts.table), self.counted());
        if self.asked.window == 1 {
            return format!("SELECT *, {} AS bucket, {group} AS grp FROM {table} WHERE {counted}", self.bucket());
        }
        // An event is in several windows.
        let windows: Vec<String> = self
            .asked
            .buckets(self.minutes)
            .into_iter()
            .map(|(bucket, (from, to))| format!("({bucket}, {from}, {to})"))
            .collect();
        format!(
            "SELECT *, {group} AS grp FROM {table} JOIN (VALUES {}) w(bucket, \"window from\", \"window to\") \
             ON minute >= \"window from\" AND minute < \"window to\" WHERE {counted}",
            windows.join(", ")
        )
    }

    /// What its figures are made of.
    fn terms(&self) -> impl Iterator<Item = &Metric> {
        self.asked.metrics.iter().flat_map(Metric::terms)
    }

    /// The start of the bucket that a minute lies in. All is UTC, after 1970.
    fn bucket(&self) -> String {
        let start = self.minutes.0;
        match self.asked.granularity {
            Granularity::All => format!("{start}"),
            // Counted from midnight, or if longer than a day, from that of the first.
            Granularity::Each(n, unit @ (Unit::Minute | Unit::Hour)) => {
                let n = if unit == Unit::Hour { n * 60 } else { n };
                if n <= DAY { format!("minute - (minute % {DAY}) % {n}") } else { self.each(n, Unit::Day) }
            }
            Granularity::Each(n, Unit::Day) => self.each(n * DAY, Unit::Day),
            Granularity::Each(n, Unit::Week) => self.each(n * 7 * DAY, Unit::Week),
            Granularity::Each(n, Unit::Month) => {
                let at = "date_diff('month', DATE '1970-01-01', CAST(make_timestamp(minute * 60000000) AS DATE))";
                let first = format!("{at} - ({at} - {}) % {n}", month(start));
                format!("CAST(epoch(DATE '1970-01-01' + to_months(CAST({first} AS INTEGER))) AS BIGINT) // 60")
            }
        }
    }

    /// Buckets of so many minutes, from the first unit's start on.
    fn each(&self, minutes: i64, unit: Unit) -> String {
        format!("minute - (minute - {}) % {minutes}", unit.start(self.minutes.0, 0))
    }

    /// The group of what a limit leaves over.
    fn rest(&self) -> String {
        vec![OTHER; self.asked.group_by.len()].join(BETWEEN)
    }

    /// The value that groups are told apart by.
    fn group(&self) -> Option<String> {
        let names: Vec<String> = self.asked.group_by.iter().map(|dimension| name(dimension)).collect();
        match &names[..] {
            [] => None,
            [one] => Some(one.clone()),
            // A group with a value that was folded is of the rest.
            several => {
                let (several, rest) = (several.join(", "), text(&self.rest()));
                Some(format!(
                    "CASE WHEN {} IN ({several}) THEN {rest} ELSE concat_ws(chr(1), {several}) END",
                    text(OTHER)
                ))
            }
        }
    }

    /// Which events count: in the range, past the filters, and in a group.
    fn counted(&self) -> String {
        let (start, end) = self.asked.reads(self.minutes);
        let mut all = vec![match self.facts.received {
            // When it was received, DuckDB doesn't know.
            true => "true".into(),
            false => format!("minute >= {start} AND minute < {end}"),
        }];
        all.extend(self.asked.group_by.iter().map(|dimension| format!("{} IS NOT NULL", name(dimension))));
        all.extend(self.asked.filters.iter().map(filter));
        all.join(" AND ")
    }

    /// Whether a row has any of what is asked.
    fn present(&self) -> String {
        let any: Vec<String> = self
            .terms()
            .map(|metric| match metric {
                Metric::Of(..) => format!("{} > 0", self.figure(metric).1),
                _ => format!("{} > 0", self.figure(metric).0),
            })
            .collect();
        format!("({})", any.join(" OR "))
    }

    /// A term's value, as an integer, and of how many values it is.
    fn figure(&self, metric: &Metric) -> (String, String) {
        let Metric::Of(stat, of) = metric else {
            let of = if metric.is_users() { "count(DISTINCT person)" } else { "count(*)" };
            let value = match metric.only() {
                Some((dimension, value)) => format!("{of} FILTER ({} = {})", name(dimension), text(value)),
                None => of.into(),
            };
            return (value, "count(*)".into());
        };
        let column = measure(of);
        let n = format!("count({column})");
        let value = match stat {
            Stat::Sum | Stat::Avg => format!("sum({column})"),
            Stat::Min => format!("min({column})"),
            Stat::Max => format!("max({column})"),
            // The value at rank ⌈q·n⌉, the first of which is 1.
            Stat::Quantile(hundredths) => {
                format!("(list_sort(list({column}) FILTER ({column} IS NOT NULL)))[({hundredths} * {n} + 99) // 100]")
            }
        };
        (value, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asked::Time;
    use crate::asked::tests::facts;

    #[test]
    fn texts_and_names_are_quoted() {
        assert_eq!(text("it's"), "'it''s'");
        assert_eq!(name("say \"hi\""), "\"say \"\"hi\"\"\"");
    }

    #[test]
    fn a_field_has_both_spellings() {
        assert_eq!(spellings("utm_source"), ["utm_source", "utmSource"]);
        assert_eq!(spellings("plan"), ["plan"]);
        assert_eq!(spellings("page"), ["page", "page_id", "pageId"]);
    }

    #[test]
    fn a_question_is_a_query() {
        let asked = Asked {
            metrics: vec![Metric::Events, Metric::Of(Stat::Quantile(95), "price".into())],
            time: Time::Between(90, 3_000),
            granularity: Granularity::Each(2, Unit::Day),
            window: 1,
            compared: false,
            group_by: vec!["page".into()],
            filters: vec![Filter::Plain("event_type".into(), "it's".into())],
            order: None,
            limit: Some(3),
        };
        let sql = Sql { asked: &asked, facts: &facts(), minutes: (90, 3_000) };
        let counted =
            "minute >= 90 AND minute < 3000 AND \"page\" IS NOT NULL AND \"event_type\" IS NOT DISTINCT FROM 'it''s'";
        assert_eq!(
            sql.rows(&["/"]),
            format!(
                "SELECT bucket, grp, CAST(count(*) AS VARCHAR), count(*), CAST((list_sort(list(\"measure price\") FILTER (\"measure \
                 price\" IS NOT NULL)))[(95 * count(\"measure price\") + 99) // 100] AS VARCHAR), count(\"measure price\") FROM (SELECT *, \
                 minute - (minute - 0) % 2880 AS bucket, CASE WHEN \"page\" IN (NULL, '/') THEN \"page\" \
                 ELSE '(other)' END AS grp FROM \"t\" WHERE {counted}) GROUP BY bucket, grp HAVING (count(*) > 0 OR \
                 count(\"measure price\") > 0) ORDER BY bucket, grp"
            )
        );
        assert_eq!(
            sql.top(&[]).unwrap(),
            format!(
                "SELECT \"page\" AS g, CAST(count(*) AS VARCHAR), count(*), row_number() OVER (ORDER BY CAST(count(*) AS HUGEINT) DESC NULLS \
                 LAST, g) AS place FROM \"t\" WHERE {counted} AND g <> '(other)' GROUP BY g HAVING (count(*) > 0 OR count(\"measure \
                 price\") > 0) QUALIFY place <= 3 OR g IN (NULL) ORDER BY place"
            )
        );
    }
}
