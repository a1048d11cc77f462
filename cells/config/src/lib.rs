//! A client's config: what its operator sets, the aggregator stores, and the shards act on.
//!
//! Pure, and the same code wherever a config is read. [`Config::read`] takes what an operator wrote and says every mistake in it;
//! [`Config::encode`] and [`Config::decode`] are the bytes that are stored and shipped.

mod check;
pub mod limits;

use std::collections::{BTreeMap, BTreeSet};

use catchment_cells::limits::CONFIG_BYTES_MAX;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::limits::{
    LATENESS_MINUTES_MAX, MISTAKES_MAX, RETENTION_DAYS_MAX, VALUES_PER_DIMENSION_MAX, VALUES_PER_DIMENSION_MIN,
};

/// The version byte of a config's bytes.
const VERSION: u8 = 1;

/// What a client is set up as. The default is what a client has of which nothing was ever set.
///
/// Bytes: `u8 version = 1 ‖ JSON`, whose names are those of the fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(description = "What a client is set up as."))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Dimensions beside the built-in ones: name → the property whose text, number or boolean is the value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dimensions: BTreeMap<String, String>,
    /// Cubes beside the default ones. What was counted before a cube was declared isn't in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cubes: Vec<Cube>,
    /// The numbers that are measures; without a list all are, up to the bound of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measures: Option<BTreeSet<String>>,
    /// How long after its time an event is let in, in minutes, but for a backfill's. No longer than event_ids are remembered.
    pub lateness_minutes: u32,
    /// The clock that hours and days are cut on: a name of the IANA time zone database. Whether it has that is for whoever has one to check.
    #[serde(skip_serializing_if = "is_utc")]
    pub time_zone: String,
    /// For how long what is counted is kept; without it as the aggregator's own configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<RetentionDays>,
    /// Which keys are good.
    #[serde(skip_serializing_if = "is_default")]
    pub keys: Keys,
    /// Tables that give a dimension a value where the event has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lookups: Vec<Lookup>,
    /// What events are to look like.
    pub schemas: Schemas,
    /// What the client may take.
    #[serde(skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
}

/// What a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Values of one dimension that are told apart on a day of UTC: half of them whatever they are, the rest as they come often. Others
    /// become `(other)`.
    pub values_per_dimension: u32,
    /// Events a second in each region, but for a backfill's; without a number, as much as shards take. A shard of the client's own takes its even part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_s: Option<u32>,
}

impl Limits {
    fn is_default(&self) -> bool {
        *self == Limits::default()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits { values_per_dimension: 50_000, events_per_s: None }
    }
}

/// For how many days each tier is kept before the present one, on the client's clock; without a number, for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RetentionDays {
    /// Minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minute: Option<u32>,
    /// Hours: no shorter than minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hour: Option<u32>,
    /// Days: no shorter than hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<u32>,
}

/// The least generation of keys that are good: those made before are revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// Of write keys.
    pub write_generation_min: u32,
    /// Of read keys.
    pub read_generation_min: u32,
}

/// A cube of the client's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Cube {
    /// Its name, which stays taken: name and dimensions of a cube are final.
    pub name: String,
    /// Its dimensions, in the order of a cell's values.
    pub dimensions: Vec<String>,
    /// Whether its measures carry digests, for quantiles.
    #[serde(default)]
    pub digest: bool,
}

/// A lookup table: value of one dimension → value of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// The dimension that gets a value.
    pub dimension: String,
    /// The dimension that is looked up, as the event has it.
    pub from: String,
    /// The table.
    pub values: BTreeMap<String, String>,
}

/// Schemas, and what is done about them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Schemas {
    /// What becomes of an event that breaks its schema.
    pub mode: Mode,
    /// Event type → its schema.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<String, Schema>,
}

/// What becomes of events that break their schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nobody looks.
    #[default]
    Off,
    /// They are counted, and counted as `schema_warned`. Types and fields that no schema knows are reported.
    Warn,
    /// They are rejected, and so is what no schema knows, which is reported all the same.
    Enforce,
}

/// What an event of one type is to look like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Schema {
    /// Its fields beside those that every event may have: those of the event itself, and its properties.
    pub fields: BTreeMap<String, Field>,
}

/// What a field is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Field {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whether an event has to have it.
    pub required: bool,
    /// The only values that it may have; numbers and booleans as their text.
    #[serde(rename = "enum", skip_serializing_if = "Option::is_none")]
    pub values: Option<BTreeSet<String>>,
}

/// A field's type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Any.
    #[default]
    Any,
    /// A text.
    String,
    /// A number.
    Number,
    /// A boolean.
    Boolean,
}

