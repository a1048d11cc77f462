//! The bounds of a config. Of its bytes and its cubes they are in `catchment_cells::limits`.

/// Dimensions of its own that a client may have.
pub const DIMENSIONS_MAX: usize = 32;
/// Measures that a config may list.
pub const MEASURES_MAX: usize = 60;
/// Lookup tables.
pub const LOOKUPS_MAX: usize = 8;
/// Entries of all lookup tables.
pub const LOOKUP_ENTRIES_MAX: usize = 10_000;
/// Event types that have a schema.
pub const SCHEMAS_MAX: usize = 200;
/// Fields of all schemas.
pub const SCHEMA_FIELDS_MAX: usize = 2_000;
/// The longest lateness, in minutes: what de-duplication remembers.
pub const LATENESS_MINUTES_MAX: u32 = 24 * 60;
/// The longest retention that is no eternity, in days.
pub const RETENTION_DAYS_MAX: u32 = 36_500;
/// Values of a dimension that are told apart on a day, at least and at most.
pub const VALUES_PER_DIMENSION_MIN: u32 = 10;
/// See [`VALUES_PER_DIMENSION_MIN`].
pub const VALUES_PER_DIMENSION_MAX: u32 = 500_000;
/// Mistakes that are told of one config.
pub const MISTAKES_MAX: usize = 20;
