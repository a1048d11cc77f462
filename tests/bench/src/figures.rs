//! What a bench prints: one flat list of figures, units last in their names.

use catchment_harness::{Failure, Result};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::machine::Machine;

/// What the name of a measured figure may end with.
const UNITS: [&str; 19] = [
    "_bytes",
    "_bytes_per_event",
    "_per_s",
    "_per_cpu_s",
    "_us_per_event",
    "_us_per_frame",
    "_percent",
    "_mib",
    "_ms",
    "_ms_p50",
    "_ms_p95",
    "_ms_p95_cold",
    "_ms_max_cold",
    "_s",
    "_usd",
    "_usd_per_million",
    "_usd_per_month",
    "_ratio",
    "_duckdb",
];

/// Figures in the order in which they are told.
#[derive(Debug)]
pub(crate) struct Figures(Vec<(String, Value)>);

impl Figures {
    /// Begins with what figures mean nothing without.
    pub(crate) fn begin() -> Figures {
        let machine = Machine::here();
        let mut figures = Figures(Vec::new());
        figures.say("date", Timestamp::now().to_string());
        figures
            .say("command", std::env::args().skip(1).fold("cargo xtask bench".to_owned(), |all, arg| all + " " + &arg));
        figures.say("machine", format!("{} cores of {}, Linux {}", machine.cores, machine.cpu, machine.kernel));
        figures.say("machine_load_before", json!(machine.load_1m));
        figures.say("versions", format!("{}, {}", machine.rustc, machine.workerd));
        figures.say("profile", if cfg!(debug_assertions) { "dev (dependencies optimised)" } else { "release" });
        figures
    }

    /// What a program printed as one JSON object.
    pub(crate) fn of(object: &str) -> Result<Figures> {
        let mut figures = Figures(Vec::new());
        figures.adopt("", object)?;
        Ok(figures)
    }

    /// Tells a text, or a count of what the name says.
    pub(crate) fn say(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.push((name.into(), value.into()));
    }

    /// Tells a measured number. Three digits are all that a measurement on a shared machine has.
    pub(crate) fn measured(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        debug_assert!(UNITS.iter().any(|unit| name.ends_with(unit)), "{name} has no unit");
        let rounded = if value.abs() >= 100.0 {
            value.round()
        } else if value.abs() >= 1.0 {
            (value * 100.0).round() / 100.0
        } else {
            (value * 10_000.0).round() / 10_000.0
        };
        self.0.push((name, json!(rounded)));
    }

    /// Takes over the figures that a program printed as one JSON object.
    pub(crate) fn adopt(&mut self, prefix: &str, object: &str) -> Result<()> {
        let object: Map<String, Value> =
            serde_json::from_str(object.trim()).map_err(Failure::at(format!("reading figures {object:?}")))?;
        self.0.extend(object.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
        Ok(())
    }

    /// A number that was told.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(told, _)| told == name)?.1.as_f64()
    }

    /// Prints all: as one JSON object, or as lines.
    pub(crate) fn print(self, json: bool) {
        if json {
            println!("{}", Value::Object(self.0.into_iter().collect()));
            return;
        }
        for (name, value) in &self.0 {
            println!("{name:<42} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_flat_and_rounded_to_what_they_are_worth() {
        let mut figures = Figures::begin();
        figures.measured("b1_events_per_s", 1_234.567);
        figures.measured("b1_cpu_us_per_event", 4.321_9);
        figures.measured("native_ratio", 0.123_45);
        figures.adopt("wasm_", "{\"cpu_s\":1.5}\n").unwrap();
        assert!(figures.adopt("", "[1]").is_err());
        assert_eq!(figures.number("wasm_cpu_s"), Some(1.5));
        let last = |n: usize| figures.0[figures.0.len() - n].1.clone();
        assert_eq!([last(4), last(3), last(2)], [json!(1_235.0), json!(4.32), json!(0.1235)]);
        for (name, value) in &figures.0 {
            assert!(!value.is_object() && !value.is_array(), "{name}");
        }
        for name in ["date", "command", "machine", "versions"] {
            assert!(figures.0.iter().any(|(told, _)| told == name), "{name}");
        }
    }

    #[test]
    #[should_panic(expected = "has no unit")]
    fn a_measured_figure_has_its_unit_last() {
        Figures(Vec::new()).measured("s_of_waiting", 1.0);
    }
}
