use proptest::prelude::*;

use super::*;

/// JSON, nearly: what senders write, and what they get wrong.
fn json() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "(event|device|anonymous|page|product|user|session|client)(_id|Id)|event_type|timestamp|page|country|utm_source|plan",
        "properties|metadata|duration|x|\\\\u0070age|",
    ];
    let scalar = || {
        prop_oneof![
            4 => "\"[a-zé /]{0,9}\"",
            2 => "[1-9][0-9]{0,21}",
            1 => "-?[0-9]{1,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,3})?",
            1 => "null|true|false|nul|\\[\\]|\\[1,\"a\"\\]|\\{\\}|\"\\\\n\"|\"\t\"|\"\\\\u00e9\"|\"|",
        ]
    };
    let colon = "( ?: ?)|:|:|:|::|";
    let properties = prop::collection::vec((name.clone(), colon, scalar()), 0..4).prop_map(object);
    let value = prop_oneof![3 => scalar(), 1 => properties];
    let event = prop::collection::vec((name, colon, value), 0..8).prop_map(object);
    ("[ \n]{0,2}", event, " {0,1}|x|,|\\}").prop_map(|(before, event, after)| format!("{before}{event}{after}"))
}

fn object(members: Vec<(String, String, String)>) -> String {
    let members: Vec<String> = members.iter().map(|(name, colon, value)| format!("\"{name}\"{colon}{value}")).collect();
    format!("{{{}}}", members.join(","))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn what_is_scanned_serde_json_reads_the_same(json in json()) {
        let mut fields = Fields::new();
        if scan::fields(&json, &mut fields) {
            prop_assert_eq!(serde_json::from_str::<Fields<'_>>(&json).ok(), Some(fields));
        }
    }

    #[test]
    fn any_change_of_an_event_is_scanned_as_serde_json_reads_it(at: prop::sample::Index, byte in " -~") {
        let mut json = r#"{"event_id":"a1","timestamp":1717200000000,"page":"/p","properties":{"ms":61336,"price":-1.5e1},"x":null}"#.to_owned();
        let at = at.index(json.len());
        json.replace_range(at..at + 1, &byte);
        let mut fields = Fields::new();
        if scan::fields(&json, &mut fields) {
            prop_assert_eq!(serde_json::from_str::<Fields<'_>>(&json).ok(), Some(fields));
        }
    }
}

#[test]
fn what_senders_write_is_scanned() {
    for json in [
        r#"{"event_id":"0","event_type":"page_view","timestamp":1717200000000,"user_id":"u8","page":"/p/7528","country":"EP","properties":{"duration_ms":61336}}"#,
        "{ \"eventId\" : \"é\", \"timestamp\":\"2024-01-01T00:00:00Z\", \"metadata\": { }, \"n\": -0.5, \"page\": null, \"b\":true } ",
        "{}",
    ] {
        let mut fields = Fields::new();
        assert!(scan::fields(json, &mut fields), "{json}");
        assert_eq!(Some(fields), serde_json::from_str(json).ok(), "{json}");
    }
}

#[test]
fn a_control_character_or_an_escape_is_found_wherever_it_stands() {
    for at in 0..20 {
        for odd in ['\0', '\u{1f}', '\\', ' ', '!', '[', ']', '\u{7f}', 'é', '€'] {
            let text: String = (0..20).map(|i| if i == at { odd } else { 'é' }).collect();
            let json = format!("{{\"page\":\"{text}\"}}");
            assert_eq!(scan::fields(&json, &mut Fields::new()), !matches!(odd, '\0' | '\u{1f}' | '\\'), "{json:?}");
        }
    }
}

proptest! {
    /// Between two halves of the least unit, the last bit decides which is nearer.
    #[test]
    fn a_number_is_read_as_the_nearest_there_is(number in prop_oneof![any::<i32>().prop_map(|n| f64::from(n) * 5e-8), any::<f64>()]) {
        let number = if number.is_finite() { number } else { -0.0003775 };
        let json = format!(r#"{{"event_id":"e","event_type":"t","timestamp":1,"properties":{{"x":{number:?}}}}}"#);
        for spelled in [json.clone(), json.replace("\"t\"", "\"\\u0074\"")] {
            let event = Event::read(&spelled, None).unwrap();
            prop_assert_eq!(event.measures(), [("x".into(), number)], "{}", spelled);
        }
    }
}
