//! What a client's config makes of its events: [`Config`], made ready to be applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catchment_cells::cube::Cube;
use catchment_config::{Config, Lookup, Mode};

use crate::event::{Field, Members};
use crate::limits::LATENESS_MS;
use crate::open::{Column, Filling};
use crate::reason::Reason;
use crate::schema::Schemas;

/// A client's config, as its events meet it.
#[derive(Debug)]
pub(crate) struct Rules {
    filling: Arc<Filling>,
    /// The properties that are dimensions of its own, in the order of these.
    properties: Vec<String>,
    lookups: Vec<(Column, Column, BTreeMap<String, String>)>,
    measures: Option<BTreeSet<String>>,
    lateness_ms: i64,
    mode: Mode,
    schemas: Option<Schemas>,
    write_generation_min: u32,
    events_per_s: Option<u32>,
}

impl Rules {
    /// Those of a client without a config.
    pub(crate) fn of_cubes(cubes: &[Cube]) -> Self {
        Rules::new(cubes, Config::default())
    }

    /// Those of a client's config, which fills these cubes beside its own.
    pub(crate) fn new(cubes: &[Cube], config: Config) -> Self {
        let (names, properties): (Vec<String>, Vec<String>) = config.dimensions.into_iter().unzip();
        let column = |dimension: &str| {
            let own = names.iter().position(|name| name == dimension).map(Column::Own);
            own.or_else(|| Field::of_dimension(dimension).map(Column::Field))
        };
        let lookup = |Lookup { dimension, from, values }| Some((column(&dimension)?, column(&from)?, values));
        Rules {
            filling: Arc::new(Filling::of(cubes, &config.cubes, column)),
            lookups: config.lookups.into_iter().filter_map(lookup).collect(),
            properties,
            measures: config.measures,
            lateness_ms: LATENESS_MS.min(i64::from(config.lateness_minutes) * 60_000),
            mode: config.schemas.mode,
            write_generation_min: config.keys.write_generation_min,
            events_per_s: config.limits.events_per_s,
            schemas: (config.schemas.mode != Mode::Off).then(|| Schemas::new(config.schemas.events)),
        }
    }

    /// The cubes that are filled.
    pub(crate) fn filling(&self) -> &Arc<Filling> {
        &self.filling
    }

    /// The names that are measures; `None`: all.
    pub(crate) fn measures(&self) -> Option<&BTreeSet<String>> {
        self.measures.as_ref()
    }

    /// How long after its time an event is let in, in ms.
    pub(crate) fn lateness_ms(&self) -> i64 {
        self.lateness_ms
    }

    /// Whether a write key of a generation is good.
    pub(crate) fn lets_in(&self, generation: u32) -> bool {
        generation >= self.write_generation_min
    }

    /// How many events a second are taken; `None`: as many as there are.
    pub(crate) fn events_per_s(&self) -> Option<u32> {
        self.events_per_s
    }

    /// An event's members, where any of these rules needs more than its fields.
    pub(crate) fn members<'a>(&self, json: &'a str) -> Members<'a> {
        let is_needed = !self.properties.is_empty() || self.schemas.is_some();
        if is_needed { Members::read(json) } else { Members::default() }
    }

    /// The values of the client's own dimensions.
    pub(crate) fn own_values<'a>(&self, members: &'a Members<'_>) -> Vec<Option<&'a str>> {
        self.properties.iter().map(|property| members.text(property)).collect()
    }

    /// What an event has in a column, by itself (`given`) or by a lookup table.
    pub(crate) fn value<'v>(&'v self, column: Column, given: impl Fn(Column) -> Option<&'v str>) -> Option<&'v str> {
        given(column).or_else(|| {
            let (_, from, values) = self.lookups.iter().find(|(to, ..)| *to == column)?;
            values.get(given(*from)?).map(String::as_str)
        })
    }

    /// Holds an event against its schema: why it is rejected, or `Ok`, and whether it is warned of. `report` hears what no schema knows.
    pub(crate) fn check(
        &self,
        event_type: &str,
        members: &Members<'_>,
        report: impl FnMut(String),
    ) -> Result<bool, Reason> {
        let breach = self.schemas.as_ref().and_then(|schemas| schemas.breach(event_type, members, report));
        match breach {
            Some(reason) if self.mode == Mode::Enforce => Err(reason),
            breach => {
                Ok(breach
                    .is_some_and(|reason| !matches!(reason, Reason::SchemaUnknownType | Reason::SchemaUnknownField)))
            }
        }
    }
}
