use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<Filter, String> {
    Filter::parse(text, &mut Budget::default())
}

fn from_json(json: &Value) -> Result<Filter, String> {
    Filter::from_json(json, &mut Budget::default())
}

fn is(dimension: &str, values: &[&str]) -> Filter {
    Filter::Is(dimension.into(), Test::one_of(values.iter().map(|value| (*value).into()).collect()))
}

fn begins(dimension: &str, prefix: &str) -> Filter {
    Filter::Is(dimension.into(), Test::Prefix(prefix.into()))
}

/// A filter as text, every word in quotes.
fn text(filter: &Filter) -> String {
    let quote = |word: &str| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
    let join = |filters: &[Filter], between| filters.iter().map(text).collect::<Vec<_>>().join(between);
    match filter {
        Filter::Is(dimension, Test::Prefix(prefix)) => format!("{} ^ {}", quote(dimension), quote(prefix)),
        Filter::Is(dimension, Test::In(values)) => {
            let values: Vec<String> = values.iter().map(|value| quote(value)).collect();
            format!("{} in ({})", quote(dimension), values.join(","))
        }
        Filter::All(filters) => format!("({})", join(filters, " and ")),
        Filter::Any(filters) => format!("({})", join(filters, " OR ")),
        Filter::Not(filter) => format!("not {}", text(filter)),
    }
}

fn to_json(filter: &Filter) -> Value {
    let list = |filters: &[Filter]| filters.iter().map(to_json).collect::<Vec<_>>();
    match filter {
        Filter::Is(dimension, Test::Prefix(prefix)) => json!({ "dimension": dimension, "prefix": prefix }),
        Filter::Is(dimension, Test::In(values)) => json!({ "dimension": dimension, "in": values }),
        Filter::All(filters) => json!({ "and": list(filters) }),
        Filter::Any(filters) => json!({ "or": list(filters) }),
        Filter::Not(filter) => json!({ "not": to_json(filter) }),
    }
}

/// Whether an event passes that has these values: the two-valued truth.
fn passes(filter: &Filter, event: &HashMap<&str, &str>) -> bool {
    match filter {
        Filter::Is(dimension, test) => event.get(&**dimension).is_some_and(|value| match test {
            Test::In(values) => values.iter().any(|one| **one == **value),
            Test::Prefix(prefix) => value.starts_with(&**prefix),
        }),
        Filter::All(filters) => filters.iter().all(|filter| passes(filter, event)),
        Filter::Any(filters) => filters.iter().any(|filter| passes(filter, event)),
        Filter::Not(filter) => !passes(filter, event),
    }
}

/// Whether a cell of such events does.
fn truth(filter: &Filter, event: &HashMap<&str, &str>) -> Truth {
    filter.of(&|dimension, test| test.of(event.get(&**dimension).copied()))
}

fn word() -> impl Strategy<Value = Box<str>> {
    let words = vec!["a", "ab", "and", "in", "not", "(", "\"", "a\\", " é", "x:y"];
    prop_oneof![prop::sample::select(words).prop_map(Into::into), "[a-c]{1,3}".prop_map(Into::into)]
}

fn filter() -> impl Strategy<Value = Filter> {
    let values = prop::collection::vec(word(), 1..4).prop_map(Test::one_of);
    let test = prop_oneof![values, word().prop_map(Test::Prefix), Just(Test::Prefix("".into()))];
    let leaf = (word(), test).prop_map(|(dimension, test)| Filter::Is(dimension, test));
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Any),
            inner.prop_map(|filter| !filter),
        ]
    })
}

proptest! {
    #[test]
    fn a_filter_is_read_as_it_was_meant(filter in filter()) {
        prop_assert_eq!(parse(&text(&filter)), Ok(filter.clone()), "{}", text(&filter));
        prop_assert_eq!(from_json(&to_json(&filter)), Ok(filter));
    }

    #[test]
    fn an_event_passes_or_not_and_the_complement_is_the_rest(
        filter in filter(),
        event in prop::collection::hash_map(word(), word(), 0..4),
    ) {
        let event: HashMap<&str, &str> = event.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = if passes(&filter, &event) { Truth::Yes } else { Truth::No };
        prop_assert_eq!(truth(&filter, &event), expected);
        prop_assert_eq!(truth(&!filter, &event), !expected);
    }

    /// Whatever was folded: where the filter is sure of the cell, it is right about every event in it.
    #[test]
    fn what_is_said_of_a_folded_value_holds_for_any(
        filter in filter(),
        event in prop::collection::hash_map(word(), word(), 1..4),
        folded in any::<prop::sample::Index>(),
    ) {
        let event: HashMap<&str, &str> = event.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut cell = event.clone();
        let name = *folded.get(&event.keys().copied().collect::<Vec<_>>());
        cell.insert(name, OTHER);
        match truth(&filter, &cell) {
            Truth::Maybe => {}
            sure => prop_assert_eq!(sure, truth(&filter, &event)),
        }
    }

    #[test]
    fn any_text_is_a_filter_or_refused(text in "[a-c =!^(),\"\\\\:]{0,24}|.{0,16}") {
        if let Err(problem) = parse(&text) {
            prop_assert!(!problem.is_empty());
        }
    }
}

