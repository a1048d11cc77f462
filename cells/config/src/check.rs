//! What can be wrong with a config.

use std::collections::BTreeSet;
use std::fmt::Display;

use catchment_cells::cube::{DEFAULT, RECEIVED};
use catchment_cells::key::is_name;
use catchment_cells::limits::{CLIENT_CUBES_MAX, CUBE_DIMENSIONS_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};

use crate::limits::{
    DIMENSIONS_MAX, LATENESS_MINUTES_MAX, LOOKUP_ENTRIES_MAX, LOOKUPS_MAX, MEASURES_MAX, RETENTION_DAYS_MAX,
    SCHEMA_FIELDS_MAX, SCHEMAS_MAX, VALUES_PER_DIMENSION_MAX, VALUES_PER_DIMENSION_MIN,
};
use crate::{Config, Cube, Field, Kind};

/// What is found.
#[derive(Default)]
struct Found(Vec<String>);

/// Whether a dimension is one that events have by themselves.
fn is_built_in(dimension: &str) -> bool {
    DEFAULT.iter().any(|cube| cube.dimensions.contains(&dimension))
}

/// Every mistake.
pub(crate) fn mistakes(config: &Config) -> Vec<String> {
    let mut found = Found::default();
    found.dimensions(config);
    found.cubes(config);
    found.measures(config);
    found.lookups(config);
    found.schemas(config);
    found.time_zone(&config.time_zone);
    if config.retention_days.is_some_and(|retention| !retention.is_sound()) {
        let most = RETENTION_DAYS_MAX;
        let problem =
            format!("each is 1 to {most} days, hours are kept at least as long as minutes, and days as hours");
        found.say("retention_days", problem);
    }
    if config.limits.events_per_s == Some(0) {
        found.say("limits.events_per_s", "is 1 or more: to take nothing, revoke the client's write keys");
    }
    if config.lateness_minutes > LATENESS_MINUTES_MAX {
        let longest = LATENESS_MINUTES_MAX;
        found.say("lateness_minutes", format!("is at most {longest}: so long event_ids are remembered"));
    }
    let values = config.limits.values_per_dimension;
    if !(VALUES_PER_DIMENSION_MIN..=VALUES_PER_DIMENSION_MAX).contains(&values) {
        let range = format!("from {VALUES_PER_DIMENSION_MIN} to {VALUES_PER_DIMENSION_MAX}");
        found.say("limits.values_per_dimension", format!("is {range}"));
    }
    found.0
}

impl Found {
    fn say(&mut self, field: impl Display, sentence: impl Display) {
        self.0.push(format!("{field}: {sentence}"));
    }

    fn at_most(&mut self, field: impl Display, n: usize, most: usize) {
        if n > most {
            self.say(field, format!("{n} are there, at most {most} are taken"));
        }
    }

    fn name(&mut self, field: impl Display, name: &str) {
        if !is_name(name) {
            self.say(field, format!("a name has 1 to {NAME_BYTES_MAX} bytes and no NUL"));
        }
    }

    fn value(&mut self, field: impl Display, value: &str) {
        if !(1..=VALUE_BYTES_MAX).contains(&value.len()) {
            self.say(field, format!("a value has 1 to {VALUE_BYTES_MAX} bytes"));
        }
    }