/// What a report of something that no schema knows begins with. Reports travel as counters, whose reasons they are: final.
pub const NEW_TYPE: &str = "new_type:";
/// See [`NEW_TYPE`].
pub const NEW_FIELD: &str = "new_field:";

/// The clock of whoever sets none.
pub const UTC: &str = "UTC";

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_utc(time_zone: &str) -> bool {
    time_zone == UTC
}

/// Whether the reason of a counter is such a report.
pub fn is_report(reason: &str) -> bool {
    reason.starts_with(NEW_TYPE) || reason.starts_with(NEW_FIELD)
}

/// What is wrong with a config, a sentence each: which field, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.join("; "))]
pub struct Mistakes(pub Vec<String>);

/// Bytes that are no config that this code reads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Another version.
    #[error("a config of version {0:?} is unknown")]
    Version(Option<u8>),
    /// It isn't one that would be taken.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

impl Default for Config {
    fn default() -> Self {
        Config {
            dimensions: BTreeMap::new(),
            cubes: Vec::new(),
            measures: None,
            lateness_minutes: LATENESS_MINUTES_MAX,
            time_zone: UTC.into(),
            retention_days: None,
            keys: Keys::default(),
            lookups: Vec::new(),
            schemas: Schemas::default(),
            limits: Limits::default(),
        }
    }
}

impl RetentionDays {
    /// The days of minutes, of hours and of days.
    pub fn tiers(self) -> [Option<u32>; 3] {
        [self.minute, self.hour, self.day]
    }

    /// Whether coarser tiers are kept at least as long as finer ones, and all for a time that can be meant.
    pub fn is_sound(self) -> bool {
        let days = self.tiers().map(|days| days.unwrap_or(u32::MAX));
        days.is_sorted() && self.tiers().iter().flatten().all(|days| (1..=RETENTION_DAYS_MAX).contains(days))
    }
}

impl Config {
    /// Reads and checks what an operator wrote, as JSON.
    pub fn read(json: &[u8]) -> Result<Config, Mistakes> {
        if json.len() > CONFIG_BYTES_MAX {
            return Err(Mistakes(vec![format!("a config has at most {CONFIG_BYTES_MAX} bytes")]));
        }
        let config: Config = serde_json::from_slice(json).map_err(|error| Mistakes(vec![error.to_string()]))?;
        config.check()?;
        // Written again it may be longer, by what stands in it as a default.
        if config.encode().len() > CONFIG_BYTES_MAX {
            return Err(Mistakes(vec![format!("a config has at most {CONFIG_BYTES_MAX} bytes as it is stored")]));
        }
        Ok(config)
    }

    /// Checks it, and says every mistake.
    pub fn check(&self) -> Result<(), Mistakes> {
        let mut mistakes = check::mistakes(self);
        if mistakes.len() > MISTAKES_MAX {
            let more = mistakes.len() - MISTAKES_MAX;
            mistakes.truncate(MISTAKES_MAX);
            mistakes.push(format!("and {more} more"));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes(mistakes)) }
    }

    /// The config's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        serde_json::to_writer(&mut out, self).expect("its keys are texts, and a Vec takes all that is written");
        out
    }

    /// What still holds of bytes that can't be [decoded](Config::decode): which keys are revoked, and what the client may take.
    pub fn salvage(bytes: &[u8]) -> Config {
        let json = bytes.strip_prefix(&[VERSION]).and_then(|json| serde_json::from_slice::<Value>(json).ok());
        let fields = json.unwrap_or_default();
        let number = |object: &str, field: &str| u32::try_from(fields.get(object)?.get(field)?.as_u64()?).ok();
        let none = Config::default();
        Config {
            keys: Keys {
                write_generation_min: number("keys", "write_generation_min").unwrap_or_default(),
                read_generation_min: number("keys", "read_generation_min").unwrap_or_default(),
            },
            limits: Limits {
                values_per_dimension: number("limits", "values_per_dimension")
                    .unwrap_or(none.limits.values_per_dimension)
                    .clamp(VALUES_PER_DIMENSION_MIN, VALUES_PER_DIMENSION_MAX),
                events_per_s: number("limits", "events_per_s"),
            },
            ..none
        }
    }

    /// Reads bytes that were encoded, and checks them: they may come from another version of this code.
    pub fn decode(bytes: &[u8]) -> Result<Config, DecodeError> {
        match bytes.split_first() {
            Some((&VERSION, json)) => Ok(Config::read(json)?),
            other => Err(DecodeError::Version(other.map(|(version, _)| *version))),
        }
    }
}