#[test]
fn the_grammar_is_as_written() {
    for (written, meant) in [
        ("country:US", is("country", &["US"])),
        // The value is all that follows.
        ("page:/a b?x=1 and \"y\":z", is("page", &["/a b?x=1 and \"y\":z"])),
        ("plan:", is("plan", &[""])),
        ("country=US", is("country", &["US"])),
        (" country != US ", !is("country", &["US"])),
        ("page^/admin", begins("page", "/admin")),
        ("page=/a?b=c^d!e:f", is("page", &["/a?b=c^d!e:f"])),
        ("country in (US,DE)", is("country", &["DE", "US"])),
        ("country not in(US, \"D E\")", !is("country", &["D E", "US"])),
        (r#""my dim" = "say \"\\\"""#, is("my dim", &[r#"say "\""#])),
        (
            "country in (US,DE) and not page^\"/admin\"",
            Filter::All(vec![is("country", &["US", "DE"]), !begins("page", "/admin")]),
        ),
        ("a=1 or b=2 and c=3", Filter::Any(vec![is("a", &["1"]), Filter::All(vec![is("b", &["2"]), is("c", &["3"])])])),
        (
            "(a=1 or b=2) AND c=3",
            Filter::All(vec![Filter::Any(vec![is("a", &["1"]), is("b", &["2"])]), is("c", &["3"])]),
        ),
        ("not(a=1)", !is("a", &["1"])),
        ("nothing=1", is("nothing", &["1"])),
        ("not \"not\"=1", !is("not", &["1"])),
    ] {
        assert_eq!(parse(written), Ok(meant), "{written}");
    }
    for json in
        [json!({ "dimension": "a", "is": "1" }), json!({ "is": "1", "dimension": "a" }), json!("a=1"), json!("a:1")]
    {
        assert_eq!(from_json(&json), Ok(is("a", &["1"])), "{json}");
    }
    assert_eq!(from_json(&json!({ "dimension": "a", "is_not": "1" })), Ok(!is("a", &["1"])));
}

#[test]
fn what_is_no_filter_is_said_in_a_sentence() {
    let nested = |n: usize| format!("{}a=1{}", "(".repeat(n), ")".repeat(n));
    let long = "x".repeat(VALUE_BYTES_MAX + 1);
    for (written, says) in [
        ("", "a dimension"),
        ("US", "=, !="),
        ("country", "=, !="),
        ("country=", "a value"),
        ("country in US", "( and values"),
        ("country in (US", ", or )"),
        ("country in ()", "a value"),
        ("country not US", "=, !="),
        ("(country=US", "or )"),
        ("country=US device=mobile", "and, or, or the end"),
        ("country=US and", "a dimension"),
        ("x=1 and country:US", "=, !="),
        ("country=\"US", "doesn't end"),
        (r#"country="U\S""#, "doesn't end"),
        (&format!("page={long}"), "512 bytes"),
        (&nested(FILTER_DEPTH_MAX + 1), "deep"),
        (&format!("{}a=1", "not ".repeat(100_000)), "deep"),
    ] {
        let problem = parse(written).unwrap_err();
        assert!(problem.contains(says), "{problem}");
    }
    assert!(parse(&nested(FILTER_DEPTH_MAX)).is_ok());
    for json in [
        json!(1),
        json!({}),
        json!({ "and": [] }),
        json!({ "and": [1] }),
        json!({ "or": "a=1" }),
        json!({ "not": null }),
        json!({ "dimension": "a" }),
        json!({ "dimension": "", "is": "1" }),
        json!({ "dimension": "a", "is": 1 }),
        json!({ "dimension": "a", "in": [] }),
        json!({ "dimension": "a", "in": [1] }),
        json!({ "dimension": "a", "is": "1", "is_not": "2" }),
        json!({ "is": "1", "is_not": "2" }),
        (0..FILTER_DEPTH_MAX).fold(json!({ "dimension": "a", "is": "1" }), |filter, _| json!({ "not": filter })),
    ] {
        assert!(from_json(&json).is_err(), "{json}");
    }
}

#[test]
fn a_filter_of_a_million_values_says_what_to_do() {
    let values: Vec<String> = (0..1_000_000).map(|n| n.to_string()).collect();
    let one_less = &values[..FILTER_VALUES_MAX];
    assert!(parse(&format!("page in ({})", one_less.join(","))).is_ok());
    assert!(from_json(&json!({ "dimension": "page", "in": one_less })).is_ok());
    let problems =
        [parse(&format!("page in ({})", values.join(","))), from_json(&json!({ "dimension": "page", "in": values }))];
    for problem in problems.map(Result::unwrap_err) {
        assert!(problem.contains("more than 1000 values") && problem.contains("prefix"), "{problem}");
    }
    // All filters of a question together.
    let mut budget = Budget::default();
    assert!((0..FILTER_VALUES_MAX).all(|_| Filter::parse("a=1", &mut budget).is_ok()));
    assert!(Filter::parse("a=1", &mut budget).is_err());
}