    fn time_zone(&mut self, name: &str) {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte);
        if !is_name(name) || !name.bytes().all(fits) {
            self.say("time_zone", "it is a name of the IANA time zone database, as in Europe/Berlin");
        }
    }

    /// A dimension that events have, by themselves or by this config.
    fn known(&mut self, config: &Config, field: impl Display, dimension: &str) {
        if !is_built_in(dimension) && !config.dimensions.contains_key(dimension) {
            self.say(field, format!("there is no dimension {dimension:?}: declare it under dimensions"));
        }
    }

    fn dimensions(&mut self, config: &Config) {
        self.at_most("dimensions", config.dimensions.len(), DIMENSIONS_MAX);
        for (name, property) in &config.dimensions {
            let field = format!("dimensions.{name}");
            self.name(&field, name);
            if is_built_in(name) || RECEIVED.dimensions.contains(&&**name) {
                self.say(&field, "this name is taken: give the dimension another one");
            }
            if property.is_empty() || property.len() > VALUE_BYTES_MAX {
                self.say(&field, format!("a property has a name of 1 to {VALUE_BYTES_MAX} bytes"));
            }
        }
    }

    fn cubes(&mut self, config: &Config) {
        self.at_most("cubes", config.cubes.len(), CLIENT_CUBES_MAX);
        let mut names = BTreeSet::new();
        for (i, Cube { name, dimensions, .. }) in config.cubes.iter().enumerate() {
            self.name(format_args!("cubes[{i}].name"), name);
            if DEFAULT.iter().chain([&RECEIVED]).any(|cube| cube.name == name) || !names.insert(name) {
                self.say(
                    format_args!("cubes[{i}].name"),
                    format!("there is a cube {name:?} already: take another name"),
                );
            }
            let field = format!("cubes[{i}].dimensions");
            if !(1..=CUBE_DIMENSIONS_MAX).contains(&dimensions.len()) {
                self.say(&field, format!("a cube has 1 to {CUBE_DIMENSIONS_MAX}"));
            }
            if dimensions.iter().collect::<BTreeSet<_>>().len() != dimensions.len() {
                self.say(&field, "one is there twice");
            }
            for dimension in dimensions {
                self.known(config, &field, dimension);
            }
        }
    }

    fn measures(&mut self, config: &Config) {
        let measures = config.measures.iter().flatten();
        self.at_most("measures", measures.clone().count(), MEASURES_MAX);
        for measure in measures {
            self.name("measures", measure);
        }
    }

    fn lookups(&mut self, config: &Config) {
        self.at_most("lookups", config.lookups.len(), LOOKUPS_MAX);
        self.at_most("lookups", config.lookups.iter().map(|lookup| lookup.values.len()).sum(), LOOKUP_ENTRIES_MAX);
        let mut targets = BTreeSet::new();
        for (i, lookup) in config.lookups.iter().enumerate() {
            self.known(config, format_args!("lookups[{i}].dimension"), &lookup.dimension);
            self.known(config, format_args!("lookups[{i}].from"), &lookup.from);
            if lookup.dimension == lookup.from {
                self.say(format_args!("lookups[{i}]"), "a dimension isn't looked up from itself");
            }
            if !targets.insert(&lookup.dimension) {
                self.say(format_args!("lookups[{i}].dimension"), "one table gives a dimension its value");
            }
            for (from, to) in &lookup.values {
                self.value(format_args!("lookups[{i}].values"), from);
                self.value(format_args!("lookups[{i}].values.{from}"), to);
            }
        }
    }

    fn schemas(&mut self, config: &Config) {
        let events = &config.schemas.events;
        self.at_most("schemas.events", events.len(), SCHEMAS_MAX);
        self.at_most("schemas.events", events.values().map(|schema| schema.fields.len()).sum(), SCHEMA_FIELDS_MAX);
        for (event, schema) in events {
            self.value(format_args!("schemas.events.{event}"), event);
            for (name, Field { kind, values, .. }) in &schema.fields {
                let field = format!("schemas.events.{event}.fields.{name}");
                self.value(&field, name);
                let Some(values) = values else { continue };
                if values.is_empty() {
                    self.say(&field, "an enum without values lets nothing in: leave it out");
                }
                let fits = |value: &String| match kind {
                    Kind::Any | Kind::String => true,
                    Kind::Number => value.parse::<f64>().is_ok_and(f64::is_finite),
                    Kind::Boolean => ["true", "false"].contains(&&**value),
                };
                if let Some(value) = values.iter().find(|value| !fits(value)) {
                    self.say(&field, format!("the enum's {value:?} is not of the field's type"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::{Config, DecodeError, Mode};

    fn read(config: &Value) -> Result<Config, Vec<String>> {
        Config::read(config.to_string().as_bytes()).map_err(|mistakes| mistakes.0)
    }

    fn shop() -> Value {
        json!({
            "dimensions": {"brand": "brandName", "line": "line"},
            "cubes": [{"name": "brands", "dimensions": ["brand", "country"], "digest": true}],
            "measures": ["revenue"],
            "lateness_minutes": 60,
            "time_zone": "Asia/Kathmandu",
            "retention_days": {"minute": 7, "hour": 90},
            "keys": {"write_generation_min": 2},
            "limits": {"events_per_s": 50},
            "lookups": [{"dimension": "category", "from": "product", "values": {"p1": "shoes"}}],
            "schemas": {"mode": "warn", "events": {"buy": {"fields": {
                "revenue": {"type": "number", "required": true},
                "size": {"type": "string", "enum": ["s", "m"]},
                "gift": {},
            }}}},
        })
    }

    #[test]
    fn what_is_read_is_stored_and_read_as_the_same() {
        let config = read(&shop()).unwrap();
        assert_eq!(config.schemas.mode, Mode::Warn);
        assert_eq!(Config::decode(&config.encode()), Ok(config));
        assert_eq!(read(&json!({})).unwrap(), Config::default());
        assert_eq!(Config::decode(&[2, b'{', b'}']), Err(DecodeError::Version(Some(2))));
        assert_eq!(Config::decode(&[]), Err(DecodeError::Version(None)));
    }

    #[test]
    fn a_mistake_names_its_field() {
        let long = "x".repeat(65);
        let cubes = |n: usize| (0..n).map(|i| json!({"name": format!("c{i}"), "dimensions": ["page"]})).collect();
        for (path, value, part) in [
            ("/dimensions/page", json!("p"), "dimensions.page: this name is taken"),
            ("/dimensions/brand", json!(""), "dimensions.brand: a property has a name"),
            ("/cubes/0/name", json!("total"), "cubes[0].name: there is a cube \"total\""),
            ("/cubes/0/name", json!("received"), "cubes[0].name: there is a cube"),
            ("/cubes/0/name", json!(long), "cubes[0].name: a name has"),
            ("/cubes/0/dimensions", json!([]), "cubes[0].dimensions: a cube has 1 to 8"),
            ("/cubes/0/dimensions", json!(["page", "page"]), "one is there twice"),
            ("/cubes/0/dimensions", json!(["colour"]), "declare it under dimensions"),
            ("/cubes", Value::Array(cubes(33)), "cubes: 33 are there, at most 32"),
            ("/measures", json!([""]), "measures: a name has"),
            ("/lateness_minutes", json!(1_441), "lateness_minutes: is at most 1440"),
            ("/limits/events_per_s", json!(0), "limits.events_per_s: is 1 or more"),
            ("/keys/write_generation_min", json!(-1), "invalid value: integer `-1`"),
            ("/retention_days/minute", json!(0), "retention_days: each is 1 to"),
            ("/retention_days/minute", json!(91), "hours are kept at least as long as minutes"),
            ("/retention_days/day", json!(89), "and days as hours"),
            ("/time_zone", json!(""), "time_zone: it is a name"),
            ("/time_zone", json!("../Berlin"), "time_zone: it is a name"),
            ("/lookups/0/from", json!("colour"), "lookups[0].from: there is no dimension"),
            ("/lookups/0/from", json!("category"), "isn't looked up from itself"),
            ("/lookups/0/values/p1", json!(""), "lookups[0].values.p1: a value has"),
            ("/schemas/events/buy/fields/revenue/enum", json!(["x"]), "is not of the field's type"),
            ("/schemas/events/buy/fields/size/enum", json!([]), "lets nothing in"),
            ("/schemas/mode", json!("loud"), "unknown variant `loud`"),
            ("/cube", json!([]), "unknown field `cube`"),
        ] {
            let mut config = shop();
            let (parent, last) = path.rsplit_once('/').unwrap();
            match config.pointer_mut(parent).unwrap() {
                Value::Object(object) => _ = object.insert(last.into(), value),
                other => panic!("{path} leads to {other}"),
            }
            let mistakes = read(&config).unwrap_err();
            assert!(mistakes.iter().any(|mistake| mistake.contains(part)), "{path}: {mistakes:?}");
        }
    }

    #[test]
    fn mistakes_and_sizes_are_bounded() {
        let cubes: Vec<_> = (0..32).map(|i| json!({"name": format!("c{i}"), "dimensions": ["nowhere"]})).collect();
        let mistakes = read(&json!({"cubes": cubes})).unwrap_err();
        assert_eq!((mistakes.len(), &*mistakes[20]), (21, "and 12 more"));
        let long = format!("{{{}}}", " ".repeat(300_000));
        assert!(Config::read(long.as_bytes()).unwrap_err().0[0].contains("at most 262144 bytes"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_config_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(config) = Config::read(&bytes) {
                prop_assert_eq!(Config::decode(&config.encode()), Ok(config));
            }
        }
    }
}
